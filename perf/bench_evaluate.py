"""What the evaluation costs: against the bare engine on the same batches, and a whole checkpoint against the `lm_eval` command line.

    python perf/bench_evaluate.py                                        after ./untaxed laptop
    python perf/bench_evaluate.py --part generate --limit 16

generate  tokens per second of `evaluation.evaluate` against the bare engine: `engine.py` on the same prompts, and `model.generate` of
          transformers, greedy, on the very batches that lm-eval made for the evaluation. Loading does not count; everything else does.
whole     seconds of one checkpoint's suite: scripts/evaluate.py (one load), in the warm server as `./untaxed` runs it and alone, against
          the usual way: `lm_eval run --model hf --batch_size 8 --log_samples` once per benchmark, on the same rows and threads.
"""

import json
import sys
import tempfile
from pathlib import Path

import yaml
from measure import (
    alternate,
    load_study,
    machine,
    made_file,
    parser,
    prepare,
    report,
    run,
    spread,
    summary,
    table,
    target,
    timed,
    warm_server,
)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--part", choices=("generate", "whole", "both"), default="both")
    made.add_argument("--run", help="whose checkpoint (default: the study's first run)")
    made.add_argument("--checkpoint", type=Path, help="another model folder")
    made.add_argument("--limit", type=int, help="rows per benchmark, at most (default: the study's)")
    options = made.parse_args()
    prepare(options)
    before = machine()
    study = load_study(options.study)
    name = options.run or next(iter(study.runs))
    spec = study.evaluation_spec(name)
    if options.limit:
        for benchmark in spec["benchmarks"].values():
            benchmark["limit"] = min(options.limit, benchmark["limit"] or options.limit)
    checkpoint = options.checkpoint or made_file(study.checkpoint(name), study.name).parent
    rows = {b: made_file(study.rows(study.config.benchmarks[b].dataset), study.name) for b in study.config.study.suite}
    record, text = {"study": study.name, "run": name, "repeats": options.repeats, "targets": []}, ""
    for part, measure in (("whole", whole), ("generate", generate)):
        if options.part in (part, "both"):
            record[part], found, said = measure(checkpoint.resolve(), rows, spec, options.repeats)
            record["targets"] += found
            text += said + "\n"
    report(options, "bench_evaluate", "Evaluation", before, record, text)


# ---- the whole of one checkpoint ----


def whole(checkpoint: Path, rows: dict[str, Path], spec: dict, repeats: int) -> tuple[dict, list[dict], str]:
    """Seconds of our command (warm and alone) and of the command line once per benchmark."""
    with tempfile.TemporaryDirectory() as name, warm_server() as server:
        folder = Path(name)
        write_tasks(folder / "tasks", rows, spec)
        ours = [sys.executable, "scripts/evaluate.py", "--spec", json.dumps(spec), "--checkpoint", str(checkpoint)]
        ours += [part for benchmark, path in rows.items() for part in ("--rows", f"{benchmark}={path}")]
        ours += ["--samples", str(folder / "samples.jsonl")]

        def usual() -> None:
            for benchmark in rows:
                run(lm_eval_command(checkpoint, folder / "tasks", benchmark, folder / "out", spec), folder / "log")

        sides = {
            "warm": lambda: timed(lambda: run(ours, folder / "log", server["environment"])),
            "alone": lambda: timed(lambda: run(ours, folder / "log", {"UNTAXED_WARM": ""})),
            "lm_eval": lambda: timed(usual),
        }
        seconds = {side: summary(values) for side, values in alternate(sides, repeats).items()}
    ratios = {side: seconds["lm_eval"]["median"] / seconds[side]["median"] for side in ("warm", "alone")}
    labels = {
        "warm": "scripts/evaluate.py, warm server",
        "alone": "scripts/evaluate.py alone",
        "lm_eval": f"`lm_eval` command line, {len(rows)} times",
    }
    lines = [[labels[side], spread(seconds[side]), ratios.get(side, 1.0)] for side in sides]
    text = "## One checkpoint, all benchmarks\n\n" + table(["side", "seconds", "times as fast as the command line"], lines)
    text += f"\nMedians of {repeats} (least to most), in turns, starts included. The warm server's own start, once a study, is not.\n"
    found = [target("one checkpoint: lm_eval command line / ours in the warm server", ratios["warm"], 2.0)]
    return {"seconds": seconds, "ratios": ratios, "server_seconds": server["seconds"]}, found, text


def write_tasks(folder: Path, rows: dict[str, Path], spec: dict) -> None:
    """The suite as task files for the command line: each includes the benchmark's own YAML and reads its rows as a JSON data set."""
    from untaxed.evaluation import sample_rows
    from untaxed.records import read_jsonl, write_jsonl

    folder.mkdir()
    for name, path in rows.items():
        benchmark = spec["benchmarks"][name]
        chosen = sample_rows(list(read_jsonl(path)), benchmark["limit"])
        write_jsonl(folder / f"{name}.jsonl", ({"id": r["id"], "prompt": r["prompt"], "target": str(r.get("target", ""))} for r in chosen))
        sampling = benchmark["sampling"]
        drawn = sampling["temperature"] > 0
        task = {
            "task": f"by_hand_{name}",
            "include": str(Path(benchmark["task"]).resolve()),
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(folder / f"{name}.jsonl")}},
            "test_split": "test",
            "repeats": benchmark["repeats"],
            "generation_kwargs": {
                "until": [],
                "max_gen_toks": sampling["max_new_tokens"],
                "do_sample": drawn,
                **({"temperature": sampling["temperature"], "top_p": sampling["top_p"]} if drawn else {}),
            },
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task))


