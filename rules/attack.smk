# Prompts x attack -> attacked prompts. What does not ask the model under test is made once for all runs; PAIR asks it, so every run has its own.


rule attack:
    input:
        rows=lambda wildcards: STUDY.rows(
            STUDY.config.benchmarks[wildcards.benchmark].dataset
        ),
        models=lambda wildcards: STUDY.attack_models(wildcards.benchmark).values(),
        table=lambda wildcards: STUDY.attack_table(wildcards.benchmark),
        prompts=lambda wildcards: STUDY.attack_files(wildcards.benchmark),
    output:
        rows=f"{RESULTS}/attacked/{{benchmark}}/rows.jsonl",
        records=f"{RESULTS}/attacked/{{benchmark}}/records.jsonl",
    log:
        f"{LOGS}/attack/{{benchmark}}.log",
    benchmark:
        f"{TIMES}/attack/{{benchmark}}.tsv"
    conda:
        "../envs/infer.yaml"
    threads: STUDY.config.compute.threads
    resources:
        gpu=lambda wildcards: (
            STUDY.gpus if STUDY.attack_models(wildcards.benchmark) else 0
        ),
        nodes=1,
        mem_mb=lambda wildcards: STUDY.attack_memory(wildcards.benchmark),
        runtime=STUDY.config.compute.runtime,
    params:
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(STUDY.attack_spec(wildcards.benchmark)),
        models=lambda wildcards: attack_models(wildcards.benchmark),
        table=lambda wildcards, input: (
            ["--table", folder(input.table[0])] if input.table else []
        ),
        work=f"{RESULTS}/work/attack-{{benchmark}}.jsonl",
    message:
        "Attack the prompts of {wildcards.benchmark}"
    shell:
        "{params.start} scripts/attack.py --spec {params.spec:q} --rows {input.rows} {params.models:q} {params.table:q}"
        " --work-file {params.work} --output {output.records} --output-rows {output.rows} > {log} 2>&1"


use rule attack as attack_run with:  # the attack asks the model under test
    input:
        rows=lambda wildcards: STUDY.rows(
            STUDY.config.benchmarks[wildcards.benchmark].dataset
        ),
        models=lambda wildcards: STUDY.attack_models(wildcards.benchmark).values(),
        checkpoint=lambda wildcards: STUDY.checkpoint(wildcards.run),
        prompts=lambda wildcards: STUDY.attack_files(wildcards.benchmark),
    output:
        rows=f"{RESULTS}/runs/{{run}}/attacked/{{benchmark}}/rows.jsonl",
        records=f"{RESULTS}/runs/{{run}}/attacked/{{benchmark}}/records.jsonl",
    log:
        f"{LOGS}/attack_run/{{run}}--{{benchmark}}.log",
    benchmark:
        f"{TIMES}/attack_run/{{run}}--{{benchmark}}.tsv"
    resources:
        gpu=STUDY.gpus,
        nodes=1,
        mem_mb=lambda wildcards: STUDY.attack_memory(wildcards.benchmark, wildcards.run),
        runtime=STUDY.config.compute.runtime,
    params:
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(
            STUDY.attack_spec(wildcards.benchmark, wildcards.run)
        ),
        models=lambda wildcards: [
            *attack_models(wildcards.benchmark),
            "--target-model",
            folder(STUDY.checkpoint(wildcards.run)),
        ],
        table=[],
        work=f"{RESULTS}/work/attack-{{run}}-{{benchmark}}.jsonl",
    message:
        "Attack {wildcards.run} on {wildcards.benchmark}"
