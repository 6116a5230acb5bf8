"""Run a suite of benchmarks on one checkpoint with lm-evaluation-harness and keep every sample.

Example: python scripts/evaluate.py --spec '{"benchmarks": …}' --checkpoint folder --rows chains=rows.jsonl --samples s.jsonl
"""

import argparse
import json
import shutil
from pathlib import Path

from untaxed.command import run_command


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spec", required=True, type=json.loads, help="suite: benchmarks, thinking format, engine (JSON)")
    parser.add_argument("--checkpoint", required=True, type=Path)
    parser.add_argument("--rows", action="append", required=True, metavar="BENCHMARK=FILE")
    parser.add_argument("--samples", required=True, type=Path, help="every prompt and generation (JSON Lines); the commit goes beside it")
    parser.add_argument("--cache", type=Path, help="folder for lm-eval's request cache, so that a killed job goes on; removed at the end")
    options = parser.parse_args(arguments)

    from untaxed.evaluation import evaluate
    from untaxed.machine import pick_engine, use_threads
    from untaxed.records import git_commit, write_json, write_jsonl

    use_threads()
    commit = git_commit()
    spec = {**options.spec, "engine": pick_engine(options.spec["engine"])}
    rows = {name: Path(path) for name, path in (pair.split("=", 1) for pair in options.rows)}
    samples, scores = evaluate(options.checkpoint, rows, spec, options.cache)
    write_json(options.samples.with_suffix(".made.json"), {"commit": commit})  # no step reads it: another commit reruns nothing
    write_jsonl(options.samples, samples)
    if options.cache:
        shutil.rmtree(options.cache, ignore_errors=True)
    print(json.dumps(scores, indent=2, sort_keys=True))


if __name__ == "__main__":
    run_command(main)
