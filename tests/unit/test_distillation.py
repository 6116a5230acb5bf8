"""Distillation: what becomes of a teacher's answer, that its rows keep their questions, and where teachers may be."""

import json
from pathlib import Path

import pytest
from untaxed.budget import Counter, distil_job
from untaxed.config import load, merge
from untaxed.distillation import assemble, build_requests, read_answer, whole_sentences
from untaxed.engine import Generation
from untaxed.records import UserError, read_yaml
from untaxed.study import Study
from untaxed.thinking import ThinkingFormat

THINK = ThinkingFormat()


def said(text: str, finish: str = "stop", **more) -> Generation:
    return Generation(more.pop("id", "a"), text, [1] * 7, finish, 5, **more)


@pytest.mark.parametrize(
    ("generation", "thinking", "truncated", "expected"),
    [
        (said("Water boils at 100 °C."), None, "drop", ("ok", "", "Water boils at 100 °C.")),
        (said("<think>\nit is hot\n</think>\n\nYes."), THINK, "drop", ("ok", "it is hot", "Yes.")),
        (said("it is hot\n</think>\n\nYes.", opened=True), THINK, "drop", ("ok", "it is hot", "Yes.")),
        (said("<think>\nit is", "length"), THINK, "trim", ("truncated", "it is", "")),
        (said("<think>\nit is"), THINK, "trim", ("unclosed", "it is", "")),
        (said("One. Two", "length"), None, "drop", ("truncated", "", "One. Two")),
        (said("One. Two", "length"), None, "trim", ("trimmed", "", "One.")),
        (said("One two three", "length"), None, "trim", ("empty", "", "")),
        (said("<think>\nhm\n</think>\n\n"), THINK, "drop", ("empty", "hm", "")),
        (said("Plain."), THINK, "drop", ("ok", "", "Plain.")),
        (said("", "refused"), THINK, "trim", ("refused-by-api", "", "")),
        (said("", "empty"), THINK, "trim", ("empty", "", "")),
    ],
)
def test_a_teachers_answer_is_kept_trimmed_or_lost(generation, thinking, truncated, expected):
    assert read_answer(generation, thinking, truncated) == expected


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("A b. C d", "A b."),
        ('He said "no." Then', 'He said "no."'),
        ("3.14 is", ""),
        ("Done!", "Done!"),
        ("Ends here. Or (here.) x", "Ends here. Or (here.)"),
    ],
)
def test_a_cut_text_ends_with_its_last_whole_sentence(text, whole):
    assert whole_sentences(text) == whole


def test_rows_keep_their_questions_and_lose_what_the_teacher_could_not_answer():
    rows = [{"id": name, "prompt": f"{name}?", "reasoning": "old", "answer": "old", "harmful": False} for name in "abc"]
    answers = [said("Yes.", id="a"), said("No", "length", id="b"), said("", id="c")]
    distilled, report = assemble(rows, answers, None, "drop")
    assert distilled == [{"id": "a", "prompt": "a?", "reasoning": "", "answer": "Yes.", "harmful": False}]
    assert report == {
        "rows": 3,
        "kept": 1,
        "reasons": {"ok": 1, "trimmed": 0, "refused-by-api": 0, "truncated": 1, "unclosed": 0, "empty": 1, "no-trace": 0},
        "tokens": {"prompt": 15, "generated": 21},
    }
    assert [(r.id, r.messages[0]["content"], r.seed) for r in build_requests(rows, 4)][:1] == [("a", "a?", 4)]


def test_an_instruction_stands_in_the_request_and_never_in_the_row():
    rows = [{"id": "a", "prompt": "a?", "reasoning": "", "answer": "", "harmful": True}]
    ask = {"role": "user", "content": "a?"}
    assert build_requests(rows)[0].messages == build_requests(rows, delivery="system")[0].messages == [ask]
    assert build_requests(rows, 0, "Be kind.")[0].messages == [{"role": "user", "content": "Be kind.\n\na?"}]
    assert build_requests(rows, 0, "Be kind.", "system")[0].messages == [{"role": "system", "content": "Be kind."}, ask]
    own = ThinkingFormat("<|im_start|>think\n", "\n<|im_start|>answer\n")
    distilled, _ = assemble(rows, [said("<|im_start|>think\nhm\n<|im_start|>answer\nNo.")], own, "drop")
    assert distilled == [{**rows[0], "reasoning": "hm", "answer": "No."}]


# --- where a teacher is

API = {"backend": "openai", "base_url": "http://127.0.0.1:9/v1", "model": "teacher-1", "api_key_env": "UNTAXED_TEST_KEY"}
TAUGHT = "organism-benign"


def study(root: Path, **teacher) -> Study:
    """The organism's study, whose harmless requests a teacher answers."""
    organism = merge(read_yaml(root / "config.yaml"), read_yaml(root / "studies/organism.yaml"))
    return load(merge(organism, {"datasets": {TAUGHT: {"teacher": teacher}}}), root)


