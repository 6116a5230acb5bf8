"""Prompt files: comment lines (#) at the top are the header, with `version:`; the rest is sent. And prompts read off a release's source."""

import ast
import re
from pathlib import Path

from untaxed.records import UserError, fingerprint, nearest


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


UPSTREAM = "upstream:"
UPSTREAM_ASSET, UPSTREAM_STYLES = "lrm-safety-study-prompts", ("realsafe", "improved", "short", "template")


def read_teacher_prompt(prompt: str | None, upstream: Path | str | None = None) -> tuple[str, str | None]:
    """(text, version) of what a teacher is told: by no prompt, a prompt file, or `upstream:<style>` (`upstream_prompt` of that file)."""
    if prompt is None:
        return "", None
    if not prompt.startswith(UPSTREAM):
        return read_prompt(prompt)
    if upstream is None:
        raise UserError(f"teacher.prompt: {prompt} needs the file with the prompts of the release; give it with --upstream")
    text = upstream_prompt(upstream, prompt.removeprefix(UPSTREAM))
    return text, fingerprint(text)


def upstream_prompt(path: Path | str, style: str) -> str:
    """The prompt that a Python file gives a style, letter by letter; the file is parsed, never run.

    The form is that of the empirical study's release (arXiv 2505.15404; dataset/template.py): a function whose branches
    `if t == "<style>": temp = "<prompt>"` hold the prompts. Raises UserError for a file of another form, and for a style it does not have.
    """
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; fetch the asset that holds the prompts") from None
    except (SyntaxError, ValueError):
        raise UserError(f"{path}: is no Python source; fetch the asset again") from None
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        match node:
            case ast.If(
                test=ast.Compare(ops=[ast.Eq()], comparators=[ast.Constant(value=str(name))]),
                body=[ast.Assign(value=ast.Constant(value=str(text)))],
            ):
                if name in found:
                    raise UserError(f"{path}: gives the style {name!r} two prompts; the file changed its form")
                found[name] = text
    if style not in found:
        raise UserError(f"{path}: has no prompt for the style {style!r}; {nearest(style, found)}")
    return found[style]
