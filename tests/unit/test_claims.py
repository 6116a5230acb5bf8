"""Claims: each of the four verdicts on a study whose truth is known, and the claims that ship with the project."""

import csv

import pytest
from synthetic import PATTERNS, end_generations, results_of, spec_of, study, write_base, write_run
from untaxed.claims import counts, html_page, judge_claim, judge_claims, markdown, read_claims, verdict_of, write_csv
from untaxed.metrics import base_of, by_setting
from untaxed.records import UserError, read_yaml, write_yaml
from untaxed.reported import read_reported
from untaxed.statistics import Estimate

GAIN = {
    "id": "gain", "paper": "p", "statement": "DGR keeps more.", "test": "difference", "metric": "accuracy", "reported": 40,
    "a": {"method": "dgr"}, "b": {"method": "vanilla"}, "where": {"n": "max"}, "direction": "greater", "figure": "method_bars",
}  # fmt: skip
METHODS = (("dgr", 0.8), ("vanilla", 0.4))
ALIASES = {"DirectRefusal": ["direct"]}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    return study(tmp_path_factory.mktemp("flipped"), flip=True)


def test_a_difference_that_is_there_supports_the_claim(known):
    record = judge_claim(GAIN, known, {})
    assert record["verdict"] == "supported"
    assert record["value"] == pytest.approx(0.4)
    assert record["low"] < 0.4 < record["high"]
    assert record["n"] == 80  # two benchmarks of 40 items
    assert record["relative"] == pytest.approx(0.4 / 0.425)
    assert record["reported_inside"]["points"] is True
    assert record["reported_inside"]["relative"] is False


def test_flipped_data_flips_the_verdict(flipped):
    record = judge_claim(GAIN, flipped, {})
    assert (record["verdict"], record["value"]) == ("contradicted", pytest.approx(-0.4))


def test_no_difference_is_inconclusive(known):
    record = judge_claim(GAIN | {"metric": "refusal_rate"}, known, {})
    assert record["verdict"] == "inconclusive"
    assert "crosses" in record["reason"]


def test_a_claim_without_runs_was_not_run(known):
    record = judge_claim(GAIN | {"applies_to": {"source": "STAR-1"}}, known, {})
    assert (record["verdict"], record["value"]) == ("not run", None)
    assert "source STAR-1" in record["reason"]


def test_an_alias_maps_the_papers_source_onto_the_studys(known):
    record = judge_claim(GAIN | {"applies_to": {"source": "DirectRefusal"}}, known, ALIASES)
    assert record["verdict"] == "supported"
    assert all("--direct-" in run for run in record["runs"])


def test_a_stand_in_is_judged_and_named_but_not_held_against_the_papers_number(known):
    record = judge_claim(GAIN | {"applies_to": {"source": "DirectRefusal"}}, known, {}, {"DirectRefusal": ["direct"]})
    assert (record["verdict"], record["sources"], record["reported_inside"]) == ("supported", ["direct"], None)
    assert "stand-in data of the same form: direct" in record["reason"]
    own = judge_claim(GAIN | {"applies_to": {"source": "direct"}}, known, {}, {"DirectRefusal": ["direct"]})
    assert "stand-in" not in own["reason"]
    assert own["reported_inside"] is not None


def test_the_base_is_exempt_from_what_selects_trained_runs(known):
    claim = GAIN | {"a": {"method": "vanilla"}, "b": {"method": "none"}, "direction": "less", "applies_to": {"source": "direct"}}
    record = judge_claim(claim, known, {})
    assert (record["verdict"], record["command"]) == ("supported", "snakemake method_bars")
    assert record["value"] == pytest.approx(0.4 - 0.9)
    assert "base--tiny" in record["runs"]
    assert "not paired" not in record["reason"]


