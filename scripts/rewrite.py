"""Let a model say safety rows in its own words (DGR's first half): rows and a model folder in, one generation per row and piece out.

python scripts/rewrite.py --spec '{"engine": {"backend": "transformers"}, "prompts": {"answer": "prompts/dgr_answer.txt"}, ...}' \\
    --rows rows.jsonl --model models/base --work-file work/generations.jsonl --output generations.jsonl
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, type=json.loads, help="JSON: engine, thinking, pieces, prompts, sampling, seed, n")
    parser.add_argument("--rows", required=True, help="rows to rewrite (JSON Lines)")
    parser.add_argument("--model", required=True, help="folder of the target model, before alignment")
    parser.add_argument("--output", required=True, help="generations (JSON Lines)")
    parser.add_argument("--work-file", required=True, help="generations so far; the same call goes on from it")
    options = parser.parse_args(arguments)

    from dataclasses import asdict
    from itertools import islice

    from untaxed.engine import Sampling, generate_resumable, open_engine
    from untaxed.records import read_jsonl, write_jsonl
    from untaxed.refinement import build_requests, check_spec

    spec = options.spec
    check_spec(spec)
    requests = build_requests(islice(read_jsonl(options.rows), spec.get("n")), spec)
    engine_spec = {**spec["engine"], "model": options.model, "thinking": spec.get("thinking") or {}}
    with open_engine(engine_spec) as engine:
        generations = generate_resumable(engine, requests, Sampling(**spec.get("sampling", {})), options.work_file)
    write_jsonl(options.output, (asdict(generation) for generation in generations))


if __name__ == "__main__":
    run_command(main)
