"""Attack the prompts of prepared rows: rows and model folders in, one record per row and the rows with their attacked prompts out.

python scripts/attack.py --spec '{"attack": "pair", "attacker": {"engine": {…}, "prompt": "prompts/attacks/pair_attacker.yaml"}, …}' \\
    --rows rows.jsonl --target-model runs/a/checkpoint --work-file work/replies.jsonl --output attacks.jsonl --output-rows attacked.jsonl
"""

import argparse
import json
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="the attack, as JSON (untaxed/attacks.py lists the keys)")
    parser.add_argument("--rows", required=True, help="rows whose prompts are attacked (JSON Lines)")
    for role in ("attacker", "target", "judge"):
        parser.add_argument(f"--{role}-model", help=f"folder of the {role}'s model, where its engine names none")
    parser.add_argument("--table", type=Path, help="attacked prompts by their original ones (pap-static): a file or an asset's folder")
    parser.add_argument("--work-file", required=True, help="replies so far; the same call goes on from it")
    parser.add_argument("--output", required=True, help="what became of every row (JSON Lines)")
    parser.add_argument("--output-rows", required=True, help="the rows with their attacked prompts (JSON Lines)")
    options = parser.parse_args(arguments)

    from untaxed.assets import read_table
    from untaxed.attacks import attacked_rows, check_spec, open_engines, run_attack
    from untaxed.datasets import data_file
    from untaxed.evaluation import sample_rows
    from untaxed.records import read_jsonl, write_jsonl

    check_spec(options.spec)
    rows = sample_rows(list(read_jsonl(options.rows)), options.spec.get("limit"))
    table = read_table(data_file(options.table) if options.table.is_dir() else options.table) if options.table else ()
    models = {role: getattr(options, f"{role}_model") for role in ("attacker", "target", "judge")}
    with open_engines(options.spec, models) as engines:
        records = run_attack(rows, options.spec, engines, options.work_file, table)
    write_jsonl(options.output, records)
    write_jsonl(options.output_rows, attacked_rows(rows, records))
    totals = {role: sum(record["unparseable"][role] for record in records) for role in models}
    print(
        f"{options.spec['attack']}: {len(records)} rows, {sum(record['success'] is True for record in records)} reached the highest score;"
    )
    print("unparseable replies: " + ", ".join(f"{role} {count}" for role, count in totals.items()))


if __name__ == "__main__":
    run_command(main)
