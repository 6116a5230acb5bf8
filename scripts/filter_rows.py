"""Keep the rows of a dataset that its judges let pass, and draw its limit of them: rows and verdicts in, rows and a report out.

python scripts/filter_rows.py --spec '{"dataset": "cot", "filters": [{"judge": "shield", "keep": ["safe"]}], "limit": 1000}' \
    --rows rows.jsonl --verdicts shield=verdicts.jsonl --output filtered.jsonl --report report.json
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="as JSON: dataset, filters, patterns, limit, seed")
    parser.add_argument("--rows", required=True, help="the rows, JSON Lines")
    parser.add_argument("--verdicts", action="append", default=[], metavar="JUDGE=FILE", help="a judge's verdicts on the rows; repeat")
    parser.add_argument("--output", required=True, help="the rows that stay, JSON Lines")
    parser.add_argument("--report", required=True, help="source, filters, counts per step, and of labels (JSON)")
    options = parser.parse_args(arguments)

    from untaxed.filtering import apply_filters
    from untaxed.records import read_jsonl, write_json, write_jsonl

    spec = options.spec
    verdicts = {judge: list(read_jsonl(path)) for judge, _, path in (pair.partition("=") for pair in options.verdicts)}
    choice = (spec.get("patterns"), spec.get("limit"), spec.get("seed", 0), spec["dataset"])
    rows, report = apply_filters(list(read_jsonl(options.rows)), verdicts, spec.get("filters") or [], *choice)
    write_jsonl(options.output, rows)
    write_json(options.report, report | {"of": Path(options.rows).parent.name, "filters": spec.get("filters") or []})
    print(f"{spec['dataset']}: {report['rows']} rows, {report['kept']} pass, {report['rows_out']} stay")


if __name__ == "__main__":
    run_command(main)
