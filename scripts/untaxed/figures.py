"""Figures of a study, drawn from its metrics and items: `FIGURES` maps a kind to its function, so a new figure is one function.

A figure function takes `Inputs` and returns a `Drawing`: the matplotlib figure, the records that it shows, and the runs they are from. What
the data cannot carry is said in the figure ("not enough runs"), never an error. The same method has the same colour everywhere, and no
other thing has it. Figures are at most 7 inches wide with no text below 7 points, so that they can be printed at their size. The option
`sources` (source: what it is) explains at the foot those sources that are shown.
"""

import shlex
import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from untaxed.agreement import QUESTIONS
from untaxed.metrics import ABLATION, LABELS, NOTEWORTHY, Measure, Results, base_of, by_setting, measure, safety_axis, select
from untaxed.records import UserError, atomic_path, git_commit, write_json
from untaxed.reported import column_measures, columns_of, entry_of, printed, runs_of
from untaxed.statistics import (
    FEWEST_SETTINGS,
    Estimate,
    frontier,
    hierarchical_mean,
    matched_difference,
    paired_bootstrap,
    pearson,
    span,
    spearman,
    wilson,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any colour vision.
COLOURS = {"none": "#7F7F7F", "vanilla": "#D55E00", "dgr": "#0072B2"}
# The styles of arXiv 2505.15404 (sources of its recipes), from Tol's palettes: apart from each other and from the methods' colours.
STYLES = {
    "default": "#661100",
    "realsafe": "#DDCC77",
    "improved": "#117733",
    "short": "#332288",
    "template": "#88CCEE",
    "no_cot": "#000000",
}
STYLE_NAMES = {
    "default": "Default",
    "realsafe": "RealSafe",
    "improved": "Improved",
    "short": "Short",
    "template": "Template",
    "no_cot": "No CoT",
}
OTHER_COLOURS = ("#009E73", "#CC79A7", "#E69F00", "#56B4E9")
REASON_COLOURS = {
    "ok": "#009E73",
    "overthinking": "#E69F00",
    "meta-thinking": "#CC79A7",
    "stray-marker": "#56B4E9",
    "empty": "#F0E442",
    "lost-refusal": "#882255",
}
DARK = ("lost-refusal",)  # reasons whose colour needs white letters
SIZES = {"vanilla": 7.5}  # larger and drawn first, so that a point below another method's still shows
POINT = 4.5
ENDINGS = {"truncated": "cut off", "empty": "no answer"}
MARKERS = ("o", "s", "^", "D", "v", "P")
FEW = 4  # markers that a reader keeps in mind
MODEL_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "h", "<", ">")
ATTACKED = ("asr_none", "asr_pap", "asr_pair", "asr_mean")  # columns of the papers' tables
WHOLE = {"ms": 6, "mec": "white", "mew": 0.5}  # points of the main figure without benign rows, and with them
HALF = {"ms": 6, "mew": 0.7, "fillstyle": "bottom", "mfcalt": "white"}
PRIOR = {"color": "0.25", "marker": "*", "ms": 10, "mec": "white", "mew": 0.5}
GAINED_PAID = {"gained": "harmful_score", "paid": "accuracy"}  # the axes of the main figure: what of the base is taken away
BEFORE_AFTER = {"before": "#BBBBBB", "after": "#4D4D4D"}
PATTERNS = (
    "lack_of_safety_awareness",
    "overthinking",
    "strong_vacillation",
    "weak_vacillation",
    "harmful_additions",
    "inconsistency",
)
SWEPT = {  # a field that runs are swept over: its axis, and how a tick is written
    "n": ("safety rows n", lambda tick: f"{tick:,}"),
    "learning_rate": ("learning rate", lambda tick: f"{tick:.0e}".replace("e-0", "e-")),
}
HATCHES = ("", "///", "...", "xxx", "---")
BINS = 30  # of the histogram of similarities
LINES = ("-", "--", ":", "-.")
AXES = {  # the arrow shows which way is better
    "accuracy": "reasoning accuracy (%) ↑",
    "refusal_rate": "refusal rate (%) ↑",
    "safe_rate": "safe answers (%) ↑",
    "harmful_score": "harmful score (%) ↓",
    "strongreject": "StrongREJECT score (0–100) ↓",
    "over_refusal": "over-refusal (%) ↓",
    "safety_tax": "safety tax (points of accuracy) ↓",
    "similarity": "similarity of outputs, base and run (cosine) →",
    "shift": "distribution shift (1 − output similarity)",
    "nll": "NLL of training targets under the base (nats per token)",
    "kl": "KL(tuned ‖ base) (nats per token)",
}
SIDES = ("judge_a", "judge_b")
CELL, ROOMY = 0.62, 0.85  # inches: the height of a cell of two judges, and the width from which all of it is said
STYLE = {"svg.hashsalt": "untaxed", "pdf.fonttype": 42, "figure.constrained_layout.use": True, "savefig.dpi": 200, "legend.frameon": False}
STYLE |= {"axes.spines.top": False, "axes.spines.right": False, "font.size": 8, "axes.labelsize": 8, "axes.titlesize": 8}
STYLE |= {"xtick.labelsize": 7.5, "ytick.labelsize": 7.5, "legend.fontsize": 7.5}
SMALL = 7.2  # points; the smallest text
PAGE, HEIGHT = 7.0, 2.6  # inches: the widest figure, the height of one panel


@dataclass(frozen=True)
class Inputs:
    """What a figure is drawn from: its spec, the study's results, and the reports that only some figures read."""

    spec: dict[str, Any]
    results: Results
    refine_reports: list[dict] = field(default_factory=list)
    manifests: list[dict] = field(default_factory=list)
    agreements: list[dict] = field(default_factory=list)
    dataset_reports: list[dict] = field(default_factory=list)
    judge_pairs: list[dict] = field(default_factory=list)
    filter_reports: list[dict] = field(default_factory=list)
    reported: dict[str, Any] = field(default_factory=dict)
    lengths: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class Drawing:
    """A figure, the records that it shows, the ids of the runs they are from (of the judges where no run is shown), and sentences for its
    foot.
    """

    figure: "Figure"
    data: list[dict[str, Any]]
    runs: list[str]
    notes: list[str] = field(default_factory=list)


# ---- shared pieces --------------------------------------------------------------------------------------------------------------------


def colour(method: str) -> str:
    return COLOURS.get(method) or OTHER_COLOURS[sum(map(ord, method)) % len(OTHER_COLOURS)]


def label(method: str) -> str:
    return LABELS.get(method, method)


def panels(
    rows: int, columns: int, width: float = PAGE / 2, height: float = HEIGHT, sharey: bool = False, **gridspec: Any
) -> "tuple[Figure, Any]":
    """An empty figure with a grid of axes, always as a two-dimensional array."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=sharey, gridspec_kw=gridspec)


def say(axes: "Axes", text: str) -> None:
    """A sentence in place of what the data cannot show."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4", fontsize=8)


def count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def explained(inputs: Inputs, runs: Iterable[str]) -> list[str]:
    """What each source of the runs is, as the spec's `sources` tells."""
    sources = sorted({str(inputs.results.runs[run]["source"]) for run in runs})
    words = inputs.spec.get("sources") or {}
    known = [f"{source}: {words[source]}" for source in sources if source in words]
    return ["Safety rows – " + "; ".join(known) + "."] if known else []


def steps_of_n(results: Results, runs: Iterable[str]) -> list[str]:
    """The runs of those series that hold more than one number of safety samples, for a single n says little of activation; else all."""
    runs = list(runs)
    groups: dict[tuple, list[str]] = defaultdict(list)
    for run in runs:
        groups[tuple(results.runs[run][key] for key in ("model", "recipe", "benign", "trainer"))].append(run)
    stepped = [run for members in groups.values() if len({results.runs[run]["n"] for run in members}) > 1 for run in members]
    return sorted(stepped) or runs


def looks_of(results: Results, runs: Iterable[str]) -> dict[tuple[str, int], str]:
    """A marker for each (trainer, n), whose trainer is "" where the runs have one only or there are more than FEW such pairs."""
    pairs = sorted({(results.runs[run]["trainer"], results.runs[run]["n"]) for run in runs})
    if len({trainer for trainer, _ in pairs}) == 1 or len(pairs) > FEW:
        pairs = sorted({("", n) for _, n in pairs})
    return {pair: MARKERS[number % len(MARKERS)] for number, pair in enumerate(pairs)}


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
        + STYLE_NAMES.get(source, str(source))
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
    scored = [run for run in sorted(runs) if measured.scores.get(run)]
    return hierarchical_mean([measured.scores[run] for run in scored], [measured.bases[run] for run in scored])


def tax_interval(results: Results, accuracy: Measure, runs: Iterable[str], tuned: Mapping[str, str] | None = None) -> Estimate | None:
    """Accuracy of each run's base minus that of the run on the same items, drawn over items and runs; None without a base or items.

    `tuned` names the base of runs that were not trained here.
    """
    bases = {run: base for run in runs if (base := (tuned or {}).get(run) or base_of(results, run)) not in (run, None)}
    pairs = {run: base for run, base in bases.items() if accuracy.scores.get(base) and accuracy.scores.get(run)}
    if not pairs:
        return None
    return paired_bootstrap(
        *({run: accuracy.scores[name] for run, name in each} for each in (pairs.items(), zip(pairs, pairs, strict=True))), pairs
    )


def bars(point: Estimate) -> list[list[float]]:
    """Lengths of the error bars in percent, as matplotlib wants them."""
    low = point.value if point.low is None else point.low
    high = point.value if point.high is None else point.high
    return [[max(0.0, 100 * (point.value - low))], [max(0.0, 100 * (high - point.value))]]


def interval_text(point: Estimate, scale: float = 100, digits: int = 1) -> str:
    text = f"{scale * point.value:+.{digits}f}"
    text = text if point.low is None else f"{text} [{scale * point.low:+.{digits}f}, {scale * point.high:+.{digits}f}]"
    return text.replace("-", "−")  # as on the axes


def drawn_over(results: Results, groups: Sequence[Iterable[str]], items: str = "items") -> str:
    """What the bootstrap intervals of groups of runs are drawn over, in words."""
    sizes = [len(set(group)) for group in groups]
    bases = any(len({results.runs[run]["base"] for run in group}) > 1 for group in groups)
    over = f"base models, runs and {items}" if bases else f"runs and {items}" if max(sizes, default=0) > 1 else items
    return over + (f" ({items} alone where there is one run)" if over != items and 1 in sizes else "")


def whiskers(results: Results, groups: Iterable[Iterable[str]], values: Iterable[float] = ()) -> list[str]:
    """What the whiskers of a figure are, from the runs behind each and the values that they stand on; nothing where there are none."""
    groups = [list(group) for group in groups]
    ends = "; Wilson’s at 0 and 100 %" if {0.0, 1.0} & set(values) else ""
    return [f"Whiskers – 95 % bootstrap intervals over {drawn_over(results, groups)}{ends}."] if groups else []


def record_of(point: Estimate | None, **fields: Any) -> dict[str, Any]:
    """A record of the sidecar."""
    known = {} if point is None else {"value": point.value, "ci_low": point.low, "ci_high": point.high, "n_items": point.n}
    return fields | known


def data_axis(axes: "Axes", which: str, ends: Sequence[float], least: float = 30) -> None:
    """Limits around the data in percent, at least `least` points apart and within 0–100 but for a margin."""
    low, high = min(ends, default=0.0), max(ends, default=100.0)
    missing = max(0.0, least - (high - low)) / 2
    low, high = max(0.0, low - missing - max(0.0, high + missing - 100)), min(100.0, high + missing + max(0.0, missing - low))
    margin = 0.05 * (high - low)
    percent_axis(axes, which, low - margin, high + margin)


