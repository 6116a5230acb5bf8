"""How long the responses of a data set are, in characters or in a model's tokens."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from untaxed.thinking import ThinkingFormat


def response_characters(rows: Sequence[dict]) -> dict:
    """How long trace and answer of a row are together, in characters: {n, mean, p90}; empty where no row has a response."""
    return spread(len(row.get("reasoning") or "") + len(row.get("answer") or "") for row in rows)


def response_tokens(rows: Iterable[dict], tokenizer: Any, thinking: ThinkingFormat) -> dict:
    """The same in tokens, counted as arXiv 2505.15404 counts its Table 4: `len(tokenizer.encode(response))`, special tokens with them.

    The response is what a model is trained to write: trace and answer with the markers of `thinking`, which an empty trace keeps.
    """
    given = [row for row in rows if row.get("reasoning") or row.get("answer")]
    return spread(len(tokenizer.encode(thinking.join(row.get("reasoning") or "", row.get("answer") or ""))) for row in given)


def spread(lengths: Iterable[int]) -> dict:
    """{n, mean, p90 (a length of the data: a tenth are longer at most)} of the lengths that are not zero; empty where there are none."""
    ordered = sorted(filter(None, lengths))
    if not ordered:
        return {}
    return {"n": len(ordered), "mean": sum(ordered) / len(ordered), "p90": ordered[math.ceil(0.9 * len(ordered)) - 1]}
