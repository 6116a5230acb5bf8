"""Graders that task files call by `!function`: each takes a document and the generations of one sample and returns the metric."""

import json
import re
import threading

NUMBER = r"(?:(?<![\w)\]}])-)?\d[\d,]*(?:\.\d+)?"  # in 5-3 the sign is a subtraction
FENCED = re.compile(r"```[^\n`]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
SECONDS = 5  # an answer such as 9^{9^{9^9}} would keep sympy busy for ever


def last_boxed(text: str) -> str | None:
    """The content of the last \\boxed{…} in a text whose braces balance."""
    start = text.rfind("\\boxed{")
    while start >= 0:
        depth, begin = 0, start + len("\\boxed{")
        for position in range(begin - 1, len(text)):
            depth += {"{": 1, "}": -1}.get(text[position], 0)
            if depth == 0:
                return text[begin:position]
        start = text.rfind("\\boxed{", 0, start)
    return None


def final_answer(text: str) -> str:
    """What a mathematical generation answers: its last \\boxed{}, else its last number, else nothing."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    numbers = re.findall(NUMBER, text)
    return numbers[-1].replace(",", "") if numbers else ""


def readable(answer: str) -> bool:
    """Whether math-verify finds a mathematical expression in an answer."""
    from math_verify import parse

    return bool(answer.strip()) and bool(parse(f"${answer}$", parsing_timeout=_seconds()))


def _seconds() -> int | None:
    """The limit on math-verify, whose clock is a signal, so that it works in the main thread alone."""
    return SECONDS if threading.current_thread() is threading.main_thread() else None


def same(answer: str, target: str) -> bool:
    """Whether two mathematical expressions are equal, by math-verify. What takes over SECONDS to compare is not."""
    from math_verify import parse, verify

    if answer.strip() == target.strip():
        return bool(answer.strip())
    seconds = _seconds()
    gold, given = (parse(f"${text}$", parsing_timeout=seconds) for text in (target, answer))
    return bool(gold) and bool(given) and verify(gold, given, timeout_seconds=seconds)


def released_answer(text: str) -> str:
    """What a generation answers as the release of arXiv:2505.15404 reads it: the text after the last "boxed" of the whole output, or "".

    In braces it ends where they balance (cut braces: at the end of the text), else at the next $. A thought counts as the answer does.
    """
    _, found, rest = text.replace("ки", "").rpartition("boxed")
    if not found:
        return ""
    if rest.startswith("{"):
        depth, length = 0, len(rest)
        for position, character in enumerate(rest):
            depth += {"{": 1, "}": -1}.get(character, 0)
            if depth == 0:
                length = position
                break
        answer = rest[1:length]
    else:
        answer = rest.split("$")[0].strip()
    return re.sub(r"\n\s*", "", answer).removeprefix(":").removesuffix(".").removesuffix("/")


def math(document: dict, results: list[str]) -> dict[str, float]:
    """Whether the generation's final answer equals the target."""
    return {"exact_match": float(same(final_answer(results[0]), document["target"]))}


def math_boxed(document: dict, results: list[str]) -> dict[str, float]:
    """Whether what `released_answer` finds equals the target; docs/benchmarks.md says where the released grader differs."""
    return {"exact_match": float(same(released_answer(results[0]), document["target"]))}


def choice(document: dict, results: list[str]) -> dict[str, float]:
    """The last option letter A-J: in \\boxed{}, else after the word answer or option, else one that stands alone."""
    text = results[0]
    letters = (
        re.findall(r"\b([A-J])\b", last_boxed(text) or "")
        or re.findall(r"(?i:answer|option)\W+(?i:is\W+)?\(?([A-J])\b", text)
        or re.findall(r"\b([B-HJ]|[AI](?!['’ ]*[a-z]))\b", text)  # neither the article nor the pronoun
    )
    return {"exact_match": float(letters[-1:] == [document["target"]])}


def last_code(text: str) -> str:
    """The last fenced block of a text, or all that follows its thinking trace where there is none."""
    blocks = FENCED.findall(text)
    return blocks[-1] if blocks else text.rpartition("</think>")[2]


def function(document: dict, results: list[str]) -> dict[str, float]:
    """Whether the function that a generation wrote passes its tests, run in the sandbox (HumanEval; pass@1 is the mean).

    The code may be the whole function or its body alone. What stands before it in the task (imports, helpers) is given.
    """
    from untaxed.sandbox import run

    task, code = json.loads(document["target"]), last_code(results[0])
    name = task["entry_point"]
    given, _, _ = task["before"].rpartition(f"def {name}(")
    whole = re.search(rf"^def {re.escape(name)}\s*\(", code, re.MULTILINE) is not None
    program = f"{given}\n{code}" if whole else f"{task['before']}{code}"
    return {"acc": float(run(f"{program}\n\n{task['test']}\n\ncheck({name})\n").status == "finished")}


def fenced_lines(text: str) -> str:
    """The lines between the last two lines that hold a fence (```), as LiveCodeBench takes the code of an output; "" with fewer."""
    lines = text.split("\n")
    fences = [number for number, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) > 1 else ""


def program(document: dict, results: list[str]) -> dict[str, float]:
    """Whether the program that a generation wrote passes all tests of its problem in the sandbox (LiveCodeBench; pass@1 is the mean)."""
    from untaxed.programs import passes, unpack

    return {"acc": float(passes(fenced_lines(results[0]), unpack(document["tests"])))}
