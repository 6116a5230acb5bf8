"""What a study looks up: suites of experiments, attacks, drawn datasets, and what a figure of some experiments needs."""

import json
from pathlib import Path

import pytest
from untaxed.claims import read_claims
from untaxed.config import load, merge, read
from untaxed.metrics import run_fields, select
from untaxed.records import UserError, read_yaml
from untaxed.study import Study

SERVER = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "m"}
ASKED = {"model": "organism", "prompt": "prompts/organism/pair_attacker.yaml"}
PAIR = {"kind": "pair", "attacker": ASKED, "judge": {**ASKED, "prompt": "prompts/organism/pair_judge.yaml"}}
CHOOSER = {"kind": "string_match", "prompt": "prompts/organism/refusal_phrases.yaml", "benchmarks": []}


@pytest.fixture(scope="module")
def config(root: Path) -> dict:
    read = [read_yaml(root / path) for path in ("config.yaml", "studies/organism.yaml", "studies/smoke.yaml")]
    return merge(merge(*read[:2]), read[2])


def made(config: dict, root: Path, **changes: dict) -> Study:
    return load(merge(config, changes), root)


TWO = {
    "study": {"experiments": ["smoke", "other"], "suite": ["chains", "harmful_requests"], "figures": ["shift_tax"], "tables": ["data"]},
    "shift": {"benchmarks": ["chains", "harmful_requests"]},
    "experiments": {
        "other": {
            "models": ["organism"],
            "recipes": ["organism-direct", "organism-direct-benign"],
            "trainers": ["organism-smoke"],
            "n": [10],
            "seeds": [0],
            "suite": ["chains", "harmless_requests"],
        }
    },
}
SHARED, OTHER = "organism--organism-direct--organism-smoke--n10--s0", "organism--organism-direct-benign--organism-smoke--n10--s0"


def test_a_run_is_tested_with_what_all_its_experiments_name(config: dict, root: Path) -> None:
    study = made(config, root, **TWO)
    assert study.suites[SHARED] == ["chains", "harmful_requests", "harmless_requests"]
    assert study.suites[OTHER] == ["chains", "harmless_requests"]
    assert list(study.evaluation_spec(OTHER)["benchmarks"]) == ["chains", "harmless_requests"]


def test_a_run_is_judged_and_compared_only_where_its_suite_allows_it(config: dict, root: Path) -> None:
    study = made(config, root, **TWO)
    assert (study.judges_of(OTHER), study.judges_of(SHARED)) == (["organism_phrases", "classes"], ["organism_phrases", "rubric", "classes"])
    assert (study.shifted(OTHER), study.shifted(SHARED)) == (False, True)
    paths = study.measured()
    assert f"results/smoke/runs/{SHARED}/shift.json" in paths
    assert f"results/smoke/runs/{OTHER}/shift.json" not in paths


def test_a_figure_of_one_experiment_reads_its_runs_alone(config: dict, root: Path) -> None:
    study = made(config, root, **TWO, figures={"shift_tax": {"experiments": ["other"]}})
    assert study.sources_of("figures", "shift_tax")["metrics"] == "results/smoke/parts/other/metrics.csv"
    assert study.sources_of("tables", "data")["metrics"] == []  # it reads reports alone
    assert set(study.part_of("other").runs) == {"base--organism", SHARED, OTHER}
    assert study.targets == {"shift_tax": ["paper_figures/smoke/shift_tax.pdf"], "data": ["results/smoke/tables/data.csv"]}


def test_an_experiment_of_base_models_needs_no_recipe(config: dict, root: Path) -> None:
    alone = {"models": ["organism"], "n": [0], "suite": ["chains"]}
    study = made(config, root, study={"experiments": ["smoke", "alone"]}, experiments={"alone": alone})
    assert list(study.experiment_runs("alone")) == ["base--organism"]
    with pytest.raises(UserError, match=r"experiments\.alone\.recipes: is empty"):
        made(config, root, study={"experiments": ["smoke", "alone"]}, experiments={"alone": {**alone, "n": [0, 10]}})


