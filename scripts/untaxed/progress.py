"""What a running study or test suite shows a person: read from the output of Snakemake or pytest, drawn with rich or as plain lines."""

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

PLAIN_INTERVAL = 2.0  # seconds between two lines where no terminal is
TAIL = 15  # lines of a failed job's log

RULE = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
MESSAGE = re.compile(r"^Job (\d+): (.*)$")
KEY = re.compile(r"^    (\w+): (.*)$")
FINISHED = re.compile(r"^Finished jobid: (\d+) \(Rule: (\w+)\)")
STEPS = re.compile(r"^(\d+) of (\d+) steps \(.*\) done$")
ERROR = re.compile(r"^Error in rule (\w+):$")
COUNT = re.compile(r"^(\w+) +(\d+)$")
TEST = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b.*?(?:\[ *\d+%\])?$")
COLLECTED = re.compile(r"^collect(?:ed|ing).*?(\d+) items?(?: / (\d+) deselected)?")


@dataclass
class Job:
    """A job that runs: its rule where Snakemake has told it, what it is called, and when it started (seconds of the caller's clock)."""

    rule: str | None
    text: str
    started: float


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
    spent: dict[str, list[float]] = field(default_factory=dict)  # by rule
    failures: list[Failure] = field(default_factory=list)
    history: dict[str, float] = field(default_factory=dict)  # seconds of a job by rule, from earlier runs
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
            self.running[match[1]] = Job(None, match[2], now)
        elif match := STEPS.match(line):
            self.total = int(match[2])  # grows when a checkpoint adds jobs
        elif match := FINISHED.match(line):
            job = self.running.pop(match[1], Job(None, match[2], now))
            job.rule = match[2]
            self.finished[job.rule] += 1
            self.spent.setdefault(job.rule, []).append(now - job.started)
            return job
        return None

    def read_key(self, key: str, value: str, now: float) -> Failure | None:
        kind, rule = self.block
        if kind == "rule" and key == "jobid":
            self.job = value
            self.running[value] = Job(rule, rule, now)
        elif kind == "rule" and key == "wildcards":
            self.running[self.job].text = f"{rule} {value}"
        elif kind == "error" and key == "jobid":
            self.running.pop(value, None)
            self.failures.append(Failure(rule, value))
        elif kind == "error" and key == "log" and self.failures:
            self.failures[-1].log = value.partition(" (check log")[0].partition(", ")[0]
            return self.failures[-1]
        return None

    @property
    def done(self) -> int:
        return self.finished.total()

    def left(self) -> dict[str, int]:
        """Jobs that have not finished, by rule."""
        return {rule: count - self.finished[rule] for rule, count in self.planned.items() if count > self.finished[rule]}

    def seconds_left(self, now: float) -> float | None:
        """Time to the end: the jobs left, each at its rule's mean time here or earlier, over the jobs side by side; None if unknown."""
        seen = [seconds for spent in self.spent.values() for seconds in spent]
        means = self.history | {rule: sum(spent) / len(spent) for rule, spent in self.spent.items()}
        if not means:
            return None
        usual = sum(means.values()) / len(means)
        work = sum(count * means.get(rule, usual) for rule, count in self.left().items())
        busy = [(now - job.started, means.get(job.rule, usual)) for job in self.running.values()]
        work -= sum(min(elapsed, mean) for elapsed, mean in busy)
        elapsed = max(now - self.started, 0.001)
        side_by_side = max(1.0, (sum(seen) + sum(elapsed for elapsed, _ in busy)) / elapsed)
        return max(0.0, work / side_by_side)


def follow_study(
    lines: Iterable[str],
    log: Path,
    history: dict[str, float],
    plain: bool,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Study:
    """Show a study while its Snakemake writes `lines`; all of them go to `log`. Returns what was seen.

    Jobs that end while the user stops the study are not shown as failures.
    """
    study = Study(started=clock(), history=history)
    log.parent.mkdir(parents=True, exist_ok=True)
    console = new_console(plain)
    lock = Lock()  # rich draws in a thread of its own
    said = clock() - PLAIN_INTERVAL

    def draw() -> Any:
        with lock:
            return draw_study(study, clock())

    with log.open("a", encoding="utf-8") as file, nullcontext() if plain else live(console, draw):
        for line in lines:
            file.write(line)
            file.flush()
            now = clock()
            with lock:
                event = study.read(line, now)
            match event:
                case Failure() as failure if not stopping():
                    show_failure(failure, console)
                case Job() as job if plain and now - said >= PLAIN_INTERVAL:
                    said = now
                    console.print(
                        f"{study.done} of {study.total} done, {time_line(study, now)}: {job.text}", soft_wrap=True, highlight=False
                    )
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
    for job in list(study.running.values())[:8]:
        jobs.add_row("  running", Text(job.text), clock_text(now - job.started))
    left = ", ".join(f"{rule} {count}" for rule, count in study.left().items())
    return Group(head, jobs, Text(f"  left: {left}", style="dim") if left else Text(""))


def time_line(study: Study, now: float) -> str:
    left = study.seconds_left(now)
    return clock_text(now - study.started) + (f", about {clock_text(left)} left" if left is not None and study.left() else "")


def clock_text(seconds: float) -> str:
    """`8 s`, `3:07 min` or `2:05 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60}:{whole % 60:02d} min" if whole < 3600 else f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def follow_tests(lines: Iterable[str]) -> None:
    """Show a bar while `pytest -v` writes `lines`, each failure at once, and pytest's own summary at the end."""
    from rich.console import Group
    from rich.markup import escape
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    console, counts, state = new_console(plain=False), Counter(), {"total": 0, "test": ""}
    started, summary = time.monotonic(), []

    def draw() -> Group:
        head = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=state["total"] or None, completed=counts.total(), width=40, pulse=not state["total"])
        said = ", ".join(f"{count} {outcome.lower()}" for outcome, count in counts.items())
        head.add_row(bar, f"{counts.total()} of {state['total']}", clock_text(time.monotonic() - started), said)
        return Group(head, escape(state["test"]))

    with live(console, draw):
        for line in lines:
            if match := TEST.match(line.rstrip()):
                state["test"] = match[1]
                counts[match[2]] += 1
                if match[2] in ("FAILED", "ERROR"):
                    console.print(f"[bold red]{match[2].lower()}:[/] {escape(match[1])}", soft_wrap=True)
            elif match := COLLECTED.match(line):
                state["total"] = int(match[1]) - int(match[2] or 0)
            elif line.startswith("=") or summary:
                summary.append(line)
    first = next((number for number, line in enumerate(summary) if "test session starts" not in line and line.startswith("=")), 0)
    sys.stdout.write("".join(summary[first:]))
    sys.stdout.flush()


def new_console(plain: bool) -> Any:
    from rich.console import Console

    return Console(force_terminal=False if plain else None, stderr=True)


def live(console: Any, draw: Callable[[], Any]) -> Any:
    """A display that draws itself four times a second and is gone when it ends."""
    from rich.live import Live

    return Live(get_renderable=draw, console=console, refresh_per_second=4, transient=True)
