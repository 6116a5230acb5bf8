"""What the runs behind a claim took, from the benchmark files that the rules leave."""

import csv
from collections.abc import Iterable
from pathlib import Path

from untaxed.records import read_yaml


def seconds_behind(results: Path, runs: Iterable[str], stages: Iterable[str]) -> float:
    """Wall seconds of all jobs that were made for some runs: their draws, trainings, evaluations, judgements, shifts, and their rewrites.

    Read from the benchmark files that the rules left under `results`/benchmarks; `stages` are runs that others start from.
    """
    wanted = {*runs, *stages}
    for run in list(wanted):
        path = results / "runs" / run / "run.yaml"
        spec = read_yaml(path) if path.is_file() else {}
        if spec.get("refinement"):
            wanted.add(f"{spec['dataset']}--{spec['model']}--{spec['refinement']}")
    total = 0.0
    for path in sorted(results.glob("benchmarks/*/*.tsv")):
        if path.stem in wanted or path.stem.rpartition("--")[0] in wanted:
            with path.open(encoding="utf-8", newline="") as stream:
                total += sum(float(row["s"]) for row in csv.DictReader(stream, delimiter="\t"))
    return total


def stages_of(results: Path, models: Iterable[str]) -> list[str]:
    """The reasoning stages that made some base models, where the study trained them."""
    return [f"reasoning--{model}" for model in models if (results / "runs" / f"reasoning--{model}").is_dir()]


def minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds else ""
