"""Statistics: values from published tables, scipy, and sums done by hand."""

import math

import numpy as np
import pytest
from scipy import stats
from untaxed.statistics import (
    _percentiles,
    cohen_kappa,
    frontier,
    hierarchical_mean,
    matched_difference,
    mean_interval,
    paired_bootstrap,
    pearson,
    rater_agreement,
    ratio_interval,
    shared_safety,
    spearman,
    wilson,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(6, 50, 5.6, 23.8), (27, 50, 40.4, 67.0)],  # the LRM safety study's ASR resolution
)
def test_wilson_gives_the_published_intervals(successes, n, low, high):
    interval = wilson(successes, n)
    assert (round(100 * interval.low, 1), round(100 * interval.high, 1)) == (low, high)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (10, 10), (1, 3), (81, 263), (148, 1319)])
def test_wilson_agrees_with_scipy(successes, n):
    expected = stats.binomtest(successes, n).proportion_ci(method="wilson")
    interval = wilson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_without_items_is_an_error():
    with pytest.raises(ValueError, match="n >= 1"):
        wilson(0, 0)


def test_the_bootstrap_of_a_mean_agrees_with_the_t_interval():
    values = [((7 * i) % 100) / 100 for i in range(200)]
    expected = stats.t.interval(0.95, 199, loc=sum(values) / 200, scale=stats.sem(values))
    interval = mean_interval(values)
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.006)
    assert interval == mean_interval(values)


def test_a_hierarchical_interval_widens_when_seeds_disagree():
    alike = [{i: i % 2 for i in range(100)}] * 4
    apart = [dict.fromkeys(range(100), score) for score in (0.0, 0.5, 0.5, 1.0)]
    assert hierarchical_mean(alike).value == hierarchical_mean(apart).value == 0.5
    width = [estimate.high - estimate.low for estimate in (hierarchical_mean(alike), hierarchical_mean(apart))]
    assert width[1] > 2 * width[0]


def test_benchmarks_weigh_the_same_whatever_their_size():
    run = {("aime", i): 0.0 for i in range(10)} | {("gsm8k", i): 1.0 for i in range(90)}
    assert hierarchical_mean([run]).value == pytest.approx(0.5)


def test_a_rate_of_zero_keeps_wilsons_width():
    interval = hierarchical_mean([dict.fromkeys(range(50), 0.0)] * 3)
    assert (interval.low, interval.high) == (0.0, wilson(0, 50).high)


def test_unparseable_scores_leave_the_mean():
    assert hierarchical_mean([{1: 1.0, 2: 0.0, 3: None}]).value == 0.5
    assert hierarchical_mean([{1: None}]) is None


def test_pairing_removes_the_spread_between_items():
    a = {0: {i: i / 100 + 0.1 for i in range(100)}}
    b = {0: {i: i / 100 for i in range(100)}}
    difference = paired_bootstrap(a, b)
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))


def test_a_paired_difference_agrees_with_the_paired_t_interval():
    a = {0: {i: float((i * 37) % 101 < 60) for i in range(400)}}
    b = {0: {i: float((i * 53) % 97 < 45) for i in range(400)}}
    gaps = [a[0][i] - b[0][i] for i in range(400)]
    expected = stats.t.interval(0.95, 399, loc=sum(gaps) / 400, scale=stats.sem(gaps))
    difference = paired_bootstrap(a, b)
    assert (difference.low, difference.high) == pytest.approx(expected, abs=0.01)


def test_a_difference_uses_common_ids_alone():
    assert paired_bootstrap({0: {"x": 1.0, "y": 0.0}}, {0: {"x": 0.5, "z": 1.0}}).value == 0.5
    assert paired_bootstrap({0: {"x": 1.0}}, {0: {"y": 1.0}}) is None


def test_seeds_that_disagree_widen_a_difference():
    base = {0: dict.fromkeys(range(50), 0.5)}
    runs = {seed: dict.fromkeys(range(50), level) for seed, level in enumerate((0.1, 0.9, 0.2, 0.8))}
    difference = paired_bootstrap(runs, base)
    assert difference.value == pytest.approx(0.0)
    assert difference.low < -0.2 < 0.2 < difference.high


