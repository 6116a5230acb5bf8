"""Facts about cards: the hub's own parser reads them, every licence of the lock is carried over, and no text of a row is told."""

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard
from untaxed.assets import load_lock
from untaxed.cards import (
    all_cards,
    card_spec,
    dataset_card,
    dataset_origins,
    hub_licence,
    licensed,
    made_of,
    model_card,
    origins,
    strictest,
    training_set_card,
)
from untaxed.config import load, merge, read
from untaxed.records import UserError, read_yaml, write_json, write_jsonl, write_yaml

NOTHING = {"rows": [], "weights": [], "teachers": []}
RATES = {"n_items": "100", "ci_low": "0.3", "ci_high": "0.5"}


@pytest.fixture(scope="module")
def lock(root):
    return load_lock(root / "assets.lock.yaml")


@pytest.fixture(scope="module")
def laptop(root):
    return read([root / "config.yaml", root / "studies/laptop.yaml"], root)


@pytest.fixture(scope="module")
def paper(root):
    return read([root / "config.yaml"], root)


def rows(number: int, source: str = "advbench", harmful: bool = True, **more) -> list[dict]:
    texts = {"prompt": "secret words here", "reasoning": "hush", "answer": "no"}
    return [{"id": f"{source}-{n}", **texts, "harmful": harmful, "category": "", "source": source, **more} for n in range(number)]


def part(*assets: str, name: str = "set") -> dict:
    return {"part": "rows", "name": name, "assets": list(assets), "generator": None if assets else "chain_sum"}


def manifest(**more) -> dict:
    tokens = {"rows": 10, "tokens": 531, "loss_tokens": 308}
    return {"tokens": tokens, "loss": [3.2, 0.4], "steps": 12, "weights_sha256": "5" * 64, **more}


def metric(run: str, name: str, value: str, benchmark: str = "chain_sum", judge: str = "") -> dict:
    return {"run": run, "benchmark": benchmark, "metric": name, "judge": judge, "value": value, **RATES}


# ---- licences ----


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("MIT", "mit"),
        ("Apache-2.0", "apache-2.0"),
        ("MIT (wheel); Apache-2.0 (model)", "apache-2.0"),
        ("CC-BY-4.0", "cc-by-4.0"),
        ("CC-BY-SA-4.0", "cc-by-sa-4.0"),
        ("CC-BY-NC-4.0", "cc-by-nc-4.0"),
        ("CC-BY-NC-SA-4.0", "cc-by-nc-sa-4.0"),
        ("Llama 3.1 Community Licence", "llama3.1"),
        ("ODC-BY and AI2 Responsible Use", "other"),
        ("none stated on the hub page", "unknown"),
        ("unverified", "unknown"),
        ("a licence of one's own", "other"),
    ],
)
def test_a_licence_of_the_lock_has_the_name_that_the_hub_gives_it(words, name):
    assert hub_licence(words)[0] == name


def test_the_licence_that_allows_least_is_the_card_s(lock):
    free, attribution, not_commercial, none = "star-1", "xstest", "beavertails-30k-test", "r1-act"
    assert strictest(licensed([part(free, attribution)], lock)) in ("apache-2.0", "cc-by-4.0")
    assert strictest(licensed([part(free, not_commercial, attribution)], lock)) == "cc-by-nc-4.0"
    assert strictest(licensed([part(not_commercial, none)], lock)) == "unknown"
    assert strictest([]) == "apache-2.0"


def test_an_asset_that_is_made_of_a_non_commercial_one_counts_as_such(lock):
    """DirectRefusal states no licence, but is made from BeaverTails; that stands in its note."""
    flags = {entry["asset"]: entry["non_commercial"] for entry in licensed([part("directrefusal", "star-1", "beavertails-eval")], lock)}
    assert flags == {"directrefusal": True, "star-1": False, "beavertails-eval": True}


def test_every_licence_of_the_lock_is_known_by_name(lock):
    """One that is not becomes `other`; those that are meant to be are listed here."""
    other = {asset.licence for asset in lock.values() if hub_licence(asset.licence)[0] == "other"}
    assert other <= {"ODC-BY and AI2 Responsible Use", "SORRY-Bench's own"}, "name it in untaxed/cards.py, or list it here"


# ---- the card of a training set ----