def test_every_run_is_paired_with_its_own_base(tmp_path):
    """Accuracy falls by 0.1 on each of two models, 0.9 and 0.5 at the start; three runs of one weigh nothing against one of the other."""
    folders = []
    for model, before, seeds in (("high", 0.9, 3), ("low", 0.5, 1)):
        base = {"run": f"base--{model}", "model": model, "method": "none", "source": "none", "n": 0, "seed": 0}
        folders.append(write_run(tmp_path / base["run"], base, before, 0.0))
        for seed in range(seeds):
            spec = spec_of("vanilla", "direct", 10, seed) | {"run": f"{model}{seed}", "model": model}
            folders.append(write_run(tmp_path / spec["run"], spec, before - 0.1, 0.5))
    claim = GAIN | {"a": {"method": "vanilla"}, "b": {"method": "none"}, "direction": "less"}
    record = judge_claim(claim, results_of(folders, tmp_path), {})
    assert record["value"] == pytest.approx(-0.1)
    assert set(record["runs"]) == {"base--high", "base--low", "high0", "high1", "high2", "low0"}


def test_replicates_of_a_base_model_are_one_setting_and_are_drawn_first(tmp_path):
    """A training that costs one reasoner nothing and another 0.4: ten runs, but two base models, so that nothing can be told."""
    folders = []
    for number, name in enumerate(("m", "m.1")):
        origin = {"model": name} | ({"replicate_of": "m"} if number else {})
        base = {"run": f"base--{name}", "method": "none", "source": "none", "n": 0, "seed": 0, **origin}
        folders.append(write_run(tmp_path / base["run"], base, 0.8, 0.0))
        for seed in range(number, 10, 2):
            spec = spec_of("vanilla", "direct", 10, seed) | {"run": f"s{seed}", **origin}
            folders.append(write_run(tmp_path / spec["run"], spec, 0.8 - 0.4 * number, 0.5))
    results = results_of(folders, tmp_path)
    assert {fields["model"] for fields in results.runs.values()} == {"m"}
    assert len(by_setting(results, [f"s{seed}" for seed in range(10)])) == 1
    assert [base_of(results, run) for run in ("s0", "s1")] == ["base--m", "base--m.1"]
    record = judge_claim(GAIN | {"a": {"method": "vanilla"}, "b": {"method": "none"}, "direction": "less"}, results, {})
    assert (record["verdict"], record["value"], record["bases"]) == ("inconclusive", pytest.approx(-0.2), ["m", "m.1"])
    assert "All runs start from 2 base models: intervals draw them too" in markdown([record], "s")


def test_without_a_shared_range_of_safety_a_matched_claim_is_inconclusive(tmp_path):
    """Safe shares of 0 to 0.05 and of 0.6 to 0.8, as in the figure's own test."""
    rates = {"vanilla": (0.0, 0.05), "dgr": (0.6, 0.8)}
    runs = [
        write_run(tmp_path / f"{method}{n}{seed}", spec_of(method, "direct", n, seed), 0.5, refusals[n == 100])
        for method, refusals in rates.items()
        for n in (10, 100)
        for seed in (0, 1)
    ]
    record = judge_claim(GAIN | {"at": "matched_safety", "where": {}}, results_of([write_base(tmp_path / "b"), *runs], tmp_path), {})
    assert (record["verdict"], record["value"]) == ("inconclusive", None)
    assert record["reason"] == "less than 5 points of safety shared (DGR 60–80 %, Vanilla SFT 0–5 %)"


def test_a_correlation_of_four_settings_is_inconclusive_as_in_the_figure(known):
    claim = GAIN | {"test": "correlation", "x": "shift", "y": "safety_tax", "where": {"source": "direct", "benign": 0}}
    record = judge_claim(claim, known, {})
    assert (record["verdict"], record["value"], record["reason"]) == ("inconclusive", None, "4 settings: a correlation needs 5")


