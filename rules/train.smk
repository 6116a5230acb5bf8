# Rows -> a run's training set -> its checkpoint. The reasoning stage of a model is a run like any other.


rule mix:
    input:
        rows=lambda wildcards: STUDY.safety_rows(wildcards.run),
        mixed=lambda wildcards: [
            STUDY.rows(part["dataset"]) for part in STUDY.specs[wildcards.run]["mix"]
        ],
    output:
        spec=f"{RESULTS}/runs/{{run}}/run.yaml",
        rows=f"{RESULTS}/runs/{{run}}/train.jsonl",
        card=f"{RESULTS}/runs/{{run}}/card.md",
    log:
        f"{LOGS}/mix/{{run}}.log",
    benchmark:
        f"{TIMES}/mix/{{run}}.tsv"
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=1000,
        runtime=15,
    params:
        spec=lambda wildcards: json.dumps(STUDY.specs[wildcards.run]),
        rows=lambda wildcards, input: ["--rows", *input.rows] if input.rows else [],
        mixed=lambda wildcards: pairs(
            "--mixed",
            {
                part["dataset"]: STUDY.rows(part["dataset"])
                for part in STUDY.specs[wildcards.run]["mix"]
            },
        ),
        folder=lambda wildcards, output: folder(output.spec),
        origins=lambda wildcards: json.dumps(origins(STUDY, wildcards.run)),
    message:
        "Draw and mix the training set of {wildcards.run}"
    shell:
        "python scripts/mix.py --spec {params.spec:q} {params.rows:q} {params.mixed:q} --origins {params.origins:q}"
        " --output-folder {params.folder} > {log} 2>&1"


rule train:
    input:
        run=rules.mix.output.spec,
        rows=rules.mix.output.rows,
        base=lambda wildcards: STUDY.model(STUDY.trained[wildcards.run]["model"]),
        template=lambda wildcards: STUDY.train_files(wildcards.run),
    output:
        f"{RESULTS}/runs/{{run}}/checkpoint/manifest.json",
    log:
        f"{LOGS}/train/{{run}}.log",
    benchmark:
        f"{TIMES}/train/{{run}}.tsv"
    priority: 10  # everything waits for it
    conda:
        "../envs/train.yaml"
    threads: lambda wildcards: STUDY.train_threads(wildcards.run)
    resources:
        gpu=STUDY.train_gpus,
        nodes=1,
        mem_mb=lambda wildcards: STUDY.memory(
            STUDY.trained[wildcards.run]["model"], "train"
        ),
        runtime=STUDY.config.compute.runtime,
    params:
        base=lambda wildcards, input: folder(input.base),
        folder=lambda wildcards, output: folder(output[0]),
        dtype=lambda wildcards: STUDY.config.models[
            STUDY.trained[wildcards.run]["model"]
        ].dtype,
        start=lambda wildcards, resources: launcher(resources, STUDY.launcher()),
        work=f"{RESULTS}/work",
        origins=lambda wildcards: json.dumps(origins(STUDY, wildcards.run)),
    message:
        "Train {wildcards.run}"
    shell:
        "{params.start} scripts/train.py --run {input.run} --train {input.rows} --base {params.base}"
        " --output {params.folder} --work {params.work} --dtype {params.dtype} --origins {params.origins:q} > {log} 2>&1"
