# Raw files -> rows {id, prompt, reasoning, answer, harmful, category, source}; raw weights -> model folders.


rule prepare_dataset:
    input:
        assets=lambda wildcards: [
            STUDY.asset(name)
            for name in STUDY.config.datasets[wildcards.dataset].assets
        ],
        against=lambda wildcards: [
            STUDY.prepared(name)
            for name in STUDY.config.datasets[wildcards.dataset].decontaminate_against
        ],
        texts=lambda wildcards: STUDY.dataset_files(wildcards.dataset),
    output:
        rows=f"{RESULTS}/datasets/{{dataset}}/rows.jsonl",
        report=f"{RESULTS}/datasets/{{dataset}}/report.json",
    log:
        f"{LOGS}/prepare_dataset/{{dataset}}.log",
    benchmark:
        f"{TIMES}/prepare_dataset/{{dataset}}.tsv"
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        spec=lambda wildcards: json.dumps(STUDY.dataset_spec(wildcards.dataset)),
        assets=lambda wildcards: pairs(
            "--asset",
            {
                name: folder(STUDY.asset(name))
                for name in STUDY.config.datasets[wildcards.dataset].assets
            },
        ),
        against=lambda wildcards, input: [
            part for path in input.against for part in ("--against", path)
        ],
    message:
        "Prepare the rows of {wildcards.dataset}"
    shell:
        "python scripts/prepare_dataset.py --spec {params.spec:q} {params.assets:q} {params.against:q}"
        " --output {output.rows} --report {output.report} > {log} 2>&1"


rule distil:
    input:
        rows=lambda wildcards: STUDY.prepared(wildcards.dataset),
        model=lambda wildcards: STUDY.teacher_models(wildcards.dataset),
        texts=lambda wildcards: STUDY.teacher_files(wildcards.dataset),
        graders=lambda wildcards: STUDY.teacher_graders(wildcards.dataset),
    output:
        rows=f"{RESULTS}/distilled/{{dataset}}/rows.jsonl",
        report=f"{RESULTS}/distilled/{{dataset}}/report.json",
    log:
        f"{LOGS}/distil/{{dataset}}.log",
    benchmark:
        f"{TIMES}/distil/{{dataset}}.tsv"
    priority: 20  # everything waits for it
    conda:
        "../envs/infer.yaml"
    threads: lambda wildcards: STUDY.teacher_threads(wildcards.dataset)
    resources:
        gpu=lambda wildcards: (
            STUDY.gpus if STUDY.teacher_models(wildcards.dataset) else 0
        ),
        nodes=1,
        mem_mb=lambda wildcards: STUDY.memory(
            STUDY.config.datasets[wildcards.dataset].teacher.model, "generate"
        ),
        runtime=STUDY.config.compute.runtime,
    params:
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(STUDY.teacher_spec(wildcards.dataset)),
        model=lambda wildcards, input: (
            ["--model", folder(input.model[0])] if input.model else []
        ),
        upstream=lambda wildcards: STUDY.upstream(wildcards.dataset),
        work=f"{RESULTS}/work/distil-{{dataset}}.jsonl",
    message:
        "Distil {wildcards.dataset} from its teacher"
    shell:
        "{params.start} scripts/distil.py --spec {params.spec:q} --rows {input.rows} {params.model:q} {params.upstream:q}"
        " --output {output.rows} --report {output.report} --work-file {params.work} > {log} 2>&1"


rule judge_rows:
    input:
        rows=lambda wildcards: STUDY.rows(wildcards.dataset),
        model=lambda wildcards: STUDY.judge_models(wildcards.judge),
        prompt=lambda wildcards: STUDY.judge_files(wildcards.judge),
        code=lambda wildcards: STUDY.judge_code(wildcards.judge),
    output:
        f"{RESULTS}/row_verdicts/{{dataset}}/{{judge}}.jsonl",
    log:
        f"{LOGS}/judge_rows/{{dataset}}--{{judge}}.log",
    benchmark:
        f"{TIMES}/judge_rows/{{dataset}}--{{judge}}.tsv"
    priority: 20  # everything waits for it
    conda:
        "../envs/infer.yaml"
    threads: lambda wildcards: STUDY.judge_threads(wildcards.judge)
    resources:
        gpu=lambda wildcards: STUDY.gpus if STUDY.judge_models(wildcards.judge) else 0,
        nodes=1,
        mem_mb=lambda wildcards: STUDY.judge_memory(wildcards.judge),
        runtime=STUDY.config.compute.runtime,
    params:
        start=lambda wildcards, resources: launcher(resources),
        spec=lambda wildcards: json.dumps(
            STUDY.row_judge_spec(wildcards.dataset, wildcards.judge)
        ),
        model=lambda wildcards, input: (
            ["--model", folder(input.model[0])] if input.model else []
        ),
        work=lambda wildcards: judge_work(wildcards.judge, wildcards.dataset),
    message:
        "Judge the rows of {wildcards.dataset} with {wildcards.judge}"
    shell:
        "{params.start} scripts/judge_rows.py --spec {params.spec:q} --rows {input.rows} {params.model:q} {params.work:q} --output {output} > {log} 2>&1"


