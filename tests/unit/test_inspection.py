"""From points to runs to samples, and from a generation to its origin, on a made-up study; texts are told apart by the word SECRET."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic import ITEMS, paper, study
from untaxed import inspection
from untaxed.figures import FIGURES, Inputs
from untaxed.inspection import WARNING, Filters
from untaxed.metrics import Results
from untaxed.records import UserError, read_json, read_jsonl, read_yaml, write_json, write_jsonl, write_yaml

TEXTS = {
    "prompt": "SECRET prompt",
    "generation": "<t>SECRET trace</t>SECRET answer",
    "reasoning": "SECRET trace",
    "answer": "SECRET answer",
}
VANILLA = "tiny--direct-vanilla-b0--full--n100"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of the study `tiny`, two seeds, as `./untaxed` leaves them."""
    return tmp_path_factory.mktemp("inspection")


@pytest.fixture(scope="module")
def results(place: Path) -> Results:
    found = study(place / "results" / "tiny", seeds=2)
    for folder in (place / "results" / "tiny" / "runs").iterdir():
        if (folder.name == "base") or "direct-vanilla-b0" in folder.name:
            complete(folder)
    (place / "results/tiny/runs/base").rename(place / "results/tiny/runs/base--tiny")
    return found


def complete(folder: Path) -> None:
    """Give the samples and verdicts of a made-up run what real ones have."""
    rest = {"tokens": 7, "category": "any", "version": 1}
    write_jsonl(folder / "samples.jsonl", [sample | TEXTS | rest for sample in read_jsonl(folder / "samples.jsonl")])
    path = folder / "verdicts" / "string_match.jsonl"
    more = {"version": "1", "sees": {"prompt": "original", "trace": False}, "raw": "SECRET phrase"}
    write_jsonl(path, [record | more for record in read_jsonl(path)])


