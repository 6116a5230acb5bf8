"""Both engines in the study's own rules: the evaluation and the judging of a few runs again, by each engine in turn, through the launcher.

    python perf/bench_engine_jobs.py --runs 4          after ./untaxed laptop, with vLLM installed

Each side is one call of `./untaxed <study>` that is forced to run the rules `evaluate` and `judge` for some finished runs, two jobs at a
time, every start included (transformers starts from the warm server, as in the study). From that follows the whole study by vLLM: its wall
time, less what its evaluations and judgements took, plus what they would take. The study's samples are put back.
"""

import shutil
import tempfile
from pathlib import Path

import yaml
from measure import ROOT, alternate, load_study, machine, made_file, parser, prepare, report, run, spread, summary, table, timed

VLLM = {"compute": {"engine": "vllm", "vllm": {"enforce_eager": True, "kv_cache_gib": 1}}}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, default=4, help="how many finished runs are evaluated and judged again")
    made.add_argument("--study-seconds", type=float, help="wall time of the whole study (default: perf/peak_memory_<study>.json)")
    options = made.parse_args()
    prepare(options)
    before, study = machine(), load_study(options.study)
    from untaxed.records import read_json

    whole = options.study_seconds or read_json(made_file(ROOT / f"perf/peak_memory_{study.name}.json", study.name))["seconds"]
    asking = study.judges_that_ask(True)
    runs = [name for name in sorted(study.runs) if name in study.trained][: options.runs]
    targets = [f"{study.results}/runs/{name}/verdicts/{judge}.jsonl" for name in runs for judge in asking]
    samples = [made_file(f"{study.results}/runs/{name}/samples.jsonl", study.name) for name in runs]
    rules = ["evaluate", "judge"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "vllm.yaml").write_text(yaml.safe_dump(VLLM))
        for number, path in enumerate([*samples, *map(Path, targets)]):
            shutil.copy2(path, folder / str(number))

        def side(*more: str) -> float:
            command = [str(ROOT / "untaxed"), "--plain", study.name, *targets, "--forcerun", *rules]
            return timed(lambda: run([*command, "--rerun-triggers", "mtime", *more], folder / "log"))

        try:
            sides = {"transformers": side, "vllm": lambda: side("--configfile", str(folder / "vllm.yaml"))}
            seconds = {engine: summary(values) for engine, values in alternate(sides, options.repeats).items()}
        finally:
            for number, path in enumerate([*samples, *map(Path, targets)]):
                shutil.copy2(folder / str(number), path)
    share = len(study.runs) / len(runs)
    ours, theirs = (seconds[engine]["median"] * share for engine in ("transformers", "vllm"))
    rows = [
        ["transformers", spread(seconds["transformers"]), ours, whole],
        ["vllm", spread(seconds["vllm"]), theirs, whole - ours + theirs],
    ]
    record = {"repeats": options.repeats, "runs": runs, "seconds": seconds, "study_seconds": {row[0]: row[3] for row in rows}}
    text = table(["engine", f"{len(runs)} runs, seconds", f"all {len(study.runs)} runs, seconds", "the whole study, seconds"], rows)
    text += (
        f"\nRules {' and '.join(rules)}, medians of {options.repeats} (least to most), in turns. Only the first column is measured here;"
    )
    text += " the transformers row of the last one is the study's own wall time.\n"
    report(options, "bench_engine_jobs", "Engines in the study's rules", before, record, text)


if __name__ == "__main__":
    main()
