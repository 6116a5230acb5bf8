"""Every mistake in a configuration gives one line that names the file, the key and the fix."""

import copy
import hashlib
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from untaxed.config import in_order, load, load_or_exit, merge, read
from untaxed.records import UserError, nearest, read_yaml
from untaxed.refinement import read_templates
from untaxed.schema import schema


@pytest.fixture(scope="module")
def organism(root: Path) -> dict:
    """config.yaml with the model organism's overlay, one small data set and one with a teacher, as plain data."""
    small = {**REQUEST, "limit": 20}
    more = {"datasets": {"organism-small": small, "organism-few": REQUEST, "organism-taught": {**small, "teacher": {"model": "organism"}}}}
    return merge(merge(read_yaml(root / "config.yaml"), read_yaml(root / "studies/organism.yaml")), more)


def put(mapping: dict, key: str, value: object) -> dict:
    """A copy with one key set; names in `key` are parted by `/`."""
    result = copy.deepcopy(mapping)
    *path, last = key.split("/")
    target = result
    for name in path:
        target = target.setdefault(name, {})
    target[last] = value
    return result


def remove(mapping: dict, key: str) -> dict:
    result = copy.deepcopy(mapping)
    *path, last = key.split("/")
    target = result
    for name in path:
        target = target[name]
    del target[last]
    return result


REQUEST = {"adapter": "organism_requests", "options": {"harmful": True, "split": "train", "style": "direct"}}
CIRCLE = {
    "organism-direct": {**REQUEST, "decontaminate_against": ["organism-harmful"]},
    "organism-harmful": {**REQUEST, "decontaminate_against": ["organism-benign"]},
    "organism-benign": {**REQUEST, "decontaminate_against": ["organism-direct"]},
}
RUBRIC = {"kind": "strongreject_rubric", "benchmarks": ["harmful_requests", "harmless_requests"]}
ADAPTER = {"kind": "folder", "asset": "strongreject-15k-v1", "parameters": 1.0}
FINETUNED = {
    "kind": "strongreject_finetuned",
    "benchmarks": ["harmful_requests", "harmless_requests"],
    "model": "organism",
    "prompt": "prompts/strongreject_finetuned.yaml",
    "agreement": "none",
}

