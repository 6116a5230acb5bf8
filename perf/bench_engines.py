"""Which engine a job should take: the same greedy generation by transformers and vLLM, in float32 and bfloat16, each in its own process.

    python perf/bench_engines.py                                         after ./untaxed laptop, with vLLM installed
    python perf/bench_engines.py --model FOLDER --rows rows.jsonl --engines transformers

Both run through engine.py on the same prompts and batch size. `start` is from the process's start to a loaded model, `speed` the tokens per
second after it, and the break-even the tokens of a job from which vLLM is the faster whole process. From both follows what all evaluations
of the study would take by each engine: as many starts as it has runs, and the tokens that its samples hold.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from measure import ROOT, alternate, load_study, machine, made_file, number, parser, prepare, report, run, spread, summary, table

STARTED = time.time()


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", type=Path, help="model folder (default: that of the study's first run)")
    made.add_argument("--rows", type=Path, help="rows whose prompts are answered (default: those of the study's benchmarks)")
    made.add_argument("--prompts", type=int, default=64)
    made.add_argument("--tokens", type=int, default=128, help="new tokens of a prompt, at most")
    made.add_argument("--batch", type=int, default=32)
    made.add_argument("--engines", nargs="+", default=["transformers", "vllm"], choices=("transformers", "vllm"))
    made.add_argument("--types", nargs="+", default=["float32", "bfloat16"], choices=("float32", "bfloat16"))
    made.add_argument("--compile", action="store_true", help="let vLLM compile (a longer start); else eager")
    made.add_argument("--one", type=json.loads, help="(one side, which this script calls itself)")
    options = made.parse_args()
    prepare(options)
    if options.one:
        one(**options.one)
        return
    before = machine()
    from untaxed.records import read_json, read_jsonl, write_json

    study = load_study(options.study)
    first = next(iter(study.runs.values()))
    model = (options.model or made_file(study.model(first["model"]), study.name).parent).resolve()
    suite = [made_file(study.rows(study.config.benchmarks[name].dataset), study.name) for name in study.config.study.suite]
    rows = [row for path in ([options.rows] if options.rows else suite) for row in read_jsonl(path)]
    every = max(1, len(rows) // options.prompts)
    prompts = [row["prompt"] for row in rows[::every]][: options.prompts]
    context = study.config.models[first["model"]].context
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_json(folder / "prompts.json", prompts)

        def side(engine: str, kind: str) -> dict:
            spec = {"backend": engine, "model": str(model), "dtype": kind, "batch_size": options.batch, "max_model_len": context}
            spec |= {"threads": options.threads} | ({"enforce_eager": not options.compile} if engine == "vllm" else {})
            asked = {"spec": spec, "prompts": str(folder / "prompts.json"), "tokens": options.tokens, "output": str(folder / "out.json")}
            command = [sys.executable, str(ROOT / "perf/bench_engines.py"), "--threads", str(options.threads), "--one", json.dumps(asked)]
            run(command, folder / "log")
            return read_json(folder / "out.json")

        sides = {(e, k): (lambda e=e, k=k: side(e, k)) for k in options.types for e in options.engines}
        found = alternate(sides, options.repeats)
    text, record = results(found)
    record["study"], said = whole_study(study, record["sides"])
    text += said
    record |= {"repeats": options.repeats, "model": model.name, "prompts": len(prompts), "tokens": options.tokens, "batch": options.batch}
    text += f"\n{len(prompts)} prompts, up to {options.tokens} new tokens, batch size {options.batch}, greedy, model {model.name}, "
    text += f"vLLM {'compiled' if options.compile else 'eager'}. Medians of {options.repeats} (least to most), in turns.\n"
    report(options, "bench_engines", "Engines", before, record, text)


def one(spec: dict, prompts: str, tokens: int, output: str) -> None:
    """Load one engine, answer the prompts, and leave seconds and texts in `output`."""
    from untaxed.engine import Request, Sampling, open_engine
    from untaxed.records import read_json, write_json

    requests = [Request(str(index), [{"role": "user", "content": text}]) for index, text in enumerate(read_json(prompts))]
    with open_engine(spec) as engine:
        start = time.time() - STARTED
        begun = time.perf_counter()
        answers = list(engine.generate(requests, Sampling(max_new_tokens=tokens)))
        seconds = time.perf_counter() - begun
    count = sum(answer.tokens for answer in answers)
    texts = {answer.id: answer.text for answer in answers}
    write_json(output, {"start": start, "speed": count / seconds, "tokens": count, "texts": texts})


def results(found: dict[tuple[str, str], list[dict]]) -> tuple[str, dict]:
    """Speed and start of each side, the share of texts that two sides have in common, and the break-even of vLLM."""
    sides, rows, record = {}, [], {"sides": {}, "equal_texts": {}, "break_even_tokens": {}}
    for (engine, kind), runs in found.items():
        side = {key: summary([entry[key] for entry in runs]) for key in ("speed", "start")} | {"tokens": runs[0]["tokens"]}
        sides[engine, kind] = side
        record["sides"][f"{engine} {kind}"] = side
        rows.append([engine, kind, spread(side["speed"]), spread(side["start"]), side["tokens"]])
    text = table(["engine", "type", "tokens per second", "start, seconds", "tokens"], rows) + "\n"
    names = list(found)
    for index, left in enumerate(names):
        for right in names[index + 1 :]:
            if left[0] == right[0] or left[1] == right[1]:
                a, b = found[left][0]["texts"], found[right][0]["texts"]
                share = sum(a[key] == b[key] for key in a) / len(a)
                record["equal_texts"][f"{' '.join(left)} = {' '.join(right)}"] = share
    lines = [[pair, f"{share:.0%}"] for pair, share in record["equal_texts"].items()]
    text += table(["two sides", "equal texts"], lines) if lines else ""
    for kind in dict.fromkeys(kind for _, kind in sides):
        if {("transformers", kind), ("vllm", kind)} <= set(sides):
            tokens = break_even(sides["transformers", kind], sides["vllm", kind])
            record["break_even_tokens"][kind] = tokens
            when = "never" if tokens is None else f"from {number(tokens)} tokens a job"
            text += f"\n{kind}: vLLM is the faster whole process {when}.\n"
    return text, record


def whole_study(study, sides: dict[str, dict]) -> tuple[dict, str]:
    """Seconds of all evaluations of the study by each side, from its start, its speed and the tokens in the samples; and a table."""
    from untaxed.records import read_jsonl

    files = [made_file(Path(study.results) / "runs" / run / "samples.jsonl", study.name) for run in study.runs]
    tokens = sum(sample["tokens"] for file in files for sample in read_jsonl(file))
    seconds = {name: len(files) * side["start"]["median"] + tokens / side["speed"]["median"] for name, side in sides.items()}
    rows = [[name, value] for name, value in sorted(seconds.items(), key=lambda item: item[1])]
    head = f"\nAll {len(files)} evaluations of the study {study.name} ({tokens:,} tokens), every start counted:\n\n"
    return {"evaluations": len(files), "tokens": tokens, "seconds": seconds}, head + table(["side", "seconds"], rows)


def break_even(plain: dict, vllm: dict) -> float | None:
    """Tokens of a job at which both take as long, 0 when vLLM also starts faster; None when vLLM generates no faster."""
    gain = 1 / plain["speed"]["median"] - 1 / vllm["speed"]["median"]
    return max(0.0, (vllm["start"]["median"] - plain["start"]["median"]) / gain) if gain > 0 else None


if __name__ == "__main__":
    main()