def test_matched_safety_compares_frontiers(known, flipped):
    claim = GAIN | {"at": "matched_safety", "where": {}, "applies_to": {"source": "direct"}}
    record = judge_claim(claim, known, {})
    # DGR stays at 0.8 over safety 0.7 to 0.9, vanilla falls in a line from 0.6 to 0.4: the mean gap is 0.3
    assert (record["verdict"], record["value"]) == ("supported", pytest.approx(0.3, abs=1e-6))
    assert judge_claim(claim, flipped, {})["verdict"] == "contradicted"


def test_a_claim_on_refusals_says_how_many_prompts_got_no_answer(tmp_path):
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"{m}{s}", spec_of(m, "direct", 10, s), 0.5, 0.5) for m in ("vanilla", "dgr") for s in range(5)]
    end_generations(folders[1], "harm", truncated=0.0, empty=0.5)
    results = results_of(folders, tmp_path)
    assert judge_claim(GAIN | {"metric": "harmful_score"}, results, {})["reason"].endswith(
        "; 0 to 50 % of a run's generations gave no answer"
    )
    assert "no answer" not in judge_claim(GAIN, results, {})["reason"]


def test_a_correlation_says_on_which_setting_it_hangs(tmp_path):
    rates = [("full", 10, 0.8, 0.2), ("full", 20, 0.9, 0.3), ("full", 30, 0.8, 0.35), ("full", 40, 0.9, 0.25), ("full", 50, 0.2, 0.9)]
    folders = [write_base(tmp_path / "b")]
    for _, n, accuracy, shift in rates:
        folders += [write_run(tmp_path / f"{n}-{s}", spec_of("vanilla", "direct", n, s), accuracy, 0.5, shift=shift) for s in range(2)]
    claim = GAIN | {"test": "correlation", "x": "shift", "y": "safety_tax", "where": {}}
    record = judge_claim(claim, results_of(folders, tmp_path), {})
    assert record["verdict"] == "supported"
    assert record["reason"].endswith(
        "few seeds (2): the true interval is wider; without direct-vanilla-b0 full 50 it would be inconclusive"
    )


def test_a_correlation_is_over_settings_not_seeds(known):
    claim = GAIN | {"test": "correlation", "x": "shift", "y": "safety_tax", "where": {}}
    record = judge_claim(claim, known, {})
    assert (record["verdict"], record["n"]) == ("supported", 16)
    assert judge_claim(claim | {"direction": "less"}, known, {})["verdict"] == "contradicted"


def test_a_threshold_is_held_against_the_whole_interval(known):
    claim = GAIN | {"test": "threshold", "metric": "refusal_rate", "a": {"method": "dgr", "n": 10}, "where": {}}
    assert judge_claim(claim | {"bound": 0.5}, known, {})["verdict"] == "supported"
    assert judge_claim(claim | {"bound": 0.7}, known, {})["verdict"] == "inconclusive"
    assert judge_claim(claim | {"bound": 0.95}, known, {})["verdict"] == "contradicted"


def test_a_metric_without_items_needs_two_seeds(tmp_path):
    runs = [write_run(tmp_path / m, spec_of(m, "direct", 10, 0), 0.5, 0.5, shift=s) for m, s in (("dgr", 0.1), ("vanilla", 0.5))]
    record = judge_claim(GAIN | {"metric": "shift", "direction": "less"}, results_of([*runs, write_base(tmp_path / "b")], tmp_path), {})
    assert (record["verdict"], record["value"]) == ("inconclusive", pytest.approx(-0.4))


def test_one_seed_is_said_to_cover_items_only(tmp_path):
    record = judge_claim(GAIN, study(tmp_path, seeds=1), {}) | {}
    assert record["verdict"] == "supported"
    single = judge_claim(GAIN | {"where": {"n": "max", "benign": 0, "source": "direct"}}, study(tmp_path / "s", seeds=1), {})
    assert "items, not seeds" in single["reason"]


