"""Tables of a study as CSV, Markdown and HTML: `TABLES` maps a kind to its function, so a new table is one that returns plain records.

Rates are in percent; a cell with an interval reads `mean [low, high]`, drawn over seeds and items.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from untaxed.agreement import QUESTIONS
from untaxed.figures import Inputs, ablated_runs, bases_of, chosen_runs, estimate, refined_as, shift_interval, steps_of_n, tax_interval
from untaxed.metrics import LENGTHS, Measure, Results, base_of, by_setting, measure, safety_axis
from untaxed.pages import page
from untaxed.records import UserError, atomic_path, write_text
from untaxed.statistics import Estimate, hierarchical_mean, matched_difference, paired_bootstrap

READING = "Rates are in percent. Brackets hold 95 % intervals; a dash means not measured, or that no reply of the judge could be read."
SETTING = ("model", "recipe", "source", "method", "benign", "trainer", "n")
TARGETS = {  # a column of the shift table: its metric, and digits
    "NLL of targets": ("nll", 3),
    "NLL of traces": ("nll_reasoning", 3),
    "NLL of answers": ("nll_answer", 3),
    "KL": ("kl", 4),
    "target trace (tokens)": ("reasoning_tokens", 1),
    "target answer (tokens)": ("answer_tokens", 1),
}
JUDGED = ("refusal_rate", "harmful_score", "strongreject", "over_refusal")
ASKED = {"harmful": "refusal_rate", "benign": "over_refusal"}  # kinds of prompts, with a metric that is judged on them
RATES = ("accuracy", *JUDGED)


def cell(point: Estimate | None, scale: float = 100, digits: int = 1) -> str:
    """`mean [low, high]`, without the bracket where there is no interval; a dash where nothing was measured."""
    if point is None:
        return "–"
    text = f"{scale * point.value:.{digits}f}"
    return text if point.low is None else f"{text} [{scale * point.low:.{digits}f}, {scale * point.high:.{digits}f}]"


def _over_seeds(measured: Measure, members: Sequence[str]) -> Estimate | None:
    """Mean over runs of a value that has no items; an interval needs two runs that differ (seeds may train on the same rows)."""
    values = {run: measured.values[run] for run in members if run in measured.values}
    if not values:
        return None
    if len({f"{value:.4g}" for value in values.values()}) < 2:
        return Estimate(next(iter(values.values())), None, None, len(values))
    return hierarchical_mean([{"": value} for value in values.values()], [measured.bases[run] for run in values])


def _settings(results: Results, runs: list[str]) -> list[tuple[dict[str, Any], list[str]]]:
    """The first columns of each setting and its runs, the base model first."""
    groups = sorted(by_setting(results, runs).values(), key=lambda each: (results.runs[each[0]]["method"] != "none", repr(each)))
    return [({key: results.runs[members[0]][key] for key in SETTING} | {"seeds": len(members)}, members) for members in groups]


def _rows(results: Results, runs: list[str], judge: str | None, metrics: tuple[str, ...]) -> list[dict[str, Any]]:
    """A record per setting, the base model first: rates with intervals, tax and shift where asked, and how many runs and items."""
    measures = {metric: measure(results, metric, runs, judge if metric in JUDGED else None) for metric in metrics}
    records = []
    for record, members in _settings(results, runs):
        for metric, measured in measures.items():
            point = estimate(measured, members)
            record[metric] = cell(point)
            if metric == "accuracy":
                record["accuracy_items"] = point.n if point else 0
                record["safety_tax"] = cell(tax_interval(results, measured, members))
        records.append(record)
    return records


def main_results(inputs: Inputs) -> list[dict[str, Any]]:
    """Each recipe and method: reasoning, tax, safety, over-refusal, unfinished answers, shift, and how its judge agrees with people."""
    runs = chosen_runs(inputs)
    runs = bases_of(inputs.results, runs) + runs
    judge = inputs.spec.get("judge")
    records = _rows(inputs.results, runs, judge, RATES)
    asked = {kind: measure(inputs.results, metric, runs, judge).benchmarks for kind, metric in ASKED.items()}
    endings = {f"no answer, {kind}": measure(inputs.results, "empty", runs, benchmarks=names or [""]) for kind, names in asked.items()}
    sums = measure(inputs.results, "accuracy", runs).benchmarks
    endings["cut off, reasoning"] = measure(inputs.results, "truncated", runs, benchmarks=sums or [""])
    for record, (_, members) in zip(records, _settings(inputs.results, runs), strict=True):
        for words, measured in endings.items():
            record[words] = cell(_over_seeds(measured, members))
    moved = [cell(point, 1, 3) for point in _shifts(inputs.results, runs)]
    used = {measure(inputs.results, metric, runs, judge).judge for metric in JUDGED}
    agreed = [report for report in inputs.agreements if report["judge"] in used]
    words = "; ".join(map(_agreement, sorted(agreed, key=lambda report: report["judge"]))) or "–"
    return [record | {"shift": shift, "judge_agreement": words} for record, shift in zip(records, moved, strict=True)]


def _agreement(report: dict[str, Any]) -> str:
    """How far a judge agrees with people, in a cell."""
    kappa = "–" if report["kappa"] is None else f"{report['kappa']:.2f}"
    unread = f"{100 * report['unparseable_rate']:.1f} % unparseable"
    return f"{report['judge']} {100 * report['accuracy']:.1f} % (kappa {kappa}, {unread}, n = {report['n']})"


def _shifts(results: Results, runs: list[str]) -> list[Estimate | None]:
    """The distribution shift of each setting, in the order of `_settings`."""
    moved = measure(results, "shift", runs)
    known = [[run for run in members if run in moved.values] for _, members in _settings(results, runs)]
    return [shift_interval(moved, members) if members else None for members in known]


def activation(inputs: Inputs) -> list[dict[str, Any]]:
    """Refusal and accuracy for each number of safety samples, by source and method; of `steps_of_n`."""
    runs = steps_of_n(inputs.results, chosen_runs(inputs))
    records = _rows(
        inputs.results, bases_of(inputs.results, runs) + runs, inputs.spec.get("judge"), ("accuracy", "refusal_rate", "over_refusal")
    )
    return sorted(records, key=lambda record: (record["source"], record["method"], record["benign"] > 0, record["n"]))


def shift(inputs: Inputs) -> list[dict[str, Any]]:
    """How far each setting moved from the base model, how likely its targets were before training, and the lengths that confound both.

    Targets are the training rows as the model reads them; outputs are the generations of all benchmarks, with their ratio to the base's.
    """
    results, runs = inputs.results, chosen_runs(inputs)
    runs = bases_of(results, runs) + runs
    targets = {column: (measure(results, metric, runs), digits) for column, (metric, digits) in TARGETS.items()}
    outputs = {metric.replace("_", " "): measure(results, metric, runs) for metric in LENGTHS}
    records = []
    for (record, members), moved in zip(_settings(results, runs), _shifts(results, runs), strict=True):
        record["shift"] = cell(moved, 1, 3)
        for column, (measured, digits) in targets.items():
            record[column] = cell(_over_seeds(measured, members), 1, digits)
        for column, measured in outputs.items():
            record[column] = cell(_over_seeds(measured, members), 1)
            record[column] += _ratio(results, measured, members)
        records.append(record)
    return records


def _ratio(results: Results, measured: Measure, members: list[str]) -> str:
    """Mean over runs of a value divided by its base's, as text; empty for the base itself and where one is missing."""
    pairs = [
        (run, base) for run in members if (base := base_of(results, run)) != run and measured.values.get(base) and run in measured.values
    ]
    return f" (×{sum(measured.values[run] / measured.values[base] for run, base in pairs) / len(pairs):.2f})" if pairs else ""


