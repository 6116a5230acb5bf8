# Metrics -> figures (PDF, PNG, data beside them), tables, and a verdict on every claim.


rule figure:
    input:
        unpack(lambda wildcards: STUDY.sources_of("figures", wildcards.figure)),
        manifests=lambda wildcards: losses_of(wildcards.figure),
        reported="reported.yaml",
        code=[
            "scripts/figure.py",
            "scripts/untaxed/reported.py",
            "scripts/untaxed/figures.py",
            "scripts/untaxed/metrics.py",
            "scripts/untaxed/statistics.py",
        ],
    output:
        pdf=f"{STUDY.figures}/{{figure}}.pdf",
        png=report(
            f"{STUDY.figures}/{{figure}}.png",
            caption="report/figure.rst",
            category="Figures",
            labels=lambda wildcards: {
                "figure": STUDY.config.figures[wildcards.figure].title
            },
        ),
        data=f"{STUDY.figures}/{{figure}}.json",
    log:
        f"{LOGS}/figure/{{figure}}.log",
    benchmark:
        f"{TIMES}/figure/{{figure}}.tsv"
    conda:
        "../envs/plot.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        spec=lambda wildcards: json.dumps(STUDY.figure_spec(wildcards.figure)),
        caption=lambda wildcards: STUDY.config.figures[wildcards.figure].caption,
        prefix=f"{STUDY.figures}/{{figure}}",
        study=lambda wildcards: STUDY.name,
    message:
        "Draw {wildcards.figure}"
    shell:
        "python scripts/figure.py --spec {params.spec:q} --metrics {input.metrics} --items {input.scores} --refine-report {input.refine}"
        " --agreement {input.agreement} --runs-file {input.runs} --judge-pairs {input.pairs} --filter-report {input.filtered} --reported {input.reported} --study {params.study} --output-prefix {params.prefix} > {log} 2>&1"


rule table:
    input:
        unpack(lambda wildcards: STUDY.sources_of("tables", wildcards.table)),
        reported="reported.yaml",
        code=[
            "scripts/table.py",
            "scripts/untaxed/reported.py",
            "scripts/untaxed/tables.py",
            "scripts/untaxed/pages.py",
            "scripts/untaxed/figures.py",
            "scripts/untaxed/metrics.py",
            "scripts/untaxed/statistics.py",
        ],
    output:
        csv=f"{RESULTS}/tables/{{table}}.csv",
        page=report(
            f"{RESULTS}/tables/{{table}}.html",
            caption="report/table.rst",
            category="Tables",
            labels=lambda wildcards: {
                "table": STUDY.config.tables[wildcards.table].title
                or wildcards.table.replace("_", " ").capitalize()
            },
        ),
        markdown=f"{RESULTS}/tables/{{table}}.md",
    log:
        f"{LOGS}/table/{{table}}.log",
    benchmark:
        f"{TIMES}/table/{{table}}.tsv"
    conda:
        "../envs/plot.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        spec=lambda wildcards: json.dumps(STUDY.table_spec(wildcards.table)),
        caption=lambda wildcards: STUDY.config.tables[wildcards.table].caption,
        prefix=f"{RESULTS}/tables/{{table}}",
    message:
        "Write the table {wildcards.table}"
    shell:
        "python scripts/table.py --spec {params.spec:q} --metrics {input.metrics} --items {input.scores} --refine-report {input.refine}"
        " --agreement {input.agreement} --runs-file {input.runs} --judge-pairs {input.pairs} --dataset-report {input.datasets} --distil-report {input.distilled}"
        " --filter-report {input.filtered} --lengths {input.lengths} --reported {input.reported} --output-prefix {params.prefix}"
        " > {log} 2>&1"


rule claims:
    input:
        claims="claims.yaml",
        metrics=rules.collect.output.metrics,
        scores=rules.collect.output.scores,
        filtered=STUDY.filter_reports(),
        code=[
            "scripts/claims.py",
            "scripts/untaxed/claims.py",
            "scripts/untaxed/costs.py",
            "scripts/untaxed/pages.py",
            "scripts/untaxed/metrics.py",
            "scripts/untaxed/statistics.py",
        ],
    output:
        verdicts=f"{RESULTS}/claims.json",
        markdown=f"{RESULTS}/claims.md",
        csv=f"{RESULTS}/tables/claims.csv",
        page=report(
            f"{RESULTS}/tables/claims.html",
            caption="report/claims.rst",
            category="Claims",
            labels=verdict_counts,
        ),
    log:
        f"{LOGS}/claims.log",
    benchmark:
        f"{TIMES}/claims.tsv"
    conda:
        "../envs/plot.yaml"
    resources:
        mem_mb=2000,
        runtime=15,
    params:
        study=lambda wildcards: STUDY.name,
        figures=STUDY.config.study.figures,
        tables=STUDY.config.study.tables,
        stand_in="--stand-in" if STUDY.config.study.stand_in else "",
    message:
        "Judge every claim of the papers on this study's data"
    shell:
        "python scripts/claims.py --claims {input.claims} --metrics {input.metrics} --items {input.scores} --filter-report {input.filtered} --study {params.study}"
        " --figures {params.figures} --tables {params.tables} {params.stand_in} --output {output.verdicts} --markdown {output.markdown} --csv {output.csv} --page {output.page} > {log} 2>&1"
