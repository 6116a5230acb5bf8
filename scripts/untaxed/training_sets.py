"""Training sets: which rows a run draws, what is mixed in, and how a row becomes tokens with a loss mask."""

import random
from collections import Counter
from dataclasses import dataclass

from untaxed.records import Lasting, UserError
from untaxed.thinking import ThinkingFormat

IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


def draw(rows: list[dict], n: int, seed: int, place: str) -> list[dict]:
    """A seeded draw of n rows. The first rows of a larger draw are the smaller draw, so activation curves are nested.

    Raises UserError when there are fewer than n rows.
    """
    if n > len(rows):
        raise Lasting(f"{place}: {n} rows asked for, but it has {len(rows)}; lower n in the experiment or raise the dataset's limit")
    order = list(range(len(rows)))
    random.Random(f"draw-{seed}").shuffle(order)
    return [rows[index] for index in order[:n]]


def mix(safety: list[dict], others: list[list[dict]], seed: int) -> list[dict]:
    """Safety rows and mixed-in rows, shuffled by seed. Raises UserError when an id stands twice."""
    rows = [*safety, *(row for rows in others for row in rows)]
    twice = [name for name, count in Counter(row["id"] for row in rows).items() if count > 1]
    if twice:
        raise UserError(f"training set: row id {twice[0]!r} stands there twice; mixed datasets must not overlap")
    random.Random(f"mix-{seed}").shuffle(rows)
    return rows


@dataclass(frozen=True)
class TokenizedRow:
    """Token ids of one conversation; labels repeat them where the loss counts and are IGNORED elsewhere.

    The markers count as reasoning, the end of the turn as answer, so that both together are the tokens of the completion.
    """

    input_ids: list[int]
    labels: list[int]
    reasoning_tokens: int
    answer_tokens: int
    truncated: bool


def closing_ids(tokenizer) -> list[int]:
    """Tokens that end an assistant turn, up to and including the end-of-sequence token, read from the chat template.

    The template is rendered around a stand-in answer, so that a template that edits assistant turns (R1 distills cut
    everything before `</think>`) cannot touch what is trained.
    """
    stand_in = "UNTAXED"
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "question"}, {"role": "assistant", "content": stand_in}], tokenize=False
    )
    ids = tokenizer(text.rpartition(stand_in)[2], add_special_tokens=False)["input_ids"]
    if tokenizer.eos_token_id in ids:
        return ids[: ids.index(tokenizer.eos_token_id) + 1]
    return [tokenizer.eos_token_id]


def tokenize(rows: list[dict], tokenizer, thinking: ThinkingFormat, max_length: int, loss_on: str = "completion") -> list[TokenizedRow]:
    """Turn rows into tokens: chat prompt, trace, answer, end of turn; loss on the completion (or on all, as the study's release does).

    The prompt is rendered by the chat template and tokenised without special tokens (no second BOS); the completion is
    tokenised apart from it, as a model meets it when it generates. Rows over max_length lose their end and are counted.
    """
    ending = closing_ids(tokenizer)
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True)
        for row in rows
    ]
    completions, borders = [], []
    for prompt, row in zip(prompts, rows, strict=True):
        completion = thinking.join(row["reasoning"], row["answer"])
        opened = bool(thinking.open.strip()) and prompt.rstrip().endswith(thinking.open.strip())
        if opened:  # the template already opens the trace in its generation prompt
            completion = completion[len(thinking.open) :]
        completions.append(completion)
        borders.append(len(completion) - len(row["answer"]))
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    encoded = tokenizer(completions, add_special_tokens=False, return_offsets_mapping=True)
    tokenized = []
    for prompt, completion, offsets, border in zip(prompt_ids, encoded["input_ids"], encoded["offset_mapping"], borders, strict=True):
        ids = prompt + completion + ending
        labels = ids if loss_on == "all" else [IGNORED] * len(prompt) + completion + ending
        reasoning = sum(start < border for start, _ in offsets)
        kept = max(0, min(len(ids), max_length) - len(prompt))
        tokenized.append(
            TokenizedRow(
                input_ids=ids[:max_length],
                labels=list(labels[:max_length]),
                reasoning_tokens=min(reasoning, kept),
                answer_tokens=max(0, kept - reasoning),
                truncated=len(ids) > max_length,
            )
        )
    return tokenized


def token_counts(rows: list[TokenizedRow]) -> dict[str, int]:
    """Sums for the manifest: how many tokens there are and how many of trace and answer carry loss."""
    return {
        "rows": len(rows),
        "tokens": sum(len(row.input_ids) for row in rows),
        "loss_tokens": sum(label != IGNORED for row in rows for label in row.labels),
        "reasoning_loss_tokens": sum(row.reasoning_tokens for row in rows),
        "answer_loss_tokens": sum(row.answer_tokens for row in rows),
        "truncated_rows": sum(row.truncated for row in rows),
    }
