"""Distribution shift between a base model and a run: similarity of outputs, NLL of training targets, KL of next-token distributions.

Everything is read from files and local model folders; nothing is generated here. Intervals are 95 % percentile bootstraps over items.
"""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from untaxed.records import UserError, read_jsonl
from untaxed.statistics import Estimate, ratio_interval
from untaxed.thinking import ThinkingFormat

if TYPE_CHECKING:
    import numpy as np
    import torch

TOKENS_PER_BATCH = 1024  # logits over a 49k vocabulary take 200 kB a token in fp32
WHOLE = 1 << 30  # a row length that never cuts


def with_interval(point: Estimate) -> dict:
    """An estimate as shift.json names its parts."""
    return {"mean": point.value, "ci_low": point.low, "ci_high": point.high}


# --- similarity ------------------------------------------------------------------------------------------------------------------------


def paired_outputs(base_samples: Iterable[dict], samples: Iterable[dict], benchmarks: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """(base generation, run generation) for each (benchmark, id) that both have, of `benchmarks` or of all. Of repeats the first is taken.

    Raises UserError when there is no pair.
    """

    def first_generations(records: Iterable[dict]) -> dict[tuple[str, str], str]:
        found: dict[tuple[str, str], str] = {}
        for record in records:
            if not benchmarks or record["benchmark"] in benchmarks:
                found.setdefault((record["benchmark"], record["id"]), record["generation"])
        return found

    base, run = first_generations(base_samples), first_generations(samples)
    pairs = [(base[key], text) for key, text in run.items() if key in base]
    if not pairs:
        names = ", ".join(benchmarks or ["any benchmark"])
        raise UserError(f"samples: base and run share no item of {names}; evaluate both on the same suite")
    return pairs


def embed(texts: Sequence[str], folder: Path | str, device: str = "cpu", batch_size: int = 32) -> "np.ndarray":
    """Sentence embeddings (len(texts), width), fp32, of unit length: mean over tokens of the encoder's last layer, then L2 norm.

    `folder` is a sentence-transformers model with mean pooling, such as all-MiniLM-L6-v2; texts are cut at its `max_seq_length`. Equal
    texts are encoded once. Raises UserError for another pooling.
    """
    import numpy as np
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = Path(folder)
    pooling, limits = folder / "1_Pooling" / "config.json", folder / "sentence_bert_config.json"
    if pooling.is_file() and not json.loads(pooling.read_text()).get("pooling_mode_mean_tokens"):
        raise UserError(f"{pooling}: the encoder does not pool by the mean; choose one that does, such as all-MiniLM-L6-v2")
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    longest = json.loads(limits.read_text())["max_seq_length"] if limits.is_file() else tokenizer.model_max_length
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval().to(device)
    # A tokenizer cuts at its limit anyway, and cutting first spares it the rest of a long trace: a token is seldom over 32 characters.
    # Equal lengths are put in the order of their letters: a set's order changes from process to process, and with it the batches.
    distinct = sorted({text[: 32 * longest] for text in texts}, key=lambda text: (len(text), text))
    rows: dict[str, np.ndarray] = {}
    with torch.inference_mode():
        for start in range(0, len(distinct), batch_size):
            batch = distinct[start : start + batch_size]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt").to(device)
            hidden = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1)
            rows.update(zip(batch, torch.nn.functional.normalize(mean, dim=-1).cpu().numpy(), strict=True))
    return np.stack([rows[text[: 32 * longest]] for text in texts])


def similarity(pairs: Sequence[tuple[str, str]], encoder: Path | str, device: str = "cpu", seed: int = 0) -> dict:
    """Cosine of the embeddings of base and run output per item (SDFT's measure, arXiv 2402.13669): mean, interval, n and the values."""
    vectors = embed([text for pair in pairs for text in pair], encoder, device)
    values = (vectors[0::2] * vectors[1::2]).sum(axis=1).clip(-1.0, 1.0).astype(float)
    point = ratio_interval(values, [1.0] * len(values), seed)
    return with_interval(point) | {"n": point.n, "values": [round(value, 6) for value in values.tolist()]}


# --- next-token distributions ------------------------------------------------------------------------------------------------------------