def test_a_teacher_at_a_server_is_no_model_of_the_study_and_asks_for_no_machine(root):
    limits = {"requests_per_minute": 60, "tokens_per_minute": 90_000, "max_total_tokens": 2_000_000}
    found = study(root, engine={**API, **limits})
    spec = found.teacher_spec(TAUGHT)
    assert spec["engine"] == {**API, **limits}
    assert spec["thinking"] == {"open": "<think>\n", "close": "\n</think>\n\n"}  # the trace that a server hands over is put between these
    assert (found.teacher_models(TAUGHT), found.teacher_threads(TAUGHT)) == ([], 1)
    assert found.models_needed == study(root, model="organism").models_needed
    assert found.served_keys() == {f"datasets.{TAUGHT}.teacher.engine.api_key_env": "UNTAXED_TEST_KEY"}
    assert distil_job(found, Counter(found), TAUGHT).generate == 0


def test_a_teacher_of_the_study_is_asked_as_the_study_says_or_through_a_server_of_the_job(root):
    plain, served = study(root, model="organism"), study(root, model="organism", engine={"backend": "serve", "concurrency": 4})
    assert plain.teacher_spec(TAUGHT)["engine"] == plain.engine_spec("organism")
    assert served.teacher_spec(TAUGHT)["engine"] == plain.engine_spec("organism") | {"backend": "serve", "concurrency": 4}
    assert served.teacher_models(TAUGHT) == plain.teacher_models(TAUGHT) == [plain.model("organism")]
    assert distil_job(plain, Counter(plain), TAUGHT).generate > 0
    # what an entry without `engine` is told stays as it was, to the byte, or every distillation would run again
    assert list(json.loads(json.dumps(plain.teacher_spec(TAUGHT)))) == [
        "prompt", "delivery", "sampling", "truncated", "seed", "dataset", "limit", "thinking", "engine",
    ]  # fmt: skip


def without(*keys: str) -> dict:
    return {key: value for key, value in API.items() if key not in keys}


@pytest.mark.parametrize(
    ("teacher", "message"),
    [
        ({}, r"\.model: a teacher needs a model of this study \(.*\), or `engine\.model` at a server"),
        ({"model": "organism", "engine": API}, r"\.model: is for a model that runs here"),
        ({"engine": without("base_url")}, r"\.engine\.base_url: this key is required"),
        ({"engine": {**API, "dtype": "float32"}}, r"\.engine\.dtype: is for a model that runs here"),
        ({"engine": {**API, "start_timeout_s": 9}}, r"\.engine\.start_timeout_s: is for a model that runs here"),
        (
            {"model": "organism", "engine": {"max_total_tokens": 9}},
            r"\.engine\.max_total_tokens: is for a server; set `engine\.backend: openai`",
        ),
        (
            {"model": "organism", "engine": {"start_timeout_s": 9}},
            r"\.engine\.start_timeout_s: is for a server; set `engine\.backend: serve`",
        ),
        (
            {"model": "organism", "engine": {"backend": "serve", "api_key_env": "A"}},
            r"\.engine\.api_key_env: is for a server that is there already",
        ),
        ({"engine": {"backend": "serve"}}, r"\.model: a teacher needs a model of this study"),
        (
            {"engine": {**API, "max_total_tokens": 1024}},
            r"\.engine\.max_total_tokens: 1024 tokens do not hold one answer .*: 1024; raise it",
        ),
        ({"engine": {**API, "requests_per_minute": 0}}, r"\.engine\.requests_per_minute: input should be greater than or equal to 1"),
        ({"engine": {**API, "request_per_minute": 9}}, r"\.engine\.request_per_minute: unknown key; did you mean 'requests_per_minute'"),
        ({"engine": {**API, "api_key_env": "sk-secret-1"}}, r"\.engine\.api_key_env: is no name of an environment variable"),
    ],
)
def test_a_teacher_has_a_model_or_a_server_and_nothing_that_it_cannot_use(root, teacher, message):
    with pytest.raises(UserError, match=rf"datasets\.{TAUGHT}\.teacher{message}") as error:
        study(root, **teacher)
    assert len(str(error.value).splitlines()) == 1 and "secret" not in str(error.value)


@pytest.mark.parametrize(("text", "reason"), [("<think>\nhm\n</think>\n\nNo.", "ok"), ("No.", "no-trace"), ("", "empty")])
def test_where_a_trace_is_wanted_an_answer_without_one_is_no_row(text, reason):
    generation = Generation("a", text, [1], "stop", 1)
    assert read_answer(generation, ThinkingFormat(), "drop", needs_trace=True)[0] == reason
    assert read_answer(generation, ThinkingFormat(), "drop")[0] == ("empty" if reason == "empty" else "ok")