@pytest.mark.parametrize(("seeds", "said"), [(2, True), (4, True), (5, False)])
def test_fewer_than_five_seeds_are_said_to_make_the_interval_too_narrow(tmp_path, seeds, said):
    runs = [write_run(tmp_path / f"{m}{s}", spec_of(m, "direct", 10, s), r, 0.5) for m, r in METHODS for s in range(seeds)]
    results = results_of([*runs, write_base(tmp_path / "b")], tmp_path)
    record = judge_claim(GAIN, results, {})
    assert (f"few seeds ({seeds}): the true interval is wider" in record["reason"]) is said
    against_base = judge_claim(GAIN | {"b": {"method": "none"}, "direction": "less"}, results, {})
    assert ("few seeds" in against_base["reason"]) is said


def test_few_base_models_are_not_called_few_seeds(tmp_path):
    """Two base models with two seeds each: four draws, of which the base models are few."""
    folders = [write_base(tmp_path / "b")]
    for number in range(4):
        origin = {"model": f"tiny.{number % 2}", "replicate_of": "tiny"}
        folders += [write_run(tmp_path / f"{m}{number}", spec_of(m, "direct", 10, number) | origin, r, 0.5) for m, r in METHODS]
    record = judge_claim(GAIN, results_of(folders, tmp_path), {})
    assert record["reason"].endswith("few base models (2: tiny.0, tiny.1): the true interval is wider")
    folders += [
        write_run(tmp_path / f"{m}{n}", spec_of(m, "direct", 10, n) | {"model": f"tiny.{n % 2}", "replicate_of": "tiny"}, r, 0.5)
        for m, r in METHODS
        for n in range(4, 8)
    ]
    more = judge_claim(GAIN, results_of(folders, tmp_path), {})
    assert "few base models (2: tiny.0, tiny.1)" in more["reason"]  # eight runs, and still two base models


def test_seeds_of_several_models_are_called_seeds(tmp_path):
    folders = [write_base(tmp_path / "b")]
    for model in ("tiny", "other"):
        for seed in range(2):
            specs = [(m, spec_of(m, "direct", 10, seed) | {"model": model, "run": f"{model}-{m}{seed}"}, r) for m, r in METHODS]
            folders += [write_run(tmp_path / spec["run"], spec, r, 0.5) for _, spec, r in specs]
    assert "few seeds (2) of 2 models: the" in judge_claim(GAIN, results_of(folders, tmp_path), {})["reason"]


BENIGN = GAIN | {"metric": "over_refusal", "a": {"benign": ">0"}, "b": {"benign": 0}, "where": {}, "direction": "less"}


def test_benign_rows_are_judged_within_a_source_alone(tmp_path):
    """`direct` was trained without benign rows and `reasoned` with them: no run has its like. Then both sides of `direct` are compared."""
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"d{s}", spec_of("dgr", "direct", 10, s), 0.5, 0.5, over_refusal=0.6) for s in range(2)]
    folders += [write_run(tmp_path / f"r{s}", spec_of("dgr", "reasoned", 10, s, benign=20), 0.5, 0.5, over_refusal=0.2) for s in range(2)]
    record = judge_claim(BENIGN, results_of(folders, tmp_path), {})
    assert (record["verdict"], record["value"], record["runs"]) == ("not run", None, [])
    assert "in source (reasoned against direct): no run has its like on the other side" in record["reason"]
    folders += [write_run(tmp_path / f"m{s}", spec_of("dgr", "direct", 10, s, benign=20), 0.5, 0.5, over_refusal=0.5) for s in range(2)]
    record = judge_claim(BENIGN, results_of(folders, tmp_path), {})
    assert (record["sources"], record["value"]) == (["direct"], pytest.approx(-0.1))
    assert "not paired" not in record["reason"]


def test_other_seeds_of_one_setting_are_compared_unpaired_and_other_settings_are_not(tmp_path):
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"d{s}", spec_of("dgr", "direct", 10, s), 0.8, 0.5) for s in range(2)]
    folders += [write_run(tmp_path / f"v{s}", spec_of("vanilla", "direct", 10, s), 0.4, 0.5) for s in (2, 3)]
    folders += [write_run(tmp_path / f"n{s}", spec_of("vanilla", "direct", 100, s), 0.1, 0.5) for s in (2, 3)]
    record = judge_claim(GAIN | {"where": {}}, results_of(folders, tmp_path), {})
    assert (record["value"], len(record["runs"])) == (pytest.approx(0.4), 4)
    assert "runs are not paired" in record["reason"]