def lm_eval_command(checkpoint: Path, tasks: Path, benchmark: str, output: Path, spec: dict) -> list[str]:
    """The command that a person types for one benchmark."""
    import torch

    arguments = f"pretrained={checkpoint},dtype={spec['dtype']},max_length={spec['context']}"
    return [
        "lm_eval", "run", "--model", "hf", "--model_args", arguments, "--tasks", f"by_hand_{benchmark}", "--include_path", str(tasks),
        "--batch_size", "8", "--apply_chat_template", "--log_samples", "--output_path", str(output),
        "--device", "cuda" if torch.cuda.is_available() else "cpu",
    ]  # fmt: skip


# ---- generation alone ----


def generate(checkpoint: Path, rows: dict[str, Path], spec: dict, repeats: int) -> tuple[dict, list[dict], str]:
    """Tokens per second of the evaluation, of the bare `model.generate` on its batches, and of our engine on its prompts."""
    import torch
    from untaxed import evaluation
    from untaxed.engine import Request, Sampling, open_engine
    from untaxed.machine import use_threads

    use_threads()
    spec = spec | {"engine": "transformers"}
    harness = evaluation.open_model(checkpoint, "transformers", spec)
    evaluation.open_model = lambda *_: harness
    calls: list[dict] = []
    original = harness._model_generate

    def recorded(**call):
        calls.append({"input_ids": call["context"], "attention_mask": call["attention_mask"], "max_length": call["max_length"]})
        return original(**call)

    harness._model_generate = recorded
    samples, _ = evaluation.evaluate(checkpoint, rows, spec)
    harness._model_generate = original
    bare_settings = {"do_sample": False, "use_cache": True, "pad_token_id": harness.tokenizer.pad_token_id}
    ends = torch.tensor(sorted({harness.tokenizer.eos_token_id, harness.tokenizer.pad_token_id}))

    def bare() -> tuple[float, int]:
        outputs: list = []
        seconds = timed(lambda: outputs.extend(harness.model.generate(**call, **bare_settings).cpu() for call in calls))
        starts = [call["input_ids"].shape[1] for call in calls for _ in call["input_ids"]]
        rows_out = [row for output in outputs for row in output.reshape(-1, output.shape[-1])]
        return seconds, sum(length(row[start:], ends) for row, start in zip(rows_out, starts, strict=True))

    def ours() -> tuple[float, int]:
        found: list = []
        seconds = timed(lambda: found.extend(evaluation.evaluate(checkpoint, rows, spec)[0]))
        return seconds, sum(sample["tokens"] + (sample["finish"] == "stop") for sample in found)

    settings = {"backend": "transformers", "model": str(checkpoint), "dtype": spec["dtype"], "batch_size": spec["batch_size"]}
    with open_engine(settings | {"max_model_len": spec["context"]}) as engine:

        def engine_side() -> tuple[float, int]:
            found: list = []
            seconds = 0.0
            for name in rows:
                requests = [
                    Request(f"{name}/{s['id']}", [{"role": "user", "content": s["prompt"]}]) for s in samples if s["benchmark"] == name
                ]
                sampling = Sampling(**spec["benchmarks"][name]["sampling"])
                seconds += timed(lambda r=requests, s=sampling: found.extend(engine.generate(r, s)))
            return seconds, sum(generation.tokens for generation in found)

        sides = {"evaluate": ours, "bare": bare, "engine": engine_side}
        measured = alternate(sides, repeats, warm_up=True)
    speeds = {side: summary([tokens / seconds for seconds, tokens in values]) for side, values in measured.items()}
    tokens = {side: values[0][1] for side, values in measured.items()}
    ratios = {side: speeds[side]["median"] / speeds["bare"]["median"] for side in ("evaluate", "engine")}
    labels = {"evaluate": "evaluation.evaluate", "bare": "model.generate on the same batches", "engine": "engine.py, batches of its own"}
    lines = [[labels[side], spread(speeds[side]), tokens[side], ratios.get(side, 1.0)] for side in sides]
    text = "## Generation alone\n\n" + table(["side", "tokens per second", "tokens", "of the bare engine"], lines)
    text += f"\nMedians of {repeats} (least to most), in turns. {len(samples)} prompts, batch size {spec['batch_size']}, {spec['dtype']}; "
    text += "no side counts the loading of the model. Tokens differ where rounding of another batch shape flips a near tie.\n"
    record = {"tokens_per_second": speeds, "tokens": tokens, "ratios": ratios, "prompts": len(samples)}
    found = [
        target("evaluate / model.generate on the same batches, tokens per second", ratios["evaluate"], 0.9),
        target("evaluate / engine.py on the same prompts", ratios["evaluate"] / ratios["engine"], 0.9),
    ]
    return record, found, text


def length(row, ends) -> int:
    """Tokens of one output up to and with its first end token."""
    import torch

    hits = torch.isin(row, ends).nonzero()
    return int(hits[0]) + 1 if len(hits) else len(row)


if __name__ == "__main__":
    main()
