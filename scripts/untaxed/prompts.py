"""Prompt files: comment lines (#) at the top are the header, with `version:`; the rest is sent. And prompts read off a release's source."""

import ast
import re
from collections.abc import Callable
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


# ---- the authors' wording of judges and of LiveCodeBench ---------------------------------------------------------------------------

# `upstream:<name>` of a judge's prompt: the kind that reads its replies, the asset, and its file
UPSTREAM_JUDGES = {
    "xstest_classes": ("xstest_classes", "xstest-judge", "classify_completions_gpt.py"),
    "xstest_two_classes": ("xstest_two_classes", "aisafetylab-scorers", "overrefusal_scorer.py"),
    "reasoning_shield": ("reasoning_shield", "aisafetylab-scorers", "reasoningshield_scorer.py"),
}
UPSTREAM_LIVECODEBENCH = ("livecodebench-prompts", "code_generation.py")
CODE_QUESTION = "get_generic_question_template_answer"  # what the empirical study's release asks local models with


def upstream_judge(name: str, path: Path | str) -> dict:
    """The prompt file's content of a judge in its authors' words: {system, user, upstream: true}, with {forbidden_prompt} and {response}.

    `path` is the source that holds them; it is parsed and never run. Raises UserError where it has another form.
    """
    tree = _parse(path)
    if name == "xstest_classes":
        texts = {"system": _message(tree, "system", path), "user": _assigned(tree, "PROMPT", path)}
        own = {"QUESTION": "forbidden_prompt", "RESPONSE": "response"}
    elif name == "xstest_two_classes":
        texts, own = {"user": _assigned(tree, "two_class_prompt", path)}, {"query": "forbidden_prompt", "response": "response"}
    else:
        texts = {"system": _assigned(tree, "REASONINGSHIELD_PROMPT", path), "user": _message(tree, "user", path)}
        own = {"query": "forbidden_prompt", "response": "response"}
    for field in own:
        if texts["user"].count(f"{{{field}}}") != 1:
            raise UserError(f"{path}: its prompt does not name {field} once; the file changed its form, fetch the asset that is pinned")
    user = re.sub(r"\{(\w+)\}", lambda found: f"{{{own[found[1]]}}}" if found[1] in own else found[0], texts["user"])
    return {**texts, "user": user, "upstream": True}


def upstream_livecodebench(path: Path | str) -> dict[str, str]:
    """LiveCodeBench's own two ways to ask, {stdin, function} with {problem} and {starter}, off its source, which is never run.

    Its system message stands before the question, after a blank line, as it does there for models without one.
    """
    tree = _parse(path)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == CODE_QUESTION]
    if len(functions) != 1:
        raise UserError(f"{path}: has no one function {CODE_QUESTION}; the file changed its form, fetch the asset that is pinned")

    def value(node: ast.expr) -> str:
        match node:
            case ast.Attribute(value=ast.Name(id="PromptConstants"), attr=name):
                return _assigned(tree, name, path)
            case ast.Attribute(attr="question_content"):
                return "{problem}"
            case ast.Attribute(attr="starter_code"):
                return "{starter}"
        raise _strange(path, node)

    def said(statements: list[ast.stmt], with_starter: bool) -> str:
        text = ""
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id="prompt")]) | ast.AugAssign(target=ast.Name(id="prompt"), op=ast.Add()):
                    text += _text(statement.value, path, value)
                case ast.If(test=ast.Attribute(attr="starter_code")):
                    text += said(statement.body if with_starter else statement.orelse, with_starter)
                case ast.Return(value=ast.Name(id="prompt")):
                    pass
                case _:
                    raise _strange(path, statement)
        return text

    system = _assigned(tree, "SYSTEM_MESSAGE_GENERIC", path)
    asked = {"stdin": said(functions[0].body, False), "function": said(functions[0].body, True)}
    if any("{problem}" not in text for text in asked.values()) or "{starter}" not in asked["function"]:
        raise UserError(f"{path}: {CODE_QUESTION} does not ask with the problem and its code; the file changed its form")
    return {kind: f"{system}\n\n{text}" for kind, text in asked.items()}


def _parse(path: Path | str) -> ast.Module:
    try:
        return ast.parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; fetch the asset that holds the prompts") from None
    except (SyntaxError, ValueError):
        raise UserError(f"{path}: is no Python source; fetch the asset again") from None


def _strange(path: Path | str, node: ast.AST) -> UserError:
    line = getattr(node, "lineno", "?")
    return UserError(f"{path}: line {line} is of another form than what is read here; fetch the asset that is pinned")


def _named(node: ast.expr) -> str:
    """{name} for a variable in an f-string."""
    if isinstance(node, ast.Name):
        return f"{{{node.id}}}"
    raise TypeError


def _text(node: ast.expr, path: Path | str, value: Callable[[ast.expr], str] = _named) -> str:
    """The text of a literal; of an f-string with what `value` makes of each part in braces."""
    try:
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=parts):
                return "".join(value(part.value) if isinstance(part, ast.FormattedValue) else _text(part, path) for part in parts)
    except TypeError:
        pass
    raise _strange(path, node)


def _assigned(tree: ast.Module, name: str, path: Path | str) -> str:
    """The text that is assigned to a name, once in the whole file."""
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.Assign) and any(_is(target, name) for target in node.targets)]
    if len(found) != 1:
        raise UserError(
            f"{path}: gives {name} {len(found)} texts in place of one; the file changed its form, fetch the asset that is pinned"
        )
    return _text(found[0], path)


def _is(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _message(tree: ast.Module, role: str, path: Path | str) -> str:
    """The content of the one chat message of a role that a file writes out as text."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            fields = {key.value: value for key, value in zip(node.keys, node.values, strict=True) if isinstance(key, ast.Constant)}
            if isinstance(said := fields.get("role"), ast.Constant) and said.value == role and "content" in fields:
                found.append(fields["content"])
    if len(found) != 1:
        raise UserError(f"{path}: writes {len(found)} messages of the {role} in place of one; the file changed its form")
    return _text(found[0], path)