def test_an_attack_that_asks_the_model_under_test_gives_every_run_prompts_of_its_own(config: dict, root: Path) -> None:
    study = made(config, root)
    assert study.benchmark_rows("harmful_requests_pair", SHARED) == f"results/smoke/runs/{SHARED}/attacked/harmful_requests_pair/rows.jsonl"
    assert study.benchmark_rows("harmful_requests_pap", SHARED) == "results/smoke/attacked/harmful_requests_pap/rows.jsonl"
    spec = study.attack_spec("harmful_requests_pair", SHARED)
    assert (spec["attack"], spec["limit"], spec["streams"], spec["target"]["sampling"]) == ("pair", 4, 2, {"max_new_tokens": 64})
    assert "target" not in study.attack_spec("harmful_requests_pap")
    json.dumps(spec)


def test_benchmarks_with_the_same_attack_share_its_prompts(config: dict, root: Path) -> None:
    twin = {**config["benchmarks"]["harmful_requests_pap"], "sampling": {"max_new_tokens": 8}}
    study = made(config, root, study={"suite": [*config["study"]["suite"], "twin"]}, benchmarks={"twin": twin}, judges={
        "organism_phrases": {"benchmarks": [*config["judges"]["organism_phrases"]["benchmarks"], "twin"]}})  # fmt: skip
    assert study.benchmark_rows("twin", SHARED) == study.benchmark_rows("harmful_requests_pap", SHARED)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        ({**PAIR, "judge": None}, r"attacks\.organism_pair\.judge: an attack of kind 'pair' asks such a model; give its `model`"),
        (
            {**PAIR, "techniques": "prompts/organism/techniques.yaml"},
            r"attacks\.organism_pair\.techniques: .* has no techniques; remove the key",
        ),
        (
            {**PAIR, "attacker": {**ASKED, "model": None}},
            r"attacks\.organism_pair\.attacker\.model: an attack of kind 'pair' needs a model of this",
        ),
        ({**PAIR, "attacker": {**ASKED, "engine": SERVER}}, r"attacks\.organism_pair\.attacker\.model: is for a model that runs here"),
        ({**PAIR, "attacker": {**ASKED, "prompt": "prompts/none.yaml"}}, r"attacks\.organism_pair\.attacker\.prompt: no such file"),
        (
            {"kind": "pap-static", "attacker": None, "judge": None},
            r"attacks\.organism_pair\.table: an attack of kind 'pap-static' needs table; add",
        ),
        (
            {"kind": "pap-static", "attacker": None, "judge": None, "table": "star"},
            r"attacks\.organism_pair\.table: assets\.lock\.yaml has no asset",
        ),
        ({**PAIR, "streams": 0}, r"attacks\.organism_pair\.streams: input should be greater than or equal to 1"),
    ],
)
def test_a_wrong_attack_is_named(attack: dict, said: str, config: dict, root: Path) -> None:
    changed = {**config, "attacks": {**config["attacks"], "organism_pair": attack}}
    with pytest.raises(UserError, match=said):
        load(changed, root)


def test_a_benchmark_whose_prompts_differ_between_runs_measures_no_shift(config: dict, root: Path) -> None:
    with pytest.raises(UserError, match=r"shift\.benchmarks: the prompts of 'harmful_requests_pair' differ between runs"):
        made(config, root, shift={"benchmarks": ["harmful_requests_pair"]})


DRAWN = {
    "judges": {"chooser": CHOOSER},
    "datasets": {"kept": {"of": "organism-direct", "filters": [{"judge": "chooser", "keep": ["refusal"]}], "limit": 20}},
    "recipes": {"organism-direct": {"dataset": "kept"}},
}


