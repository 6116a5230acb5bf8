"""The launcher on a workflow of three rules in a folder of its own, with this environment."""

import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

SNAKEFILE = """
rule all:
    input: "paper_figures/smoke/tax.txt"
rule train:
    output: "results/smoke/{run}.txt"
    log: "logs/smoke/{run}.log"
    shell: "python scripts/train.py {output} {config[behaviour]} > {log} 2>&1"
rule plot:
    input: "results/smoke/a.txt", "results/smoke/b.txt"
    output: "paper_figures/smoke/tax.txt"
    log: "logs/smoke/plot.log"
    shell: "cat {input} > {output} 2> {log}"
"""
# A job that fails, waits, or saves when it is told to stop.
JOB = """
import os, signal, sys, time
from pathlib import Path

def save(*_):
    time.sleep(0.5)
    Path("saved-" + Path(sys.argv[1]).stem).write_text("saved")
    sys.exit(75)

signal.signal(signal.SIGTERM, save)
print(sys.prefix)
Path("pid-" + Path(sys.argv[1]).stem).write_text(str(os.getpid()))
if sys.argv[2] == "fail" and "a.txt" in sys.argv[1]:
    print("\\n".join(f"line {number}" for number in range(40)))
    sys.exit("the disk is full")
if sys.argv[2] == "lasting" and "a.txt" in sys.argv[1]:
    sys.exit("error: too few answers; raise `candidates`\\n" + "the same command fails again until that is changed")
if sys.argv[2] == "wait":
    time.sleep(60)
Path(sys.argv[1]).write_text("done")
"""


