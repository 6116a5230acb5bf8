"""Prompt files: comment lines (#) at the top are the header, with `version:`; the rest is sent."""

import re
from pathlib import Path

from untaxed.records import UserError, fingerprint


def read_prompt(path: Path | str) -> tuple[str, str]:
    """(text, version) of a prompt file; without a version in its header the text's fingerprint stands for it. Raises UserError."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such prompt file; write one, or correct the key that names it") from None
    start = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    text = "\n".join(lines[start:]).strip("\n")
    version = re.search(r"^# version:\s*(\S+)", "\n".join(lines[:start]), re.MULTILINE)
    return text, version[1] if version else fingerprint(text)
