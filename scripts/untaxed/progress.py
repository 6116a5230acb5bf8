"""What a running study or test suite shows a person: read from the output of Snakemake or pytest, drawn with rich or as plain lines."""

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any, NamedTuple

from untaxed.command import LASTING

PLAIN_INTERVAL = 2.0  # seconds between two lines where no terminal is
HEARTBEAT = 60.0  # seconds after the last plain line until one says what still runs
RECORDED = 3  # jobs that a rule's recorded time counts as beside those of this run
GUESSED = 1  # the same for a time recorded in other studies
TARGETS = ("all", "assets", "datasets", "checkpoints", "metrics", "figures")  # rules that only ask for files
LEAST_BUSY = 0.5  # jobs side by side on average, at the least that is believed: Snakemake takes time between short ones
REVISION = 10.0  # seconds in which the time left on a display may double or halve; between two plain lines it does so once at most
SHOWN = 8  # running jobs
SHIPPED_SECONDS = Path(__file__).parents[2] / "perf" / "test_seconds.json"  # of the slower tests, for who has run none yet
STAGE = "Train reasoning--"  # how the message of a reasoning stage begins
TAIL = 15  # lines of a failed job's log
BAR_TAIL = 2000  # bytes at the end of a running job's log, where its progress bar is

STATED = re.compile(r"(?:(?:rule|checkpoint) (\w+):|use rule \w+ as (\w+) with:)")
BAR = re.compile(r"(\d+)/(\d+) \[")  # tqdm's
RULE = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
MESSAGE = re.compile(r"^Job (\d+): (.*)$")
KEY = re.compile(r"^    (\w+): (.*)$")
FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)")
STEPS = re.compile(r"^(\d+) of (\d+) steps \(.*\) done$")
ERROR = re.compile(r"^Error in rule (\w+):$")
COUNT = re.compile(r"^(\w+) +(\d+)$")
TEST = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*?(?:\[ *\d+%\])?$")
RECORDED_TIME = re.compile(r"^recorded time: (\d+) s ")
COLLECTED = re.compile(r"^collect(?:ed|ing).*?(\d+) items?(?: / (\d+) deselected)?")


class Stated(NamedTuple):
    """What a rule of the workflow states: its name, the pattern of its jobs' messages, and its log file with `{wildcard}`s."""

    rule: str
    message: str
    log: str  # "" where it has none


@dataclass
class Job:
    """A job that runs: its rule where that is known, what it is called, when it started (seconds of the caller's clock), its log."""

    rule: str | None
    text: str
    started: float
    log: str = ""


@dataclass
class Failure:
    """A failed job and the first of its log files."""

    rule: str
    job: str
    log: str | None = None


