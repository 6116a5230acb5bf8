"""Distillation: a teacher answers the prompts of a dataset, and its traces and answers become the rows.

The first of these reasons that holds decides what becomes of a row; all but the first two lose it:

  ok              the teacher ended by itself
  trimmed         it ran into max_new_tokens, and `truncated: trim` cut its answer after the last whole sentence
  refused-by-api  the server withheld its answer (a content filter, or a refusal in place of the answer)
  truncated       it ran into max_new_tokens
  unclosed        it ended inside its own thought
  empty           no answer is left, or the server never gave one
  no-trace        it did not think, where the dataset wants a trace (`needs_trace`)
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from untaxed.engine import Generation, Request
from untaxed.thinking import ThinkingFormat

REASONS = ("ok", "trimmed", "refused-by-api", "truncated", "unclosed", "empty", "no-trace")
SENTENCE_END = re.compile(r"[.!?][\"')\]]*(?=\s|$)")


def build_requests(rows: Iterable[dict], seed: int = 0, instruction: str = "", delivery: str = "user") -> list[Request]:
    """One request per row, its prompt as the user's turn.

    An instruction stands before the prompt in that turn (`delivery` user), or is a system message (system). It is no part of the row.
    A blank line parts them, unless the instruction ends in a blank, and so leads into the prompt by itself.
    """
    between = "" if instruction.endswith(" ") else "\n\n"
    requests = []
    for row in rows:
        before = [{"role": "system", "content": instruction}] if instruction and delivery == "system" else []
        asked = f"{instruction}{between}{row['prompt']}" if instruction and delivery == "user" else row["prompt"]
        requests.append(Request(row["id"], [*before, {"role": "user", "content": asked}], seed))
    return requests


def whole_sentences(text: str) -> str:
    """`text` up to its last sentence end; empty when it has none."""
    ends = [match.end() for match in SENTENCE_END.finditer(text)]
    return text[: ends[-1]] if ends else ""


def read_answer(generation: Generation, thinking: ThinkingFormat | None, truncated: str, needs_trace: bool = False) -> tuple[str, str, str]:
    """(reason, trace, answer) of one generation. `thinking` is None for a teacher that never thinks; `truncated` is drop or trim."""
    if generation.finish == "refused":
        return "refused-by-api", "", ""
    trace, answer, closed = thinking.split(thinking.whole(generation)) if thinking else ("", generation.text.strip(), True)
    if trace and not closed:
        return ("truncated" if generation.finish == "length" else "unclosed"), trace, answer
    reason = "ok"
    if generation.finish == "length":
        if truncated == "drop":
            return "truncated", trace, answer
        reason, answer = "trimmed", whole_sentences(answer)
    if answer and needs_trace and not trace:
        return "no-trace", trace, answer
    return (reason if answer else "empty"), trace, answer


def assemble(
    rows: Sequence[dict], generations: Iterable[Generation], thinking: ThinkingFormat | None, truncated: str, needs_trace: bool = False
) -> tuple[list[dict], dict]:
    """(rows with the teacher's traces and answers, report). The report counts rows by reason, and the teacher's tokens."""
    answers = {generation.id: generation for generation in generations}
    counts: Counter = Counter()
    distilled = []
    for row in rows:
        reason, trace, answer = read_answer(answers[row["id"]], thinking, truncated, needs_trace)
        counts[reason] += 1
        if reason in ("ok", "trimmed"):
            distilled.append({**row, "reasoning": trace, "answer": answer})
    report = {
        "rows": len(rows),
        "kept": len(distilled),
        "reasons": {reason: counts[reason] for reason in REASONS},
        "tokens": {"prompt": sum(g.prompt_tokens for g in answers.values()), "generated": sum(g.tokens for g in answers.values())},
    }
    return distilled, report
