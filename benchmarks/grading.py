"""Graders that task files call by `!function`: each takes a document and the generations of one sample and returns the metric."""

import re
import threading

NUMBER = r"(?:(?<![\w)\]}])-)?\d[\d,]*(?:\.\d+)?"  # in 5-3 the sign is a subtraction
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