@dataclass
class Study:
    """What Snakemake's output has told so far. Times in seconds."""

    started: float
    total: int = 0
    planned: Counter = field(default_factory=Counter)
    finished: Counter = field(default_factory=Counter)
    running: dict[str, Job] = field(default_factory=dict)
    spent: dict[str, list[float]] = field(default_factory=dict)  # by rule, without reasoning stages
    staged: float = 0.0  # of the finished reasoning stages
    failures: list[Failure] = field(default_factory=list)
    history: dict[str, float] = field(default_factory=dict)  # seconds of a job by rule, recorded for this study
    guesses: dict[str, float] = field(default_factory=dict)  # the same from other studies
    rules: list[Stated] = field(default_factory=list)  # for a job with a message Snakemake names the rule only when it ends
    first: float | None = None  # when the first job started
    said: tuple[float, float] | None = None  # the time left that was said, and when
    block: tuple[str, str] = ("", "")  # what the indented lines belong to: (kind, rule)
    job: str = ""

    def read(self, line: str, now: float) -> Job | Failure | None:
        """Take one line of Snakemake's output. Returns the job that it says has finished or failed."""
        line = line.rstrip()
        if match := KEY.match(line):
            return self.read_key(match[1], match[2], now)
        if self.block[0] == "stats" and line:
            if match := COUNT.match(line):
                name, count = match[1], int(match[2])
                self.planned[name] = count
                if name == "total":
                    self.total = self.planned.pop("total")
            return None
        if line.startswith("    "):
            return None
        self.block = ("", "")
        if line == "Job stats:":
            self.planned.clear()
            self.block = ("stats", "")
        elif match := RULE.match(line):
            self.block = ("rule", match[1])
        elif match := ERROR.match(line):
            self.block = ("error", match[1])
        elif match := MESSAGE.match(line):
            self.start(match[1], self.job_of(match[2], now))
        elif match := STEPS.match(line):
            self.total = int(match[2])  # grows when a checkpoint adds jobs
        elif match := FINISHED.match(line):
            job = self.running.pop(match[1], Job(None, match[2], now))
            job.rule = match[2]
            self.count(job, now - job.started)
            return job
        return None

    def read_key(self, key: str, value: str, now: float) -> Failure | None:
        kind, rule = self.block
        if kind == "rule" and key == "jobid":
            self.job = value
            self.start(value, Job(rule, rule, now))
        elif kind == "rule" and key == "wildcards":
            self.running[self.job].text = f"{rule} {value}"
        elif kind == "error" and key == "jobid":
            self.running.pop(value, None)
            self.failures.append(Failure(rule, value))
        elif kind == "error" and key == "log" and self.failures:
            self.failures[-1].log = value.partition(" (check log")[0].partition(", ")[0]
            return self.failures[-1]
        return None

    def count(self, job: Job, seconds: float) -> None:
        """Count a finished job and its time."""
        self.finished[job.rule] += 1
        if job.text.startswith(STAGE):
            self.staged += seconds
        else:
            self.spent.setdefault(job.rule, []).append(seconds)

    def job_of(self, message: str, now: float) -> Job:
        """The job that this is the message of, with the rule and the log that the workflow's files state."""
        for rule, pattern, log in self.rules:
            if match := re.fullmatch(pattern, message):
                return Job(rule, message, now, re.sub(r"\{(\w+)\}", lambda name: match.groupdict().get(name[1], ""), log))
        return Job(None, message, now)

    def start(self, number: str, job: Job) -> None:
        self.running[number] = job
        self.first = job.started if self.first is None else self.first

    @property
    def done(self) -> int:
        return self.finished.total()

    def left(self) -> dict[str, int]:
        """Jobs that have not finished, by rule."""
        return {rule: count - self.finished[rule] for rule, count in self.planned.items() if count > self.finished[rule]}

    def mean(self, rule: str, now: float) -> float | None:
        """Seconds of a job of this rule; None if nothing is known.

        The recorded time counts as RECORDED jobs (GUESSED, if other studies gave it) beside those that have finished here, and
        a running job counts from when it has run for longer than that, so the mean rises with it and not when it ends. A job
        does not count if it is a reasoning stage: those come first, are few, and take many times as long as the other trainings.
        """
        known, weight = (self.history.get(rule), RECORDED) if rule in self.history else (self.guesses.get(rule), GUESSED)
        seen = self.spent.get(rule, [])
        total, jobs = sum(seen), len(seen)
        if known is not None:
            total, jobs = total + weight * known, jobs + weight
        for elapsed in sorted(now - job.started for job in self.running.values() if job.rule == rule and not job.text.startswith(STAGE)):
            if jobs and elapsed > total / jobs:
                total, jobs = total + elapsed, jobs + 1
        return total / jobs if jobs else None

    def seconds_left(self, now: float) -> float | None:
        """Time to the end: the jobs left, each at its rule's mean, over the jobs side by side. None while the time of a rule is unknown."""
        left = self.left()
        means = {rule: 0.0 if rule in TARGETS else self.mean(rule, now) for rule in left}
        if not left or None in means.values() or self.first is None:
            return None
        busy = sum(now - job.started for job in self.running.values())
        work = sum(count * means[rule] for rule, count in left.items())
        work -= sum(min(now - job.started, means.get(job.rule, 0.0)) for job in self.running.values())
        elapsed = now - self.first
        side_by_side = (sum(map(sum, self.spent.values())) + self.staged + busy) / elapsed if elapsed > 0 else len(self.running)
        return max(0.0, work / max(side_by_side, LEAST_BUSY))

    def say_left(self, now: float) -> float | None:
        """The time left as a person is told it: beside counting down it at most doubles or halves from one time to the next."""
        left = self.seconds_left(now)
        if left is None:
            self.said = None
            return None
        if self.said:
            before, when = self.said
            bound = 2 ** min(1.0, (now - when) / REVISION)
            left = min(max(left, (before - (now - when)) / bound), max(before, 1.0) * bound)
        self.said = (left, now)
        return left


