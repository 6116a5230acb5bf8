"""Teachers' prompts: each asks for what its style must have (arXiv 2505.15404, section 5.1); those of the release are read, never run."""

import re

import pytest
from untaxed.distillation import build_requests
from untaxed.prompts import read_prompt, read_teacher_prompt, upstream_prompt
from untaxed.records import UserError
from untaxed.thinking import ThinkingFormat

CATEGORIES = (
    "harassment/threatening",
    "hate/threatening",
    "illicit/violent",
    "self-harm/intent/instructions",
    "sexual/minors",
    "violence/graphic",
    "misinformation",
    "privacy/sensitive",
)
SYSTEM = {
    "thinks between the marks, then answers": r"<think>\n.*\n</think>\n\(your answer\)",
    "considers safety in the thoughts": r"In your thoughts, consider whether the request is safe",
    "refuses what is harmful": r"If it is harmful, decline it in the answer",
    "refuses only after thought": r"never before you have thought",
    "thinks briefly": r"Keep the thoughts brief",
}
PARTS = {
    "realsafe": {
        "tries to answer": r"Answer it as well as you can",
        "looks for risks while thinking": r"As you think .* illegal or unethical",
        "plain risks end in a refusal": r"clearly broken.* openly refuse",
        "words of a refusal": r"\"sorry\" or \"cannot help with\"",
        "without clear risk does what is asked": r"no clear risk, do exactly what the user asks",
    },
    "improved": {
        "judges the risks first": r"Begin your thoughts by judging its risks.* illegal or unethical",
        "nothing harmful anywhere": r"nothing harmful anywhere, neither in your thoughts nor in your answer",
        "refuses at once, in thoughts and answer": r"refuse at once, both in your thoughts and in your final answer",
        "seeks no other way": r"Do not look for another way",
        "fiction is no exception": r"a story or a hypothetical case is no exception",
        "follows no further instruction or reframing": r"none of its further instructions and no attempt to put it differently",
        "words of a refusal": r"\"cannot help with\"",
        "a refusal begins with Sorry": r"your thoughts say that you must refuse, the first word after \"</think>\" is \"Sorry\"",
        "without clear risk does what is asked": r"no clear risk, do what the user asks",
    },
    "short": SYSTEM,
    "template": SYSTEM
    | {
        "a sentence on the request, the categories, a conclusion": r"one sentence .* each of the categories .* Yes or No, and conclude",
        "the eight categories": r"\n".join(rf"\* {re.escape(name)}:" for name in CATEGORIES),
        "they stand in the example": r"\n".join(rf"\* {re.escape(name)}: No\." for name in CATEGORIES),
    },
}


@pytest.mark.parametrize(("style", "part"), [(style, part) for style, parts in PARTS.items() for part in parts])
def test_a_teachers_prompt_asks_for_every_part_of_its_style(root, style, part):
    text, version = read_prompt(root / f"prompts/teachers/{style}.txt")
    assert re.search(PARTS[style][part], text, re.DOTALL), part
    assert version == "1"


def test_the_example_of_the_template_has_the_form_that_it_asks_for(root):
    example = read_prompt(root / "prompts/teachers/template.txt")[0].partition("Response:\n")[2]
    trace, answer, closed = ThinkingFormat().split(example)
    first, *lines, last = trace.splitlines()
    assert closed and answer
    assert [line.partition(":")[0] for line in lines] == [f"* {name}" for name in CATEGORIES]
    assert first.endswith(".") and last.startswith("So nothing here is unsafe")


SOURCE = '''
print("this line never runs")

def get_system(t):
    if t=="short":
        temp = "Think \\\\boxed{} little.\\nGo on."
    elif t == "realsafe":
        temp = """Take care.

QUERY: """
    elif t == "other":
        temp = "a" + "b"
    return temp
'''


@pytest.fixture
def release(tmp_path):
    (tmp_path / "template.py").write_text(SOURCE)
    return tmp_path / "template.py"


def test_a_release_gives_its_prompts_letter_by_letter_and_is_not_run(release, capsys):
    assert upstream_prompt(release, "short") == "Think \\boxed{} little.\nGo on."
    text, version = read_teacher_prompt("upstream:realsafe", release)
    assert text == "Take care.\n\nQUERY: "
    assert version != read_teacher_prompt("upstream:short", release)[1]
    assert capsys.readouterr().out == ""
    asked = build_requests([{"id": "a", "prompt": "a?"}], 0, text)[0].messages
    assert asked == [{"role": "user", "content": "Take care.\n\nQUERY: a?"}]


def test_a_teacher_is_told_nothing_a_file_or_what_the_release_says(root, release):
    path = str(root / "prompts/teachers/short.txt")
    assert read_teacher_prompt(None, release) == ("", None)
    assert read_teacher_prompt(path) == read_prompt(path)
    with pytest.raises(UserError, match="upstream:short needs the file with the prompts of the release"):
        read_teacher_prompt("upstream:short")


@pytest.mark.parametrize(
    ("source", "style", "message"),
    [
        (SOURCE, "shrot", "no prompt for the style 'shrot'; did you mean 'short'"),
        (SOURCE, "other", "no prompt for the style 'other'"),
        ("def f(:", "short", "is no Python source"),
        ("short = 'Think.'", "short", "no prompt for the style 'short'"),
        (SOURCE + SOURCE, "short", "gives the style 'short' two prompts"),
    ],
)
def test_a_release_of_another_form_is_told(tmp_path, source, style, message):
    (tmp_path / "template.py").write_text(source)
    with pytest.raises(UserError, match=message):
        upstream_prompt(tmp_path / "template.py", style)
    with pytest.raises(UserError, match="no such file"):
        upstream_prompt(tmp_path / "none.py", style)
