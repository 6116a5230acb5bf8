"""The papers' claims against what a study measured: supported, contradicted, inconclusive or not run, with the interval that decided.

A claim (claims.yaml) selects runs by their fields and names a test:
    difference  mean of group `a` − mean of group `b` of a metric, paired over items and, where they match, over runs (where `b` is the base
                model, each run with its own base; `b: {method: none, model: …}` is another model as it is). Runs are compared
                with their like alone: those of the other group that differ in nothing but what `a` and `b` name, the recipe and the
                seed. Where there are none (benign rows with one source, none with another) the claim was not run.
                With `at: matched_safety` the gap between the two groups' frontiers at the same safety, within a model and source
    threshold   mean of group `a` of a metric
    correlation Pearson's r between metrics `x` and `y` over settings (means over seeds), of which it needs FEWEST_SETTINGS
    share       a share of the rows of a filtered `dataset` (the first named that the study has), from the filter's report, with Wilson's
                interval: `share: kept` of all rows, or that of a risky pattern (`no_pattern`: of the rows without any), `when` before or
                after the filters, or `when: rise`, after − before
The estimate's interval is held against `bound` (default 0) in the `direction` (greater, less): wholly beyond it is supported, wholly short
of it contradicted, across it inconclusive. Bounds are points of a share (0.05 = 5 points) or a correlation.
`applies_to` and `where` select runs for both groups, base models (method none) excepted; runs of the source `ablation` are in no claim that
does not name it; `aliases` maps the papers' names of safety data to
the sources of studies, so that one claim is judged in each of them. `stand_ins` does so for data of the same form that is not the papers':
the record says so, and the paper's number is not compared.
"""

import csv
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from untaxed.metrics import LABELS, NOTEWORTHY, REPEATS, RUN_FIELDS, Results, base_of, by_setting, measure, safety_axis, select
from untaxed.pages import badge, page, under
from untaxed.records import UserError, atomic_path, read_yaml
from untaxed.statistics import (
    FEWEST_SETTINGS,
    Estimate,
    hierarchical_mean,
    matched_difference,
    paired_bootstrap,
    pearson,
    spearman,
    wilson,
)

ENOUGH_SEEDS = 5
SHARES = ("accuracy", "safe_rate", "strongreject", "refusal_rate", "harmful_score", "over_refusal", "safety_tax")  # said in points
JUDGED = ("refusal_rate", "harmful_score", "strongreject", "over_refusal", "safe_rate")
UNITS = {
    "nll": "nats per token",
    "nll_reasoning": "nats per token",
    "nll_answer": "nats per token",
    "kl": "nats per token",
    "correlation": "(Pearson's r)",
}
VERDICTS = ("supported", "contradicted", "inconclusive", "not run")
NO_PATTERN = "no_pattern"  # as a share: the rows without any risky pattern
REQUIRED = ("id", "paper", "statement", "test", "direction")
SHOWN = ("figure", "table")  # one of which shows a claim
LAUNCHED = ("laptop", "laptop_cot", "organism", "smoke")  # studies that the launcher knows by name
WHOLE_STUDY = "snakemake --profile slurm"  # makes any figure or table of config.yaml by its name
NEEDED = {"difference": ("metric", "a", "b"), "threshold": ("metric", "a"), "correlation": ("x", "y"), "share": ("dataset", "share")}
OPTIONAL = (
    *SHOWN,
    "reported",
    "reported_for",
    "bound",
    "applies_to",
    "where",
    "at",
    "judge",
    "benchmarks",
    "safety",
    "note",
    "unit",
    "place",
)