def recorded_seconds(recorded: dict[str, dict[str, float]], study: str) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of a job by rule from the record of all studies (study -> rule -> seconds): this study's, and the means over the others."""
    others: dict[str, list[float]] = {}
    for name, seconds in recorded.items():
        for rule, value in seconds.items() if name != study else ():
            others.setdefault(rule, []).append(value)
    return dict(recorded.get(study, {})), {rule: sum(values) / len(values) for rule, values in others.items()}


def stated_rules(folder: Path, logs: Path | str) -> list[Stated]:
    """The rules with messages in a workflow's folder whose logs lie in `logs`; those with the longest messages, which say most, first."""
    found: dict[str, dict[str, str]] = {}
    for file in [folder / "Snakefile", *sorted(folder.glob("rules/*.smk"))]:
        rule = ""
        for line, after in pairwise([*last_lines(file, 10**6), ""]):
            if match := STATED.match(line):
                rule = match[1] or match[2]
            elif line.strip() in ("message:", "log:") and (text := re.fullmatch(r'f?"(.*)",?', after.strip())):
                found.setdefault(rule, {})[line.strip()[:-1]] = text[1]
    rules = [
        Stated(rule, message_pattern(said["message"]), re.sub(r"\{(\{.*?\})\}", r"\1", said.get("log", "").replace("{LOGS}", str(logs))))
        for rule, said in found.items()
        if "message" in said
    ]
    return sorted(rules, key=lambda stated: -len(stated.message))


def message_pattern(message: str) -> str:
    """What a rule's message looks like once its wildcards, here named groups, and its other fields are filled in."""
    parts = re.split(r"\{(.*?)\}", message)
    return "".join(
        (f"(?P<{name[1]}>.+)" if (name := re.fullmatch(r"wildcards\.(\w+)", part)) else ".+") if number % 2 else re.escape(part)
        for number, part in enumerate(parts)
    )


def bar_text(log: str | Path) -> str:
    """`12 of 61`, where the last progress bar in a job's log stands; empty where there is none or it is full."""
    try:
        with Path(log).open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - BAR_TAIL))
            bars = BAR.findall(file.read().decode(errors="replace"))
    except OSError:
        return ""
    return f"{bars[-1][0]} of {bars[-1][1]}" if bars and int(bars[-1][0]) < int(bars[-1][1]) else ""


def follow_study(
    lines: Iterable[str],
    log: Path,
    plain: bool,
    study: Study | None = None,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    heartbeat: float = HEARTBEAT,
) -> Study:
    """Show a study while its Snakemake writes `lines`; all of them go to `log`. Returns what was seen.

    `study` holds what is known before. Jobs that end while the user stops the study are not shown as failures. Without a display a line
    says what runs whenever none has been written for `heartbeat` seconds.
    """
    study = study or Study(started=clock())
    log.parent.mkdir(parents=True, exist_ok=True)
    console = new_console(plain)
    lock = Lock()  # the display and the heartbeat are threads of their own
    told, said = clock(), clock() - PLAIN_INTERVAL  # any plain line, one on a finished job
    ended = Event()

    def draw() -> Any:
        with lock:
            return draw_study(study, clock())

    def tell(line: str) -> None:
        nonlocal told
        told = clock()
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    def beat() -> None:
        while not ended.wait(min(heartbeat / 4, 1.0)):
            with lock:
                if study.running and clock() - told >= heartbeat:
                    tell(heartbeat_line(study, clock()))

    pulse = Thread(target=beat, daemon=True)
    if plain:
        pulse.start()
    try:
        with log.open("a", encoding="utf-8") as file, nullcontext() if plain else live(console, draw):
            for line in lines:
                file.write(line)
                file.flush()
                now = clock()
                with lock:
                    event = study.read(line, now)
                    if isinstance(event, Job) and plain and now - said >= PLAIN_INTERVAL:
                        said = now
                        tell(f"{steps_line(study, now)}: {event.text}")
                if isinstance(event, Failure) and not stopping():
                    show_failure(event, console)
    finally:
        ended.set()
        if plain:
            pulse.join()
    for failure in study.failures:
        if failure.log is None and not stopping():
            show_failure(failure, console)
    return study


