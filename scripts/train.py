"""Fine-tune a model on a run's training set (full fine-tuning by default, loss on trace and answer only).

Example: python scripts/train.py --run run.yaml --train train.jsonl --base models/m --output checkpoint
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, type=Path, help="run.yaml")
    parser.add_argument("--train", required=True, type=Path, help="training rows (JSON Lines)")
    parser.add_argument("--base", required=True, type=Path, help="folder of the model that is tuned")
    parser.add_argument("--output", required=True, type=Path, help="checkpoint folder, made in one step at the end")
    parser.add_argument("--work", type=Path, default=Path("results/work"), help="where unfinished trainings keep their state")
    parser.add_argument("--dtype", default="bfloat16", help="type of the saved weights")
    parser.add_argument("--origins", type=json.loads, help="what base and rows are made of (JSON), for a card beside the weights")
    parser.add_argument("--lock", default="assets.lock.yaml", help="where the licences stand that the card carries over")
    options = parser.parse_args(arguments)

    from untaxed.assets import load_lock
    from untaxed.cards import model_card
    from untaxed.machine import use_threads
    from untaxed.records import read_yaml
    from untaxed.training import train

    use_threads()
    run, lock = read_yaml(options.run), load_lock(options.lock) if options.origins else {}

    def card(manifest: dict) -> str:
        return model_card(run, manifest, options.origins, lock)

    train(run, options.train, options.base, options.output, options.work, options.dtype, card if options.origins else None)


if __name__ == "__main__":
    run_command(main)