def test_an_interval_draws_base_models_before_their_runs():
    """Five runs at 0.2 of one base model, five at 0.8 of another: ten runs alone nearly fix the mean, two base models do not."""
    runs = [{str(item): value for item in range(50)} for value in [0.2] * 5 + [0.8] * 5]
    alone, drawn = (hierarchical_mean(runs, bases) for bases in ((), ["one"] * 5 + ["two"] * 5))
    assert alone.value == drawn.value == pytest.approx(0.5)
    assert (drawn.low, drawn.high) == (pytest.approx(0.2), pytest.approx(0.8))
    assert alone.low > 0.25
    assert alone.high < 0.75
    assert hierarchical_mean(runs, ["one"] * 10) == alone


def test_a_difference_draws_the_same_base_models_on_both_sides():
    """Base models that differ by 0.6 in both groups say nothing against a difference of 0.1 in each."""
    a, b = ({seed: {"x": (0.2, 0.8)[seed % 2] + more, "y": (0.1, 0.9)[seed % 2] + more} for seed in range(6)} for more in (0.1, 0.0))
    bases = {seed: seed % 2 for seed in range(12)}
    for other in (b, {seed + 6: scores for seed, scores in b.items()}):  # paired by seed, then not
        point = paired_bootstrap(a, other, bases)
        assert (point.value, point.low, point.high) == tuple(pytest.approx(0.1) for _ in range(3))


def test_all_or_nothing_differences_keep_a_width():
    difference = paired_bootstrap({0: dict.fromkeys(range(20), 1.0)}, {0: dict.fromkeys(range(20), 0.0)})
    # Newcombe: both Wilson bounds lie 0.1611 from the end at n = 20, so the low bound is 1 - sqrt(2) * 0.1611
    assert (difference.low, difference.high) == pytest.approx((0.7722, 1.0), abs=1e-3)


def test_equal_runs_are_paired_by_item_wherever_their_accuracy_lies():
    run = {i: float(i % 2) for i in range(120)}
    difference = paired_bootstrap({"a": run}, {"s0": run, "s1": run})
    # no item of 120 gained and none lost: Wilson's upper bound for 0 of n is z^2 / (n + z^2) = 3.8415 / 123.8415, either way
    assert (difference.value, difference.low, difference.high) == pytest.approx((0.0, -0.03102, 0.03102), abs=1e-4)


def test_shared_safety_is_the_overlap_of_two_frontiers():
    assert shared_safety([(0.1, 1), (0.6, 0)], [(0.4, 1), (0.9, 0)]) == pytest.approx(0.2)
    assert shared_safety([(0.0, 1), (0.05, 0)], [(0.6, 1), (0.8, 0)]) == pytest.approx(-0.55)


def test_the_frontier_drops_dominated_points():
    points = [(0.2, 0.9), (0.5, 0.8), (0.4, 0.7), (0.9, 0.5), (0.9, 0.4), (0.1, 0.3)]
    assert frontier(points) == [(0.1, 0.9), (0.2, 0.9), (0.5, 0.8), (0.9, 0.5)]


def test_matched_difference_of_parallel_frontiers_is_their_distance():
    low = [("x", 0.2, 0.8), ("x", 0.2, 0.8), ("y", 0.8, 0.4), ("y", 0.8, 0.4)]
    high = [(setting, safety, reasoning + 0.1) for setting, safety, reasoning in low]
    gap, _ = matched_difference(high, low)
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))


def test_matched_difference_is_the_mean_gap_over_the_common_range():
    # a: flat at 0.9 over [0.0, 0.8]; b: from (0.4, 0.9) down to (1.0, 0.3). Common range [0.4, 0.8]: the gap grows 0 → 0.4, mean 0.2
    a = [("a", 0.0, 0.9), ("b", 0.8, 0.9)]
    b = [("a", 0.4, 0.9), ("b", 1.0, 0.3)]
    gap, reason = matched_difference(a, b)
    assert (gap.value, reason) == (pytest.approx(0.2), "")
    assert gap.low is None  # one seed per setting


def test_matched_difference_draws_items_as_the_paired_bootstrap_does():
    a, b = ({index: float((7 * index) % 100 < rate) for index in range(100)} for rate in (60, 50))
    gap, _ = matched_difference([("s", 1.0, a)] * 2, [("s", 1.0, b)] * 2, minimum_shared=0)
    paired = paired_bootstrap({0: a, 1: a}, {0: b, 1: b})
    assert gap.value == pytest.approx(0.1)
    assert (gap.low, gap.high) == pytest.approx((paired.low, paired.high), abs=0.02)
    assert gap.low < 0.06
    alone, _ = matched_difference([("s", 1.0, a)], [("s", 1.0, b)], minimum_runs=1, minimum_shared=0)
    assert (alone.low, alone.high) == pytest.approx((gap.low, gap.high), abs=0.02)  # one seed each: items alone


