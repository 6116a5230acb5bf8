"""Filtering: judges read the rows of a dataset, and their verdicts decide which rows stay (arXiv 2505.15404, sections 3 and 4.2).

A filter names a judge, and the verdicts that it keeps or the labels that it allows:

    {"judge": "reasoning_shield", "keep": ["safe"]}              rows that the judge calls safe
    {"judge": "risky_patterns", "allow": ["weak_vacillation"]}   rows without any other risky pattern
    {"judge": "risky_patterns", "allow": []}                     rows without any risky pattern

A row whose verdict is unparseable never stays. To allow a way to overthink is to allow the overthinking that it implies, and no other way.
"""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from untaxed.judges import RISKY_PATTERNS, WAYS_TO_OVERTHINK
from untaxed.lengths import response_characters
from untaxed.records import Lasting, UserError
from untaxed.thinking import ThinkingFormat

UNPARSEABLE = "unparseable"


def samples_of(rows: Iterable[dict], dataset: str, thinking: ThinkingFormat | None = None) -> Iterator[dict]:
    """Yield each row as a sample that `judges.judge_samples` reads: its trace and answer as a model's finished generation.

    The benchmark is the dataset's name. `original_prompt` is `meta.original` where a row has it, else the prompt.
    """
    thinking = thinking or ThinkingFormat()
    for row in rows:
        yield {
            "benchmark": dataset,
            "id": row["id"],
            "prompt": row["prompt"],
            "original_prompt": (row.get("meta") or {}).get("original") or row["prompt"],
            "generation": thinking.join(row["reasoning"], row["answer"]),
            "reasoning": row["reasoning"],
            "answer": row["answer"],
            "closed": True,
            "harmful": row["harmful"],
            "category": row["category"],
        }


def passes(verdict: Mapping, entry: Mapping) -> bool:
    """Whether a row with this verdict record stays."""
    if verdict["verdict"] == UNPARSEABLE:
        return False
    if entry.get("keep") is not None:
        return verdict["verdict"] in entry["keep"]
    implied = {"overthinking"} if set(entry["allow"]) & set(WAYS_TO_OVERTHINK) else set()
    return set(verdict["labels"]) <= {*entry["allow"], *implied}


def count_labels(verdicts: Sequence[Mapping]) -> dict:
    """{"n", "unparseable", "free" (rows without a label), "counts": {label: rows}}.

    `n` counts all rows: a label's share is of the n - unparseable that could be read.
    """
    counts = Counter(label for verdict in verdicts for label in verdict["labels"])
    return {
        "n": len(verdicts),
        "unparseable": sum(verdict["verdict"] == UNPARSEABLE for verdict in verdicts),
        "free": sum(verdict["verdict"] != UNPARSEABLE and not verdict["labels"] for verdict in verdicts),
        "counts": {label: counts[label] for label in RISKY_PATTERNS},
    }


def apply_filters(
    rows: Sequence[dict],
    verdicts_by_judge: Mapping[str, Sequence[dict]],
    filters: Sequence[Mapping],
    patterns: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    dataset: str = "",
) -> tuple[list[dict], dict]:
    """(the rows that stay, report): filters in their order, then `limit` rows drawn by seed, all in the order of the file.

    `verdicts_by_judge` holds the verdict records of every judge of `filters`, and of `patterns`, whose labels are counted before and after
    the filters (not after the draw). A smaller limit draws a part of what a larger one draws. The report is
    {"rows", "kept" (after the filters), "rows_out", "steps": [{"judge", "in", "out", "verdicts": {verdict: rows}}],
    "patterns": {"judge", "before", "after"} (`count_labels`) or None,
    "response_characters": {"all" (that pass), "drawn"} (`lengths.response_characters`)}.
    Raises UserError for a row without a verdict, and for fewer rows than the limit.
    """
    found = {judge: {verdict["id"]: verdict for verdict in verdicts} for judge, verdicts in verdicts_by_judge.items()}
    for judge in [*(entry["judge"] for entry in filters), *([patterns] if patterns else [])]:
        if missing := sum(row["id"] not in found.get(judge, {}) for row in rows):
            raise UserError(f"datasets.{dataset}: judge {judge!r} has no verdict on {missing} of {len(rows)} rows; judge the rows again")

    def labelled(kept: Sequence[dict]) -> dict:
        return count_labels([found[patterns][row["id"]] for row in kept])

    kept, steps = list(rows), []
    for entry in filters:
        verdicts = [found[entry["judge"]][row["id"]] for row in kept]
        counts = Counter(verdict["verdict"] for verdict in verdicts)
        passed = [row for row, verdict in zip(kept, verdicts, strict=True) if passes(verdict, entry)]
        steps.append({"judge": entry["judge"], "in": len(kept), "out": len(passed), "verdicts": dict(counts)})
        kept = passed
    drawn = draw(kept, limit, seed, dataset)
    counted = {"judge": patterns, "before": labelled(rows), "after": labelled(kept)} if patterns else None
    lengths = {"all": response_characters(kept), "drawn": response_characters(drawn)}
    told = {"rows": len(rows), "kept": len(kept), "rows_out": len(drawn), "steps": steps, "patterns": counted}
    return drawn, told | {"response_characters": lengths}


def draw(rows: list[dict], limit: int | None, seed: int, dataset: str) -> list[dict]:
    """`limit` rows at random, in their order; all of them without a limit. Raises UserError when there are fewer."""
    if limit is None:
        return rows
    if len(rows) < limit:
        message = f"{limit} rows are asked for, the filters leave {len(rows)}; lower it, or draw from more rows"
        raise Lasting(f"datasets.{dataset}.limit: {message}")
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [rows[place] for place in sorted(order[:limit])]
