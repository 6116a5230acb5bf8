# Manifests, reports, metrics and the lock -> a card for every trained model and every dataset, in the hub's form.


rule cards:
    input:
        metrics=rules.collect.output.metrics,
        lock="assets.lock.yaml",
        rows=[STUDY.rows(name) for name in STUDY.datasets_used],
        runs=[f"{RESULTS}/runs/{run}/run.yaml" for run in STUDY.trained],
        checkpoints=[STUDY.checkpoint(run) for run in STUDY.trained],
        reports=[
            *STUDY.dataset_reports(),
            *STUDY.distil_reports(),
            *STUDY.filter_reports(),
            *STUDY.refine_reports(),
        ],
        code=["scripts/cards.py", "scripts/untaxed/cards.py"],
    output:
        directory(f"{RESULTS}/cards"),
    log:
        f"{LOGS}/cards.log",
    benchmark:
        f"{TIMES}/cards.tsv"
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        spec=json.dumps(card_spec(STUDY)),
    message:
        "Write the cards of models and datasets"
    shell:
        "python scripts/cards.py --spec {params.spec:q} --metrics {input.metrics} --lock {input.lock} --output-folder {output} > {log} 2>&1"
