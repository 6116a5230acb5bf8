"""What a person sees of a run, from lines that Snakemake 9.27.1 and pytest 9.2 wrote."""

import io
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from untaxed.progress import (
    Failure,
    Recorder,
    Stated,
    Study,
    bar_text,
    clock_line,
    clock_text,
    draw_study,
    follow_study,
    follow_tests,
    heartbeat_line,
    last_lines,
    left_text,
    live,
    passed_before,
    recorded_seconds,
    stated_rules,
    time_line,
)

START = """\
Building DAG of jobs...
Job stats:
job        count
-------  -------
train          2
eval           1
all            1
total          4

Select jobs to execute...
Execute 2 jobs...

[Sat Nov 21 20:31:58 2026]
Job 4: Train b
Reason: Missing output files: out/b.txt
[Sat Nov 21 20:31:58 2026]
localrule eval:
    input: out/b.txt
    output: out/b.done
    log: logs/eval/b.log
    jobid: 3
    reason: Missing output files: out/b.done
    wildcards: run=b, judge=strongreject
    resources: tmpdir=/tmp
"""
FINISHED = """\
[Sat Nov 21 20:31:59 2026]
Finished jobid: 4 (Rule: train)
1 of 4 steps (25%) done
"""
FAILED = """\
RuleException:
CalledProcessError in file "/tmp/toy/Snakefile", line 12:
Command 'set -euo pipefail;  false > logs/eval/b.log 2>&1' returned non-zero exit status 3.
[Sat Nov 21 20:31:59 2026]
Error in rule eval:
    message: None
    jobid: 3
    input: out/b.txt
    output: out/b.done
    log: logs/eval/b.log, logs/eval/b.csv (check log file(s) for error details)
    shell:
        (echo start) > logs/eval/b.log 2>&1
        (command exited with non-zero exit code)
"""


def read(study: Study, text: str, now: float) -> list:
    return [event for line in text.splitlines(keepends=True) if (event := study.read(line, now))]


def test_the_plan_and_the_running_jobs_are_read_with_their_names():
    study = Study(started=0)
    read(study, START, 1)
    assert (study.done, study.total) == (0, 4)
    assert study.left() == {"train": 2, "eval": 1, "all": 1}
    assert {number: job.text for number, job in study.running.items()} == {"4": "Train b", "3": "eval run=b, judge=strongreject"}


def test_a_finished_job_counts_for_its_rule_with_its_seconds():
    study = Study(started=0)
    read(study, START, 1)
    (job,) = read(study, FINISHED, 11)
    assert (job.rule, job.text) == ("train", "Train b")
    assert (study.done, study.left()["train"], study.spent) == (1, 1, {"train": [10]})
    assert list(study.running) == ["3"]


def test_a_failed_job_is_told_with_its_first_log_and_runs_no_more():
    study = Study(started=0)
    read(study, START, 1)
    assert read(study, FAILED, 2) == [Failure("eval", "3", "logs/eval/b.log")]
    assert list(study.running) == ["4"]


def test_a_retried_job_runs_again_and_counts_once():
    study = Study(started=0)
    read(study, START, 1)
    read(study, FAILED, 2)
    read(study, "Trying to restart job 3.\n" + START.partition("[Sat")[2].partition("[Sat")[2], 3)
    read(study, "Finished jobid: 3 (Rule: eval)\n", 5)
    assert (study.done, study.spent["eval"]) == (1, [2])


def begun(history: dict[str, float] | None = None, guesses: dict[str, float] | None = None) -> Study:
    """Two jobs of train, one of eval; the first train and the eval start at 0 s."""
    study = Study(started=0, history=history or {}, guesses=guesses or {}, rules=[Stated("train", "Train .+", "")])
    read(study, START, 0)
    return study


def test_no_time_left_is_said_while_the_time_of_a_rule_is_unknown():
    study = begun(guesses={"train": 10})
    assert study.seconds_left(10) is None
    assert "left" not in time_line(study, 10)
    read(study, "Finished jobid: 3 (Rule: eval)\n", 10)
    assert "left" in time_line(study, 10)


