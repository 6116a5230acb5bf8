# The only rules that use a network. Everything after them runs with the hub switched off.


localrules:
    fetch,


rule fetch:
    output:
        "results/assets/{asset}/asset.json",
    log:
        "logs/assets/{asset}.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=500,
        runtime=120,
    params:
        pin=lambda wildcards: STUDY.pin(wildcards.asset),
    message:
        "Fetch {wildcards.asset} (pin {params.pin}) and check its sha256"
    shell:
        "python scripts/fetch.py {wildcards.asset} --output results/assets/{wildcards.asset} > {log} 2>&1"
