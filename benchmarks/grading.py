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


def same(answer: str, target: str) -> bool:
    """Whether two mathematical expressions are equal, by math-verify. What takes over SECONDS to compare is not."""
    from math_verify import parse, verify

    if answer.strip() == target.strip():
        return bool(answer.strip())
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None  # math-verify's clock is a signal
    gold, given = (parse(f"${text}$", parsing_timeout=seconds) for text in (target, answer))
    return bool(gold) and bool(given) and verify(gold, given, timeout_seconds=seconds)


def math(document: dict, results: list[str]) -> dict[str, float]:
    """Whether the generation's final answer equals the target."""
    return {"exact_match": float(same(final_answer(results[0]), document["target"]))}


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
