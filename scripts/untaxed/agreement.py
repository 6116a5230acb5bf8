"""How far a judge agrees with people, and how far judges agree with one another.

With people: a human-labelled file becomes samples, and the judge's verdicts are compared with its labels. With one another: any two judges
that judged the same samples of a study are compared on a question that both can answer (`QUESTIONS`), whatever words their verdicts use.
"""

import csv
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from random import Random
from typing import Any

from untaxed.judges import JUDGES
from untaxed.metrics import SampleIndex, item_of, read_verdicts, score_of
from untaxed.records import ABSENT, UserError, atomic_path, read_jsonl
from untaxed.statistics import cohen_kappa, rater_agreement, wilson

# What a label of 1 means, and the verdicts that say the same.
LABELS = {"refusal": {"refusal", "partial"}, "harm": {"unsafe", "partial"}}
UNPARSEABLE = "unparseable"
# What two judges are compared on: a metric whose score is 1 for yes and 0 for no, and what is asked in words.
QUESTIONS = {"harmful_score": "harmful prompts: is the answer harmful?", "over_refusal": "benign prompts: is the answer a refusal?"}
DIFFERENCES = ("run", "benchmark", "id", "judge_a", "verdict_a", "judge_b", "verdict_b")


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


# ---- judges against one another -------------------------------------------------------------------------------------------------------

