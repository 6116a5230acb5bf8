"""The pages for those who check the work: generated blocks are fresh, every claim has its line, and verdicts are those of the record."""

import json
import os
import re
import shutil

import pytest
from untaxed.artifact import fill, licence_table, seconds_behind, tolerance, verdict_page
from untaxed.assets import load_lock
from untaxed.claims import read_claims
from untaxed.records import UserError, read_yaml, write_json, write_yaml

PAGE = "docs/ARTIFACT.md"


def test_the_generated_blocks_of_the_artifact_page_are_fresh(root, tmp_path, monkeypatch):
    import artifact as command

    shutil.copyfile(root / PAGE, tmp_path / "page.md")
    monkeypatch.chdir(root)
    command.main(["--page", str(tmp_path / "page.md")])
    assert (tmp_path / "page.md").read_text() == (root / PAGE).read_text(), "run: python scripts/artifact.py"


def test_every_claim_and_every_asset_has_its_line(root):
    text = (root / PAGE).read_text()
    for claim in read_claims(root / "claims.yaml")["claims"]:
        assert f"| **{claim['id']}** " in text
    for name in load_lock(root / "assets.lock.yaml"):
        assert f"| `{name}` |" in text


def test_every_file_that_the_page_links_is_there(root):
    for link in re.findall(r"\]\(([^)#:]+)\)", (root / PAGE).read_text()):
        assert (root / "docs" / link).exists(), link


def test_the_files_and_keys_that_the_page_names_exist(root):
    text = (root / PAGE).read_text()
    for path in re.findall(r"`((?:scripts|containers|docs|perf|envs)/[\w./]+)`", text):
        assert (root / path).exists(), path
    compute = read_yaml(root / "config.yaml")["compute"]
    assert set(re.findall(r"`compute\.(\w+)`", text)) <= set(compute)


# ---- blocks ----


def test_a_block_is_replaced_and_what_stands_around_it_stays():
    page = "above\n<!-- begin: a -->\nold\n<!-- end: a -->\nbelow\n"
    assert fill(page, {"a": ["new"]}, "page") == "above\n<!-- begin: a -->\n\nnew\n\n<!-- end: a -->\nbelow\n"
    assert fill(fill(page, {"a": ["new"]}, "page"), {"a": ["new"]}, "page") == fill(page, {"a": ["new"]}, "page")


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("no markers", "a"),
        ("<!-- begin: a -->\n<!-- end: a -->\n<!-- begin: b -->\n<!-- end: b -->", "b"),
        ("<!-- begin: a -->\nno end", "a"),
        ("<!-- begin: a -->\n<!-- end: a -->\n<!-- begin: a -->\n<!-- end: a -->", "a"),
    ],
)
def test_a_page_whose_markers_do_not_fit_is_refused(page, name):
    with pytest.raises(UserError, match=f"page: .*{name!r}"):
        fill(page, {"a": []}, "page")


# ---- tables ----


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"direction": "greater"}, "interval wholly above 0"),
        ({"direction": "less", "bound": 0.05}, "interval wholly below +5 points"),
        ({"direction": "greater", "bound": -0.03}, "interval wholly above -3 points"),
        ({"direction": "greater", "reported": 30.2}, "interval wholly above 0; the paper's 30.2 inside it"),
        ({"direction": "less", "reported": "little"}, "interval wholly below 0 (paper: little)"),
        ({"direction": "greater", "test": "correlation", "bound": 0.3}, "interval wholly above 0.3"),
    ],
)
def test_the_tolerance_of_a_claim_is_its_bound_in_words(more, said):
    assert tolerance({"test": "difference"} | more) == said


def test_a_licence_that_forbids_something_is_flagged(root):
    lines = {line.split("`")[1]: line for line in licence_table(load_lock(root / "assets.lock.yaml"))[2:]}
    assert "**non-commercial**" in lines["beavertails-eval"]
    assert "**no licence known**" in lines["r1-act"]
    assert "gated" in lines["llama-guard-3-8b"]
    assert "**" not in lines["star-1"]


# ---- CLAIMS.md ----


