# DGR: the target model rewrites the safety data in its own words; filters choose, and fall back to the original (Eq. 3).
# Rewriting costs the GPU hours and is shared by every refinement that asks the same of the model, so a filter never generates again.


rule rewrite:
    input:
        rows=lambda wildcards: STUDY.rows(wildcards.dataset),
        model=lambda wildcards: STUDY.model(wildcards.model),
        prompts=lambda wildcards: STUDY.rewrite_files(wildcards.refinement),
    output:
        f"{RESULTS}/rewritten/{{dataset}}/{{model}}/{{refinement}}/generations.jsonl",
    log:
        f"{LOGS}/rewrite/{{dataset}}--{{model}}--{{refinement}}.log",
    benchmark:
        f"{TIMES}/rewrite/{{dataset}}--{{model}}--{{refinement}}.tsv"
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
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(
            STUDY.rewrite_spec(
                wildcards.dataset, wildcards.model, wildcards.refinement
            )
        ),
        model=lambda wildcards, input: folder(input.model),
        work=f"{RESULTS}/work/rewrite-{{dataset}}-{{model}}-{{refinement}}.jsonl",
    message:
        "Rewrite {wildcards.dataset} with {wildcards.model} ({wildcards.refinement})"
    shell:
        "{params.start} scripts/rewrite.py --spec {params.spec:q} --rows {input.rows} --model {params.model}"
        " --output {output} --work-file {params.work} > {log} 2>&1"


rule refine:
    input:
        rows=lambda wildcards: STUDY.rows(wildcards.dataset),
        rewrites=lambda wildcards: STUDY.rewrites(
            wildcards.dataset, wildcards.model, wildcards.refinement
        ),
        lists=lambda wildcards: STUDY.filter_files(wildcards.refinement),
    output:
        rows=f"{RESULTS}/refined/{{dataset}}/{{model}}/{{refinement}}/rows.jsonl",
        report=f"{RESULTS}/refined/{{dataset}}/{{model}}/{{refinement}}/report.json",
    log:
        f"{LOGS}/refine/{{dataset}}--{{model}}--{{refinement}}.log",
    benchmark:
        f"{TIMES}/refine/{{dataset}}--{{model}}--{{refinement}}.tsv"
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        spec=lambda wildcards: json.dumps(
            STUDY.refinement_spec(
                wildcards.dataset, wildcards.model, wildcards.refinement
            )
        ),
    message:
        "Refine {wildcards.dataset} with {wildcards.model} ({wildcards.refinement})"
    shell:
        "python scripts/refine.py --spec {params.spec:q} --rows {input.rows} --rewrites {input.rewrites}"
        " --output {output.rows} --report {output.report} > {log} 2>&1"
