# What a user can ask for by name: everything, or one stage.


localrules:
    datasets,
    checkpoints,
    metrics,
    figures,
    budget,
    rulegraph,


rule datasets:
    input:
        STUDY.dataset_rows(),
    message:
        "All rows are prepared, distilled and refined"


rule checkpoints:
    input:
        [STUDY.checkpoint(run) for run in STUDY.trained],
    message:
        "All checkpoints are trained"


rule metrics:
    input:
        rules.collect.output,
    message:
        "The metrics table is in place"


rule figures:
    input:
        [f"{STUDY.figures}/{name}.pdf" for name in STUDY.config.study.figures],
    message:
        "All figures are drawn"


# Every figure and table by its name, where no rule is called so: `snakemake cot_table1` makes that alone and what it needs.
for _name, _files in STUDY.targets.items():
    if _name not in map(str, workflow.rules):

        rule:
            name:
                _name
            input:
                _files,
            localrule: True
            message:
                f"{_name} is in place"


rule budget:
    log:
        f"{LOGS}/budget.log",
    conda:
        "../envs/core.yaml"
    resources:
        mem_mb=500,
        runtime=5,
    params:
        configs=[arg for path in FILES for arg in ("--config", str(path))],
    message:
        "GPU-hours per stage and experiment, from the throughputs that the configuration states"
    shell:
        # not through `tee`: a reader that leaves early (`| head`) would end it, and fail the job
        "python scripts/budget.py {params.configs:q} > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}; cat {log} || true"


rule rulegraph:
    output:
        "docs/rulegraph.svg",
    log:
        f"{LOGS}/rulegraph.log",
    conda:
        "../envs/plot.yaml"
    resources:
        mem_mb=500,
        runtime=5,
    params:
        python=sys.executable,  # Snakemake is in no stage's environment
        overlays=["--configfile", *map(str, FILES[1:])] if FILES[1:] else [],
    message:
        "Draw the rules of this workflow"
    shell:
        "({params.python} -m snakemake --nolock --rulegraph dot {params.overlays:q} | dot -Tsvg > {output}) 2> {log}"