@pytest.fixture
def sidecar(place: Path, results: Results) -> Path:
    """A figure with a bar of accuracy and one of refusal for Vanilla SFT, a value of the paper, a correlation, and a judge."""
    bar = {"method": "vanilla", "series": "Vanilla SFT, n 100", "model": "tiny", "source": "direct", "benign": False, "trainer": "full"}
    interval = {"ci_low": 0.3, "ci_high": 0.5, "n_items": ITEMS}
    points = [
        bar | {"metric": "accuracy", "benchmark": "sums", "judge": "", "value": 0.4, "runs": 2} | interval,
        bar | {"metric": "refusal_rate", "benchmark": "harm", "judge": "string_match", "value": 0.9, "runs": 2} | interval,
        bar | {"metric": "accuracy", "benchmark": "sums", "value": 41.0, "kind": "reported"},
        {"kind": "Pearson r", "value": 0.5, "settings": 8},
        {"judge": "string_match", "dataset": "labelled", "n": 50, "accuracy": 0.8, "kappa": 0.6, "accuracy_ci": [0.7, 0.9]},
        {"method": "none", "run": "base--tiny", "accuracy": 0.9, "refusal_rate": 0.0},
    ]
    path = place / "paper_figures" / "tiny" / "bars.json"
    write_json(path, {"title": "Bars", "study": "tiny", "data": points, "runs": sorted(results.runs), "commit": "c0ffee"})
    return path


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The results of a study with one DGR run of a model that was trained here; every number is made by hand."""
    folder = tmp_path / "results" / "hand"
    monkeypatch.chdir(tmp_path)
    spec = {"run": "m--r--t--n3--s4", "model": "m", "recipe": "r", "method": "dgr", "source": "direct", "n": 3, "seed": 4}
    spec |= {"trainer_name": "t", "trainer": {"learning_rate": 0.1, "epochs": 2.0, "batch_size": 8}, "dataset": "safety"}
    spec |= {"refinement": "dgr", "mix": [{"dataset": "chat", "n": 1}]}
    run, stage = folder / "runs" / spec["run"], folder / "runs" / "reasoning--m"
    write_yaml(run / "run.yaml", spec)
    row = {"prompt": "SECRET", "reasoning": "SECRET", "answer": "SECRET", "harmful": True, "source": "advbench"}
    reasons = [("ok", "ok"), ("ok", "overthinking"), ("empty", "overthinking")]
    refined = [row | {"id": str(n), "pieces": {"reasoning": {"reason": a}, "answer": {"reason": b}}} for n, (a, b) in enumerate(reasons)]
    write_jsonl(run / "train.jsonl", [*refined, row | {"id": "c", "harmful": False, "source": "hh"}])
    write_json(run / "checkpoint" / "manifest.json", {"weights_sha256": "aaa", "base": "bbb", "steps": 6})
    write_json(run / "checkpoint" / "made.json", {"commit": "feed-dirty"})
    write_json(run / "samples.made.json", {"commit": "f00d"})
    write_yaml(stage / "run.yaml", {"run": "reasoning--m", "model": "raw", "n": 2, "dataset": "sums", "trainer_name": "long", "mix": []})
    write_jsonl(stage / "train.jsonl", [row | {"id": str(n), "harmful": False, "source": "gym"} for n in range(2)])
    write_json(stage / "checkpoint" / "manifest.json", {"weights_sha256": "bbb", "base": "ccc", "steps": 9})
    write_json(folder / "models" / "raw" / "manifest.json", {"weights_sha256": "ccc", "source": {"file": "raw.gguf"}})
    report = {
        "rows": 5,
        "filters": ["overthinking"],
        "pieces": {"reasoning": {"ok": 4, "empty": 1}, "answer": {"ok": 2, "overthinking": 3}},
    }
    write_json(folder / "refined/safety/m/dgr/report.json", report)
    write_json(
        folder / "distilled/chat/report.json", {"rows": 8, "kept": 7, "rows_out": 6, "reasons": {"ok": 7, "truncated": 1, "empty": 0}}
    )
    write_jsonl(folder / "datasets/twin/rows.jsonl", [row | {"id": "h-1", "prompt": "another prompt of this id"}])
    write_jsonl(folder / "datasets/asked/rows.jsonl", [row | {"id": "h-1", "prompt": TEXTS["prompt"], "source": "strongreject"}] * 2)
    sample = {"benchmark": "harm", "harmful": True, "correct": None, "finish": "stop", "tokens": 7, "category": "fraud", "version": 2}
    write_jsonl(run / "samples.jsonl", [sample | TEXTS | {"id": name} for name in ("h-1", "h-2#0", "h-2#1")])
    verdict = {"benchmark": "harm", "judge": "rubric", "kind": "strongreject_rubric", "version": "3", "score": 0.25, "raw": "SECRET"}
    verdict |= {"sees": {"prompt": "original", "trace": True}, "verdict": "partial"}
    write_jsonl(run / "verdicts" / "rubric.jsonl", [verdict | {"id": name} for name in ("h-1", "h-2#0", "h-2#1")])
    write_json(tmp_path / "paper_figures" / "hand" / "bars.json", {"commit": "c0ffee"})
    return folder


def said(lines) -> str:
    return "\n".join(lines)


# ---- points and runs ------------------------------------------------------------------------------------------------------------------


def test_points_are_numbered_with_values_intervals_items_and_runs(sidecar):
    lines = said(inspection.list_points(sidecar)).splitlines()
    assert lines[0] == "Bars (study tiny, commit c0ffee)"
    rows = {line.split()[0]: " ".join(line.split()) for line in lines}
    assert rows["1"].endswith("sums accuracy 0.400 [0.300, 0.500] 40 2")
    assert rows["4"] == "4 Pearson r 0.500"
    assert rows["5"].endswith("accuracy 0.800 [0.700, 0.900], kappa 0.600 50"), "n counts labels where there is no method"
    assert rows["6"].endswith("base--tiny accuracy 0.900, refusal_rate 0.000 1")


def test_what_all_points_share_is_said_once(place, sidecar):
    path = place / "paper_figures" / "tiny" / "alike.json"
    points = [{"method": method, "model": "tiny", "value": 0.5, "metric": "accuracy"} for method in ("vanilla", "dgr")]
    write_json(path, json.loads(sidecar.read_text()) | {"data": points})
    lines = said(inspection.list_points(path)).splitlines()
    path.unlink()
    assert lines[1] == "all points: model tiny, metric accuracy"
    assert lines[2].split()[:2] == ["#", "method"]


def test_a_point_selects_its_runs_by_the_fields_it_has(results):
    bar = {"method": "dgr", "source": "direct", "model": "tiny", "trainer": "full"}
    runs = results.runs
    mixes = ("tiny--direct-dgr-b0", "tiny--direct-dgr-b20")
    both = {f"{mix}--full--n{n}--s{seed}" for mix in mixes for n in (10, 100) for seed in (0, 1)}
    assert set(inspection.runs_of_point(bar, runs)) == both
    assert set(inspection.runs_of_point(bar | {"benign": True}, runs)) == {run for run in both if "b20" in run}, "a facet's yes or no"
    assert inspection.runs_of_point(bar | {"benign": 20, "n": 10}, runs) == [f"tiny--direct-dgr-b20--full--n10--s{seed}" for seed in (0, 1)]
    named = bar | {"series": "DGR, direct-dgr-b0, n 100"}
    assert inspection.runs_of_point(named, runs) == [f"tiny--direct-dgr-b0--full--n100--s{seed}" for seed in (0, 1)]


@pytest.mark.parametrize("point", [{"method": "none", "trainer": "full", "source": "direct"}, {"method": "dgr", "n": 0, "model": "tiny"}])
def test_the_base_of_a_panel_is_the_base_model_whatever_else_the_panel_is_called(point, results):
    assert inspection.runs_of_point(point, results.runs) == ["base--tiny"]


@pytest.mark.parametrize("kind", ["safety_reasoning_plane", "method_bars", "shift_tax", "activation_curve"])
def test_every_point_of_a_real_figure_finds_as_many_runs_as_it_says(kind, results):
    drawing = FIGURES[kind](Inputs({}, results))
    counted = [point for point in drawing.data if "seeds" in point or "runs" in point]
    assert len(counted) > 8
    for point in counted:
        found = inspection.runs_of_point(point, {run: results.runs[run] for run in drawing.runs})
        assert len(found) == (point.get("seeds") or point["runs"]), point


@pytest.mark.parametrize(
    ("kind", "entry", "options"), [("attack_bars", "table", {}), ("with_without", "benign", {}), ("sweep", "sweep", {"x": "n"})]
)
def test_points_of_the_papers_figures_are_told_apart_and_find_their_runs(kind, entry, options, place, results):
    chosen = {"method": "vanilla"} | ({} if kind == "with_without" else {"benign": 0})
    spec = {"reported": entry, "select": chosen, **options}
    drawing = FIGURES[kind](Inputs(spec, results, reported=paper()))
    drawn = {run: results.runs[run] for run in drawing.runs}
    ours = [point for point in drawing.data if "kind" not in point]
    for point in ours:
        assert len(inspection.runs_of_point(point, drawn)) == point["runs"], point
    path = place / "paper_figures" / "tiny" / f"{kind}.json"
    write_json(path, {"title": kind, "study": "tiny", "data": ours, "runs": drawing.runs})
    lines = said(inspection.list_points(path)).splitlines()
    path.unlink()
    rows = [" ".join(line.split()[1:]) for line in lines if line.split()[0].isdecimal()]
    assert len(rows) == len(set(rows)) == len(ours)
    columns = " ".join(lines[:3])
    assert "column" in columns
    assert "benchmarks" in columns


def test_a_point_of_a_column_lists_the_samples_of_its_benchmarks_alone(place, results):
    spec = {"reported": "table", "select": {"source": "direct", "method": "vanilla", "benign": 0, "n": 100}}
    drawing = FIGURES["attack_bars"](Inputs(spec, results, reported=paper()))
    path = place / "paper_figures" / "tiny" / "attack.json"
    write_json(path, {"title": "a", "study": "tiny", "data": drawing.data, "runs": drawing.runs})
    number = 1 + next(n for n, point in enumerate(drawing.data) if point["column"] == "asr_none" and point.get("method") == "vanilla")
    lines = said(inspection.inspect_point(path, number, Filters(limit=0))).splitlines()
    path.unlink()
    assert "runs: 2; benchmarks: harm, judged by string_match" in lines
    samples = [line for line in lines if line.startswith("  ")]
    assert len(samples) == 2 * ITEMS
    assert all(line.split()[1] == "harm" for line in samples)


def test_a_point_of_shares_of_rows_names_the_report_in_place_of_runs(place, sidecar):
    path = place / "paper_figures" / "tiny" / "patterns.json"
    points = [{"dataset": "kept", "pattern": "inconsistency", "when": when, "value": 0.5} for when in ("before", "after")]
    write_json(path, json.loads(sidecar.read_text()) | {"data": points, "runs": ["kept"]})
    listed = said(inspection.list_points(path))
    with pytest.raises(UserError, match="counts rows of the dataset 'kept', not runs; see results/tiny/filtered"):
        said(inspection.inspect_point(path, 1, Filters()))
    path.unlink()
    assert "before" in listed
    assert "after" in listed


def test_the_samples_behind_a_point_are_those_of_its_benchmark_with_what_was_found(sidecar):
    lines = said(inspection.inspect_point(sidecar, 1, Filters(limit=0))).splitlines()
    assert "runs: 2; benchmarks: sums" in lines
    # accuracy 0.45 - 0.05 for the direct source, and -/+0 or 0.025 a seed: 0.4 - 0.025 and 0.4 of 40 items
    assert [line.split() for line in lines if line.startswith(VANILLA) and line.endswith(("0.375", "0.400"))] == [
        [f"{VANILLA}--s0", "0.375"],
        [f"{VANILLA}--s1", "0.400"],
    ]
    samples = [line for line in lines if line.startswith("  ")]
    assert len(samples) == 2 * ITEMS
    assert all("sums" in line and "7 tokens, trace 12 + answer 13 characters, answered" in line for line in samples)
    assert sum(" correct " in line for line in samples) == 15 + 16  # 0.375 and 0.4 of 40


def test_filters_keep_verdicts_answers_and_runs_and_stop_at_the_limit(sidecar):
    refused = said(inspection.inspect_point(sidecar, 2, Filters(verdict="compliance", run="s1", limit=0))).splitlines()
    assert sum("string_match: compliance" in line for line in refused) == 4  # 0.1 of 40
    assert not any("string_match: refusal" in line or f"{VANILLA}--s0" in line for line in refused)
    wrong = said(inspection.inspect_point(sidecar, 1, Filters(correct=False, run="s1", limit=3))).splitlines()
    assert sum(" wrong " in line for line in wrong) == 3
    assert "  … more: --limit 0 lists all" in wrong
    other = said(inspection.inspect_point(sidecar, 1, Filters(benchmarks=("harm",), run="s1", limit=1)))
    assert "string_match: " in other


def test_no_more_of_the_samples_is_read_than_the_limit_asks(place, results):
    folder = place / "results/tiny/runs" / f"{VANILLA}--s0"
    samples = folder / "samples.jsonl"
    whole = samples.read_text()
    samples.write_text("".join(whole.splitlines(keepends=True)[:5]) + "{broken\n")
    assert said(inspection.list_samples(folder, Filters(limit=3))).count("tokens") == 3
    with pytest.raises(UserError, match="line 6 is not JSON"):
        said(inspection.list_samples(folder, Filters(limit=0)))
    samples.write_text(whole)


def test_a_point_that_fits_more_runs_than_it_was_drawn_from_says_so(place, sidecar):
    path = place / "paper_figures" / "tiny" / "older.json"
    content = json.loads(sidecar.read_text())
    content["data"][0]["runs"] = 1
    write_json(path, content)
    assert "note: it was drawn from 1 runs, but 2 fit" in said(inspection.inspect_point(path, 1, Filters()))
    path.unlink()


def test_a_correlation_names_its_runs_and_lists_samples_only_of_those_asked_for(sidecar):
    lines = said(inspection.inspect_point(sidecar, 4, Filters()))
    assert "runs: 33" in lines
    assert "tokens" not in lines
    assert "7 tokens" in said(inspection.inspect_point(sidecar, 4, Filters(run=f"{VANILLA}--s0", limit=1)))


# ---- texts ----------------------------------------------------------------------------------------------------------------------------


def outputs(sidecar: Path, results: Path, traced: Path, show_text: bool) -> list[str]:
    return [
        said(inspection.inspect_point(sidecar, 2, Filters(limit=2), show_text)),
        said(inspection.inspect_run(results, f"{VANILLA}--s0", Filters(benchmarks=("harm",)), show_text)),
        said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1", show_text)),
    ]


def test_no_text_is_shown_unless_it_is_asked_for(place, sidecar, traced):
    without = outputs(sidecar, place / "results" / "tiny", traced, False)
    without += [said(inspection.list_points(sidecar)), said(inspection.list_runs(place / "results" / "tiny", Filters()))]
    assert not any("SECRET" in text or WARNING in text for text in without)


def test_texts_come_after_one_line_of_warning(place, sidecar, traced):
    for text in outputs(sidecar, place / "results" / "tiny", traced, True):
        before, warning, after = text.partition(WARNING)
        assert warning
        assert "SECRET" not in before
        assert all(part in after for part in ("SECRET prompt", "<t>SECRET trace</t>SECRET answer", "quoted by "))


def test_a_text_cannot_steer_the_terminal(traced):
    samples = [sample | {"generation": "\x1b[2Jgone"} for sample in read_jsonl(traced / "runs/m--r--t--n3--s4/samples.jsonl")]
    write_jsonl(traced / "runs/m--r--t--n3--s4/samples.jsonl", samples)
    text = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1", True))
    assert "\x1b" not in text
    assert "[2Jgone" in text


# ---- origin ---------------------------------------------------------------------------------------------------------------------------


def test_a_generation_is_traced_to_prompt_judge_trainings_rows_and_first_weights(traced):
    lines = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1")).splitlines()
    assert lines == [
        f"prompt      h-1 (harmful, category fraud) of dataset asked, source strongreject ({traced}/datasets/asked/rows.jsonl)",
        "benchmark   harm, task version 2",
        "generation  h-1: 7 tokens, trace 12 + answer 13 characters, answered",
        "verdict     partial (score 0.25), by rubric (strongreject_rubric, version 3),"
        " which sees the original prompt and the answer with its trace",
        "run         m--r--t--n3--s4: model m, recipe r, method dgr, n 3, seed 4",
        "checkpoint  m--r--t--n3--s4",
        "  weights   sha256 aaa",
        "  commit    feed-dirty",
        "  base      m, weights sha256 bbb, as it still has",
        "  trainer   t (learning rate 0.1, epochs 2.0, batch size 8), 6 steps, seed 4",
        f"  rows      4, 3 of them harmful: 3 of safety, 1 of chat; sources: advbench 3, hh 1 ({traced}/runs/m--r--t--n3--s4/train.jsonl)",
        "    0                        advbench, harmful, reasoning ok, answer ok",
        "    1                        advbench, harmful, reasoning ok, answer overthinking",
        "    2                        advbench, harmful, reasoning empty, answer overthinking",
        "    c                        hh, harmless",
        "  reasoning 2 rewrites kept, 1 originals (empty 1)",
        "  answer    1 rewrites kept, 2 originals (overthinking 2)",
        "  refined   5 rows in all, filters overthinking: reasoning 4 rewrites kept, 1 originals (empty 1);"
        f" answer 2 rewrites kept, 3 originals (overthinking 3) ({traced}/refined/safety/m/dgr/report.json)",
        f"  answers   of chat are its teacher's: 7 of 8 kept, 6 used; reasons: ok 7, truncated 1 ({traced}/distilled/chat/report.json)",
        "  teacher   of chat: not recorded in this older report",
        "checkpoint  reasoning--m",
        "  weights   sha256 bbb",
        "  commit    not recorded",
        "  base      raw, weights sha256 ccc, as it still has",
        "  trainer   long (), 9 steps, seed 0",
        f"  rows      2, 0 of them harmful: 2 of sums; sources: gym 2 ({traced}/runs/reasoning--m/train.jsonl)",
        "    0                        gym, harmless",
        "    1                        gym, harmless",
        "model       raw, as it came (file raw.gguf)",
        "  weights   sha256 ccc",
        "commit      of the samples: f00d; of the study's figures: c0ffee",
    ]


def test_a_base_that_was_trained_again_since_is_told(traced):
    write_json(traced / "runs/reasoning--m/checkpoint/manifest.json", {"weights_sha256": "new", "base": "ccc", "steps": 9})
    text = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1"))
    assert "base      m, weights sha256 bbb, but it has others now, so this run is out of date" in text


def test_a_base_run_is_traced_to_the_training_of_its_model(traced):
    base, run = traced / "runs" / "base--m", traced / "runs" / "m--r--t--n3--s4"
    write_yaml(base / "run.yaml", {"run": "base--m", "model": "m", "recipe": "none", "method": "none", "n": 0, "seed": 0})
    write_jsonl(base / "samples.jsonl", [sample | {"correct": 1.0} for sample in read_jsonl(run / "samples.jsonl")])
    lines = said(inspection.trace(traced, "base--m", "harm", "h-1")).splitlines()
    assert "graded      correct" in lines
    assert [line for line in lines if line.startswith("checkpoint")] == ["checkpoint  reasoning--m"]


def attack(traced: Path, benchmark: str, folder: Path, **more) -> None:
    """Put a run's first sample under attack, with a record in `folder`, whose prompt may be another than the sample's."""
    path = traced / "runs/m--r--t--n3--s4/samples.jsonl"
    first, *rest = read_jsonl(path)
    first |= {"benchmark": benchmark, "attack": "pair", "original_prompt": "SECRET goal", "prompt": "SECRET attacked prompt"}
    write_jsonl(path, [first, *rest])
    (traced / "runs/m--r--t--n3--s4/verdicts/rubric.jsonl").unlink()
    counts = {"attacker": 4, "target": 3, "judge": 2}
    record = {"id": "h-1", "prompt": "SECRET goal", "attacked": "SECRET attacked prompt", "attack": "pair", "technique": None}
    record |= {"score": 7, "stream": 2, "iteration": 5, "success": False, "requests": counts, "unparseable": counts | {"judge": 1}}
    write_jsonl(folder / "attacked" / benchmark / "records.jsonl", [record | {"id": "h-0"}, record | more])


def traced_attack(traced: Path, benchmark: str = "harm_pair", show_text: bool = False) -> list[str]:
    return said(inspection.trace(traced, "m--r--t--n3--s4", benchmark, "h-1", show_text)).splitlines()


def test_an_attack_on_one_run_is_told_with_its_place_its_outcome_and_what_it_asked(traced):
    run = traced / "runs/m--r--t--n3--s4"
    attack(traced, "harm_pair", run)
    lines = traced_attack(traced)
    assert lines[2:6] == [
        f"attack      pair, stream 2, iteration 5, score 7, no success ({run}/attacked/harm_pair/records.jsonl)",
        "  prompts   original prompt 11 characters, attacked prompt 22",
        "  requests  attacker 4, target 3, judge 2",
        "  unparsed  attacker 4, target 3, judge 1",
    ]
    assert not any("SECRET" in line for line in lines)


def test_an_attack_that_its_judge_never_scored_is_told_so(traced):
    attack(traced, "harm_pair", traced, score=None)
    assert traced_attack(traced)[2].startswith("attack      pair, stream 2, iteration 5, no score, no success (")


def test_an_attack_made_for_all_runs_is_told_with_its_technique_and_no_score(traced):
    more = {"attack": "pap-templates", "technique": "Authority", "score": None, "stream": None, "iteration": None, "success": None}
    attack(traced, "harm_pap", traced, **more)
    assert (
        traced_attack(traced, "harm_pap")[2] == f"attack      pap-templates, technique Authority ({traced}/attacked/harm_pap/records.jsonl)"
    )


def test_both_prompts_of_an_attack_are_shown_where_texts_are_asked_for(traced):
    attack(traced, "harm_pair", traced)
    text = "\n".join(traced_attack(traced, show_text=True))
    assert "    original prompt:\n      SECRET goal\n    attacked prompt:\n      SECRET attacked prompt\n    generation:" in text
    listed = said(inspection.inspect_run(traced, "m--r--t--n3--s4", Filters(("harm_pair",)), True))
    assert "answered, attacked by pair" in listed
    assert "original prompt:\n      SECRET goal" in listed


def test_an_attack_that_was_made_again_or_is_gone_is_told(traced):
    attack(traced, "harm_pair", traced, attacked="SECRET other prompt")
    assert traced_attack(traced)[3].endswith("attacked prompt 22; it was attacked again since, so this run is out of date")
    (traced / "attacked/harm_pair/records.jsonl").unlink()
    lines = traced_attack(traced)
    lengths = "original prompt 11 characters, attacked prompt 22"
    assert lines[2] == f"attack      pair; {lengths}; no record of it under attacked/harm_pair (made again, or deleted)"
    assert lines[3].startswith("generation")


def test_rows_of_a_training_are_listed_as_far_as_the_limit_asks(traced):
    lines = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1", limit=1)).splitlines()
    rows = [line for line in lines if line.startswith("    ")]
    assert [line.split()[:2] for line in rows] == [["0", "advbench,"], ["…", "3"], ["0", "gym,"], ["…", "1"]]
    every = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1", limit=0))
    assert "more: --limit" not in every
    assert "    c                        hh, harmless" in every


def draw(traced: Path, **more) -> None:
    """Let the run's safety rows be drawn from `taught`, of a teacher; `more` is what newer reports say."""
    lines = [{"id": str(n), "prompt": "SECRET", "answer": f"SECRET {n}"} for n in range(3)]
    prompts = [line | {"answer": ""} for line in lines]
    write_jsonl(traced / "datasets/taught/rows.jsonl", prompts)
    write_jsonl(traced / "distilled/taught/rows.jsonl", lines)
    write_jsonl(traced / "filtered/safety/rows.jsonl", lines[:2])
    step = {"judge": "phrases", "in": 3, "out": 2, "verdicts": {"refusal": 2, "compliance": 1}}
    write_json(traced / "filtered/safety/report.json", {"rows": 3, "kept": 2, "rows_out": 2, "steps": [step]} | more)