def read_claims(path: Path | str) -> dict[str, Any]:
    """Claims, aliases and stand-ins of claims.yaml. Raises UserError naming the claim and the key that is missing or unknown."""
    content = read_yaml(path)
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise UserError(f"{path}: needs a list under `claims`")
    seen: set[str] = set()
    for claim in content["claims"]:
        name = claim.get("id", "?")
        if claim.get("test") not in NEEDED:
            raise UserError(f"{path}: {name}: test {claim.get('test')!r}; valid: {', '.join(NEEDED)}")
        wanted = (*REQUIRED, *NEEDED[claim["test"]])
        optional = (*OPTIONAL, "when") if claim["test"] == "share" else OPTIONAL
        if missing := [key for key in wanted if key not in claim]:
            raise UserError(f"{path}: {name}: no key {missing[0]!r}; add it")
        if unknown := [key for key in claim if key not in (*wanted, *optional)]:
            raise UserError(f"{path}: {name}: unknown key {unknown[0]!r}; valid: {', '.join((*wanted, *optional))}")
        if sum(key in claim for key in SHOWN) != 1:
            raise UserError(f"{path}: {name}: name the figure or the table that shows it, with one key of {', '.join(SHOWN)}")
        if claim["direction"] not in ("greater", "less"):
            raise UserError(f"{path}: {name}: direction {claim['direction']!r}; valid: greater, less")
        if name in seen:
            raise UserError(f"{path}: {name}: this id stands there twice; rename one")
        seen.add(name)
    return {"aliases": content.get("aliases") or {}, "stand_ins": content.get("stand_ins") or {}, "claims": content["claims"]}


def judge_claims(
    content: Mapping[str, Any],
    results: Results,
    filter_reports: Sequence[Mapping[str, Any]] = (),
    made: Mapping[str, Collection[str]] | None = None,
    study: str = "",
    stand_in: bool = False,
) -> list[dict[str, Any]]:
    """The verdict on every claim, in the order of the file. A filter's report has its dataset's `name`.

    `made` names the study's figures and tables (keys of SHOWN); a claim that none of them shows has the command of the whole study that
    makes what would. Without it every claim counts as shown. The command of one that it shows is the launcher's
    where that knows the `study`. In a study that is a `stand_in` all data stand in for the papers'.
    """
    stand_ins, start = content["stand_ins"], f"./untaxed {study}" if study in LAUNCHED else "snakemake"
    records = [judge_claim(claim, results, content["aliases"], stand_ins, filter_reports, stand_in) for claim in content["claims"]]
    for record in records:
        kind = next(key for key in SHOWN if record[key])
        record["made"] = made is None or record[kind] in made.get(kind, ())
        if not record["made"]:
            record["command"] = f"{WHOLE_STUDY} {record[kind]}"
        else:
            record["command"] = f"{start} {record[kind]}"
    return records


def judge_claim(
    claim: Mapping[str, Any],
    results: Results,
    aliases: Mapping[str, list[str]],
    stand_ins: Mapping[str, list[str]] | None = None,
    filter_reports: Sequence[Mapping[str, Any]] = (),
    stand_in: bool = False,
) -> dict[str, Any]:
    """One claim's record: verdict, reason, estimate, interval, n, runs and their sources, and how the paper's number compares."""
    tests: dict[str, Callable[..., dict[str, Any]]] = {"difference": _difference, "threshold": _threshold, "correlation": _correlation}
    tests["share"] = lambda claim, _, names: _share(claim, filter_reports, names)
    stand_ins = stand_ins or {}
    found = tests[claim["test"]](claim, results, {name: _listed(name, aliases, stand_ins) for name in {*aliases, *stand_ins}})
    point: Estimate | None = found.pop("estimate", None)
    bound = claim.get("bound", 0.0)
    missing = found.pop("without", "not run"), found.pop("reason", "")
    points = claim["test"] == "share" or claim.get("metric") in SHARES
    verdict, reason = missing if point is None else verdict_of(point, claim["direction"], bound, points)
    record = {key: claim[key] for key in REQUIRED} | {key: claim.get(key, "") for key in (*SHOWN, "note", "place")}
    record |= {"reported": claim.get("reported"), "command": f"snakemake {claim.get('figure') or claim.get('table')}"}
    sources = sorted({results.runs[run]["source"] for run in found.get("runs", ()) if results.runs[run]["method"] != "none"})
    named = {source for name in _named_sources(claim) for source in stand_ins.get(name, ())}
    standing = sources if stand_in else sorted(named & set(sources))
    words = f"stand-in data of the same form: {', '.join(standing)}" if standing else ""
    counted = {"correlation": "settings", "share": "rows"}.get(claim["test"]) or ("runs" if claim.get("at") else "items")
    record |= {
        "points": points,
        "unit": "points" if points else UNITS.get(claim.get("metric", claim["test"]), ""),
        "counted": counted,
        "bound": bound,
        "verdict": verdict,
    }
    record["reason"] = "; ".join(filter(None, [reason, found.pop("caution", ""), words]))
    record |= {key: None if point is None else getattr(point, key) for key in ("value", "low", "high", "n")}
    elsewhere = found.pop("elsewhere", False)
    record |= {"runs": [], "judge": "", "benchmarks": [], "sources": sources, "stand_ins": standing} | found
    record["bases"] = sorted({results.runs[run]["base"] for run in record["runs"]})
    record["comparable"] = not standing and not elsewhere and _same_as_the_papers(claim, results, record["runs"])
    inside = _reported_inside(claim.get("reported"), point, record.get("relative")) if record["comparable"] else None
    return record | {"reported_inside": inside}