rule filter_rows:
    input:
        rows=lambda wildcards: STUDY.rows(STUDY.source(wildcards.dataset)),
        verdicts=lambda wildcards: STUDY.row_verdicts(wildcards.dataset).values(),
    output:
        rows=f"{RESULTS}/filtered/{{dataset}}/rows.jsonl",
        report=f"{RESULTS}/filtered/{{dataset}}/report.json",
    log:
        f"{LOGS}/filter_rows/{{dataset}}.log",
    benchmark:
        f"{TIMES}/filter_rows/{{dataset}}.tsv"
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        spec=lambda wildcards: json.dumps(STUDY.filter_spec(wildcards.dataset)),
        verdicts=lambda wildcards: pairs(
            "--verdicts", STUDY.row_verdicts(wildcards.dataset)
        ),
    message:
        "Filter and draw the rows of {wildcards.dataset}"
    shell:
        "python scripts/filter_rows.py --spec {params.spec:q} --rows {input.rows} {params.verdicts:q}"
        " --output {output.rows} --report {output.report} > {log} 2>&1"


rule prepare_model:
    input:
        asset=lambda wildcards: [
            STUDY.asset(name) for name in STUDY.model_assets(wildcards.model)
        ],
        base=lambda wildcards: STUDY.adapter_base(wildcards.model),
        all_assets=ancient(rules.assets.output[0]),
    output:
        f"{RESULTS}/models/{{model}}/manifest.json",
    log:
        f"{LOGS}/prepare_model/{{model}}.log",
    benchmark:
        f"{TIMES}/prepare_model/{{model}}.tsv"
    conda:
        "../envs/infer.yaml"
    threads: STUDY.config.compute.threads
    resources:
        mem_mb=lambda wildcards: STUDY.memory(wildcards.model, "convert"),
        runtime=60,
    params:
        spec=lambda wildcards: json.dumps(STUDY.model_spec(wildcards.model)),
        asset=lambda wildcards, input: (
            ["--asset", folder(input.asset[0])] if input.asset else []
        ),
        base=lambda wildcards, input: (
            ["--base", folder(input.base[0])] if input.base else []
        ),
        folder=lambda wildcards, output: folder(output[0]),
    message:
        "Prepare the model {wildcards.model} (safetensors, tokenizer, chat template)"
    shell:
        "python scripts/prepare_model.py --spec {params.spec:q} {params.asset:q} {params.base:q} --output {params.folder} > {log} 2>&1"


rule measure_lengths:
    input:
        rows=lambda wildcards: STUDY.rows(STUDY.source(wildcards.dataset)),
        verdicts=lambda wildcards: STUDY.row_verdicts(wildcards.dataset).values(),
        drawn=lambda wildcards: STUDY.rows(wildcards.dataset),
        tokenizer=lambda wildcards: STUDY.model(wildcards.model),
    output:
        f"{RESULTS}/lengths/{{model}}/{{dataset}}.json",
    log:
        f"{LOGS}/measure_lengths/{{model}}--{{dataset}}.log",
    benchmark:
        f"{TIMES}/measure_lengths/{{model}}--{{dataset}}.tsv"
    conda:
        "../envs/infer.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        spec=lambda wildcards: json.dumps(
            STUDY.lengths_spec(wildcards.model, wildcards.dataset)
        ),
        verdicts=lambda wildcards: pairs(
            "--verdicts", STUDY.row_verdicts(wildcards.dataset)
        ),
        tokenizer=lambda wildcards, input: folder(input.tokenizer),
    message:
        "Count the tokens of the responses of {wildcards.dataset} with the tokenizer of {wildcards.model}"
    shell:
        "python scripts/measure_lengths.py --spec {params.spec:q} --rows {input.rows} {params.verdicts:q} --drawn {input.drawn}"
        " --tokenizer {params.tokenizer} --output {output} > {log} 2>&1"