def test_recorded_times_give_the_time_left_before_anything_has_finished():
    # 2 x 60 + 30 s of work; the two running jobs have done 10 s each, and two run side by side: (150 - 20) / 2.
    assert begun(history={"train": 60, "eval": 30}).seconds_left(10) == pytest.approx(65)


def test_the_time_of_a_rule_blends_what_was_recorded_with_what_is_seen():
    study = begun(history={"train": 60, "eval": 30})
    read(study, FINISHED, 20)
    # The record counts as three jobs: (3 x 60 + 20) / 4 = 50. Left: one train and the last 10 s of eval, two side by side until now.
    assert study.mean("train", 20) == pytest.approx(50)
    assert study.seconds_left(20) == pytest.approx((50 + 10) / 2)


def test_times_of_other_studies_count_as_one_job():
    study = begun(guesses={"train": 60, "eval": 30})
    read(study, FINISHED, 20)
    assert study.mean("train", 20) == pytest.approx((60 + 20) / 2)


def test_a_job_that_takes_longer_counts_while_it_runs():
    study = begun(history={"train": 60, "eval": 30})
    assert study.mean("train", 60) == 60
    running = study.mean("train", 100)
    assert running == pytest.approx((3 * 60 + 100) / 4)
    read(study, FINISHED, 100)
    assert study.mean("train", 100) == running  # no jump at its end


def test_the_time_left_that_is_said_at_most_doubles_or_halves_from_line_to_line():
    study = begun(guesses={"train": 2, "eval": 2})
    said = [study.say_left(now) for now in range(1, 1000, 60)]
    assert all(before / 2 - 60 <= after <= max(before, 1) * 2 for before, after in pairwise(said))
    # the second train is left, and is thought as long as (2 + what the first took) / 2, which ran beside an eval all the time
    assert study.seconds_left(961) == pytest.approx((2 + 961) / 2 / 2)
    assert said[-1] > 200
    read(study, FINISHED, 961)
    study.history = {"train": 2}
    assert study.say_left(962) >= (said[-1] - 1) / 2


def test_what_is_recorded_of_a_study_and_the_means_over_the_others():
    recorded = {"laptop": {"train": 60.0}, "smoke": {"train": 1.0, "mix": 2.0}, "organism": {"train": 3.0}}
    assert recorded_seconds(recorded, "laptop") == ({"train": 60}, {"train": 2, "mix": 2})
    assert recorded_seconds(recorded, "paper")[0] == {}


def test_the_messages_of_this_workflow_tell_the_rule_of_a_running_job(root):
    study = Study(started=0, rules=stated_rules(root, "logs/laptop"))
    told = {
        "Draw and mix the training set of a": ("mix", "mix/a.log"),
        "Draw shift_tax": ("figure", "figure/shift_tax.log"),
        "Train a--dgr": ("train", "train/a--dgr.log"),
        "Judge the samples of a with b": ("judge", "judge/a--b.log"),
        "Look for the phrases of b in the samples of a": ("judge_phrases", "judge_phrases/a--b.log"),
        "Evaluate a": ("evaluate", "evaluate/a.log"),
    }
    read(study, "".join(f"Job {number}: {message}\n" for number, message in enumerate(told)), 0)
    assert [(job.rule, job.log) for job in study.running.values()] == [(rule, f"logs/laptop/{log}") for rule, log in told.values()]


def test_a_running_job_tells_how_far_the_bar_in_its_log_is(tmp_path):
    log = tmp_path / "a.log"
    study = Study(started=0, total=1, rules=[Stated("train", "Train (?P<run>.+)", f"{tmp_path}/{{run}}.log")])
    read(study, "Job 1: Train a\n", 0)
    log.write_text("Loading weights: 100%|##| 272/272 [00:00<00:00]\n")
    assert heartbeat_line(study, 5).endswith("running: Train a (5 s)")  # a full bar tells nothing of what goes on
    log.write_text(log.read_text() + "x" * 5000 + "\r 20%|#  | 12/61 [00:10<00:40]\n{'loss': '2.0'}\n")
    assert heartbeat_line(study, 5).endswith("running: Train a (5 s, 12 of 61)")
    assert bar_text(tmp_path / "missing.log") == ""


