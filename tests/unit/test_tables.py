"""Tables: the numbers of a study whose truth is known."""

import csv

import pytest
from synthetic import PAIR, PATTERNS, end_generations, paper, results_of, spec_of, study, write_base, write_run
from untaxed.figures import Inputs
from untaxed.records import UserError, read_json, read_jsonl, write_json, write_jsonl
from untaxed.statistics import Estimate
from untaxed.tables import TABLES, cell, harmful_of, write_table

AGREEMENTS = [
    {"judge": "string_match", "dataset": "d", "n": 50, "accuracy": 0.8, "accuracy_ci": [0.67, 0.89], "kappa": 0.5, "unparseable_rate": 0.1}
]
REPORTS = [{"name": "direct / tiny / dgr", "pieces": {"reasoning": {"ok": 6, "empty": 4}, "answer": {"not-refined": 10}}, "runs": []}]
DATASETS = [
    {"name": "train", "rows": 90, "harmful": 90, "removed": {"count": 10, "ids": [], "against": ["jbb", "xstest"]}},
    {"name": "jbb", "rows": 100, "harmful": 100, "removed": {"count": 0, "ids": [], "against": []}},
]
ENTRIES = {"paper_table": "table", "gains": "gains", "response_lengths": "lengths"}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return study(tmp_path_factory.mktemp("study"))


def test_main_results_hold_the_studys_numbers(known):
    rows = TABLES["main_results"](Inputs({"select": {"n": 100, "benign": 0, "source": "direct"}}, known, agreements=AGREEMENTS))
    assert [row["method"] for row in rows] == ["none", "dgr", "vanilla"]
    vanilla = rows[2]
    assert vanilla["accuracy"].startswith("40.0 [")
    assert vanilla["safety_tax"].startswith("50.0 [")
    assert vanilla["refusal_rate"].startswith("90.0 [")
    assert vanilla["harmful_score"].startswith("10.0 [")
    assert vanilla["over_refusal"].startswith("60.0 [")
    assert vanilla["strongreject"] == "–"
    assert vanilla["shift"].startswith("0.550")
    assert (vanilla["seeds"], vanilla["accuracy_items"]) == (3, 80)
    assert vanilla["judge_agreement"] == "string_match 80.0 % (kappa 0.50, 10.0 % unparseable, n = 50)"


def test_activation_lists_rising_numbers_of_samples(known):
    rows = TABLES["activation"](Inputs({"select": {"source": "direct", "benign": 0, "method": "dgr"}}, known))
    assert [row["n"] for row in rows if row["method"] == "dgr"] == [10, 100]


def test_a_trainer_of_one_number_of_samples_says_nothing_of_activation(tmp_path):
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"v{n}", spec_of("vanilla", "direct", n, 0), 0.5, 0.5) for n in (10, 100)]
    gentle = spec_of("vanilla", "direct", 100, 0) | {"run": "gentle", "trainer_name": "gentle"}
    folders.append(write_run(tmp_path / "gentle", gentle, 0.5, 0.5))
    rows = TABLES["activation"](Inputs({}, results_of(folders, tmp_path)))
    assert [(row["trainer"], row["n"]) for row in rows if row["method"] == "vanilla"] == [("full", 10), ("full", 100)]


def test_main_results_tell_what_got_no_answer_and_the_shift_as_the_shift_table_does(tmp_path):
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"v{s}", spec_of("vanilla", "direct", 10, s), 0.5, 0.5, shift=0.4 + 0.2 * s) for s in range(2)]
    for benchmark, empty in (("sums", 1.0), ("harm", 0.5), ("harmless", 0.1)):
        end_generations(folders[1], benchmark, truncated=0.1, empty=empty)
    results = results_of(folders, tmp_path)
    base, vanilla = TABLES["main_results"](Inputs({}, results))
    assert base["no answer, harmful"] == base["no answer, benign"] == "0.0"
    assert vanilla["no answer, harmful"].startswith("25.0 [")  # half of the answers of one of two runs
    assert vanilla["no answer, benign"].startswith("5.0 [")
    assert base["cut off, reasoning"] == "0.0"
    assert vanilla["cut off, reasoning"].startswith("2.5 [")  # a tenth of one of two benchmarks in one of two runs
    assert vanilla["shift"] == TABLES["shift"](Inputs({}, results))[1]["shift"]


