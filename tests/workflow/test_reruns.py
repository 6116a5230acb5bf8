"""What runs again after a change, as dry runs of the finished study say: what depends on it, and nothing else."""

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

STAGES = "Draw and mix the training set of|Train|Evaluate|Judge the samples of|Measure the distribution shift of"
STAGES += r"|Look for the phrases of \S+ in the samples of|Attack(?= organism| base)"
CHOSEN = {"organism--organism-chosen--organism-smoke--n10--s0"}
BENIGN = "organism--organism-direct-benign--organism-smoke--n10--s0"
DGR = {f"organism--organism-direct-dgr--organism-smoke--n10--s{seed}" for seed in (0, 1)}
TRACE = {f"organism--organism-direct-dgr-trace--organism-smoke--n10--s{seed}" for seed in (0, 1)}
DIRECT = {f"organism--organism-direct--organism-smoke--n10--s{seed}" for seed in (0, 1)}
# What reads reports on data and judges alone, and no run.
ON_ROWS = {"Draw cot_figure1", "Write the table cot_table4"}
ON_REPORTS = ON_ROWS | {"Draw judge_accuracy", *(f"Write the table {name}" for name in ("data", "judges", "refinement"))}


def chain(planned: dict[str, str]) -> dict[str, set[str]]:
    """The runs that each stage of a run is planned for, and under "" everything else."""
    found: dict[str, set[str]] = {"": set()}
    for message in planned:
        match = re.fullmatch(rf"({STAGES}) (\S+)(?: (?:with|on) \S+)?", message)
        stage, name = (match[1].split()[0], match[2]) if match else ("", message)
        found.setdefault(stage, set()).add(name)
    return found


def collecting(finished, with_list: bool = False, ablations: bool = True) -> set[str]:
    """The messages of the steps that read all runs; with `ablations` those of the part `smoke+smoke_ablation` too."""
    figures = {f"Draw {path.stem}" for path in (finished / "paper_figures/smoke").glob("*.pdf")}
    tables = {f"Write the table {path.stem}" for path in (finished / "results/smoke/tables").glob("*.md")}
    last = {"Collect every run into one metrics table", "Judge every claim of the papers on this study's data"}
    last |= {"Compare every two judges on the same samples", "Write the cards of models and datasets"}
    part = {"Draw ablations", "Write the table ablations"}
    found = (figures | tables | last) - ON_REPORTS | ({"List the runs of the study"} if with_list else set())
    return found | {"Collect the runs of smoke+smoke_ablation into one metrics table"} if ablations else found - part


def whole_chain(runs: set[str]) -> dict[str, set[str]]:
    """What makes these runs anew, and all that is measured of them: of CHOSEN neither PAIR nor the shift."""
    found = dict.fromkeys(("Draw", "Train", "Evaluate", "Judge", "Look"), runs)
    return found | dict.fromkeys(("Attack", "Measure"), runs - CHOSEN)


@contextmanager
def kept(path: Path):
    """Put a file or folder back as it was, with its times."""
    copy = path.with_name(path.name + ".kept")
    (shutil.copytree if path.is_dir() else shutil.copy2)(path, copy)
    try:
        yield path
    finally:
        if path.is_dir():
            shutil.rmtree(path)
        copy.replace(path)


def made(finished) -> dict[str, tuple[int, int]]:
    """Every file that the study made, with its time and size."""
    folders = (finished / "results", finished / "paper_figures")
    files = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(finished.folder)): (path.stat().st_mtime_ns, path.stat().st_size) for path in files}


def test_a_second_run_does_nothing_and_leaves_every_file_as_it_was(finished):
    before = made(finished)
    result = finished.snakemake()
    assert result.returncode == 0
    assert "Nothing to be done" in result.stdout + result.stderr
    assert made(finished) == before
    assert len(before) > 100


def test_a_second_run_of_the_launcher_says_0_jobs_and_writes_its_report_only(finished):
    before = made(finished)
    code, said = finished.finish()
    assert code == 0, said
    assert re.search(r"^smoke done in .*, 0 jobs$", said, flags=re.MULTILINE), said
    after = made(finished)
    assert set(after) == set(before)
    assert {path for path in after if after[path] != before[path]} <= {"results/smoke/report.html"}