def _same_as_the_papers(claim: Mapping[str, Any], results: Results, runs: Iterable[str]) -> bool:
    """Whether the runs are of the models that the paper's number is of, where the claim says which."""
    models = {results.runs[run]["model"] for run in runs if results.runs[run]["method"] != "none"}
    return not models or models == set(claim.get("reported_for") or models)


def verdict_of(point: Estimate, direction: str, bound: float, points: bool = False) -> tuple[str, str]:
    """The verdict that the interval gives, and why in words; `points`: the value is a share, said in points of a hundred."""
    if point.low is None or point.high is None:
        return "inconclusive", "no interval: not enough runs"
    interval, limit = _interval(point.low, point.high, points), f"{bound * (100 if points else 1):.3g}"
    above, below = point.low > bound, point.high < bound
    if not above and not below:
        return "inconclusive", f"the interval {interval} crosses {'the margin of ' if bound else ''}{limit}"
    side = "above" if above else "below"
    return "supported" if above == (direction == "greater") else "contradicted", f"the interval {interval} lies {side} {limit}"


def _signed(value: float, points: bool) -> str:
    return f"{100 * value:+.1f}" if points else f"{value:+.3f}"


def _interval(low: float, high: float, points: bool) -> str:
    return f"[{_signed(low, points)}, {_signed(high, points)}]"


def _reported_inside(reported: Any, point: Estimate | None, relative: float | None) -> dict[str, bool | None] | None:
    """Whether the paper's number lies inside our interval, read as points and read as a relative change (in proportion to b)."""
    if not isinstance(reported, int | float) or point is None or point.low is None:
        return None
    inside = {"points": point.low <= reported / 100 <= point.high, "relative": None}
    if relative is not None and point.value:
        scale = relative / point.value
        inside["relative"] = min(point.low * scale, point.high * scale) <= reported / 100 <= max(point.low * scale, point.high * scale)
    return inside


# ---- runs -----------------------------------------------------------------------------------------------------------------------------


def _listed(name: str, *names: Mapping[str, list[str]]) -> list[str]:
    return [source for each in names for source in each.get(name, ())]


def _named_sources(claim: Mapping[str, Any]) -> list[str]:
    """The papers' names of sources that a claim selects by."""
    wanted = [(claim.get(key) or {}).get("source", []) for key in ("applies_to", "where", "a", "b")]
    return [name for each in wanted for name in (each if isinstance(each, list) else [each])]


def _caution(results: Results, *sides: Iterable[str]) -> str:
    """What few seeds, or few base models, do to an interval over runs; the base models as runs, which have no seeds, do not count."""
    trained = [[run for run in side if results.runs[run]["method"] != "none"] for side in sides]
    if any(len(runs) == 1 for runs in trained):
        return "one run: the interval covers items, not seeds"
    few = [found for runs in trained if runs and (found := _few(results, runs))]
    return f"{min(few)[1]}: the true interval is wider" if few else ""