def test_frontiers_of_two_sources_are_never_compared(tmp_path):
    folders = [write_base(tmp_path / "b")]
    for method, source in (("dgr", "direct"), ("vanilla", "reasoned")):
        folders += [write_run(tmp_path / f"{method}{n}", spec_of(method, source, n, 0), 0.5, r) for n, r in ((10, 0.4), (100, 0.8))]
    record = judge_claim(GAIN | {"at": "matched_safety", "where": {}}, results_of(folders, tmp_path), {})
    assert (record["verdict"], record["runs"]) == ("not run", [])
    assert "in source (direct against reasoned)" in record["reason"]


def test_judged_claims_come_first_and_each_names_what_shows_it(known):
    absent = GAIN | {"id": "absent", "applies_to": {"source": "STAR-1"}, "figure": "cot_figure5"}
    content = {"claims": [absent, GAIN | {"id": "against", "direction": "less"}, GAIN], "aliases": {}, "stand_ins": {}}
    records = judge_claims(content, known, made={"figure": ["method_bars"], "table": []})
    assert [record["id"] for record in records] == ["absent", "against", "gain"]  # as in the file
    assert [record["made"] for record in records] == [False, True, True]
    rows = [line for line in markdown(records, "tiny").splitlines() if line.startswith("| **")]
    assert [row.split("**")[1] for row in rows] == ["gain", "against", "absent"]
    assert rows[0].endswith("| `paper_figures/tiny/method_bars.pdf`, by `snakemake method_bars` |")
    assert rows[2].endswith("| not of this study: `snakemake --profile slurm cot_figure5` |")
    page = html_page(records, "tiny", {"gain": "7.5 min"})
    assert "7.5 min" in page
    assert page.index(">gain<") < page.index(">against<") < page.index(">absent<")
    assert "figure: snakemake method_bars" in page
    assert "whole study: snakemake --profile slurm cot_figure5" in page


def test_commands_are_the_launchers_and_a_stand_in_is_held_against_no_printed_number(known):
    content = {"claims": [GAIN | {"reported": 30.2}], "aliases": {}, "stand_ins": {}}
    (theirs,) = judge_claims(content, known)
    (ours,) = judge_claims(content, known, study="laptop_cot", stand_in=True)
    assert (theirs["command"], ours["command"]) == ("snakemake method_bars", "./untaxed laptop_cot method_bars")
    assert (theirs["stand_ins"], ours["stand_ins"]) == ([], theirs["sources"])
    assert "stand-in data of the same form" in ours["reason"]
    assert (theirs["comparable"], ours["comparable"]) == (True, False)


def test_a_range_that_rounds_to_one_number_is_written_once(tmp_path):
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"d{s}", spec_of("dgr", "direct", 10, s), 0.5, 0.5) for s in range(5)]
    for folder in folders[1:]:
        end_generations(folder, "harm", truncated=0.0, empty=0.25)
    claim = GAIN | {"test": "threshold", "metric": "refusal_rate", "a": {"method": "dgr"}, "where": {}}
    assert judge_claim(claim, results_of(folders, tmp_path), {})["reason"].endswith("; 25 % of a run's generations gave no answer")


