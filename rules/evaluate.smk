# Checkpoint x suite -> samples (every prompt, every generation) through lm-evaluation-harness; one model load for a whole suite.


rule evaluate:
    input:
        checkpoint=lambda wildcards: STUDY.checkpoint(wildcards.run),
        rows=lambda wildcards: suite_rows(wildcards.run).values(),
        tasks=lambda wildcards: [
            STUDY.config.benchmarks[name].task for name in STUDY.suites[wildcards.run]
        ],
        graders="benchmarks/grading.py",
    output:
        f"{RESULTS}/runs/{{run}}/samples.jsonl",
    log:
        f"{LOGS}/evaluate/{{run}}.log",
    benchmark:
        f"{TIMES}/evaluate/{{run}}.tsv"
    conda:
        "../envs/infer.yaml"
    threads: STUDY.config.compute.threads
    resources:
        gpu=STUDY.gpus,
        nodes=1,
        mem_mb=lambda wildcards: STUDY.memory(
            STUDY.runs[wildcards.run]["model"], "generate"
        ),
        runtime=STUDY.config.compute.runtime,
    params:
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(STUDY.evaluation_spec(wildcards.run)),
        checkpoint=lambda wildcards, input: folder(input.checkpoint),
        rows=lambda wildcards: pairs("--rows", suite_rows(wildcards.run)),
        cache=(
            ["--cache", f"{RESULTS}/work/evaluate-{{run}}"]
            if STUDY.config.compute.resume_evaluation
            else []
        ),
    message:
        "Evaluate {wildcards.run}"
    shell:
        "{params.start} scripts/evaluate.py --spec {params.spec:q} --checkpoint {params.checkpoint} {params.rows:q} {params.cache:q}"
        " --samples {output} > {log} 2>&1"
