"""Write a run's specification, its training set (a seeded draw of safety rows and the rows mixed in), and a card that describes it.

Example: python scripts/mix.py --spec '{"run": …}' --rows rows.jsonl --mixed benign=benign.jsonl --output-folder results/x/runs/y
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="the run, resolved (JSON)")
    parser.add_argument("--rows", type=Path, help="safety rows; none for a base run")
    parser.add_argument("--mixed", action="append", default=[], metavar="DATASET=FILE", help="rows of a mixed-in dataset")
    parser.add_argument(
        "--origins", type=json.loads, default={"rows": [], "teachers": []}, help="what the rows are made of, for the card (JSON)"
    )
    parser.add_argument("--lock", default="assets.lock.yaml", help="where the licences stand that the card carries over")
    parser.add_argument("--output-folder", required=True, type=Path)
    options = parser.parse_args(arguments)

    from untaxed.assets import load_lock
    from untaxed.cards import training_set_card
    from untaxed.records import read_jsonl, write_jsonl, write_text, write_yaml
    from untaxed.training_sets import draw, mix

    spec, files = options.spec, dict(pair.split("=", 1) for pair in options.mixed)
    rows: list[dict] = []
    if spec["n"]:
        safety = draw(list(read_jsonl(options.rows)), spec["n"], spec["seed"], str(options.rows))
        others = []
        for part in spec["mix"]:
            found, n = list(read_jsonl(files[part["dataset"]])), part["n"]
            others.append(draw(found, min(n, len(found)) if part.get("at_most") else n, spec["seed"], files[part["dataset"]]))
        rows = mix(safety, others, spec["seed"])
    write_jsonl(options.output_folder / "train.jsonl", rows)
    write_text(options.output_folder / "card.md", training_set_card(spec, rows, options.origins, load_lock(options.lock)))
    write_yaml(options.output_folder / "run.yaml", spec)


if __name__ == "__main__":
    run_command(main)
