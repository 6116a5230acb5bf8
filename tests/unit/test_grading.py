"""Facts about the graders that task files call."""

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from untaxed import sandbox
from untaxed.datasets import prepare

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import grading

LIMITS = sandbox.Limits(seconds=2.0)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"so \boxed{4}.", "4"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{x^{2^{n}}} and then", "x^{2^{n}}"),
        (r"first \boxed{1}, no: \boxed{2}", "2"),
        (r"\boxed{3} and then cut: \boxed{\frac{1}{", "3"),
        (r"cut \boxed{\frac{1}{", None),
        (r"\boxed{}", ""),
        ("no box", None),
        ("", None),
    ],
)
def test_the_last_balanced_box_is_found(text, content):
    assert grading.last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think>\boxed{3}</think> It is \boxed{4}, not 5", "4"),
        (r"<think>I get \boxed{7}", "7"),  # the empirical study reads the whole output, closed or not
        ("So it is 1,234.5 in all.", "1234.5"),
        ("x = -4.", "-4"),
        ("9 is what remains of 12-3", "3"),
        ("I do not know", ""),
        ("", ""),
    ],
)
def test_the_final_answer_is_the_last_box_or_else_the_last_number(text, answer):
    assert grading.final_answer(text) == answer


@pytest.mark.parametrize(
    ("answer", "target"),
    [(r"\frac{1}{2}", "0.5"), ("0.5", r"\dfrac{3}{6}"), ("1+x", "x+1"), ("12.0", "12"), (r"\text{204}", "204"), ("(1, 2)", "(1,2)")],
)
def test_equal_expressions_are_the_same(answer, target):
    assert grading.same(answer, target)


@pytest.mark.parametrize(("answer", "target"), [("3", "4"), ("-4", "4"), (r"\frac{1}{3}", "0.33"), ("x", "y"), ("(2,1)", "(1,2)")])
def test_different_expressions_are_not(answer, target):
    assert not grading.same(answer, target)


@pytest.mark.parametrize(("answer", "target"), [("", ""), ("", "4"), ("4", ""), (" ", " ")])
def test_nothing_equals_nothing(answer, target):
    assert not grading.same(answer, target)


def test_an_answer_that_would_take_for_ever_is_wrong(monkeypatch):
    monkeypatch.setattr(grading, "SECONDS", 1)
    start = time.monotonic()
    assert not grading.same("9^{9^{9^{9}}}", "4")
    assert time.monotonic() - start < 10


@pytest.mark.parametrize(
    ("text", "correct"),
    [(r"half is \boxed{\frac{1}{2}}", 1.0), ("half is 0.5", 1.0), (r"<think>0.5</think> \boxed{2}", 0.0), ("", 0.0)],
)
def test_mathematics_is_scored_by_the_final_answer(text, correct):
    assert grading.math({"target": "0.5"}, [text]) == {"exact_match": correct}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (C).", "C"),
        ("answer: C", "C"),
        (r"<think>A or \boxed{B}?</think> \boxed{C}", "C"),
        (r"\boxed{\text{C}}", "C"),
        ("The answer is A. Wait, the answer is C", "C"),
        ("The answer is a matter of taste. C", "C"),
        ("C, I think", "C"),
        ("(C) is a better choice", "C"),
        ("**C**", "C"),
        ("Answer: I", "I"),
        ("The answer is (A)", "A"),
        ("C. BAD", "C"),
    ],
)
def test_the_letter_that_an_answer_names_is_read(text, letter):
    assert grading.choice({"target": letter}, [text]) == {"exact_match": 1.0}
    assert grading.choice({"target": "E"}, [text]) == {"exact_match": 0.0}


@pytest.mark.parametrize("text", ["", "none of them", "KLM", "42"])
def test_a_text_that_names_no_letter_is_wrong(text):
    assert grading.choice({"target": "C"}, [text]) == {"exact_match": 0.0}


# ---- code ----

TASK = {
    "before": 'from typing import List\n\n\ndef helper(x):\n    return x + 1\n\n\ndef add(a: int, b: int) -> int:\n    """The sum."""\n',
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(-1, 1) == 0\n",
    "entry_point": "add",
}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<think>```python\na\n```</think>\n```python\nb\n```\n", "b\n"),
        ("```\na\n```\ntext\n```py\nb\n```", "b\n"),
        ("```python\na\n```\nand a cut block\n```python\nb", "a\n"),
        ("<think>no</think>    return 1", "    return 1"),
        ("    return 1", "    return 1"),
    ],
)
def test_the_last_whole_block_is_the_code(text, code):
    assert grading.last_code(text) == code


