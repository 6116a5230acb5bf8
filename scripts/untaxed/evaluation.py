"""Evaluation through lm-evaluation-harness: one model load for a whole suite, every generation kept with its prompt."""

import random
from collections import Counter
from pathlib import Path

from untaxed.machine import use_vllm
from untaxed.records import UserError, fingerprint, read_json, read_jsonl
from untaxed.sandbox import refusal
from untaxed.tasks import document, read_task
from untaxed.thinking import ThinkingFormat


def make_task(name: str, benchmark: dict, rows: list[dict]):
    """An lm-eval task from its YAML file, over rows that are already here.

    The YAML is lm-eval's own task format without a dataset (see `tasks`); sampling and length come from the configuration.
    Repeats are documents of their own: lm-eval's `repeats` scores the first generation alone. Raises UserError when the file is
    not a generation task, or runs code (`metadata: {sandbox: true}`) where there is no sandbox.
    """
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    config, fields = read_task(benchmark["task"])
    if config.get("metadata", {}).get("sandbox") and (why := refusal()) is not None:
        raise UserError(why)
    sampling = benchmark["sampling"]
    documents = [document(row, repeat, fields, benchmark["task"]) for row in rows for repeat in range(benchmark["repeats"])]
    config |= {
        "task": name,
        "test_split": "test",
        "num_fewshot": 0,
        "custom_dataset": lambda **_: DatasetDict(test=Dataset.from_list(documents)),
        "generation_kwargs": {
            "until": config.get("generation_kwargs", {}).get("until", []),
            "max_gen_toks": sampling["max_new_tokens"],
            "do_sample": sampling["temperature"] > 0,
            # top_k 0 switches off what a backend or the model's own settings would cut (transformers: 50, Qwen3: 20)
            **({"temperature": sampling["temperature"], "top_p": sampling["top_p"], "top_k": 0} if sampling["temperature"] > 0 else {}),
        },
    }
    return ConfigurableTask(config=config)


def open_model(checkpoint: Path, engine: str, spec: dict):
    """lm-eval's own backend over a local checkpoint: `hf` for transformers, `vllm` for vLLM.

    `spec["vllm"]`: the keys of `compute.vllm`, and others of vLLM's own. The chat template writes the BOS, if there is one, in training
    as here; no tokenizer adds a second.
    """
    if engine == "vllm":
        options = dict(spec.get("vllm") or {})
        use_vllm(options.pop("kv_cache_gib", None))
        try:
            import vllm  # noqa: F401  lm-eval's own message comes after its imports and names no key
            from lm_eval.models.vllm_causallms import VLLM
        except ImportError as error:
            raise UserError(
                f"compute.engine: vllm cannot be imported ({error}); install it, or set compute.engine to transformers"
            ) from None

        return VLLM(
            pretrained=str(checkpoint),
            dtype=spec["dtype"],
            max_model_len=spec["context"],
            batch_size="auto",
            seed=spec["seed"],
            add_bos_token=False,
            **options,
        )
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoTokenizer

    from untaxed.decoding import load_model

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = HFLM(
        pretrained=load_model(str(checkpoint), spec["dtype"], device, local_files_only=True),
        tokenizer=AutoTokenizer.from_pretrained(checkpoint, local_files_only=True),
        batch_size=spec["batch_size"],
        max_length=spec["context"],
        device=device,
        add_bos_token=False,
    )
    keep_markers(model, ThinkingFormat(**spec["thinking"]))
    if device == "cpu":
        use_own_loop(model, spec["seed"])
    return model


def use_own_loop(model, seed: int) -> None:
    """Let a `hf` backend draw its tokens by `decoding.decode`, which drops finished rows, in place of `model.generate`.

    Greedy texts are the same but for rounding (all of them in float32: test_evaluation.py). Settings that the loop does not know go to
    `model.generate` as before.
    """
    import torch

    from untaxed import decoding
    from untaxed.engine import stopper

    generate, ends = model._model_generate, decoding.end_tokens(model.model, model.tokenizer)
    end_texts = {model.tokenizer.decode([token]) for token in ends}
    asked: Counter = Counter()

    def draws(ids: list[int]) -> random.Random:
        """Random numbers of the next time that a prompt is asked: repeats differ, and what else is asked or was cached does not matter."""
        asked[tuple(ids)] += 1
        return random.Random(f"{seed}/{asked[tuple(ids)]}/{ids}")

    def _model_generate(context, max_length, stop, attention_mask=None, **settings):
        settings = {name: value for name, value in settings.items() if value is not None}
        temperature = settings.get("temperature", 0.0) if settings.get("do_sample", True) else 0.0
        if attention_mask is None or set(settings) - {"do_sample", "temperature", "top_p", "top_k"} or settings.get("top_k"):
            return generate(context=context, max_length=max_length, stop=stop, attention_mask=attention_mask, **settings)
        width = context.shape[1]
        prompts = [ids[mask.bool()].tolist() for ids, mask in zip(context, attention_mask, strict=True)]
        rows = [decoding.Row(index, ids, max_length - width, draws(ids)) for index, ids in enumerate(prompts)]
        strings = [text for text in stop if text not in end_texts]
        done = decoding.decode(
            model.model,
            rows,
            temperature=temperature,
            top_p=settings.get("top_p", 1.0),
            ends=ends,
            stopped=stopper(model.tokenizer, strings),
            batch_size=len(rows),
            batch_tokens=None,
        )
        tokens = {row.index: row.tokens for row in done}
        output = torch.full((len(rows), max(map(len, tokens.values()))), model.tokenizer.pad_token_id)
        for index, drawn in tokens.items():
            output[index, : len(drawn)] = torch.tensor(drawn)
        return torch.cat([context, output], dim=1)

    model._model_generate = _model_generate


