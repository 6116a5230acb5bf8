"""The benches: each says how it is called, and what they compute from measurements is right on numbers made by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHES = sorted(path.name for path in (Path(__file__).parents[2] / "perf").glob("*.py") if path.name != "measure.py")
HEAD = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


@pytest.fixture
def perf(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the modules of perf/ importable."""
    monkeypatch.syspath_prepend(str(root / "perf"))


@pytest.fixture
def measured_study(tmp_path: Path) -> Path:
    """A folder with the benchmark files and logs of a study `tiny`: three trainings, one judgement, and a rule without a benchmark file."""
    times = {"train/a": "10.0\t0:00:10\t500.0", "train/b": "20.0\t0:00:20\t700.0", "train/c": "60.0\t0:01:00\t600.0"}
    times["judge/a--phrases"] = "10.0\t0:00:10\tNA"
    for name, start in times.items():
        path = tmp_path / "results/tiny/benchmarks" / f"{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(HEAD + start + "\t0\t0\t0\t0\t0\t0\t0\n")
    logs = tmp_path / "logs/tiny"
    logs.mkdir(parents=True)
    (logs / "rule_seconds.json").write_text('{"mix": 1.5, "train": 99}')
    (logs / "snakemake.log").write_text(
        "[Sat Nov 21 23:59:10 2026]\nJob 3: Train a\n[Sun Nov 22 00:01:10 2026]\nFinished jobid: 3 (Rule: train)\n5 of 6 steps (83%) done\n"
    )
    return tmp_path


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_says_how_it_is_called(root: Path, name: str) -> None:
    said = subprocess.run([sys.executable, root / "perf" / name, "--help"], capture_output=True, text=True, check=True).stdout
    assert f"python perf/{name}" in said


def test_the_work_by_hand_says_how_it_is_called(root: Path) -> None:
    said = subprocess.run([root / "perf/by_hand.sh", "--help"], capture_output=True, text=True, check=True).stdout
    assert "perf/by_hand.sh PLAN TIMES LOGS" in said


def test_rule_seconds_gives_the_launcher_the_mean_of_each_rule(root: Path, measured_study: Path) -> None:
    output = measured_study / "perf"
    output.mkdir()
    (output / "rule_seconds.json").write_text('{"other": {"train": 7}}')
    rule_seconds(root, measured_study, output)
    seconds = json.loads((output / "rule_seconds.json").read_text())
    assert seconds == {"other": {"train": 7}, "tiny": {"train": 30.0, "judge": 10.0, "mix": 1.5}}


def test_rule_seconds_tells_jobs_shares_and_the_wall_time(root: Path, measured_study: Path) -> None:
    rule_seconds(root, measured_study, measured_study / "perf")
    lines = (measured_study / "perf/tiny.md").read_text().splitlines()
    assert "| train | 3 | 90.0 | 90% | 20.0 |" in lines
    assert "| judge | 1 | 10.0 | 10% | 10.0 |" in lines
    assert "| all | 4 | 100.0 | 100% |  |" in lines
    assert json.loads((measured_study / "perf/tiny.json").read_text())["wall"] == {"seconds": 120.0, "done": 5, "steps": 6}


def rule_seconds(root: Path, folder: Path, output: Path) -> None:
    command = [sys.executable, root / "perf/rule_seconds.py", "tiny", "--root", folder, "--output", output]
    subprocess.run(command, check=True, capture_output=True)


def test_a_study_without_measurements_is_one_line(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, root / "perf/rule_seconds.py", "tiny", "--root", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: results/tiny/benchmarks: no benchmark files; run ./untaxed tiny first\n")


@pytest.mark.usefixtures("perf")
def test_sides_take_turns_and_every_second_round_runs_backwards() -> None:
    from measure import alternate

    calls: list[str] = []
    sides = {name: (lambda name=name: calls.append(name) or len(calls)) for name in "ab"}
    assert alternate(sides, 2) == {"a": [1, 4], "b": [2, 3]}
    assert "".join(calls) == "abba"


@pytest.mark.usefixtures("perf")
def test_the_first_runs_by_hand_have_one_of_every_n() -> None:
    from types import SimpleNamespace

    from bench_laptop import order

    runs = {"base": {"n": 0}, "a": {"n": 48}, "b": {"n": 48}, "c": {"n": 10}, "d": {"n": 10}}
    assert order(SimpleNamespace(runs=runs)) == ["base", "a", "c", "b", "d"]


@pytest.mark.usefixtures("perf")
def test_jobs_not_done_by_hand_cost_the_mean_of_their_kind() -> None:
    from bench_laptop import totals

    jobs = [{"part": "train", "group": "n=48"}] * 4 + [{"part": "judge", "group": "rubric"}]
    done = [{"part": "train", "group": "n=48", "seconds": s} for s in (10.0, 20.0)]
    parts, whole = totals(jobs, done)
    assert parts[0] == {"part": "train", "jobs": 4, "done": 2, "seconds": 30.0, "all": 60.0}
    assert whole is None  # nothing was judged
    assert totals(jobs, [*done, {"part": "judge", "group": "rubric", "seconds": 5.0}])[1] == 65.0


@pytest.mark.usefixtures("perf")
@pytest.mark.parametrize(("plain", "vllm", "tokens"), [((100, 5), (200, 25), 4000), ((100, 5), (200, 1), 0), ((100, 5), (90, 25), None)])
def test_vllm_pays_from_where_its_speed_has_won_back_its_start(plain: tuple, vllm: tuple, tokens: float | None) -> None:
    """At 4,000 tokens: 5 + 40 s against 25 + 20 s."""
    from bench_engines import break_even

    sides = [{"speed": {"median": speed}, "start": {"median": start}} for speed, start in (plain, vllm)]
    assert break_even(*sides) == tokens


@pytest.mark.usefixtures("perf")
def test_a_command_for_the_record_has_no_path_of_this_machine(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from measure import command_line

    monkeypatch.setattr(sys, "argv", [os.path.join(root, "perf/bench_warm.py"), "--repeats", "5"])
    assert command_line() == "python perf/bench_warm.py --repeats 5"