def test_drawn_rows_are_traced_to_the_dataset_its_filters_and_its_teacher(traced):
    draw(traced, of="taught", filters=[{"judge": "phrases", "keep": ["refusal"]}])
    report = {"teacher": "m", "rows": 5, "kept": 3, "rows_out": 3, "reasons": {"ok": 3, "unclosed": 2}}
    write_json(traced / "distilled/taught/report.json", report)
    lines = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1")).splitlines()
    first = lines.index(
        "  drawn     safety from taught: phrases (keeps refusal) lets 2 of 3 pass: compliance 1, refusal 2; 2 of 2 drawn"
        f" ({traced}/filtered/safety/report.json)"
    )
    assert lines[first + 1 : first + 3] == [
        f"  answers   of taught are its teacher's: 3 of 5 kept, 3 used; reasons: ok 3, unclosed 2 ({traced}/distilled/taught/report.json)",
        "  teacher   of taught: m, weights sha256 bbb, trained here as reasoning--m",
    ]


def test_an_older_report_of_drawn_rows_leads_to_the_dataset_that_holds_them(traced):
    draw(traced)
    (traced / "cards").mkdir()
    (traced / "cards/safety.md").write_text("by a teacher")
    write_json(traced / "distilled/taught/report.json", {"rows": 5, "kept": 3, "rows_out": 3, "reasons": {"ok": 3}})
    text = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1"))
    assert "  drawn     safety from taught: phrases lets 2 of 3 pass" in text
    assert f"  teacher   of taught: not recorded in this older report; {traced}/cards/safety.md tells it" in text
    (traced / "distilled/taught/rows.jsonl").unlink()
    gone = said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1"))
    assert "  drawn     safety from a dataset that is not recorded: phrases" in gone
    assert "of taught" not in gone


