"""Tables of a study as CSV, Markdown and HTML: `TABLES` maps a kind to its function, so a new table is one that returns plain records.

Rates are in percent; a cell with an interval reads `mean [low, high]`, drawn over seeds and items.
"""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from untaxed.agreement import QUESTIONS
from untaxed.figures import Inputs, ablated_runs, bases_of, chosen_runs, estimate, refined_as, shift_interval, steps_of_n, tax_interval
from untaxed.metrics import LENGTHS, Measure, Results, base_of, by_setting, measure, safety_axis, select
from untaxed.pages import page
from untaxed.records import UserError, atomic_path, nearest, write_text
from untaxed.reported import DOUBT, column_measures, columns_of, entry_of, printed, runs_of
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
ROUNDED = 0.05  # points: a printed value stands for all that round to it


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


def harmful_of(prepared: dict[str, Any], taught: dict[str, Any]) -> int | str:
    """How many rows of a taught dataset are harmful, from the report of the prompts that were asked and that of the teacher.

    A teacher's report of an earlier version does not say; then it is known where all prompts were harmful, or none.
    """
    if "harmful" in taught:
        return taught["harmful"]
    every = {0: 0, prepared["rows"]: taught["rows_out"]}
    return every.get(prepared["harmful"], "–")


def paper_table(inputs: Inputs) -> list[dict[str, Any]]:
    """A table of a paper with ours beside it: a row for each printed row, and of each column ours, the paper's, and the difference.

    `reported` of the spec (default: the table's name) is the entry of reported.yaml. Ours is the mean over seeds and items with its
    interval; beside the difference stands whether the paper's value lies inside it. Where the study has other benchmarks (`columns`) or
    models (then `reference` is the model whose printed rows stand there), the paper's value has its model in its heading and no
    difference. `recipes` maps the entry's recipes to those of the study, `judges` a metric to its judge, `select` narrows the trained runs.
    """
    spec, results = inputs.spec, inputs.results
    entry = entry_of(inputs.reported, spec.get("reported") or spec.get("name", ""))
    columns = columns_of(inputs.reported, spec, entry["columns"])
    rows = [(row, reference, _runs_of_row(inputs, row)) for row, reference in _paper_rows(inputs, entry)]
    measures = column_measures(results, columns, {run for _, _, runs in rows for run in runs}, spec.get("judges"))
    judges = ", ".join(sorted({measured.judge for measured in measures.values() if measured.judge})) or "–"
    shown = {run for _, _, runs in rows for run in runs}
    blank = {words: measure(results, "empty", shown, benchmarks=names) for words, names in _unanswered(columns).items()}
    records = []
    for row, reference, runs in rows:
        places = {key: row[key] for key in ("model", "source", "teacher", "safety_rows", "n", "benign", "learning_rate") if key in row}
        record = places | {"recipe": ", ".join(sorted({results.runs[run]["recipe"] for run in runs})) or "–", "seeds": len(runs)}
        for name, column in columns.items():
            known = [run for run in runs if run in measures[name].values]
            point = estimate(measures[name], known)
            record[column["title"]] = "not run" if not runs else cell(point)
            record |= _beside(inputs, row, reference, name, column, point)
        items = {
            metric: max((len(measures[name].items(run)) for name in names for run in runs if run in measures[name].values), default=0)
            for metric, names in _by_metric(columns).items()
        }
        record |= {f"items, {metric.replace('_', ' ')}": number or "–" for metric, number in items.items()}
        record |= {words: cell(_over_seeds(measured, [run for run in runs if run in measured.values])) for words, measured in blank.items()}
        records.append(record | {"judged by": judges})
    return records


