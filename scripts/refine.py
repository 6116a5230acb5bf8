"""Filter a model's rewrites of its safety rows (DGR, Eq. 3): rows and generations in, refined rows and a report out.

python scripts/refine.py --spec '{"filters": ["overthinking", "meta-thinking"], "fallback": "original", "prompts": {...}, ...}' \\
    --rows rows.jsonl --rewrites generations.jsonl --output refined.jsonl --report report.json
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", required=True, type=json.loads, help="refinement as JSON: thinking, prompts, filters, fallback, …")
    parser.add_argument("--rows", required=True, help="the original rows (JSON Lines)")
    parser.add_argument("--rewrites", required=True, help="generations of rewrite.py (JSON Lines)")
    parser.add_argument("--output", required=True, help="refined rows (JSON Lines)")
    parser.add_argument("--report", required=True, help="counts per piece and reason (JSON)")
    options = parser.parse_args(arguments)

    from itertools import islice

    from untaxed.engine import Generation
    from untaxed.records import read_jsonl, write_json, write_jsonl
    from untaxed.refinement import assemble, check_spec

    spec = options.spec
    check_spec(spec)
    rows = list(islice(read_jsonl(options.rows), spec.get("n")))
    refined, report = assemble(rows, (Generation(**record) for record in read_jsonl(options.rewrites)), spec)
    write_jsonl(options.output, refined)
    write_json(options.report, report)


if __name__ == "__main__":
    run_command(main)
