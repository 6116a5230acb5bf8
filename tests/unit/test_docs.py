"""The documents say what the code says."""

import re
from pathlib import Path

from untaxed.config import read

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


def test_every_benchmark_has_its_row_with_task_and_version(root):
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)$", (root / "docs/benchmarks.md").read_text(), flags=re.MULTILINE))
    for overlays in (["laptop", "laptop_cot"], ["organism"]):
        study = read([root / "config.yaml", *(root / f"studies/{name}.yaml" for name in overlays)], root)
        for name, benchmark in study.config.benchmarks.items():
            version = read_yaml_version(root / benchmark.task)
            assert benchmark.kind == rows[name].split("|")[0].strip(), name
            assert rows[name].rstrip(" |").endswith(f"`{Path(benchmark.task).name}`, {version}"), name


def read_yaml_version(task: Path) -> str:
    """The version of a task; its YAML has tags of lm-eval's own."""
    return re.search(r"^  version: (\S+)$", task.read_text(), flags=re.MULTILINE)[1]


def test_every_file_that_the_readme_names_is_there(root):
    for page in ("README.md", "CONTRIBUTING.md", "docs/design.md", "docs/benchmarks.md", "docs/ARTIFACT.md", "CLAIMS.md", "perf/README.md"):
        folder = (root / page).parent
        for link in re.findall(r"\]\(([^)#:]+)\)", (root / page).read_text()):
            assert (folder / link).exists(), f"{page}: {link}"
