"""Print what a study costs: GPU-hours (CPU-hours) per stage, experiment and figure, jobs and disk, before anything runs.

python scripts/budget.py --config studies/laptop.yaml
"""

import argparse
import json
from dataclasses import asdict

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", action="append", default=[], help="an overlay, in order; config.yaml is always first")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    options = parser.parse_args(arguments)

    from untaxed.budget import budget, render
    from untaxed.config import in_order, read

    found = budget(read(in_order(options.config)))
    print(json.dumps(asdict(found), default=lambda value: value.model_dump(), indent=2) if options.json else render(found))


if __name__ == "__main__":
    run_command(main)
