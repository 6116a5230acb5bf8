# Base + checkpoint -> distribution shift; everything -> one tidy metrics table.


rule measure_shift:
    input:
        base=lambda wildcards: STUDY.model(STUDY.runs[wildcards.run]["model"]),
        checkpoint=lambda wildcards: STUDY.checkpoint(wildcards.run),
        encoder=lambda wildcards: STUDY.asset(STUDY.config.shift.encoder),
        base_samples=lambda wildcards: f"{RESULTS}/runs/base--{STUDY.runs[wildcards.run]['model']}/samples.jsonl",
        samples=rules.evaluate.output[0],
        rows=rules.mix.output.rows,
    output:
        f"{RESULTS}/runs/{{run}}/shift.json",
    log:
        f"{LOGS}/measure_shift/{{run}}.log",
    benchmark:
        f"{TIMES}/measure_shift/{{run}}.tsv"
    conda:
        "../envs/infer.yaml"
    threads: STUDY.config.compute.threads
    resources:
        gpu=STUDY.gpus,
        nodes=1,
        mem_mb=lambda wildcards: STUDY.memory(
            STUDY.runs[wildcards.run]["model"], "compare"
        ),
        runtime=STUDY.config.compute.runtime,
    params:
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(STUDY.shift_spec(wildcards.run)),
        base=lambda wildcards, input: folder(input.base),
        checkpoint=lambda wildcards, input: folder(input.checkpoint),
        encoder=lambda wildcards, input: folder(input.encoder),
    message:
        "Measure the distribution shift of {wildcards.run}"
    shell:
        "{params.start} scripts/measure_shift.py --spec {params.spec:q} --base-model {params.base} --checkpoint {params.checkpoint}"
        " --encoder {params.encoder} --base-samples {input.base_samples} --samples {input.samples} --train {input.rows}"
        " --output {output} > {log} 2>&1"


rule list_runs:
    output:
        f"{RESULTS}/runs.txt",
    log:
        f"{LOGS}/list_runs.log",
    localrule: True
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=500,
        runtime=5,
    params:
        runs=[f"{RESULTS}/runs/{run}" for run in STUDY.runs],
    message:
        "List the runs of the study"
    shell:  # the pause: one job of 0.000 s would blank the report's plot of runtimes, whose axis is logarithmic
        "sleep 0.05; printf '%s\\n' {params.runs:q} > {output} 2> {log}"


use rule list_runs as list_part with:  # the runs of the experiments that a figure or table shows
    output:
        f"{RESULTS}/parts/{{part}}/runs.txt",
    log:
        f"{LOGS}/list_part/{{part}}.log",
    params:
        runs=lambda wildcards: [
            f"{RESULTS}/runs/{run}" for run in STUDY.part_of(wildcards.part).runs
        ],
    message:
        "List the runs of {wildcards.part}"


rule collect:
    input:
        STUDY.measured(),
        runs=rules.list_runs.output[0],
        code=[
            "scripts/collect.py",
            "scripts/untaxed/metrics.py",
            "scripts/untaxed/statistics.py",
            "scripts/untaxed/judges.py",
        ],
    output:
        metrics=f"{RESULTS}/metrics.csv",
        scores=f"{RESULTS}/items.parquet",
    log:
        f"{LOGS}/collect.log",
    benchmark:
        f"{TIMES}/collect.tsv"
    conda:
        "../envs/plot.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        judges=STUDY.config.study.judges,  # in their order
    message:
        "Collect every run into one metrics table"
    shell:
        "python scripts/collect.py --runs-file {input.runs} --judges {params.judges:q} --output {output.metrics} --items {output.scores}"
        " > {log} 2>&1"


use rule collect as collect_part with:
    input:
        lambda wildcards: STUDY.part_of(wildcards.part).measured(),
        runs=rules.list_part.output[0],
        code=[
            "scripts/collect.py",
            "scripts/untaxed/metrics.py",
            "scripts/untaxed/statistics.py",
            "scripts/untaxed/judges.py",
        ],
    output:
        metrics=f"{RESULTS}/parts/{{part}}/metrics.csv",
        scores=f"{RESULTS}/parts/{{part}}/items.parquet",
    log:
        f"{LOGS}/collect_part/{{part}}.log",
    benchmark:
        f"{TIMES}/collect_part/{{part}}.tsv"
    message:
        "Collect the runs of {wildcards.part} into one metrics table"
