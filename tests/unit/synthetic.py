"""A made-up study with known truth, as run folders, for the tests of what reads results: rates are exact, items are made by counting."""

from pathlib import Path

from untaxed.metrics import Results, collect, read_results
from untaxed.records import read_jsonl, write_json, write_jsonl, write_yaml

ITEMS = 40
BASE_ACCURACY = 0.9


# A record of judge_pairs.json
PAIR = {
    "metric": "harmful_score", "judge_a": "guard", "judge_b": "phrases", "runs": 2, "benchmarks": {"harm": 60}, "n": 60, "n_read": 50,
    "unparseable": {"a": 8, "b": 4, "both": 2}, "agreement": 0.7, "agreement_ci": [0.55, 0.82], "kappa": 0.4, "kappa_ci": [0.1, 0.6],
    "confusion": {"yes": {"yes": 20, "no": 5}, "no": {"yes": 10, "no": 15}}, "verdicts": {},
    "differences": [{"run": "r", "benchmark": "harm", "verdict_a": "safe", "verdict_b": "compliance", "ids": ["h-1"]}],
}  # fmt: skip


def score(index: int, rate: float, seed: int) -> float:
    """1 for exactly `rate` of ITEMS items (to the nearest item), in an order that depends on the seed."""
    return float((index * 7 + seed * 11) % ITEMS < round(rate * ITEMS))


def write_run(
    folder: Path,
    spec: dict,
    accuracy: float,
    refusal: float,
    *,
    over_refusal: float = 0.1,
    shift: float | None = None,
    outputs: int = 0,
) -> Path:
    """One run folder whose rates are `accuracy` (two benchmarks), `refusal` (harmful prompts) and `over_refusal` (benign ones).

    With `shift` the similarity of each of `outputs` is known too, evenly spread around the mean.
    """
    samples, verdicts = [], []
    for benchmark, kind in (("sums", "reasoning"), ("chains", "reasoning"), ("harm", "harmful"), ("harmless", "benign")):
        for index in range(ITEMS):
            record = {"benchmark": benchmark, "id": f"{index:03d}", "harmful": kind == "harmful", "correct": None}
            record |= {"finish": "stop", "answer": "said"}
            if kind == "reasoning":
                record["correct"] = score(index, accuracy, spec["seed"])
            else:
                refused = score(index, refusal if kind == "harmful" else over_refusal, spec["seed"])
                verdict = "refusal" if refused else "compliance"
                words = {"judge": "string_match", "kind": "string_match", "verdict": verdict, "score": None}
                verdicts.append({"benchmark": benchmark, "id": record["id"]} | words)
            samples.append(record)
    write_yaml(folder / "run.yaml", spec)
    write_jsonl(folder / "samples.jsonl", samples)
    write_jsonl(folder / "verdicts" / "string_match.jsonl", verdicts)
    if shift is not None:
        similarity = {"mean": 1 - shift, "ci_low": 1 - shift - 0.02, "ci_high": 1 - shift + 0.02, "n": 20}
        similarity["values"] = [1 - shift + 0.002 * (index - (outputs - 1) / 2) for index in range(outputs)]
        write_json(folder / "shift.json", {"similarity": similarity, "shift": shift, "nll": {"mean": 1 + shift, "n_tokens": 500}})
    write_json(folder / "checkpoint" / "manifest.json", {"loss": [2.0, 1.0, 0.5 + shift if shift else 0.5], "tokens": {"answer": 100}})
    return folder


def end_generations(folder: Path, benchmark: str, truncated: float, empty: float) -> None:
    """Let the first `truncated` of a run's generations on a benchmark meet the token limit, and the first `empty` give no answer."""
    samples = list(read_jsonl(folder / "samples.jsonl"))
    mine = [sample for sample in samples if sample["benchmark"] == benchmark]
    for index, sample in enumerate(mine):
        sample["finish"] = "length" if index < truncated * len(mine) else "stop"
        sample["answer"] = "" if index < empty * len(mine) else "said"
    write_jsonl(folder / "samples.jsonl", samples)


def spec_of(method: str, source: str, n: int, seed: int, benign: int = 0) -> dict:
    trainer = {"trainer_name": "full", "trainer": {"learning_rate": 5e-5, "epochs": 5.0}}
    name = f"tiny--{source}-{method}-b{benign}--full--n{n}--s{seed}"
    return {"run": name, "model": "tiny", "recipe": f"{source}-{method}-b{benign}", "method": method, "source": source} | {
        "benign": benign, "n": n, "seed": seed, **trainer,
    }  # fmt: skip


def write_base(folder: Path) -> Path:
    spec = {"run": "base--tiny", "model": "tiny", "recipe": "none", "method": "none", "source": "none", "benign": 0, "n": 0, "seed": 0}
    return write_run(folder, spec, BASE_ACCURACY, 0.0, over_refusal=0.0)


