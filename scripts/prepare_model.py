"""Make a Hugging Face model folder (safetensors, tokenizer, chat template) from a GGUF file, a hub snapshot, an adapter or a random start.

Example: scripts/prepare_model.py --spec '{"kind": "gguf", "dtype": "bfloat16"}' --asset assets/smollm2 --output models/smollm2
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--spec", required=True, type=json.loads, help="the model as JSON: kind, and dtype, pad_token, sizes or architecture"
    )
    parser.add_argument("--asset", type=Path, help="a GGUF file or a fetched folder; none for an organism or a random model")
    parser.add_argument("--base", type=Path, help="the prepared model folder that the asset is an adapter over")
    parser.add_argument("--output", required=True, type=Path, help="the model folder to write")
    options = parser.parse_args(arguments)

    from untaxed.models import prepare

    record = prepare(options.spec, options.asset, options.output, options.base)
    tokens = f"EOS {record['eos']['token']}, padding {record['pad']['token']}"
    print(f"{options.output}: {record['parameters']:,} parameters, {record['dtype']}, {tokens}")


if __name__ == "__main__":
    run_command(main)