def test_a_filter_that_allows_labels_and_a_draw_without_filters_are_told(traced):
    draw(traced, of="taught", filters=[{"judge": "phrases", "keep": None, "allow": []}])
    assert "phrases (allows nothing) lets 2 of 3" in said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1"))
    draw(traced, of="taught", filters=[], steps=[])
    assert "safety from taught: no filter, 3 rows; 2 of 2 drawn" in said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1"))


@pytest.mark.parametrize(("teacher", "says"), [("raw", "raw, weights sha256 ccc"), ("hosted", "hosted, whose weights this study does not")])
def test_a_teacher_that_was_not_trained_here_is_told(traced, teacher, says):
    report = read_json(traced / "distilled/chat/report.json")
    write_json(traced / "distilled/chat/report.json", report | {"teacher": teacher})
    assert f"  teacher   of chat: {says}" in said(inspection.trace(traced, "m--r--t--n3--s4", "harm", "h-1"))


# ---- errors ---------------------------------------------------------------------------------------------------------------------------


def test_every_mistake_about_a_study_is_one_line_with_the_fix(traced):
    run = "m--r--t--n3--s4"
    (traced.parent / "empty").mkdir()
    folder = traced / "runs" / "m--r--t--n3--s5"
    write_yaml(folder / "run.yaml", read_yaml(traced / "runs" / run / "run.yaml"))
    for call, message in (
        (lambda: inspection.results_folder("hadn"), "no study is called 'hadn'; did you mean 'hand'?"),
        (lambda: inspection.results_folder("empty"), "study 'empty' has no runs yet; make them with: ./untaxed empty"),
        (lambda: inspection.run_folder(traced, "m--r--t--n3--s44"), f"study 'hand' has no run 'm--r--t--n3--s44'; did you mean '{run}'?"),
        (lambda: said(inspection.list_runs(traced, Filters(run="zzz"))), "--run: none of the runs holds 'zzz'; valid: "),
        (lambda: said(inspection.inspect_run(traced, folder.name, Filters())), f"{folder.name}: not evaluated yet; ./untaxed hand goes on"),
        (lambda: said(inspection.inspect_run(traced, "reasoning--m", Filters())), "evaluated as the run base--m; inspect that"),
        (lambda: said(inspection.inspect_run(traced, run, Filters(("ham",)))), "no samples of a benchmark 'ham'; did you mean 'harm'?"),
        (lambda: Filters(verdict="refused"), "no verdict is called 'refused'; did you mean 'refusal'?"),
        (lambda: said(inspection.trace(traced, run, "ham", "h-1")), "no samples of a benchmark 'ham'; did you mean 'harm'?"),
        (lambda: said(inspection.trace(traced, run, "harm", "h1")), "harm: no sample 'h1'; did you mean 'h-1'?"),
        (lambda: said(inspection.trace(traced, run, "harm", "h-2")), "'h-2' is ambiguous, it was drawn 2 times; give one of h-2#0, h-2#1"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert message in str(caught.value)


def test_every_mistake_about_a_figure_is_one_line_with_the_fix(sidecar, tmp_path):
    def point(number: int) -> str:
        return said(inspection.inspect_point(sidecar, number, Filters()))

    write_json(tmp_path / "other.json", {"claims": []})
    for call, message in (
        (lambda: inspection.read_sidecar(sidecar.with_name("bras.json")), "bras.json: no such figure; did you mean 'bars.json'?"),
        (
            lambda: inspection.read_sidecar(tmp_path / "new/bars.json"),
            "no figure is drawn there yet; make them with: ./untaxed new figures",
        ),
        (lambda: inspection.read_sidecar(tmp_path / "other.json"), "not the JSON of a figure"),
        (lambda: point(7), f"no point 7; it has 1 to 6, which `./untaxed inspect {sidecar}` lists"),
        (lambda: point(3), "point 3 is the value that the paper reports; no run of this study stands behind it"),
        (lambda: point(5), "point 5 compares the judge 'string_match' with people, not runs; see results/tiny/agreement/"),
    ):
        with pytest.raises(UserError) as caught:
            call()
        assert message in str(caught.value)


def test_a_figure_of_runs_that_are_gone_says_so(place, sidecar):
    path = place / "paper_figures" / "tiny" / "gone.json"
    write_json(path, json.loads(sidecar.read_text()) | {"runs": ["tiny--gone"]})
    with pytest.raises(UserError, match=r"no run stands behind point 1: metrics.csv lacks tiny--gone; draw it again with: ./untaxed tiny"):
        said(inspection.inspect_point(path, 1, Filters()))
    path.unlink()


def test_a_verdict_without_its_sample_is_told(traced):
    folder = traced / "runs" / "m--r--t--n3--s4"
    write_jsonl(folder / "samples.jsonl", list(read_jsonl(folder / "samples.jsonl"))[1:])
    with pytest.raises(UserError, match="the verdict on harm h-1 has no sample; judge the run again"):
        list(inspection.read_samples(folder))


# ---- the command ----------------------------------------------------------------------------------------------------------------------


def command(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    call = [sys.executable, "-X", "importtime", root / "scripts/inspect_results.py", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "UNTAXED_WARM"}
    return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_lists_traces_and_imports_nothing_heavy(root, sidecar, traced):
    listed = command(root, str(sidecar), "2", "--limit", "1")
    assert listed.returncode == 0, listed.stderr[-500:]
    assert "runs: 2; benchmarks: harm, judged by string_match" in listed.stdout
    traced_by = command(root, "hand", "m--r--t--n3--s4", "harm", "h-1")
    assert "weights   sha256 aaa" in traced_by.stdout
    imported = {line.rpartition("|")[2].strip() for line in (listed.stderr + traced_by.stderr).splitlines()}
    assert not imported & {"torch", "transformers", "polars", "numpy", "scipy", "matplotlib", "pydantic"}


def test_the_command_tells_a_mistake_in_one_line(root, traced):
    result = command(root, "hand", "m--r--t--n3--s4", "harm", "h-1", "again")
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == "error: after a study come a run, a benchmark and an id; found 4 words"


def test_the_samples_on_which_two_judges_differ_are_listed_by_run_without_text(place, results):
    pair = {
        "metric": "harmful_score",
        "judge_a": "guard",
        "judge_b": "phrases",
        "n": 60,
        "n_read": 50,
        "kappa": 0.4,
        "kappa_ci": [0.1, 0.6],
    }
    apart = [
        {"run": "one--s0", "benchmark": "harm", "verdict_a": "safe", "verdict_b": "compliance", "ids": ["h-1", "h-2"]},
        {"run": "two--s1", "benchmark": "other", "verdict_a": "unsafe", "verdict_b": "refusal", "ids": ["o-1"]},
    ]
    write_json(place / "results/tiny/judge_pairs.json", [pair | {"judge_b": "classes", "differences": []}, pair | {"differences": apart}])
    path = place / "paper_figures" / "tiny" / "judge_pairs.json"
    write_json(path, {"title": "Pairs", "study": "tiny", "data": [pair], "runs": ["guard", "phrases"]})
    assert "kappa 0.400 [0.100, 0.600]" in said(inspection.list_points(path))
    lines = said(inspection.inspect_point(path, 1, Filters())).splitlines()
    assert lines[0] == "guard and phrases differ on 3 of 50 samples that both could read (60 judged by both)"
    rows = [" ".join(line.split()) for line in lines]
    assert rows[2:6] == ["one--s0", "id benchmark guard phrases", "h-1 harm safe compliance", "h-2 harm safe compliance"]
    assert "o-1 other unsafe refusal" in rows
    fewer = said(inspection.inspect_point(path, 1, Filters(benchmarks=("harm",), limit=1)))
    assert "h-1" in fewer
    assert "h-2" not in fewer
    assert "--limit 0 lists all" in fewer
    assert "o-1" not in fewer
    with pytest.raises(UserError, match="it has no such two judges"):
        write_json(place / "results/tiny/judge_pairs.json", [])
        list(inspection.inspect_point(path, 1, Filters()))