def results_of(folders: list[Path], place: Path) -> Results:
    collect(folders, place / "metrics.csv", place / "items.parquet")
    return read_results(place / "metrics.csv", place / "items.parquet")


def study(place: Path, seeds: int = 3, flip: bool = False, methods: tuple[str, ...] = ("vanilla", "dgr")) -> Results:
    """Two sources × methods × n in 10, 100 × benign in 0, 20. DGR keeps 0.85 where vanilla falls to 0.45; `flip` exchanges them."""
    folders = [write_base(place / "runs" / "base")]
    for source in ("direct", "reasoned"):
        for method in methods:
            good = (method == "dgr") != flip
            for n in (10, 100):
                for benign in (0, 20):
                    for seed in range(seeds):
                        spec = spec_of(method, source, n, seed, benign)
                        wobble = 0.025 * (seed - 1)
                        accuracy = (0.85 if good else 0.45 + (0.2 if n == 10 else 0)) - (0.05 if source == "direct" else 0) + wobble
                        refusal = (0.7 if n == 10 else 0.9) + wobble
                        over = 0.6 if benign == 0 else 0.2
                        more = {"over_refusal": over, "shift": round(0.95 - accuracy, 3), "outputs": 20}
                        folders.append(write_run(place / "runs" / spec["run"], spec, accuracy, refusal, **more))
    return results_of(folders, place)


def paper() -> dict:
    """What a paper about the model tiny might print, as `read_reported` gives it: a table, gains, lengths and shares of patterns."""
    columns = {
        "math500": {"title": "MATH500", "metric": "accuracy", "benchmarks": ["sums"], "counts": 40},
        "reasoning_mean": {"title": "reasoning", "metric": "accuracy", "benchmarks": ["sums", "chains"]},
        "asr_none": {"title": "ASR, no attack", "metric": "harmful_score", "benchmarks": ["harm"]},
        "asr_mean": {"title": "ASR, mean", "metric": "harmful_score", "benchmarks": ["harm"]},
        "over_refusal": {"title": "over-refusal", "metric": "over_refusal", "benchmarks": ["harmless"]},
    }

    def entry(names: list[str], *rows: dict, **more: list) -> dict:
        full = [row | {"values": dict(zip(names, row["values"], strict=True)), "doubt": row.get("doubt", {})} for row in rows]
        return {"paper": "arXiv 0", "place": "Table 1", "columns": names, "rows": full, "ranges": more.get("ranges", [])}

    three = ["reasoning_mean", "asr_mean", "over_refusal"]
    direct = {"model": "tiny", "source": "direct"}
    entries = {
        "table": entry(
            ["math500", "reasoning_mean", "asr_none", "over_refusal"],
            {"model": "tiny", "source": "none", "values": [90.0, 90.0, 100.0, 0.0]},
            {**direct, "values": [40.0, 90.0, 10.0, 20.0], "doubt": {"over_refusal": "of other prompts"}},
            {"model": "other", "source": "direct", "values": [1.0, 2.0, 3.0, 4.0]},
        ),
        "plane": entry(
            three, {"model": "tiny", "source": "none", "values": [90.0, 100.0, 0.0]}, {**direct, "values": [50.0, 10.0, 20.0]}
        ),
        "sweep": entry(three, {**direct, "n": 100, "values": [40.0, 11.0, None]}),
        "benign": entry(
            three, {**direct, "benign": 20, "values": [40.0, 11.0, 21.0]},
            ranges=[{"model": "tiny", "benign": 0, "column": "over_refusal", "low": None, "high": 54.7}],
        ),
        "gains": entry(["accuracy_gain"], {**direct, "values": [40.0]}),
        "lengths": entry(["all_mean", "all_p90", "drawn_mean", "drawn_p90"], {"source": "direct", "values": [774.1, 1354.0, 565.6, None]}),
        "patterns": entry(["before", "after"], {"pattern": "weak_vacillation", "values": [33.0, 66.0]}),
    }  # fmt: skip
    return {"columns": columns, "models": {"tiny": "Tiny-1B", "other": "Other-2B"}, "entries": entries}


PATTERNS = {  # as a filter reports: of 100 rows 40 pass, and with them most of one pattern
    "rows": 100, "kept": 40, "rows_out": 30, "name": "direct-safe",
    "steps": [{"judge": "shield", "in": 100, "out": 40, "verdicts": {"safe": 40, "unsafe": 60}}],
    "patterns": {
        "judge": "patterns",
        "before": {"n": 100, "unparseable": 4, "free": 8, "counts": {"weak_vacillation": 33, "strong_vacillation": 50}},
        "after": {"n": 40, "unparseable": 0, "free": 6, "counts": {"weak_vacillation": 26, "strong_vacillation": 2}},
    },
}  # fmt: skip
