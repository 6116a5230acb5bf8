"""Judge the samples of a run: one verdict per sample of the judge's benchmarks. Nothing is generated again but the judge's own replies.

python scripts/judge.py --spec '{"judge": "refusal-phrases", "kind": "string_match", "prompt": "prompts/refusal_phrases.yaml", ...}' \
    --samples samples.jsonl --output verdicts.jsonl
"""

import argparse
import json

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="the judge, as JSON (untaxed/judges.py lists the keys)")
    parser.add_argument("--samples", required=True, help="samples.jsonl of a run")
    parser.add_argument("--output", required=True, help="verdicts, JSON Lines")
    parser.add_argument("--model", help="folder of the judge's model, where it has one")
    parser.add_argument("--work-file", help="where replies are kept as they come, so that a killed job goes on")
    options = parser.parse_args(arguments)

    from untaxed.judges import write_verdicts
    from untaxed.records import read_jsonl

    print(write_verdicts(options.output, read_jsonl(options.samples), options.spec, options.model, options.work_file))


if __name__ == "__main__":
    run_command(main)