def test_the_hub_reads_the_card_of_a_training_set_and_it_tells_no_text(lock):
    kept = [
        {"reasoning": {"kept": "rewrite", "reason": "ok"}, "answer": {"kept": other, "reason": why}}
        for other, why in (("rewrite", "ok"), ("original", "overthinking"))
    ]
    drawn = [row | {"pieces": pieces} for row, pieces in zip(rows(2), kept, strict=True)] + rows(1, "look-alikes", harmful=False)
    spec = {"run": "r", "model": "m", "recipe": "c", "method": "dgr", "seed": 0, "n": 2, "dataset": "d", "refinement": "dgr"}
    text = training_set_card(spec | {"mix": [{"dataset": "benign", "n": 1}]}, drawn, NOTHING | {"rows": [part("advbench")]}, lock)
    for line in ("- safety rows: 2 of the dataset d", "- mixed in: 1 of benign", "| advbench | 2 | 2 |", "| look-alikes | 1 | 0 |"):
        assert line in text
    for line in (
        "3 rows, 2 of them",
        "| prompt | 3 | 3.0 | 3 |",
        "| reasoning | 2 | 0 | ok 2 |",
        "| answer | 1 | 1 | ok 1, overthinking 1 |",
    ):
        assert line in text
    assert not re.search("secret|hush", text)
    data = DatasetCard(text).data
    assert (data.license, data.language, data.size_categories) == ("mit", ["en"], "n<1K")
    assert data.task_categories == ["text-generation"]
    assert data.source_datasets == ["extended|other-advbench"]
    assert "not-for-all-audiences" in data.tags


def test_a_card_of_non_commercial_rows_says_so_at_the_top_of_its_licences(lock):
    spec = {"run": "r", "model": "m", "recipe": "c", "method": "vanilla", "seed": 0, "n": 2, "dataset": "d", "refinement": None, "mix": []}
    text = training_set_card(spec, rows(2), NOTHING | {"rows": [part("beavertails-30k-test")]}, lock)
    assert DatasetCard(text).data.license == "cc-by-nc-4.0"
    assert text.index("NOT FOR COMMERCIAL USE") < text.index("| part | name | from |")
    assert "NOT FOR COMMERCIAL USE" not in training_set_card(spec, rows(2), NOTHING | {"rows": [part("star-1")]}, lock)


def test_the_card_of_a_run_that_trains_on_nothing(laptop, lock):
    text = training_set_card(laptop.specs["base--smollm2-reasoner"], [], origins(laptop, "base--smollm2-reasoner"), lock)
    assert "0 rows, 0 of them" in text
    assert "Nothing here comes from outside." in text


@pytest.mark.parametrize(("number", "size"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (9999, "1K<n<10K"), (10_000, "10K<n<100K")])
def test_the_size_category_of_the_hub(lock, number, size):
    text = dataset_card("d", rows(1) * number, {**NOTHING, "source": "d", "responses": None, "cleaned_against": []}, lock, Path("absent"))
    assert DatasetCard(text).data.size_categories == size


# ---- where things come from ----


def test_a_run_is_made_of_its_rows_its_base_and_what_made_the_base(laptop):
    run = next(run for run, spec in laptop.trained.items() if spec["recipe"] == "advbench-direct-dgr")
    found = origins(laptop, run)
    assert {entry["name"]: entry["part"] for entry in found["weights"]} == {
        "smollm2": "base model; behind the base model", "chain-sum-train": "behind the base model",
        "restatements": "behind the base model", "benign-chat": "behind the base model",
    }  # fmt: skip
    assert [entry["assets"] for entry in found["rows"] if entry["part"] == "rows"] == [["advbench"]]
    assert any(entry["part"].startswith("model that rewrote the rows") for entry in found["rows"])


def test_a_run_that_is_not_rewritten_has_no_rewriter(laptop):
    run = next(run for run, spec in laptop.trained.items() if spec["recipe"] == "advbench-direct")
    assert [entry["part"] for entry in origins(laptop, run)["rows"]] == ["rows"]


def test_a_distilled_dataset_names_its_teacher_with_its_sampling(laptop, lock):
    found = dataset_origins(laptop, "benign-chat")
    assert [entry["assets"] for entry in found["rows"]] == [["look-alikes-70"], ["smollm2-135m-instruct"]]
    text = dataset_card("benign-chat", rows(2, "look-alikes", harmful=False), found, lock, Path("absent"))
    assert "traces and answers by smollm2" in text
    assert "temperature" in text
    assert DatasetCard(text).data.license == "apache-2.0"


def test_a_teacher_at_a_server_has_terms_that_nobody_here_knows(root, lock):
    engine = {"backend": "openai", "model": "far-away", "base_url": "http://localhost/v1"}
    served = {"datasets": {"benign-chat": {"teacher": {"model": None, "engine": engine}}}}
    merged = merge(merge(read_yaml(root / "config.yaml"), read_yaml(root / "studies/laptop.yaml")), served)
    text = dataset_card("benign-chat", rows(1), dataset_origins(load(merged, root), "benign-chat"), lock, Path("absent"))
    assert DatasetCard(text).data.license == "unknown"
    assert "**NO LICENCE IS KNOWN** of far-away" in text
    assert "traces and answers by far-away at a server" in text