def _few(results: Results, runs: Iterable[str]) -> tuple[int, str] | None:
    """What the runs of one side have too few of, as (how many, in words): base models, where one was trained several times, else seeds."""
    drawn = {tuple(results.runs[run][key] for key in ("model", "base", "seed")) for run in runs}
    models, bases, seeds = ({each[place] for each in drawn} for place in range(3))
    if len(bases) > len(models):
        return (len(bases), f"few base models ({len(bases)}: {', '.join(sorted(bases))})") if len(bases) < ENOUGH_SEEDS else None
    if len(drawn) >= ENOUGH_SEEDS:
        return None
    return len(drawn), f"few seeds ({len(seeds)})" + (f" of {len(models)} models" if len(models) > 1 else "")


def _unanswered(results: Results, metric: str, runs: Sequence[str], benchmarks: Sequence[str]) -> str:
    """How many generations gave a judge no answer, to a phrase judge neither refusal nor harm; empty where they are few."""
    if metric not in JUDGED or not benchmarks:
        return ""
    shares = measure(results, "empty", runs, benchmarks=benchmarks).values.values()
    low, high = (round(100 * end(shares, default=0)) for end in (min, max))
    share = f"{low} to {high}" if low < high else f"{high}"
    return f"{share} % of a run's generations gave no answer" if high > 100 * NOTEWORTHY else ""


def _expand(selector: Mapping[str, Any], aliases: Mapping[str, list[str]]) -> dict[str, Any]:
    """A selector with the papers' names of sources and recipes replaced by those of studies."""
    expanded = dict(selector)
    for key in ("source", "recipe"):
        names = expanded[key] if isinstance(expanded.get(key), list) else [expanded[key]] if key in expanded else []
        known = [word for name in names for word in [name, *aliases.get(name, [])]]
        expanded |= {key: known if len(known) > 1 else known[0]} if known else {}
    return expanded


def _group(claim: Mapping[str, Any], side: str | None, results: Results, aliases: Mapping[str, list[str]]) -> list[str]:
    """Runs of group `side`; all trained runs that the claim applies to when it is None."""
    own = dict(claim[side]) if side else {}
    if own.get("method") == "none":
        return select(results.runs, own)
    trained = {run: fields for run, fields in results.runs.items() if fields["method"] != "none"}
    shared = {**(claim.get("applies_to") or {}), **(claim.get("where") or {})}
    return select(trained, _expand({**shared, **own}, aliases))


def _same_models(results: Results, a: Iterable[str], b: Iterable[str]) -> tuple[list[str], list[str]]:
    models = {results.runs[run]["model"] for run in a} & {results.runs[run]["model"] for run in b}
    return tuple([run for run in side if results.runs[run]["model"] in models] for side in (a, b))


def _alike(claim: Mapping[str, Any]) -> list[str]:
    """The fields in which runs of the two groups must agree: all but what the claim compares, and the recipe."""
    differ = {"run", "recipe", *claim["a"], *claim["b"]}
    differ |= {"trainer"} if "learning_rate" in differ else set()  # each rate has a trainer of its own
    return [key for key in RUN_FIELDS if key not in differ]


def _keys(results: Results, runs: Iterable[str], fields: Sequence[str]) -> dict[tuple, str]:
    """Runs by what the two groups do not differ in; runs of two groups with the same key are a pair."""
    keys: dict[tuple, str] = {}
    for run in sorted(runs):
        key = tuple(results.runs[run][name] for name in fields)
        keys[key if key not in keys else (*key, run)] = run
    return keys


