"""Collect run folders into one tidy metrics table and the score of every item.

Each folder holds run.yaml and what its steps made: samples.jsonl, verdicts/<judge>.jsonl, shift.json, the training manifest.
python scripts/collect.py --run results/laptop/runs/a results/laptop/runs/b --output metrics.csv --items items.parquet
"""

import argparse
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", default=[], help="run folders")
    parser.add_argument("--runs-file", help="a text file with one run folder a line, in place of or beside --run")
    parser.add_argument("--output", required=True, help="metrics, CSV")
    parser.add_argument("--items", required=True, help="item scores, Parquet")
    options = parser.parse_args(arguments)

    from untaxed.metrics import collect
    from untaxed.records import UserError

    folders = list(options.run)
    if options.runs_file:
        try:
            folders += [line.strip() for line in Path(options.runs_file).read_text(encoding="utf-8").splitlines() if line.strip()]
        except OSError as error:
            raise UserError(f"{options.runs_file}: {error.strerror}; give a file with one run folder a line") from None
    if not folders:
        raise UserError("--run: no run folder given; name at least one")
    rows = collect(folders, options.output, options.items)
    print(f"{len(folders)} runs, {rows} metrics")


if __name__ == "__main__":
    run_command(main)