def test_two_recipes_are_two_settings_at_matched_safety(tmp_path):
    """Averaged, the recipes of DGR would make one point that no run stands at."""
    folders = [write_base(tmp_path / "b")]
    for recipe, accuracy, refusal in (("safe", 0.5, 1.0), ("able", 0.9, 0.5)):
        for seed in range(2):
            spec = spec_of("dgr", "direct", 10, seed) | {"run": f"{recipe}{seed}", "recipe": recipe}
            folders.append(write_run(tmp_path / spec["run"], spec, accuracy, refusal))
    for n, refusal in ((10, 0.5), (100, 0.6)):
        folders += [write_run(tmp_path / f"v{n}{s}", spec_of("vanilla", "direct", n, s), 0.5, refusal) for s in range(2)]
    record = judge_claim(GAIN | {"at": "matched_safety", "where": {}}, results_of(folders, tmp_path), {})
    # over safety 0.5 to 0.6, where vanilla stays at 0.5, DGR falls from 0.9 to 0.82; the averaged point (0.75, 0.7) would share nothing
    assert record["value"] == pytest.approx(0.36)


@pytest.mark.parametrize(
    ("low", "high", "direction", "verdict"),
    [
        (0.1, 0.3, "greater", "supported"),
        (0.1, 0.3, "less", "contradicted"),
        (-0.3, -0.1, "greater", "contradicted"),
        (-0.3, -0.1, "less", "supported"),
        (-0.1, 0.1, "greater", "inconclusive"),
        (None, None, "greater", "inconclusive"),
    ],
)
def test_the_interval_decides(low, high, direction, verdict):
    assert verdict_of(Estimate(0.0, low, high, 10), direction, 0.0)[0] == verdict


def test_the_projects_claims_are_well_formed_and_all_get_a_verdict(root, known, tmp_path):
    records = judge_claims(read_claims(root / "claims.yaml"), known)
    verdicts = {record["id"]: record["verdict"] for record in records}
    assert verdicts["tax-exists"] == verdicts["dgr-gain-direct-refusal"] == verdicts["benign-rows-lower-over-refusal"] == "supported"
    assert verdicts["tax-follows-shift"] == verdicts["dgr-lowers-shift"] == verdicts["ten-samples-suffice"] == "supported"
    assert verdicts["improved-beats-default-safety"] == verdicts["few-traces-are-free-of-risk"] == "not run"
    text = markdown(records, "tiny")
    assert all(f"**{record['id']}**" in text for record in records)
    page = html_page(records, "tiny")
    assert f"<p>{counts(records)}." in page
    assert all(f"<small>{record['id']}</small>" in page for record in records)
    assert page.count('class="verdict supported"') == list(verdicts.values()).count("supported")
    write_csv(tmp_path / "claims.csv", records)
    assert [row["verdict"] for row in csv.DictReader((tmp_path / "claims.csv").open())] == list(verdicts.values())


def test_the_projects_claims_hold_the_papers_numbers(root):
    reported = {claim["id"]: claim.get("reported") for claim in read_claims(root / "claims.yaml")["claims"]}
    assert (reported["dgr-gain-direct-refusal"], reported["dgr-gain-r1-act"]) == (30.2, 21.2)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"test": "guess"}, "valid: difference"), ({"direction": "up"}, "valid: greater"), ({"metrics": 1}, "unknown key 'metrics'")],
)
def test_a_malformed_claim_is_named(tmp_path, change, message):
    write_yaml(tmp_path / "claims.yaml", {"claims": [GAIN | change]})
    with pytest.raises(UserError, match=f"gain: .*{message}"):
        read_claims(tmp_path / "claims.yaml")


SHARE = {
    "id": "rise", "paper": "p", "statement": "It rises.", "test": "share", "dataset": "direct-safe", "share": "weak_vacillation",
    "when": "rise", "direction": "greater", "figure": "cot_figure1", "reported": 33.0,
}  # fmt: skip