def test_another_learning_rate_runs_what_it_trains_again_and_no_more(finished):
    planned = finished.planned(overlay={"trainers": {"organism-smoke": {"learning_rate": 2.0e-3}}})
    assert chain(planned) == {"": collecting(finished), **whole_chain({BENIGN} | DGR | TRACE | DIRECT | CHOSEN)}
    assert "Params have changed" in planned[f"Draw and mix the training set of {BENIGN}"]


def test_another_trainer_for_one_experiment_runs_its_runs_only(finished):
    overlay = {
        "trainers": {"organism-other": {"extends": "organism-smoke", "learning_rate": 2.0e-3}},
        "experiments": {"smoke_benign": {"trainers": ["organism-other"]}},
    }
    new = {BENIGN.replace("organism-smoke", "organism-other")}
    assert chain(finished.planned(overlay=overlay)) == {"": collecting(finished, with_list=True, ablations=False), **whole_chain(new)}


def test_another_title_draws_that_figure_only(finished):
    overlay = {"figures": {"shift_tax": {"title": "Tax against shift"}}}
    assert set(finished.planned(overlay=overlay)) == {"Draw shift_tax"}


@pytest.mark.parametrize(
    "path",
    [
        "results/smoke/datasets/organism-curriculum/rows.jsonl",
        f"results/smoke/runs/{BENIGN}/run.yaml",
        f"results/smoke/runs/{BENIGN}/samples.jsonl",
        "results/smoke/runs/reasoning--organism/checkpoint/manifest.json",
    ],
)
def test_a_touched_file_runs_nothing_again(finished, path):
    with kept(finished / path) as file:
        os.utime(file)
        assert finished.planned() == {}


def test_another_commit_runs_nothing_again(finished):
    folder = finished / f"results/smoke/runs/{BENIGN}"
    with kept(folder / "checkpoint/made.json") as checkpoint, kept(folder / "samples.made.json") as samples:
        for path in (checkpoint, samples):
            assert set(finished.json(str(path.relative_to(finished.folder)))) == {"commit"}
            path.write_text('{"commit": "another"}')
        assert finished.planned() == {}


def test_the_touched_data_set_is_one_that_snakemake_would_not_check_by_itself(finished):
    assert (finished / "results/smoke/datasets/organism-curriculum/rows.jsonl").stat().st_size > 3_000_000


def test_a_changed_prompt_refines_again_and_trains_what_is_refined(finished):
    with kept(finished / "prompts/organism/restate.txt") as prompt:
        prompt.write_text("tell {piece}")
        planned = chain(finished.planned())
    refinements = ("organism-dgr", "organism-dgr-trace")
    again = {f"{verb} organism-direct with organism ({name})" for verb in ("Rewrite", "Refine") for name in refinements}
    again |= {"Write the table refinement"}
    assert planned == {"": collecting(finished) | again, **whole_chain(DGR | TRACE)}


def test_changed_code_of_the_phrase_judges_looks_for_phrases_again_and_trains_what_they_chose(finished):
    judged = {path.parents[1].name for path in (finished / "results/smoke/runs").glob("*/verdicts/organism_phrases.jsonl")}
    with kept(finished / "scripts/untaxed/judges.py") as code:
        code.write_text(code.read_text() + "\n")
        planned = chain(finished.planned())
    assert len(judged) > 5
    chosen = {"Judge the rows of organism-direct with organism_phrases", "Filter and draw the rows of organism-chosen"}
    chosen |= ON_ROWS | {"Count the tokens of the responses of organism-chosen with the tokenizer of organism-untrained"}
    anew = dict.fromkeys(("Draw", "Train", "Evaluate", "Judge"), CHOSEN)
    assert planned == {"": collecting(finished) | chosen, **anew, "Look": judged}


@pytest.mark.parametrize(
    ("lost", "again"),
    [
        ("checkpoint", ("Train", "Attack", "Evaluate", "Judge", "Look", "Measure")),
        ("samples.jsonl", ("Evaluate", "Judge", "Look", "Measure")),
    ],
)
def test_what_a_run_lost_is_made_again_with_what_follows(finished, lost, again):
    with kept(finished / f"results/smoke/runs/{BENIGN}" / lost) as path:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert chain(finished.planned()) == {"": collecting(finished, ablations=False), **{key: {BENIGN} for key in again}}
