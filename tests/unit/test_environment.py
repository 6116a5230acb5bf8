"""One set of versions: what pyproject.toml asks for, what constraints.txt locks, what envs/*.yaml install and what runs here."""

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

STAGES = ("core", "train", "infer", "plot")
SNAKEMAKE_ONLY = {"snakemake", "snakemake-executor-plugin-slurm", "rich", "threadpoolctl"}  # what runs the workflow, no job


def locked(root: Path, python: str = "3.11.7") -> dict[str, str]:
    """The version of each package in constraints.txt for one Python."""
    requirements = map(Requirement, (root / "constraints.txt").read_text().splitlines())
    machine = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "sys_platform": "linux",
        "platform_machine": "x86_64",
    }
    return {item.name: str(item.specifier).removeprefix("==") for item in requirements if not item.marker or item.marker.evaluate(machine)}


def declared(root: Path, *extras: str) -> list[Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    return [
        Requirement(line)
        for line in [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    ]


def stage_requirements(root: Path, stage: str) -> list[Requirement]:
    content = yaml.safe_load((root / "envs" / f"{stage}.yaml").read_text())
    return [Requirement(line) for entry in content["dependencies"] if isinstance(entry, dict) for line in entry["pip"]]


@pytest.mark.parametrize("python", ["3.11.7", "3.12.4", "3.13.1"])
def test_the_lock_has_one_version_of_everything_that_pyproject_asks_for(root, python):
    versions = locked(root, python)
    for requirement in declared(root, "test", "gpu"):
        version = versions[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement} is locked as {version}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_installs_the_locked_versions_and_only_declared_packages(root, stage):
    versions, names = locked(root), {canonicalize_name(requirement.name) for requirement in declared(root, "gpu")}
    for requirement in stage_requirements(root, stage):
        assert str(requirement.specifier) == f"=={versions[requirement.name]}", f"envs/{stage}.yaml: {requirement.name}"
        assert requirement.name in names, f"envs/{stage}.yaml: {requirement.name} is not in pyproject.toml"


def test_each_declared_package_belongs_to_a_stage(root):
    staged = {requirement.name for stage in STAGES for requirement in stage_requirements(root, stage)}
    assert {canonicalize_name(requirement.name) for requirement in declared(root, "gpu")} - staged == SNAKEMAKE_ONLY


LIBRARIES = {
    "huggingface_hub": "huggingface-hub",
    "yaml": "pyyaml",
    "lm_eval": "lm-eval",
    "math_verify": "math-verify",
    "reasoning_gym": "reasoning-gym",
}


def imported(path: Path) -> set[str]:
    """The distributions that a file imports anywhere in it, the standard library and our own modules left out."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add(node.module.partition(".")[0])
    return {LIBRARIES.get(name, name) for name in names - set(sys.stdlib_module_names) - {"untaxed", "grading"}}


def test_every_library_that_the_code_imports_is_declared_and_not_only_brought_along(root):
    names = {canonicalize_name(requirement.name) for requirement in declared(root, "gpu")}
    found = set().union(*map(imported, [*root.glob("scripts/**/*.py"), *root.glob("benchmarks/*.py")]))
    assert found <= names


@pytest.mark.parametrize("module", ["assets", "records", "datasets"])
def test_fetching_and_preparing_need_nothing_outside_their_environment(module, root):
    core = {requirement.name for requirement in stage_requirements(root, "core")}
    assert imported(root / f"scripts/untaxed/{module}.py") <= core


def test_this_environment_has_the_locked_versions(root):
    versions = locked(root, ".".join(map(str, sys.version_info[:3])))
    installed = {requirement.name: importlib.metadata.version(requirement.name) for requirement in declared(root, "test")}
    different = {name: version for name, version in installed.items() if version.partition("+")[0] != versions[canonicalize_name(name)]}
    assert not different, "run ./untaxed setup"


def test_no_file_of_the_environment_holds_an_address_or_a_folder(root):
    for path in (root / "constraints.txt", root / "pyproject.toml", *(root / "envs").rglob("*.*")):
        assert not re.search(r"https?://|file:|\bgit\+|find-links|index-url", path.read_text(), re.IGNORECASE), path


def test_the_optional_cpu_build_of_vllm_has_the_version_of_the_gpu_extra(root):
    (gpu,) = (requirement for requirement in declared(root, "gpu") if requirement.name == "vllm")
    version = str(gpu.specifier).removeprefix("==")
    metadata = tomllib.loads((root / "envs/vllm-cpu/vllm/pyproject.toml").read_text())["project"]
    assert metadata["version"] == f"{version}+cpu"


def test_the_cpu_build_of_vllm_moves_no_locked_version(root):
    lines = (root / "envs/vllm-cpu/overrides.txt").read_text().splitlines()
    overrides = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for override in overrides:
        left_out = override.marker is not None and not override.marker.evaluate()
        assert left_out or str(override.specifier) == f"=={locked(root)[override.name]}"
