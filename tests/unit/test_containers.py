"""The container recipes hold no versions of their own. Neither was built where this was written; hadolint read the Dockerfile."""

import re

import pytest

RECIPES = ("containers/Dockerfile", "containers/untaxed.def")
MADE_FROM = ("untaxed", "pyproject.toml", "constraints.txt", "scripts/untaxed")  # what `./untaxed setup` reads


def lines(root, recipe: str) -> str:
    """A recipe without its comments."""
    return "\n".join(line for line in (root / recipe).read_text().splitlines() if not line.startswith("#"))


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_installs_what_the_project_pins(root, recipe):
    text = lines(root, recipe)
    assert "./untaxed setup" in text
    assert "-r pyproject.toml --extra test --extra gpu -c constraints.txt" in text
    assert not re.search(r"==|pip install (?!--python)", text), "versions stand in pyproject.toml and constraints.txt alone"


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_copies_files_that_are_there(root, recipe):
    if recipe.endswith("Dockerfile"):
        copied = [part for line in re.findall(r"^COPY --chown=\S+ (.+) \S+$", lines(root, recipe), re.MULTILINE) for part in line.split()]
    else:
        copied = re.findall(r"^    (\S+) /opt/untaxed/\S+$", lines(root, recipe), re.MULTILINE)
    assert set(MADE_FROM) <= set(copied)
    assert all((root / name).exists() for name in copied)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_starts_from_a_python_that_the_lock_supports(root, recipe):
    images = re.findall(r"docker\.io/library/python:(\d+)\.(\d+)-slim-bookworm", lines(root, recipe))
    supported = re.search(r"^PYTHONS = (.+)$", (root / "untaxed").read_text(), re.MULTILINE)[1]
    assert len(images) == 1
    assert f"({', '.join(images[0])})" in supported


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_has_the_sandbox_and_says_that_it_was_not_built(root, recipe):
    assert "bubblewrap" in lines(root, recipe)
    assert "UNTESTED" in (root / recipe).read_text()
    assert not re.search(r"(TOKEN|_KEY|PASSWORD)\b", lines(root, recipe)), "secrets come from the environment at the start"


def test_the_image_runs_as_a_user_without_rights(root):
    text = lines(root, "containers/Dockerfile")
    assert "useradd --create-home --uid 1000" in text
    assert re.search(r"^USER 1000$", text, re.MULTILINE)
    assert text.index("USER 1000") < text.index("./untaxed setup")


def test_results_never_enter_an_image(root):
    """They hold harmful text; the Apptainer recipe names each file that it takes."""
    ignored = set((root / ".dockerignore").read_text().splitlines())
    assert {"results", "paper_figures", "logs", ".venv", ".snakemake"} <= ignored
