# Reads the configuration once; every rule looks things up in STUDY (scripts/untaxed/study.py).

import atexit
import contextlib
import io
import json
import os
import re
import sys
from datetime import date

sys.path.insert(0, os.path.join(workflow.basedir, "scripts"))

from untaxed.cards import card_spec, origins
from untaxed.config import in_order, load_or_exit
from untaxed.machine import visible_gpus
from untaxed.records import UserError, nearest

FILES = in_order(workflow.configfiles, workflow.basedir)
STUDY = load_or_exit(config, workflow.basedir, FILES)
RESULTS = STUDY.results
LOGS = f"logs/{STUDY.name}"
TIMES = f"{RESULTS}/benchmarks"

if (
    workflow.is_main_process and not FILES[1:]
):  # what a bare `snakemake` plans is not what a laptop can run
    print(
        f"Study {STUDY.name} (config.yaml): {len(STUDY.trained)} trainings, for GPUs. Another: --configfile studies/laptop.yaml."
        " GPU-hours and disk of every figure and table: snakemake budget -c1",
        file=sys.stderr,
    )

if STUDY.gpus == 0:  # its jobs ask for no GPU, so none of them may use one
    os.environ.update(CUDA_VISIBLE_DEVICES="")


# Targets that are less than the whole study, by name.
STAGES = (
    "all",
    "assets",
    "datasets",
    "checkpoints",
    "metrics",
    "figures",
    "claims",
    "cards",
    "budget",
    "rulegraph",
)


wildcard_constraints:
    asset="[^/]+",
    dataset="[^/]+",
    model="[^/]+",
    refinement="[^/]+",
    run="[^/]+",
    benchmark="[^/]+",
    part="[^/]+",
    judge="[^/]+",
    figure="[^/]+",
    table="[^/]+",


def pairs(flag, values):
    """Repeat a command-line flag: --rows a=b --rows c=d."""
    return [part for name, path in values.items() for part in (flag, f"{name}={path}")]


def any_of(names):
    """A pattern that matches these names and no other."""
    return "|".join(map(re.escape, names)) or "(?!)"


def folder(path):
    """The folder beside whose manifest Snakemake keeps track."""
    return os.path.dirname(str(path))


def suite_rows(run):
    """The rows of every benchmark that a run is tested with."""
    return {name: STUDY.benchmark_rows(name, run) for name in STUDY.suites[run]}


def attack_models(benchmark):
    """The flags that name the folders of the models which an attack asks."""
    return [
        part
        for role, path in STUDY.attack_models(benchmark).items()
        for part in (f"--{role}-model", folder(path))
    ]


def launcher(resources, start="python"):
    """What starts a job: on a machine with several GPUs it gets its own; one that asks for none in a study that has some sees none."""
    count = getattr(resources, "gpu", 0)
    if STUDY.gpus and not count:
        return f"env CUDA_VISIBLE_DEVICES= {start}"
    return (
        f"python scripts/on_gpus.py {count} {start}"
        if count and visible_gpus() > 1
        else start
    )


def verdict_counts(wildcards, output):
    """What the report's first page and its list of results say of the claims, read when the report is made."""
    judged = date.fromtimestamp(os.path.getmtime(output.verdicts)).isoformat()
    with open(output.verdicts) as file:
        return {"claims": json.load(file)["counts"], "judged": judged}


def refuse(assets, asks_servers):
    """End before the first job where an asset that has to be fetched is certain to be refused, or a server's key is missing."""
    try:
        lines = STUDY.refusals(assets, os.environ)
        if asks_servers:
            lines += STUDY.empty_keys(os.environ)
    except UserError as error:  # the lock itself is wrong
        lines = str(error).splitlines()
    if lines:
        print("\n".join(f"error: {line}" for line in lines), file=sys.stderr)
        sys.exit(1)


def named_targets():
    """What the command line asks for; none where Snakemake was not started from one."""
    if os.path.basename(sys.argv[0]) not in ("snakemake", "__main__.py"):
        return []
    from snakemake.cli import parse_args

    try:  # it has parsed these arguments before, and said what there is to say of them
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            return parse_args(sys.argv[1:])[1].targets or []
    except (
        Exception
    ):  # another version of Snakemake, which will tell of a wrong target in its own way
        return []


def check_targets(rules):
    """End where a target is neither a file nor a rule, and name the nearest: Snakemake would only say that it is missing."""
    wrong = [
        name
        for name in named_targets()
        if not (name in rules or re.search(r"[./]", name) or os.path.exists(name))
    ]
    for name in wrong:
        kind = next(
            (k for k in ("figures", "tables") if name in getattr(STUDY.config, k)), None
        )
        said = (
            f"study {STUDY.name!r} does not select it; add it to study.{kind}, or give the overlays of a study that does"
            if kind
            else nearest(name, [*STAGES, *STUDY.targets])
        )
        print(
            f"error: no figure, table or stage is called {name!r} here; {said}",
            file=sys.stderr,
        )
    if wrong:
        sys.exit(1)


@atexit.register
def say_cost():
    """After a dry run: what the figures and tables that it plans cost."""
    if not (workflow.is_main_process and workflow.dryrun and workflow.dag_settings):
        return
    if not any(workflow.dag.needrun_jobs(exclude_finished=False)):
        return
    from untaxed.budget import summary

    with contextlib.suppress(BrokenPipeError):
        if text := summary(STUDY, workflow.dag_settings.targets):
            print("", text, sep="\n", flush=True)


def unlimited(workflow):
    """Take away Snakemake's default limit on starts, 100 a second, which cannot be switched off.

    Each look at the queue sets a timer for the next, and each timer looks and sets another, so they grow without end
    (perf/bench_scheduler.py). A limit that the user has set stays.
    """
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and (limit.max_jobs, limit.timespan) == (100, 1):
        workflow.scheduler.job_rate_limiter = None


def judge_work(judge, what):
    """Where a judge that asks a model keeps its replies as they come."""
    if not STUDY.judge_spec(judge)["engine"]:
        return []
    return ["--work-file", f"{RESULTS}/work/judge-{what}-{judge}.jsonl"]


def losses_of(figure):
    """The training manifests that a figure reads."""
    trained = STUDY.part_of(STUDY.part("figures", figure)).trained
    reads = STUDY.config.figures[figure].kind == "training_curve"
    return [STUDY.checkpoint(run) for run in trained] if reads else []
