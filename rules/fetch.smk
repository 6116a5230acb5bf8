# The only rules that fetch. Everything after them runs with the hub switched off; of the network it sees the servers of teachers and judges at most.


localrules:
    fetch,
    assets,


# Snakemake calls this when the jobs are known and none has started: not in a dry run, and not in the processes that run single jobs.
onstart:
    unlimited(workflow)
    jobs = list(workflow.dag.needrun_jobs())
    refuse(
        [job.wildcards.asset for job in jobs if job.rule.name == "fetch"],
        any(
            job.rule.name.startswith(("distil", "attack", "judge")) for job in jobs
        ),
    )


rule fetch:
    output:
        "results/assets/{asset}/asset.json",
    log:
        "logs/assets/{asset}.log",
    priority: 30  # what cannot be fetched should be known first, and everything waits for it
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=500,
        runtime=120,
    params:
        pin=lambda wildcards: STUDY.pin(wildcards.asset),
        doubt=lambda wildcards: (
            f"; NOT VERIFIED, so it cannot be fetched yet: python scripts/lock_assets.py {wildcards.asset}"
            if STUDY.asset_unverified(wildcards.asset)
            else ""
        ),
    message:
        "Fetch {wildcards.asset} (pin {params.pin}) and check its sha256{params.doubt}"
    shell:
        "python scripts/fetch.py {wildcards.asset} --output results/assets/{wildcards.asset} > {log} 2>&1"


# No model is prepared before this: a wrong byte is told before any work on a GPU, even where other jobs go on after a failure.
rule assets:
    input:
        lambda wildcards: [
            STUDY.asset(name)
            for name in STUDY.assets_asked(workflow.dag_settings.targets)
        ],
    output:
        f"{RESULTS}/assets.txt",
    log:
        f"{LOGS}/assets.log",
    priority: 30
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=500,
        runtime=5,
    message:
        "Everything from outside is here and checked"
    shell:  # the pause: see list_runs
        "sleep 0.05; printf '%s\\n' {input:q} > {output} 2> {log}"