def test_matched_difference_draws_base_models_for_all_settings_at_once():
    """The gap is 0.1 on one base model and 0.5 on the other, in both settings alike."""
    settings = [(setting, base, safety) for setting, safety in (("slow", 0.2), ("fast", 0.8)) for base in (0, 1)]
    a = [(setting, safety, 0.4 + (0.1, 0.5)[base]) for setting, base, safety in settings]
    b = [(setting, safety, 0.4) for setting, base, safety in settings]
    point, _ = matched_difference(a, b, [base for _, base, _ in settings] * 2)
    assert (point.value, point.low, point.high) == tuple(pytest.approx(value) for value in (0.3, 0.1, 0.5))


def test_matched_difference_weighs_benchmarks_alike():
    items = {("long", index): 1.0 for index in range(90)} | {("short", index): 0.0 for index in range(10)}
    gap, _ = matched_difference([("s", 0.5, items)] * 2, [("s", 0.5, 0.25)] * 2, minimum_shared=0)
    assert gap.value == pytest.approx(0.25)


def test_matched_difference_needs_a_common_range_and_enough_runs():
    low, high = [("a", 0.1, 1), ("b", 0.2, 1)], [("a", 0.8, 1), ("b", 0.9, 1)]
    assert matched_difference(low, high) == (None, "less than 5 points of safety shared (a 10–20 %, b 80–90 %)")
    assert matched_difference([("a", 0.1, 1)], [("a", 0.0, 1), ("b", 0.9, 1)]) == (None, "too few runs")


def test_matched_difference_wants_a_shared_range_that_is_wide_enough():
    """The two meet over 0.04 of the safety axis, which is less than 5 points and more than 3."""
    a, b = [("x", 0.10, 0.9), ("y", 0.50, 0.9)], [("x", 0.46, 0.7), ("y", 0.90, 0.7)]
    assert matched_difference(a, b)[0] is None
    assert matched_difference(a, b, minimum_shared=0.03)[0].value == pytest.approx(0.2)


def test_a_lucky_seed_makes_no_frontier():
    a = [("s", 0.5, 1.0), ("s", 0.5, 0.0)]
    b = [("s", 0.5, 0.5), ("s", 0.5, 0.5)]
    assert matched_difference(a, b, minimum_shared=0)[0].value == pytest.approx(0.0)


def test_pearson_agrees_with_scipy_and_fishers_interval():
    x, y = [1, 2, 3, 4, 5, 6.5, 7], [2, 1, 4, 3, 7, 5, 8]
    expected = stats.pearsonr(x, y)
    interval = expected.confidence_interval()
    assert pearson(x, y).value == pytest.approx(expected.statistic)
    assert (pearson(x, y).low, pearson(x, y).high) == pytest.approx((interval.low, interval.high))


def test_spearman_agrees_with_scipy_and_its_interval_holds_the_value():
    x, y = [1, 2, 3, 4, 5, 6.5, 7, 7], [2, 1, 4, 3, 7, 5, 8, 9]
    rank = spearman(x, y)
    assert rank.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert rank.low < rank.value <= rank.high