def show_failure(failure: Failure, console: Any) -> None:
    """Say which job failed, where its log is, and how that log ends."""
    from rich.markup import escape

    console.print(
        f"[bold red]failed:[/] {failure.rule} (job {failure.job})" + (f", log: {escape(failure.log)}" if failure.log else ""),
        soft_wrap=True,
    )
    for line in last_lines(failure.log):
        console.print(f"    {escape(line)}", soft_wrap=True, highlight=False)


def lasting(failures: Iterable[Failure]) -> list[str]:
    """The rules of failed jobs that fail again unless a setting changes: their logs say so (`command.run_here`)."""
    return sorted({failure.rule for failure in failures if LASTING in last_lines(failure.log)})


def last_lines(path: str | Path | None, count: int = TAIL) -> list[str]:
    """The end of a text file, or nothing when it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[-count:] if path else []
    except OSError:
        return []


def draw_study(study: Study, now: float) -> Any:
    """A bar, the jobs that run with their seconds, and what is left."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(padding=(0, 1))
    steps = f"{study.done} of {study.total}" if study.total else "reading the workflow"
    head.add_row(
        ProgressBar(total=study.total or None, completed=study.done, width=40, pulse=not study.total), steps, time_line(study, now)
    )
    jobs = Table.grid(padding=(0, 2))
    for job in list(study.running.values())[:SHOWN]:
        jobs.add_row("  running", Text(job.text), clock_text(now - job.started), bar_text(job.log))
    left = ", ".join(f"{rule} {count}" for rule, count in study.left().items())
    return Group(head, jobs, Text(f"  left: {left}", style="dim") if left else Text(""))


def steps_line(study: Study, now: float) -> str:
    return f"{study.done} of {study.total} done, {time_line(study, now)}"


def heartbeat_line(study: Study, now: float) -> str:
    """How far the study is, and the jobs that run with the time since they started."""
    jobs = [f"{job.text} ({', '.join(filter(None, [clock_text(now - job.started), bar_text(job.log)]))})" for job in study.running.values()]
    more = f" and {len(jobs) - SHOWN} more" if len(jobs) > SHOWN else ""
    return f"{steps_line(study, now)}; running: {', '.join(jobs[:SHOWN])}{more}"


def time_line(study: Study, now: float) -> str:
    """The time since the start, and the time left where there is ground for one and it is a second at least."""
    left = study.say_left(now)
    return clock_text(now - study.started) + (f", about {left_text(left)} left" if left is not None and left >= 1 else "")


def left_text(seconds: float) -> str:
    """`8 s`, `12 min` or `2:05 h`: an estimate has no seconds beside minutes."""
    if seconds < 60:
        return clock_text(seconds)
    return f"{round(seconds / 60)} min" if seconds < 3570 else clock_text(60 * round(seconds / 60))