def bases(inputs: Inputs) -> list[dict[str, Any]]:
    """DGR − Vanilla SFT on each base model alone, by source and benign rows: at equal settings and seeds, and at matched safety.

    Shares in points, shift and NLL as they are. Intervals are over the runs and items of that base alone.
    """
    results, runs = inputs.results, [run for run in chosen_runs(inputs) if inputs.results.runs[run]["method"] in ("vanilla", "dgr")]
    starts = {run: start for run in runs if (start := base_of(results, run)) is not None}
    accuracy, safety = (measure(results, metric, {*runs, *starts.values()}) for metric in ("accuracy", safety_axis(results, runs)))
    compared = [(accuracy, 100, 1), (safety, 100, 1), *((measure(results, metric, runs), 1, 3) for metric in ("shift", "nll"))]
    groups: dict[tuple, list[str]] = {}
    for run in sorted(runs):
        fields = results.runs[run]
        groups.setdefault((fields["base"], fields["source"], bool(fields["benign"])), []).append(run)
    records = []
    for (base, source, mixed), members in sorted(groups.items()):
        known = accuracy.values.get(starts.get(members[0], ""))
        record = {"base": base, "source": source, "benign rows": "yes" if mixed else "no", "runs": len(members)}
        record["accuracy of the base"] = "–" if known is None else f"{100 * known:.1f}"
        for measured, scale, digits in compared:
            record[f"{measured.metric}, DGR − Vanilla"] = cell(_gained(results, measured, members), scale, digits)
        record["accuracy at matched safety, DGR − Vanilla"] = cell(_matched(results, members, safety, accuracy))
        records.append(record)
    return records


