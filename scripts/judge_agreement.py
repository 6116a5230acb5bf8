"""Measure a judge against human labels: accuracy with its interval, Cohen's kappa, the share it could not judge, and the confusion counts.

python scripts/judge_agreement.py --spec '{"judge": "refusal-phrases", "kind": "string_match", "prompt": "prompts/refusal_phrases.yaml"}' \
    --labelled refusal.csv --output agreement.json
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="the judge, as JSON (untaxed/judges.py lists the keys)")
    parser.add_argument("--labelled", required=True, help="human-labelled CSV in PyRIT's form")
    parser.add_argument("--label", choices=("refusal", "harm"), default="refusal", help="what a human score of 1 means")
    parser.add_argument("--output", required=True, help="agreement, JSON")
    parser.add_argument("--model", help="folder of the judge's model, where it has one")
    parser.add_argument("--limit", type=int, help="use this many rows, drawn by --seed")
    parser.add_argument("--seed", type=int, default=0, help="seed of the draw")
    parser.add_argument("--work-file", help="where replies are kept as they come, so that a killed job goes on")
    options = parser.parse_args(arguments)

    from untaxed.agreement import agreement, read_labelled
    from untaxed.judges import judge_kind, judge_samples, open_judge
    from untaxed.records import UserError, write_json

    spec = options.spec | {"benchmarks": []}
    if options.label == "refusal" and "refusal_rate" not in judge_kind(spec).metrics:
        raise UserError(
            f"--label refusal: judge {spec['judge']} says safe or unsafe, not refused; give --label harm and a set labelled for harm"
        )
    rows = list(read_labelled(options.labelled, options.limit, options.seed))
    with open_judge(spec, options.model) as engine:
        verdicts = [record["verdict"] for record in judge_samples((sample for sample, _ in rows), spec, engine, options.work_file)]
    result = agreement(spec["judge"], Path(options.labelled).stem, options.label, verdicts, [human for _, human in rows])
    write_json(options.output, result)
    print(f"{result['judge']} on {result['dataset']}: accuracy {result['accuracy']:.3f} on {result['n']} rows")


if __name__ == "__main__":
    run_command(main)
