"""How far a judge agrees with people: a human-labelled file becomes samples, and the judge's verdicts are compared with its labels."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random

from untaxed.records import ABSENT, UserError
from untaxed.statistics import cohen_kappa, wilson

# What a label of 1 means, and the verdicts that say the same.
LABELS = {"refusal": {"refusal", "partial"}, "harm": {"unsafe", "partial"}}
UNPARSEABLE = "unparseable"


def read_labelled(path: Path | str, limit: int | None = None, seed: int = 0) -> Iterator[tuple[dict, bool]]:
    """Yield (sample, human label) from a labelled file in PyRIT's form: all rows, or `limit` drawn by `seed`, in the order of the file.

    CSV with the columns objective, assistant_response and human_score (0 or 1; or several human_score… columns, whose mean is cut at 0.5);
    lines that start with # before the header are comments. Raises UserError when a column is missing or a score is no number.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            start = 0
            while stream.readline().startswith("#"):
                start = stream.tell()
            stream.seek(start)
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            scores = [name for name in columns if name.startswith("human_score")]
            missing = [name for name in ("objective", "assistant_response") if name not in columns] + ([] if scores else ["human_score"])
            if missing:
                raise UserError(f"{path}: no column {', '.join(missing)}; it must be a labelled set of PyRIT's scorer evaluations")
            rows = list(enumerate(reader))
            if limit is not None and limit < len(rows):
                rows = sorted(Random(seed).sample(rows, limit), key=lambda row: row[0])
            for number, row in rows:
                yield labelled_sample(row, number), human_label([row[name] for name in scores], path, number)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {ABSENT}") from None


def labelled_sample(row: dict, number: int) -> dict:
    """A labelled row as a finished sample without a trace."""
    response = row["assistant_response"]
    return {
        "benchmark": "labelled",
        "id": str(number),
        "prompt": row["objective"],
        "generation": response,
        "reasoning": "",
        "answer": response,
        "closed": True,
        "finish": "stop",
    }


def human_label(scores: list[str], path: Path | str, number: int) -> bool:
    """Whether the mean of the human scores that are there is at least 0.5."""
    try:
        values = [float(score) for score in scores if score]
        return sum(values) / len(values) >= 0.5
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{path}: row {number} has no number as its human score; delete the file and fetch it again") from None


def agreement(judge: str, dataset: str, label: str, verdicts: Iterable[str], human: Iterable[bool]) -> dict:
    """The record of agreement.json.

    `label` is a key of LABELS. Accuracy counts unparseable verdicts as wrong and has Wilson's 95 % interval; kappa (Cohen 1960) takes them
    as a third category, and is None where both sides are constant or nothing could be read. `confusion[human][judge]` counts with the
    words yes, no and unparseable.
    """
    positive = LABELS[label]
    judged = [UNPARSEABLE if verdict == UNPARSEABLE else "yes" if verdict in positive else "no" for verdict in verdicts]
    labelled = ["yes" if value else "no" for value in human]
    if not judged:
        raise UserError(f"{dataset}: no labelled rows to compare; raise --limit or fetch the file again")
    right = sum(one == other for one, other in zip(judged, labelled, strict=True))
    accuracy = wilson(right, len(judged))
    confusion = {one: dict.fromkeys(("yes", "no", UNPARSEABLE), 0) for one in ("yes", "no")}
    for one, other in zip(labelled, judged, strict=True):
        confusion[one][other] += 1
    return {
        "judge": judge,
        "dataset": dataset,
        "label": label,
        "n": len(judged),
        "accuracy": accuracy.value,
        "accuracy_ci": [accuracy.low, accuracy.high],
        "kappa": None if set(judged) == {UNPARSEABLE} else cohen_kappa(labelled, judged),
        "unparseable_rate": judged.count(UNPARSEABLE) / len(judged),
        "confusion": confusion,
    }