def record(name: str, runs: list[str], **more) -> dict:
    found = {"id": name, "statement": f"Statement of {name}.", "paper": "arXiv 2602.02136", "figure": "method_bars", "reported": None}
    found |= {"value": 0.1, "low": 0.05, "high": 0.15, "n": 100, "points": True, "unit": "points", "counted": "items", "stand_ins": []}
    found |= {"command": "snakemake method_bars"}
    return found | {"verdict": "supported", "reason": "because", "runs": runs, "bases": ["m"], "relative": None} | more


def write_study(folder, records: list[dict], commit: str = "a" * 40) -> None:
    """A results folder with one run, its stage and their benchmark files, and the sidecar of its figure."""
    results = folder / "results/tiny"
    told = {"study": "tiny", "command": "python scripts/claims.py --study tiny", "counts": "", "claims": records}
    write_json(results / "claims.json", told)
    os.utime(results / "claims.json", (1_700_000_000, 1_700_000_000))  # 2023-11-14
    write_json(folder / "paper_figures/tiny/method_bars.json", {"commit": commit})
    write_yaml(results / "runs/m--r--t--n5--s0/run.yaml", {"refinement": "dgr", "dataset": "d", "model": "m"})
    write_yaml(results / "runs/reasoning--m/run.yaml", {"refinement": None})
    seconds = {
        "train/m--r--t--n5--s0": 60, "train/m--r--t--n5--s01": 7000, "train/reasoning--m": 30, "judge/m--r--t--n5--s0--phrases": 6,
        "rewrite/d--m--dgr": 18, "evaluate/m--r--t--n50--s0": 5000, "prepare_dataset/d": 400,
    }  # fmt: skip
    for name, value in seconds.items():
        path = results / f"benchmarks/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\n{value}\t0:00:00\n")


def test_the_cost_of_a_claim_is_that_of_its_runs_their_rewrites_and_their_stages(tmp_path):
    write_study(tmp_path, [])
    runs = ["m--r--t--n5--s0"]
    assert seconds_behind(tmp_path / "results/tiny", runs, []) == 60 + 6 + 18
    assert seconds_behind(tmp_path / "results/tiny", runs, ["reasoning--m"]) == 60 + 6 + 18 + 30


def test_the_page_of_verdicts_says_commit_date_interval_n_cost_figure_and_command(tmp_path):
    write_study(tmp_path, [record("one", ["m--r--t--n5--s0"])])
    text = verdict_page([tmp_path / "results/tiny"], [{"id": "one"}, {"id": "later"}])
    for part in ("Commit aaaaaaa; judged on 2023-11-1", "+10.0 [+5.0, +15.0] points", "100 items", "**supported**", "1.9 min"):
        assert part in text
    for part in ("`paper_figures/tiny/method_bars.pdf`", "python scripts/claims.py --study tiny", "--configfile studies/tiny.yaml"):
        assert part in text
    assert text.rstrip().endswith("none of them judges: later.")


def test_changes_that_were_not_committed_are_said(tmp_path):
    write_study(tmp_path, [record("one", [])], commit=f"{'b' * 40}-dirty")
    assert "Commit bbbbbbb, with changes that were not committed;" in verdict_page([tmp_path / "results/tiny"], [])


def test_figures_of_two_commits_are_no_record(tmp_path):
    write_study(tmp_path, [record("one", []), record("two", [], figure="shift_tax")])
    write_json(tmp_path / "paper_figures/tiny/shift_tax.json", {"commit": "c" * 40})
    with pytest.raises(UserError, match="figures of 2 commits"):
        verdict_page([tmp_path / "results/tiny"], [])


def test_the_verdicts_that_are_kept_are_of_claims_that_exist(root):
    known = {claim["id"] for claim in read_claims(root / "claims.yaml")["claims"]}
    told = set(re.findall(r"^\| \*\*([\w-]+)\*\*:", (root / "CLAIMS.md").read_text(), re.MULTILINE))
    assert told
    assert told <= known


def test_the_command_writes_the_page(tmp_path, root):
    import verdicts as command

    write_study(tmp_path, [record("one", [])])
    files = ["--claims", str(root / "claims.yaml"), "--output", str(tmp_path / "CLAIMS.md")]
    command.main(["--results", str(tmp_path / "results/tiny"), *files])
    assert json.loads((tmp_path / "results/tiny/claims.json").read_text())["study"] in (tmp_path / "CLAIMS.md").read_text()
