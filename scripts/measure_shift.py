"""Measure how far a run moved from its base model: similarity of outputs, NLL of its training targets, KL on its own reasoning.

python scripts/measure_shift.py --spec '{"thinking": {"open": "<think>", "close": "</think>"}, "kl_benchmarks": ["gsm8k"]}' \
    --base-model base/ --checkpoint checkpoint/ --encoder minilm/ --base-samples base.jsonl --samples run.jsonl --train train.jsonl \
    --output shift.json
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="what to compare, as JSON (untaxed/shift.py lists the keys)")
    parser.add_argument("--base-model", required=True, help="folder of the run's base model")
    parser.add_argument("--checkpoint", required=True, help="folder of the run's own weights")
    parser.add_argument("--encoder", required=True, help="folder of the sentence encoder")
    parser.add_argument("--base-samples", required=True, help="samples.jsonl of the base model")
    parser.add_argument("--samples", required=True, help="samples.jsonl of the run")
    parser.add_argument("--train", required=True, help="the run's training set, train.jsonl")
    parser.add_argument("--output", required=True, help="shift, JSON")
    options = parser.parse_args(arguments)

    from untaxed.records import write_json
    from untaxed.shift import measure_shift

    result = measure_shift(
        options.spec,
        base_model=options.base_model,
        checkpoint=options.checkpoint,
        encoder=options.encoder,
        base_samples=options.base_samples,
        samples=options.samples,
        train=options.train,
    )
    write_json(options.output, result)
    nll, kl = result["nll"]["mean"], result["kl"]["mean"]
    print(f"shift {result['shift']:.4f} on {result['similarity']['n']} outputs, NLL {nll:.3f}, KL {kl:.4f} nats per token")


if __name__ == "__main__":
    run_command(main)
