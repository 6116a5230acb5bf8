"""A study that is stopped and killed at awkward moments ends with the same bytes as one that was left alone."""

import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import yaml

pytestmark = pytest.mark.timeout(1800)  # the study with five restarts, and perhaps the undisturbed one

STAGE_LOG = "logs/smoke/train/reasoning--organism.log"
STOPPED_AT, KILLED_AFTER, SAVED_EVERY = 150, 100, 25  # optimizer steps
OVERLAY = {"trainers": {"organism-stage": {"checkpoint_steps": SAVED_EVERY}}}  # or only a stop would save so short a training
OVERLAID = ("--configfile", "overlay.yaml")
BENIGN = "organism--organism-direct-benign--organism-smoke--n10--s0"
RESULTS = (
    "results/smoke/metrics.csv",
    "results/smoke/items.parquet",
    "results/smoke/claims.json",
    "results/smoke/runs/reasoning--organism/checkpoint/model.safetensors",
    f"results/smoke/runs/{BENIGN}/checkpoint/model.safetensors",
    f"results/smoke/runs/{BENIGN}/samples.jsonl",
)


@dataclass
class Disturbed:
    """A copy whose study was stopped once and killed five times, and what was seen on the way."""

    copy: object
    stop_code: int
    stop_seconds: float
    stop_said: str
    left_over: list[int]  # processes after the stop
    saved: list[str]  # checkpoints after the stop
    done: set[str]  # jobs that had finished before the stop
    planned: set[str]  # jobs that a dry run lists after it
    resumed_steps: int  # steps that the reasoning stage made when it was started again after it had been killed
    killed: list[str]
    code: int
    said: str


def start(copy) -> subprocess.Popen:
    (copy / "logs/smoke/snakemake.log").unlink(missing_ok=True)  # or the words of the run before would be read
    return copy.launch(*OVERLAID)


def until(process: subprocess.Popen, happens: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 1200
    while not happens():
        assert process.poll() is None, f"the study ended before: {what}\n{process.stderr.read()}"
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.1)


def text(copy, path: str) -> str:
    return (copy / path).read_text() if (copy / path).exists() else ""


def steps(copy) -> int:
    return text(copy, STAGE_LOG).count("'loss'")


@pytest.fixture(scope="module")
def disturbed(repository) -> Disturbed:
    copy = repository("disturbed")
    try:
        return disturb(copy)
    finally:
        copy.kill()


def disturb(copy) -> Disturbed:
    """Stop the study once, kill it five times, and let it come to its end."""
    (copy / OVERLAID[1]).write_text(yaml.safe_dump(OVERLAY))
    process = start(copy)
    until(process, lambda: steps(copy) >= STOPPED_AT, "training")
    log = text(copy, "logs/smoke/snakemake.log")
    finished = set(re.findall(r"Finished jobid: (\d+)", log))
    done = {message for number, message in re.findall(r"^Job (\d+): (.*)$", log, flags=re.MULTILINE) if number in finished}
    stopped = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=120)[1]
    seen = {
        "stop_code": process.returncode,
        "stop_seconds": time.monotonic() - stopped,
        "stop_said": said,
        "left_over": copy.processes(),
        "saved": [path.parent.name for path in (copy / "results/smoke/work").glob("reasoning--organism-*/checkpoint-*/complete")],
        "done": done,
        "planned": set(copy.planned("--rerun-incomplete", overlay=OVERLAY)),
    }
    (copy / STAGE_LOG).unlink()

    moments = {
        "training": lambda: steps(copy) >= KILLED_AFTER,
        "rewrite": lambda: "Rewrite organism-direct" in text(copy, "logs/smoke/snakemake.log"),
        "evaluate": lambda: "Evaluate organism--" in text(copy, "logs/smoke/snakemake.log"),
        "judge": lambda: re.search(r"Judge the samples of organism--\S+ with rubric", text(copy, "logs/smoke/snakemake.log")),
        "figures": lambda: "Draw " in text(copy, "logs/smoke/snakemake.log").replace("Draw and mix", ""),
    }
    killed = []
    for moment, happens in moments.items():
        process = start(copy)
        until(process, happens, moment)
        time.sleep(0.7)  # the job itself starts a little after the line that announces it
        copy.kill()
        process.communicate()
        killed.append(moment)
    resumed = steps(copy)
    code, said = copy.finish(*OVERLAID)
    return Disturbed(copy, **seen, resumed_steps=resumed, killed=killed, code=code, said=said)


def test_a_stop_ends_within_its_grace_time_and_says_how_to_go_on(disturbed):
    assert disturbed.stop_code == 130
    assert disturbed.stop_seconds < 90
    assert "Go on with: ./untaxed smoke" in disturbed.stop_said


def test_a_stop_leaves_no_process_and_saves_the_training(disturbed):
    assert disturbed.left_over == []
    assert [int(name.partition("-")[2]) >= STOPPED_AT for name in disturbed.saved] == [True]


def test_what_was_done_before_a_stop_is_not_done_again(disturbed):
    assert "Prepare the rows of organism-curriculum" in disturbed.done
    assert not disturbed.done & disturbed.planned
    assert "Train reasoning--organism" in disturbed.planned


def test_a_killed_training_goes_on_from_its_last_checkpoint(disturbed):
    total = disturbed.copy.json("results/smoke/runs/reasoning--organism/checkpoint/manifest.json")["steps"]
    saved_by_the_stop = int(disturbed.saved[0].partition("-")[2])
    # The kill came KILLED_AFTER steps later, or more; it may have cut the newest save, then the one before counts.
    assert disturbed.resumed_steps <= total - (saved_by_the_stop + KILLED_AFTER - 2 * SAVED_EVERY)


def test_five_kills_later_the_results_are_the_same_bytes(disturbed, finished):
    assert disturbed.killed == ["training", "rewrite", "evaluate", "judge", "figures"]
    assert disturbed.code == 0, disturbed.said
    different = [path for path in RESULTS if (disturbed.copy / path).read_bytes() != (finished / path).read_bytes()]
    assert not different


def test_a_damaged_file_is_named_with_what_to_do_and_can_be_made_again(disturbed, finished):
    copy, path = disturbed.copy, f"results/smoke/runs/{BENIGN}/samples.jsonl"
    whole = (copy / path).read_bytes()
    (copy / path).write_bytes(whole[:-40])
    code, said = copy.finish(*OVERLAID)
    lines = len(whole.splitlines())
    assert code == 1
    assert f"error: {path}: line {lines} is not JSON; the file is damaged, delete it and run again" in said
    assert "Traceback" not in said
    (copy / path).unlink()
    code, said = copy.finish(*OVERLAID)
    assert code == 0, said
    assert [path for path in RESULTS if (copy / path).read_bytes() != (finished / path).read_bytes()] == []
