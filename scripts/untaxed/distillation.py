"""Distillation: a teacher answers the prompts of a dataset, and its traces and answers become the rows.

The first of these reasons that holds decides what becomes of a row; all but the first two lose it:

  ok              the teacher ended by itself
  trimmed         it ran into max_new_tokens, and `truncated: trim` cut its answer after the last whole sentence
  refused-by-api  the server withheld its answer (a content filter, or a refusal in place of the answer)
  truncated       it ran into max_new_tokens
  unclosed        it ended inside its own thought
  empty           no answer is left, or the server never gave one
  no-trace        it did not think, where the dataset wants a trace (`needs_trace`)
  unparseable     no final answer can be read in it, where the dataset has answers checked (`check`)
  wrong           its final answer is not the row's target, where the dataset has answers checked

With `check: math` a final answer is what benchmarks/math.yaml takes for one (the last boxed expression, else the last number, of the answer
without its trace), and math-verify compares it with the target of the row. Neither paper says that its rows were checked; this is ours.
"""

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from untaxed.engine import Generation, Request
from untaxed.records import UserError
from untaxed.thinking import ThinkingFormat

REASONS = ("ok", "trimmed", "refused-by-api", "truncated", "unclosed", "empty", "no-trace", "unparseable", "wrong")
GRADERS = Path(__file__).parents[2] / "benchmarks"
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


def open_check(name: str | None, rows: Iterable[dict], dataset: str = "") -> Callable[[str, str], str] | None:
    """(answer, target) -> ok, unparseable or wrong, by the grader of a benchmark; None without a check.

    Raises UserError for a row without a target, so that nothing is asked which could not be checked.
    """
    if name is None:
        return None
    for row in rows:
        if not str(row.get("target") or "").strip():
            raise UserError(f"datasets.{dataset}.teacher.check: row {row['id']} has no target to check an answer against; remove the key")
    if str(GRADERS) not in sys.path:
        sys.path.append(str(GRADERS))  # benchmarks/ is a folder of task files for lm-eval, and no package
    from grading import final_answer, readable, same

    def check(answer: str, target: str) -> str:
        found = final_answer(answer)
        if not readable(found):
            return "unparseable"
        return "ok" if same(found, target) else "wrong"

    return check


def assemble(
    rows: Sequence[dict],
    generations: Iterable[Generation],
    thinking: ThinkingFormat | None,
    truncated: str,
    needs_trace: bool = False,
    check: Callable[[str, str], str] | None = None,
) -> tuple[list[dict], dict]:
    """(rows with the teacher's traces and answers, report). The report counts rows by reason, and the teacher's tokens.

    `check` (of `open_check`) reads the answers that are left.
    """
    answers = {generation.id: generation for generation in generations}
    counts: Counter = Counter()
    distilled = []
    for row in rows:
        reason, trace, answer = read_answer(answers[row["id"]], thinking, truncated, needs_trace)
        if check and reason in ("ok", "trimmed") and (found := check(answer, row["target"])) != "ok":
            reason = found
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
