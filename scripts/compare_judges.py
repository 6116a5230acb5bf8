"""Compare every two judges of a study on the samples that both judged: agreement, kappa, confusion, and the ids on which they differ.

python scripts/compare_judges.py --run results/laptop/runs/a results/laptop/runs/b --output judge_pairs.json \
    --differences judge_differences.csv
"""

import argparse

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", default=[], help="run folders, with samples.jsonl and verdicts/<judge>.jsonl")
    parser.add_argument("--runs-file", help="a text file with one run folder a line, in place of or beside --run")
    parser.add_argument("--judges", nargs="*", default=[], help="these judges alone, in this order; all without it")
    parser.add_argument("--output", required=True, help="a record per pair and question, JSON")
    parser.add_argument("--differences", required=True, help="the samples on which two judges differ, CSV: ids and verdicts, no texts")
    options = parser.parse_args(arguments)

    from untaxed.agreement import compare_judges, write_differences
    from untaxed.metrics import read_run_folders
    from untaxed.records import UserError, write_json

    folders = [*options.run, *(read_run_folders(options.runs_file) if options.runs_file else [])]
    if not folders:
        raise UserError("--run: no run folder given; name at least one")
    pairs = compare_judges(folders, options.judges)
    count = write_differences(pairs, options.differences)
    write_json(options.output, pairs)
    print(f"{len(folders)} runs, {len(pairs)} comparisons of two judges, {count} samples on which two differ")


if __name__ == "__main__":
    run_command(main)