def test_a_drawn_dataset_is_judged_once_and_filtered(config: dict, root: Path) -> None:
    twice = {"kept-too": {"of": "organism-direct", "filters": [{"judge": "chooser", "keep": ["compliance"]}]}}
    study = made(config, root, **merge(DRAWN, {"datasets": twice, "recipes": {"organism-direct-benign": {"dataset": "kept-too"}}}))
    assert study.rows("kept") == "results/smoke/filtered/kept/rows.jsonl"
    assert (
        study.row_verdicts("kept")
        == {"chooser": "results/smoke/row_verdicts/organism-direct/chooser.jsonl"}
        == study.row_verdicts("kept-too")
    )
    assert ("organism-direct", "chooser") in study.row_judges
    assert "organism-direct" in study.datasets_needed
    assert study.filter_spec("kept") == {
        "dataset": "kept", "filters": [{"judge": "chooser", "keep": ["refusal"], "allow": None}], "patterns": None, "limit": 20, "seed": 0,
    }  # fmt: skip
    assert {"results/smoke/filtered/kept/report.json", "results/smoke/filtered/kept-too/report.json"} < set(study.filter_reports())


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"adapter": "organism_requests"}, r"datasets\.kept: give either `adapter` .* or `of`"),
        ({"of": "organism-dirct"}, r"datasets\.kept\.of: no dataset is called 'organism-dirct'; did you mean 'organism-direct'"),
        ({"seed": 1, "teacher": {"model": "organism"}}, r"datasets\.kept\.teacher: is for the dataset that the rows are from"),
        ({"filters": [{"judge": "chooser"}]}, r"datasets\.kept\.filters\.0: give either `keep` \(verdicts\) or `allow` \(labels\)"),
        ({"filters": [{"judge": "choser", "keep": ["safe"]}]}, r"datasets\.kept\.filters\.0\.judge: no judge is called 'choser'"),
        ({"filters": [{"judge": "chooser", "keep": ["good"]}]}, r"datasets\.kept\.filters\.0\.keep\.0: 'good' is not one of"),
        ({"filters": [{"judge": "chooser", "allow": []}]}, r"datasets\.kept\.filters\.0\.allow: judge 'chooser' gives no labels"),
        ({"patterns": "chooser"}, r"datasets\.kept\.patterns: judge 'chooser' gives no labels"),
    ],
)
def test_a_wrong_drawn_dataset_is_named(dataset: dict, said: str, config: dict, root: Path) -> None:
    changed = merge(config, DRAWN)
    changed["datasets"]["kept"] = {**changed["datasets"]["kept"], **dataset}
    with pytest.raises(UserError, match=said):
        load(changed, root)


def test_a_drawn_dataset_is_drawn_from_rows_and_not_from_a_drawn_one(config: dict, root: Path) -> None:
    changed = merge(merge(config, DRAWN), {"datasets": {"again": {"of": "kept"}}, "recipes": {"organism-direct": {"dataset": "again"}}})
    with pytest.raises(UserError, match=r"datasets\.again\.of: 'kept' is drawn from another dataset itself"):
        load(changed, root)


def test_a_teacher_may_be_told_the_prompts_of_the_release(config: dict, root: Path) -> None:
    taught = {"teacher": {"model": "organism", "prompt": "upstream:short", "candidates": 60}, "limit": 40}
    study = made(config, root, datasets={"organism-direct": taught})
    assert study.upstream("organism-direct") == ["--upstream", "results/assets/lrm-safety-study-prompts/template.py"]
    assert "lrm-safety-study-prompts" in study.assets_needed
    assert made(config, root).upstream("organism-benign") == []
    with pytest.raises(
        UserError, match=r"datasets\.organism-direct\.teacher\.prompt: the release has no prompt 'shor'; did you mean 'short'"
    ):
        made(config, root, datasets={"organism-direct": merge(taught, {"teacher": {"prompt": "upstream:shor"}})})


def test_a_benchmark_must_leave_room_for_a_prompt(config: dict, root: Path) -> None:
    said = (
        r"benchmarks\.chains\.sampling\.max_new_tokens: 256 tokens leave no room for a prompt in models\.organism\.context: 256; change one"
    )
    with pytest.raises(UserError, match=said):
        made(config, root, benchmarks={"chains": {"sampling": {"max_new_tokens": 256}}})