def test_the_paper_s_direct_refusals_are_flagged_in_the_card_of_the_model(paper, lock):
    run = next(run for run, spec in paper.trained.items() if spec["recipe"] == "direct-dgr")
    text = model_card(paper.specs[run], manifest(), origins(paper, run), lock)
    assert "NOT FOR COMMERCIAL USE" in text
    data = ModelCard(text).data
    assert data.license == "unknown"
    assert data.base_model == ["simplescaling/s1.1-7B"]


def test_all_of_a_study_s_origins_fit_on_one_command_line(root):
    """Linux allows 131,072 bytes an argument."""
    for overlay in ([], ["laptop"], ["organism"]):
        study = read([root / "config.yaml", *(root / f"studies/{name}.yaml" for name in overlay)], root)
        assert len(json.dumps(card_spec(study))) < 100_000


# ---- the card of a model ----


def test_the_hub_reads_the_rates_of_a_run_from_its_model_card(laptop, lock):
    run = next(iter(laptop.trained))
    measured = [metric(run, "accuracy", "0.39"), metric(run, "refusal_rate", "1.0", "strongreject", "phrases")]
    measured += [metric(run, "refusal_rate", "", "strongreject", "silent"), metric(run, "kl", "0.2", "")]
    data = ModelCard(model_card(laptop.specs[run], manifest(), origins(laptop, run), lock, measured)).data
    found = [(each.dataset_name, each.metric_name, each.metric_value, each.metric_args["n_items"]) for each in data.eval_results]
    assert found == [("chain_sum", "accuracy", 0.39, 100), ("strongreject", "refusal_rate (phrases)", 1.0, 100)]
    assert data.model_name == run


def test_a_card_that_a_training_writes_has_no_numbers_of_an_evaluation(laptop, lock):
    run = next(iter(laptop.trained))
    text = model_card(laptop.specs[run], manifest(), origins(laptop, run), lock)
    assert ModelCard(text).data.eval_results is None
    assert "metrics.csv" in text
    assert "531 tokens, 308 with loss; 12 steps" in text


# ---- the command ----


def test_the_command_writes_a_card_for_every_model_and_dataset(tmp_path, root, monkeypatch, laptop):
    import cards as command

    runs, results = list(laptop.trained)[:2], tmp_path / "results/laptop"
    told = {**card_spec(laptop), "runs": runs, "files": {"advbench-direct": "rows.jsonl"}}
    for run in runs:
        write_yaml(results / f"runs/{run}/run.yaml", laptop.specs[run])
        write_json(results / f"runs/{run}/checkpoint/manifest.json", manifest())
    write_jsonl(tmp_path / "rows.jsonl", rows(3))
    write_json(results / "datasets/advbench-direct/report.json", {"removed": {"count": 30}})
    head = ",".join(metric(runs[0], "accuracy", "0.39"))
    (tmp_path / "metrics.csv").write_text(f"{head}\n{','.join(metric(runs[0], 'accuracy', '0.39').values())}\n")
    monkeypatch.chdir(tmp_path)
    files = ["--metrics", "metrics.csv", "--lock", str(root / "assets.lock.yaml"), "--output-folder", "cards"]
    command.main(["--spec", json.dumps(told), *files])
    assert {path.name for path in (tmp_path / "cards").iterdir()} == {f"{name}.md" for name in [*runs, "advbench-direct"]}
    assert ModelCard.load(tmp_path / f"cards/{runs[0]}.md").data.eval_results[0].metric_value == 0.39
    assert "cleaned against strongreject: 30 rows removed" in (tmp_path / "cards/advbench-direct.md").read_text()


def test_a_run_whose_manifest_is_missing_is_named(tmp_path, laptop, lock):
    run = next(iter(laptop.trained))
    write_yaml(tmp_path / f"results/laptop/runs/{run}/run.yaml", laptop.specs[run])
    (tmp_path / "metrics.csv").write_text("run\n")
    with pytest.raises(UserError, match=rf"{run}/checkpoint/manifest.json: no such file"):
        all_cards({**card_spec(laptop), "runs": [run], "files": {}}, tmp_path / "metrics.csv", lock, tmp_path)


def test_what_a_run_is_made_of_comes_from_its_own_file(laptop):
    """run.yaml holds what `made_of` reads, so that cards need no configuration."""
    run = next(run for run, spec in laptop.trained.items() if spec["mix"])
    assert made_of(laptop.specs[run], card_spec(laptop)) == origins(laptop, run)
