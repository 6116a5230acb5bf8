"""Graders that task files call by `!function`: each takes a document and the generations of one sample and returns the metric."""

import re


def last_boxed(text: str) -> str | None:
    """The content of the last balanced \\boxed{…} in a text."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for position in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[begin:position]
    return None


def final_answer(text: str) -> str:
    """What a mathematical generation answers: its last \\boxed{}, else its last number, else nothing."""
    boxed = last_boxed(text)
    if boxed is not None:
        return boxed
    numbers = re.findall(r"-?\d[\d,]*(?:\.\d+)?", text)
    return numbers[-1].replace(",", "") if numbers else ""


def same(answer: str, target: str) -> bool:
    """Whether two mathematical expressions are equal, by math-verify."""
    from math_verify import parse, verify

    if answer.strip() == target.strip():
        return bool(answer.strip())
    gold, given = parse(f"${target}$", parsing_timeout=None), parse(f"${answer}$", parsing_timeout=None)
    return bool(gold) and bool(given) and verify(gold, given, timeout_seconds=None)


def _mean(verdicts: list[bool]) -> dict[str, float]:
    return {"exact_match": sum(verdicts) / len(verdicts)}


def _generations(results: list) -> list[str]:
    return results[0] if isinstance(results[0], list) else results


def math(document: dict, results: list) -> dict[str, float]:
    """pass@1: the mean over the generations of a sample (AIME draws four)."""
    return _mean([same(final_answer(text), document["target"]) for text in _generations(results)])


def choice(document: dict, results: list) -> dict[str, float]:
    """The last option letter A-J that stands alone, in \\boxed{} first."""
    verdicts = []
    for text in _generations(results):
        letters = re.findall(r"\b([A-J])\b", last_boxed(text) or "") or re.findall(r"(?:answer|option)\W+(?:is\W+)?\(?([A-J])\b", text, re.I)
        letters = letters or re.findall(r"\b([A-J])\b", text)
        verdicts.append(bool(letters) and letters[-1].upper() == document["target"])
    return _mean(verdicts)