def keep_markers(model, thinking: ThinkingFormat) -> None:
    """Let a `hf` backend show thinking markers that are special tokens (s1's `<|im_start|>`), which it would cut from the text.

    vLLM shows special tokens by itself.
    """
    special = set(model.tokenizer.all_special_ids)
    markers = special.intersection(model.tokenizer(thinking.open + thinking.close, add_special_tokens=False)["input_ids"])
    if not markers:
        return
    hidden = special - markers
    decode = model.tok_decode

    def tok_decode(tokens, skip_special_tokens=True):
        if skip_special_tokens and isinstance(tokens, list):
            tokens = [token for token in tokens if token not in hidden]
        return decode(tokens, skip_special_tokens=False)

    model.tok_decode = tok_decode


def cache_file(folder: Path, checkpoint: Path, spec: dict) -> Path:
    """Where lm-eval keeps the generations of these weights alone: it knows a request by its prompt, not by its model."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = read_json(checkpoint / "manifest.json")
    return folder / fingerprint([manifest["weights_sha256"], spec["engine"], spec["dtype"], spec["seed"]])


def sample_rows(rows: list[dict], limit: int | None) -> list[dict]:
    """A fixed draw of `limit` rows in file order: upstream files are sorted by category, so their head would not do."""
    if limit is None or limit >= len(rows):
        return rows
    return [rows[index] for index in sorted(random.Random("benchmark").sample(range(len(rows)), limit))]


def evaluate(checkpoint: Path, rows: dict[str, Path], spec: dict, cache: Path | None = None) -> tuple[list[dict], dict[str, dict]]:
    """Generate and score every benchmark of a suite with one model load.

    Returns the samples (contract of samples.jsonl) and {benchmark: {metric: value}}. `rows` maps a benchmark to its rows file;
    `cache` lets a killed job go on with the generations it has.
    """
    from lm_eval.api.model import CachingLM
    from lm_eval.evaluator import evaluate as run_tasks
    from transformers import set_seed

    thinking = ThinkingFormat(**spec["thinking"])
    chosen = {name: sample_rows(list(read_jsonl(path)), spec["benchmarks"][name]["limit"]) for name, path in rows.items()}
    tasks = {name: make_task(name, spec["benchmarks"][name], chosen[name]) for name in chosen}
    model = open_model(checkpoint, spec["engine"], spec)
    set_seed(spec["seed"])
    lm = CachingLM(model, str(cache_file(cache, checkpoint, spec))) if cache else model
    results: dict[str, dict] = {"samples": {}, "results": {}, "versions": {}}
    # What a cache keeps it keeps after each call, so a suite that may have to go on asks one benchmark a call; else all fill one batch.
    for names in [[name] for name in tasks] if cache else [list(tasks)]:
        # lm-eval's `simple_evaluate` around this call first reads the thousands of task files it ships and asks pip what is installed,
        # which takes longer than a small suite.
        found = run_tasks(
            lm=lm,
            task_dict={"tasks": {name: tasks[name] for name in names}, "groups": {}},
            apply_chat_template=True,
            log_samples=True,
            bootstrap_iters=0,
        )
        for part, entries in results.items():
            entries.update(found[part])
    samples = []
    for name, picked in chosen.items():
        by_id = {row["id"]: row for row in picked}
        limit = spec["benchmarks"][name]["sampling"]["max_new_tokens"]
        for entry in results["samples"][name]:
            samples.append(_sample(name, entry, by_id[entry["doc"]["id"]], thinking, model.tokenizer, limit))
            samples[-1] |= {"version": results["versions"][name], "engine": spec["engine"]}
            if spec["benchmarks"][name]["repeats"] > 1:
                samples[-1]["id"] += f"#{entry['doc']['repeat']}"
    scores = {
        name: {key.split(",")[0]: value for key, value in results["results"][name].items() if isinstance(value, float)} for name in chosen
    }
    return samples, scores


def attacked(row: dict) -> dict:
    """What a sample says of the attack that its prompt went through: the original prompt and the attack; nothing where there was none."""
    meta = row.get("meta") or {}
    return {"original_prompt": meta["original"], "attack": meta["attack"]} if "attack" in meta else {}


def _sample(benchmark: str, entry: dict, row: dict, thinking: ThinkingFormat, tokenizer, limit: int) -> dict:
    """The record of one generation; `finish` says whether it filled its token limit. A row without a target has no score.

    lm-eval returns text alone, so its tokens are counted again. One below the limit counts as filled, because a cut text may merge
    into a token less; a generation that ended by itself exactly there is then called cut off.
    """
    generation = entry["resps"][0][0]
    metrics = entry["metrics"] if row.get("target") else []
    reasoning, answer, closed = thinking.split(generation)
    tokens = len(tokenizer(generation, add_special_tokens=False)["input_ids"])
    return {
        "benchmark": benchmark,
        "id": row["id"],
        "prompt": row["prompt"],
        **attacked(row),
        "generation": generation,
        "reasoning": reasoning,
        "answer": answer,
        "closed": closed,
        "finish": "length" if tokens >= limit - 1 else "stop",
        "tokens": tokens,
        "target": row.get("target"),
        "correct": next((float(entry[metric]) for metric in metrics if metric in ("exact_match", "acc")), None),
        "harmful": row["harmful"],
        "category": row["category"],
    }
