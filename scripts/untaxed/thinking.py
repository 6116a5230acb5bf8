"""A thinking format as data: how a model marks its reasoning trace, and how to join and split text by it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from untaxed.engine import Generation


@dataclass(frozen=True)
class ThinkingFormat:
    """The text around a trace: `open` + reasoning + `close` + answer.

    R1 distills: `<think>\\n`, `\\n</think>\\n\\n`; s1: `<|im_start|>` turns.
    """

    open: str = "<think>\n"
    close: str = "\n</think>\n\n"

    def join(self, reasoning: str, answer: str) -> str:
        """The completion that a model is trained on. An empty trace keeps its markers (the study's No CoT form)."""
        return f"{self.open}{reasoning}{self.close}{answer}"

    def split(self, text: str) -> tuple[str, str, bool]:
        """Return (reasoning, answer, closed). Without a closing marker all text is reasoning if it was opened, else all is answer."""
        opening, closing = self.open.strip(), self.close.strip()
        body = text.lstrip()
        opened = body.startswith(opening)
        if opened:
            body = body[len(opening) :]
        reasoning, marker, answer = body.partition(closing)
        if marker:
            return reasoning.strip(), answer.strip(), True
        return (body.strip(), "", False) if opened else ("", text.strip(), False)

    def whole(self, generation: Generation) -> str:
        """The text of a generation, with the opening marker in front where the prompt already held it."""
        text = generation.text.strip()
        return self.open + text if generation.opened else text

    def markers_in(self, text: str) -> bool:
        """Whether a piece of text holds a thinking marker of its own, which would break the format it is put into."""
        return self.open.strip() in text or self.close.strip() in text
