"""Let a teacher answer the prompts of prepared rows: rows and a model folder in, rows with its traces and answers out, and a report.

A teacher at a server has no folder: its spec's engine names server and model. Its calls are logged in answers.jsonl.calls.jsonl.

python scripts/distil.py --spec '{"engine": {"backend": "transformers"}, "sampling": {"max_new_tokens": 96}, "truncated": "drop"}' \\
    --rows rows.jsonl --model models/teacher --work-file work/answers.jsonl --output distilled.jsonl --report report.json
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--spec",
        required=True,
        type=json.loads,
        help="teacher as JSON: engine, thinking, prompt, delivery, sampling, truncated, needs_trace, check, seed, limit",
    )
    parser.add_argument("--rows", required=True, help="rows whose prompts are asked (JSON Lines)")
    parser.add_argument("--model", help="folder of the teacher, unless a server has it")
    parser.add_argument("--output", required=True, help="distilled rows (JSON Lines)")
    parser.add_argument("--report", required=True, help="the teacher's name, and counts per reason (JSON)")
    parser.add_argument("--upstream", help="the release's source with the prompts, where the teacher's is `upstream:<style>`")
    parser.add_argument("--work-file", required=True, help="answers so far; the same call goes on from it")
    options = parser.parse_args(arguments)

    from untaxed.distillation import assemble, build_requests, open_check
    from untaxed.engine import Sampling, generate_resumable, open_engine
    from untaxed.lengths import response_characters
    from untaxed.models import model_name
    from untaxed.prompts import read_teacher_prompt
    from untaxed.records import Lasting, read_jsonl, write_json, write_jsonl
    from untaxed.served import summarise
    from untaxed.thinking import ThinkingFormat

    spec = options.spec
    rows = list(read_jsonl(options.rows))
    check = open_check(spec.get("check"), rows, spec.get("dataset", ""))
    instruction, version = read_teacher_prompt(spec.get("prompt"), options.upstream)
    thinking = ThinkingFormat(**spec["thinking"]) if spec.get("thinking") else None
    engine_spec = {**spec["engine"], "thinking": spec.get("thinking") or {}, "key": f"datasets.{spec.get('dataset')}.teacher.engine"}
    with open_engine(engine_spec | ({"model": options.model} if options.model else {})) as engine:
        requests = build_requests(rows, spec.get("seed", 0), instruction, spec.get("delivery", "user"))
        answers = generate_resumable(engine, requests, Sampling(**spec.get("sampling", {})), options.work_file)
    distilled, report = assemble(rows, answers, thinking, spec.get("truncated", "drop"), spec.get("needs_trace", False), check)
    if engine.keep_log:
        report["calls"] = summarise(options.work_file, spec["engine"].get("max_total_tokens"))
    limit = spec.get("limit")
    if limit is not None and len(distilled) < limit:
        raise Lasting(
            f"datasets.{spec['dataset']}.teacher: only {len(distilled)} of {len(rows)} answers can be used, {limit} are asked for; "
            "raise `candidates` or `sampling.max_new_tokens`, or lower `limit`"
        )
    used = distilled[:limit]
    write_jsonl(options.output, used)
    teacher = model_name(options.model) if options.model else spec["engine"].get("model")
    told = {"teacher": teacher, "rows_out": len(used), "harmful": sum(row["harmful"] for row in used), "prompt_version": version}
    write_json(options.report, report | told | {"response_characters": response_characters(used)})


if __name__ == "__main__":
    run_command(main)
