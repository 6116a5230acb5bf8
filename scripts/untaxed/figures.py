"""Figures of a study, drawn from its metrics and items: `FIGURES` maps a kind to its function, so a new figure is one function.

A figure function takes `Inputs` and returns a `Drawing`: the matplotlib figure, the records that it shows, and the runs they are from. What
the data cannot carry is said in the figure ("not enough runs"), never an error. The same method has the same colour everywhere.
"""

import shlex
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from untaxed.metrics import Measure, Results, by_setting, measure, select
from untaxed.records import UserError, atomic_path, write_json
from untaxed.statistics import Estimate, frontier, hierarchical_mean, matched_difference, pearson, spearman

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = {"none": "#7F7F7F", "vanilla": "#D55E00", "dgr": "#0072B2"}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REASON_COLOURS = {"ok": "#0072B2", "overthinking": "#D55E00", "meta-thinking": "#E69F00", "stray-marker": "#CC79A7", "empty": "#56B4E9"}
LABELS = {"none": "base", "vanilla": "Vanilla SFT", "dgr": "DGR"}
MARKERS = ("o", "s", "^", "D", "v", "P")
HATCHES = ("", "///", "...", "xxx", "---")
LINES = ("-", "--", ":", "-.")
AXES = {
    "accuracy": "reasoning accuracy (%)",
    "refusal_rate": "refusal rate (%)",
    "safe_rate": "safe answers (%)",
    "harmful_score": "harmful score (%)",
    "strongreject": "StrongREJECT score (0–100)",
    "over_refusal": "over-refusal (%)",
    "safety_tax": "safety tax (points of accuracy)",
    "shift": "distribution shift (1 − output similarity)",
    "nll": "NLL of training targets under the base (nats per token)",
    "kl": "KL(tuned ‖ base) (nats per token)",
}
STYLE = {"svg.hashsalt": "untaxed", "pdf.fonttype": 42, "figure.constrained_layout.use": True, "savefig.dpi": 200, "legend.frameon": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False}
WIDTH, HEIGHT = 3.3, 2.9  # inches of one panel


@dataclass(frozen=True)
class Inputs:
    """What a figure is drawn from: its spec, the study's results, and the reports that only some figures read."""

    spec: dict[str, Any]
    results: Results
    refine_reports: list[dict] = field(default_factory=list)
    manifests: list[dict] = field(default_factory=list)
    agreements: list[dict] = field(default_factory=list)
    dataset_reports: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Drawing:
    """A figure, the records that it shows, and the ids of the runs they are from."""

    figure: "Figure"
    data: list[dict[str, Any]]
    runs: list[str]


# ---- shared pieces --------------------------------------------------------------------------------------------------------------------


def colour(method: str) -> str:
    return COLOURS.get(method) or OTHER_COLOURS[sum(map(ord, method)) % len(OTHER_COLOURS)]


def label(method: str) -> str:
    return LABELS.get(method, method)


def panels(rows: int, columns: int, width: float = WIDTH, height: float = HEIGHT) -> "tuple[Figure, Any]":
    """An empty figure with a grid of axes, always as a two-dimensional array."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def say(axes: "Axes", text: str) -> None:
    """A sentence in place of what the data cannot show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4", fontsize="medium")


def methods_of(results: Results, runs: Iterable[str]) -> list[str]:
    """Methods among the runs, base first, then vanilla, dgr and others by name."""
    order = {"none": 0, "vanilla": 1, "dgr": 2}
    return sorted({results.runs[run]["method"] for run in runs}, key=lambda method: (order.get(method, 3), method))


def chosen_runs(inputs: Inputs) -> list[str]:
    """The trained runs that the spec's `select` keeps."""
    runs = select(inputs.results.runs, inputs.spec.get("select"))
    return [run for run in runs if inputs.results.runs[run]["method"] != "none"]


def bases_of(results: Results, runs: Iterable[str]) -> list[str]:
    models = {results.runs[run]["model"] for run in runs} or {fields["model"] for fields in results.runs.values()}
    return [run for run, fields in sorted(results.runs.items()) if fields["method"] == "none" and fields["model"] in models]


