"""Fine-tune a model on a run's training set (full fine-tuning by default, loss on trace and answer only).

Example: python scripts/train.py --run run.yaml --train train.jsonl --base models/m --output checkpoint
"""

import argparse
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
    options = parser.parse_args(arguments)

    from untaxed.machine import use_threads
    from untaxed.records import read_yaml
    from untaxed.training import train

    use_threads()
    train(read_yaml(options.run), options.train, options.base, options.output, options.work, options.dtype)


if __name__ == "__main__":
    run_command(main)