def test_the_rise_of_a_share_is_that_of_the_rows_kept_over_those_removed(known):
    """33 of 96 rows before, 26 of 40 after: +30.6 points; the 56 rows that went had 7."""
    record = judge_claim(SHARE, known, {}, filter_reports=[PATTERNS])
    assert (record["verdict"], record["value"], record["n"]) == ("supported", pytest.approx(26 / 40 - 33 / 96), 96)
    # Wilson: 26 of 40 [0.4951, 0.7787], 7 of 56 [0.0619, 0.2363], whose difference 0.525 Newcombe bounds by 0.334 and 0.668
    scale = 56 / 96
    assert (record["low"], record["high"]) == (pytest.approx(0.334 * scale, abs=0.002), pytest.approx(0.668 * scale, abs=0.002))
    assert (record["counted"], record["reported_inside"]["points"], record["judge"]) == ("rows", True, "patterns")
    assert judge_claim(SHARE | {"direction": "less"}, known, {}, filter_reports=[PATTERNS])["verdict"] == "contradicted"


def test_the_share_of_rows_kept_and_of_a_pattern_after_the_filter(known):
    kept = judge_claim(SHARE | {"share": "kept", "direction": "less", "bound": 0.6}, known, {}, filter_reports=[PATTERNS])
    assert (kept["verdict"], kept["value"], kept["n"]) == ("supported", 0.4, 100)
    after = judge_claim(SHARE | {"share": "strong_vacillation", "when": "after", "bound": 0.5}, known, {}, filter_reports=[PATTERNS])
    assert (after["verdict"], after["value"], after["n"]) == ("contradicted", 0.05, 40)
    raw = {"share": "no_pattern", "when": "before", "direction": "less", "bound": 0.2, "reported": 6.6}
    free = judge_claim(SHARE | raw, known, {}, filter_reports=[PATTERNS])
    assert (free["verdict"], free["value"], free["n"], free["reported_inside"]["points"]) == ("supported", 8 / 96, 96, True)
    before = {key: value for key, value in PATTERNS["patterns"]["before"].items() if key != "free"}
    earlier = PATTERNS | {"patterns": PATTERNS["patterns"] | {"before": before}}
    missing = judge_claim(SHARE | raw, known, {}, filter_reports=[earlier])
    assert (missing["verdict"], missing["reason"].endswith("filter it again")) == ("not run", True)


def test_a_share_of_rows_that_no_filter_reported_was_not_run(known):
    record = judge_claim(SHARE, known, {})
    assert (record["verdict"], record["reason"]) == ("not run", "no filter of the dataset direct-safe was run")
    uncounted = judge_claim(SHARE, known, {}, filter_reports=[PATTERNS | {"patterns": None}])
    assert (uncounted["verdict"], uncounted["reason"]) == ("not run", "no judge counted risky patterns in direct-safe")
    other = judge_claim(SHARE | {"dataset": "cot-default"}, known, {"cot-default": ["direct-safe"]}, filter_reports=[PATTERNS])
    assert (other["verdict"], other["reported_inside"]) == ("supported", None)  # another set than the paper's


def test_another_model_as_it_is_may_be_the_other_side(tmp_path):
    """A safe model of others stays as it is: the trained runs are held against it and not against their own base."""
    folders = [write_base(tmp_path / "b")]
    prior = {"run": "base--prior", "model": "prior", "method": "none", "source": "none", "n": 0, "seed": 0}
    folders.append(write_run(tmp_path / "prior", prior, 0.7, 0.5))
    folders += [write_run(tmp_path / f"v{s}", spec_of("vanilla", "direct", 10, s), 0.8, 0.9) for s in range(2)]
    claim = GAIN | {"a": {"method": "vanilla"}, "b": {"method": "none", "model": "prior"}, "where": {}}
    record = judge_claim(claim, results_of(folders, tmp_path), {})
    assert (record["value"], record["runs"][0]) == (pytest.approx(0.1), "base--prior")
    assert "base--tiny" not in record["runs"]


def test_learning_rates_are_paired_although_each_has_its_trainer(tmp_path):
    folders = [write_base(tmp_path / "b")]
    for rate, accuracy in ((1e-6, 0.8), (1e-4, 0.4)):
        for seed in range(2):
            spec = spec_of("vanilla", "direct", 10, seed) | {"run": f"{rate}-{seed}", "trainer_name": f"at-{rate}"}
            folders.append(write_run(tmp_path / spec["run"], spec | {"trainer": {"learning_rate": rate, "epochs": 1.0}}, accuracy, 0.5))
    claim = GAIN | {"a": {"learning_rate": 1e-6}, "b": {"learning_rate": 1e-4}, "where": {}}
    record = judge_claim(claim, results_of(folders, tmp_path), {})
    assert record["value"] == pytest.approx(0.4)
    assert "not paired" not in record["reason"]


