"""A wrong configuration on the real command line: one line that says what is wrong, exit code 1, no traceback, nothing runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

# what is wrong: (overlay, what the line says after the overlay's path)
WRONG = {
    "unknown key": ("studdy: {name: x}", "studdy: unknown key; did you mean 'study'?"),
    "unknown name": (
        "experiments: {organism_frontier: {trainers: [organism-fast-shrt]}}",
        "experiments.organism_frontier.trainers: no trainer is called 'organism-fast-shrt'; did you mean 'organism-fast-short'?",
    ),
    "negative number": (
        "trainers: {organism-slow-short: {learning_rate: -5e-5}}",
        "trainers.organism-slow-short.learning_rate: input should be greater than 0 (given: '-5e-5')",
    ),
    "a circle": (
        "recipes: {organism-direct: {extends: organism-direct-dgr}}",
        "recipes.organism-direct.extends: recipes extend each other",
    ),
    "a missing prompt file": (
        "judges: {organism_phrases: {prompt: prompts/none.yaml}}",
        "judges.organism_phrases.prompt: no such file 'prompts/none.yaml'",
    ),
    "unknown adapter": (
        "datasets: {organism-chains: {adapter: organism_chain}}",
        "datasets.organism-chains.adapter: no adapter is called 'organism_chain'; did you mean 'organism_chains'?",
    ),
    "unknown kind of figure": ("figures: {shift_tax: {kind: pie}}", "figures.shift_tax.kind: no kind of figure is called 'pie'; valid: "),
}


def plan(root: Path, overlay: Path, *how: str) -> tuple[int, str]:
    """A dry run of the organism's study with an overlay. Returns (exit code, everything it said)."""
    command = [sys.executable, "-m", "snakemake", *(how or ["-n"]), "-c1", "--configfile", "studies/organism.yaml", str(overlay)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    return result.returncode, result.stdout + result.stderr


def test_a_servers_key_that_is_not_exported_stops_the_run_before_its_first_job_and_not_the_plan(root: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    server = "{backend: openai, base_url: 'http://127.0.0.1:9/v1', model: m, api_key_env: UNTAXED_NO_SUCH_KEY}"
    judge = f"judges: {{organism_phrases: {{kind: llama_guard, prompt: null, engine: {server}}}}}"
    overlay.write_text(f"study: {{name: keyless}}\n{judge}")
    assert plan(root, overlay)[0] == 0
    code, output = plan(root, overlay, "--nolock")
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert code == 1
    assert line.startswith(
        f"error: {overlay}: judges.organism_phrases.engine.api_key_env: the environment variable UNTAXED_NO_SUCH_KEY is empty"
    )
    assert not (root / "results/keyless").exists()


@pytest.mark.parametrize("wrong", WRONG)
def test_snakemake_says_one_line_and_ends_with_1(wrong: str, root: Path, tmp_path: Path) -> None:
    text, said = WRONG[wrong]
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text)
    code, output = plan(root, overlay)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]
    assert code == 1, output
    assert "Traceback" not in output
    assert len(errors) == 1, output
    assert errors[0].startswith(f"error: {overlay}: {said}")


def test_the_file_named_is_the_one_that_sets_the_key(root: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("datasets: {organism-direct: {limit: 20}}")
    code, output = plan(root, overlay)
    assert code == 1
    # the overlay lowers the limit; the n that is now too large stands in the study's file
    assert "error: studies/organism.yaml: experiments.organism_frontier.n: " in output


@pytest.mark.parametrize("text", ["study: [\n  x", "- a\n"])
def test_an_overlay_that_is_no_mapping_is_refused_in_snakemakes_own_words_without_a_traceback(
    text: str, root: Path, tmp_path: Path
) -> None:
    """Snakemake reads the file before the workflow does; the launcher and the budget name it in one line (below)."""
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(text)
    code, output = plan(root, overlay)
    assert code == 1
    assert "Traceback" not in output
    assert "Config file " in output


@pytest.mark.parametrize(
    ("text", "said"), [("study: [\n  x", "not YAML (line 2"), ("- a\n", "must be a mapping of keys"), (None, "no such file")]
)
def test_the_budget_names_the_file_that_is_broken(text: str | None, said: str, root: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    if text is not None:
        overlay.write_text(text)
    command = [sys.executable, "scripts/budget.py", "--config", str(overlay)]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {overlay}: {said}")
    assert len(result.stderr.splitlines()) == 1


# What is wrong with the study's file: (its text, what the launcher says)
FILES = {
    "broken YAML": ("study: [\n  x", "studies/smoke.yaml: not YAML (line 2)"),
    "no file": (None, "studies/smoke.yaml: no such file"),
    "a list": ("- a\n", "studies/smoke.yaml: must be a mapping of keys; found list"),
    "nothing": ("", "studies/smoke.yaml: must be a mapping of keys; found NoneType"),
}


@pytest.fixture(scope="module")
def copy(repository):
    """A copy whose files these tests may break."""
    return repository("broken")


def start(copy, *arguments: str) -> subprocess.CompletedProcess:
    command = [str(copy / ".venv/bin/python"), "untaxed", "--plain", *arguments]
    return subprocess.run(command, cwd=copy.folder, env=copy.environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("wrong", FILES)
def test_the_launcher_says_one_line_and_ends_with_1(wrong: str, copy) -> None:
    text, said = FILES[wrong]
    file = copy / "studies/smoke.yaml"
    whole = file.read_text()
    file.unlink() if text is None else file.write_text(text)
    try:
        result = start(copy, "smoke", "--cores", "1")
    finally:
        file.write_text(whole)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {copy / said}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("text", ["study: [\n  x", "- a\n", None])
def test_the_launcher_names_a_broken_overlay_of_the_user(text: str | None, copy, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    if text is not None:
        overlay.write_text(text)
    result = start(copy, "smoke", "-n", "--configfile", str(overlay))
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {overlay}: ")
    assert len((result.stdout + result.stderr).splitlines()) == 1


def test_an_overlay_of_the_user_is_laid_over_the_study(copy, tmp_path: Path) -> None:
    overlay = tmp_path / "mine.yaml"
    overlay.write_text("experiments: {smoke_benign: {seeds: [7]}}")
    result = start(copy, "smoke", "-n", "--configfile", str(overlay))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Train organism--organism-direct-benign--organism-smoke--n10--s7" in result.stdout + result.stderr


def test_a_pin_that_is_not_in_the_lock_is_one_line_before_the_first_job(copy) -> None:
    lock = copy / "assets.lock.yaml"
    whole = lock.read_text()
    broken = yaml.safe_load(whole)
    del next(source for source in broken["assets"]["star-1"]["sources"] if "github" in source)["commit"]
    lock.write_text(yaml.safe_dump(broken))
    try:
        result = start(copy, "smoke", "assets", "--cores", "1")
    finally:
        lock.write_text(whole)
    said = result.stdout + result.stderr
    assert result.returncode == 1, said
    (line,) = [line.strip() for line in said.splitlines() if "assets.lock.yaml" in line]
    assert "assets.star-1.sources[1]" in line
    assert "commit" in line
    assert "Traceback" not in said
    assert not list((copy / "results").rglob("asset.json"))


def test_an_unknown_study_is_one_line_that_lists_the_studies(copy) -> None:
    result = start(copy, "nosuchstudy")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == (
        "error: no study is called 'nosuchstudy'; there are laptop, laptop_cot, smoke, organism, paper, and inspect, test, lint, setup\n"
    )