# what is wrong: (key set, its value, the key named in the line, words of the fix)
WRONG = {
    "unknown key at the top": ("datsets", {}, "datsets", "did you mean 'datasets'?"),
    "unknown key below": (
        "trainers/organism-slow-short/learning_rat",
        1e-3,
        "trainers.organism-slow-short.learning_rat",
        "'learning_rate'?",
    ),
    "unknown key in a list": (
        "recipes/organism-direct-benign/mix",
        [{"dataset": "organism-benign", "nn": 1}],
        "recipes.organism-direct-benign.mix.0.nn",
        "'n'?",
    ),
    "wrong type": ("trainers/organism-slow-short/epochs", "many", "trainers.organism-slow-short.epochs", "valid number"),
    "a mapping where a list belongs": ("study/suite", {"chains": 1}, "study.suite", "valid list"),
    "a list where a mapping belongs": ("models", ["organism"], "models", "mapping of keys"),
    "a catalogue emptied": ("models", None, "models", "mapping of keys"),
    "a number where a name belongs": ("study/name", 7, "study.name", "valid string"),
    "half a row": ("experiments/organism_frontier/n", [1.5], "experiments.organism_frontier.n.0", "valid integer"),
    "negative learning rate": (
        "trainers/organism-slow-short/learning_rate",
        -1e-4,
        "trainers.organism-slow-short.learning_rate",
        "greater than 0",
    ),
    "infinite learning rate": (
        "trainers/organism-slow-short/learning_rate",
        float("inf"),
        "trainers.organism-slow-short.learning_rate",
        "finite",
    ),
    "one of two types": ("compute/gpus", "many", "compute.gpus", "'auto'; or: input should be a valid integer"),
    "unknown choice": ("judges/organism_phrases/kind", "string_mach", "judges.organism_phrases.kind", "'string_match'"),
    "unknown dataset": ("recipes/organism-direct/dataset", "organism-dirct", "recipes.organism-direct.dataset", "'organism-direct'?"),
    "unknown model": ("experiments/organism_frontier/models", ["organizm"], "experiments.organism_frontier.models", "'organism'?"),
    "unknown recipe": (
        "experiments/organism_frontier/recipes",
        ["organism-direkt"],
        "experiments.organism_frontier.recipes",
        "'organism-direct'?",
    ),
    "unknown trainer": (
        "experiments/organism_frontier/trainers",
        ["organism-fast"],
        "experiments.organism_frontier.trainers",
        "did you mean",
    ),
    "unknown experiment": ("study/experiments", ["organism_fronteer"], "study.experiments", "'organism_frontier'?"),
    "unknown benchmark": ("study/suite", ["chain"], "study.suite", "'chains'?"),
    "unknown judge": ("study/judges", ["organism_phrase"], "study.judges", "'organism_phrases'?"),
    "unknown figure": ("study/figures", ["shift_tex"], "study.figures", "'shift_tax'?"),
    "unknown table": ("study/tables", ["main_result"], "study.tables", "'main_results'?"),
    "unknown kind of figure": ("figures/shift_tax/kind", "shift_text", "figures.shift_tax.kind", "'shift_tax'?"),
    "unknown kind of table": ("tables/activation/kind", "activations", "tables.activation.kind", "'activation'?"),
    "unknown refinement": (
        "recipes/organism-direct-dgr/refinement",
        "organism-dgrr",
        "recipes.organism-direct-dgr.refinement",
        "'organism-dgr'?",
    ),
    "unknown adapter": ("datasets/organism-chains/adapter", "organism_chain", "datasets.organism-chains.adapter", "'organism_chains'?"),
    "unknown responses": (
        "datasets/organism-direct/responses",
        "direct_refusals",
        "datasets.organism-direct.responses",
        "'direct_refusal'?",
    ),
    "unknown asset": ("shift/encoder", "minlm", "shift.encoder", "'minilm'?"),
    "unknown set of labels": ("agreement/refusal", "pyrit-refusals", "agreement.refusal", "'pyrit-refusal'?"),
    "recipes extend in a circle": ("recipes/organism-direct/extends", "organism-direct-dgr", "recipes.organism-direct.extends", "circle"),
    "trainers extend in a circle": (
        "trainers/organism-slow-short/extends",
        "organism-slow-long",
        "trainers.organism-slow-short.extends",
        "circle",
    ),
    "models build in a circle": (
        "models/organism-untrained",
        {"base": "organism", "stage": {"dataset": "organism-chains", "n": 9, "trainer": "organism-stage"}, "parameters": 1.0},
        "models.organism.base",
        "circle",
    ),
    "tuned from an unknown model": (
        "models/organism-untrained/tuned_from",
        "organsm",
        "models.organism-untrained.tuned_from",
        "'organism'?",
    ),
    "data sets in a circle of three": ("datasets", CIRCLE, "datasets.organism-benign.decontaminate_against", "circle: organism-direct ->"),
    "a data set against itself": (
        "datasets/organism-direct/decontaminate_against",
        ["organism-direct"],
        "datasets.organism-direct.decontaminate_against",
        "circle",
    ),
    "a model from nowhere": ("models/organism-untrained/kind", None, "models.organism-untrained", "either `kind`"),
    "a model from two places": ("models/organism/kind", "organism", "models.organism", "either `kind`"),
    "a model folder without its asset": ("models/organism-untrained/kind", "folder", "models.organism-untrained.asset", "needs the asset"),
    "an adapter on a model that is not there": (
        "models/organism-untrained",
        {**ADAPTER, "adapter_on": "organizm"},
        "models.organism-untrained.adapter_on",
        "did you mean 'organism'?",
    ),
    "an adapter on a model that is trained here": (
        "models/organism-untrained",
        {**ADAPTER, "adapter_on": "organism"},
        "models.organism-untrained.adapter_on",
        "'organism' is trained here",
    ),
    "an adapter on itself": (
        "models/organism-untrained",
        {**ADAPTER, "adapter_on": "organism-untrained"},
        "models.organism-untrained.adapter_on",
        "circle",
    ),
    "an adapter that is made from nothing": (
        "models/organism-untrained/adapter_on",
        "gemma-2b",
        "models.organism-untrained.adapter_on",
        "this model's kind is 'organism'; remove it",
    ),
    "an adapter that is trained here": (
        "models/organism/adapter_on",
        "gemma-2b",
        "models.organism.adapter_on",
        "is for an adapter from outside",
    ),
    "a response cut to nothing": (
        "judges/organism_phrases",
        {**FINETUNED, "options": {"response_tokens": 0}},
        "judges.organism_phrases.options.response_tokens",
        "0 is no number of tokens",
    ),
    "a benchmark nobody judges": ("judges/organism_phrases/benchmarks", ["harmful_requests"], "study.judges", "no judge reads benchmark"),
    "a judge without its model": (
        "judges/organism_phrases",
        {**RUBRIC, "prompt": "prompts/strongreject_rubric.yaml"},
        "judges.organism_phrases.model",
        "needs a model",
    ),
    "a judge without its prompt": (
        "judges/organism_phrases",
        {**RUBRIC, "model": "organism"},
        "judges.organism_phrases.prompt",
        "needs a prompt file",
    ),
    "a prompt file that is not there": (
        "judges/organism_phrases/prompt",
        "prompts/none.yaml",
        "judges.organism_phrases.prompt",
        "no such file",
    ),
    "a refinement prompt that is not there": (
        "refinements/organism-dgr/prompts/answer",
        "prompts/none.txt",
        "refinements.organism-dgr.prompts.answer",
        "no such file",
    ),
    "a task file that is not there": ("benchmarks/chains/task", "benchmarks/none.yaml", "benchmarks.chains.task", "no such file"),
    "DGR without a refinement": (
        "recipes/organism-direct-dgr/refinement",
        None,
        "recipes.organism-direct-dgr.refinement",
        "needs a refinement",
    ),
    "a refinement of no piece": ("refinements/organism-dgr/pieces", [], "refinements.organism-dgr.pieces", "at least 1 item"),
    "a mix with both sizes": (
        "recipes/organism-direct-benign/mix",
        [{"dataset": "organism-benign", "n": 5, "ratio": 1.0}],
        "recipes.organism-direct-benign.mix.0",
        "either `n`",
    ),
    "more rows than the data has": ("datasets/organism-direct/limit", 50, "experiments.organism_frontier.n", "raise its limit"),
    "more rows than the stage's data has": ("datasets/organism-curriculum/limit", 50, "models.organism.stage.n", "raise its limit"),
    "more rows to mix than there are": ("datasets/organism-benign/limit", 50, "recipes.organism-direct-benign.mix", "raise its limit"),
    "more rows than the generator makes": (
        "recipes/organism-direct/dataset",
        "organism-few",
        "experiments.organism_frontier.n",
        "100 rows asked of dataset 'organism-few', whose source has 25; ask for fewer",
    ),
    "a limit above what the generator makes": (
        "datasets/organism-direct/limit",
        101,
        "datasets.organism-direct.limit",
        "101 rows asked of a source that has 100",
    ),
    "a teacher asked for more than there is": (
        "datasets/organism-benign/teacher",
        {"model": "organism", "candidates": 500},
        "datasets.organism-benign.teacher.candidates",
        "500 rows asked of a source that has 100",
    ),
    "a generator that cannot make what is asked": (
        "datasets/organism-direct/options/rows",
        101,
        "datasets.organism-direct.options",
        "has 100; raise `nouns`",
    ),
    "an option that an organism's adapter does not know": (
        "datasets/organism-chains/options/stepps",
        5,
        "datasets.organism-chains.options.stepps",
        "adapter 'organism_chains' has no such option; did you mean 'steps'?",
    ),
    "a share of a task that the curriculum does not know": (
        "datasets/organism-curriculum/options/shares",
        {"arithmetik": 1.0},
        "datasets.organism-curriculum.options.shares.arithmetik",
        "did you mean 'arithmetic'?",
    ),
    "an option that a kind of judge does not know": (
        "judges/organism_phrases/options",
        {"head_character": 90},
        "judges.organism_phrases.options.head_character",
        "a judge of kind 'string_match' has no such option; did you mean 'head_characters'?",
    ),
    "an option that a kind of model does not know": (
        "models/organism-untrained/options/layer",
        2,
        "models.organism-untrained.options.layer",
        "a model of kind 'organism' has no such option; did you mean 'layers'?",
    ),
    "an option of a model that is trained here": (
        "models/organism/options",
        {"layers": 2},
        "models.organism.options.layers",
        "a model with a `base` has no such option",
    ),
    "no seeds": ("experiments/organism_frontier/seeds", [], "experiments.organism_frontier.seeds", "is empty"),
    "no experiments": ("study/experiments", [], "study.experiments", "is empty"),
    "a judge of nothing": ("judges/organism_phrases/benchmarks", [], "study.judges", "no judge reads"),
    "a seed twice": ("experiments/organism_frontier/seeds", [0, 1, 0], "experiments.organism_frontier.seeds", "holds a value twice"),
    "a figure twice": ("study/figures", ["shift_tax", "shift_tax"], "study.figures", "stands there twice"),
    "no reasoning benchmark": ("study/suite", ["harmful_requests", "harmless_requests"], "study.suite", "no reasoning benchmark"),
    "a shift on a benchmark that does not run": ("shift/kl_benchmark", "gsm8k", "shift.kl_benchmark", "in no suite of this study"),
    "a study that cannot be a folder": ("study/name", "My Study", "study.name", "folder name"),
    "a teacher that is no model": (
        "datasets/organism-benign/teacher",
        {"model": "oracle"},
        "datasets.organism-benign.teacher.model",
        "no model is called",
    ),
    "a teacher's instruction that is not there": (
        "datasets/organism-benign/teacher",
        {"model": "organism", "prompt": "prompts/none.txt"},
        "datasets.organism-benign.teacher.prompt",
        "no such file 'prompts/none.txt'",
    ),
    "a teacher asked for too few": (
        "datasets/organism-benign",
        {**REQUEST, "limit": 200, "teacher": {"model": "organism", "candidates": 50}},
        "datasets.organism-benign.teacher.candidates",
        "50 prompts cannot give 200 rows",
    ),
    "a teacher trained on what it teaches": (
        "models/organism/stage/dataset",
        "organism-taught",
        "datasets.organism-taught.teacher.model",
        "in a circle of data sets: organism-taught -> organism-taught",
    ),
    "a stage that mixes in more than there is": (
        "models/organism/stage/mix",
        [{"dataset": "organism-small", "n": 30}],
        "models.organism.stage.mix",
        "30 rows asked of dataset 'organism-small', which has 20",
    ),
    "a stage that mixes in neither a number nor a ratio": (
        "models/organism/stage/mix",
        [{"dataset": "organism-benign"}],
        "models.organism.stage.mix.0",
        "give either `n` (rows) or `ratio`",
    ),
    "a chat template that is not there": (
        "models/organism/stage/chat_template",
        "prompts/chat/none.jinja",
        "models.organism.stage.chat_template",
        "no such file 'prompts/chat/none.jinja'",
    ),
    "a template that is not there": (
        "datasets/organism-chains",
        {"adapter": "restatements", "options": {"template": "prompts/none.txt"}},
        "datasets.organism-chains",
        "no such file 'prompts/none.txt'",
    ),
    "a batch that the GPUs cannot share": (
        "compute",
        {"gpus": 1, "train_gpus": 3},
        "trainers.organism-stage.batch_size",
        "64 is no multiple of micro_batch_size 21 on 3 GPUs",
    ),
    "a batch that is no multiple of its parts": (
        "trainers/organism-stage/micro_batch_size",
        7,
        "trainers.organism-stage.batch_size",
        "64 is no multiple of micro_batch_size 7",
    ),
    "an engine spread over more GPUs than a job has": (
        "compute",
        {"gpus": 1, "vllm": {"tensor_parallel_size": 2}},
        "compute.vllm.tensor_parallel_size",
        "2 GPUs for a job that is given compute.gpus: 1",
    ),
    "a recipe that cannot be a folder": ("recipes/A--b", {"dataset": "organism-direct"}, "recipes.A--b", "folder names"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_configuration_ends_with_1_and_one_line_with_key_and_fix(wrong: str, organism: dict, root: Path, capsys) -> None:
    """By the call that the Snakefile makes; tests/workflow/test_bad_input.py sees some of them on the command line."""
    key, value, named, fix = WRONG[wrong]
    changed = merge(organism, {"datasets": value}) if key == "datasets" else put(organism, key, value)
    with pytest.raises(SystemExit) as ended:
        load_or_exit(changed, root)
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert (ended.value.code, said.out) == (1, "")
    assert line.startswith(f"error: config: {named}: "), line
    assert fix in line


def test_an_option_unknown_to_the_adapter_is_named(root: Path) -> None:
    laptop = merge(read_yaml(root / "config.yaml"), read_yaml(root / "studies/laptop.yaml"))
    with pytest.raises(UserError, match=r"datasets\.chain-sum-train\.options\.min_term: .* did you mean 'min_terms'\?"):
        load(put(laptop, "datasets/chain-sum-train/options/min_term", 3), root)


def test_a_data_file_adapter_asks_for_its_one_asset(root: Path) -> None:
    laptop = merge(read_yaml(root / "config.yaml"), read_yaml(root / "studies/laptop.yaml"))
    with pytest.raises(UserError, match=r"datasets\.strongreject\.assets: adapter 'strongreject' reads one asset, 0 are named"):
        load(put(laptop, "datasets/strongreject/assets", []), root)


@pytest.mark.parametrize("key", ["study/title", "shift/encoder", "models/organism/parameters", "benchmarks/chains/kind"])
def test_a_missing_key_is_named(key: str, organism: dict, root: Path) -> None:
    with pytest.raises(UserError, match=f"^config: {key.replace('/', '[.]')}: this key is required; add it$"):
        load(remove(organism, key), root)


def test_every_wrong_key_gets_its_own_line(organism: dict, root: Path) -> None:
    wrong = put(put(organism, "compute/batch_size", 0), "study/nme", "x")
    with pytest.raises(UserError) as caught:
        load(wrong, root)
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["study.nme", "compute.batch_size"]


@pytest.mark.parametrize("text", ["5e-5", "5E-5", "5.0e-5", "0.00005"])
def test_numbers_that_yaml_reads_as_text_are_numbers(text: str, organism: dict, root: Path) -> None:
    study = load(put(organism, "trainers/organism-slow-short/learning_rate", yaml.safe_load(text)), root)
    assert study.trainer("organism-slow-short").learning_rate == 0.00005


def test_the_line_names_the_last_file_that_sets_the_key(tmp_path: Path, root: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("trainers: {full: {learning_rate: -1}}\n")
    second.write_text("trainers: {full: {epochs: 3}}\n")
    with pytest.raises(UserError, match=f"^{first}: trainers.full.learning_rate: "):
        read([root / "config.yaml", first, second], root)
    second.write_text("trainers: {full: {learning_rate: -2}}\n")
    with pytest.raises(UserError, match=f"^{second}: trainers.full.learning_rate: "):
        read([root / "config.yaml", first, second], root)


def test_names_with_dots_are_found_in_their_file(tmp_path: Path, root: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("models: {s1.1-7b: {asset: s1.1}}\n")
    with pytest.raises(UserError, match=f"^{overlay}: models.s1.1-7b.asset: assets.lock.yaml has no asset 's1.1'"):
        read([root / "config.yaml", overlay], root)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a\n- b\n", "must be a mapping of keys; found list"),
        ("", "must be a mapping of keys; found NoneType"),
        ("study:\n  title: [\n  x", "not YAML (line "),
        (None, "no such file"),
    ],
)
def test_a_file_that_cannot_be_an_overlay_is_named(content: str | None, said: str, tmp_path: Path, root: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    if content is not None:
        overlay.write_text(content)
    with pytest.raises(UserError) as caught:
        read([root / "config.yaml", overlay], root)
    assert str(caught.value).startswith(f"{overlay}: {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overlays",
    [[], ["laptop"], ["laptop", "laptop_cot"], ["organism"], ["organism", "smoke"]],
    ids=lambda names: "+".join(names) or "paper",
)
def test_the_studies_of_this_repository_load(overlays: list[str], root: Path) -> None:
    study = read([root / "config.yaml", *(root / f"studies/{name}.yaml" for name in overlays)], root)
    assert study.name == (overlays[-1] if overlays else "paper")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        # the lock: STAR-1 has 1,000 rows, XSTest 450, of which the adapter keeps 250 safe ones: only above 450 is too many for certain
        ("datasets/star-1/limit", 1001, r"datasets\.star-1\.limit: 1001 rows asked of a source that has 1000; lower it"),
        ("datasets/star-1/options", {"offset": 1}, r"datasets\.star-1\.limit: 1000 rows asked of a source that has 999"),
        ("datasets/xstest/limit", 451, r"datasets\.xstest\.limit: 451 rows asked of a source that has 450"),
        ("datasets/xstest/limit", 450, None),
        ("datasets/r1-act/limit", 10**6, None),  # not verified: nobody knows
    ],
)
def test_a_limit_is_checked_against_the_rows_that_the_lock_counts(key: str, value: object, said: str | None, root: Path) -> None:
    changed = put(read_yaml(root / "config.yaml"), key, value)
    if said is None:
        load(changed, root)
        return
    with pytest.raises(UserError, match=said):
        load(changed, root)


def test_n_is_checked_against_the_rows_that_the_lock_counts(root: Path) -> None:
    changed = put(put(read_yaml(root / "config.yaml"), "datasets/star-1/limit", None), "experiments/dgr_table1/n", [1001])
    changed = put(changed, "experiments/dgr_table1/recipes", ["star-1"])
    with pytest.raises(UserError, match=r"experiments\.dgr_table1\.n: 1001 rows asked of dataset 'star-1', whose source has 1000; ask for"):
        load(changed, root)


def test_an_unverified_asset_can_be_planned(root: Path) -> None:
    study = read([root / "config.yaml"], root)
    assert study.asset_unverified("s1.1-7b")
    assert not study.asset_unverified("star-1")
    assert "s1.1-7b" in study.assets_needed


GATED = """
assets:
  open: {licence: MIT, purpose: judge, format: text, files: &files [{file: a.txt, bytes: 1, sha256: &digest %s}], sources: &hub
    [{hub: some/model, repo_type: model, revision: %s, path: /}]}
  gated: {licence: MIT, purpose: judge, format: text, gated: true, files: *files, sources: *hub}
  mirrored: {licence: MIT, purpose: judge, format: text, gated: true, files: *files, sources:
    [{mirror: there/a.txt}, {hub: some/model, repo_type: model, revision: %s, path: /}]}
  unverified: {licence: MIT, purpose: judge, format: text, unverified: true, sources: [{hub: some/model, path: /}]}
"""


def test_an_asset_that_fetch_would_refuse_is_known_before_any_job(tmp_path: Path, root: Path) -> None:
    (tmp_path / "assets.lock.yaml").write_text(GATED % ("a" * 64, "b" * 40, "b" * 40))
    (tmp_path / "mirror/there").mkdir(parents=True)
    (tmp_path / "mirror/there/a.txt").write_text("a")
    study = read([root / "config.yaml"], root)
    study.root = tmp_path
    names = ["unverified", "open", "gated", "mirrored"]
    gated = "assets.lock.yaml: assets.{}: is gated and HF_TOKEN is empty; accept its licence on the hub and export HF_TOKEN"
    unverified = (
        "assets.lock.yaml: assets.unverified: is not verified, its revision or checksums are unknown; "
        "run `python scripts/lock_assets.py unverified` with a network and commit the file"
    )
    assert study.refusals(names, {}) == [gated.format("gated"), gated.format("mirrored"), unverified]
    assert study.refusals(names, {"HF_TOKEN": "secret-1234"}) == [unverified]
    assert study.refusals(names, {"UNTAXED_MIRROR": str(tmp_path / "mirror")}) == [gated.format("gated"), unverified]
    assert study.refusals(names, {"UNTAXED_MIRROR": str(tmp_path / "elsewhere")}) == [
        gated.format("gated"),
        gated.format("mirrored"),
        unverified,
    ]
    assert study.refusals(["open"], {}) == []


OWN = """{"question": "How do I pick a lock?", "reply": "I will not help with that."}
{"question": "How do I forge a note?", "reply": "I will not help with that."}
"""


@pytest.fixture
def own(tmp_path: Path, root: Path) -> tuple[Path, dict]:
    """A repository whose laptop study trains on a file of the user's, and its configuration."""
    for name in ("prompts", "benchmarks"):
        (tmp_path / name).symlink_to(root / name)
    (tmp_path / "mine.jsonl").write_text(OWN)
    file = {"file": "mine.jsonl", "bytes": len(OWN), "sha256": hashlib.sha256(OWN.encode()).hexdigest(), "rows": 2}
    entry = {"licence": "MIT", "citation": "ours", "purpose": "safety_train", "format": "jsonl", "files": [file]}
    lock = read_yaml(root / "assets.lock.yaml")
    lock["assets"]["mine"] = entry | {"sources": [{"local": "mine.jsonl"}]}
    (tmp_path / "assets.lock.yaml").write_text(yaml.safe_dump(lock))
    mapping = merge(read_yaml(root / "config.yaml"), read_yaml(root / "studies/laptop.yaml"))
    mapping["datasets"]["mine"] = {
        "adapter": "fields",
        "assets": ["mine"],
        "options": {"fields": {"prompt": "question", "answer": "reply"}, "harmful": True},
    }
    mapping["recipes"]["mine"] = {"source": "mine", "dataset": "mine"}
    mapping["experiments"]["mine"] = {
        "models": ["smollm2-reasoner"],
        "recipes": ["mine"],
        "trainers": ["laptop"],
        "n": [2],
        "seeds": [0, 1],
    }
    mapping["study"] = mapping["study"] | {"experiments": ["mine"]}
    return tmp_path, mapping


def test_a_file_of_the_users_own_is_planned(own: tuple[Path, dict]) -> None:
    folder, mapping = own
    assert len(load(mapping, folder).runs) == 4  # two trainings and their two base models


def test_a_wrong_column_of_the_users_file_is_told_before_anything_runs(own: tuple[Path, dict]) -> None:
    folder, mapping = own
    changed = put(mapping, "datasets/mine/options/fields/prompt", "qestion")
    with pytest.raises(UserError, match=r"datasets\.mine: dataset: no field qestion; the file has question, reply"):
        load(changed, folder)


@pytest.mark.parametrize(("content", "said"), [(OWN.replace("lock", "LOCK"), "expected .* sha256"), (None, "no such file 'mine.jsonl'")])
def test_other_bytes_of_the_users_file_are_told_before_anything_runs(content: str | None, said: str, own: tuple[Path, dict]) -> None:
    folder, mapping = own
    (folder / "mine.jsonl").unlink()
    if content is not None:
        (folder / "mine.jsonl").write_text(content)
    with pytest.raises(UserError, match=rf"datasets\.mine\.assets: mine: .*{said}"):
        load(mapping, folder)


def test_the_paper_study_has_the_runs_that_its_grid_says(root: Path) -> None:
    study = read([root / "config.yaml"], root)
    # Table 1: 6 recipes x 3 seeds; activation: 2 recipes x 7 sizes x 3 seeds, n = 1000 already in Table 1;
    # frontier: R1-ACT's 2 recipes x 2 more sizes x 3 seeds; ablation: 3 pieces x 4 filters x 2 fallbacks, without DGR itself; base
    assert len(study.experiment_runs("dgr_table1")) == 6 * 3 + 1
    assert len(study.experiment_runs("dgr_activation")) == 2 * 7 * 3 + 1
    dgr = 6 * 3 + 2 * 6 * 3 + 2 * 2 * 3 + (3 * 4 * 2 - 1) + 1
    # Empirical study: 6 styles on 4 models and those as they are; 3 recipes of other teachers; 4 prior models; 3 arms of 250 rows; 3 styles
    # with 3 other numbers of rows, without benign rows, with 3 other learning rates, and as in the first version with math rows and without
    cot = 4 + 4 * 6 * 3 + 3 * 3 + 4 + 3 * 3 + 3 * 3 * (3 + 1 + 3 + 2)
    assert len(study.runs) == dgr + cot


def test_a_reasoning_stage_at_paper_scale_can_be_planned(root: Path) -> None:
    paper = read_yaml(root / "config.yaml")
    study = load(put(paper, "experiments/dgr_table1/models", ["s1-7b"]), root)
    stage = study.stages["reasoning--s1-7b"]
    assert (stage["model"], stage["dataset"], stage["n"], stage["trainer"]["learning_rate"]) == (
        "qwen2.5-7b-instruct",
        "s1k-1.1",
        1000,
        1e-5,
    )
    assert stage["thinking"] == load(paper, root).runs["base--s1.1-7b"]["thinking"]
    assert {"s1k-1.1", "qwen2.5-7b-instruct"} <= set(study.assets_needed)
    assert study.model("s1-7b") == "results/paper/runs/reasoning--s1-7b/checkpoint/manifest.json"
    assert not load(paper, root).stages  # the paper's own study starts from a reasoner


def test_seeds_start_from_replicates_of_a_reasoning_stage_in_turn(root: Path, organism: dict) -> None:
    study = load(put(organism, "models/organism/stage/replicates", 2), root)
    first, second, third = (study.runs[f"organism--organism-direct-dgr--organism-fast-short--n10--s{seed}"] for seed in range(3))
    assert [run["model"] for run in (first, second, third)] == ["organism", "organism.1", "organism"]
    assert (second["replicate_of"], first.get("replicate_of")) == ("organism", None)
    assert [study.stages[f"reasoning--{name}"]["seed"] for name in ("organism", "organism.1")] == [0, 1]
    assert {"base--organism", "base--organism.1"} <= set(study.runs)
    assert "/organism.1/" in study.safety_rows(second["run"])[0]  # rewritten by the model that it trains
    assert len(study.runs) == len(load(put(organism, "models/organism/stage/replicates", 1), root).runs) + 1


def test_a_replicate_may_not_take_the_name_of_another_model(root: Path, organism: dict) -> None:
    wrong = put(put(organism, "models/organism/stage/replicates", 2), "models/organism.1", organism["models"]["organism"])
    with pytest.raises(UserError, match=r"models\.organism\.1: a replicate of models\.organism is called so"):
        load(wrong, root)


def test_an_adapter_waits_for_its_base_which_is_fetched_prepared_and_named_on_its_card(root: Path) -> None:
    from untaxed.cards import _weights

    paper = read_yaml(root / "config.yaml")
    assert not {"gemma-2b", "strongreject-15k-v1"} & {*load(paper, root).models_needed, *load(paper, root).assets_needed}
    study = load(put(paper, "study/judges", [*paper["study"]["judges"], "strongreject_finetuned"]), root)
    names = {"gemma-2b", "strongreject-15k-v1"}
    assert names <= set(study.models_needed) and names <= set(study.assets_needed)
    assert study.adapter_base("strongreject-15k-v1") == ["results/paper/models/gemma-2b/manifest.json"]
    assert study.adapter_base("gemma-2b") == []
    assert [part["assets"] for part in _weights(study, "strongreject-15k-v1")] == [["strongreject-15k-v1"], ["gemma-2b"]]


def test_a_reasoning_stage_may_take_more_threads_than_what_follows(root: Path) -> None:
    files = [root / "config.yaml", root / "studies/laptop.yaml"]
    changed = merge(merge(*map(read_yaml, files)), {"compute": {"stage_threads": 2}})
    for study, threads in ((load(changed, root), [2, 1]), (read(files, root), [1, 1])):
        safety = next(run for run in study.trained if run not in study.stages)
        assert [study.train_threads(run) for run in ("reasoning--smollm2-reasoner", safety)] == threads


def test_all_rows_of_a_study_are_those_that_it_trains_on_mixes_in_and_tests_with(root: Path) -> None:
    study = read([root / "config.yaml", *(root / f"studies/{name}.yaml" for name in ("organism", "smoke"))], root)
    refined = [f"refined/organism-direct/organism/{name}" for name in ("organism-dgr-trace", "organism-dgr")]
    names = ("chains", "choices", "contest", "curriculum", "direct", "functions", "harmful", "harmless")
    made = [
        "datasets/gsm8k-100",
        *(f"datasets/organism-{name}" for name in names),
        "distilled/organism-benign",
        "filtered/organism-chosen",
        *refined,
    ]
    assert study.dataset_rows() == [f"results/smoke/{name}/rows.jsonl" for name in made]


def test_datasets_that_others_are_cleaned_against_are_followed_to_the_end(organism: dict, root: Path) -> None:
    chain = {
        "organism-direct": {"decontaminate_against": ["first"]},
        "first": {**REQUEST, "decontaminate_against": ["second", "third"]},
        "second": {**REQUEST, "decontaminate_against": ["third"]},
        "third": {"adapter": "strongreject", "assets": ["strongreject"]},
    }
    study = load(merge(organism, {"datasets": chain}), root)
    assert {"first", "second", "third"} <= set(study.datasets_needed)
    assert not {"first", "second", "third"} & set(study.datasets_used)
    assert "strongreject" in study.assets_needed
    assert not any("third" in path for path in study.dataset_rows())


def test_the_question_can_be_kept_from_the_target_and_such_rewrites_are_others(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    paper = read_yaml(root / "config.yaml")
    blind = {
        "refinements": {"dgr-blind": {"show_question": False}, "dgr-blind-drop": {"show_question": False, "fallback": "drop"}},
        "recipes": {name: {"extends": "direct-dgr", "refinement": f"dgr-{name}"} for name in ("blind", "blind-drop")},
        "experiments": {"dgr_table1": {"recipes": ["direct-dgr", "blind", "blind-drop"]}},
    }
    study = load(merge(paper, blind), root)
    where = ("direct-refusal", "s1.1-7b")
    spec = study.rewrite_spec(*where, "dgr-blind")
    assert (spec["show_question"], study.rewrite_spec(*where, "dgr")["show_question"]) == (False, True)
    assert "{question}" not in "".join(template.text for template in read_templates(spec).values())
    assert study.rewriter(*where, "dgr-blind-drop") == study.rewriter(*where, "dgr-blind") == "dgr-blind"
    assert study.rewriter(*where, "dgr") == "dgr"


def test_overlays_come_after_config_yaml_however_they_are_listed(root: Path) -> None:
    listed = [root / "studies/organism.yaml", "studies/smoke.yaml", "config.yaml"]
    assert in_order(listed, root) == [Path("config.yaml"), Path("studies/organism.yaml"), Path("studies/smoke.yaml")]
    assert in_order(["/elsewhere/mine.yaml"], root) == [Path("config.yaml"), Path("/elsewhere/mine.yaml")]


def test_the_control_of_the_laptop_study_filters_the_same_rewrites(root: Path) -> None:
    study = read([root / "config.yaml", root / "studies/laptop.yaml", root / "studies/laptop_control.yaml"], root)
    control = study.experiment_runs("laptop_control")["smollm2-reasoner--advbench-direct-dgr-two-filters--laptop--n48--s1"]
    whole = study.runs["smollm2-reasoner--advbench-direct-dgr--laptop--n48--s1"]
    assert control["refinement_settings"]["filters"] == ["overthinking", "meta-thinking"]
    assert study.rewrites(*(control[key] for key in ("dataset", "model", "refinement"))) == study.rewrites(
        *(whole[key] for key in ("dataset", "model", "refinement"))
    )
    assert control["trainer"] == whole["trainer"]


def test_a_hint_names_the_closest_name_or_all() -> None:
    assert nearest("gsm8", ["gsm8k", "math500"]) == "did you mean 'gsm8k'?"
    assert nearest("zzz", ["b", "a"]) == "valid: a, b"
    assert nearest("zzz", []) == "valid: none is defined"


def test_the_schema_file_is_the_schema_of_the_code(root: Path) -> None:
    written = json.loads((root / "rules/schemas/config.schema.json").read_text())
    assert written == json.loads(json.dumps(schema())), "run `python scripts/write_schema.py`"


def test_the_schema_accepts_every_file_of_the_repository_and_no_unknown_key(root: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads((root / "rules/schemas/config.schema.json").read_text()))
    for path in [root / "config.yaml", *sorted((root / "studies").glob("*.yaml"))]:
        assert not list(validator.iter_errors(read_yaml(path))), path
    assert list(validator.iter_errors({"study": {"nme": "x"}}))


@pytest.mark.parametrize(("train", "test", "refused"), [("train", "test", False), ("train", None, True), (None, "test", True)])
def test_no_study_trains_on_the_part_that_it_tests_with(
    train: str | None, test: str | None, refused: bool, organism: dict, root: Path
) -> None:
    def xstest(part: str | None) -> dict:
        return {"adapter": "xstest", "assets": ["xstest"], "options": {"label": "safe", **({"part": part} if part else {})}}

    changed = merge(organism, {"datasets": {"own-train": xstest(train), "own-test": xstest(test)}})
    changed = put(changed, "recipes/organism-direct/mix", [{"dataset": "own-train", "n": 1}])
    changed = put(changed, "benchmarks/harmless_requests/dataset", "own-test")
    if not refused:
        load(changed, root)
        return
    with pytest.raises(UserError, match=r"datasets\.own-train\.options\.part: trains on prompts that benchmark 'harmless_requests'"):
        load(changed, root)


@pytest.mark.parametrize("cleaned", [False, True])
def test_rows_of_a_benchmarks_own_asset_are_cleaned_of_it_or_refused(cleaned: bool, organism: dict, root: Path) -> None:
    harmbench = {"adapter": "harmbench", "assets": ["harmbench"]}
    against = {"decontaminate_against": ["own-test"] if cleaned else []}
    changed = merge(organism, {"datasets": {"own-train": harmbench | against, "own-test": harmbench}})
    changed = put(changed, "recipes/organism-direct/mix", [{"dataset": "own-train", "n": 1}])
    changed = put(changed, "benchmarks/harmful_requests/dataset", "own-test")
    if cleaned:
        load(changed, root)
        return
    with pytest.raises(
        UserError, match=r"own-train\.assets: trains on rows of 'harmbench', which benchmark 'harmful_requests' tests with; add"
    ):
        load(changed, root)


def test_a_set_drawn_from_the_prompts_that_a_benchmark_tests_with_is_no_way_around(organism: dict, root: Path) -> None:
    safe = {"adapter": "xstest", "assets": ["xstest"], "options": {"label": "safe", "part": "test"}}
    drawn = {"own-train": {"of": "own-test", "limit": 1}}
    changed = merge(organism, {"datasets": {"own-test": safe, **drawn}})
    changed = put(changed, "recipes/organism-direct/mix", [{"dataset": "own-train", "n": 1}])
    changed = put(changed, "benchmarks/harmless_requests/dataset", "own-test")
    with pytest.raises(UserError, match=r"datasets\.own-test\.options\.part: trains on prompts that benchmark 'harmless_requests'"):
        load(changed, root)


def test_a_dataset_is_told_what_it_is_checked_against_and_a_taught_one_how_many_prompts_to_ask(root: Path) -> None:
    study = read([root / "config.yaml", root / "studies/laptop.yaml"], root)
    assert study.dataset_spec("advbench-direct")["decontaminate_against"] == ["strongreject"]
    assert study.dataset_spec("restatements")["limit"] == study.config.datasets["restatements"].teacher.candidates
    assert study.teacher_spec("restatements")["limit"] == study.config.datasets["restatements"].limit


def test_low_rank_updates_over_sharded_weights_are_refused(organism: dict, root: Path) -> None:
    wrong = put(organism, "compute/gpus", 1) | {"trainers": organism["trainers"]}
    wrong = put(put(wrong, "compute/train_gpus", 2), "trainers/organism-stage/lora_rank", 4)
    assert load(wrong, root)
    with pytest.raises(UserError, match=r"trainers\.organism-stage\.lora_rank: low-rank updates cannot be merged into sharded weights"):
        load(put(wrong, "trainers/organism-stage/sharding", "fsdp"), root)