def _unanswered(columns: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """The benchmarks of harmful and of benign prompts among the columns: an answer that never came is neither harm nor refusal."""
    asked = {"no answer, harmful": "harmful_score", "no answer, benign": "over_refusal"}
    found = {
        words: sorted({name for column in columns.values() if column["metric"] == metric for name in column["benchmarks"]})
        for words, metric in asked.items()
    }
    return {words: names for words, names in found.items() if names}


def _by_metric(columns: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, column in columns.items():
        found.setdefault(column["metric"], []).append(name)
    return found


def _paper_rows(inputs: Inputs, entry: dict[str, Any]) -> list[tuple[dict[str, Any], bool]]:
    """The printed rows, and for each model of the study that the entry lacks those of `reference`, as (row, whether it is one of these)."""
    rows = [(row, False) for row in entry["rows"]]
    if not (reference := inputs.spec.get("reference")):
        return rows
    models = {row["model"] for row in entry["rows"]}
    if reference not in models:
        raise UserError(f"reference: {reference!r} is no model of this table of the paper; {nearest(reference, models)}")
    others = sorted({fields["model"] for fields in inputs.results.runs.values()} - models)
    stand = [({**row, "model": model}, True) for model in others for row in entry["rows"] if row["model"] == reference]
    present = {fields["model"] for fields in inputs.results.runs.values()}
    return [(row, False) for row, _ in rows if row["model"] in present] + stand


def _runs_of_row(inputs: Inputs, row: dict[str, Any]) -> list[str]:
    names = inputs.spec.get("recipes") or {}
    renamed = {"recipe": names.get(row["recipe"], row["recipe"])} if "recipe" in row else {}
    return runs_of(inputs.results, {**row, **renamed}, inputs.spec.get("select"))


def _beside(
    inputs: Inputs, row: dict[str, Any], reference: bool, name: str, column: dict[str, Any], point: Estimate | None
) -> dict[str, str]:
    """The paper's value of a cell under a heading that says whose it is, and our difference to it where both measure the same."""
    value, title = row["values"][name], column["title"]
    text = "–" if value is None else f"{value:.1f}" + (f" {DOUBT}" if name in row["doubt"] else "")
    if reference or not column["same"]:
        model = inputs.spec["reference"] if reference else row["model"]
        return {f"{title} (paper, {inputs.reported['models'].get(model, model)})": text}
    return {f"{title} (paper)": text, f"{title} (ours − paper)": _apart(point, value)}


def _apart(point: Estimate | None, value: float | None) -> str:
    """Our value minus the paper's in points, and whether the paper's lies inside our interval."""
    if point is None or value is None:
        return "–"
    text = f"{round(100 * point.value - value, 1) + 0:+.1f}".replace("-", "−")
    if point.low is None:
        return text
    inside = 100 * point.low - ROUNDED <= value <= 100 * point.high + ROUNDED
    return f"{text}, paper {'inside' if inside else 'outside'}"


def paper_notes(inputs: Inputs, records: Sequence[dict[str, Any]]) -> list[str]:
    """What stands below a table of a paper: its place, what of the study its columns are, and why a marked value is in doubt."""
    entry = entry_of(inputs.reported, inputs.spec.get("reported") or inputs.spec.get("name", ""))
    columns = columns_of(inputs.reported, inputs.spec, entry["columns"])
    compared = any(", paper " in str(value) for record in records for value in record.values())
    inside = " Inside: the printed value, as rounded, lies in our 95 % interval." if compared else ""
    said = [f"Printed: {entry['paper']}, {entry['place']}.{inside}"]
    said += [
        f"{column['title']}: {column['metric'].replace('_', ' ')} on {', '.join(column['benchmarks'])}." for column in columns.values()
    ]
    shown = {row["model"] for row, _ in _paper_rows(inputs, entry)} | {inputs.spec.get("reference")}
    for row in (row for row in entry["rows"] if row.get("model") in shown):
        for name in (name for name in row["doubt"] if name in columns):
            model = inputs.reported["models"].get(row["model"], row["model"])
            said.append(f"{DOUBT} {model}, {row['source']}, {columns[name]['title']} {row['values'][name]:.1f}: {row['doubt'][name]}.")
    return said


def gains(inputs: Inputs) -> list[dict[str, Any]]:
    """DGR beside Vanilla SFT by model and source at the largest n: accuracy, the gain in points and in percent, and what the paper prints.

    The paper does not say whether its gain is points or relative, so it is held against both intervals. `reported`: as in `paper_table`;
    its gains stand beside the paper's sources alone, and are compared for the paper's model alone.
    """
    results, spec = inputs.results, inputs.spec
    entry = entry_of(inputs.reported, spec.get("reported") or spec.get("name", ""))
    runs = select(results.runs, {"method": ["vanilla", "dgr"], "n": "max", "benign": 0, **(spec.get("select") or {})})
    groups: dict[tuple, list[str]] = {}
    for run in runs:
        groups.setdefault((results.runs[run]["model"], results.runs[run]["source"]), []).append(run)
    records = []
    for (model, source), members in sorted(groups.items()):
        sides = [[run for run in members if results.runs[run]["method"] == method] for method in ("vanilla", "dgr")]
        if not all(sides):
            continue
        bases = bases_of(results, members)
        record: dict[str, Any] = {"model": model, "source": source, "n": results.runs[members[0]]["n"], "seeds": len(sides[1])}
        for metric in ("accuracy", "harmful_score", "over_refusal"):
            measured = measure(results, metric, bases + members, (spec.get("judges") or {}).get(metric))
            for words, side in (("base", bases), *zip(("Vanilla", "DGR"), sides, strict=True)):
                record[f"{metric.replace('_', ' ')}, {words}"] = cell(estimate(measured, side))
            if metric == "accuracy":
                record |= _gain(results, measured, members, printed(entry, source=source), model)
        records.append(record)
    return records


def _gain(results: Results, accuracy: Measure, runs: list[str], row: dict[str, Any] | None, model: str) -> dict[str, str]:
    """The cells of the gain of DGR over Vanilla SFT, with the paper's number held against both readings."""
    point = _gained(results, accuracy, runs)
    vanilla = [accuracy.values[run] for run in runs if results.runs[run]["method"] == "vanilla" and run in accuracy.values]
    scale = len(vanilla) / sum(vanilla) if sum(vanilla) else None
    ends = (point.value, point.low, point.high) if point else ()
    relative = Estimate(*(None if end is None else end * scale for end in ends), point.n) if point and scale else None
    told = {"gain (points)": cell(point), "gain (%)": cell(relative)}
    value = row["values"]["accuracy_gain"] if row else None
    told["gain (paper)"] = "–" if value is None else f"{value:+.1f}"
    for words, each in (("points", point), ("%", relative)):
        told[f"ours − paper ({words})"] = _apart(each, value if row and row["model"] == model else None)
    return told


LENGTH_NAMES = {"mean": "mean", "p90": "90th percentile"}


def response_lengths(inputs: Inputs) -> list[dict[str, Any]]:
    """Lengths of the responses of each style's set, beside the paper's: of every row that passed the filters, and of those drawn.

    `datasets` of the spec maps a source to its dataset in the study; without a filter both are the same. With `tokenizer`, a model of the
    study, ours are in its tokens, markers of the trace and the tokenizer's first token with them; else they are in characters, from the
    reports of the sets. The paper's are in tokens of R1-Distill-Qwen-7B.
    """
    spec = inputs.spec
    entry = entry_of(inputs.reported, spec.get("reported") or spec.get("name", ""))
    unit = "tokens" if spec.get("tokenizer") else "characters"
    known = _lengths(inputs)
    records = []
    for row in entry["rows"]:
        name = (spec.get("datasets") or {}).get(row["source"], "–")
        lengths = known.get(name) or {}
        record: dict[str, Any] = {"set": row["source"], "dataset": name if lengths else "–"}
        record |= {"tokenizer": spec["tokenizer"]} if spec.get("tokenizer") else {}
        for part in ("all", "drawn"):
            told = lengths.get(part) or {}
            record[f"rows, {part}"] = told.get("n", "–")
            for key, words in LENGTH_NAMES.items():
                record[f"{part}, {words} ({unit})"] = f"{told[key]:.1f}" if key in told else "–"
                value = row["values"][f"{part}_{key}"]
                record[f"{part}, {words} (tokens, paper)"] = "–" if value is None else f"{value:.1f}"
        records.append(record)
    return records


def _lengths(inputs: Inputs) -> dict[str, dict[str, dict]]:
    """{"all", "drawn"} of each dataset by its name: in tokens where a tokenizer has counted them, else the characters of the reports."""
    if inputs.spec.get("tokenizer"):
        return {report["name"]: report for report in inputs.lengths}
    told = {each["name"]: each.get("response_characters") or {} for each in [*inputs.dataset_reports, *inputs.filter_reports]}
    return {name: lengths if "all" in lengths else {"all": lengths, "drawn": lengths} for name, lengths in told.items()}


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
    "paper_table": paper_table,
    "gains": gains,
    "response_lengths": response_lengths,
}
# As `figures.READS`.
READS: dict[str, frozenset[str]] = {
    "refinement": frozenset({"refine"}),
    "judges": frozenset({"agreement"}),
    "judge_pairs": frozenset({"pairs"}),
    "data": frozenset({"datasets", "distilled"}),
    "response_lengths": frozenset({"datasets", "distilled", "filtered", "lengths"}),
}
NOTES: dict[str, Callable[[Inputs, Sequence[dict[str, Any]]], list[str]]] = {"paper_table": paper_notes}


def heading(spec: dict[str, Any]) -> str:
    """What a table is called: its name, and its title where it has one."""
    name = spec.get("name") or spec["table"]
    return f"{name}: {spec['title']}" if spec.get("title") else name


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
    caption, notes = inputs.spec.get("caption", ""), NOTES[kind](inputs, records) if kind in NOTES else []
    title = heading(inputs.spec)
    lines = [f"# {title}", ""] + ([caption.strip(), ""] if caption else [])
    if records:
        lines += ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(str(record.get(column, "")).replace("|", "\\|") for column in columns) + " |" for record in records]
    else:
        lines.append("Nothing was measured.")
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    write_text(markdown_path, "\n".join(lines) + "\n")
    write_text(page_path, page(title, " ".join([caption.strip(), READING, *notes]).strip(), records))
    return len(records)