def test_correlation_of_a_constant_is_none():
    assert pearson([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert spearman([1, 2, 3, 4], [5, 5, 5, 5]) is None


def test_the_mean_of_a_ratio_weighs_items_by_their_counts():
    result = ratio_interval([2.0, 9.0], [1, 9])
    assert result.value == pytest.approx(1.1)
    assert (result.low, result.high) == pytest.approx((1.0, 2.0))


def test_the_bootstrap_interval_is_that_of_the_normal_theory():
    values = np.random.default_rng(3).normal(5.0, 2.0, size=400)
    result = ratio_interval(values, np.ones(400))
    half = 1.96 * values.std(ddof=1) / math.sqrt(400)
    assert result.low == pytest.approx(values.mean() - half, abs=0.03)
    assert result.high == pytest.approx(values.mean() + half, abs=0.03)


def test_kappa_of_the_textbook_table():
    # Cohen's worked example: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, expected 0.5 · 0.6 + 0.5 · 0.4 = 0.5, kappa 0.4
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa(["x", "x"], ["x", "x"]) is None


def answers(both, only_a, only_b, neither):
    """Answers of two raters with these counts."""
    return [1] * (both + only_a) + [0] * (only_b + neither), [1] * both + [0] * only_a + [1] * only_b + [0] * neither


def test_two_raters_of_one_run_have_the_intervals_of_independent_samples():
    a, b = answers(200, 50, 100, 150)
    rate, kappa = rater_agreement([0] * 500, range(500), a, b, range(500))
    expected = wilson(350, 500)
    assert (rate.value, rate.low, rate.high, rate.n) == (0.7, expected.low, expected.high, 500)
    assert kappa.value == pytest.approx(cohen_kappa(a, b)) == pytest.approx(0.4)
    # the standard error of Fleiss, Cohen and Everitt (1969), from shares p and margins row (a), column (b)
    p, row, column = {(1, 1): 0.4, (1, 0): 0.1, (0, 1): 0.2, (0, 0): 0.3}, (0.5, 0.5), (0.4, 0.6)
    agree = sum(p[i, i] * (1 - (row[i] + column[i]) * (1 - 0.4)) ** 2 for i in (0, 1))
    differ = (1 - 0.4) ** 2 * sum(p[i, 1 - i] * (column[i] + row[1 - i]) ** 2 for i in (0, 1))
    error = math.sqrt((agree + differ - (0.4 - 0.5 * (1 - 0.4)) ** 2) / (0.5**2 * 500))
    assert (kappa.low, kappa.high) == pytest.approx((0.4 - 1.96 * error, 0.4 + 1.96 * error), abs=0.012)


def test_the_same_prompts_in_ten_runs_are_not_ten_times_as_many_samples():
    a, b = answers(8, 2, 4, 6)
    runs, items = [run for run in range(10) for _ in range(20)], [*range(20)] * 10
    rate, kappa = rater_agreement(runs, items, a * 10, b * 10, range(20))
    once = rater_agreement([0] * 20, range(20), a, b, range(20))[1]
    assert (rate.value, rate.n, kappa.value) == (0.7, 200, pytest.approx(0.4))
    assert rate.high - rate.low > 0.9 * (wilson(14, 20).high - wilson(14, 20).low) > 2 * (wilson(140, 200).high - wilson(140, 200).low)
    assert kappa.high - kappa.low == pytest.approx(once.high - once.low, rel=0.1)


def test_raters_that_never_differ_have_an_interval_of_as_many_prompts_and_a_kappa_without_one():
    rate, kappa = rater_agreement([0, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 0], [1, 0, 1, 0], "xy")
    assert (rate.low, rate.high) == (wilson(2, 2).low, 1.0)
    assert (kappa.value, kappa.low, kappa.high) == (1.0, None, None)
    assert rater_agreement([0, 0], [0, 1], [1, 1], [1, 1], "xy")[1] is None
    with pytest.raises(ValueError, match="not empty"):
        rater_agreement([], [], [], [], [])


@pytest.mark.parametrize(("bases", "least", "most"), [(5, 0.88, 1.0), (1, 0.70, 0.88)])
def test_an_interval_over_five_base_models_covers_what_one_over_their_runs_alone_does_not(bases, least, most):
    """Five groups of four runs, their means from a normal distribution around 0.5; 300 studies. Percentiles of five cover some 85 %."""
    generator = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        means = generator.normal(0.5, 0.1, 5)
        runs = [{"": float(mean)} for mean in means for _ in range(4 if bases > 1 else 1)]
        origin = [group for group in range(5) for _ in range(4)] if bases > 1 else []
        point = hierarchical_mean(runs, origin, resamples=1000)
        covered += point.low <= 0.5 <= point.high
    assert least <= covered / 300 < most


def test_few_base_models_widen_an_interval_as_students_t_does():
    """t of four degrees of freedom is 2.776, times sqrt(5 / 4) is 3.104 deviations of the draws in place of 1.960."""
    draws = np.random.default_rng(0).normal(size=2_000_000)
    low, high = _percentiles(draws, 0.95, 5)
    assert (low, high) == (pytest.approx(-3.104, abs=0.05), pytest.approx(3.104, abs=0.05))
    assert _percentiles(draws, 0.95, 1) == (pytest.approx(-1.96, abs=0.01), pytest.approx(1.96, abs=0.01))
