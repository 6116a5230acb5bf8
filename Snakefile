# Untaxed: raw data -> refined data -> checkpoints -> samples -> verdicts -> metrics -> figures, tables, claims, report.
#
#   snakemake --cores 2 --configfile studies/laptop.yaml     the study that a laptop can run
#   snakemake --profile slurm                                the study of the papers (config.yaml) on a cluster
#   snakemake budget -c1                                     what that costs, before anything runs

from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "rules/report/workflow.rst"


include: "rules/common.smk"
include: "rules/fetch.smk"
include: "rules/dataset.smk"
include: "rules/refine.smk"
include: "rules/train.smk"
include: "rules/attack.smk"
include: "rules/evaluate.smk"
include: "rules/judge.smk"
include: "rules/analyse.smk"
include: "rules/figures.smk"
include: "rules/cards.smk"
include: "rules/collect.smk"


rule all:
    default_target: True
    input:
        [f"{STUDY.figures}/{name}.pdf" for name in STUDY.config.study.figures],
        [f"{RESULTS}/tables/{name}.csv" for name in STUDY.config.study.tables],
        rules.claims.output,
        rules.cards.output,
        STUDY.agreements(),
        STUDY.measured(),  # or a run's lost files would not be missed once the metrics are there
    message:
        "Figures, tables and claims of the study are in place"


if workflow.is_main_process:
    check_targets({rule.name for rule in workflow.rules})