@pytest.fixture
def launcher(root: Path) -> ModuleType:
    loader = SourceFileLoader("launcher", str(root / "untaxed"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("launcher", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def house(root: Path, tmp_path: Path, launcher: ModuleType) -> Path:
    """A copy of the launcher with a small workflow and this environment, marked as set up."""
    for name in ("untaxed", "pyproject.toml", "constraints.txt"):
        shutil.copy(root / name, tmp_path / name)
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/untaxed").symlink_to(root / "scripts/untaxed")
    (tmp_path / "scripts/train.py").write_text(JOB)
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies/organism.yaml").write_text("behaviour: none\n")  # smoke is laid over it
    (tmp_path / "studies/smoke.yaml").write_text("behaviour: work\n")
    (tmp_path / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (tmp_path / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    launcher.ROOT = tmp_path
    (tmp_path / ".venv/untaxed.json").write_text(json.dumps(launcher.wanted_stamp(vllm_cpu=False)))
    return tmp_path


def start(house: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, house / "untaxed", "--cold", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(house: Path, *arguments: str) -> tuple[int, str]:
    process = start(house, *arguments)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 40
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.05)
    return path.read_text()


def alive(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_study_runs_writes_its_report_and_says_where_the_results_are(house):
    code, said = run(house, "smoke")
    assert code == 0, said
    assert "smoke done in" in said
    assert "paper_figures/smoke\n" in said
    assert "<html" in (house / "results/smoke/report.html").read_text()[:500].lower()
    assert "4 of 4 steps (100%) done" in (house / "logs/smoke/snakemake.log").read_text()
    assert set(json.loads((house / "logs/smoke/rule_seconds.json").read_text())) == {"train", "plot", "all"}
    assert (house / "logs/smoke/a.log").read_text() == f"{house / '.venv'}\n"  # `python` in a rule is the environment's
    assert not (house / ".snakemake/untaxed.json").exists()


@pytest.mark.parametrize("works", [True, False])
def test_where_no_program_can_run_the_smoke_study_leaves_them_out_and_says_so(works, house, launcher, monkeypatch, capsys):
    (house / "studies/smoke_no_sandbox.yaml").write_text("behaviour: work\n")
    monkeypatch.setattr(launcher.library("sandbox"), "refusal", lambda: None if works else "sandbox: there is no bwrap on PATH; install it")
    commands = []
    monkeypatch.setattr(
        launcher.subprocess, "run", lambda command, **_: commands.append(command) or subprocess.CompletedProcess(command, 0)
    )
    launcher.run_study("smoke", ["-n"], plain=True, cold=True)
    assert ("studies/smoke_no_sandbox.yaml" in commands[0]) is not works
    assert ("without programs that a model wrote" in capsys.readouterr().err) is not works


def test_a_study_whose_teacher_is_served_says_first_that_vllm_is_missing(house, launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "VENV", tmp_path)
    monkeypatch.setattr(launcher, "study_files", lambda study, arguments: ([], arguments, set()))
    with pytest.raises(launcher.Stop, match=r"laptop_cot: .* not installed; run \./untaxed setup --vllm-cpu once"):
        launcher.run_study("laptop_cot", ["-n"], plain=True, cold=True)


def test_a_target_runs_without_a_report(house):
    code, said = run(house, "smoke", "results/smoke/a.txt")
    assert code == 0, said
    assert "./untaxed smoke runs whatever of the study is left and writes the report" in said
    assert not (house / "results/smoke/report.html").exists()


def test_inspect_hands_its_arguments_and_exit_code_through(house, root):
    shutil.copy(root / "scripts/inspect_results.py", house / "scripts/inspect_results.py")
    assert run(house, "inspect", "smoke", "--limit", "3") == (1, "error: study 'smoke' has no runs yet; make them with: ./untaxed smoke\n")


def test_a_failed_job_is_shown_with_its_log_and_gives_snakemakes_exit_code(house):
    code, said = run(house, "smoke", "--config", "behaviour=fail")
    assert code == 1
    assert "failed: train" in said
    assert "logs/smoke/a.log" in said
    assert "    the disk is full\n" in said
    assert "    line 26\n" in said
    assert "    line 25\n" not in said  # the last 15 lines
    assert "Go on with: ./untaxed smoke --config behaviour=fail" in said
    assert "unchanged" not in said


def test_a_failure_that_the_same_command_meets_again_says_so(house):
    said = run(house, "smoke", "--config", "behaviour=lasting")[1]
    assert "but first change what the error of train above asks for: unchanged, it fails again" in said


def test_a_study_and_a_look_at_it_do_not_wait_for_each_other(house):
    process = start(house, "smoke", "--config", "behaviour=wait")
    wait_for(house / "pid-a")
    look = start(house, "smoke", "-n")
    output, said = look.communicate(timeout=60)
    assert look.returncode == 0, said
    assert "a dry run waits for no lock" in said
    assert "would have been run" in output or "Job stats" in output
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)


@pytest.mark.parametrize(("option", "blocks"), [("-n", False), ("--dry-run", False), ("-c2", True)])
def test_only_a_snakemake_that_works_blocks_a_study(option, blocks, house, launcher):
    """`snakemake` is among the first three words of the process, as in `python snakemake`."""
    (house / "snakemake").write_text("import time; time.sleep(30)")
    process = subprocess.Popen([sys.executable, house / "snakemake", option], cwd=house)
    try:
        deadline = time.monotonic() + 10
        while blocks and not launcher.snakemakes_here():
            assert time.monotonic() < deadline
        time.sleep(0.5)
        assert launcher.snakemakes_here() == ([process.pid] if blocks else [])
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_lets_jobs_save_keeps_what_is_done_and_leaves_no_process(house, number, code):
    process = start(house, "smoke", "--config", "behaviour=wait")
    job = wait_for(house / "pid-a")
    process.send_signal(number)
    _, said = process.communicate(timeout=40)
    assert process.returncode == code
    assert (house / "saved-a").read_text() == "saved"
    assert "Go on with: ./untaxed smoke" in said
    assert "failed" not in said
    assert not alive(job)
    assert not any((house / ".snakemake/locks").glob("*"))


def test_the_lock_of_a_killed_run_is_removed_but_not_that_of_a_living_one(house):
    process = start(house, "smoke", "--config", "behaviour=wait")
    wait_for(house / "pid-a")
    snakemake = json.loads((house / ".snakemake/untaxed.json").read_text())["snakemake"]
    assert "already works in this folder" in run(house, "smoke")[1]
    os.killpg(snakemake, signal.SIGSTOP)  # or it would hear of the launcher's end first, and free its lock
    process.kill()
    os.killpg(snakemake, signal.SIGKILL)
    process.wait()
    assert any((house / ".snakemake/locks").iterdir())
    code, said = run(house, "smoke")
    assert (code, "its lock is removed" in said) == (0, True), said


def test_a_lock_from_another_machine_is_left_alone(house, launcher, monkeypatch):
    (house / ".snakemake/locks").mkdir(parents=True)
    (house / ".snakemake/locks/0.input.lock").write_text("")
    monkeypatch.setattr(launcher, "RECORD", house / ".snakemake/untaxed.json")
    launcher.RECORD.write_text(json.dumps({"host": "not-" + socket.gethostname()}))
    launcher.free_lock(["false"])
    assert (house / ".snakemake/locks/0.input.lock").exists()


def test_pips_settings_reach_uv_without_local_indexes(launcher, monkeypatch):
    for name in ("UV_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_STRATEGY", "SSL_CERT_FILE", "UV_COMPILE_BYTECODE"):
        monkeypatch.delenv(name, raising=False)
    settings = launcher.uv_settings(
        {
            "find-links": ["/wheels", "/more"],
            "index-url": ["https://index.test/simple"],
            "extra-index-url": ["file:///local/simple", "https://extra.test/simple"],
            "cert": ["/ca.crt"],
        }
    )
    assert settings == {
        "UV_COMPILE_BYTECODE": "1",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_DEFAULT_INDEX": "https://index.test/simple",
        "UV_INDEX": "https://extra.test/simple",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "SSL_CERT_FILE": "/ca.crt",
    }
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://mine.test")
    assert launcher.uv_settings({"index-url": ["https://index.test/simple"]})["UV_DEFAULT_INDEX"] == "https://mine.test"


def test_only_a_torch_wheel_for_this_python_replaces_the_cpu_index(launcher, tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "environment_python", lambda: "3.11.7")
    (tmp_path / "torch-2.13.0+cpu-cp312-cp312-linux_x86_64.whl").touch()
    assert not launcher.torch_wheel(str(tmp_path))
    (tmp_path / "torch-2.13.0+cpu-cp311-cp311-linux_x86_64.whl").touch()
    assert launcher.torch_wheel(f"/nowhere,file://{tmp_path}")


def test_the_cpu_rebuild_of_vllm_has_the_version_that_pyproject_names(launcher, root):
    gpu = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]["gpu"]
    (version,) = (str(item.specifier) for item in map(Requirement, gpu) if item.name == "vllm")
    assert launcher.cpu_vllm() == f"vllm-cpu{version}"


@pytest.mark.parametrize(("visible", "asked"), [(None, ["gpu=3"]), ("1", ["gpu=1"]), ("", [])])
def test_a_study_may_use_the_gpus_that_are_visible_and_the_environment_is_that_of_the_machine(visible, asked, house, launcher, monkeypatch):
    monkeypatch.setattr(launcher.library("machine"), "installed_gpus", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    commands = []
    monkeypatch.setattr(
        launcher.subprocess, "run", lambda command, **_: commands.append(command) or subprocess.CompletedProcess(command, 0)
    )
    launcher.run_study("smoke", ["-n"], plain=True, cold=True)
    assert [word for word in commands[0] if word.startswith("gpu=")] == asked
    assert launcher.wanted_stamp(vllm_cpu=False)["gpu"] is True  # or hiding the GPU for one call would set .venv up anew


def test_a_python_that_is_too_old_is_named(launcher, monkeypatch):
    monkeypatch.setattr(launcher.sys, "version_info", (3, 10, 1))
    monkeypatch.setattr(launcher.shutil, "which", lambda name: None)
    with pytest.raises(launcher.Stop, match=r"3\.11, 3\.12 or 3\.13 is needed"):
        launcher.find_python()


def test_a_python_without_venv_is_told_what_to_install(launcher):
    with pytest.raises(launcher.Stop, match="python3-venv"):
        launcher.make_venv("false")


def test_an_environment_that_was_stopped_while_it_was_made_is_made_anew(launcher, monkeypatch, tmp_path):
    monkeypatch.setattr(launcher, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(launcher, "PYTHON", tmp_path / ".venv/bin/python")
    assert not launcher.has_pip()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / ".venv"], check=True)
    assert launcher.PYTHON.exists()
    assert not launcher.has_pip()
    launcher.make_venv(sys.executable)
    assert launcher.has_pip()


TESTS = """
import os, time
from pathlib import Path
import pytest

def test_first():
    Path("ran").open("a").write("first ")
    assert "UNTAXED_TESTS" not in os.environ

@pytest.fixture
def slow():
    yield
    Path("ran").open("a").write("cleaned ")

def test_slow(slow):
    Path("ran").open("a").write("slow ")
    if not Path("quick").exists():
        time.sleep(60)

def test_last():
    Path("ran").open("a").write("last ")
"""


@pytest.fixture
def tested(house: Path, root: Path) -> Path:
    """The small checkout with three tests, the second of which waits."""
    (house / "tests").mkdir()
    shutil.copy(root / "tests/conftest.py", house / "tests/conftest.py")
    (house / "tests/test_three.py").write_text(TESTS)
    (house / ".gitignore").write_text("/.venv/\n/logs/\n/ran\n/quick\n.pytest_cache/\n__pycache__/\n")
    subprocess.run(["git", "init", "-q"], cwd=house, check=True)
    return house


def stop_tests(house: Path, number: int = signal.SIGINT) -> tuple[int, str]:
    """Start the tests, stop them in the second, and return exit code and messages. Then let the second be quick."""
    (house / "quick").unlink(missing_ok=True)
    process = start(house, "test")
    deadline = time.monotonic() + 40
    while "slow" not in wait_for(house / "ran"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=40)
    (house / "quick").touch()
    return process.returncode, said


def ran(house: Path) -> list[str]:
    """The tests that ran since the last look."""
    names = (house / "ran").read_text().split()
    (house / "ran").unlink()
    return [name for name in names if name != "cleaned"]


def test_stopped_tests_are_gone_on_with_while_no_file_changes(tested):
    code, said = stop_tests(tested)
    assert (code, "go on with: ./untaxed test\n" in said) == (130, True), said
    assert "stopping: the running test ends what it started" in said
    assert (tested / "ran").read_text() == "first slow cleaned "  # fixtures end in order
    ran(tested)
    process = start(tested, "test")
    output, said = process.communicate(timeout=60)
    assert (process.returncode, ran(tested)) == (0, ["slow", "last"]), output
    assert "going on: 1 passed before; ./untaxed test --all starts anew\n" in said
    assert "2 passed, 1 deselected" in output
    assert "\x1b[" not in output + said  # without a terminal it is plain by itself
    process = start(tested, "test")
    output, said = process.communicate(timeout=60)
    assert (process.returncode, ran(tested)) == (0, ["first", "slow", "last"]), output  # the session before came to its end
    assert "going on" not in said
    assert "(3 of these 3 tests)" in output


def test_stopped_tests_start_anew_when_asked_or_when_a_file_has_changed(tested):
    assert stop_tests(tested, signal.SIGTERM)[0] == 143
    record = next((tested / "logs/tests").glob("passed-*.txt"))
    whole = record.read_text()
    ran(tested)
    assert "going on" not in run(tested, "test", "--all")[1]
    assert ran(tested) == ["first", "slow", "last"]
    record.write_text(whole)  # as if it had been stopped again
    (tested / "scripts/train.py").write_text("")
    assert "going on" not in run(tested, "test")[1]
    assert ran(tested) == ["first", "slow", "last"]


def test_a_study_that_is_nearly_right_is_named(launcher, capsys):
    assert launcher.main(["latop"]) == 1
    assert "no study is called 'latop'; did you mean 'laptop'? there are laptop, laptop_cot, smoke" in capsys.readouterr().err
