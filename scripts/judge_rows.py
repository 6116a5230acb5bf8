"""Judge the rows of a dataset: one verdict per row, with the dataset in the benchmark's place.

python scripts/judge_rows.py --spec '{"judge": "shield", "kind": "reasoning_shield", "dataset": "cot", "prompt": ...}' \
    --rows rows.jsonl --model models/reasoning-shield-3b --output verdicts.jsonl
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="the judge, as JSON (keys in untaxed/judges.py), and its `dataset`")
    parser.add_argument("--rows", required=True, help="the rows of the dataset, JSON Lines")
    parser.add_argument("--output", required=True, help="verdicts, JSON Lines")
    parser.add_argument("--model", help="folder of the judge's model, where it has one")
    parser.add_argument("--work-file", help="where replies are kept as they come, so that a killed job goes on")
    options = parser.parse_args(arguments)

    from untaxed.filtering import samples_of
    from untaxed.judges import write_verdicts
    from untaxed.records import read_jsonl

    spec = options.spec
    samples = samples_of(read_jsonl(options.rows), spec["dataset"])
    print(write_verdicts(options.output, samples, spec | {"benchmarks": []}, options.model, options.work_file))


if __name__ == "__main__":
    run_command(main)