@pytest.mark.parametrize(("seconds", "text"), [(8.4, "8 s"), (62, "1 min"), (719, "12 min"), (3590, "1:00 h"), (7500, "2:05 h")])
def test_an_estimate_has_no_seconds_beside_minutes(seconds, text):
    assert left_text(seconds) == text


def test_a_heartbeat_says_what_runs_since_when_and_what_is_left():
    study = begun(history={"train": 600, "eval": 300})
    # 2 x 600 + 300 s less the 2 x 120 s done, over two side by side: 630 s
    assert heartbeat_line(study, 120) == (
        "0 of 4 done, 2:00 min, about 10 min left; running: Train b (2:00 min), eval run=b, judge=strongreject (2:00 min)"
    )


def test_plain_lines_go_on_while_nothing_ends(tmp_path, capsys):
    def lines():
        yield from START.splitlines(keepends=True)
        time.sleep(0.5)
        yield from FINISHED.splitlines(keepends=True)

    follow_study(lines(), tmp_path / "all.log", plain=True, heartbeat=0.1)
    said = capsys.readouterr().err.splitlines()
    assert 2 <= sum("running: Train b (" in line for line in said) <= 5
    assert said[-1].endswith(": Train b")


def test_reasoning_stages_do_not_decide_how_long_the_other_trainings_will_take():
    """One stage of 150 s has ended and one has run for 100 s: the trainings are still expected to take what is recorded of them."""
    study = Study(0.0, history={"train": 40.0}, rules=[Stated("train", "Train (?P<run>.+)", "")])
    lines = ("[Sun Nov 22 06:00:00 2026]", "Job 1: Train reasoning--a", "Finished jobid: 1 (Rule: train)", "Job 2: Train reasoning--b")
    for line, now in zip(lines, (0.0, 0.0, 150.0, 150.0), strict=True):
        study.read(line, now)
    assert (study.staged, study.spent) == (150.0, {})
    assert study.mean("train", now=250.0) == 40.0


def test_the_seconds_of_a_running_job_tick_on_the_display():
    screen = io.StringIO()
    study, start = begun(), time.monotonic()
    with live(Console(file=screen, force_terminal=True, width=100), lambda: draw_study(study, 60 * (time.monotonic() - start))):
        time.sleep(0.8)
    assert len(set(re.findall(r"Train b +(\d+ s)", screen.getvalue()))) >= 3


@pytest.mark.parametrize(("seconds", "text"), [(8.4, "8 s"), (59.7, "1:00 min"), (187, "3:07 min"), (7500, "2:05 h")])
def test_times_read_as_a_person_says_them(seconds, text):
    assert clock_text(seconds) == text


def test_without_a_terminal_one_line_at_most_comes_every_two_seconds_and_failures_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("logs/eval").mkdir(parents=True)
    Path("logs/eval/b.log").write_text("".join(f"line {number}\n" for number in range(30)))
    lines = [*START.splitlines(keepends=True), *FINISHED.splitlines(keepends=True)]
    lines += [f"Finished jobid: {number} (Rule: train)\n" for number in range(10, 60)]
    ticks = iter(range(10**6))
    follow_study([*lines, *FAILED.splitlines(keepends=True)], tmp_path / "all.log", plain=True, clock=lambda: next(ticks) / 10)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("1 of 4 done")
    assert said[0].endswith(": Train b")
    assert sum(" done, " in line for line in said) <= 1 + len(lines) * 2 / 10 / 2
    assert "failed: eval (job 3), log: logs/eval/b.log" in said
    assert said[-15:] == [f"    line {number}" for number in range(15, 30)]
    assert (tmp_path / "all.log").read_text().endswith("(command exited with non-zero exit code)\n")


def test_a_log_that_is_not_there_has_no_last_lines(tmp_path):
    assert last_lines(tmp_path / "none.log") == []


