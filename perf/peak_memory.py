"""The most memory that a command and everything it starts hold at once.

    python perf/peak_memory.py -- ./untaxed --plain laptop

Every two seconds the proportional set sizes (PSS: pages that n processes share count 1/n each) of the command's processes are added up;
Snakemake's own benchmark files miss the jobs that the warm server runs. Writes perf/peak_memory_<last word>.json with the peak, what ran
then, and the wall time. Linux only.
"""

import argparse
import sys
import time
from pathlib import Path

import psutil
from measure import ROOT, machine


def held(process: psutil.Process) -> list[tuple[float, str]]:
    """(PSS in MiB, its command line without folders) of a process and all below it; those that have just ended are left out."""
    found = []
    for one in [process, *process.children(recursive=True)]:
        try:
            found.append((one.memory_full_info().pss / 2**20, " ".join(word.rpartition("/")[2] for word in one.cmdline())[:90]))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return sorted(found, reverse=True)


def watch(command: list[str]) -> dict:
    """Run a command in the repository: {exit, seconds, peak_mib, largest (what held most at the peak)}."""
    started = time.time()
    peak: tuple[float, list] = (0.0, [])
    process = psutil.Popen(command, cwd=ROOT)
    while process.poll() is None:
        try:
            now = held(process)
        except psutil.NoSuchProcess:
            break
        peak = max(peak, (sum(size for size, _ in now), now))
        time.sleep(2)
    largest = [{"mib": round(size), "command": words} for size, words in peak[1][:4]]
    return {"exit": process.wait(), "seconds": round(time.time() - started, 1), "peak_mib": round(peak[0]), "largest": largest}


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("command", nargs="+", help="after --")
    command = made.parse_args().command
    before, found = machine(), watch(command)
    from untaxed.records import write_json

    write_json(ROOT / "perf" / f"peak_memory_{Path(command[-1]).stem}.json", {"command": command, **found, "machine": before})
    print(f"peak {found['peak_mib'] / 1024:.2f} GiB, {found['seconds']:.0f} s, exit code {found['exit']}", file=sys.stderr)
    return found["exit"]


if __name__ == "__main__":
    sys.exit(main())