Place = tuple[str, str, int]  # of a sample in its run: benchmark, id, number of the draw from 0


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict on a sample, and what it answers to `question`: yes, no or unparseable."""

    question: str
    verdict: str
    answer: str


@dataclass
class Shared:
    """What two judges said of the samples that both judged, run after run. Of a sample that both could read there are three numbers."""

    verdicts: Counter = field(default_factory=Counter)
    answers: Counter = field(default_factory=Counter)
    benchmarks: Counter = field(default_factory=Counter)
    runs: list[str] = field(default_factory=list)
    items: dict[tuple[str, str], int] = field(default_factory=dict)
    read: tuple[array, array, array, array] = field(default_factory=lambda: (array("l"), array("l"), array("b"), array("b")))
    differences: dict[tuple[str, str, str, str], list[str]] = field(default_factory=lambda: defaultdict(list))


def judgement(record: Mapping[str, Any], harmful: bool, blank: bool = False) -> Judgement | None:
    """What a verdict record answers on a harmful or a benign prompt; None where its kind gives no such metric.

    The answer is what the metric counts: a partial refusal is harmful, and refused; "no answer" is neither. `blank` as in `score_of`.
    """
    question = "harmful_score" if harmful else "over_refusal"
    if record["kind"] not in JUDGES:
        raise UserError(f"judge {record['judge']}: no kind {record['kind']!r}; there are {', '.join(sorted(JUDGES))}; judge the runs again")
    if question not in JUDGES[record["kind"]].metrics:
        return None
    score = score_of(question, record, blank)
    return Judgement(question, record["verdict"], UNPARSEABLE if score is None else "yes" if score else "no")


def read_judgements(folder: Path | str, judges: Sequence[str] = ()) -> dict[str, dict[Place, Judgement]]:
    """The judgements of each of `judges` (all if empty) in a run folder, in the order given; no texts are kept.

    Empty where fewer than two of them judged the run. Raises UserError when verdicts and samples do not fit.
    """
    paths = {path.stem: path for path in sorted(Path(folder, "verdicts").glob("*.jsonl"))}
    known = [judge for judge in judges or paths if judge in paths]
    if len(known) < 2:
        return {}
    index = SampleIndex()
    for sample in read_jsonl(Path(folder, "samples.jsonl")):
        index.add(sample)
    found: dict[str, dict[Place, Judgement]] = {}
    same: dict[Judgement, Judgement] = {}  # a handful of different ones, so that each stands in memory once
    for judge in known:
        found[judge] = {}
        for key, draw, record in read_verdicts(paths[judge], index):
            said = judgement(record, index.harmful[key], any(index.blank[key][draw : draw + 1]))
            if said is not None:
                found[judge][*key, draw] = same.setdefault(said, said)
    return found


def compare_run(run: str, a: Mapping[Place, Judgement], b: Mapping[Place, Judgement], shared: dict[str, Shared]) -> None:
    """Add to `shared`, by question, what two judges said of the same samples of a run: same benchmark, id and draw."""
    for place, one in a.items():
        other = b.get(place)
        if other is None:
            continue
        benchmark, name, draw = place
        pair = shared.setdefault(one.question, Shared())
        if run not in pair.runs[-1:]:
            pair.runs.append(run)
        pair.benchmarks[benchmark] += 1
        pair.verdicts[one.verdict, other.verdict] += 1
        pair.answers[one.answer, other.answer] += 1
        if UNPARSEABLE in (one.answer, other.answer):
            continue
        item = pair.items.setdefault((benchmark, item_of(name)), len(pair.items))
        for column, value in zip(pair.read, (len(pair.runs) - 1, item, one.answer == "yes", other.answer == "yes"), strict=True):
            column.append(value)
        if one.answer != other.answer:
            pair.differences[run, benchmark, one.verdict, other.verdict].append(name if draw == 0 else f"{name}#{draw + 1}")


def pair_record(question: str, judges: tuple[str, str], shared: Shared) -> dict[str, Any]:
    """The record of two judges in judge_pairs.json.

    `n` samples were judged by both, `n_read` of them with a verdict of both that could be read; `agreement` and `kappa` are of these, with
    the intervals of `rater_agreement`, and None where there are none or where kappa is not defined. `unparseable` counts the others, by
    the judge that could not be read. `confusion` counts answers to the question, `verdicts` the judges' own words, both [judge a][judge b].
    `differences` are the samples that one calls yes and the other no.
    """
    runs, items, a, b = shared.read
    rate, kappa = rater_agreement(runs, items, a, b, list(shared.items)) if a else (None, None)
    unread = {"a": 0, "b": 0, "both": shared.answers[UNPARSEABLE, UNPARSEABLE]}
    for answers, count in shared.answers.items():
        for side, answer in zip("ab", answers, strict=True):
            unread[side] += count if answer == UNPARSEABLE else 0
    record = {"metric": question, "judge_a": judges[0], "judge_b": judges[1], "runs": len(shared.runs)}
    record |= {"benchmarks": dict(sorted(shared.benchmarks.items())), "n": shared.answers.total(), "n_read": len(a)}
    record["unparseable"] = unread
    for name, point in (("agreement", rate), ("kappa", kappa)):
        record |= {name: point.value if point else None, f"{name}_ci": [point.low, point.high] if point else [None, None]}
    words = ("yes", "no", UNPARSEABLE)
    record["confusion"] = {one: {other: shared.answers[one, other] for other in words} for one in words}
    said: dict[str, dict[str, int]] = defaultdict(dict)
    for (one, other), count in sorted(shared.verdicts.items()):
        said[one][other] = count
    fields = ("run", "benchmark", "verdict_a", "verdict_b")
    apart = [dict(zip(fields, place, strict=True)) | {"ids": ids} for place, ids in shared.differences.items()]
    return record | {"verdicts": dict(said), "differences": apart}


def compare_judges(folders: Iterable[Path | str], judges: Sequence[str] = ()) -> list[dict[str, Any]]:
    """A record (`pair_record`) of every two of `judges` (all if empty) and every question that both answered on samples of the run folders.

    Folders are read one after the other. A pair without a common sample or a common question has no record.
    """
    shared: dict[tuple[str, str], dict[str, Shared]] = {}
    for folder in folders:
        said = read_judgements(folder, judges)
        for pair in combinations(said, 2):
            compare_run(Path(folder).name, said[pair[0]], said[pair[1]], shared.setdefault(pair, {}))
    rank = {judge: place for place, judge in enumerate(judges or sorted({judge for pair in shared for judge in pair}))}
    ordered = sorted(shared, key=lambda pair: (rank[pair[0]], rank[pair[1]]))
    return [pair_record(question, pair, shared[pair][question]) for question in QUESTIONS for pair in ordered if question in shared[pair]]


def write_differences(pairs: Iterable[Mapping[str, Any]], path: Path | str) -> int:
    """Write the differences of records of judge_pairs.json as CSV, a line each with the columns DIFFERENCES, and return their number."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, DIFFERENCES, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        for pair in pairs:
            for place in pair["differences"]:
                writer.writerows({**pair, **place, "id": name} for name in place["ids"])
                count += len(place["ids"])
    return count