@pytest.fixture
def sandboxed():
    if sandbox.refusal() is not None:
        pytest.skip(sandbox.refusal())


@pytest.mark.parametrize(
    ("generation", "right"),
    [
        ("```python\ndef add(a: int, b: int) -> int:\n    return a + b\n```", 1.0),
        ("```python\ndef add(a: List[int], b):\n    return helper(a) + b - 1\n```", 1.0),  # imports and helpers of the task are there
        ("    return a + b", 1.0),  # the body alone
        ("```python\ndef add(a, b):\n    return a - b\n```", 0.0),
        ("```python\nimport sys\ndef add(a, b):\n    sys.exit(0)\n```", 0.0),
        ("```python\ndef add(a, b):\n    while True: pass\n```", 0.0),
        ("I cannot do that.", 0.0),
        ("", 0.0),
    ],
)
def test_a_function_is_right_when_its_tests_pass_in_the_sandbox(generation, right, sandboxed, monkeypatch):
    monkeypatch.setattr(sandbox, "Limits", lambda: LIMITS)
    assert grading.function({"target": json.dumps(TASK)}, [generation]) == {"acc": right}


def test_every_solution_of_humaneval_passes_and_no_empty_one_does(packaged, root, sandboxed):
    rows = prepare({"adapter": "humaneval", "options": {"template": str(root / "prompts/humaneval.txt")}}, {"he": packaged("humaneval")})
    assert len(rows) == 164

    def graded(row):
        tasks = (row["answer"], json.loads(row["target"])["before"] + "    pass\n")
        return [grading.function(row, [f"```python\n{code}\n```"])["acc"] for code in tasks]

    with ThreadPoolExecutor(2) as pool:
        results = dict(zip((row["id"] for row in rows), pool.map(graded, rows), strict=True))
    assert [name for name, (right, _) in results.items() if not right] == []
    assert [name for name, (_, empty) in results.items() if empty] == []


# ---- the released extraction and grader of arXiv:2505.15404 ----


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{4}.", "4"),
        (r"<think>\boxed{3}</think> \boxed{4}", "4"),
        (r"<think>\boxed{3}</think> It is 4", "3"),  # a box of the thought, where the answer has none
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{3}, no: \boxed{\frac{1}{", r"\frac{1}{"),  # the last one, cut as it is
        (r"$\boxed 7$ eggs", "7"),
        (r"\boxed 7 eggs", "7 eggs"),
        ("I boxed", ""),
        (r"\boxed{}", ""),
        (r"\boxed{: 4.}", " 4"),
        (r"\boxed{4/}", "4"),
        (r"\boxed{4./}", "4."),  # one sign of each kind, in this order
        ("\\boxed{1\n   2}", "12"),
        (r"\boxed{ки4}", "4"),
        ("the answer is 4", ""),  # no last number
        ("", ""),
    ],
)
def test_the_released_extraction_takes_what_follows_the_last_boxed(text, answer):
    assert grading.released_answer(text) == answer


def differences(root) -> list[tuple[str, str, str, str]]:
    """(answer, target, released, ours) of the table in docs/benchmarks.md that lists where the graders differ."""
    text = (root / "docs/benchmarks.md").read_text()
    return re.findall(r"^\| `([^`]*)` \| `([^`]*)` \| (right|wrong) \| (right|wrong) \|", text, flags=re.MULTILINE)


def test_ours_differs_from_the_released_grader_where_the_document_says(root):
    """The column `released` is what the released grader itself said when it was run on these pairs (docs/benchmarks.md)."""
    found = differences(root)
    assert len(found) >= 15
    assert all(released != ours for _, _, released, ours in found)
    assert [(answer, target) for answer, target, _, ours in found if grading.same(answer, target) != (ours == "right")] == []


@pytest.mark.parametrize(
    ("answer", "target"),
    [
        ("12 cm", "12"),
        (r"90^\circ", "90"),
        ("50", "50\\%"),
        ("2, 1", "1, 2"),
        ("x=5", "5"),
        (r"\text{Evelyn}", "evelyn"),
        (r"\{1, 2\}", "(1, 2)"),
    ],
)
def test_ours_is_as_lenient_as_the_released_grader_elsewhere(answer, target):
    assert grading.same(answer, target)


def test_every_solution_of_math500_has_its_answer_in_its_last_box(mirror):
    rows = prepare({"adapter": "math500"}, {"math500": mirror / "math500"})
    wrong = [row["id"] for row in rows if grading.math_boxed(row, [row["reasoning"]]) != {"exact_match": 1.0}]
    assert len(rows) == 500
    assert wrong == []
