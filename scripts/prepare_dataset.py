"""Make the rows of one dataset from fetched assets, or by a generator, without the prompts of other datasets, and a report on them.

    python scripts/prepare_dataset.py --spec '{"adapter": "star_1", "limit": 100}' --asset star-1=results/assets/star-1 \\
        --against results/datasets/xstest.jsonl --output rows.jsonl --report report.json

Spec keys: adapter, options, limit, seed, responses, decontaminate_against (one --against file for each name).
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    from untaxed.datasets import describe, prepare_against
    from untaxed.records import UserError, read_jsonl, write_json, write_jsonl

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, help="dataset entry of the configuration, as JSON")
    parser.add_argument("--asset", action="append", default=[], metavar="ID=FOLDER")
    parser.add_argument("--against", action="append", default=[], metavar="ROWS", help="rows whose prompts must not occur")
    parser.add_argument("--output", required=True)
    parser.add_argument("--report", required=True)
    options = parser.parse_args(arguments)
    try:
        spec = json.loads(options.spec)
    except json.JSONDecodeError as error:
        raise UserError(f"--spec: not JSON ({error.msg} at character {error.pos})") from None
    names = spec.get("decontaminate_against") or []
    if len(names) > len(options.against):
        raise UserError(f"--against: {len(options.against)} files for {len(names)} names in decontaminate_against; give one for each")
    folders = {}
    for pair in options.asset:
        name, found, folder = pair.partition("=")
        if not found:
            raise UserError(f"--asset {pair}: must be ID=FOLDER")
        folders[name] = Path(folder)
    against = [row for path in options.against for row in read_jsonl(path)]
    rows, removed = prepare_against(spec, folders, against)
    write_jsonl(options.output, rows)
    report = describe(rows, removed)
    write_json(options.report, report | {"removed": report["removed"] | {"against": names}})
    print(f"{len(rows)} rows, {len(removed)} removed as contaminated")


if __name__ == "__main__":
    run_command(main)