def facets(results: Results, runs: Iterable[str], by_trainer: bool = False) -> dict[tuple, list[str]]:
    """Runs by (model, source, whether benign rows were mixed in, trainer); the trainer is "" unless `by_trainer`."""
    groups: dict[tuple, list[str]] = defaultdict(list)
    for run in sorted(runs):
        fields = results.runs[run]
        groups[fields["model"], fields["source"], bool(fields["benign"]), fields["trainer"] if by_trainer else ""].append(run)
    return dict(sorted(groups.items()))


def facet_titles(keys: Sequence[tuple]) -> list[str]:
    """What tells the facets apart: the source always, the model, the benign rows and the trainer where they differ."""
    several_models, several_mixes, several_trainers = (len({key[place] for key in keys}) > 1 for place in (0, 2, 3))
    return [
        (f"{model}: " if several_models else "")
        + str(source)
        + ((" + benign rows" if mixed else ", no benign rows") if several_mixes else "")
        + (f", {trainer}" if several_trainers else "")
        for model, source, mixed, trainer in keys
    ]


def series(results: Results, runs: Sequence[str], fields: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Runs that may be averaged, by (method, name): runs of a method that differ in one of `fields` are apart, as the name says."""
    groups: dict[tuple[str, str], list[str]] = {}
    for method in methods_of(results, runs):
        mine = [run for run in runs if results.runs[run]["method"] == method]
        apart = [key for key in fields if len({results.runs[run][key] for run in mine}) > 1]
        for run in sorted(mine, key=lambda run: [(isinstance(results.runs[run][key], str), results.runs[run][key]) for key in apart]):
            words = [f"n {results.runs[run][key]}" if key == "n" else str(results.runs[run][key]) for key in apart]
            groups.setdefault((method, ", ".join([label(method), *words])), []).append(run)
    return groups


def estimate(measured: Measure, runs: Iterable[str]) -> Estimate | None:
    """Mean over runs and items of the runs that were measured, in percent of 1, with its hierarchical interval."""
    return hierarchical_mean([measured.scores[run] for run in sorted(runs) if measured.scores.get(run)])


def bars(point: Estimate) -> list[list[float]]:
    """Lengths of the error bars in percent, as matplotlib wants them."""
    low = point.value if point.low is None else point.low
    high = point.value if point.high is None else point.high
    return [[max(0.0, 100 * (point.value - low))], [max(0.0, 100 * (high - point.value))]]


def interval_text(point: Estimate, scale: float = 100, digits: int = 1) -> str:
    text = f"{scale * point.value:+.{digits}f}"
    return text if point.low is None else f"{text} [{scale * point.low:+.{digits}f}, {scale * point.high:+.{digits}f}]"


def record_of(point: Estimate | None, **fields: Any) -> dict[str, Any]:
    """A record of the sidecar."""
    known = {} if point is None else {"value": point.value, "ci_low": point.low, "ci_high": point.high, "n_items": point.n}
    return fields | known


def percent_axis(axes: "Axes", which: str, low: float = -3, high: float = 103) -> None:
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


def safety_metric(inputs: Inputs, runs: Sequence[str]) -> str:
    """`safety` of the spec; else the refusal rate, or 1 − harmful score where no judge tells refusals."""
    if wanted := inputs.spec.get("safety"):
        return wanted
    return "refusal_rate" if measure(inputs.results, "refusal_rate", runs).values else "safe_rate"


# ---- the figures ----------------------------------------------------------------------------------------------------------------------


def safety_reasoning_plane(inputs: Inputs) -> Drawing:
    """Safety against reasoning: runs light, seed means with both intervals, the frontier per method, and the gap at matched safety."""
    results, runs = inputs.results, chosen_runs(inputs)
    bases = bases_of(results, runs)
    metric = safety_metric(inputs, runs + bases)
    safety = measure(results, metric, runs + bases, inputs.spec.get("judge"))
    accuracy = measure(results, "accuracy", runs + bases)
    runs = [run for run in runs if run in safety.values and run in accuracy.values]
    groups = facets(results, runs)
    columns = min(3, max(1, len(groups)))
    figure, grid = panels(max(1, -(-len(groups) // columns)), columns, 3.5, 3.3)
    data: list[dict] = []
    for axes in grid.flat[max(1, len(groups)) :]:
        axes.set_visible(False)
    for axes, (key, members), title in zip(grid.flat, groups.items(), facet_titles(list(groups)), strict=False):
        for method in methods_of(results, members):
            mine = [run for run in members if results.runs[run]["method"] == method]
            data += _method_on_plane(axes, results, mine, safety, accuracy)
        for base in (base for base in bases if results.runs[base]["model"] == key[0]):
            data.append(_base_on_plane(axes, base, safety, accuracy))
        gap = _gap_at_matched_safety(results, members, safety, accuracy)
        text = "at matched safety: not enough runs" if gap is None else f"DGR − Vanilla at matched safety: {interval_text(gap)} points"
        axes.set_title(f"{title}\n", loc="left")
        axes.text(0, 1.02, text, transform=axes.transAxes, fontsize="x-small", va="bottom")
        data.append(record_of(gap, source=key[1], benign=key[2], model=key[0], kind="matched difference"))
        axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(-0.05, -0.2), ncols=2, columnspacing=0.9)
    for axes in grid.flat[: max(1, len(groups))]:
        if not groups:
            say(axes, "not enough runs")
        axes.set_xlabel(AXES.get(metric, metric))
        axes.set_ylabel(AXES["accuracy"])
        percent_axis(axes, "x")
        percent_axis(axes, "y")
    return Drawing(figure, data, sorted({*runs, *bases}))


def _method_on_plane(axes: "Axes", results: Results, runs: list[str], safety: Measure, accuracy: Measure) -> list[dict]:
    method = results.runs[runs[0]]["method"]
    data, means = [], []
    axes.scatter(
        [100 * safety.values[run] for run in runs],
        [100 * accuracy.values[run] for run in runs],
        s=14,
        color=colour(method),
        alpha=0.3,
        lw=0,
    )
    settings = by_setting(results, runs)
    for members in settings.values():
        x, y = estimate(safety, members), estimate(accuracy, members)
        if x is None or y is None:
            continue
        means.append((x.value, y.value))
        axes.errorbar(100 * x.value, 100 * y.value, bars(y), bars(x), fmt="o", ms=4.5, color=colour(method), lw=0.8, capsize=1.5)
        fields = results.runs[members[0]]
        common = {key: fields[key] for key in ("source", "method", "benign", "trainer", "n")} | {"seeds": len(members)}
        data.append(record_of(x, axis=safety.metric, judge=safety.judge, **common))
        data.append(record_of(y, axis="accuracy", judge="", **common))
    if corners := frontier(means):
        name = f"{label(method)}, {len(runs)} runs"
        axes.plot(*([100 * corner[axis] for corner in corners] for axis in (0, 1)), color=colour(method), lw=1.2, alpha=0.8, label=name)
    return data


def _base_on_plane(axes: "Axes", base: str, safety: Measure, accuracy: Measure) -> dict:
    x, y = safety.values.get(base), accuracy.values.get(base)
    if x is not None and y is not None:
        axes.scatter([100 * x], [100 * y], marker="*", s=90, color=colour("none"), zorder=5, label=label("none"))
    return {"method": "none", "run": base, safety.metric: x, "accuracy": y}


def _gap_at_matched_safety(results: Results, runs: list[str], safety: Measure, accuracy: Measure) -> Estimate | None:
    points = {"dgr": [], "vanilla": []}
    for run in runs:
        if (method := results.runs[run]["method"]) in points:
            setting = tuple(results.runs[run][key] for key in ("model", "source", "recipe", "benign", "trainer", "n"))
            points[method].append((setting, safety.values[run], accuracy.values[run]))
    return matched_difference(points["dgr"], points["vanilla"])


def method_bars(inputs: Inputs) -> Drawing:
    """Base, Vanilla and DGR side by side per metric and benchmark; the paper's value is a diamond if the spec has it.

    A row per source, trainer, and with or without benign rows; a bar per method, recipe and n.
    """
    results, runs = inputs.results, chosen_runs(inputs)
    bases = bases_of(results, runs)
    wanted = inputs.spec.get("metrics") or ["accuracy", "refusal_rate", "harmful_score", "over_refusal"]
    measures = {metric: _per_benchmark(results, metric, runs + bases, inputs.spec.get("judge")) for metric in wanted}
    measures = {metric: found for metric, found in measures.items() if found}
    rows = facets(results, runs, by_trainer=True) if measures else {}
    figure, grid = panels(max(1, len(rows)), max(1, len(measures)), 3.1, 2.7)
    data: list[dict] = []
    if not rows:
        say(grid[0][0], "not enough runs")
    for row, (key, members), title in zip(grid, rows.items(), facet_titles(list(rows)), strict=False):
        mine = [base for base in bases if results.runs[base]["model"] == key[0]]
        groups = series(results, mine + members, ("recipe", "n"))
        place = dict(zip(("model", "source", "benign", "trainer"), key, strict=True))
        for axes, (metric, found) in zip(row, measures.items(), strict=True):
            data += _bar_panel(axes, groups, place, metric, found, reported=inputs.spec.get("reported") or [])
            axes.set_title(f"{title}\n" if axes is row[0] else " \n", loc="left", fontweight="bold")
        handles, names = row[0].get_legend_handles_labels()
        known = dict(zip(names, handles, strict=True))
        legend = row[0].legend(known.values(), known.keys(), fontsize="x-small", loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4)
        legend.set_in_layout(False)  # it runs on over the next panels, whose titles leave it room
    return Drawing(figure, data, sorted({*runs, *bases}))


def _per_benchmark(results: Results, metric: str, runs: Sequence[str], judge: str | None) -> dict[str, Measure]:
    name = "harmful_score" if metric == "safe_rate" else metric
    benchmarks = sorted({row["benchmark"] for row in results.metrics if row["metric"] == name and row["run"] in set(runs)})
    return {benchmark: measure(results, metric, runs, judge, [benchmark]) for benchmark in benchmarks}


def _bar_panel(
    axes: "Axes",
    groups: dict[tuple[str, str], list[str]],
    place: dict[str, Any],
    metric: str,
    found: dict[str, Measure],
    *,
    reported: Sequence[dict],
) -> list[dict]:
    data, ticks, width = [], [], 0.8 / max(1, len(groups))
    for number, (benchmark, measured) in enumerate(found.items()):
        size = 0
        for offset, ((method, name), runs) in enumerate(groups.items()):
            x = number - 0.4 + width * (offset + 0.5)
            fields = place | {"benchmark": benchmark, "metric": metric, "method": method}
            point = estimate(measured, runs)
            if point is not None:
                size = max(size, point.n)
                text = f"{name} ({len(runs)} run{'s' * (len(runs) != 1)})"
                hatch = HATCHES[[each for of, each in groups if of == method].index(name) % len(HATCHES)]
                axes.bar(x, 100 * point.value, width * 0.92, color=colour(method), alpha=0.85, hatch=hatch, label=text)
                axes.errorbar(x, 100 * point.value, bars(point), color="0.15", lw=0.9, capsize=2, fmt="none")
                data.append(record_of(point, **fields, series=name, runs=len(runs), judge=measured.judge))
            for value in (entry for entry in reported if all(entry.get(key, known) == known for key, known in fields.items())):
                axes.scatter([x], [value["value"]], marker="D", s=26, fc="white", ec="black", zorder=6, label="reported in the paper")
                data.append({**value, **fields, "kind": "reported"})
        ticks.append(f"{benchmark}\nn = {size:,}")
    axes.set_xticks(range(len(found)), ticks)
    axes.set_ylabel(AXES.get(metric, metric))
    percent_axis(axes, "y", 0, 105)
    return data


def shift_tax(inputs: Inputs) -> Drawing:
    """Distribution shift against safety tax: runs light, settings solid, Pearson and Spearman over the settings with intervals."""
    results, runs = inputs.results, chosen_runs(inputs)
    metric = inputs.spec.get("x", "shift")
    shift, tax = measure(results, metric, runs), measure(results, "safety_tax", runs)
    runs = [run for run in runs if run in shift.values and run in tax.values]
    figure, grid = panels(1, 1, 4.6, 3.6)
    axes = grid[0][0]
    sources = sorted({results.runs[run]["source"] for run in runs})
    data: list[dict] = []
    means: list[tuple[float, float]] = []
    for members in by_setting(results, runs).values():
        fields = results.runs[members[0]]
        style = {"marker": MARKERS[sources.index(fields["source"]) % len(MARKERS)], "color": colour(fields["method"]), "lw": 0}
        xs, ys = [shift.values[run] for run in members], [100 * tax.values[run] for run in members]
        mean = sum(xs) / len(xs), sum(ys) / len(ys)
        axes.scatter(xs, ys, s=14, alpha=0.3, **style)
        axes.scatter(*([value] for value in mean), s=34, **style)
        means.append(mean)
        common = {key: fields[key] for key in ("model", "source", "method", "benign", "trainer", "n")}
        data.append(common | {"x": metric, metric: mean[0], "safety_tax": mean[1] / 100, "seeds": len(members)})
    correlations = {
        name: function(*zip(*means, strict=True)) if means else None
        for name, function in (("Pearson r", pearson), ("Spearman ρ", spearman))
    }
    lines = [f"{name} = {interval_text(value, 1, 2)}" for name, value in correlations.items() if value]
    text = "\n".join([*lines, f"{len(means)} settings, {len(runs)} runs"]) if lines else "not enough runs for a correlation"
    axes.set_title(text, fontsize="small", loc="left")
    data += [record_of(value, kind=name, settings=len(means)) for name, value in correlations.items()]
    if not runs:
        say(axes, "not enough runs")
    for method in methods_of(results, runs):
        axes.scatter([], [], color=colour(method), label=label(method))
    for number, source in enumerate(sources):
        axes.scatter([], [], marker=MARKERS[number % len(MARKERS)], color="0.5", label=source)
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    if runs:
        axes.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel(AXES.get(metric, metric))
    axes.set_ylabel(AXES["safety_tax"])
    return Drawing(figure, data, runs)


def activation_curve(inputs: Inputs) -> Drawing:
    """Safety samples against refusal rate and accuracy, the base at 0: a row per source, a line per method, trainer and recipe."""
    results, runs = inputs.results, chosen_runs(inputs)
    bases = bases_of(results, runs)
    metric = safety_metric(inputs, runs + bases)
    measures = [measure(results, metric, runs + bases, inputs.spec.get("judge")), measure(results, "accuracy", runs + bases)]
    groups = facets(results, runs)
    figure, grid = panels(max(1, len(groups)), 2, 3.5, 2.5)
    data: list[dict] = []
    if not groups:
        say(grid[0][0], "not enough runs")
        say(grid[0][1], "not enough runs")
    largest = max((results.runs[run]["n"] for run in runs), default=10)
    for row, (key, members), title in zip(grid, groups.items(), facet_titles(list(groups)), strict=False):
        mine = [base for base in bases if results.runs[base]["model"] == key[0]]
        for axes, measured in zip(row, measures, strict=True):
            lines = series(results, members, ("trainer", "recipe"))
            for shade, ((method, line), chosen) in enumerate(lines.items()):
                path = _curve(results, chosen, mine, measured)
                if not path:
                    continue
                number = [each for of, each in lines if of == method].index(line)
                look = {"marker": MARKERS[number % len(MARKERS)], "linestyle": LINES[number % len(LINES)], "color": colour(method)}
                xs, ys = [n * (1 + 0.04 * shade) for n, _, _ in path], [100 * point.value for _, point, _ in path]
                errors = [[bars(point)[side][0] for _, point, _ in path] for side in (0, 1)]
                name = f"{line} ({sum(count for n, _, count in path if n)} runs)"
                axes.errorbar(xs, ys, errors, ms=4, lw=1.2, elinewidth=0.8, capsize=1.5, label=name, **look)
                fields = {
                    "source": key[1],
                    "model": key[0],
                    "benign": key[2],
                    "method": method,
                    "series": line,
                    "metric": measured.metric,
                    "judge": measured.judge,
                }
                data += [record_of(point, n=n, runs=count, **fields) for n, point, count in path]
            _sample_axis(axes, sorted({results.runs[run]["n"] for run in members} | {0}), largest)
            axes.set_ylabel(AXES.get(measured.metric, measured.metric))
            percent_axis(axes, "y")
        row[0].set_title(title, loc="left")
        row[1].legend(fontsize="x-small", loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    for axes in grid[-1]:
        axes.set_xlabel("safety samples n (0 = base)")
    return Drawing(figure, data, sorted({*runs, *bases}))


def _curve(results: Results, runs: list[str], bases: list[str], measured: Measure) -> list[tuple[int, Estimate, int]]:
    """(n, mean with interval, number of runs) by rising n, beginning at the base."""
    groups: dict[int, list[str]] = {0: [base for base in bases if base in measured.values]}
    for run in runs:
        if run in measured.values:
            groups.setdefault(results.runs[run]["n"], []).append(run)
    return [(n, point, len(members)) for n, members in sorted(groups.items()) if (point := estimate(measured, members))]


def _sample_axis(axes: "Axes", counts: list[int], largest: int) -> None:
    smallest = min((n for n in counts if n), default=10)
    axes.set_xscale("symlog", linthresh=smallest)
    axes.set_xticks(counts, [f"{n:,}" for n in counts])
    axes.set_xticks([], minor=True)
    axes.set_xlim(-0.08 * smallest, max(largest, smallest) * 1.35)


def refinement_outcomes(inputs: Inputs) -> Drawing:
    """What became of every refined piece: shares of each reason, with the number of rows and the fallback rate.

    Reads reports of `refine` with the key `name` (dataset / model / refinement) added.
    """
    bars_of = [
        (report["name"], piece, reasons)
        for report in sorted(inputs.refine_reports, key=lambda report: report["name"])
        for piece, reasons in sorted(report["pieces"].items(), reverse=True)
        if sum(reasons.values())
    ]
    figure, grid = panels(1, 1, 10.0, 1.2 + 0.42 * max(2, len(bars_of)))
    axes = grid[0][0]
    data: list[dict] = []
    if not bars_of:
        say(axes, "no refined rows")
    shown: set[str] = set()
    for place, (name, piece, reasons) in enumerate(bars_of):
        refined = {reason: count for reason, count in reasons.items() if reason != "not-refined"}
        total, left = sum(refined.values()), 0.0
        for reason in [*REASON_COLOURS, *sorted(set(refined) - set(REASON_COLOURS))]:
            if not refined.get(reason):
                continue
            share = 100 * refined[reason] / total
            tint = REASON_COLOURS.get(reason, "#999999")
            axes.barh(place, share, left=left, color=tint, height=0.7, label=None if reason in shown else reason)
            shown.add(reason)
            left += share
        fallback = 1 - refined.get("ok", 0) / total if total else None
        text = "not refined" if fallback is None else f"fallback {100 * fallback:.1f} % of n = {total:,}"
        axes.text(101 if total else 1, place, text, va="center", fontsize="small")
        data.append({"refined": name, "piece": piece, "n": total, "fallback_rate": fallback} | refined)
    axes.set_yticks(range(len(bars_of)), [f"{name}\n{piece}" for name, piece, _ in bars_of], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("share of rewrites (%)")
    if shown:
        axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
    return Drawing(figure, data, [])


def training_curve(inputs: Inputs) -> Drawing:
    """Training loss per step: every run light, the mean of a method's runs solid as far as all of them go."""
    runs = {manifest["run"]: manifest["loss"] for manifest in inputs.manifests if manifest.get("loss")}
    kept = set(chosen_runs(inputs))
    runs = {run: losses for run, losses in sorted(runs.items()) if run in kept}
    figure, grid = panels(1, 1, 4.6, 3.2)
    axes = grid[0][0]
    data: list[dict] = []
    if not runs:
        say(axes, "not enough runs")
    for method in methods_of(inputs.results, runs):
        mine = {run: losses for run, losses in runs.items() if inputs.results.runs[run]["method"] == method}
        for losses in mine.values():
            axes.plot(range(1, len(losses) + 1), losses, color=colour(method), alpha=0.25, lw=0.7)
        mean = [sum(step) / len(step) for step in zip(*mine.values(), strict=False)]
        axes.plot(range(1, len(mean) + 1), mean, color=colour(method), lw=1.6, label=f"{label(method)} ({len(mine)} runs)")
        data += [
            {"run": run, "method": method, "steps": len(losses), "first": losses[0], "last": losses[-1]} for run, losses in mine.items()
        ]
    axes.set_xlabel("training step")
    axes.set_ylabel("loss (nats per response token)")
    if runs:
        axes.legend(fontsize="small")
    return Drawing(figure, data, list(runs))


def judge_agreement(inputs: Inputs) -> Drawing:
    """Each judge against people: accuracy with its interval, kappa, and the share of replies that could not be parsed."""
    reports = sorted(inputs.agreements, key=lambda report: (report["judge"], report["dataset"]))
    figure, grid = panels(1, 1, 6.0, 1.2 + 0.5 * max(2, len(reports)))
    axes = grid[0][0]
    if not reports:
        say(axes, "no judge was compared with people")
    for place, report in enumerate(reports):
        point = Estimate(report["accuracy"], *report["accuracy_ci"], report["n"])
        first = place == 0
        axes.barh(place, 100 * point.value, color=COLOURS["dgr"], alpha=0.75, height=0.6, label="accuracy" if first else None)
        axes.errorbar(100 * point.value, place, xerr=bars(point), color="0.2", capsize=2, lw=0.9, fmt="none")
        if report["kappa"] is not None:
            axes.scatter(
                [100 * report["kappa"]],
                [place],
                marker="D",
                color="white",
                ec="black",
                zorder=5,
                label="Cohen's κ × 100" if first else None,
            )
        text = f"n = {report['n']:,}, {100 * report['unparseable_rate']:.1f} % unparseable"
        axes.text(102, place, text, va="center", fontsize="small")
    axes.set_yticks(range(len(reports)), [f"{report['judge']}\n{report['dataset']}" for report in reports], fontsize="small")
    axes.invert_yaxis()
    axes.set_xlim(min([0.0, *(100 * (report["kappa"] or 0) - 3 for report in reports)]), 100)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("agreement with human labels (%)")
    if reports:
        axes.legend(fontsize="small", loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    return Drawing(figure, [{key: value for key, value in report.items() if key != "confusion"} for report in reports], [])


FIGURES: dict[str, Callable[[Inputs], Drawing]] = {
    "safety_reasoning_plane": safety_reasoning_plane,
    "method_bars": method_bars,
    "shift_tax": shift_tax,
    "activation_curve": activation_curve,
    "refinement_outcomes": refinement_outcomes,
    "training_curve": training_curve,
    "judge_agreement": judge_agreement,
}


# ---- to files -------------------------------------------------------------------------------------------------------------------------


def git_commit() -> str:
    """The commit of the code that draws, or "unknown" outside a repository."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def draw(inputs: Inputs, study: str, prefix: Path | str, command: Sequence[str]) -> None:
    """Write <prefix>.pdf, .png and the sidecar .json. Equal inputs give equal bytes. Raises UserError for an unknown kind of figure."""
    import matplotlib
    import seaborn

    kind = inputs.spec.get("figure")
    if kind not in FIGURES:
        raise UserError(f"figure: no kind is called {kind!r}; valid: {', '.join(FIGURES)}")
    style = {**matplotlib.rcParamsDefault, **seaborn.axes_style("ticks"), **seaborn.plotting_context("paper"), **STYLE}
    style = {key: value for key, value in style.items() if not key.startswith("backend") and key != "toolbar"}
    with matplotlib.rc_context(style):
        drawing = FIGURES[kind](inputs)
        drawing.figure.suptitle(inputs.spec.get("title", ""), fontsize="large")
        for suffix, metadata in (("pdf", {"CreationDate": None, "Producer": None, "Creator": None}), ("png", {"Software": None})):
            with atomic_path(f"{prefix}.{suffix}") as temporary:
                drawing.figure.savefig(temporary, format=suffix, metadata=metadata, bbox_inches="tight")
    sidecar = {"figure": kind, "title": inputs.spec.get("title", ""), "caption": inputs.spec.get("caption", ""), "study": study}
    sidecar |= {"data": drawing.data, "runs": drawing.runs, "n": len(drawing.runs), "commit": git_commit(), "command": shlex.join(command)}
    write_json(f"{prefix}.json", sidecar)