def batches_by_length(lengths: Sequence[int], tokens_per_batch: int) -> Iterator[list[int]]:
    """Indexes in batches of similar length, each of at most `tokens_per_batch` padded tokens (or of one item)."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batch and lengths[index] * (len(batch) + 1) > tokens_per_batch:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def target_logits(model, sequences: Sequence[tuple[list[int], int]], tokens_per_batch: int) -> "Iterator[tuple[int, torch.Tensor]]":
    """Yield (index, logits) for each sequence (token ids, first target): fp32 logits (targets, vocabulary) that predict the ids from there.

    Sequences are padded on the right, where a causal model never looks; logits are made for target positions only, because the vocabulary,
    not the layers, costs most in a small model.
    """
    import torch

    for batch in batches_by_length([len(ids) for ids, _ in sequences], tokens_per_batch):
        length = max(len(sequences[index][0]) for index in batch)
        first = min(sequences[index][1] for index in batch) - 1
        tokens = torch.zeros((len(batch), length), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, index in enumerate(batch):
            ids = torch.tensor(sequences[index][0])
            tokens[row, : len(ids)], mask[row, : len(ids)] = ids, 1
        kept = torch.arange(first, length - 1, device=model.device)
        with torch.inference_mode():
            tokens, mask = tokens.to(model.device), mask.to(model.device)
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=kept).logits
        for row, index in enumerate(batch):
            ids, start = sequences[index]
            yield index, logits[row, start - 1 - first : len(ids) - 1 - first].float()


def target_nll(model, rows: Sequence, tokens_per_batch: int = TOKENS_PER_BATCH) -> dict:
    """Negative log-likelihood in nats per token of training targets, as `training_sets.tokenize` makes them (its `TokenizedRow`).

    mean: over all targets, the loss before the first step. reasoning: over the trace and its markers. answer: over the answer and the
    tokens that end the turn (EOS included). A part without tokens is None.
    """
    import torch

    sequences = [(row.input_ids, len(row.input_ids) - row.reasoning_tokens - row.answer_tokens) for row in rows]
    reasoning = answer = 0.0
    for index, logits in target_logits(model, sequences, tokens_per_batch):
        ids, start = sequences[index]
        losses = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[start:], device=logits.device), reduction="none").double()
        split = rows[index].reasoning_tokens
        reasoning, answer = reasoning + losses[:split].sum().item(), answer + losses[split:].sum().item()
    n_reasoning, n_answer = sum(row.reasoning_tokens for row in rows), sum(row.answer_tokens for row in rows)
    return {
        "mean": (reasoning + answer) / (n_reasoning + n_answer),
        "n_tokens": n_reasoning + n_answer,
        "reasoning": reasoning / n_reasoning if n_reasoning else None,
        "answer": answer / n_answer if n_answer else None,
    }


def target_lengths(rows: Sequence) -> dict:
    """Mean tokens of a training target's trace (with its markers) and answer (with the end of the turn)."""
    return {
        "reasoning_mean": sum(row.reasoning_tokens for row in rows) / len(rows),
        "answer_mean": sum(row.answer_tokens for row in rows) / len(rows),
    }