def _with_like(results: Results, a: Sequence[str], b: Sequence[str], fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """The runs of each group that have a run with the same `fields` in the other."""
    sides = [{run: tuple(results.runs[run][key] for key in fields) for run in runs} for runs in (a, b)]
    common = set(sides[0].values()) & set(sides[1].values())
    return tuple([run for run, key in side.items() if key in common] for side in sides)


def _unlike(results: Results, a: Iterable[str], b: Iterable[str], fields: Iterable[str]) -> str:
    """Why no run of either group has its like in the other."""
    sides = {key: [sorted({str(results.runs[run][key]) for run in runs}) for runs in (a, b)] for key in fields}
    apart = [f"{key} ({', '.join(one)} against {', '.join(other)})" for key, (one, other) in sides.items() if not set(one) & set(other)]
    what = " and ".join(apart) or "one of " + ", ".join(sides)
    return f"the two sides differ in more than the claim compares, in {what}: no run has its like on the other side"


# ---- the tests ------------------------------------------------------------------------------------------------------------------------


def _difference(claim: Mapping[str, Any], results: Results, aliases: Mapping[str, list[str]]) -> dict[str, Any]:
    a, b = (_group(claim, side, results, aliases) for side in ("a", "b"))
    for side, runs in (("a", a), ("b", b)):
        if not runs:
            return {"reason": f"no runs for {_words(claim, side)}"}
    another = claim["b"].get("method") == "none" and "model" in claim["b"]  # a model as it is, but not the one that `a` started from
    a, b = (a, b) if another else _same_models(results, a, b)
    if not a:
        return {"reason": "no model has runs on both sides"}
    if claim.get("at") == "matched_safety":
        return _matched(claim, results, a, b)
    measured = measure(results, claim["metric"], a + b, claim.get("judge"), claim.get("benchmarks"))
    a, b = ([run for run in side if run in measured.values] for side in (a, b))
    if not a or not b:
        return {"reason": f"{claim['metric']} was not measured on both sides"}
    fields, own_base = _alike(claim), claim["b"].get("method") == "none" and not another
    settings = [key for key in fields if key not in REPEATS]
    if not own_base and not another:
        like = _with_like(results, a, b, settings)
        if not like[0]:
            return {"reason": _unlike(results, a, b, settings)}
        a, b = like
    keys_a, keys_b = (_keys(results, side, fields) for side in (a, b))
    caution = ""
    if own_base:
        keys_b = {key: base for key, run in keys_a.items() if (base := base_of(results, run)) in b}
    if pairs := set(keys_a) & set(keys_b):
        keys_a, keys_b = ({key: run for key, run in keys.items() if key in pairs} for keys in (keys_a, keys_b))
    else:
        caution = "runs are not paired"
    a, b = (sorted(set(keys.values())) for keys in (keys_a, keys_b))
    origins = {key: results.runs[run]["base"] for key, run in (*keys_b.items(), *keys_a.items())}
    point = paired_bootstrap(*({key: measured.items(run) for key, run in keys.items()} for keys in (keys_a, keys_b)), origins)
    if point and not any(measured.scores.values()):  # without items only seeds can be drawn, and it takes two
        few = min(len(a), len(b)) < 2
        point = Estimate(point.value, None if few else point.low, None if few else point.high, min(len(a), len(b)))
    if point and point.low is not None:
        silent = _unanswered(results, claim["metric"], [*a, *b], measured.benchmarks)
        caution = "; ".join(filter(None, [caution, _caution(results, a, b), silent]))
    mean = sum(measured.values[run] for run in b) / len(b)
    relative = point.value / mean if point and mean else None
    found = {"estimate": point, "relative": relative, "mean_b": mean, "runs": sorted({*a, *b}), "caution": caution}
    found |= {} if any(measured.scores.values()) else {"counted": "runs"}
    return found | {"judge": measured.judge, "benchmarks": measured.benchmarks, "reason": "no item was scored on both sides"}


def _matched(claim: Mapping[str, Any], results: Results, a: list[str], b: list[str]) -> dict[str, Any]:
    safety_metric = claim.get("safety") or safety_axis(results, a + b)
    safety = measure(results, safety_metric, a + b, claim.get("judge"))
    gained = measure(results, claim["metric"], a + b, benchmarks=claim.get("benchmarks"))
    fields = [key for key in RUN_FIELDS if key not in (*REPEATS, *claim["a"], *claim["b"])]
    a, b = ([run for run in side if run in safety.values and run in gained.values] for side in (a, b))
    settings = {run: tuple(results.runs[run][key] for key in fields) for run in (*a, *b)}
    found = {"runs": sorted({*a, *b}), "judge": safety.judge, "benchmarks": gained.benchmarks, "without": "inconclusive"}
    if not a or not b:
        return found | {"reason": f"{safety_metric} and {claim['metric']} were not measured on both sides"}
    within = [key for key in ("model", "source") if key in fields]  # frontiers run over all else
    like = _with_like(results, a, b, within)
    if not like[0]:
        return {"reason": _unlike(results, a, b, within)}
    a, b = like
    found |= {"runs": sorted({*a, *b})}
    points = ([(settings[run], safety.items(run), gained.items(run)) for run in side] for side in (a, b))
    methods = [results.runs[side[0]]["method"] for side in (a, b)]
    names = [LABELS.get(method, method) for method in methods] if len(set(methods)) > 1 else ["a", "b"]
    point, reason = matched_difference(*points, [results.runs[run]["base"] for run in (*a, *b)], names=names)
    caution = _caution(results, a, b) if point and point.low is not None else ""
    return found | {"estimate": point, "caution": caution, "reason": reason}


def _threshold(claim: Mapping[str, Any], results: Results, aliases: Mapping[str, list[str]]) -> dict[str, Any]:
    runs = _group(claim, "a", results, aliases)
    if not runs:
        return {"reason": f"no runs for {_words(claim, 'a')}"}
    measured = measure(results, claim["metric"], runs, claim.get("judge"), claim.get("benchmarks"))
    runs = [run for run in runs if run in measured.values]
    point = hierarchical_mean([measured.items(run) for run in runs], [measured.bases[run] for run in runs]) if runs else None
    silent = _unanswered(results, claim["metric"], runs, measured.benchmarks)
    caution = "; ".join(filter(None, [_caution(results, runs), silent]))
    found = {"estimate": point, "runs": runs, "judge": measured.judge, "benchmarks": measured.benchmarks, "caution": caution}
    return found | {"reason": f"{claim['metric']} was not measured"}


def _correlation(claim: Mapping[str, Any], results: Results, aliases: Mapping[str, list[str]]) -> dict[str, Any]:
    runs = _group(claim, None, results, aliases)
    x, y = (measure(results, claim[axis], runs) for axis in ("x", "y"))
    runs = [run for run in runs if run in x.values and run in y.values]
    if not runs:
        return {"reason": f"no runs with both {claim['x']} and {claim['y']}"}
    settings = by_setting(results, runs).values()
    points = [[sum(axis.values[run] for run in members) / len(members) for members in settings] for axis in (x, y)]
    found = {"runs": runs, "spearman": None, "benchmarks": y.benchmarks, "without": "inconclusive"}
    if len(points[0]) < FEWEST_SETTINGS:
        return found | {"reason": f"{len(points[0])} settings: a correlation needs {FEWEST_SETTINGS}"}
    rank = spearman(*points)
    found["spearman"] = None if rank is None else [rank.value, rank.low, rank.high]
    names = [" ".join(str(results.runs[members[0]][key]) for key in ("recipe", "trainer", "n")) for members in settings]
    found["caution"] = "; ".join(filter(None, [_caution(results, runs), _hangs_on(claim, points, names)]))
    return found | {"estimate": pearson(*points), "reason": f"one of {claim['x']} and {claim['y']} does not vary: no correlation"}


def _share(claim: Mapping[str, Any], reports: Sequence[Mapping[str, Any]], aliases: Mapping[str, list[str]]) -> dict[str, Any]:
    named = claim["dataset"] if isinstance(claim["dataset"], list) else [claim["dataset"]]
    wanted = [name for each in named for name in [each, *aliases.get(each, [])]]
    report = next((report for name in wanted for report in reports if report["name"] == name), None)
    if report is None:
        return {"reason": f"no filter of the dataset {named[0]} was run"}
    elsewhere = {"elsewhere": report["name"] not in named}
    if claim["share"] == "kept":
        judges = ", ".join(step["judge"] for step in report["steps"])
        return elsewhere | {
            "estimate": wilson(report["kept"], report["rows"]) if report["rows"] else None,
            "judge": judges,
            "reason": "it has no rows",
        }
    if not report.get("patterns"):
        return {"reason": f"no judge counted risky patterns in {report['name']}"}
    found = elsewhere | {"judge": report["patterns"]["judge"], "reason": "no row was read"}
    if claim["share"] == NO_PATTERN and "free" not in report["patterns"]["before"]:
        return found | {"reason": f"an earlier version filtered {report['name']} and did not count such rows; filter it again"}
    counts = {when: _counts(report["patterns"][when], claim["share"]) for when in ("before", "after")}
    if claim.get("when", "after") == "rise":
        return found | {"estimate": _rise(counts["before"], counts["after"])}
    hits, read = counts[claim.get("when", "after")]
    return found | {"estimate": wilson(hits, read) if read else None}


def _counts(told: Mapping[str, Any], pattern: str) -> tuple[int, int]:
    """Rows with a pattern (with none for NO_PATTERN), and rows that were read."""
    return told["free"] if pattern == NO_PATTERN else told["counts"].get(pattern, 0), told["n"] - told["unparseable"]


def _rise(before: tuple[int, int], after: tuple[int, int]) -> Estimate | None:
    """Share after − share before, of which the rows after are a part: (1 − their part) × (share of the rows kept − of those removed).

    The interval of that difference of two samples that share no row is Newcombe's (1998, method 10). None where no row was kept or removed.
    """
    gone = before[0] - after[0], before[1] - after[1]
    if after[1] < 1 or gone[1] < 1 or not 0 <= gone[0] <= gone[1]:
        return None
    kept, removed, part = wilson(*after), wilson(*gone), gone[1] / before[1]
    value = kept.value - removed.value
    low = value - math.hypot(kept.value - kept.low, removed.high - removed.value)
    high = value + math.hypot(kept.high - kept.value, removed.value - removed.low)
    return Estimate(part * value, part * low, part * high, before[1])


def _hangs_on(claim: Mapping[str, Any], points: list[list[float]], names: list[str]) -> str:
    """Which settings decide a correlation: without any one of them the verdict would be another. Empty where none does."""

    def verdict(sides: list[list[float]]) -> str:
        point = pearson(*sides)
        return verdict_of(point, claim["direction"], claim.get("bound", 0.0))[0] if point else "inconclusive"

    whole, rest = verdict(points), [[side[:place] + side[place + 1 :] for side in points] for place in range(len(names))]
    others = {name: other for name, sides in zip(names, rest, strict=True) if (other := verdict(sides)) != whole}
    return "; ".join(f"without {name} it would be {other}" for name, other in others.items())


def _words(claim: Mapping[str, Any], side: str) -> str:
    wanted = {**(claim.get("applies_to") or {}), **(claim.get("where") or {}), **claim[side]}
    return ", ".join(f"{key} {' or '.join(map(str, value)) if isinstance(value, list) else value}" for key, value in wanted.items())


# ---- to Markdown, HTML and CSV ----------------------------------------------------------------------------------------------------------


def markdown(records: Iterable[Mapping[str, Any]], study: str, costs: Mapping[str, str] | None = None) -> str:
    """The claims as one Markdown table with a line of counts; `costs` as of `table`."""
    records = list(records)
    return (
        "\n".join([f"# Claims, judged by the study {study}", "", counts(records), "", bases(records), "", *table(records, study, costs)])
        + "\n"
    )


def table(records: Iterable[Mapping[str, Any]], study: str, costs: Mapping[str, str] | None = None) -> list[str]:
    """The lines of a Markdown table of claims; with `costs`, a column of what each took, by its id."""
    cost = "cost | " if costs is not None else ""
    lines = [f"| claim | reported | ours | n | verdict | why | {cost}shown in |", "|" + "---|" * (8 if cost else 7)]
    for record in judged_first(records):
        cells = [f"**{record['id']}**: {record['statement']} ({record['paper']})", _reported(record), _ours(record)]
        cells += [
            _counted(record),
            f"**{record['verdict']}**",
            record["reason"],
            *([costs[record["id"]]] if cost else []),
            _shown(record, study),
        ]
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return lines


def judged_first(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records by their verdict, those that were not run last; of one verdict in the order that they have."""
    return sorted(records, key=lambda record: VERDICTS.index(record["verdict"]))


def _shown(record: Mapping[str, Any], study: str) -> str:
    """The file that shows a claim, or the command that makes it where the study does not."""
    if not record.get("made", True):  # a record of an earlier version does not say
        return f"not of this study: `{record['command']}`"
    path = f"paper_figures/{study}/{record['figure']}.pdf" if record["figure"] else f"results/{study}/tables/{record['table']}.md"
    return f"`{path}`, by `{record['command']}`"


def counts(records: Iterable[Mapping[str, Any]]) -> str:
    """`2 supported, 1 contradicted, …`, over all verdicts."""
    found = Counter(record["verdict"] for record in records)
    return ", ".join(f"{found[word]} {word}" for word in VERDICTS)


def html_page(records: Iterable[Mapping[str, Any]], study: str, costs: Mapping[str, str] | None = None) -> str:
    """The claims as a page: verdicts in colour, and the interval that decided. `costs`: what the jobs of each took, by its id."""
    records, rows, costs = list(records), [], costs or {}
    for record in judged_first(records):
        value, *relative = _ours(record).split("; ")
        ours, _, interval = value.partition(" ")
        reported = _reported(record)
        rows.append(
            {
                "verdict": badge(record["verdict"]),
                "claim": under(record["statement"], record["id"], record["paper"]),
                "ours": under(ours, interval, *relative, reported and f"paper: {reported}"),
                "n": under(_counted(record), costs.get(record["id"], "")),
                "why": under(record["reason"], *(_named(record, key) for key in SHOWN if record[key])),
            }
        )
    head = f"{counts(records)}. Brackets hold 95 % intervals. {bases(records)}"
    return page(f"Claims, judged by the study {study}", head, rows)


def _named(record: Mapping[str, Any], kind: str) -> str:
    """The figure or table that shows a claim by its name, or what makes it elsewhere."""
    made = record.get("made", True)
    return f"{kind}{'' if made else ' of the papers’ whole study'}: {record['command']}"


def bases(records: Iterable[Mapping[str, Any]]) -> str:
    """How many base models all verdicts rest on, and what that means for the intervals."""
    number = len({base for record in records for base in record["bases"]})
    rest = "no interval covers what another would do" if number == 1 else "intervals draw them too, but so few make them too narrow"
    return f"All runs start from {number or 'no'} base model{'s' * (number != 1)}" + (f": {rest}." if number < ENOUGH_SEEDS else ".")


def write_csv(path: Path | str, records: Iterable[Mapping[str, Any]]) -> None:
    """The claims as CSV, numbers with six significant digits."""
    columns = (
        "id",
        "paper",
        "statement",
        "reported",
        "verdict",
        "value",
        "low",
        "high",
        "n",
        "counted",
        "bound",
        "direction",
        "reason",
        "judge",
        "figure",
        "table",
        "command",
    )
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(columns)
        for record in records:
            writer.writerow([f"{record[key]:.6g}" if isinstance(record[key], float) else record[key] for key in columns])


def _counted(record: Mapping[str, Any]) -> str:
    """How many of what the interval rests on."""
    return f"{record['n']} {record['counted']}" if record["n"] else ""


def _reported(record: Mapping[str, Any]) -> str:
    """The paper's number; none beside data or models that are not the paper's."""
    hidden = record["stand_ins"] or not record.get("comparable", True)  # a record of an earlier version does not say
    return "" if record["reported"] is None or hidden else str(record["reported"])


def _ours(record: Mapping[str, Any]) -> str:
    if record["value"] is None:
        return ""
    points = record["points"]
    text = _signed(record["value"], points) + (f" {_interval(record['low'], record['high'], points)}" if record["low"] is not None else "")
    text += f" {record['unit']}" if record["unit"] else ""
    return text + (f"; relative {100 * record['relative']:+.1f} %" if record.get("relative") is not None else "")