def test_the_shift_table_sets_lengths_beside_shift_nll_and_kl(tmp_path):
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"v{s}", spec_of("vanilla", "direct", 10, s), 0.5, 0.5, shift=0.4 + 0.2 * s) for s in range(2)]
    for folder, tokens in zip(folders, (10, 20, 40), strict=True):
        said = {"tokens": tokens, "reasoning": "x" * tokens, "answer": "y"}
        write_jsonl(folder / "samples.jsonl", [sample | said for sample in read_jsonl(folder / "samples.jsonl")])
    for folder in folders[1:]:
        kl = {"kl": {"mean": 0.25, "n_tokens": 9}, "lengths": {"reasoning_mean": 7.0, "answer_mean": 5.0}}
        write_json(folder / "shift.json", read_json(folder / "shift.json") | kl)
    base, vanilla = TABLES["shift"](Inputs({}, results_of(folders, tmp_path)))
    assert (base["shift"], base["output tokens"]) == ("–", "10.0")
    assert vanilla["shift"].startswith("0.500 [0.400, 0.600]")
    assert vanilla["NLL of targets"].startswith("1.500 [1.400, 1.600]")
    assert (vanilla["KL"], vanilla["target trace (tokens)"]) == ("0.2500", "7.0")  # seeds that agree have no interval
    # 20 and 40 tokens a generation, the base's 10: 30 on average, 3 times as many
    assert (vanilla["output tokens"], vanilla["trace characters"]) == ("30.0 [20.0, 40.0] (×3.00)", "30.0 [20.0, 40.0] (×3.00)")
    assert vanilla["output answer characters"].endswith("(×1.00)")


def test_the_ablations_stand_beside_the_method_at_the_same_n(tmp_path):
    runs = [("vanilla", "direct", 10, 0.4), ("dgr", "direct", 10, 0.8), ("dgr", "direct", 100, 0.9), ("dgr", "ablation", 10, 0.6)]
    folders = [write_base(tmp_path / "b")]
    folders += [write_run(tmp_path / f"{m}{s}{n}", spec_of(m, s, n, 0), accuracy, 0.75) for m, s, n, accuracy in runs]
    again = spec_of("dgr", "ablation", 10, 1) | {"model": "tiny.1", "replicate_of": "tiny"}
    folders.append(write_run(tmp_path / "again", again, 0.6, 0.75))
    reports = [
        {
            "name": "x", "runs": [run], "filters": [], "fallback": "drop",
            "fallback_rate": {"reasoning": {"n": 10}, "answer": {"n": 0}, "overall": {"failed": failed, "n": 20, "rate": failed / 20}},
        }
        for run, failed in ((spec_of("dgr", "ablation", 10, 0)["run"], 5), (again["run"], 15))
    ]  # fmt: skip
    rows = TABLES["ablations"](Inputs({}, results_of(folders, tmp_path), refine_reports=reports))
    assert [(row["recipe"], row["n"]) for row in rows] == [
        ("none", 0), ("ablation-dgr-b0", 10), ("direct-dgr-b0", 10), ("direct-vanilla-b0", 10),
    ]  # fmt: skip
    ablation = rows[1]
    assert [ablation[key] for key in ("pieces", "filters", "fallback", "fallback (%)")] == ["reasoning", "none", "drop", "50.0"]
    assert ablation["harmful_score"].startswith("25.0 [")
    assert ablation["accuracy"].startswith("60.0 [")
    assert rows[3]["pieces"] == "–"


