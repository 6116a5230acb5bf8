# Samples x judge -> verdicts; re-judging never generates again. Each judge is measured on a human-labelled set, and against every other.


rule judge:
    input:
        samples=rules.evaluate.output[0],
        model=lambda wildcards: STUDY.judge_models(wildcards.judge),
        prompt=lambda wildcards: STUDY.judge_files(wildcards.judge),
        code=lambda wildcards: STUDY.judge_code(wildcards.judge),
    output:
        f"{RESULTS}/runs/{{run}}/verdicts/{{judge}}.jsonl",
    log:
        f"{LOGS}/judge/{{run}}--{{judge}}.log",
    benchmark:
        f"{TIMES}/judge/{{run}}--{{judge}}.tsv"
    wildcard_constraints:
        judge=any_of(STUDY.judges_that_ask(True)),
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
        spec=lambda wildcards: json.dumps(STUDY.judge_spec(wildcards.judge)),
        model=lambda wildcards, input: (
            ["--model", folder(input.model[0])] if input.model else []
        ),
        work=lambda wildcards: judge_work(wildcards.judge, wildcards.run),
    message:
        "Judge the samples of {wildcards.run} with {wildcards.judge}"
    shell:
        "{params.start} scripts/judge.py --spec {params.spec:q} --samples {input.samples} {params.model:q} {params.work:q} --output {output} > {log} 2>&1"


use rule judge as judge_phrases with:  # apart, since it takes an instant: a mean over both would tell nothing of either
    log:
        f"{LOGS}/judge_phrases/{{run}}--{{judge}}.log",
    benchmark:
        f"{TIMES}/judge_phrases/{{run}}--{{judge}}.tsv"
    wildcard_constraints:
        judge=any_of(STUDY.judges_that_ask(False)),
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=1000,
        runtime=15,
    message:
        "Look for the phrases of {wildcards.judge} in the samples of {wildcards.run}"


rule judge_agreement:
    input:
        labelled=lambda wildcards: STUDY.asset(STUDY.labelled(wildcards.judge)),
        model=lambda wildcards: STUDY.judge_models(wildcards.judge),
        prompt=lambda wildcards: STUDY.judge_files(wildcards.judge),
    output:
        f"{RESULTS}/agreement/{{judge}}.json",
    log:
        f"{LOGS}/judge_agreement/{{judge}}.log",
    benchmark:
        f"{TIMES}/judge_agreement/{{judge}}.tsv"
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
        spec=lambda wildcards: json.dumps(STUDY.judge_spec(wildcards.judge)),
        model=lambda wildcards, input: (
            ["--model", folder(input.model[0])] if input.model else []
        ),
        limit=lambda wildcards: STUDY.agreement_limit(wildcards.judge),
        work=lambda wildcards: judge_work(wildcards.judge, "agreement"),
        label=lambda wildcards: STUDY.config.judges[wildcards.judge].agreement,
        labelled=lambda wildcards, input: folder(input.labelled),
    message:
        "Measure {wildcards.judge} against human labels"
    shell:
        "{params.start} scripts/judge_agreement.py --spec {params.spec:q} --labelled {params.labelled}/*.csv --label {params.label}"
        " {params.model:q} {params.limit:q} {params.work:q} --output {output} > {log} 2>&1"


rule compare_judges:
    input:
        STUDY.judged(),
        runs=f"{RESULTS}/runs.txt",
        code=[
            "scripts/compare_judges.py",
            "scripts/untaxed/agreement.py",
            "scripts/untaxed/metrics.py",
            "scripts/untaxed/statistics.py",
        ],
    output:
        pairs=f"{RESULTS}/judge_pairs.json",
        differences=f"{RESULTS}/judge_differences.csv",
    log:
        f"{LOGS}/compare_judges.log",
    benchmark:
        f"{TIMES}/compare_judges.tsv"
    conda:
        "../envs/plot.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        judges=STUDY.config.study.judges,  # in their order
    message:
        "Compare every two judges on the same samples"
    shell:
        "python scripts/compare_judges.py --runs-file {input.runs} --judges {params.judges:q} --output {output.pairs}"
        " --differences {output.differences} > {log} 2>&1"