def position_kl(tuned: "torch.Tensor", base: "torch.Tensor") -> "torch.Tensor":
    """KL(tuned ‖ base) in nats at each position, exact over the vocabulary. Logits (positions, vocabulary) -> (positions,)."""
    import torch

    log_p, log_q = torch.log_softmax(tuned, dim=-1), torch.log_softmax(base, dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def generation_sequences(samples: Sequence[dict], tokenizer, max_tokens: int | None = None) -> list[tuple[list[int], int]]:
    """(token ids, first generated token) of each sample: chat prompt, generation, and the end of the turn if it stopped by itself.

    The generation is cut after `max_tokens`. Samples without a generated token are left out.
    """
    from untaxed.training_sets import closing_ids

    ending, sequences = closing_ids(tokenizer), []
    for sample in samples:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": sample["prompt"]}], tokenize=False, add_generation_prompt=True)
        given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        generated = tokenizer(sample["generation"], add_special_tokens=False)["input_ids"] + (ending if sample["finish"] == "stop" else [])
        if generated:
            sequences.append((given + generated[:max_tokens], len(given)))
    return sequences


def kl_divergence(tuned, base, sequences: Sequence[tuple[list[int], int]], tokens_per_batch: int = TOKENS_PER_BATCH, seed: int = 0) -> dict:
    """KL(tuned ‖ base) in nats per token along the tuned model's own generations.

    At each position the KL of the two next-token distributions is exact and only the contexts are sampled: the Rao-Blackwellised estimator
    of Amini, Vieira and Cotterell (arXiv 2504.10637), divided by the number of tokens. Interval over generations. Contexts come from the
    sampling that the benchmark used, so greedy samples give the KL along the greedy path. Raises UserError for unequal vocabularies.
    """
    if tuned.config.vocab_size != base.config.vocab_size:
        sizes = f"{tuned.config.vocab_size} and {base.config.vocab_size} tokens"
        raise UserError(f"checkpoint: its vocabulary and the base's differ ({sizes}); compare a run with the model it was trained from")
    if not sequences:
        raise UserError("samples: no generation of the KL benchmarks to compare on; name a benchmark of the run's suite")
    sums, counts = [], []
    both = zip(target_logits(tuned, sequences, tokens_per_batch), target_logits(base, sequences, tokens_per_batch), strict=True)
    for (_, tuned_logits), (_, base_logits) in both:
        values = position_kl(tuned_logits, base_logits)
        sums.append(values.double().sum().item())
        counts.append(len(values))
    return with_interval(ratio_interval(sums, counts, seed)) | {"n_tokens": sum(counts)}


# --- all of it -------------------------------------------------------------------------------------------------------------------------


def choose(samples: Iterable[dict], benchmarks: Sequence[str], limit: int | None, seed: int) -> list[dict]:
    """A seeded draw of `limit` samples of the benchmarks, in file order."""
    found = [sample for sample in samples if sample["benchmark"] in benchmarks]
    return draw_of(found, limit, f"kl-{seed}")


def draw_of(found: list, limit: int | None, seed: str) -> list:
    """A seeded draw of `limit` entries in their order; all of them without a limit."""
    if limit is None or limit >= len(found):
        return found
    return [found[index] for index in sorted(random.Random(seed).sample(range(len(found)), limit))]


def measure_shift(
    spec: dict,
    *,
    base_model: Path,
    checkpoint: Path,
    encoder: Path,
    base_samples: Path,
    samples: Path,
    train: Path,
    device: str | None = None,
) -> dict:
    """The record of shift.json. Each model is loaded once.

    `spec`: thinking {open, close}; similarity_benchmarks (none: all that both have); similarity_limit (pairs); kl_benchmarks; kl_limit
    (items); kl_max_tokens (of each generation); max_length (of a training row); dtype; tokens_per_batch; seed. Only `thinking` and
    `kl_benchmarks` must be there.
    """
    import torch
    from transformers import AutoTokenizer
    from transformers.utils import logging

    from untaxed.decoding import load_model
    from untaxed.training_sets import tokenize

    logging.disable_progress_bar()
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    seed, dtype, size = spec.get("seed", 0), spec.get("dtype", "float32"), spec.get("tokens_per_batch", TOKENS_PER_BATCH)
    pairs = paired_outputs(read_jsonl(base_samples), read_jsonl(samples), spec.get("similarity_benchmarks"))
    pairs = draw_of(pairs, spec.get("similarity_limit"), f"similarity-{seed}")
    alike = similarity(pairs, encoder, device, seed)
    tokenizer = AutoTokenizer.from_pretrained(base_model, local_files_only=True)
    targets = tokenize(list(read_jsonl(train)), tokenizer, ThinkingFormat(**spec["thinking"]), spec.get("max_length", WHOLE))
    chosen = choose(read_jsonl(samples), spec["kl_benchmarks"], spec.get("kl_limit"), seed)
    base = load_model(str(base_model), dtype, device, local_files_only=True)
    nll = target_nll(base, targets, size)
    sequences = generation_sequences(chosen, tokenizer, spec.get("kl_max_tokens"))
    tuned = load_model(str(checkpoint), dtype, device, local_files_only=True)
    kl = kl_divergence(tuned, base, sequences, size, seed)
    return {"similarity": alike, "shift": 1 - alike["mean"], "nll": nll, "kl": kl, "lengths": target_lengths(targets)}