def test_each_base_model_stands_alone_beside_the_others(tmp_path):
    """DGR keeps 0.2 more on one base and 0.1 less on the other: two rows, where the mean of all would say +0.05."""
    folders = []
    for number, (name, gain) in enumerate((("tiny", 0.2), ("tiny.1", -0.1))):
        origin = {"model": name} | ({"replicate_of": "tiny"} if number else {})
        folders.append(
            write_run(tmp_path / name, {"run": f"base--{name}", "method": "none", "source": "none", "seed": 0, **origin}, 0.9, 0.0)
        )
        for n, refusal in ((10, 0.2), (100, 0.8)):
            for method, accuracy in (("vanilla", 0.5), ("dgr", 0.5 + gain)):
                spec = spec_of(method, "direct", n, number) | {"run": f"{name}-{method}-{n}", **origin}
                folders.append(write_run(tmp_path / spec["run"], spec, accuracy, refusal, shift=0.3 - gain * (method == "dgr")))
    rows = TABLES["bases"](Inputs({}, results_of(folders, tmp_path)))
    assert [(row["base"], row["runs"], row["accuracy of the base"]) for row in rows] == [("tiny", 4, "90.0"), ("tiny.1", 4, "90.0")]
    assert [float(row["accuracy, DGR − Vanilla"].split()[0]) for row in rows] == [20.0, -10.0]
    assert [float(row["accuracy at matched safety, DGR − Vanilla"].split()[0]) for row in rows] == [20.0, -10.0]
    assert [float(row["shift, DGR − Vanilla"].split()[0]) for row in rows] == [-0.2, 0.1]
    assert [float(row["nll, DGR − Vanilla"].split()[0]) for row in rows] == [-0.2, 0.1]


def test_a_study_without_ablations_has_none(known):
    assert TABLES["ablations"](Inputs({}, known)) == []


def test_a_piece_that_was_not_refined_has_no_fallback_rate(known):
    rows = TABLES["refinement"](Inputs({}, known, refine_reports=REPORTS))
    assert [(row["piece"], row["n"], row["fallback (%)"]) for row in rows] == [("reasoning", 10, "40.0"), ("answer", 0, "–")]


def test_a_cell_without_an_interval_has_no_bracket():
    assert (cell(Estimate(0.5, 0.25, 0.75, 4)), cell(Estimate(0.5, None, None, 1)), cell(None)) == ("50.0 [25.0, 75.0]", "50.0", "–")


def test_two_judges_have_a_row_with_the_counts_behind_their_kappa(known):
    (row,) = TABLES["judge_pairs"](Inputs({}, known, judge_pairs=[PAIR]))
    assert (row["judge a"], row["judge b"], row["samples"], row["read by both"]) == ("guard", "phrases", 60, 50)
    assert (row["unparseable to a"], row["unparseable to b"]) == (8, 4)
    assert (row["agreement"], row["kappa"]) == ("70.0 [55.0, 82.0]", "0.40 [0.10, 0.60]")
    assert [row[key] for key in ("a yes, b yes", "a yes, b no", "a no, b yes", "a no, b no")] == [20, 5, 10, 15]


def test_the_data_table_says_what_was_removed_against_what(known):
    rows = TABLES["data"](Inputs({}, known, dataset_reports=DATASETS))
    assert [(row["dataset"], row["removed as contaminated"], row["removed against"]) for row in rows] == [
        ("jbb", 0, "–"),
        ("train", 10, "jbb, xstest"),
    ]


def test_rows_of_a_taught_set_are_those_that_its_teacher_answered(known):
    row, _ = TABLES["data"](Inputs({}, known, dataset_reports=[DATASETS[1], DATASETS[0] | {"taught": 60}]))[::-1]
    assert (row["dataset"], row["rows"], row["asked"]) == ("train", 60, 90)


def paths(folder):
    return [folder / f"t.{form}" for form in ("csv", "md", "html")]


@pytest.mark.parametrize("kind", TABLES)
def test_all_forms_have_the_same_rows(known, tmp_path, kind):
    spec = {"table": kind, "caption": "A caption.", "select": {"source": "direct"}}
    spec |= {"reported": ENTRIES[kind]} if kind in ENTRIES else {}
    count = write_table(Inputs(spec, known, REPORTS, [], AGREEMENTS, DATASETS, judge_pairs=[PAIR], reported=paper()), *paths(tmp_path))
    lines = [line for line in (tmp_path / "t.md").read_text().splitlines() if line.startswith("| ")]
    assert len(lines) == (count + 1 if count else 0)
    if count:
        assert len(list(csv.reader((tmp_path / "t.csv").open()))) == count + 1
        assert (tmp_path / "t.html").read_text().count("<tr") == count + 1


