"""Let a model rewrite its safety rows in its own words (DGR): rows and a model folder in, refined rows and a report out.

python scripts/refine.py --spec '{"engine": {"backend": "transformers"}, "prompts": {"reasoning": "prompts/dgr_reasoning.txt", ...}, ...}' \
    --rows rows.jsonl --model models/base --work-file work/generations.jsonl --output refined.jsonl --report report.json
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--spec", required=True, type=json.loads, help="refinement as JSON: engine, thinking, prompts, meta_thinking, sampling, …"
    )
    parser.add_argument("--rows", required=True, help="rows to refine (JSON Lines)")
    parser.add_argument("--model", required=True, help="folder of the target model, before alignment")
    parser.add_argument("--output", required=True, help="refined rows (JSON Lines)")
    parser.add_argument("--report", required=True, help="counts per piece and reason (JSON)")
    parser.add_argument(
        "--work-file", "--log-file", dest="work_file", required=True, help="generations so far; the same call goes on from it"
    )
    options = parser.parse_args(arguments)

    from itertools import islice

    from untaxed.engine import Sampling, generate_resumable, open_engine
    from untaxed.records import read_jsonl, write_json, write_jsonl
    from untaxed.refinement import assemble, build_requests, check_spec, read_ban_list

    spec = options.spec
    check_spec(spec)
    read_ban_list(spec["meta_thinking"])
    rows = list(islice(read_jsonl(options.rows), spec.get("n")))
    requests = build_requests(rows, spec)
    engine_spec = {**spec["engine"], "model": options.model, "thinking": spec.get("thinking") or {}}
    with open_engine(engine_spec) as engine:
        generations = generate_resumable(engine, requests, Sampling(**spec.get("sampling", {})), options.work_file)
    refined, report = assemble(rows, generations, spec)
    write_jsonl(options.output, refined)
    write_json(options.report, report)


if __name__ == "__main__":
    run_command(main)
