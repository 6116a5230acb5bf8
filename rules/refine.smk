# DGR: the target model rewrites the safety data in its own words; filters; falls back to the original (Eq. 3).


rule refine:
    input:
        rows=lambda wildcards: STUDY.rows(wildcards.dataset),
        model=lambda wildcards: STUDY.model(wildcards.model),
        prompts=lambda wildcards: STUDY.refinement_files(wildcards.refinement),
    output:
        rows=f"{RESULTS}/refined/{{dataset}}/{{model}}/{{refinement}}/rows.jsonl",
        report=f"{RESULTS}/refined/{{dataset}}/{{model}}/{{refinement}}/report.json",
    log:
        f"{LOGS}/refine/{{dataset}}--{{model}}--{{refinement}}.log",
    benchmark:
        f"{TIMES}/refine/{{dataset}}--{{model}}--{{refinement}}.tsv"
    priority: 10  # everything waits for it
    conda:
        "../envs/infer.yaml"
    threads: STUDY.config.compute.threads
    resources:
        gpu=STUDY.gpus,
        nodes=1,
        mem_mb=lambda wildcards: STUDY.memory(wildcards.model, "generate"),
        runtime=STUDY.config.compute.runtime,
    params:
        spec=lambda wildcards: json.dumps(
            STUDY.refinement_spec(
                wildcards.dataset, wildcards.model, wildcards.refinement
            )
        ),
        model=lambda wildcards, input: folder(input.model),
        work=f"{RESULTS}/work/refine-{{dataset}}-{{model}}-{{refinement}}.jsonl",
    message:
        "Refine {wildcards.dataset} with {wildcards.model} ({wildcards.refinement})"
    shell:
        "python scripts/refine.py --spec {params.spec:q} --rows {input.rows} --model {params.model}"
        " --output {output.rows} --report {output.report} --work-file {params.work} > {log} 2>&1"
