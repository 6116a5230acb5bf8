"""Distillation: what becomes of a teacher's answer, that its rows keep their questions, and where teachers may be."""

import json
from pathlib import Path

import pytest
from untaxed.budget import Counter, distil_job
from untaxed.config import load, merge
from untaxed.distillation import REASONS, assemble, build_requests, open_check, read_answer, whole_sentences
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
        "reasons": dict.fromkeys(REASONS, 0) | {"ok": 1, "truncated": 1, "empty": 1},
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


# --- answers that are checked against the rows' targets


@pytest.fixture
def gsm8k_rows(mirror: Path) -> list[dict]:
    from untaxed.datasets import prepare

    return prepare({"adapter": "gsm8k", "options": {}, "limit": 60}, {"gsm8k-train": mirror / "gsm8k-train"})


def test_a_teachers_answers_to_real_problems_are_kept_where_they_are_right(gsm8k_rows):
    """A stand-in teacher: right in four wordings, wrong by one, without a number, or cut short."""
    check = open_check("math", gsm8k_rows, "math-4k")

    def answer(number: int, target: str) -> tuple[str, str]:
        wrong = str(int(target) + 1)
        return [
            ("ok", f"Together they are \\boxed{{{target}}}."),
            ("ok", f"The sum of 3 parts is **{int(target):,}**"),
            ("ok", f"So it is \\(\\boxed{{{target}.0}}\\) in all 9 weeks."),
            ("ok", f"\\boxed{{{wrong}}} is what I thought first, but it is \\boxed{{\\frac{{{2 * int(target)}}}{{2}}}}"),
            ("wrong", f"The answer is \\boxed{{{wrong}}}."),
            ("wrong", f"{target} is less than what is asked for: {wrong}"),
            ("unparseable", "That cannot be said."),
            ("unparseable", "\\boxed{}"),
            ("truncated", f"\\boxed{{{target}}} and"),
        ][number % 9]

    told = [answer(number, row["target"]) for number, row in enumerate(gsm8k_rows)]
    said_by = [
        said(f"<think>\nIs it {row['target']}?\n</think>\n\n{text}", "length" if reason == "truncated" else "stop", id=row["id"])
        for row, (reason, text) in zip(gsm8k_rows, told, strict=True)
    ]
    distilled, report = assemble(gsm8k_rows, said_by, THINK, "drop", check=check)
    reasons = [reason for reason, _ in told]
    assert {reason: count for reason, count in report["reasons"].items() if count} == {name: reasons.count(name) for name in set(reasons)}
    assert [row["id"] for row in distilled] == [row["id"] for row, reason in zip(gsm8k_rows, reasons, strict=True) if reason == "ok"]
    assert len(assemble(gsm8k_rows, said_by, THINK, "drop")[0]) == 60 - reasons.count("truncated")  # nothing is checked unless asked


def test_the_reference_solutions_of_real_problems_pass_their_own_check(gsm8k_rows):
    check = open_check("math", gsm8k_rows, "math-4k")
    assert {check(f"{row['reasoning']}\n#### {row['answer']}", row["target"]) for row in gsm8k_rows} == {"ok"}


def test_a_row_without_a_target_is_refused_before_anything_is_asked():
    rows = [{"id": "a", "prompt": "a?", "target": "4"}, {"id": "b", "prompt": "b?", "target": None}]
    with pytest.raises(UserError, match=r"^datasets\.few\.teacher\.check: row b has no target to check an answer against; remove the key"):
        open_check("math", rows, "few")
    assert open_check(None, rows, "few") is None


def test_a_check_is_told_to_the_teachers_command_and_the_graders_are_its_input(root):
    checked, plain = study(root, model="organism", check="math"), study(root, model="organism")
    assert checked.teacher_spec(TAUGHT) == plain.teacher_spec(TAUGHT) | {"check": "math"}
    assert (checked.teacher_graders(TAUGHT), plain.teacher_graders(TAUGHT)) == (["benchmarks/grading.py"], [])
    with pytest.raises(UserError, match=r"\.teacher\.check: 'maths' is not one of 'math'"):
        study(root, model="organism", check="maths")


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


def test_a_price_is_no_part_of_what_a_teacher_is_told(root):
    """Else a new price would ask everything again."""
    priced = study(root, engine={**API, "price": {"input": 0.5, "output": 2}})
    assert priced.teacher_spec(TAUGHT) == study(root, engine=API).teacher_spec(TAUGHT)


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
        (
            {"engine": {**API, "base_url": "https://api.example.org/v1"}},
            r"\.engine\.max_total_tokens: this key is required for a server that is not on this machine; give the most tokens",
        ),
        ({"engine": {**API, "price": {"input": 1}}}, r"\.engine\.price\.output: this key is required"),
        ({"model": "organism", "engine": {"price": {"input": 1, "output": 2}}}, r"\.engine\.price: is for a server"),
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