@pytest.mark.parametrize(
    ("targets", "assets"),
    [
        (["activation_curve"], {"s1.1-7b", "directrefusal"}),
        (["cot_table3"], {"r1-distill-qwen-32b", "realsafe-r1-7b", "advbench-50-pap"}),
        ([], {"s1.1-7b", "r1-distill-qwen-32b"}),
        (["activation_curve", "main_results"], {"s1.1-7b", "r1-distill-qwen-32b"}),  # the table shows the whole study
        (["results/paper/tables/activation.csv"], {"s1.1-7b", "r1-distill-qwen-32b"}),
        (["activation_curve", "data"], {"s1.1-7b", "directrefusal"}),  # rows alone, no other model
        (["judges"], set()),
        (["cot_table4"], {"r1-distill-qwen-7b", "xstest"}),  # its tokenizer
        (["cot_figure1"], set()),
        (["judge_pairs"], {"s1.1-7b", "r1-distill-qwen-32b", "realsafe-r1-7b"}),  # verdicts on all runs
    ],
)
def test_what_is_asked_by_name_needs_its_own_assets_alone(targets: list[str], assets: set[str], root: Path) -> None:
    whole = read([root / "config.yaml"], root)
    asked = set(whole.assets_asked(targets))
    others = {"s1.1-7b", "directrefusal", "r1-distill-qwen-7b", "r1-distill-qwen-32b", "realsafe-r1-7b", "advbench-50-pap"}
    assert assets <= asked <= set(whole.assets_needed)
    if asked != set(whole.assets_needed):
        assert (others - assets) & asked <= ({"r1-distill-qwen-7b"} if "cot_table3" in targets else set())


def test_the_model_whose_tokenizer_counts_is_not_trained_here(root: Path) -> None:
    files = [root / "config.yaml", root / "studies/organism.yaml", root / "studies/smoke.yaml"]
    merged: dict = {}
    for path in files:
        merged = merge(merged, read_yaml(path))
    trained = merge(merged, {"tables": {"cot_table4": {"options": {"tokenizer": "organism"}}}})
    with pytest.raises(UserError, match=r"cot_table4\.options\.tokenizer: 'organism' is trained here.*'organism-untrained'; name that"):
        load(trained, root, files)
    unknown = merge(merged, {"tables": {"cot_table4": {"options": {"tokenizer": "organism-untraind"}}}})
    with pytest.raises(UserError, match=r"no model is called 'organism-untraind'; did you mean 'organism-untrained'"):
        load(unknown, root, files)


def test_the_main_figure_is_told_what_prior_models_were_tuned_from(root: Path) -> None:
    study = read([root / "config.yaml"], root)
    tuned = study.figure_spec("safety_tax_plane")["tuned_from"]
    assert tuned["realsafe-r1-32b"] == "r1-distill-qwen-32b"
    shown = study.part_of(study.part("figures", "safety_tax_plane")).runs.values()
    assert {*tuned, *tuned.values()} <= {run["model"] for run in shown if not run["n"]}
    assert "tuned_from" not in study.figure_spec("shift_tax")


def test_the_figure_or_table_of_a_claim_holds_its_runs(root: Path) -> None:
    study = read([root / "config.yaml"], root)
    runs = {run: run_fields(fields, run) for run, fields in study.runs.items()}
    content = read_claims(root / "claims.yaml")
    for claim in content["claims"]:
        catalogue = "figures" if "figure" in claim else "tables"
        if claim["test"] == "share" or claim["figure" if catalogue == "figures" else "table"] not in getattr(study.config, catalogue):
            continue
        shown = study.part_of(study.part(catalogue, claim.get("figure") or claim["table"])).runs
        for side in ("a", "b"):
            wanted = {
                key: value for key, value in (claim.get(side) or {}).items() if key in ("source", "recipe", "method") and value != "none"
            }
            chosen = select(runs, {"method": "vanilla", **wanted}) if "2505" in claim["paper"] and wanted.get("source") else []
            assert not chosen or set(chosen) & set(shown), f"{claim['id']}: {side}"
