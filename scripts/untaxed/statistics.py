"""Intervals and tests: rates, means, paired differences, correlations, agreement, and reasoning at matched safety.

Every function is deterministic: a bootstrap takes its random numbers from `seed`. Scores lie on 0–1 and may be None or NaN
(unparseable), which leaves that item out of that run. numpy and scipy are imported inside the functions, because light commands import
this module.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
FEWEST_SETTINGS = 5  # that a correlation needs before a figure prints it or a claim is judged by it
SHARED_SAFETY = 0.05  # the range of safety that two methods must both reach before they are compared at matched safety
Scores = float | Mapping[Hashable, float | None]  # one number, or the scores of items
CHUNK = 250  # resamples held at once, so that 5,000 items × 2,000 resamples never lie in memory together


@dataclass(frozen=True)
class Estimate:
    """A value with its interval; `low` and `high` are None when the data cannot give one. `n` counts items, pairs or points."""

    value: float
    low: float | None
    high: float | None
    n: int


def wilson(successes: float, n: int, level: float = LEVEL) -> Estimate:
    """Wilson's score interval for a proportion (Wilson 1927). Raises ValueError when n is not positive or successes are outside 0..n."""
    from scipy.stats import norm

    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n}: a proportion needs 0 <= successes <= n and n >= 1")
    z = float(norm.ppf((1 + level) / 2))
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Estimate(rate, low, high, n)


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> Estimate:
    """Mean of one run's item scores: Wilson's interval when all are 0 or 1, else a percentile bootstrap over the items."""
    if not values:
        raise ValueError("no values: a mean needs at least one")
    if all(value in (0, 1) for value in values):
        return wilson(sum(values), len(values), level)
    return hierarchical_mean([dict(enumerate(values))], seed=seed, resamples=resamples, level=level)


def _matrix(runs: Sequence[Mapping[Hashable, float | None]], ids: Sequence[Hashable]) -> "np.ndarray":
    """Scores as (runs, items), NaN where a run has none."""
    import numpy as np

    rows = [[math.nan if (score := run.get(name)) is None else score for name in ids] for run in runs]
    return np.array(rows, dtype=float).reshape(len(runs), len(ids))


def _strata(ids: Sequence[Hashable]) -> "list[np.ndarray]":
    """Positions of the items of each benchmark: an id that is a tuple belongs to the benchmark that it starts with."""
    import numpy as np

    groups: dict[Hashable, list[int]] = {}
    for position, name in enumerate(ids):
        groups.setdefault(name[0] if isinstance(name, tuple) else "", []).append(position)
    return [np.array(positions) for positions in groups.values()]