def test_nothing_measured_and_unknown_kinds_are_said(known, tmp_path):
    assert write_table(Inputs({"table": "judges"}, known), *paths(tmp_path)) == 0
    assert all("Nothing was measured." in (tmp_path / name).read_text() for name in ("t.md", "t.html"))
    with pytest.raises(UserError, match="'best'; valid: main_results"):
        write_table(Inputs({"table": "best"}, known), *paths(tmp_path))


def paper_rows(results, **options):
    return TABLES["paper_table"](Inputs({"name": "table", "table": "paper_table", **options}, results, reported=paper()))


def test_ours_stands_beside_the_papers_with_the_difference(known):
    base, direct, other = paper_rows(known, select={"benign": 0, "n": 100})
    assert base["MATH500"].startswith("90.0 [")
    assert (direct["seeds"], direct["recipe"], direct["items, accuracy"]) == (3, "direct-vanilla-b0", 80)
    assert direct["MATH500"].startswith("40.0 [")
    assert (direct["MATH500 (paper)"], direct["MATH500 (ours − paper)"]) == ("40.0", "+0.0, paper inside")
    assert (direct["reasoning (paper)"], direct["reasoning (ours − paper)"]) == ("90.0", "−50.0, paper outside")
    assert direct["over-refusal (paper)"] == "20.0 †"
    assert (other["MATH500"], other["MATH500 (paper)"], other["MATH500 (ours − paper)"]) == ("not run", "1.0", "–")


def test_a_study_of_other_models_and_benchmarks_is_never_called_the_papers(known):
    rows = paper_rows(known, columns={"reasoning_mean": ["chains"], "asr_none": ["harm"]}, reference="other")
    assert [(row["model"], row["source"]) for row in rows] == [("tiny", "none"), ("tiny", "direct")]  # the paper's own rows of tiny
    direct = rows[1]
    assert direct["reasoning (paper, Tiny-1B)"] == "90.0"  # other benchmarks: no difference
    assert "reasoning (ours − paper)" not in direct
    assert direct["ASR, no attack (ours − paper)"].endswith("inside")  # the paper's own benchmark
    printed = paper()
    table = printed["entries"]["table"]
    table["rows"] = [row for row in table["rows"] if row["model"] == "other"]
    (row,) = TABLES["paper_table"](Inputs({"name": "table", "reference": "other"}, known, reported=printed))
    assert (row["model"], row["MATH500 (paper, Other-2B)"]) == ("tiny", "1.0")
    assert not any("ours − paper" in column for column in row)


def test_the_notes_of_a_papers_table_say_what_is_in_doubt(known, tmp_path):
    write_table(Inputs({"table": "paper_table", "name": "table"}, known, reported=paper()), *paths(tmp_path))
    text = (tmp_path / "t.md").read_text()
    assert "- † Tiny-1B, direct, over-refusal 20.0: of other prompts." in text
    assert "- reasoning: accuracy on sums, chains." in text
    assert "of other prompts" in (tmp_path / "t.html").read_text()


def test_a_mean_without_one_of_its_parts_is_a_dash(known):
    rows = paper_rows(known, columns={"reasoning_mean": ["sums", "codes"], "math500": ["sums"]})
    assert [(row["MATH500"][:4], row["reasoning"]) for row in rows[:2]] == [("90.0", "–"), ("40.0", "–")]


def test_the_gain_is_held_against_points_and_against_percent(known):
    spec = {"name": "gains", "select": {"source": ["direct", "reasoned"]}}
    direct, reasoned = TABLES["gains"](Inputs(spec, known, reported=paper()))
    assert (direct["accuracy, Vanilla"][:4], direct["accuracy, DGR"][:4], direct["gain (points)"][:4]) == ("40.0", "80.0", "40.0")
    assert direct["gain (%)"].startswith("100.0 [")
    assert direct["ours − paper (points)"] == "+0.0, paper inside"
    assert direct["ours − paper (%)"] == "+60.0, paper outside"
    assert (reasoned["gain (paper)"], reasoned["ours − paper (points)"]) == ("–", "–")


