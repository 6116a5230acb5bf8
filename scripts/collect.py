"""Collect run folders into one tidy metrics table and the score of every item.

Each folder holds run.yaml and what its steps made: samples.jsonl, verdicts/<judge>.jsonl, shift.json, the training manifest.
python scripts/collect.py --run results/laptop/runs/a results/laptop/runs/b --output metrics.csv --items items.parquet
"""

import argparse

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", default=[], help="run folders")
    parser.add_argument("--runs-file", help="a text file with one run folder a line, in place of or beside --run")
    parser.add_argument("--output", required=True, help="metrics, CSV")
    parser.add_argument("--items", required=True, help="item scores, Parquet")
    parser.add_argument("--judges", nargs="*", default=[], help="judges in their order: the first that read a benchmark speaks for it")
    options = parser.parse_args(arguments)

    from untaxed.metrics import collect, read_run_folders
    from untaxed.records import UserError

    folders = list(options.run)
    if options.runs_file:
        folders += read_run_folders(options.runs_file)
    if not folders:
        raise UserError("--run: no run folder given; name at least one")
    rows = collect(folders, options.output, options.items, options.judges)
    print(f"{len(folders)} runs, {rows} metrics")


if __name__ == "__main__":
    run_command(main)