def _item_means(matrix: "np.ndarray", weights: "np.ndarray") -> "np.ndarray":
    """Mean over runs for each resample and item: (resamples, items), NaN where no drawn run has a score."""
    import numpy as np

    known = ~np.isnan(matrix)
    count = weights @ known
    total = weights @ np.where(known, matrix, 0.0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _macro_mean(values: "np.ndarray", weights: "np.ndarray", strata: "list[np.ndarray]") -> "np.ndarray":
    """Mean over items within each benchmark, then over benchmarks: (resamples,)."""
    import numpy as np

    means = []
    for positions in strata:
        block = values[:, positions]
        weight = weights[:, positions] * ~np.isnan(block)
        total = weight.sum(axis=1)
        means.append(np.where(total > 0, (weight * np.nan_to_num(block)).sum(axis=1) / np.maximum(total, 1e-12), np.nan))
    stacked = np.stack(means)
    known = ~np.isnan(stacked)
    return np.where(known.any(axis=0), np.nansum(stacked, axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)


def _draws(generator: "np.random.Generator", count: int, size: int) -> "np.ndarray":
    """How often each of `count` things is drawn in a bootstrap resample: (size, count)."""
    import numpy as np

    return generator.multinomial(count, np.full(count, 1 / count), size=size)


def _run_draws(generator: "np.random.Generator", bases: Sequence[Hashable], size: int, drawn: "np.ndarray | None" = None) -> "np.ndarray":
    """How often each run is drawn in a resample, (size, runs): first the base models that runs start from, then runs of each of them.

    `drawn` says how often each base model was drawn, where two sides share it.
    """
    import numpy as np

    names = sorted(set(bases), key=repr)
    if len(names) < 2:
        return _draws(generator, len(bases), size)
    drawn = _draws(generator, len(names), size) if drawn is None else drawn
    weights = np.zeros((size, len(bases)))
    for number, name in enumerate(names):
        members = [position for position, base in enumerate(bases) if base == name]
        weights[:, members] = generator.multinomial(drawn[:, number] * len(members), np.full(len(members), 1 / len(members)))
    return weights


def _item_draws(generator: "np.random.Generator", strata: "list[np.ndarray]", items: int, size: int) -> "np.ndarray":
    import numpy as np

    weights = np.zeros((size, items))
    for positions in strata:
        weights[:, positions] = _draws(generator, len(positions), size)
    return weights


def _percentiles(draws: "np.ndarray", level: float, bases: int) -> tuple[float, float]:
    """The ends of an interval. Where `bases` base models (two or more) were drawn first, the percentiles lie as much further out as
    Student's t asks of so few (Hesterberg's expanded percentiles, arXiv 1411.5279): plain ones of five cover the truth in some 85 %.
    """
    import numpy as np
    from scipy.stats import norm, t

    tail = (1 - level) / 2
    if bases > 1:
        tail = float(norm.cdf(math.sqrt(bases / (bases - 1)) * t.ppf(tail, bases - 1)))
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def hierarchical_mean(
    runs: Sequence[Mapping[Hashable, float | None]],
    bases: Sequence[Hashable] = (),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate | None:
    """Mean score over runs (seeds) and items, with a bootstrap that draws runs and items anew in each resample.

    `runs`: one mapping id → score per run; `bases`: the base model of each, drawn before its runs where there are several. Ids that are
    (benchmark, id) tuples are drawn within their benchmark, and benchmarks weigh the same. With one run the interval covers items only.
    Percentile intervals over k runs of one base model are too narrow by about sqrt((k − 1) / k). Where every score is the same 0 or 1
    the interval is Wilson's for the number of items, since a bootstrap would have no width. None without scores.
    """
    import numpy as np

    ids = sorted({name for run in runs for name, score in run.items() if score is not None}, key=repr)
    if not ids:
        return None
    matrix, strata = _matrix(runs, ids), _strata(ids)
    ones = np.ones((1, len(ids)))
    value = float(_macro_mean(_item_means(matrix, np.ones((1, len(runs)))), ones, strata)[0])
    if value in (0.0, 1.0):
        interval = wilson(value * len(ids), len(ids), level)
        return Estimate(value, interval.low, interval.high, len(ids))
    generator = np.random.default_rng(seed)
    draws = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        means = _item_means(matrix, _run_draws(generator, bases or [""] * len(runs), size))
        draws.append(_macro_mean(means, _item_draws(generator, strata, len(ids), size), strata))
    return Estimate(value, *_percentiles(np.concatenate(draws), level, len(set(bases))), len(ids))


def paired_bootstrap(
    a: Mapping[Hashable, Mapping[Hashable, float | None]],
    b: Mapping[Hashable, Mapping[Hashable, float | None]],
    bases: Mapping[Hashable, Hashable] | None = None,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate | None:
    """Difference of means a − b over the ids that both sides scored, with a hierarchical bootstrap over runs and items.

    `a`, `b`: run key (such as the seed) → {id → score}. A resample draws the same items for both sides. When both sides have the same
    keys their runs are drawn in pairs too, else independently. `bases`: run key → base model, which is drawn first, and for both sides
    at once where both have the same ones. Benchmarks and their weights as in `hierarchical_mean`. When no
    resample differs (scores of 0 and 1, and the same difference on every item) the interval is from `_paired_margins`. None without common
    ids.
    """
    import numpy as np

    scored = [{name for run in side.values() for name, score in run.items() if score is not None} for side in (a, b)]
    ids = sorted(scored[0] & scored[1], key=repr)
    if not ids:
        return None
    paired = set(a) == set(b)
    keys_a = sorted(a, key=repr)
    keys_b = keys_a if paired else sorted(b, key=repr)
    matrix_a, matrix_b = _matrix([a[key] for key in keys_a], ids), _matrix([b[key] for key in keys_b], ids)
    strata = _strata(ids)
    ones = np.ones((1, len(ids)))

    def side(matrix: "np.ndarray", run_weights: "np.ndarray", item_weights: "np.ndarray") -> "np.ndarray":
        return _macro_mean(_item_means(matrix, run_weights), item_weights, strata)

    mean_a = float(side(matrix_a, np.ones((1, len(keys_a))), ones)[0])
    mean_b = float(side(matrix_b, np.ones((1, len(keys_b))), ones)[0])
    bases_a, bases_b = ([(bases or {}).get(key, "") for key in keys] for keys in (keys_a, keys_b))
    generator = np.random.default_rng(seed)
    draws = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        items = _item_draws(generator, strata, len(ids), size)
        shared = _draws(generator, len(set(bases_a)), size) if len(set(bases_a)) > 1 and set(bases_a) == set(bases_b) else None
        runs_a = _run_draws(generator, bases_a, size, shared)
        runs_b = runs_a if paired else _run_draws(generator, bases_b, size, shared)
        draws.append(side(matrix_a, runs_a, items) - side(matrix_b, runs_b, items))
    low, high = _percentiles(np.concatenate(draws), level, len({*bases_a, *bases_b}))
    if low == high and all(np.isin(matrix, (0, 1)).all() for matrix in (matrix_a, matrix_b)):
        gaps = _item_means(matrix_a, np.ones((1, len(keys_a)))) - _item_means(matrix_b, np.ones((1, len(keys_b))))
        below, above = _paired_margins(*(float(np.clip(sign * gaps, 0, None).sum()) for sign in (1, -1)), len(ids), level)
        low, high = mean_a - mean_b - below, mean_a - mean_b + above
    return Estimate(mean_a - mean_b, low, high, len(ids))


def _paired_margins(gains: float, losses: float, n: int, level: float) -> tuple[float, float]:
    """How far the interval of a paired difference reaches below and above it, from the items of n that only one side has right.

    The Wilson intervals of the share of gains and of the share of losses, joined as Newcombe joins two proportions (1998, method 10).
    Items that both sides have right, or both wrong, say nothing about the difference: two runs that agree on all of 120 items differ by
    less than 3.1 points, wherever their accuracy lies.
    """
    up, down = wilson(gains, n, level), wilson(losses, n, level)
    return math.hypot(up.value - up.low, down.high - down.value), math.hypot(up.high - up.value, down.value - down.low)


def shared_safety(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> float:
    """Width of the range of safety that two frontiers both reach; negative when they do not meet."""
    return min(a[-1][0], b[-1][0]) - max(a[0][0], b[0][0])


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Pareto frontier of (safety, reasoning) points, by rising safety: no other point is at least as good in both.

    It starts at the lowest safety seen: below its first corner the frontier is flat, since a safer model serves where less safety is
    asked.
    """
    corners: list[tuple[float, float]] = []
    for safety, reasoning in sorted(points, reverse=True):
        if not corners or reasoning > corners[-1][1]:
            corners.append((safety, reasoning))
    corners.reverse()
    lowest = min((safety for safety, _ in points), default=0.0)
    if corners and lowest < corners[0][0]:
        corners.insert(0, (lowest, corners[0][1]))
    return corners


def _mean_gap(a: list[tuple[float, float]], b: list[tuple[float, float]]) -> float | None:
    """Mean of frontier a − frontier b over their common safety range; None when there is none."""
    import numpy as np

    low, high = max(a[0][0], b[0][0]), min(a[-1][0], b[-1][0])
    if low > high:
        return None
    knots = np.array(sorted({low, high, *(s for s, _ in a + b if low <= s <= high)}))
    gaps = np.interp(knots, *zip(*a, strict=True)) - np.interp(knots, *zip(*b, strict=True))
    return float(np.trapezoid(gaps, knots) / (high - low)) if high > low else float(gaps[0])


def matched_difference(
    frontier_a: Sequence[tuple[Hashable, Scores, Scores]],
    frontier_b: Sequence[tuple[Hashable, Scores, Scores]],
    bases: Sequence[Hashable] = (),
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    minimum_runs: int = 2,
    minimum_shared: float = SHARED_SAFETY,
    names: tuple[str, str] = ("a", "b"),
) -> tuple[Estimate | None, str]:
    """Difference in reasoning accuracy a − b at the same safety level, or None; and why there is none.

    `frontier_a`, `frontier_b`: one (setting, safety, reasoning) per run of each method; runs of one setting differ in their seed alone.
    Safety and reasoning map ids to scores as in `hierarchical_mean`, or are one number, which is one item. Each setting becomes its mean
    over seeds (so that a lucky seed makes no frontier), each method the Pareto frontier of its settings, joined by straight lines. The
    value is the mean gap between the two frontiers over the safety range that both reach. The interval draws the seeds of every setting
    and the items of both axes anew, the same items for all runs, and rebuilds both frontiers; it is None when there is neither a second
    seed nor a second item, or when most resamples lose the common range. `bases`: the base model of each run of `frontier_a`, then of
    `frontier_b`; where there are several they are drawn before the seeds, the same for all settings. `n` counts runs. None when a
    method has fewer than `minimum_runs` runs, or the two reach less than `minimum_shared` of the safety axis in common; `names` says in the
    reason which is which.
    """
    import numpy as np

    if min(len(frontier_a), len(frontier_b)) < minimum_runs:
        return None, "too few runs"
    runs = [*frontier_a, *frontier_b]
    axes = [[_as_items(run[axis]) for run in runs] for axis in (1, 2)]
    sides: list[list[list[int]]] = []  # the runs of each setting, by method
    for numbers in (range(len(frontier_a)), range(len(frontier_a), len(runs))):
        settings: dict[Hashable, list[int]] = {}
        for number in numbers:
            settings.setdefault(runs[number][0], []).append(number)
        sides.append([settings[setting] for setting in sorted(settings, key=repr)])

    def frontiers(points: "np.ndarray", drawn: list[list[list[int]]]) -> list[list[tuple[float, float]]]:
        return [frontier([tuple(points[members].mean(axis=0).tolist()) for members in side]) for side in drawn]

    lines = frontiers(_run_means(axes, None, 1)[0], sides)
    value = _mean_gap(*lines)
    if value is None or shared_safety(*lines) < minimum_shared:
        reached = ", ".join(f"{name} {span(100 * line[0][0], 100 * line[-1][0])} %" for name, line in zip(names, lines, strict=True))
        return None, f"less than {100 * minimum_shared:.0f} points of safety shared ({reached})"
    if max(len(members) for side in sides for members in side) < 2 and max(len(scores) for axis in axes for scores in axis) < 2:
        return Estimate(value, None, None, len(runs)), ""
    origin = list(bases) or [""] * len(runs)
    names = sorted(set(origin), key=repr)
    groups = [[[[run for run in members if origin[run] == name] for name in names] for members in side] for side in sides]
    generator = np.random.default_rng(seed)
    draws = []
    for points in _run_means(axes, generator, resamples):
        chosen = generator.integers(0, len(names), len(names)) if len(names) > 1 else [0]
        drawn = [[_drawn_runs(generator, [by_base[i] for i in chosen]) for by_base in side] for side in groups]
        drawn = [[members for members in side if members] for side in drawn]
        if all(drawn) and not np.isnan(points).any() and (found := _mean_gap(*frontiers(points, drawn))) is not None:
            draws.append(found)
    if len(draws) < resamples / 2:
        return Estimate(value, None, None, len(runs)), ""
    return Estimate(value, *_percentiles(np.array(draws), level, len(names)), len(runs)), ""


def span(low: float, high: float) -> str:
    """Two ends in whole numbers, `12–72`; one number where they round to the same."""
    low_text, high_text = f"{low:.0f}", f"{high:.0f}"
    return low_text if low_text == high_text else f"{low_text}–{high_text}"


def _drawn_runs(generator: "np.random.Generator", groups: Sequence[list[int]]) -> list[int]:
    """As many runs of each group as it has, drawn with replacement."""
    return [group[i] for group in groups if group for i in generator.integers(0, len(group), len(group))]


def _as_items(scores: Scores) -> Mapping[Hashable, float | None]:
    return scores if isinstance(scores, Mapping) else {"": scores}


def _run_means(axes: Sequence[Sequence[Mapping]], generator: "np.random.Generator | None", size: int) -> "np.ndarray":
    """Mean of every run on every axis over the same items, drawn anew for each resample: (resamples, runs, axes).

    Items weigh the same within their benchmark, benchmarks the same. Without a generator every item is taken once.
    """
    import numpy as np

    found = []
    for runs in axes:
        ids = sorted({name for run in runs for name in run}, key=repr)
        matrix, strata = _matrix(runs, ids), _strata(ids)
        weights = np.ones((size, len(ids))) if generator is None else _item_draws(generator, strata, len(ids), size)
        found.append(np.stack([_macro_mean(np.broadcast_to(row, weights.shape), weights, strata) for row in matrix], axis=1))
    return np.stack(found, axis=2)


def pearson(x: Sequence[float], y: Sequence[float], level: float = LEVEL) -> Estimate | None:
    """Pearson's r with Fisher's z interval (needs 4 points). None with fewer than 3 points or when one side does not vary."""
    from scipy.stats import norm, pearsonr

    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    value = min(1.0, max(-1.0, float(pearsonr(x, y).statistic)))
    if len(x) < 4:
        return Estimate(value, None, None, len(x))
    if abs(value) == 1:
        return Estimate(value, value, value, len(x))
    half = float(norm.ppf((1 + level) / 2)) / math.sqrt(len(x) - 3)
    return Estimate(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half), len(x))


def spearman(x: Sequence[float], y: Sequence[float], seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL) -> Estimate | None:
    """Spearman's rank correlation with a bootstrap over points (needs 4). None with fewer than 3 points or when one side does not
    vary.
    """
    import numpy as np
    from scipy.stats import rankdata

    if len(x) < 3 or len(set(x)) < 2 or len(set(y)) < 2:
        return None

    def correlation(index: "np.ndarray") -> "np.ndarray":
        ranks = [rankdata(np.asarray(side, dtype=float)[index], axis=1) for side in (x, y)]
        left, right = (side - side.mean(axis=1, keepdims=True) for side in ranks)
        scale = np.sqrt((left**2).sum(axis=1) * (right**2).sum(axis=1))
        return np.where(scale > 0, (left * right).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan)

    value = float(correlation(np.arange(len(x))[None, :])[0])
    if len(x) < 4:
        return Estimate(value, None, None, len(x))
    index = np.random.default_rng(seed).integers(0, len(x), size=(resamples, len(x)))
    return Estimate(value, *_percentiles(correlation(index), level, 0), len(x))


def ratio_interval(
    sums: Sequence[float], counts: Sequence[float], seed: int = 0, resamples: int = RESAMPLES, level: float = LEVEL
) -> Estimate:
    """sum(sums) / sum(counts) with a percentile bootstrap over the items, such as nats per token over generations of unequal length.

    A mean over items has counts of 1. `n` counts items.
    """
    import numpy as np

    sums, counts = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    generator = np.random.default_rng(seed)
    chosen = (generator.integers(len(sums), size=len(sums)) for _ in range(resamples))
    draws = np.array([sums[index].sum() / counts[index].sum() for index in chosen])
    return Estimate(float(sums.sum() / counts.sum()), *_percentiles(draws, level, 0), len(sums))


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float | None:
    """Agreement of two raters beyond chance (Cohen 1960). None when both give one and the same label throughout. Raises ValueError on
    unequal lengths.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"{len(a)} and {len(b)} labels: kappa needs two lists of the same length, not empty")
    n = len(a)
    observed = sum(left == right for left, right in zip(a, b, strict=True)) / n
    expected = sum(list(a).count(label) * list(b).count(label) for label in set(a) | set(b)) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def rater_agreement(
    runs: Sequence[int],
    items: Sequence[int],
    a: Sequence[int],
    b: Sequence[int],
    names: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[Estimate, Estimate | None]:
    """How often two raters give the same answer, and their Cohen's kappa (Cohen 1960), over samples that both answered with 0 or 1.

    `runs` and `items` are the run and the prompt of each sample, as numbers from 0; `names` is the id of each prompt, drawn within its
    benchmark as in `hierarchical_mean`. Samples count alike; `n` counts them. The intervals draw runs and prompts anew, because samples of
    one prompt, or of one run, are not independent: those of a rate as if they were would be too narrow. The rate has Wilson's interval
    where every sample is another prompt of one run, and for the number of prompts where no resample differs. Kappa is None where both
    raters give one and the same answer throughout; its ends are None where no resample differs, or most leave it undefined. Raises
    ValueError without samples.
    """
    import numpy as np

    if not len(a) == len(b) == len(runs) == len(items) > 0:
        raise ValueError(f"{len(a)} and {len(b)} answers: agreement needs two lists of the same length, not empty")
    runs, items, cells = np.asarray(runs), np.asarray(items), 2 * np.asarray(a, dtype=int) + np.asarray(b, dtype=int)
    shape = int(runs.max()) + 1, len(names)
    tables = [np.zeros(shape, dtype=np.float32) for _ in range(4)]  # samples by run and prompt, in the order of `_rate_and_kappa`
    for cell, table in enumerate(tables):
        np.add.at(table, (runs[cells == cell], items[cells == cell]), 1)
    rate, kappa = (float(values[0]) for values in _rate_and_kappa(np.array([[float(table.sum()) for table in tables]])))
    generator, strata = np.random.default_rng(seed), _strata(names)
    drawn = []
    for start in range(0, resamples, CHUNK):
        size = min(CHUNK, resamples - start)
        by_run = _draws(generator, shape[0], size).astype(np.float32)
        by_item = _item_draws(generator, strata, shape[1], size)
        drawn.append(np.stack([((by_run @ table) * by_item).sum(axis=1) for table in tables], axis=1))
    rates, kappas = _rate_and_kappa(np.concatenate(drawn))
    prompts = len(set(items.tolist()))
    low, high = _percentiles(rates, level, 0)
    if low == high or (shape[0] == 1 and prompts == len(items)):
        interval = wilson(rate * prompts, prompts, level)
        low, high = interval.low, interval.high
    agreed = Estimate(rate, low, high, len(items))
    if math.isnan(kappa):
        return agreed, None
    ends = _percentiles(kappas, level, 0) if np.isnan(kappas).mean() <= 0.5 else (None, None)
    return agreed, Estimate(kappa, *(ends if ends[0] != ends[1] else (None, None)), len(items))


def _rate_and_kappa(counts: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """Agreement and kappa of tables (resamples, 4) with the counts of (0, 0), (0, 1), (1, 0), (1, 1); NaN where they are not defined."""
    import numpy as np

    neither, only_b, only_a, both = counts.T
    total = np.where(counts.sum(axis=1) > 0, counts.sum(axis=1), np.nan)
    rate = (neither + both) / total
    expected = ((both + only_a) * (both + only_b) + (neither + only_a) * (neither + only_b)) / total**2
    constant = np.maximum(neither, both) == total
    return rate, np.where(constant, np.nan, (rate - expected) / np.where(constant, 1, 1 - expected))