def test_lengths_of_responses_are_those_of_the_sets_report(known):
    lengths = {"all": {"n": 9, "mean": 25.0, "p90": 40.0}, "drawn": {"n": 3, "mean": 20.0, "p90": 30.0}}
    spec, report = {"name": "lengths", "datasets": {"direct": "direct-safe"}}, PATTERNS | {"response_characters": lengths}
    (row,) = TABLES["response_lengths"](Inputs(spec, known, filter_reports=[report], reported=paper()))
    assert [row[f"{part} (characters)"] for part in ("all, mean", "drawn, mean", "drawn, 90th percentile")] == ["25.0", "20.0", "30.0"]
    assert (row["rows, drawn"], row["all, mean (tokens, paper)"], row["drawn, 90th percentile (tokens, paper)"]) == (3, "774.1", "–")
    unfiltered = {"name": "direct-safe", "response_characters": lengths["drawn"]}
    (row,) = TABLES["response_lengths"](Inputs(spec, known, dataset_reports=[unfiltered], reported=paper()))
    assert [row["rows, all"], row["rows, drawn"]] == [3, 3]


def test_lengths_of_responses_are_in_tokens_where_a_tokenizer_is_named(known):
    spec = {"name": "lengths", "datasets": {"direct": "direct-safe"}, "tokenizer": "tiny"}
    counted = {"name": "direct-safe", "all": {"n": 9, "mean": 7.25, "p90": 9}, "drawn": {"n": 3, "mean": 6.0, "p90": 8}}
    (row,) = TABLES["response_lengths"](Inputs(spec, known, lengths=[counted], reported=paper()))
    assert (row["tokenizer"], row["rows, all"], row["rows, drawn"]) == ("tiny", 9, 3)
    assert [row[f"{part} (tokens)"] for part in ("all, mean", "all, 90th percentile", "drawn, mean")] == ["7.2", "9.0", "6.0"]
    assert not any("characters" in column for column in row)


def test_the_papers_tables_need_its_numbers(known):
    with pytest.raises(UserError, match="--reported"):
        TABLES["paper_table"](Inputs({"name": "table"}, known))


def test_a_table_bears_its_name_and_title_and_not_its_kind(known, tmp_path):
    write_table(Inputs({"table": "paper_table", "name": "table", "title": "Styles"}, known, reported=paper()), *paths(tmp_path))
    assert (tmp_path / "t.md").read_text().startswith("# table: Styles\n")
    assert "<h1>table: Styles</h1>" in (tmp_path / "t.html").read_text()
    write_table(Inputs({"table": "judges", "name": "mine"}, known), *paths(tmp_path))
    assert (tmp_path / "t.md").read_text().startswith("# mine\n")


def test_what_inside_means_is_said_only_where_it_stands(known, tmp_path):
    for columns, said in ({}, True), ({"reasoning_mean": ["chains"]}, False):
        write_table(Inputs({"table": "paper_table", "name": "table", "columns": columns}, known, reported=paper()), *paths(tmp_path))
        assert ("Inside: the printed value" in (tmp_path / "t.md").read_text()) is said, columns


@pytest.mark.parametrize(
    ("asked", "taught", "harmful"),
    [
        ({"rows": 140, "harmful": 90}, {"rows_out": 100, "harmful": 62}, 62),  # as the teacher's report counts
        ({"rows": 140, "harmful": 140}, {"rows_out": 100}, 100),  # a report of an earlier version
        ({"rows": 140, "harmful": 0}, {"rows_out": 100}, 0),
        ({"rows": 140, "harmful": 90}, {"rows_out": 100}, "–"),
    ],
)
def test_harmful_rows_of_a_taught_set_are_of_those_that_its_teacher_answered(asked, taught, harmful):
    assert harmful_of(asked, taught) == harmful