def _sides(results: Results, measured: Measure, runs: Sequence[str]) -> list[dict[tuple, str]]:
    """Measured runs of DGR and of Vanilla SFT by setting and seed."""
    fields = ("source", "benign", "trainer", "n", "seed")
    keys = {run: tuple(results.runs[run][key] for key in fields) for run in runs if run in measured.values}
    return [{key: run for run, key in keys.items() if results.runs[run]["method"] == method} for method in ("dgr", "vanilla")]


def _gained(results: Results, measured: Measure, runs: Sequence[str]) -> Estimate | None:
    """DGR − Vanilla SFT over pairs of runs."""
    sides = _sides(results, measured, runs)
    paired = set(sides[0]) & set(sides[1])
    point = paired_bootstrap(*({key: measured.items(side[key]) for key in paired} for side in sides)) if paired else None
    return Estimate(point.value, None, None, point.n) if point and point.low == point.high else point  # seeds may train on the same rows


def _matched(results: Results, runs: Sequence[str], safety: Measure, accuracy: Measure) -> Estimate | None:
    sides = _sides(results, accuracy, [run for run in runs if run in safety.values])
    point, _ = matched_difference(*([(key[:-1], safety.items(run), accuracy.items(run)) for key, run in side.items()] for side in sides))
    return point


def ablations(inputs: Inputs) -> list[dict[str, Any]]:
    """Each variant of the refinement (pieces, filters, what becomes of rejects) beside the settings of the same model, trainer and n.

    Empty where a study has no runs of the source `ablation`. The fallback rate is over all rewritten pieces.
    """
    results, runs = inputs.results, ablated_runs(inputs)
    reports = {run: report for report in inputs.refine_reports for run in report["runs"]}
    rows = (
        _rows(results, bases_of(results, runs) + runs, inputs.spec.get("judge"), ("harmful_score", "accuracy", "over_refusal"))
        if runs
        else []
    )
    by_recipe: dict[tuple, dict[str, dict]] = {}  # of each replicate of the model its report
    for run in (run for run in runs if run in reports):
        fields = results.runs[run]
        by_recipe.setdefault((fields["model"], fields["recipe"]), {})[fields["base"]] = reports[run]
    return [_varied(row, list(by_recipe.get((row["model"], row["recipe"]), {}).values())) for row in rows]


def _varied(row: dict[str, Any], reports: list[dict[str, Any]]) -> dict[str, Any]:
    """A row of the ablations with what its refinement did; dashes where nothing was refined."""
    head = {key: row[key] for key in SETTING if key != "source"}
    rest = {key: value for key, value in row.items() if key not in SETTING}
    if not reports:
        return head | {"pieces": "–", "filters": "–", "fallback": "–"} | rest | {"fallback (%)": "–"}
    failed, n = (sum(report["fallback_rate"]["overall"][key] for report in reports) for key in ("failed", "n"))
    return head | refined_as(reports[0]) | rest | {"fallback (%)": f"{100 * failed / n:.1f}" if n else "–"}


