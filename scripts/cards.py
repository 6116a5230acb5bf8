"""Write the card of every trained model and dataset of a study, in the hub's form, from run.yaml, manifests, reports, metrics and the lock.

python scripts/cards.py --spec cards.json --metrics metrics.csv --lock assets.lock.yaml --output-folder results/laptop/cards
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, type=json.loads, help="runs and datasets, and what they are made of (JSON)")
    parser.add_argument("--metrics", required=True, type=Path, help="metrics.csv")
    parser.add_argument("--lock", default="assets.lock.yaml", help="where the licences stand")
    parser.add_argument("--output-folder", required=True, type=Path)
    options = parser.parse_args(arguments)

    from untaxed.assets import load_lock
    from untaxed.cards import all_cards
    from untaxed.records import atomic_folder, write_text

    cards = all_cards(options.spec, options.metrics, load_lock(options.lock))
    with atomic_folder(options.output_folder) as folder:
        for name, text in cards.items():
            write_text(folder / f"{name}.md", text)
    print(f"{len(options.spec['runs'])} models, {len(options.spec['datasets'])} datasets")


if __name__ == "__main__":
    run_command(main)
