"""Evaluation through lm-evaluation-harness: one model load for a whole suite, every generation kept with its prompt."""

from pathlib import Path
from typing import Any

from untaxed.records import UserError, read_jsonl
from untaxed.thinking import ThinkingFormat


def make_task(name: str, benchmark: dict, rows: list[dict]):
    """An lm-eval task from its YAML file, over rows that are already here.

    The YAML is lm-eval's own task format without a dataset; sampling and length come from the configuration. Raises
    UserError when the file is not a generation task.
    """
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    config: dict[str, Any] = load_yaml(benchmark["task"])
    if config.get("output_type") != "generate_until":
        raise UserError(f"{benchmark['task']}: output_type: must be generate_until; every benchmark here is generated and kept")
    sampling = benchmark["sampling"]
    config |= {
        "task": name,
        "test_split": "test",
        "custom_dataset": lambda **_: DatasetDict(test=Dataset.from_list([_document(row) for row in rows])),
        "generation_kwargs": {
            "until": config.get("generation_kwargs", {}).get("until", []),
            "max_gen_toks": sampling["max_new_tokens"],
            "do_sample": sampling["temperature"] > 0,
            **({"temperature": sampling["temperature"], "top_p": sampling["top_p"]} if sampling["temperature"] > 0 else {}),
        },
        "repeats": benchmark["repeats"],
    }
    return ConfigurableTask(config=config)


def _document(row: dict) -> dict:
    """The fields a task YAML may use in its templates."""
    return {"id": row["id"], "prompt": row["prompt"], "target": str(row.get("target", "")), "category": row["category"]}


def open_model(checkpoint: Path, engine: str, spec: dict):
    """lm-eval's own backend over a local checkpoint: `hf` for transformers, `vllm` for vLLM."""
    if engine == "vllm":
        from lm_eval.models.vllm_causallms import VLLM

        return VLLM(
            pretrained=str(checkpoint),
            dtype=spec["dtype"],
            max_model_len=spec["context"],
            batch_size="auto",
            seed=spec["seed"],
            **spec.get("vllm", {}),
        )
    import torch
    from lm_eval.models.huggingface import HFLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    return HFLM(pretrained=str(checkpoint), dtype=spec["dtype"], batch_size=spec["batch_size"], max_length=spec["context"], device=device)


def evaluate(checkpoint: Path, rows: dict[str, Path], spec: dict, cache: Path | None = None) -> tuple[list[dict], dict[str, dict]]:
    """Generate and score every benchmark of a suite with one model load.

    Returns the samples (contract of samples.jsonl) and {benchmark: {metric: value}}. `rows` maps a benchmark to its rows file;
    `cache` lets a killed job go on with the generations it has.
    """
    from lm_eval import simple_evaluate

    thinking = ThinkingFormat(**spec["thinking"])
    chosen = {name: list(read_jsonl(path))[: spec["benchmarks"][name]["limit"]] for name, path in rows.items()}
    tasks = [make_task(name, spec["benchmarks"][name], chosen[name]) for name in chosen]
    model = open_model(checkpoint, spec["engine"], spec)
    results = simple_evaluate(
        model=model,
        tasks=tasks,
        apply_chat_template=True,
        log_samples=True,
        bootstrap_iters=0,
        use_cache=str(cache) if cache else None,
        random_seed=spec["seed"],
        numpy_random_seed=spec["seed"],
        torch_random_seed=spec["seed"],
        fewshot_random_seed=spec["seed"],
    )
    samples = []
    for name, picked in chosen.items():
        by_id = {row["id"]: row for row in picked}
        limit = spec["benchmarks"][name]["sampling"]["max_new_tokens"]
        for entry in results["samples"][name]:
            samples.extend(_samples(name, entry, by_id[entry["doc"]["id"]], thinking, model.tokenizer, limit))
    scores = {
        name: {key.split(",")[0]: value for key, value in results["results"][name].items() if isinstance(value, float)} for name in chosen
    }
    return samples, scores


def _samples(benchmark: str, entry: dict, row: dict, thinking: ThinkingFormat, tokenizer, limit: int) -> list[dict]:
    """One record per generation of an lm-eval sample; `finish` says whether it filled its token limit.

    A row without a target has no score.
    """
    metrics = entry.get("metrics", []) if row.get("target") else []
    correct = next((float(entry[metric]) for metric in metrics if metric in ("exact_match", "acc")), None)
    records = []
    generations = entry["resps"][0] if isinstance(entry["resps"][0], list) else entry["resps"]
    for index, generation in enumerate(generations):
        reasoning, answer, closed = thinking.split(generation)
        tokens = len(tokenizer(generation, add_special_tokens=False)["input_ids"])
        records.append(
            {
                "benchmark": benchmark,
                "id": row["id"] if len(generations) == 1 else f"{row['id']}#{index}",
                "prompt": row["prompt"],
                "generation": generation,
                "reasoning": reasoning,
                "answer": answer,
                "closed": closed,
                "finish": "length" if tokens >= limit - 1 else "stop",  # the end-of-sequence token is not in the text
                "tokens": tokens,
                "target": row.get("target"),
                "correct": correct,
                "harmful": row["harmful"],
                "category": row["category"],
            }
        )
    return records