def percent_axis(axes: "Axes", which: str, low: float = -3, high: float = 103) -> None:
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


def safety_metric(inputs: Inputs, runs: Sequence[str]) -> str:
    """`safety` of the spec, else `safety_axis`."""
    return inputs.spec.get("safety") or safety_axis(inputs.results, runs)


# ---- the figures ----------------------------------------------------------------------------------------------------------------------


def safety_reasoning_plane(inputs: Inputs) -> Drawing:
    """Safety against reasoning: runs light, seed means with both intervals, the frontier per method, and the gap at matched safety.

    Frontier and gap are left out, and the figure says why, where `matched_difference` cannot compare the methods.
    """
    results, runs = inputs.results, chosen_runs(inputs)
    bases = bases_of(results, runs)
    metric = safety_metric(inputs, runs + bases)
    safety = measure(results, metric, runs + bases, inputs.spec.get("judge"))
    accuracy = measure(results, "accuracy", runs + bases)
    runs = [run for run in runs if run in safety.values and run in accuracy.values]
    groups = facets(results, runs)
    markers = looks_of(results, runs)
    columns = min(2, max(1, len(groups)))
    figure, grid = panels(max(1, -(-len(groups) // columns)), columns, 3.5, 3.3)
    data: list[dict] = []
    for axes in grid.flat[max(1, len(groups)) :]:
        axes.set_visible(False)
    for axes, (key, members), title in zip(grid.flat, groups.items(), facet_titles(list(groups)), strict=False):
        for base in (base for base in bases if results.runs[base]["model"] == key[0]):
            data.append(_base_on_plane(axes, base, safety, accuracy))
        corners = {}
        for method in methods_of(results, members):
            mine = [run for run in members if results.runs[run]["method"] == method]
            records, corners[method] = _method_on_plane(axes, results, mine, safety, accuracy, markers)
            data += records
        gap, text = _gap_at_matched_safety(results, members, safety, accuracy)
        if gap is not None:
            for method, line in corners.items():
                axes.plot(*([100 * corner[axis] for corner in line] for axis in (0, 1)), color=colour(method), lw=5, alpha=0.25, zorder=1)
        axes.set_title(title, loc="left", fontweight="bold", pad=26)
        axes.text(0, 1.02, text, transform=axes.transAxes, fontsize=SMALL, va="bottom")
        _plane_legend(axes, results, members, bases, markers)
        data.append(record_of(gap, source=key[1], benign=key[2], model=key[0], kind="matched difference", said=text))
    shown = grid.flat[: max(1, len(groups))]
    for axes in shown:
        if not groups:
            say(axes, "not enough runs")
        axes.set_xlabel(AXES.get(metric, metric))
        axes.set_ylabel(AXES["accuracy"])
    if not groups:
        return Drawing(figure, data, sorted({*runs, *bases}))
    points = {which: [r for r in data if r.get("axis") == which] for which in (metric, "accuracy")}
    for which, name, measured in (("x", metric, safety), ("y", "accuracy", accuracy)):
        ends = [100 * value for run, value in measured.values.items() if run in {*runs, *bases}]
        ends += [100 * r[end] for r in points[name] for end in ("ci_low", "ci_high") if r[end] is not None]
        for axes in shown:
            data_axis(axes, which, ends)
    drawn = whiskers(results, by_setting(results, runs).values(), [r["value"] for each in points.values() for r in each])
    drawn += ["Bands – frontiers. Points of Vanilla SFT are larger, so that they show below others."]
    notes = [*explained(inputs, runs), *_prompt_notes(results, runs + bases, [safety, accuracy]), " ".join(drawn)]
    return Drawing(figure, data, sorted({*runs, *bases}), notes)


def _prompt_notes(results: Results, runs: Sequence[str], measures: Sequence[Measure]) -> list[str]:
    """On which prompts each axis stands, who judged them, and how many got no answer where that is noteworthy."""
    known = [measured for measured in measures if measured.benchmarks]
    if not known:
        return []
    items = [f"{AXES.get(measured.metric, measured.metric).split(' (')[0]}: {_items_text(measured)}" for measured in known]
    notes = [" ".join(["Prompts – " + "; ".join(items) + ".", *_judges_note(known)])]
    for benchmark in known[0].benchmarks:
        shares = measure(results, "empty", runs, benchmarks=[benchmark]).values.values()
        if max(shares, default=0) > NOTEWORTHY:
            notes.append(
                f"No final answer, to a phrase judge neither refusal nor harm: {span(100 * min(shares), 100 * max(shares))} %"
                f" of a run's generations on {benchmark}."
            )
    return notes


def _items_text(measured: Measure) -> str:
    counts: dict[str, int] = {}
    for benchmark in measured.benchmarks:
        names = {
            name for scores in measured.scores.values() for name, score in scores.items() if name[0] == benchmark and score is not None
        }
        counts[benchmark] = len(names)
    return ", ".join(f"{benchmark} ({number:,})" for benchmark, number in counts.items())


def _judges_note(measures: Iterable[Measure]) -> list[str]:
    """Who judged, once: the one judge of all measures, or each metric's."""
    judges: dict[str, list[str]] = {}
    for measured in measures:
        for judge in filter(None, measured.judge.split(", ")):
            judges.setdefault(judge, []).append(measured.metric.replace("_", " "))
    if len(judges) < 2:
        return [f"Judged by {judge}." for judge in judges]
    return ["Judged by " + "; ".join(f"{judge} ({', '.join(dict.fromkeys(metrics))})" for judge, metrics in judges.items()) + "."]


def _look(markers: dict[tuple[str, int], str], fields: dict[str, Any]) -> tuple[str, int]:
    """The key of a run's marker."""
    return next(pair for pair in ((fields["trainer"], fields["n"]), ("", fields["n"])) if pair in markers)


def _plane_legend(axes: "Axes", results: Results, runs: list[str], bases: list[str], markers: dict[tuple[str, int], str]) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.transforms import offset_copy

    handles = [Line2D([], [], marker="*", ls="", ms=10, mfc="none", mec=colour("none"), label=label("none"))] if bases else []
    for method in methods_of(results, runs):
        mine = [run for run in runs if results.runs[run]["method"] == method]
        handles.append(Line2D([], [], color=colour(method), lw=3, label=f"{label(method)} ({count(len(mine), 'run')})"))
    for trainer, n in sorted({_look(markers, results.runs[run]) for run in runs}):
        name = f"{trainer}, n = {n:,}" if trainer else f"n = {n:,}"
        handles.append(Line2D([], [], marker=markers[trainer, n], ls="", color="0.35", ms=5, label=name))
    handles.append(Line2D([], [], marker="o", ls="", color="0.75", ms=3, label="one run"))
    below = offset_copy(axes.transAxes, axes.figure, y=-30, units="points")  # under the label of the axis, however high the panel is
    wide = any(trainer for trainer, _ in markers)  # the names of trainers are long
    look = {"ncols": 2 if wide else 3, "columnspacing": 1, "handletextpad": 0.4, "handlelength": 1.4}
    axes.legend(handles=handles, loc="upper left", bbox_to_anchor=(-0.12, 0), bbox_transform=below, **look)


def _method_on_plane(
    axes: "Axes", results: Results, runs: list[str], safety: Measure, accuracy: Measure, markers: dict[tuple[str, int], str]
) -> tuple[list[dict], list[tuple[float, float]]]:
    """The records of a method's points, and the corners of its frontier."""
    method = results.runs[runs[0]]["method"]
    data, means = [], []
    xs, ys = ([100 * measured.values[run] for run in runs] for measured in (safety, accuracy))
    axes.scatter(xs, ys, s=11, color=colour(method), alpha=0.3, lw=0, zorder=1.5)
    for members in by_setting(results, runs).values():
        x, y = estimate(safety, members), estimate(accuracy, members)
        if x is None or y is None:
            continue
        means.append((x.value, y.value))
        fields = results.runs[members[0]]
        look = {"fmt": markers[_look(markers, fields)], "ms": SIZES.get(method, POINT), "mec": "white", "mew": 0.5}
        axes.errorbar(100 * x.value, 100 * y.value, bars(y), bars(x), color=colour(method), lw=0.8, capsize=1.5, **look)
        common = {key: fields[key] for key in ("model", "recipe", "source", "method", "benign", "trainer", "n")} | {"seeds": len(members)}
        data.append(record_of(x, axis=safety.metric, judge=safety.judge, **common))
        data.append(record_of(y, axis="accuracy", judge="", **common))
    return data, frontier(means)


def _base_on_plane(axes: "Axes", base: str, safety: Measure, accuracy: Measure) -> dict:
    x, y = safety.values.get(base), accuracy.values.get(base)
    if x is not None and y is not None:
        axes.scatter([100 * x], [100 * y], marker="*", s=110, fc="none", ec=colour("none"), lw=1.2, zorder=5)
    return {"method": "none", "run": base, safety.metric: x, "accuracy": y}


def _gap_at_matched_safety(results: Results, runs: list[str], safety: Measure, accuracy: Measure) -> tuple[Estimate | None, str]:
    """DGR − Vanilla at matched safety and the sentence that says it, or None and the sentence that says why not."""
    points: dict[str, list] = {"dgr": [], "vanilla": []}
    origins: dict[str, list] = {"dgr": [], "vanilla": []}
    for run in runs:
        if (method := results.runs[run]["method"]) in points:
            setting = tuple(results.runs[run][key] for key in ("model", "source", "recipe", "benign", "trainer", "n"))
            points[method].append((setting, safety.items(run), accuracy.items(run)))
            origins[method].append(safety.bases[run])
    origin = [*origins["dgr"], *origins["vanilla"]]
    gap, reason = matched_difference(points["dgr"], points["vanilla"], origin, names=(label("dgr"), label("vanilla")))
    if gap is None:
        return None, f"no comparison at matched safety:\n{reason}"
    return gap, f"DGR − Vanilla at matched safety:\n{interval_text(gap)} points of accuracy"


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
    endings = {metric: _per_benchmark(results, metric, runs + bases, None) for metric in ENDINGS}
    widths = [max(2, len(found)) for found in measures.values()] or [1]
    figure, grid = panels(max(1, len(rows)), len(widths), PAGE / len(widths), HEIGHT, width_ratios=widths)
    data: list[dict] = []
    if not rows:
        say(grid[0][0], "not enough runs")
    for row, (key, members), title in zip(grid, rows.items(), facet_titles(list(rows)), strict=False):
        mine = [base for base in bases if results.runs[base]["model"] == key[0]]
        groups = series(results, mine + members, ("recipe", "n"))
        place = dict(zip(("model", "source", "benign", "trainer"), key, strict=True))
        for axes, (metric, found) in zip(row, measures.items(), strict=True):
            data += _bar_panel(axes, groups, place, metric, found, endings, reported=inputs.spec.get("reported") or [])
        row[0].set_title(title, loc="left", fontweight="bold", pad=20)
        handles, names = row[0].get_legend_handles_labels()
        known = dict(zip(names, handles, strict=True))
        legend = row[0].legend(known.values(), known.keys(), loc="lower left", bbox_to_anchor=(-0.05, 0.98), ncols=5)
        legend.set_in_layout(False)  # it runs on over the next panels, which have no titles
    ours = [record["value"] for record in data if record.get("kind") != "reported"]
    notes = explained(inputs, runs) + (whiskers(results, by_setting(results, runs + bases).values(), ours) if ours else [])
    if any(record.get(metric, 0) > NOTEWORTHY for record in data for metric in ENDINGS):
        notes.append(
            "cut off: generations that met the token limit; no answer: without a final answer, to a phrase judge neither refusal nor harm"
            f" (% of each bar from left to right, or its range; said above {100 * NOTEWORTHY:.0f} %)."
        )
        narrow = {benchmark for found in measures.values() if len(found) > 2 for benchmark in found}
        notes += _ending_notes([record for record in data if record["benchmark"] in narrow])
    return Drawing(figure, data, sorted({*runs, *bases}), notes)


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
    endings: dict[str, dict[str, Measure]],
    *,
    reported: Sequence[dict],
) -> list[dict]:
    data, ticks, width = [], [], 0.8 / max(1, len(groups))
    for number, (benchmark, measured) in enumerate(found.items()):
        ended: dict[str, list[float]] = {name: [] for name in ENDINGS}
        sizes: list[int] = []
        for offset, ((method, name), runs) in enumerate(groups.items()):
            x = number - 0.4 + width * (offset + 0.5)
            fields = place | {"benchmark": benchmark, "metric": metric, "method": method}
            shares = {ending: _mean_value(of.get(benchmark), runs) for ending, of in endings.items()}
            shares = {ending: share for ending, share in shares.items() if share is not None}
            for ending, share in shares.items():
                ended[ending].append(share)
            point = estimate(measured, runs)
            sizes.append(point.n if point else 0)
            if point is not None:
                text = f"{name} ({count(len(runs), 'run')})"
                hatch = HATCHES[[each for of, each in groups if of == method].index(name) % len(HATCHES)]
                axes.bar(x, 100 * point.value, width * 0.92, color=colour(method), alpha=0.85, hatch=hatch, label=text)
                axes.errorbar(x, 100 * point.value, bars(point), color="0.15", lw=0.9, capsize=2, fmt="none")
                data.append(record_of(point, **fields, series=name, runs=len(runs), judge=measured.judge, **shares))
            else:
                axes.text(x, 2, "no score", rotation=90, fontsize=SMALL, color="0.4", ha="center", va="bottom")
            for value in (entry for entry in reported if all(entry.get(key, known) == known for key, known in fields.items())):
                axes.scatter([x], [value["value"]], marker="D", s=26, fc="white", ec="black", zorder=6, label="reported in the paper")
                data.append({**value, **fields, "kind": "reported"})
        said = [
            f"{ENDINGS[ending]} {_shares(shares, len(found) == 1)}"
            for ending, shares in ended.items()
            if max(shares, default=0) > NOTEWORTHY
        ]
        apart = len(set(sizes)) > 1 and len(found) == 1
        items = " / ".join(map(str, sizes)) + " items" if apart else count(max(sizes, default=0), "item")
        narrow = len(found) > 2  # one slanted line a benchmark; the foot of the figure has the rest
        ticks.append(f"{benchmark} ({max(sizes, default=0):,})" if narrow else "\n".join([benchmark, items, *said]))
    slant = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if len(found) > 2 else {}
    axes.set_xticks(range(len(found)), ticks, fontsize=SMALL, **slant)
    axes.set_ylabel(AXES.get(metric, metric), labelpad=1)
    percent_axis(axes, "y", 0, 105)
    return data


def _ending_notes(records: Sequence[dict]) -> list[str]:
    """For each way of ending, its range over the bars of every benchmark where it is noteworthy."""
    notes = []
    for ending, words in ENDINGS.items():
        shares: dict[str, list[float]] = defaultdict(list)
        for record in records:
            if ending in record:
                shares[record["benchmark"]].append(record[ending])
        said = [f"{benchmark} {_shares(each, False)}" for benchmark, each in sorted(shares.items()) if max(each) > NOTEWORTHY]
        notes += [f"{words}: {', '.join(said)}."] if said else []
    return notes


def _mean_value(measured: Measure | None, runs: Sequence[str]) -> float | None:
    values = [measured.values[run] for run in runs if run in measured.values] if measured else []
    return sum(values) / len(values) if values else None


def _shares(shares: Sequence[float], each: bool) -> str:
    """Shares in percent, one by one or as their range."""
    return (" / ".join(f"{100 * share:.0f}" for share in shares) if each else span(100 * min(shares), 100 * max(shares))) + " %"


def shift_tax(inputs: Inputs) -> Drawing:
    """Distribution shift against safety tax: runs light, settings solid with both intervals, Pearson and Spearman over the settings.

    The tax is drawn over seeds and items, paired with the base; shift over seeds and prompts where both are known, all else over seeds.
    """
    results, runs = inputs.results, chosen_runs(inputs)
    metric = inputs.spec.get("x", "shift")
    shift, tax = measure(results, metric, runs), measure(results, "safety_tax", runs)
    runs = [run for run in runs if run in shift.values and run in tax.values]
    accuracy = measure(results, "accuracy", runs + bases_of(results, runs))
    figure, grid = panels(1, 1, 4.8, 3.5)
    axes = grid[0][0]
    sources = sorted({results.runs[run]["source"] for run in runs})
    data: list[dict] = []
    means: list[tuple[float, float]] = []
    axes.axhline(0, color="0.7", lw=0.8, zorder=0)
    letters = _letters(results, runs)
    lettered: list[tuple[float, float, str, str]] = []
    for members in by_setting(results, runs).values():
        fields = results.runs[members[0]]
        tint = colour(fields["method"])
        look = {"marker": MARKERS[sources.index(fields["source"]) % len(MARKERS)], "color": tint}
        axes.scatter([shift.values[run] for run in members], [100 * tax.values[run] for run in members], s=9, alpha=0.3, lw=0, **look)
        x, y = shift_interval(shift, members), _tax_estimate(results, accuracy, tax, members)
        width = [[max(0.0, x.value - x.low)], [max(0.0, x.high - x.value)]] if x.low is not None else None
        fill = {"mfc": "white", "mec": tint} if fields["benign"] else {"mec": "white", "mew": 0.5}
        point = {"ms": SIZES.get(fields["method"], POINT) - 0.5, "ls": "", "elinewidth": 0.7, "capsize": 1.5, "zorder": 3}
        axes.errorbar(x.value, 100 * y.value, bars(y), width, **look, **fill, **point)
        if letter := letters.get((fields["trainer"], fields["n"])):
            lettered.append((x.value, 100 * y.value, letter, tint))
        means.append((x.value, y.value))
        common = {key: fields[key] for key in ("model", "recipe", "source", "method", "benign", "trainer", "n")} | {"seeds": len(members)}
        intervals = {f"{metric}_ci": [x.low, x.high], "safety_tax_ci": [y.low, y.high]}
        data.append(common | {"x": metric, metric: x.value, "safety_tax": y.value, "n_items": y.n} | intervals)
    enough = len(means) >= FEWEST_SETTINGS
    correlations = {
        name: function(*zip(*means, strict=True)) if enough else None
        for name, function in (("Pearson r", pearson), ("Spearman ρ", spearman))
    }
    points = f"{count(len(means), 'setting')}, {count(len(runs), 'run')}"
    lines = [f"{name} = {interval_text(value, 1, 2)}, n = {value.n} settings" for name, value in correlations.items() if value]
    lines = lines or (
        [f"too few points for a correlation: {points}"] if not enough else [f"no correlation, one side does not vary: {points}"]
    )
    data += [record_of(value, kind=name, settings=len(means)) for name, value in correlations.items()]
    if runs:
        axes.set_title("\n".join(lines), fontsize=SMALL, loc="left")
        _shift_legend(axes, results, runs, sources, letters)
    else:
        say(axes, "not enough runs")
    axes.set_xlabel(AXES.get(metric, metric))
    axes.set_ylabel(AXES["safety_tax"])
    _write_beside(axes, lettered)
    return Drawing(figure, data, runs, [*explained(inputs, runs), *_shift_whiskers(results, runs, shift)])


def shift_histogram(inputs: Inputs) -> Drawing:
    """How alike the outputs of a run and of its base are, prompt by prompt: a panel per facet with a histogram and the mean per method.

    Outputs of all seeds are counted together, as a share of all. The bins are the same in every panel, so that panels can be compared.
    """
    import numpy as np

    results = inputs.results
    chosen = chosen_runs(inputs)
    alike = measure(results, "similarity", chosen)
    runs = [run for run in chosen if alike.scores.get(run)]
    rows = facets(results, runs, by_trainer=True)
    across = min(2, len(rows)) or 1
    figure, grid = panels(-(-len(rows) // across) or 1, across, PAGE / 2 if across > 1 else 4.8, HEIGHT, sharey=True)
    edges = np.histogram_bin_edges([score for run in runs for score in alike.scores[run].values()], BINS)
    data: list[dict] = []
    for axes in grid.flat[len(rows) :]:
        axes.set_axis_off()
    if not rows:
        say(grid[0][0], "not enough runs")
    for row in grid:
        row[0].set_ylabel("outputs (%)")
    for axes, (key, members), title in zip(grid.flat, rows.items(), facet_titles(list(rows)), strict=False):
        drawn: Counter[str] = Counter()
        for (method, name), group in series(results, members, ("recipe", "n")).items():
            counts, _ = np.histogram([score for run in group for score in alike.scores[run].values()], edges)
            point, look = estimate(alike, group), {"color": colour(method), "ls": LINES[drawn[method] % len(LINES)]}
            drawn[method] += 1
            shares = 100 * counts / counts.sum()
            axes.stairs(shares, edges, fill=True, color=colour(method), alpha=0.25)
            axes.stairs(shares, edges, lw=1.2, label=f"{name} ({count(len(group), 'run')}), mean {point.value:.2f}", **look)
            axes.axvline(point.value, lw=1.2, **(look | {"ls": "--"}))
            place = dict(zip(("model", "source", "benign", "trainer"), key, strict=True))
            binned = {"edges": [round(float(edge), 6) for edge in edges], "counts": counts.tolist()}
            data.append(record_of(point, **place, method=method, series=name, runs=len(group), metric="similarity", **binned))
        axes.set_xlabel(AXES["similarity"])
        _legend_above([axes], title, 1)
    notes = explained(inputs, runs) + ([f"Dashed: means. {BINS} bins, the same in every panel."] if data else [])
    if missing := len(chosen) - len(runs):
        notes.append(f"Not shown: {count(missing, 'run')} without the similarity of each output.")
    return Drawing(figure, data, runs, notes)


def _shift_whiskers(results: Results, runs: Sequence[str], shift: Measure) -> list[str]:
    """What the whiskers of both axes are; a shift whose items are unknown has none where there is one run."""
    groups = list(by_setting(results, runs).values())
    if not groups:
        return []
    text = f"Whiskers – 95 % bootstrap intervals: of the tax over {drawn_over(results, groups)}, paired with the base"
    if any(shift.scores.get(run) for run in runs):
        text += f"; of the {shift.metric} over {drawn_over(results, groups, 'prompts')}"
    elif several := [group for group in groups if len(group) > 1]:
        text += f"; of the {shift.metric} over {drawn_over(results, several, '').removesuffix(' and ')}"
    return [text + "."]


def _write_beside(axes: "Axes", points: Sequence[tuple[float, float, str, str]]) -> None:
    """A short text (x, y, text, colour) beside each point, on no point and no other text where there is such a place.

    Points on one another share a place. A text that stands further off has a thin line to its point.
    """
    from matplotlib.patheffects import withStroke

    axes.figure.draw_without_rendering()  # the layout, so that distances on the page are known
    scale = 72 / axes.figure.dpi
    heaps: list[tuple[float, float, list[tuple[float, float, str, str]]]] = []
    for point in sorted(points):
        across, up = scale * axes.transData.transform(point[:2])
        heap = next((each for each in heaps if abs(each[0] - across) < 2 and abs(each[1] - up) < 2), None)
        if heap is None:
            heap = (across, up, [])
            heaps.append(heap)
        heap[2].append(point)
    frame = axes.get_window_extent()
    left, bottom, right, top = (scale * end for end in (frame.x0, frame.y0, frame.x1, frame.y1))
    taken = [(across - 3.5, up - 3.5, across + 3.5, up + 3.5) for across, up, _ in heaps]
    for across, up, heap in heaps:
        text = ", ".join(sorted({point[2] for point in heap}))
        tints = {point[3] for point in heap}
        width, best = 4.4 * len(text) + 1, None
        for far in (0, 7, 14, 21, 28):
            right_of, left_of, centred, over, under = 4 + far, -4 - far - width, -width / 2, 3 + far, -10 - far
            for dx, dy in (
                (right_of, over),
                (left_of, over),
                (right_of, under),
                (left_of, under),
                (centred, over + 2),
                (centred, under - 2),
            ):
                box = (across + dx, up + dy, across + dx + width, up + dy + 7)
                covered = sum(box[0] < r and l_ < box[2] and box[1] < t and b < box[3] for l_, b, r, t in taken)
                covered += 2 * (box[0] < left or box[2] > right or box[1] < bottom or box[3] > top)
                if best is None or covered < best[0]:
                    best = (covered, far, (dx, dy), box)
        _, far, place, box = best
        taken.append(box)
        ink = tints.pop() if len(tints) == 1 else "0.2"
        look = {"fontsize": SMALL, "color": ink, "zorder": 6, "path_effects": [withStroke(linewidth=1.5, foreground="white")]}
        line = {"arrowprops": {"arrowstyle": "-", "lw": 0.4, "color": ink, "shrinkA": 0, "shrinkB": 2}} if far else {}
        axes.annotate(text, heap[0][:2], place, textcoords="offset points", **look, **line)


def shift_interval(shift: Measure, runs: Sequence[str]) -> Estimate:
    """Mean over the runs, drawn over seeds and prompts where each prompt's similarity is known, else over seeds; no interval of one run."""
    value = sum(shift.values[run] for run in runs) / len(runs)
    point = estimate(shift, runs)
    if point is None and len(runs) > 1:
        point = hierarchical_mean([shift.items(run) for run in runs], [shift.bases[run] for run in runs])
    return Estimate(value, point.low, point.high, point.n) if point else Estimate(value, None, None, len(runs))


def _tax_estimate(results: Results, accuracy: Measure, tax: Measure, runs: Sequence[str]) -> Estimate:
    """Accuracy of the base minus that of the runs, item by item."""
    value = sum(tax.values[run] for run in runs) / len(runs)
    point = tax_interval(results, accuracy, runs)
    return Estimate(value, point.low, point.high, point.n) if point else Estimate(value, None, None, 0)


def _letters(results: Results, runs: Iterable[str]) -> dict[tuple[str, int], str]:
    """A letter for each (trainer, n); none where there is one of them, or more than FEW."""
    pairs = sorted({(results.runs[run]["trainer"], results.runs[run]["n"]) for run in runs})
    return dict(zip(pairs, "abcdefgh", strict=False)) if 1 < len(pairs) <= FEW else {}


def _shift_legend(
    axes: "Axes", results: Results, runs: Sequence[str], sources: Sequence[str], letters: Mapping[tuple[str, int], str]
) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour(method), lw=3, label=label(method)) for method in methods_of(results, runs)]
    for number, source in enumerate(sources):
        handles.append(Line2D([], [], marker=MARKERS[number % len(MARKERS)], ls="", color="0.5", ms=5, label=source))
    if len({bool(results.runs[run]["benign"]) for run in runs}) > 1:
        handles.append(Line2D([], [], marker="o", ls="", mfc="white", mec="0.5", ms=5, label="open: with\nbenign rows"))
    for (trainer, n), letter in letters.items():
        handles.append(Line2D([], [], marker=f"$\\mathrm{{{letter}}}$", ls="", color="0.2", ms=5, mew=0, label=f"{trainer}, n = {n:,}"))
    handles.append(Line2D([], [], marker="o", ls="", color="0.75", ms=3, label="one run"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))


def activation_curve(inputs: Inputs) -> Drawing:
    """Safety samples against refusal, over-refusal and accuracy, the base at 0: a row per source, a line per method, trainer and recipe.

    Over-refusal only where it was measured. Where some were trained with more than one number of samples, only those.
    """
    results = inputs.results
    runs = steps_of_n(results, chosen_runs(inputs))
    bases = bases_of(results, runs)
    metric = safety_metric(inputs, runs + bases)
    judge = inputs.spec.get("judge")
    measures = [measure(results, metric, runs + bases, judge), measure(results, "over_refusal", runs + bases, judge)]
    measures = [measures[0], *(each for each in measures[1:] if each.values), measure(results, "accuracy", runs + bases)]
    groups = facets(results, runs)
    figure, grid = panels(max(1, len(groups)), len(measures), PAGE / len(measures), 2.3)
    data: list[dict] = []
    if not groups:
        for axes in grid[0]:
            say(axes, "not enough runs")
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
                xs, ys = [n * (1 + 0.05 * shade) for n, _, _ in path], [100 * point.value for _, point, _ in path]
                errors = [[bars(point)[side][0] for _, point, _ in path] for side in (0, 1)]
                name = f"{line} ({count(sum(number_of for n, _, number_of in path if n), 'run')})"
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
                data += [record_of(point, n=n, runs=number_of, **fields) for n, point, number_of in path]
            if start := [base for base in mine if base in measured.values]:
                look = {"marker": "*", "s": 60, "fc": "white", "ec": colour("none"), "lw": 1.2, "zorder": 5}
                axes.scatter([0], [100 * estimate(measured, start).value], label=f"{label('none')} ({count(len(start), 'run')})", **look)
            _sample_axis(axes, sorted({results.runs[run]["n"] for run in members} | {0}), largest)
            axes.set_ylabel(AXES.get(measured.metric, measured.metric))
            percent_axis(axes, "y")
        known = {name: handle for axes in row for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
        row[0].set_title(title, loc="left", fontweight="bold", pad=8 + 12 * -(-len(known) // 3))
        legend = row[0].legend(known.values(), known.keys(), loc="lower left", bbox_to_anchor=(-0.05, 0.98), ncols=3)
        legend.set_in_layout(False)  # it runs on over the next panels, which have no titles
    for axes in grid[-1]:
        axes.set_xlabel("safety samples n (0 = base)")
    drawn = whiskers(results, by_setting(results, runs + bases).values(), [record["value"] for record in data]) if data else []
    notes = [*explained(inputs, runs), *_prompt_notes(results, runs + bases, measures), *drawn]
    return Drawing(figure, data, sorted({*runs, *bases}), notes)


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

    Reads reports of `refine` as `metrics.read_refine_reports` gives them; those that none of the chosen runs trained on are left out.
    """
    chosen = set(chosen_runs(inputs))
    reports = [report for report in inputs.refine_reports if chosen & set(report["runs"])]
    bars_of = [
        (report["name"], piece, reasons)
        for report in sorted(reports, key=lambda report: report["name"])
        for piece, reasons in sorted(report["pieces"].items(), reverse=True)
        if sum(reasons.values())
    ]
    figure, grid = panels(1, 1, PAGE, 1.0 + 0.46 * max(2, len(bars_of)))
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
            if share >= 8:
                ink = "white" if reason in DARK else "black"
                axes.text(left + share / 2, place, f"{share:.0f} %", ha="center", va="center", fontsize=SMALL, color=ink)
            left += share
        fallback = 1 - refined.get("ok", 0) / total if total else None
        text = "not refined" if fallback is None else f"fallback {100 * fallback:.1f} %\nof {count(total, 'row')}"
        axes.text(101 if total else 1, place, text, va="center", fontsize=SMALL)
        data.append({"refined": name, "piece": piece, "n": total, "fallback_rate": fallback} | refined)
    axes.set_yticks(range(len(bars_of)), ["\n".join([*_lines(name), piece]) for name, piece, _ in bars_of], fontsize=SMALL)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of rewrites (%); all but ok fall back to the original")
    if shown:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=5)
    return Drawing(figure, data, sorted({run for report in reports for run in report["runs"]} & chosen))


def _lines(name: str) -> list[str]:
    """`dataset / model / refinement` in two short lines."""
    first, *rest = name.split(" / ")
    return [first, " / ".join(rest)] if rest else [first]


def training_curve(inputs: Inputs) -> Drawing:
    """Training loss per step, a panel per source: every run light, the mean over the seeds of a setting solid as far as all of them go.

    Panels of one model have one scale; the tokens of two models are not the same unit.
    """
    results = inputs.results
    losses = {manifest["run"]: manifest["loss"] for manifest in inputs.manifests if manifest.get("loss")}
    runs = [run for run in chosen_runs(inputs) if run in losses]
    groups = facets(results, runs)
    columns = min(2, max(1, len(groups)))
    figure, grid = panels(max(1, -(-len(groups) // columns)), columns, 3.5, 2.7)
    data: list[dict] = []
    if not groups:
        say(grid[0][0], "not enough runs")
    for axes in grid.flat[max(1, len(groups)) :]:
        axes.set_visible(False)
    for axes, (key, members), title in zip(grid.flat, groups.items(), facet_titles(list(groups)), strict=False):
        lines = series(results, members, ("trainer", "recipe", "n"))
        several = len({method for method, _ in lines}) > 1
        for (method, name), mine in lines.items():
            tint = colour(method) if several else family_colour(results.runs[mine[0]])
            for run in mine:
                axes.plot(range(1, len(losses[run]) + 1), losses[run], color=tint, alpha=0.25, lw=0.7)
            mean = [sum(step) / len(step) for step in zip(*(losses[run] for run in mine), strict=False)]
            dashes = LINES[[each for of, each in lines if of == method].index(name) % len(LINES)]
            look = {"color": tint, "linestyle": dashes, "label": f"{name} ({count(len(mine), 'run')})"}
            axes.plot(range(1, len(mean) + 1), mean, lw=1.3, **look)
            place = dict(zip(("model", "source", "benign"), key, strict=False))
            data.append(place | {"method": method, "series": name, "runs": len(mine), "loss": [round(value, 4) for value in mean]})
        axes.set_title(title, loc="left", fontweight="bold", pad=8 + 11 * len(lines))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 0.98))  # above the axes, where no line passes
    for axes in grid.flat[: max(1, len(groups))]:
        axes.set_xlabel("training step")
        axes.set_ylabel("loss (nats/token) ↓")
        axes.set_ylim(bottom=0)
    for axes, (model, *_) in zip(grid.flat, groups, strict=False):
        highest = max(max(losses[run]) for (of, *_), members in groups.items() if of == model for run in members)
        axes.set_ylim(0, 1.05 * highest)
    return Drawing(figure, data, runs, explained(inputs, runs))


def judge_agreement(inputs: Inputs) -> Drawing:
    """Each judge against people: accuracy with its interval, kappa, and the share of replies that could not be parsed."""
    reports = sorted(inputs.agreements, key=lambda report: (report["judge"], report["dataset"]))
    figure, grid = panels(1, 1, 6.0, 1.1 + 0.45 * max(2, len(reports)))
    axes = grid[0][0]
    if not reports:
        say(axes, "no judge was compared with people")
    for place, report in enumerate(reports):
        point = Estimate(report["accuracy"], *report["accuracy_ci"], report["n"])
        unread = 100 * report["unparseable_rate"]
        if unread:
            name = "unparseable (counted as wrong)"
            axes.barh(place, unread, left=100 - unread, color="0.93", ec="0.6", lw=0.5, hatch="////", height=0.6, label=name)
        if unread < 100:
            axes.barh(place, 100 * point.value, color=OTHER_COLOURS[0], alpha=0.75, height=0.6, label="accuracy")
            axes.errorbar(100 * point.value, place, xerr=bars(point), color="0.2", capsize=2, lw=0.9, fmt="none")
            if report["kappa"] is not None:
                axes.scatter([100 * report["kappa"]], [place], marker="D", color="white", ec="black", zorder=5, label="Cohen's κ × 100")
        else:
            box = {"fc": "white", "ec": "none", "pad": 2}
            axes.text(50, place, "unparseable 100 %: nothing was judged", ha="center", va="center", fontsize=8, bbox=box)
        text = count(report["n"], "item") + (f"\n{unread:.1f} % unparseable" if 0 < unread < 100 else "")
        axes.text(102, place, text, va="center", fontsize=SMALL)
    axes.set_yticks(range(len(reports)), [f"{report['judge']}\nset: {report['dataset']}" for report in reports], fontsize=SMALL)
    axes.invert_yaxis()
    axes.set_xlim(min([0.0, *(100 * (report["kappa"] or 0) - 3 for report in reports)]), 100)
    axes.set_xlabel("agreement with human labels (%) →" if reports else "agreement with human labels (%)")
    if reports:
        handles, names = axes.get_legend_handles_labels()
        known = dict(zip(names, handles, strict=True))
        axes.legend(known.values(), known.keys(), loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    records = [{key: value for key, value in report.items() if key != "confusion"} for report in reports]
    notes = ["Whiskers – 95 % Wilson intervals over the labelled items."] if reports else []
    return Drawing(figure, records, sorted({report["judge"] for report in reports}), notes)


def judge_pairs(inputs: Inputs) -> Drawing:
    """Cohen's kappa of every two judges, with the share of samples on which they agree: a panel for harm, and one for over-refusal.

    Reads the records of `agreement.compare_judges`. A cell stays empty where two judges have no sample in common.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    pairs = inputs.judge_pairs
    shown = {metric: [pair for pair in pairs if pair["metric"] == metric] for metric in QUESTIONS}
    judges = {metric: list(dict.fromkeys(pair[side] for pair in mine for side in SIDES)) for metric, mine in shown.items()}
    sizes = [max(1, len(names) - 1) for names in judges.values()]
    stacked = max(sizes) > 2
    rows, columns, inches = (2, 1, PAGE - 2.2) if stacked else (1, 2, PAGE / 2 - 1.55)
    height = (1.4 + CELL * sum(sizes) / 2) if stacked else 1.2 + CELL * max(sizes)
    figure, grid = panels(rows, columns, PAGE / columns, height, **({"height_ratios": sizes} if stacked else {}))
    shades = ScalarMappable(Normalize(0, 1), LinearSegmentedColormap.from_list("kappa", ("#EEF5F2", OTHER_COLOURS[0])))
    room = inches / max(sizes)
    for axes, (metric, mine), own in zip(grid.flat, shown.items(), sizes, strict=True):
        axes.set_title(QUESTIONS[metric], loc="left", fontweight="bold")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        names = judges[metric]
        for pair in mine:
            column, row = sorted(names.index(pair[side]) for side in SIDES)
            known = pair["kappa"] is not None
            look = {"fc": shades.to_rgba(pair["kappa"]), "ec": "white"} if known else {"fc": "0.96", "ec": "0.8"}
            axes.bar(column, 1, 1, bottom=row - 1.5, lw=1, hatch="" if pair["n_read"] else "////", **look)
            box = {} if known else {"bbox": {"fc": "0.96", "ec": "none", "pad": 1}}
            axes.text(column, row - 1, _pair_text(pair, room), ha="center", va="center", fontsize=SMALL, linespacing=1.15, **box)
        if not mine:
            say(axes, "no two judges answered this\nabout the same samples")
        axes.set_xticks(range(len(names[:-1])), names[:-1], fontsize=SMALL, rotation=30, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names[1:])), names[1:], fontsize=SMALL)
        axes.set_xlim(-0.5, max(sizes) - 0.5)
        axes.set_ylim((own if stacked else max(sizes)) - 0.5, -0.5)
    if pairs:
        below = any((pair["kappa"] or 0) < 0 for pair in pairs)
        figure.colorbar(
            shades, ax=grid, label="Cohen’s κ →", fraction=0.03, aspect=6 + 2 * sum(sizes), extend="min" if below else "neither"
        )
    counted = ("confusion", "verdicts", "differences")
    records = [{key: value for key, value in pair.items() if key not in counted} for pair in pairs]
    return Drawing(figure, records, sorted({pair[side] for pair in pairs for side in SIDES}), _pair_notes(pairs, room))


def _pair_text(pair: Mapping[str, Any], room: float) -> str:
    """What stands in the cell of two judges, of so many inches: less where there is less room."""
    if not pair["n_read"]:
        return f"all {pair['n']:,}\nunread"
    low, high = pair["kappa_ci"]
    share, items, unread = f"{100 * pair['agreement']:.0f} %", f"of {pair['n_read']:,}", pair["n"] - pair["n_read"]
    lines = ["κ –" if pair["kappa"] is None else f"{pair['kappa']:.2f}"]
    if room >= ROOMY:
        lines += [f"[{low:.2f}, {high:.2f}]"] if low is not None else []
        lines += [f"{share} {items}"] + ([f"{unread:,} unread"] if unread else [])
    else:
        lines += [share, items] if room >= ROOMY / 2 else [share]
    return "\n".join(lines).replace("-", "−")


def _pair_notes(pairs: Sequence[Mapping[str, Any]], room: float) -> list[str]:
    if not pairs:
        return ["Fewer than two judges judged the same samples of this study."]
    over = "runs and prompts" if max(pair["runs"] for pair in pairs) > 1 else "prompts"
    drawn = room >= ROOMY and any(pair["kappa_ci"][0] is not None for pair in pairs)
    interval = f" [95 % bootstrap interval over {over}]" if drawn else ""
    items = "" if room < ROOMY / 2 else ", of so many samples"
    notes = [f"Cells – Cohen’s κ{interval}; the share on which two judges agree{items}."]
    if any(pair["n_read"] and pair["kappa"] is None for pair in pairs):
        notes.append("κ – : both judges gave one and the same answer throughout.")
    if any(pair["n"] > pair["n_read"] for pair in pairs):
        notes.append("Unread: samples on which one of the two judges was unparseable; they are in neither number.")
    return notes


def ablated_runs(inputs: Inputs) -> list[str]:
    """The runs of the source ABLATION and, beside them, the chosen runs of the same model, trainer and n; none where nothing was varied."""
    runs = inputs.results.runs
    varied = select(runs, {"source": ABLATION})
    alike = {tuple(runs[run][key] for key in ("model", "trainer", "n")) for run in varied}
    return [*varied, *(run for run in chosen_runs(inputs) if tuple(runs[run][key] for key in ("model", "trainer", "n")) in alike)]


def refined_as(report: dict[str, Any]) -> dict[str, str]:
    """Which pieces a refinement rewrote, which filters it used, and what became of rejects, from its report."""
    pieces = ", ".join(piece for piece in ("reasoning", "answer") if report["fallback_rate"][piece]["n"])
    return {"pieces": pieces or "–", "filters": ", ".join(report["filters"]) or "none", "fallback": report["fallback"]}


def ablations(inputs: Inputs) -> Drawing:
    """Accuracy and harmful score of each variant of the refinement, a row each, below Vanilla SFT and DGR at the same n."""
    results, runs = inputs.results, ablated_runs(inputs)
    bases = bases_of(results, runs) if runs else []
    reports = {run: report for report in inputs.refine_reports for run in report["runs"]}
    groups = sorted(by_setting(results, runs).values(), key=lambda each: _variant_order(results, each, reports.get(each[0])))
    figure, grid = panels(1, 2, PAGE / 2, 1.1 + 0.17 * max(6, len(groups)), sharey=True)
    data: list[dict] = []
    for axes, metric in zip(grid[0], ("accuracy", "harmful_score"), strict=True):
        measured = measure(results, metric, runs + bases, inputs.spec.get("judge") if metric != "accuracy" else None)
        if not groups:
            say(axes, "no variant of the refinement was run")
        for base in (base for base in bases if base in measured.values):
            axes.axvline(100 * measured.values[base], color=colour("none"), lw=0.9, ls="--", zorder=0)
        for place, members in enumerate(groups):
            fields = results.runs[members[0]]
            told = {key: fields[key] for key in ("model", "recipe", "source", "method", "trainer", "n")} | {"metric": metric}
            told |= refined_as(reports[members[0]]) if members[0] in reports else {}
            if (point := estimate(measured, members)) is not None:
                filled = {} if fields["source"] == ABLATION else {"mfc": "white"}
                axes.errorbar(
                    100 * point.value, place, xerr=bars(point), fmt="o", ms=4, color=colour(fields["method"]), lw=0.9, capsize=1.5, **filled
                )
                data.append(record_of(point, **told, runs=len(members), judge=measured.judge))
        axes.set_xlabel(AXES[metric].replace("↑", "→").replace("↓", "←"))
    names = [_variant_name(results, members, reports.get(members[0])) for members in groups]
    grid[0][0].set_yticks(range(len(names)), names, fontsize=SMALL)
    grid[0][0].invert_yaxis()
    notes = ["Rows – rewritten pieces; filters; what becomes of a rejected piece. Open: the settings of the study. Dashed: the base model."]
    notes += whiskers(results, groups, [record["value"] for record in data])
    return Drawing(figure, data, sorted({*runs, *bases}), notes if groups else [])


def _variant_order(results: Results, members: Sequence[str], report: dict | None) -> tuple:
    fields = results.runs[members[0]]
    told = tuple(refined_as(report).values()) if report else ()
    place = tuple(str(fields[key]) for key in ("model", "trainer", "n"))
    return fields["source"] == ABLATION, fields["method"] != "vanilla", place, told, members


def _variant_name(results: Results, members: Sequence[str], report: dict | None) -> str:
    fields = results.runs[members[0]]
    name = f"{label(fields['method'])}, {fields['source']}" if fields["source"] != ABLATION else fields["recipe"]
    name += " + benign rows" if fields["benign"] else ""
    if report is None:
        return name
    told = refined_as(report)
    words = "; ".join((told["pieces"].replace("reasoning", "trace"), told["filters"], told["fallback"]))
    return words if fields["source"] == ABLATION else f"{name}: {words}"


# ---- figures of the papers --------------------------------------------------------------------------------------------------------------


def family_colour(fields: Mapping[str, Any]) -> str:
    """The colour of a run among runs of both papers: its style's where it has one, else its method's."""
    return STYLES.get(fields["source"]) or colour(fields["method"])


def family(fields: Mapping[str, Any]) -> str:
    """A style by its name in the paper; else the method and its source."""
    return STYLE_NAMES.get(fields["source"]) or f"{label(fields['method'])}, {fields['source']}"


def _style_order(source: str) -> tuple[int, str]:
    return (list(STYLES).index(source) if source in STYLES else len(STYLES)), source


def usual_runs(results: Results, runs: Iterable[str], keys: Sequence[str] = ("recipe", "trainer", "benign", "n")) -> list[str]:
    """Those of the runs at the setting that most runs have, key after key."""
    runs = sorted(runs)
    sources = sorted({results.runs[run]["source"] for run in runs})
    return select(results.runs, {"run": runs, "source": sources} | dict.fromkeys(keys, "usual"))


def _by(results: Results, runs: Iterable[str], *keys: str) -> dict[tuple, list[str]]:
    """Runs by some of their fields; styles in the papers' order."""
    groups: dict[tuple, list[str]] = defaultdict(list)
    for run in sorted(runs):
        groups[tuple(results.runs[run][key] for key in keys)].append(run)
    return dict(sorted(groups.items(), key=lambda item: [(_style_order(str(part)), part) for part in item[0]]))


def _paper_parts(inputs: Inputs, runs: Sequence[str], wanted: Sequence[str] = ()) -> tuple[dict, dict[str, dict], dict[str, Measure]]:
    """The entry of the paper that a figure stands beside, its columns in the study, and their measures of the runs."""
    entry = entry_of(inputs.reported, inputs.spec.get("reported") or inputs.spec.get("name", ""))
    columns = columns_of(inputs.reported, inputs.spec, wanted or entry["columns"])
    return entry, columns, column_measures(inputs.results, columns, runs, inputs.spec.get("judges"))


def _column_axis(column: Mapping[str, Any]) -> str:
    better = "↑" if column["metric"] == "accuracy" else "↓"
    return f"{column['title']} (%) {better}"


def _column_notes(
    inputs: Inputs, columns: Mapping[str, Mapping[str, Any]], measures: Mapping[str, Measure], entry: Mapping[str, Any]
) -> list[str]:
    """What each column is in this study, by which judge, and whose the open marks are."""
    parts = []
    for column in columns.values():
        metric = "" if column["metric"].replace("_", "-") == column["title"] else column["metric"].replace("_", " ") + " "
        parts.append(f"{column['title']}: {metric}on {', '.join(column['benchmarks'])}")
    said = [" ".join(["; ".join(parts) + ".", *_judges_note(measures.values())])]
    silent = []
    for metric, words in (("harmful_score", "harmful"), ("over_refusal", "benign")):
        names = sorted({name for column in columns.values() if column["metric"] == metric for name in column["benchmarks"]})
        shares = measure(inputs.results, "empty", inputs.results.runs, benchmarks=names).values.values() if names else ()
        if max(shares, default=0) > NOTEWORTHY:
            silent.append(f"{span(100 * min(shares), 100 * max(shares))} % of a run's answers to {words} prompts never came")
    if silent:
        said.append("; ".join(silent) + ", which a phrase judge counts as neither harm nor refusal.")
    own = [column["title"] for column in columns.values() if column["same"]]
    marks = f"Open marks – the paper's printed values ({entry['paper']}, {entry['place']})." if own else "The paper has other benchmarks."
    return [*said[:1], " ".join([*said[1:], marks])]


def _panel_rows(models: Sequence[str], columns: Mapping[str, Any], height: float) -> "tuple[Figure, Any]":
    return panels(max(1, len(models)), max(1, len(columns)), PAGE / max(1, len(columns)), height)


def _legend_above(row: Sequence["Axes"], title: str, columns: int = 4) -> None:
    """The title of a row of panels and one legend of them all above it."""
    known = {name: handle for axes in row for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    row[0].set_title(title, loc="left", fontweight="bold", pad=8 + 12 * -(-len(known) // columns))
    if known:
        look = {"loc": "lower left", "bbox_to_anchor": (-0.1 if len(row) > 1 else -0.03, 0.98), "columnspacing": 1, "handletextpad": 0.4}
        row[0].legend(known.values(), known.keys(), ncols=columns, **look).set_in_layout(False)


SETTING = ("model", "source", "recipe", "method", "benign", "trainer", "n")  # the fields that tell a point's runs from all others


def _point_of(results: Results, runs: Sequence[str], name: str, column: Mapping[str, Any], *, but: Sequence[str] = ()) -> dict[str, Any]:
    """What says which point of a column it is, and on which samples it stands: the fields that its runs share, metric and benchmarks."""
    fields = {key: {results.runs[run][key] for run in runs} for key in SETTING if key not in but}
    shared = {key: values.pop() for key, values in fields.items() if len(values) == 1}
    return shared | {"column": name, "metric": column["metric"], "benchmarks": list(column["benchmarks"])}


def _whiskers_of(results: Results, runs: Iterable[str], data: Iterable[Mapping[str, Any]]) -> list[str]:
    """`whiskers` of the runs that a figure shows, where it shows any."""
    ours = [record["value"] for record in data if record.get("kind") != "reported" and record.get("value") is not None]
    return whiskers(results, by_setting(results, runs).values(), ours) if ours else []


def sweep(inputs: Inputs) -> Drawing:
    """Reasoning, attack success and over-refusal over a field of the runs (`x`: n or learning_rate): a line per source, a row per model.

    Runs of a source that differ in recipe, benign rows or (but for x: learning_rate) trainer have lines of their own. Values that the paper
    prints for the same model and benchmarks are open marks.
    """
    results, spec = inputs.results, inputs.spec
    field_of_x = spec.get("x", "n")
    if field_of_x not in SWEPT:
        raise UserError(f"x: no sweep over {field_of_x!r}; valid: {', '.join(SWEPT)}")
    runs = [run for run in chosen_runs(inputs) if results.runs[run][field_of_x] is not None]
    bases = bases_of(results, runs)
    entry, columns, measures = _paper_parts(inputs, runs + bases)
    models = sorted({results.runs[run]["model"] for run in runs})
    figure, grid = _panel_rows(models, columns, 2.3)
    apart = [key for key in ("recipe", "benign", "trainer") if key != ("trainer" if field_of_x == "learning_rate" else "")]
    data: list[dict] = []
    if not models:
        for axes in grid[0]:
            say(axes, "not enough runs")
    for row, model in zip(grid, models, strict=False):
        mine = [run for run in runs if results.runs[run]["model"] == model]
        ticks = sorted({results.runs[run][field_of_x] for run in mine})
        for axes, (name, column) in zip(row, columns.items(), strict=True):
            measured = measures[name]
            data += _base_line(axes, results, bases, model, (name, column), measured)
            for place, ((source,), members) in enumerate(_by(results, mine, "source").items()):
                differ = [key for key in apart if len({results.runs[run][key] for run in members}) > 1]
                for number, (values, chosen) in enumerate(_by(results, members, *differ).items()):
                    path = _swept(results, chosen, measured, field_of_x)
                    if not path:
                        continue
                    fields = results.runs[chosen[0]]
                    line = ", ".join([family(fields), *(f"{key} {value}" for key, value in zip(differ, values, strict=True))])
                    look = {"color": family_colour(fields), "linestyle": LINES[number % len(LINES)], "marker": _style_marker(source)}
                    errors = [[bars(point)[side][0] for _, point, _ in path] for side in (0, 1)]
                    xs, ys = [x * 1.03**place for x, _, _ in path], [100 * point.value for _, point, _ in path]
                    axes.errorbar(xs, ys, errors, ms=4, lw=1.2, elinewidth=0.8, capsize=1.5, label=line, **look)
                    for x, point, members_of in path:
                        told = _point_of(results, members_of, name, column) | {"series": line, "judge": measured.judge, field_of_x: x}
                        data.append(record_of(point, **told, runs=len(members_of)))
                data += _printed_marks(axes, entry, name, column, field_of_x, model=model, source=source)
            axes.set_xscale("log")
            axes.set_xticks(ticks, [SWEPT[field_of_x][1](tick) for tick in ticks], fontsize=SMALL, rotation=30 if len(ticks) > 3 else 0)
            axes.set_xticks([], minor=True)
            axes.set_ylabel(_column_axis(column))
            shown = [record for record in data if record["column"] == name and record["model"] == model]
            ends = [record[end] for record in shown for end in ("value", "ci_low", "ci_high") if record.get(end) is not None]
            data_axis(axes, "y", [100 * end for end in ends])
        _legend_above(row, model)
    for axes in grid[-1]:
        axes.set_xlabel(SWEPT[field_of_x][0])
    notes = [*explained(inputs, runs), *_column_notes(inputs, columns, measures, entry)] if runs else []
    return Drawing(figure, data, sorted({*runs, *bases}), notes + _whiskers_of(results, runs + bases, data))


def _base_line(
    axes: "Axes", results: Results, bases: Sequence[str], model: str, column: tuple[str, Mapping[str, Any]], measured: Measure
) -> list[dict]:
    """The base of a model as a dashed line, with its record."""
    mine = [base for base in bases if results.runs[base]["model"] == model and base in measured.values]
    point = estimate(measured, mine)
    if point is None:
        return []
    axes.axhline(100 * point.value, color=colour("none"), lw=0.9, ls="--", zorder=0, label=label("none"))
    return [record_of(point, **_point_of(results, mine, *column), judge=measured.judge, runs=len(mine))]


def _style_marker(source: str) -> str:
    return MARKERS[list(STYLES).index(source) % len(MARKERS)] if source in STYLES else "o"


def _swept(results: Results, runs: Sequence[str], measured: Measure, key: str) -> list[tuple[Any, Estimate, list[str]]]:
    """(x, mean with interval, runs) by rising x."""
    groups: dict[Any, list[str]] = defaultdict(list)
    for run in runs:
        if run in measured.values:
            groups[results.runs[run][key]].append(run)
    return [(x, point, members) for x, members in sorted(groups.items()) if (point := estimate(measured, members))]


def _printed_marks(axes: "Axes", entry: Mapping[str, Any], name: str, column: Mapping[str, Any], key: str, **place: str) -> list[dict]:
    """The paper's values of a line as open marks, with their records; none where model or benchmarks are not the paper's."""
    found = [row for row in entry["rows"] if column["same"] and key in row and all(row.get(k) == v for k, v in place.items())]
    found = [row for row in found if row["values"].get(name) is not None]
    for row in found:
        tint = STYLES.get(place["source"], "black")
        axes.scatter([row[key]], [row["values"][name]], marker=_style_marker(place["source"]), s=48, fc="none", ec=tint, lw=1.2, zorder=6)
    return [{**place, key: row[key], "column": name, "kind": "reported", "value": row["values"][name] / 100} for row in found]


def with_without(inputs: Inputs) -> Drawing:
    """With and without benign rows in the training set: a bar for each number of them, a panel for each column, a row per model.

    Of each source and number the setting that most runs have, at numbers of safety rows that all sides share where there are any. The
    paper's printed values are open diamonds, its ranges dotted lines.
    """
    results = inputs.results
    runs = chosen_runs(inputs)
    pairs: dict[tuple[str, str], dict[int, list[str]]] = {}
    for key, members in _by(results, runs, "model", "source").items():
        sides = {benign: side for (benign,), side in sorted(_by(results, members, "benign").items())}
        if 0 in sides and len(sides) > 1:
            common = set.intersection(*({results.runs[run]["n"] for run in side} for side in sides.values()))
            kept = {benign: [run for run in side if results.runs[run]["n"] in common or not common] for benign, side in sides.items()}
            pairs[key] = {benign: usual_runs(results, side) for benign, side in kept.items()}
    mixes = sorted({benign for sides in pairs.values() for benign in sides})
    hatches = {benign: "////" if not benign else ("", "...", "xxx", "---")[number % 4 - 1] for number, benign in enumerate(mixes)}
    runs = sorted({run for sides in pairs.values() for side in sides.values() for run in side})
    bases = bases_of(results, runs) if runs else []
    entry, columns, measures = _paper_parts(inputs, runs + bases)
    models = sorted({model for model, _ in pairs})
    if not models:
        return _one_sided(results, chosen_runs(inputs))
    figure, grid = _panel_rows(models, columns, 2.4)
    data: list[dict] = []
    width = 0.8 / max(1, len(mixes))
    for row, model in zip(grid, models, strict=False):
        sources = [source for of, source in pairs if of == model]
        for axes, (name, column) in zip(row, columns.items(), strict=True):
            measured = measures[name]
            data += _base_line(axes, results, bases, model, (name, column), measured)
            for place, source in enumerate(sources):
                for benign, members in pairs[model, source].items():
                    x = place - 0.4 + width * (mixes.index(benign) + 0.5)
                    point = estimate(measured, [run for run in members if run in measured.values])
                    if point is None:
                        axes.text(x, 2, "no score", rotation=90, fontsize=SMALL, color="0.4", ha="center", va="bottom")
                        continue
                    tint = family_colour(results.runs[members[0]])
                    look = {"color": tint, "ec": "white"} if benign else {"color": "white", "ec": tint}
                    axes.bar(x, 100 * point.value, 0.9 * width, lw=1, hatch=hatches[benign], **look)
                    axes.errorbar(x, 100 * point.value, bars(point), color="0.45", lw=0.9, capsize=2, fmt="none")
                    told = _point_of(results, members, name, column)
                    data.append(record_of(point, **told, judge=measured.judge, runs=len(members)))
                    data += _printed_bar(axes, x, entry, name, column, model=model, source=source, benign=benign)
            data += _printed_ranges(axes, entry, name, column, model)
            axes.set_xticks(range(len(sources)), [STYLE_NAMES.get(source, source) for source in sources], fontsize=SMALL)
            axes.set_ylabel(_column_axis(column))
            percent_axis(axes, "y", 0, 105)
        for benign in mixes:  # for the legend alone
            look = {"color": "0.6", "ec": "white"} if benign else {"color": "white", "ec": "0.4"}
            row[0].bar(0, 0, 0, hatch=hatches[benign], label=count(benign, "benign row") if benign else "no benign rows", **look)
        _legend_above(row, model, 3)
    notes = [*explained(inputs, runs), *_column_notes(inputs, columns, measures, entry)] if runs else []
    return Drawing(figure, data, sorted({*runs, *bases}), notes + _whiskers_of(results, runs + bases, data))


def _one_sided(results: Results, runs: Sequence[str]) -> Drawing:
    """A line in place of panels: no source has runs on both sides, and which has them on one."""
    figure, grid = panels(1, 1, PAGE, 1.0)
    grid[0][0].set_axis_off()
    sides = {
        words: sorted({results.runs[run]["source"] for run in runs if bool(results.runs[run]["benign"]) is mixed}, key=_style_order)
        for words, mixed in (("with", True), ("without", False))
    }
    told = "; ".join(f"{words}: {', '.join(STYLE_NAMES.get(each, each) for each in found) or 'none'}" for words, found in sides.items())
    say(grid[0][0], f"Nothing to compare: no source was trained both with and without benign rows ({told}).")
    return Drawing(figure, [], [])


def _printed_bar(axes: "Axes", x: float, entry: Mapping[str, Any], name: str, column: Mapping[str, Any], **place: Any) -> list[dict]:
    """The paper's value of a bar as an open diamond; none where the model or the benchmarks are not the paper's."""
    row = printed(entry, **place)
    if row is None or not column["same"] or row["values"].get(name) is None:
        return []
    axes.scatter([x], [row["values"][name]], marker="D", s=26, fc="white", ec="black", zorder=6, label="reported in the paper")
    return [{**place, "column": name, "kind": "reported", "value": row["values"][name] / 100}]


def _printed_ranges(axes: "Axes", entry: Mapping[str, Any], name: str, column: Mapping[str, Any], model: str) -> list[dict]:
    """The ends that the paper prints for a column without benign rows, as dotted lines."""
    found = [each for each in entry["ranges"] if each["column"] == name and each.get("model") == model and column["same"]]
    for each in found:
        for end in (end for end in (each["low"], each["high"]) if end is not None):
            axes.axhline(end, color="black", lw=0.9, ls=":", zorder=4, label="reported in the paper: ends without benign rows")
    return [{**each, "kind": "reported range"} for each in found]


def attack_bars(inputs: Inputs) -> Drawing:
    """Attack success without an attack, under each attack and on average: a bar per arm (base, then source and recipe), a row per model.

    `arms` of the spec names recipes. Of each arm the setting that most of its runs have. The paper's values are open diamonds.
    """
    results, spec = inputs.results, inputs.spec
    runs = chosen_runs(inputs)
    arms = {
        key: usual_runs(results, members, ("trainer", "benign", "n"))
        for key, members in _by(results, runs, "model", "source", "recipe").items()
    }
    runs = sorted({run for members in arms.values() for run in members})
    bases = bases_of(results, runs)
    entry, columns, measures = _paper_parts(inputs, runs + bases, list(ATTACKED))
    models = sorted({model for model, _, _ in arms})
    figure, grid = panels(max(1, len(models)), 1, PAGE, 2.4)
    data: list[dict] = []
    if not models:
        say(grid[0][0], "not enough runs")
    for (axes,), model in zip(grid, models, strict=False):
        mine = {key: members for key, members in arms.items() if key[0] == model}
        start = [base for base in bases if results.runs[base]["model"] == model]
        groups = ({(model, "none", "none"): start} if start else {}) | mine
        width = 0.84 / len(groups)
        for offset, ((_, source, recipe), members) in enumerate(groups.items()):
            fields = results.runs[members[0]]
            several = [key[2] for key in mine if key[1] == source]
            words = label("none") if source == "none" else family(fields) + (f", {recipe}" if len(several) > 1 else "")
            words = (spec.get("arms") or {}).get(recipe, words)
            hatch = HATCHES[several.index(recipe) % len(HATCHES)] if recipe in several else ""
            for place, (name, column) in enumerate(columns.items()):
                x, measured = place - 0.42 + width * (offset + 0.5), measures[name]
                point = estimate(measured, [run for run in members if run in measured.values])
                if point is None:
                    axes.text(x, 2, "no score", rotation=90, fontsize=SMALL, color="0.4", ha="center", va="bottom")
                    continue
                tint = {"color": family_colour(fields), "alpha": 0.85, "hatch": hatch, "ec": "white" if hatch else None}
                axes.bar(x, 100 * point.value, width * 0.92, label=f"{words} ({count(len(members), 'run')})", **tint)
                axes.errorbar(x, 100 * point.value, bars(point), color="0.45", lw=0.9, capsize=2, fmt="none")
                told = _point_of(results, members, name, column)
                data.append(record_of(point, **told, judge=measured.judge, runs=len(members)))
                data += _printed_arm(axes, x, entry, name, column, fields, len(several) < 2)
        axes.set_xticks(range(len(columns)), [column["title"] for column in columns.values()])
        axes.set_ylabel("attack success (%) ↓")
        percent_axis(axes, "y", 0, 105)
        longest = max((len(words) for words in axes.get_legend_handles_labels()[1]), default=0)
        _legend_above([axes], model, 3 if longest < 36 else 2)
    notes = [*explained(inputs, runs), *_column_notes(inputs, columns, measures, entry)] if runs else []
    return Drawing(figure, data, sorted({*runs, *bases}), notes + _whiskers_of(results, runs + bases, data))


def _printed_arm(
    axes: "Axes", x: float, entry: Mapping[str, Any], name: str, column: Mapping[str, Any], fields: Mapping[str, Any], alone: bool
) -> list[dict]:
    """The paper's value of an arm, by its recipe where its source has several arms."""
    row = printed(entry, **{key: fields[key] for key in ("model", "source", "recipe", "n")})
    if row is None or (not alone and "recipe" not in row):
        return []
    return _printed_bar(axes, x, {"rows": [row]}, name, column, **{key: row[key] for key in ("model", "source") if key in row})


def pattern_shares(inputs: Inputs) -> Drawing:
    """Share of each risky pattern among the rows of a dataset before and after its filters, with Wilson's intervals: a panel per dataset.

    Reads the filters' reports; `datasets` of the spec chooses among those that counted patterns. Unparseable rows are in no share.
    """
    spec = inputs.spec
    entry = entry_of(inputs.reported, spec.get("reported") or spec.get("name", ""))
    reports = [report for report in inputs.filter_reports if report.get("patterns")]
    reports = [report for report in reports if report["name"] in (spec.get("datasets") or [report["name"]])]
    figure, grid = panels(max(1, len(reports)), 1, PAGE, 2.9)
    data: list[dict] = []
    notes: list[str] = []
    if not reports:
        say(grid[0][0], "no filter counted risky patterns")
    for (axes,), report in zip(grid, sorted(reports, key=lambda report: report["name"]), strict=False):
        for offset, (when, tint) in enumerate(BEFORE_AFTER.items()):
            told = report["patterns"][when]
            read = told["n"] - told["unparseable"]
            for place, pattern in enumerate(PATTERNS if read else ()):
                y = place - 0.2 + 0.4 * offset
                point = wilson(told["counts"].get(pattern, 0), read)
                axes.barh(y, 100 * point.value, 0.36, color=tint, label=f"{when} the filter ({count(read, 'row')})")
                axes.errorbar(100 * point.value, y, xerr=bars(point), color="0.45", lw=0.9, capsize=2, fmt="none")
                data.append(record_of(point, dataset=report["name"], pattern=pattern, when=when))
                row = next((row for row in entry["rows"] if row["pattern"] == pattern), None)
                if row and row["values"][when] is not None:
                    value = row["values"][when]
                    axes.scatter([value], [y], marker="D", s=26, fc="white", ec="black", zorder=6, label="reported in the paper")
                    data.append({"pattern": pattern, "when": when, "kind": "reported", "value": value / 100})
        unread = {when: report["patterns"][when]["unparseable"] for when in BEFORE_AFTER}
        if all(unread[when] == report["patterns"][when]["n"] for when in BEFORE_AFTER):
            say(axes, "the judge's verdict could be read on no row")
        if any(unread.values()):
            notes.append(f"{report['name']}: unparseable, in no share: {unread['before']} before, {unread['after']} after.")
        axes.set_yticks(range(len(PATTERNS)), [pattern.replace("_", " ") for pattern in PATTERNS])
        axes.invert_yaxis()
        percent_axis(axes, "x", 0, 105)
        axes.set_xlabel("share of the rows (%)")
        _legend_above([axes], report["name"])
    notes += ["Whiskers – 95 % Wilson intervals."] if data else []
    return Drawing(figure, data, sorted(report["name"] for report in reports), notes)


def safety_tax_plane(inputs: Inputs) -> Drawing:
    """Safety gained against safety tax paid, each setting against its own base: all recipes and models of both papers in one plane.

    x is the harmful score that training took away, y the accuracy that it cost, both in points, on the benchmarks that a setting shares
    with its base, and paired with the base item by item. Colour tells the style or method, the marker the model. `reported` is the entry
    whose rows stand as hollow marks, joined by a thin line to our runs at the usual setting, where the study has the paper's model and
    benchmarks. `tuned_from` names the base of models that others aligned: they are stars, with their names.
    """
    results, spec = inputs.results, inputs.spec
    entry = entry_of(inputs.reported, spec.get("reported") or spec.get("name", ""))
    columns = columns_of(inputs.reported, spec, ("asr_mean", "reasoning_mean"))
    runs, priors = chosen_runs(inputs), prior_runs(results, spec.get("tuned_from") or {})
    models = sorted({results.runs[run]["model"] for run in runs})
    markers = {model: MODEL_MARKERS[number % len(MODEL_MARKERS)] for number, model in enumerate(models)}
    figure, grid = panels(1, 1, PAGE, 4.6)
    axes = grid[0][0]
    data: list[dict] = []
    suites: dict[str, set[str]] = defaultdict(set)
    named: list[tuple[float, float, str, str]] = []
    silent_bases: dict[str, float] = {}
    for members in by_setting(results, [*runs, *priors]).values():
        fields, prior = results.runs[members[0]], members[0] in priors
        both = {*members, *(base for run in members if (base := priors.get(run) or base_of(results, run)))}
        measures = {axis: measure(results, metric, both, (spec.get("judges") or {}).get(metric)) for axis, metric in GAINED_PAID.items()}
        x, y = (tax_interval(results, measures[axis], members, priors) for axis in GAINED_PAID)
        if x is None or y is None:
            continue
        tint = PRIOR["color"] if prior else family_colour(fields)
        look = (
            PRIOR if prior else {"color": tint, "marker": markers[fields["model"]], **(HALF | {"mec": tint} if fields["benign"] else WHOLE)}
        )
        axes.errorbar(100 * x.value, 100 * y.value, bars(y), bars(x), ls="", elinewidth=0.6, capsize=1.2, zorder=3, **look)
        empty = measure(results, "empty", both, benchmarks=measures["gained"].benchmarks)
        share = _mean_value(empty, members)
        told = {key: fields[key] for key in SETTING} | {"seeds": len(members)}
        if prior:
            told = {"kind": "prior", "model": fields["model"], "tuned_from": results.runs[priors[members[0]]]["model"]}
            named.append((100 * x.value, 100 * y.value, fields["model"], tint))
        told |= {} if share is None else {"empty": share}
        for axis, point in zip(GAINED_PAID, (x, y), strict=True):
            on = {"metric": GAINED_PAID[axis], "benchmarks": measures[axis].benchmarks, "judge": measures[axis].judge}
            data.append(record_of(point, axis=axis, **told, **on))
        silent_bases |= {base: empty.values[base] for base in both - set(members) if base in empty.values}
        if share is not None and share > NOTEWORTHY:
            named.append((100 * x.value, 100 * y.value, f"{100 * share:.0f} %", tint))
        for measured in measures.values():
            suites[measured.metric].update(measured.benchmarks)
        usual = set(runs_of(results, {"model": fields["model"], "source": fields["source"]}, spec.get("select")))
        alike = [
            set(column["benchmarks"]) == set(measures[axis].benchmarks) for axis, column in zip(GAINED_PAID, columns.values(), strict=False)
        ]
        if not prior and alike == [True, True] and set(members) <= usual:
            data += _printed_point(axes, entry, fields, markers[fields["model"]], (100 * x.value, 100 * y.value))
    if not data:
        say(axes, "not enough runs")
    else:
        _plane_key(axes, results, data, markers)
    axes.set_xlabel("safety gained: harmful score of the base − after training (points) →")
    axes.set_ylabel("safety tax paid: accuracy lost (points) ↓")
    _write_beside(axes, named)
    shown = sorted({*runs, *priors})
    notes = [*explained(inputs, runs), *_plane_notes(suites, data, silent_bases.values(), entry)]
    notes += _whiskers_of(results, shown, data)
    return Drawing(figure, data, sorted({*shown, *bases_of(results, shown), *priors.values()}) if shown else [], notes)


def prior_runs(results: Results, tuned_from: Mapping[str, str]) -> dict[str, str]:
    """The untrained runs of models that others tuned, and the run of the model that each was tuned from, where both were measured."""
    untrained = {fields["model"]: run for run, fields in sorted(results.runs.items()) if fields["method"] == "none"}
    return {run: untrained[base] for model, run in untrained.items() if (base := tuned_from.get(model)) in untrained}


def _plane_notes(
    suites: Mapping[str, set[str]], data: Sequence[Mapping[str, Any]], bases: Iterable[float], entry: Mapping[str, Any]
) -> list[str]:
    """On which benchmarks the main figure stands, and what its numbers and marks are; `bases`: shares that base models did not answer."""
    notes = []
    for metric, words in (("harmful_score", "Harmful score"), ("accuracy", "Accuracy")):
        on = ", ".join(sorted(suites[metric]))
        notes += [f"{words}: mean over those of {on} that a setting and its base were tested on."] if on else []
    notes += _silence_notes(data, bases)
    if len({bool(record["benign"]) for record in data if "benign" in record}) > 1:
        notes.append("Half filled: trained with benign rows too.")
    if any(record.get("kind") == "prior" for record in data):
        notes.append("Stars: prior models as they are, against the models that they were tuned from.")
    if any(record.get("kind") == "reported" for record in data):
        notes.append(f"Hollow: the paper's own points ({entry['paper']}, {entry['place']}), joined to ours.")
    return notes


def _silence_notes(data: Sequence[Mapping[str, Any]], bases: Iterable[float]) -> list[str]:
    """How many harmful prompts got no answer after training and before: of these settings the safety gained may be silence."""
    shares = [record["empty"] for record in data if "empty" in record]
    if max(shares, default=0) <= NOTEWORTHY:
        return []
    before = [100 * share for share in bases]
    start = f"; bases: {span(min(before), max(before))} %" if before else ""
    after = span(100 * min(shares), 100 * max(shares))
    return [
        f"Numbers beside points: % of harmful prompts that got no answer, where above {100 * NOTEWORTHY:.0f} (all settings: {after} %"
        f"{start}). To a phrase judge silence is neither harm nor refusal, so the safety gained there may be silence."
    ]


def _printed_point(axes: "Axes", entry: Mapping[str, Any], fields: Mapping[str, Any], marker: str, ours: tuple[float, float]) -> list[dict]:
    """The paper's point of a setting as a hollow mark: what its row gained and paid against the paper's row of the model as it is."""
    place = {"model": fields["model"], "source": fields["source"]}
    row, start = printed(entry, **place), printed(entry, model=fields["model"], source="none")
    if row is None or start is None:
        return []
    x, y = (start["values"][name] - row["values"][name] for name in ("asr_mean", "reasoning_mean"))
    axes.plot([ours[0], x], [ours[1], y], color="0.6", lw=0.5, zorder=1)
    axes.scatter([x], [y], marker=marker, s=40, fc="none", ec=family_colour(fields), lw=1.1, zorder=4)
    return [{**place, "kind": "reported", "axis": axis, "value": value / 100} for axis, value in zip(GAINED_PAID, (x, y), strict=True)]


def _plane_key(axes: "Axes", results: Results, data: Sequence[Mapping[str, Any]], markers: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    ours = [record for record in data if "kind" not in record]
    tints = {}
    for record in sorted(ours, key=lambda record: (_style_order(record["source"]), record["method"])):
        words = STYLE_NAMES.get(record["source"]) or label(record["method"])
        tints[words] = family_colour(record)
    for line in (axes.axhline, axes.axvline):
        line(0, color="0.7", lw=0.8, zorder=0)
    handles = [Line2D([], [], color=tint, lw=3, label=words) for words, tint in tints.items()]
    shown = {record["model"] for record in ours}
    handles += [Line2D([], [], marker=markers[model], ls="", color="0.4", ms=5, label=model) for model in markers if model in shown]
    if len({bool(record["benign"]) for record in ours}) > 1:
        handles.append(Line2D([], [], marker="o", ls="", mfc="0.4", mec="0.4", label="half filled: with\nbenign rows", **HALF))
    if any(record.get("kind") == "prior" for record in data):
        handles.append(Line2D([], [], ls="", label="prior model", **PRIOR))
    if any(record.get("empty", 0) > NOTEWORTHY for record in data):
        handles.append(Line2D([], [], marker="$\\%$", ls="", color="0.2", ms=6, mew=0, label="harmful prompts\nwithout an answer"))
    if any(record.get("kind") == "reported" for record in data):
        handles.append(Line2D([], [], marker="o", ls="", mfc="none", mec="0.4", ms=5, label="hollow: the paper's"))
    axes.legend(handles=handles, loc="center left", bbox_to_anchor=(1, 0.5))


FIGURES: dict[str, Callable[[Inputs], Drawing]] = {
    "safety_reasoning_plane": safety_reasoning_plane,
    "method_bars": method_bars,
    "shift_tax": shift_tax,
    "shift_histogram": shift_histogram,
    "activation_curve": activation_curve,
    "refinement_outcomes": refinement_outcomes,
    "training_curve": training_curve,
    "judge_agreement": judge_agreement,
    "judge_pairs": judge_pairs,
    "ablations": ablations,
    "sweep": sweep,
    "with_without": with_without,
    "attack_bars": attack_bars,
    "pattern_shares": pattern_shares,
    "safety_tax_plane": safety_tax_plane,
}
# Kinds that read these reports and no metrics, so that they need no run; all other kinds read the metrics of theirs.
READS: dict[str, frozenset[str]] = {
    "judge_agreement": frozenset({"agreement"}),
    "judge_pairs": frozenset({"pairs"}),
    "pattern_shares": frozenset({"filtered"}),
}


# ---- to files -------------------------------------------------------------------------------------------------------------------------


def _write_notes(drawing: Drawing) -> None:
    """The sentences below the figure; the saved page grows with them."""
    characters = int(19 * drawing.figure.get_figwidth())
    lines = [line for note in drawing.notes for line in textwrap.wrap(note, characters)]
    text = drawing.figure.text(0.01, -0.01, "\n".join(lines), fontsize=SMALL, color="0.25", ha="left", va="top")
    text.set_in_layout(bool(lines))


def style() -> AbstractContextManager[None]:
    """The context that every figure is drawn in, whatever the user's own settings of matplotlib."""
    import matplotlib
    import seaborn

    settings = {**matplotlib.rcParamsDefault, **seaborn.axes_style("ticks"), **seaborn.plotting_context("paper"), **STYLE}
    return matplotlib.rc_context({key: value for key, value in settings.items() if not key.startswith("backend") and key != "toolbar"})


def draw(inputs: Inputs, study: str, prefix: Path | str, command: Sequence[str]) -> None:
    """Write <prefix>.pdf, .png and the sidecar .json. Equal inputs give equal bytes. Raises UserError for an unknown kind of figure."""
    kind = inputs.spec.get("figure")
    if kind not in FIGURES:
        raise UserError(f"figure: no kind is called {kind!r}; valid: {', '.join(FIGURES)}")
    with style():
        drawing = FIGURES[kind](inputs)
        drawing.figure.suptitle(inputs.spec.get("title", ""), fontsize=9.5)
        _write_notes(drawing)
        for suffix, metadata in (("pdf", {"CreationDate": None, "Producer": None, "Creator": None}), ("png", {"Software": None})):
            with atomic_path(f"{prefix}.{suffix}") as temporary:
                drawing.figure.savefig(temporary, format=suffix, metadata=metadata, bbox_inches="tight")
    sidecar = {"figure": kind, "title": inputs.spec.get("title", ""), "caption": inputs.spec.get("caption", ""), "study": study}
    sidecar["notes"] = drawing.notes
    sidecar |= {"data": drawing.data, "runs": drawing.runs, "n": len(drawing.runs), "commit": git_commit(), "command": shlex.join(command)}
    write_json(f"{prefix}.json", sidecar)
