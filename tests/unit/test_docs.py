"""The documents say what the code says."""

import re

TARGETS = {
    "datasets",
    "checkpoints",
    "metrics",
    "figures",
    "budget",
    "rulegraph",
}  # by name only


def test_the_rule_graph_shows_every_rule(root):
    stated = re.compile(r"^(?:use rule \w+ as|rule) (\w+)(?::| with:)", flags=re.MULTILINE)
    rules = {name for path in (root / "rules").glob("*.smk") for name in stated.findall(path.read_text())}
    drawn = set(re.findall(r">(\w+)</text>", (root / "docs/rulegraph.svg").read_text()))
    assert drawn - {"all"} == rules - TARGETS, "draw it again (docs/design.md says how)"


def test_every_file_that_the_readme_names_is_there(root):
    for page in ("README.md", "CONTRIBUTING.md", "docs/design.md", "perf/README.md"):
        folder = (root / page).parent
        for link in re.findall(r"\]\(([^)#:]+)\)", (root / page).read_text()):
            assert (folder / link).exists(), f"{page}: {link}"
