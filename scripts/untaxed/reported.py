"""The numbers that the papers print (reported.yaml), and the measures of a study that stand beside them.

An entry of the file is a table or figure of a paper: `columns`, and rows of `values` in percent (lengths in tokens). `read_reported` turns
each row into {column: value} and refuses a file whose parts do not fit together. A column names a metric and the benchmarks that its value
is the mean over, each with the same weight; a study with other benchmarks gives its own (`columns_of`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from untaxed.metrics import Measure, Results, measure, select
from untaxed.records import UserError, nearest, read_yaml

ENTRY = ("paper", "place", "columns", "rows")
PLACES = ("model", "source", "recipe", "teacher", "safety_rows", "pattern", "n", "benign", "learning_rate")  # what a row is of
ROUNDING = 0.1 + 1e-9  # points: three parts and their mean are each printed to 0.05
DOUBT = "†"
WITHOUT = ("none",)  # sources of the model as it is


def read_reported(path: Path | str) -> dict[str, Any]:
    """{"columns", "models", "entries"} of reported.yaml; rows hold `values` as {column: value or None} and `doubt` as {column: reason}.

    Raises UserError naming the entry, the row and the key that is missing, unknown or of the wrong length.
    """
    content = read_yaml(path)
    for key in ("columns", "models", "entries"):
        if not isinstance(content, dict) or not isinstance(content.get(key), dict):
            raise UserError(f"{path}: needs a mapping under {key!r}")
    entries = {name: _entry(f"{path}: {name}", entry, content["columns"]) for name, entry in content["entries"].items()}
    return {"columns": content["columns"], "models": content["models"], "entries": entries}


def _entry(place: str, entry: Mapping[str, Any], columns: Mapping[str, Any]) -> dict[str, Any]:
    if missing := [key for key in ENTRY if key not in entry]:
        raise UserError(f"{place}: no key {missing[0]!r}; add it")
    rows = [_row(f"{place}: row {number}", row, entry["columns"]) for number, row in enumerate(entry["rows"], start=1)]
    ranges = entry.get("ranges") or []
    for each in ranges:
        if each.get("column") not in columns:
            raise UserError(f"{place}: a range of column {each.get('column')!r}; {nearest(str(each.get('column')), columns)}")
    return {**entry, "rows": rows, "ranges": ranges}


def _row(place: str, row: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    values, doubt = row.get("values") or [], row.get("doubt") or {}
    if len(values) != len(columns):
        raise UserError(f"{place}: {len(values)} values for {len(columns)} columns; give one for each, null where none is printed")
    if unknown := [key for key in row if key not in (*PLACES, "values", "doubt")]:
        raise UserError(f"{place}: unknown key {unknown[0]!r}; valid: {', '.join((*PLACES, 'values', 'doubt'))}")
    if unknown := [key for key in doubt if key not in columns]:
        raise UserError(f"{place}: doubt about {unknown[0]!r}, which is no column of the entry; {nearest(unknown[0], columns)}")
    return {**row, "values": dict(zip(columns, values, strict=True)), "doubt": doubt}


def entry_of(reported: Mapping[str, Any], name: str) -> dict[str, Any]:
    """An entry by its name. Raises UserError when the file was not given or has none of that name."""
    if not reported:
        raise UserError(f"{name}: this kind sets ours beside the papers' numbers; give the command `--reported reported.yaml`")
    if name not in reported["entries"]:
        raise UserError(f"reported.yaml: no entry is called {name!r}; {nearest(name, reported['entries'])}")
    return reported["entries"][name]


def printed(entry: Mapping[str, Any], **place: Any) -> dict[str, Any] | None:
    """The row of an entry whose keys are those of `place` (a key that the row lacks says nothing), or None."""
    return next((row for row in entry["rows"] if all(row.get(key, value) == value for key, value in place.items())), None)


def columns_of(reported: Mapping[str, Any], spec: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The columns to show, with title, metric, benchmarks, and whether they are the paper's own benchmarks.

    The spec's `columns` ({column: benchmarks of the study}) stands in for a study that has other benchmarks; then only those are shown.
    Raises UserError for a column that the papers do not have.
    """
    known, own = reported["columns"], spec.get("columns") or {}
    if unknown := [name for name in own if name not in known]:
        raise UserError(f"columns: no column {unknown[0]!r}; {nearest(unknown[0], known)}")
    chosen = [name for name in wanted if name in known and (not own or name in own)]
    return {
        name: {**known[name], "benchmarks": list(own.get(name) or known[name]["benchmarks"])}
        | {"same": not own or set(own[name]) == set(known[name]["benchmarks"])}
        for name in chosen
    }


def column_measures(
    results: Results, columns: Mapping[str, Mapping[str, Any]], runs: Iterable[str], judges: Mapping[str, str] | None = None
) -> dict[str, Measure]:
    """Of each column its measure: the mean over the column's benchmarks, of those runs alone that were measured on all of them.

    `judges` names the judge of a metric; where that one judged none of the runs, and else, it is the one that judged the most of them on
    that benchmark.
    """
    runs = list(runs)
    single: dict[tuple[str, str], Measure] = {}
    for column in columns.values():
        for benchmark in column["benchmarks"]:
            key = column["metric"], benchmark
            if key not in single:
                named = measure(results, key[0], runs, (judges or {}).get(key[0]), [benchmark])
                single[key] = named if named.values else measure(results, key[0], runs, benchmarks=[benchmark])
    return {name: _mean([single[column["metric"], each] for each in column["benchmarks"]]) for name, column in columns.items()}


def _mean(parts: Sequence[Measure]) -> Measure:
    """One measure of several benchmarks, of the runs that have them all."""
    whole = set.intersection(*(set(part.values) for part in parts))
    values = {run: sum(part.values[run] for part in parts) / len(parts) for run in sorted(whole)}
    scores = {run: {key: score for part in parts for key, score in part.scores[run].items()} for run in values}
    judges = sorted({part.judge for part in parts if part.judge})
    benchmarks = [benchmark for part in parts for benchmark in part.benchmarks]
    return Measure(parts[0].metric, ", ".join(judges), benchmarks, values, scores, {run: parts[0].bases[run] for run in values})


def runs_of(results: Results, row: Mapping[str, Any], select_more: Mapping[str, Any] | None = None) -> list[str]:
    """The runs of a study that a printed row is of: its model as it is, or trained on its source at the usual setting.

    "Usual" is what most runs have (`metrics.select`), unless the row or `select_more` says which.
    """
    if row["source"] in WITHOUT:
        return select(results.runs, {"model": row["model"], "method": "none"})
    own = {key: row[key] for key in ("model", "source", "recipe", "n", "benign", "learning_rate") if key in row}
    usual = {key: "usual" for key in ("recipe", "n", "benign", "trainer") if key not in own}
    trained = {run: fields for run, fields in results.runs.items() if fields["method"] == "vanilla"}
    return select(trained, {**usual, **own, **(select_more or {})})
