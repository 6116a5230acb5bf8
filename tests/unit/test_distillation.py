"""Distillation: what becomes of a teacher's answer, and that its rows keep their questions."""

import pytest
from untaxed.distillation import assemble, build_requests, read_answer, whole_sentences
from untaxed.engine import Generation
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
        "reasons": {"ok": 1, "trimmed": 0, "truncated": 1, "unclosed": 0, "empty": 1},
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