def test_the_real_output_of_this_snakemake_is_understood(tmp_path):
    (tmp_path / "Snakefile").write_text(
        'rule all:\n    input: "a", "b"\n'
        'rule plain:\n    output: "a"\n    log: "a.log"\n    shell: "echo 1 > {output} 2> {log}"\n'
        'rule told:\n    output: "b"\n    log: "b.log"\n    message: "Make b"\n    shell: "echo a [red] secret > {log}; exit 3"\n'
    )
    command = [sys.executable, "-m", "snakemake", "-c1", "--keep-going", "--nolock"]
    output = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False).stdout
    study = Study(started=0)
    read(study, output, 1)
    assert dict(study.finished) == {"plain": 1}
    assert (study.total, study.left()) == (3, {"told": 1, "all": 1})
    assert [(failure.rule, failure.log) for failure in study.failures] == [("told", "b.log")]


def test_a_test_run_shows_failures_at_once_and_ends_with_pytests_own_lines(tmp_path, capsys):
    (tmp_path / "test_example.py").write_text("def test_good(): pass\ndef test_bad(): assert 1 == 2, 'one is not two'\n")
    command = [sys.executable, "-m", "pytest", "-v", "--color=no", "-p", "no:cacheprovider", tmp_path]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout
    follow_tests(output.splitlines(keepends=True))
    shown = capsys.readouterr()
    assert "failed: test_example.py::test_bad" in shown.err
    assert "one is not two" in shown.out
    assert "1 failed, 1 passed" in shown.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("elapsed", "left", "running", "text"),
    [
        (10, 60, 0, "10 s, about 1 min left"),
        (30, 60, 20, "30 s, about 40 s left"),
        (30, 60, 70, "30 s"),  # the test takes longer than recorded
        (30, None, 30, "30 s"),  # nothing is recorded
    ],
)
def test_the_time_left_of_the_tests_counts_down_while_one_runs(elapsed, left, running, text):
    assert clock_line(elapsed, left, running) == text


def test_the_recorded_time_of_a_test_that_has_ended_is_no_longer_left(monkeypatch):
    draws, shown, screen = [], [], Console(width=150)
    monkeypatch.setattr("untaxed.progress.live", lambda _console, draw: nullcontext(draws.append(draw)))

    def lines():
        for line in (
            "collecting ... collected 3 items / 1 deselected\n",
            "recorded time: 100 s (2 of these 2 tests)\n",
            "test_a.py::test_slow PASSED    [ 50%]\n",
        ):
            yield line
            with screen.capture() as capture:
                screen.print(draws[0]())
            shown.append(re.search(r"\d+ of \d+ \d+ s(?:, about .*? left)?", capture.get()).group())

    follow_tests(lines(), {"test_a.py::test_slow": 60.0}, before=3, clock=lambda: 5.0)
    assert shown == ["3 of 5 0 s", "3 of 5 0 s, about 2 min left", "4 of 5 0 s, about 40 s left"]


def test_who_has_run_no_test_yet_gets_the_times_that_are_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr("untaxed.progress.SHIPPED_SECONDS", tmp_path / "shipped.json")
    (tmp_path / "shipped.json").write_text('{"a::slow": 40, "a::new": 2}')
    (tmp_path / "passed.txt").write_text("key\n")
    (tmp_path / "seconds.json").write_text('{"a::new": 3}')
    items = [SimpleNamespace(nodeid=name) for name in ("a::slow", "a::new", "a::other")]
    said = Recorder(tmp_path / "passed.txt").pytest_report_collectionfinish(items)
    assert said == "recorded time: 43 s (2 of these 3 tests)"


def test_a_record_is_gone_on_with_only_for_the_same_files(tmp_path):
    record = tmp_path / "tests/passed.txt"
    assert passed_before(record, "key") == set()
    with record.open("a") as file:
        file.write("test_a.py::test_b[x y]\ntest_a.py::test_cut-in-hal")
    assert passed_before(record, "key") == {"test_a.py::test_b[x y]"}
    assert passed_before(record, "other key") == set()
    assert record.read_text() == "other key\n"
    assert passed_before(record, "") == set()
    record.write_text("\ntest_a.py::test_b\n")
    assert passed_before(record, "") == set()  # unknown files equal no others
