"""What each rule of a study cost: Snakemake's benchmark files of finished runs become one table, and the means that the launcher reads.

    python perf/rule_seconds.py laptop smoke

Reads results/<study>/benchmarks/<rule>/*.tsv and logs/<study>/snakemake.log (the launcher's last run); writes perf/<study>.json,
perf/<study>.md and the study's part of perf/rule_seconds.json. Rules without a benchmark file get the launcher's own mean.
Snakemake does not see the memory of jobs in the warm server: perf/peak_memory.py measures that of a whole study.
"""

import argparse
import csv
import json
import re
import statistics
from datetime import datetime
from pathlib import Path

from measure import ROOT, machine, number, report, table

STAMP = re.compile(r"^\[(\w{3} \w{3} +\d+ \d\d:\d\d:\d\d \d{4})\]$", re.MULTILINE)
DONE = re.compile(r"^(\d+) of (\d+) steps", re.MULTILINE)


def jobs(folder: Path) -> dict[str, list[float]]:
    """{rule: [seconds]} of a folder of benchmark files: <rule>/<job>.tsv, or <rule>.tsv where a rule has one job."""
    found: dict[str, list[float]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        with path.open(encoding="utf-8") as stream:
            rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
            found.setdefault(rule, []).extend(float(line["s"]) for line in csv.DictReader(stream, delimiter="\t"))
    return found


def costs(found: dict[str, list[float]]) -> list[dict]:
    """One record per rule, the most expensive first: jobs, seconds in all, share of all rules, median seconds."""
    whole = sum(map(sum, found.values()))
    records = [
        {
            "rule": rule,
            "jobs": len(seconds),
            "seconds": sum(seconds),
            "share": sum(seconds) / whole if whole else 0.0,
            "median": statistics.median(seconds),
        }
        for rule, seconds in found.items()
    ]
    return sorted(records, key=lambda record: -record["seconds"])


def wall(log: Path) -> dict:
    """From the first to the last time that a Snakemake log names: {seconds, done, steps}; empty when there is no such log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    stamps = [datetime.strptime(stamp, "%a %b %d %H:%M:%S %Y") for stamp in STAMP.findall(text)]
    steps = DONE.findall(text)
    if not stamps or not steps:
        return {}
    return {"seconds": (stamps[-1] - stamps[0]).total_seconds(), "done": int(steps[-1][0]), "steps": int(steps[-1][1])}


def markdown(records: list[dict], whole: dict) -> str:
    """The table of a study, and its wall time."""
    head = ["rule", "jobs", "seconds", "share", "median seconds"]
    rows = [
        [r["rule"], r["jobs"], r["seconds"], f"{r['share']:.0%}", r["median"]] for r in [*records, *([total(records)] if records else [])]
    ]
    text = table(head, [[f"{c:.1f}" if isinstance(c, float) else c for c in row] for row in rows])
    if whole:
        text += f"\nThe launcher's last run: {number(whole['seconds'])} s from first to last job, "
        text += f"{whole['done']} of {whole['steps']} jobs. Jobs lie side by side, and the table holds jobs of earlier runs too.\n"
    return text


def total(records: list[dict]) -> dict:
    """The last line of the table."""
    sums = {key: sum(record[key] for record in records) for key in ("jobs", "seconds", "share")}
    return {"rule": "all", **sums, "median": ""}


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("studies", nargs="+")
    made.add_argument("--root", type=Path, default=ROOT, help="folder with results/ and logs/")
    made.add_argument("--output", type=Path, default=ROOT / "perf")
    options = made.parse_args()
    from untaxed.records import write_json

    launchers_file = options.output / "rule_seconds.json"
    launchers = json.loads(launchers_file.read_text()) if launchers_file.exists() else {}
    for study in options.studies:
        found = jobs(options.root / "results" / study / "benchmarks")
        if not found:
            raise SystemExit(f"error: results/{study}/benchmarks: no benchmark files; run ./untaxed {study} first")
        records, whole = costs(found), wall(options.root / "logs" / study / "snakemake.log")
        means_file = options.root / "logs" / study / "rule_seconds.json"
        means = json.loads(means_file.read_text()) if means_file.exists() else {}
        launchers[study] = means | {record["rule"]: round(record["seconds"] / record["jobs"], 2) for record in records}
        record = {"rules": records, "wall": whole}
        report(options, study, f"What the study {study} costs", machine(), record, markdown(records, whole))
    write_json(launchers_file, launchers)


if __name__ == "__main__":
    main()