def refinement(inputs: Inputs) -> list[dict[str, Any]]:
    """What became of every refined piece: counts of each reason and the fallback rate."""
    records = []
    for report in sorted(inputs.refine_reports, key=lambda report: report["name"]):
        for piece, reasons in sorted(report["pieces"].items(), reverse=True):
            n = sum(count for reason, count in reasons.items() if reason != "not-refined")
            rate = "–" if not n else f"{100 * (1 - reasons.get('ok', 0) / n):.1f}"
            records.append({"refined": report["name"], "piece": piece, "n": n, "fallback (%)": rate, **reasons})
    return records


def judges(inputs: Inputs) -> list[dict[str, Any]]:
    """Each judge against human labels: accuracy with its interval, kappa, and the share of replies that could not be parsed."""
    return [
        {
            "judge": report["judge"],
            "dataset": report["dataset"],
            "n": report["n"],
            "accuracy": cell(Estimate(report["accuracy"], *report["accuracy_ci"], report["n"])),
            "kappa": "–" if report["kappa"] is None else f"{report['kappa']:.2f}",
            "unparseable": f"{100 * report['unparseable_rate']:.1f}",
        }
        for report in sorted(inputs.agreements, key=lambda report: (report["judge"], report["dataset"]))
    ]


def judge_pairs(inputs: Inputs) -> list[dict[str, Any]]:
    """Every two judges on the samples that both judged: agreement and kappa, the counts behind them, and what could not be read."""
    records = []
    for pair in inputs.judge_pairs:
        record = {"question": QUESTIONS[pair["metric"]], "judge a": pair["judge_a"], "judge b": pair["judge_b"]}
        record |= {"benchmarks": ", ".join(pair["benchmarks"]), "runs": pair["runs"], "samples": pair["n"]}
        record |= {f"unparseable to {side}": pair["unparseable"][side] for side in "ab"} | {"read by both": pair["n_read"]}
        for name, scale, digits in (("agreement", 100, 1), ("kappa", 1, 2)):
            point = None if pair[name] is None else Estimate(pair[name], *pair[f"{name}_ci"], pair["n_read"])
            record[name] = cell(point, scale, digits)
        record |= {f"a {one}, b {other}": pair["confusion"][one][other] for one in ("yes", "no") for other in ("yes", "no")}
        records.append(record)
    return records


def data(inputs: Inputs) -> list[dict[str, Any]]:
    """Each dataset: its rows, and how many rows were removed because they hold a prompt of which other datasets.

    Of a dataset with a teacher the rows are those that it taught, and `asked` how many prompts it was asked.
    """
    return [
        {
            "dataset": report["name"],
            "rows": report["taught"] if "taught" in report else report["rows"],
            "asked": report["rows"] if "taught" in report else "–",
            "harmful": report["harmful"],
            "removed as contaminated": report["removed"]["count"],
            "removed against": ", ".join(report["removed"].get("against", ["not recorded"])) or "–",
        }
        for report in sorted(inputs.dataset_reports, key=lambda report: report["name"])
    ]


TABLES: dict[str, Callable[[Inputs], list[dict[str, Any]]]] = {
    "main_results": main_results,
    "activation": activation,
    "shift": shift,
    "bases": bases,
    "ablations": ablations,
    "refinement": refinement,
    "judges": judges,
    "judge_pairs": judge_pairs,
    "data": data,
}


def write_table(inputs: Inputs, csv_path: Path | str, markdown_path: Path | str, page_path: Path | str) -> int:
    """Write the table of `spec["table"]` in its three forms and return its number of rows. Raises UserError for an unknown kind."""
    kind = inputs.spec.get("table")
    if kind not in TABLES:
        raise UserError(f"table: no kind is called {kind!r}; valid: {', '.join(TABLES)}")
    records = TABLES[kind](inputs)
    columns = list(dict.fromkeys(key for record in records for key in record))
    with atomic_path(csv_path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    caption = inputs.spec.get("caption", "")
    lines = [f"# {inputs.spec.get('title', kind)}", ""] + ([caption.strip(), ""] if caption else [])
    if records:
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(record.get(column, "")).replace("|", "\\|") for column in columns) + " |" for record in records]
    else:
        lines.append("Nothing was measured.")
    write_text(markdown_path, "\n".join(lines) + "\n")
    title = inputs.spec.get("title", kind.replace("_", " ").capitalize())
    write_text(page_path, page(title, f"{caption.strip()} {READING}".strip(), records))
    return len(records)
