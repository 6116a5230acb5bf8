"""Count the tokens of a data set's responses with a model's tokenizer: of all rows that pass its filters, and of those drawn.

python scripts/measure_lengths.py --spec '{"thinking": {}}' --rows rows.jsonl --drawn rows.jsonl --tokenizer models/smollm2 \\
    --output lengths.json
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, type=json.loads, help="as JSON: dataset, tokenizer (its name), thinking, filters")
    parser.add_argument("--rows", required=True, help="the rows before the filters (JSON Lines)")
    parser.add_argument("--verdicts", action="append", default=[], metavar="JUDGE=FILE", help="a judge's verdicts on the rows; repeat")
    parser.add_argument("--drawn", required=True, help="the rows that are trained on; the same file where nothing is filtered")
    parser.add_argument("--tokenizer", required=True, help="folder of the model")
    parser.add_argument("--output", required=True, help="lengths (JSON)")
    options = parser.parse_args(arguments)

    from transformers import AutoTokenizer
    from untaxed.filtering import apply_filters
    from untaxed.lengths import response_tokens
    from untaxed.records import read_jsonl, write_json
    from untaxed.thinking import ThinkingFormat

    spec = options.spec
    tokenizer = AutoTokenizer.from_pretrained(options.tokenizer, local_files_only=True)
    thinking = ThinkingFormat(**spec["thinking"])
    verdicts = {judge: list(read_jsonl(path)) for judge, _, path in (pair.partition("=") for pair in options.verdicts)}
    passed, _ = apply_filters(list(read_jsonl(options.rows)), verdicts, spec.get("filters") or [], dataset=spec.get("dataset", ""))
    counted = {part: response_tokens(rows, tokenizer, thinking) for part, rows in (("all", passed), ("drawn", read_jsonl(options.drawn)))}
    write_json(options.output, {"name": spec.get("dataset"), "tokenizer": spec.get("tokenizer"), **counted})


if __name__ == "__main__":
    run_command(main)
