"""Programs for contest problems: what passes, what fails, and that a program that hangs ends."""

import sys
import time
from pathlib import Path

import pytest
from untaxed import programs, sandbox
from untaxed.programs import pack, passes, same_output, same_value, unpack

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import grading

DOUBLE = {"function": None, "tests": [["3\n", "6\n"], ["5\n", "10\n"], ["-1\n", "-2\n"]]}
SHIFTED = {"function": "shifted", "tests": [["[1, 2]\n3", "[4, 5]"], ["[]\n3", "[]"]]}


@pytest.fixture(autouse=True)
def sandboxed():
    if sandbox.refusal() is not None:
        pytest.skip(sandbox.refusal())


@pytest.mark.parametrize(
    "code",
    [
        "print(2 * int(input()))",
        "import sys\nfor line in sys.stdin:\n    print(int(line) * 2)",
        "def main():\n    print(int(input()) * 2)\n\nif __name__ == '__main__':\n    main()",
        "print(int(input()) * 2)\nexit()",  # LiveCodeBench lets a program leave by itself too
        "n = int(stdin.readline())\nprint(pow(n, 1, 10**9) * 2 if n > 0 else n * 2)",  # contest sites have stdin, and pow
        "def down(n):\n    return 1 + down(n - 1) if n else 0\n\ndown(20000)\nprint(2 * int(input()))",
    ],
)
def test_a_right_program_passes(code):
    assert passes(code, DOUBLE)


@pytest.mark.parametrize(
    "code",
    [
        "print(6)",  # right on the first test alone
        "print(3 * int(input()))",
        "print(2 * int(input()))\nprint(0)",
        "print(2 * int(input()))\nraise ValueError",
        "print(2 * int(input())",
        "import os\nprint(2 * int(input()), flush=True)\nos._exit(0)",
        "",
        " \n",
    ],
)
def test_a_wrong_program_fails(code):
    assert not passes(code, DOUBLE)


@pytest.mark.parametrize("code", ["while True: pass", "import time\nprint(2 * int(input()), flush=True)\ntime.sleep(60)"])
def test_a_program_that_hangs_fails_in_the_time_of_one_test(code):
    started = time.monotonic()
    assert not passes(code, DOUBLE, seconds=1.0)
    assert time.monotonic() - started < 4


def test_the_limit_is_for_each_test_and_not_for_all():
    slow = "import time\ntime.sleep(0.7)\nprint(2 * int(input()))"
    assert passes(slow, {"function": None, "tests": DOUBLE["tests"] * 2}, seconds=2.5)  # 4.2 seconds of sleep
    assert not passes(slow, DOUBLE, seconds=0.4)


@pytest.mark.parametrize(
    ("code", "right"),
    [
        ("class Solution:\n    def shifted(self, xs: List[int], k: int) -> List[int]:\n        return [x + k for x in xs]", True),
        ("def shifted(xs, k):\n    print('a look', xs)\n    return [x + k for x in xs]", True),
        ("def shifted(xs, k):\n    return tuple(x + k for x in xs)", True),  # LiveCodeBench takes a tuple for a list
        ("def shifted(xs, k):\n    return xs", False),
        ("def shifted(xs):\n    return xs", False),
        ("def shifted(xs, k):\n    return {x + k for x in xs}", False),
        ("def moved(xs, k):\n    return [x + k for x in xs]", False),
        ("class Solution:\n    def shifted(self, xs, k):\n        while True: pass", False),
        ("print([4, 5])", False),
    ],
)
def test_a_function_is_called_with_the_arguments_of_each_test(code, right):
    assert passes(code, SHIFTED, seconds=1.0) is right


def test_expected_outputs_are_not_in_the_sandbox(monkeypatch):
    given = []

    def run(program, stdin, limits):
        given.append(program + stdin)
        return sandbox.Outcome("finished", "4242\n", "", 0.0)

    monkeypatch.setattr(programs, "run", run)
    assert passes("print(1)", {"function": None, "tests": [["7\n", "4242\n"]]})
    assert "7" in given[0]
    assert "4242" not in given[0]


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        (" 1 2 \n3", "1 2\n3\n", True),
        ("1.0 2", "1 2.00", True),
        ("50000000000000000", "50000000000000001", False),  # decimals, not floats
        ("1 2 3", "1 2", False),
        ("1\n2", "1 2", False),
        ("1\n\n2", "1\n2", False),
        ("Yes", "YES", False),
        ("1e3", "1000", True),
        ("", "0", False),
    ],
)
def test_printed_outputs_are_compared_line_by_line(printed, expected, same):
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [("a look\n[1, 2]\n", "[1,2]", True), ("\n2.0\n", "2", True), ('\n"ab"\n', '"ab"', True), ("\nnull\n", "0", False), ("", "0", False)],
)
def test_returned_values_are_compared_as_json(printed, expected, same):
    assert same_value(printed, expected) is same


def test_a_problem_is_packed_and_unpacked():
    assert unpack(pack(SHIFTED)) == SHIFTED
    assert len(pack({"function": None, "tests": [["1\n" * 50_000, "1\n"]]})) < 1000


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<think>```python\na\n```</think>\n```python\nb\n```\n", "b"),
        ("```\na\n```\ntext\n```py\nb\nc\n```\nThat is it.", "b\nc"),
        ("```python\na\n```\nand a cut block\n```python\nb", "and a cut block"),  # as released: the last two fences, whatever they are
        ("```python\nb", ""),
        ("print(1)", ""),
    ],
)
def test_the_code_stands_between_the_last_two_fences(text, code):
    assert grading.fenced_lines(text) == code


def test_a_generation_is_graded_by_the_tests_of_its_document():
    document = {"tests": pack(DOUBLE), "target": "3 tests"}
    answer = "<think>```python\nprint(0)\n```</think>\nHere:\n```python\nprint(2 * int(input()))\n```"
    assert grading.program(document, [answer]) == {"acc": 1.0}
    assert grading.program(document, [answer.replace("2 *", "3 *")]) == {"acc": 0.0}
    assert grading.program(document, ["print(2 * int(input()))"]) == {"acc": 0.0}  # no fence, no code