def clock_text(seconds: float) -> str:
    """`8 s`, `3:07 min` or `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def passed_before(record: Path, key: str) -> set[str]:
    """The tests that had passed when the session of this record was stopped; a record of another key is begun anew, with none.

    `key` says what the tests run on; "" (unknown) equals no other.
    """
    lines = record.read_text(encoding="utf-8").split("\n") if record.exists() else [""]
    if key and lines[0] == key:
        return set(lines[1:-1])  # what follows the last line end was cut while it was written
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(f"{key}\n", encoding="utf-8")
    return set()


class Recorder:
    """A plugin for pytest: writes down each test that passes, so that a stopped session can go on, and how long each test takes.

    `record` has been begun by `passed_before`; it is removed when the session comes to its end. `seconds.json` beside it is kept.
    """

    def __init__(self, record: Path) -> None:
        self.record, self.times = record, record.with_name("seconds.json")
        self.before = set(record.read_text(encoding="utf-8").split("\n")[1:-1])
        known = [path for path in (SHIPPED_SECONDS, self.times) if path.exists()]
        self.recorded: dict[str, float] = {test: spent for path in known for test, spent in json.loads(path.read_text()).items()}
        self.spent: Counter = Counter()
        self.passed: set[str] = set()
        self.left_out = 0

    def pytest_collection_modifyitems(self, config: Any, items: list) -> None:
        done = [item for item in items if item.nodeid in self.before]
        if done:
            self.left_out = len(done)
            config.hook.pytest_deselected(items=done)
            items[:] = [item for item in items if item.nodeid not in self.before]

    def pytest_report_collectionfinish(self, items: list) -> str | None:
        known = [self.recorded[item.nodeid] for item in items if item.nodeid in self.recorded]
        return f"recorded time: {sum(known):.0f} s ({len(known)} of these {len(items)} tests)" if known else None

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.spent[report.nodeid] += report.duration
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)
        elif report.when == "teardown" and report.passed and report.nodeid in self.passed:
            with self.record.open("a", encoding="utf-8") as file:
                file.write(f"{report.nodeid}\n")

    def pytest_sessionfinish(self, session: Any, exitstatus: int) -> None:
        interrupted, nothing_to_run = 2, 5  # pytest.ExitCode
        if exitstatus == nothing_to_run and self.left_out:
            session.exitstatus = 0  # it was stopped after its last test
        if exitstatus != interrupted:
            self.record.unlink(missing_ok=True)
        rounded = {test: round(seconds, 3) for test, seconds in self.spent.items()}
        new = self.times.with_name(f".{self.times.name}")
        new.write_text(json.dumps(self.recorded | rounded, indent=0, sort_keys=True) + "\n")
        new.replace(self.times)


def follow_tests(
    lines: Iterable[str], seconds: dict[str, float] | None = None, before: int = 0, clock: Callable[[], float] = time.monotonic
) -> None:
    """Show a bar while `pytest -v` writes `lines`, each failure at once, and pytest's own summary at the end.

    `seconds` are recorded times by test; with the sum that a Recorder reports they give the time left. `before` tests passed before a stop.
    """
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console, counts, state = new_console(plain=False), Counter(), {"total": 0, "test": "", "left": None, "since": 0.0}
    started, summary, seconds = clock(), [], seconds or {}

    def draw() -> Group:
        head = Table.grid(padding=(0, 1))
        done = before + counts.total()
        bar = ProgressBar(total=state["total"] or None, completed=done, width=40, pulse=not state["total"])
        said = ", ".join(f"{count} {outcome.lower()}" for outcome, count in counts.items())
        head.add_row(bar, f"{done} of {state['total']}", clock_line(clock() - started, state["left"], clock() - state["since"]), said)
        return Group(head, escape(state["test"]))

    with live(console, draw):
        for line in lines:
            if match := TEST.match(line.rstrip()):
                state["test"] = match[1]
                counts[match[2]] += 1
                if state["left"] is not None:
                    state |= {"left": state["left"] - seconds.get(match[1], 0.0), "since": clock()}
                if match[2] in ("FAILED", "ERROR"):
                    console.print(f"[bold red]{match[2].lower()}:[/] {escape(match[1])}", soft_wrap=True)
            elif match := COLLECTED.match(line):
                state["total"] = before + int(match[1]) - int(match[2] or 0)
            elif match := RECORDED_TIME.match(line):
                state |= {"left": float(match[1]), "since": clock()}
            elif line.startswith("=") or summary:
                summary.append(line)
    first = next((number for number, line in enumerate(summary) if "test session starts" not in line and line.startswith("=")), 0)
    sys.stdout.write("".join(summary[first:]))
    sys.stdout.flush()


def clock_line(elapsed: float, left: float | None, running: float) -> str:
    """The time since the start, and what is left of the recorded time after the test that has run for `running` seconds."""
    rest = left - running if left is not None else 0.0
    return clock_text(elapsed) + (f", about {left_text(rest)} left" if rest >= 1 else "")


def new_console(plain: bool) -> Any:
    from rich.console import Console

    return Console(force_terminal=False if plain else None, stderr=True)


def live(console: Any, draw: Callable[[], Any]) -> Any:
    """A display that draws itself four times a second and is gone when it ends."""
    from rich.live import Live

    return Live(get_renderable=draw, console=console, refresh_per_second=4, transient=True)
