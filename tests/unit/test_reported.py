"""The papers' printed numbers: each average from its parts, each share a count of its benchmark, and what of a study stands beside them."""

import pytest
from synthetic import results_of, spec_of, study, write_base, write_run
from untaxed.records import UserError, write_yaml
from untaxed.reported import ROUNDING, column_measures, columns_of, entry_of, printed, read_reported, runs_of


@pytest.fixture(scope="module")
def reported(root):
    return read_reported(root / "reported.yaml")


def rows_of(reported):
    return [(name, row) for name, entry in reported["entries"].items() for row in entry["rows"]]


def test_each_printed_average_is_that_of_its_parts(reported):
    checked = 0
    for name, row in rows_of(reported):
        for column, value in row["values"].items():
            parts = reported["columns"].get(column, {}).get("mean_of", ())
            if parts and all(part in row["values"] for part in parts):
                mean = sum(row["values"][part] for part in parts) / len(parts)
                assert abs(mean - value) <= ROUNDING, (name, row)
                checked += 1
    assert checked == 2 * (28 + 6 + 6)  # two averages in each row of Tables 1 to 3


def test_each_share_is_a_count_of_its_benchmark_unless_it_is_doubted(reported):
    """A share printed to one decimal is that of some k of n, but for those that the file doubts."""
    doubted = set()
    for name, row in rows_of(reported):
        for column, value in row["values"].items():
            if (n := reported["columns"].get(column, {}).get("counts")) and value is not None:
                nearest_share = round(value * n / 100) * 100 / n
                if abs(nearest_share - value) > 0.05 + 1e-9:
                    doubted.add((name, row["model"], row["source"], column))
    assert doubted == {
        (name, row["model"], row["source"], column) for name, row in rows_of(reported) for column in row["doubt"] if column != "asr_mean"
    }
    assert len(doubted) == 4


def test_a_mean_of_three_attacks_is_a_multiple_of_two_thirds_unless_it_is_doubted(reported):
    for name, row in rows_of(reported):
        value = row["values"].get("asr_mean")
        if value is not None:
            fits = abs(round(value * 1.5) / 1.5 - value) <= 0.05 + 1e-9
            assert fits != ("asr_mean" in row["doubt"]), (name, row)


def test_the_headline_follows_from_the_table(reported):
    """PAIR falls from 63.0 to 13.0 in the abstract: the mean over four models of the default and of the improved traces."""
    rows = reported["entries"]["cot_table1"]["rows"]
    means = {
        source: sum(row["values"]["asr_pair"] for row in rows if row["source"] == source) / 4 for source in ("none", "default", "improved")
    }
    assert means == {"none": 76.0, "default": 63.0, "improved": 13.0}


def test_rows_that_stand_in_two_tables_agree(reported):
    table1 = reported["entries"]["cot_table1"]
    for name in ("cot_table2", "cot_table3", "cot_figure3", "cot_figure4", "cot_figure5"):
        for row in reported["entries"][name]["rows"]:
            same = printed(table1, model=row["model"], source=row["source"])
            if same and not str(row.get("recipe", "")).endswith(("gemini", "claude")):
                assert all(same["values"][column] == value for column, value in row["values"].items()), (name, row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": [1.0]}, "row 1: 1 values for 2 columns"),
        ({"style": "x"}, "unknown key 'style'"),
        ({"doubt": {"asr_mean": "x"}}, "doubt about 'asr_mean', which is no column"),
    ],
)
def test_a_row_that_does_not_fit_is_named(tmp_path, change, message):
    row = {"model": "m", "source": "none", "values": [1.0, 2.0], **change}
    entry = {"paper": "p", "place": "Table 1", "columns": ["math500", "aime24"], "rows": [row]}
    write_yaml(tmp_path / "r.yaml", {"columns": {}, "models": {}, "entries": {"t": entry}})
    with pytest.raises(UserError, match=message):
        read_reported(tmp_path / "r.yaml")


def test_an_entry_that_is_not_there_is_named(reported):
    with pytest.raises(UserError, match="no entry is called 'cot_table9'; did you mean 'cot_table"):
        entry_of(reported, "cot_table9")
    with pytest.raises(UserError, match="give the command `--reported"):
        entry_of({}, "cot_table1")


def test_a_study_may_give_its_own_benchmarks_for_a_column(reported):
    columns = columns_of(reported, {"columns": {"reasoning_mean": ["sums", "chains"], "asr_none": ["harm"]}}, reported["columns"])
    assert [(name, column["benchmarks"], column["same"]) for name, column in columns.items()] == [
        ("reasoning_mean", ["sums", "chains"], False),
        ("asr_none", ["harm"], False),
    ]
    with pytest.raises(UserError, match="no column 'asr'"):
        columns_of(reported, {"columns": {"asr": ["harm"]}}, [])


def test_a_mean_counts_only_runs_that_have_all_its_parts(tmp_path):
    run = write_run(tmp_path / "v", spec_of("vanilla", "direct", 10, 0), 0.5, 0.8)
    results = results_of([write_base(tmp_path / "b"), run], tmp_path)
    columns = {
        "both": {"metric": "accuracy", "benchmarks": ["sums", "chains"]},
        "more": {"metric": "accuracy", "benchmarks": ["sums", "codes"]},
    }
    found = column_measures(results, columns, results.runs)
    assert found["both"].values == {"base--tiny": pytest.approx(0.9), spec_of("vanilla", "direct", 10, 0)["run"]: pytest.approx(0.5)}
    assert len(found["both"].scores["base--tiny"]) == 80
    assert found["more"].values == {}


def test_a_judge_that_the_study_does_not_have_gives_way_to_its_own(tmp_path):
    results = results_of([write_base(tmp_path / "b")], tmp_path)
    columns = {"asr": {"metric": "harmful_score", "benchmarks": ["harm"]}}
    found = column_measures(results, columns, results.runs, {"harmful_score": "llama_guard_release"})
    assert (found["asr"].judge, found["asr"].values) == ("string_match", {"base--tiny": 1.0})


def test_a_printed_row_is_of_the_runs_at_the_usual_setting(tmp_path):
    results = study(tmp_path, seeds=2)
    base = runs_of(results, {"model": "tiny", "source": "none"})
    rows = runs_of(results, {"model": "tiny", "source": "direct", "n": 10, "benign": 20})
    assert base == ["base--tiny"]
    assert rows == [f"tiny--direct-vanilla-b20--full--n10--s{seed}" for seed in range(2)]
    # 10 and 100 rows, 0 and 20 benign ones are as frequent as each other: the larger number, the first name
    assert runs_of(results, {"model": "tiny", "source": "direct"}) == [f"tiny--direct-vanilla-b0--full--n100--s{seed}" for seed in range(2)]