def test_the_papers_number_is_compared_for_its_own_models_alone(known):
    claim = GAIN | {"applies_to": {"source": "direct"}}
    assert judge_claim(claim | {"reported_for": ["tiny"]}, known, {})["reported_inside"]["points"] is True
    elsewhere = judge_claim(claim | {"reported_for": ["tiny", "big"]}, known, {})
    assert (elsewhere["verdict"], elsewhere["reported_inside"]) == ("supported", None)
    assert "| 40 |" not in markdown([elsewhere], "s")


def test_an_alias_of_a_recipe_serves_as_one_of_a_source(known):
    claim = GAIN | {"a": {"method": "dgr", "recipe": "cot-new"}, "b": {"method": "vanilla", "recipe": "cot-old"}}
    record = judge_claim(claim, known, {"cot-new": ["direct-dgr-b0"], "cot-old": ["direct-vanilla-b0"]})
    assert record["value"] == pytest.approx(0.4)


def test_reported_differences_follow_from_the_printed_tables(root):
    """Every number of a claim on two styles is the difference of the printed means over its models."""
    entries = read_reported(root / "reported.yaml")["entries"]
    columns = {("harmful_score", ()): "asr_mean", ("harmful_score", ("advbench_pair",)): "asr_pair", ("accuracy", ()): "reasoning_mean"}
    columns |= {("over_refusal", ()): "over_refusal", ("accuracy", ("livecodebench",)): "livecodebench"}
    columns["accuracy", ("math500_cot",)] = "math500"
    checked = []
    for claim in read_claims(root / "claims.yaml")["claims"]:
        if claim.get("table") in entries and claim["test"] == "difference" and isinstance(claim.get("reported"), float):
            column = columns[claim["metric"], tuple(claim.get("benchmarks", ())[:1])]
            models = claim.get("reported_for") or [claim["applies_to"]["model"]]
            sides = []
            for side in (claim["a"], claim["b"]):
                named = [side["model"]] if "model" in side else models
                rows = [
                    next(
                        row
                        for name in (claim["table"], "cot_table2")
                        for row in entries[name]["rows"]
                        if row["model"] == model
                        and row["source"] == side.get("source", "none")
                        and row.get("recipe", side.get("recipe")) == side.get("recipe", row.get("recipe"))
                    )
                    for model in named
                ]
                sides.append(sum(row["values"][column] for row in rows) / len(rows))
            assert sides[0] - sides[1] == pytest.approx(claim["reported"], abs=0.06), claim["id"]
            checked.append(claim["id"])
    assert len(checked) >= 25


def test_every_claim_names_a_figure_or_table_of_the_catalogue(root):
    config = read_yaml(root / "config.yaml")
    for claim in read_claims(root / "claims.yaml")["claims"]:
        (shown,) = [(key, claim[key]) for key in ("figure", "table") if key in claim]
        assert shown[1] in config[f"{shown[0]}s"], claim["id"]


def test_the_columns_of_the_paper_and_the_recipes_of_the_claims_are_the_catalogues(root):
    config, reported = read_yaml(root / "config.yaml"), read_reported(root / "reported.yaml")
    assert {benchmark for column in reported["columns"].values() for benchmark in column["benchmarks"]} <= set(config["benchmarks"])
    named = {row["recipe"] for entry in reported["entries"].values() for row in entry["rows"] if "recipe" in row}
    assert named <= set(config["recipes"])
    assert {row["model"] for entry in reported["entries"].values() for row in entry["rows"] if "model" in row} <= set(config["models"])
