"""Copies of the repository in which the smoke study runs for real; one finished run is shared by all tests here."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
import yaml
from untaxed.sandbox import refusal

STUDY = (
    "studies/organism.yaml",
    "studies/smoke.yaml",
    *([] if refusal() is None else ["studies/smoke_no_sandbox.yaml"]),
)  # as the launcher


@dataclass
class Repository:
    """A copy of the repository with this environment, marked as set up."""

    folder: Path
    secret = "hf_thisIsNoRealTokenButLooksLikeOne"

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    @property
    def environment(self) -> dict[str, str]:
        """Jobs find `python` in the copy's environment; sources of assets are those of whoever runs the tests."""
        return os.environ | {
            "PATH": f"{self.folder / '.venv/bin'}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "HF_TOKEN": self.secret,
        }

    def launch(self, *arguments: str, without_network: bool = False, **options) -> subprocess.Popen:
        """Start `./untaxed smoke`; its messages go to the pipe `stderr`."""
        command = [str(self.folder / ".venv/bin/python"), "untaxed", "--plain", "smoke", "--cores", "2", *arguments]
        if without_network and can_unshare():
            command = ["unshare", "--net", *command]
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **options
        )

    def finish(self, *arguments: str, **options) -> tuple[int, str]:
        """Run `./untaxed smoke` to its end. Returns (exit code, messages)."""
        process = self.launch(*arguments, **options)
        try:
            said = process.communicate()[1]
        finally:  # also when the tests are stopped or run out of time
            self.kill()
        return process.returncode, said

    def kill(self) -> None:
        """End everything that works in the copy at once, as a power cut does."""
        while members := self.processes():
            for member in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            time.sleep(0.1)

    def snakemake(self, *arguments: str, overlay: dict | None = None) -> subprocess.CompletedProcess:
        """Run Snakemake itself on the smoke study, with an overlay laid over it."""
        files = list(STUDY)
        if overlay is not None:
            (self.folder / "overlay.yaml").write_text(yaml.safe_dump(overlay))
            files.append("overlay.yaml")
        command = [str(self.folder / ".venv/bin/python"), "-m", "snakemake", "--cores", "2", *arguments, "--configfile", *files]
        return subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300, check=False)

    def planned(self, *arguments: str, overlay: dict | None = None) -> dict[str, str]:
        """The jobs that a dry run lists: message -> reason. The messages of the closing rules `all`, … are left out."""
        result = self.snakemake("--dry-run", *arguments, overlay=overlay)
        assert result.returncode == 0, result.stdout + result.stderr
        text = result.stdout + result.stderr
        found = dict(re.findall(r"^Job \d+: (.*)\nReason: (.*)$", text, flags=re.MULTILINE))
        assert found or "Nothing to be done" in text, text
        found.pop("Figures, tables and claims of the study are in place", None)
        return found

    def json(self, path: str) -> dict:
        return json.loads((self.folder / path).read_text())

    def records(self, path: str) -> list[dict]:
        return [json.loads(line) for line in (self.folder / path).read_text().splitlines()]

    def processes(self) -> list[int]:
        """The processes that work in this folder."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                state = (process / "stat").read_text().rpartition(")")[2].split()[0]
                if (process / "cwd").resolve() == self.folder and state != "Z" and int(process.name) != os.getpid():
                    found.append(int(process.name))
            except OSError:
                continue
        return found


def can_unshare() -> bool:
    """Whether this user may start a process that has no network."""
    return bool(shutil.which("unshare")) and not subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode


def snapshot(root: Path, folder: Path) -> None:
    """Copy every file that git tracks or would track, and link this environment."""
    listing = subprocess.run(["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True, check=True)
    for name in sorted(set(filter(None, listing.stdout.split("\0")))):
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(root / name, folder / name)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(Path(sys.prefix) / name)
    loader = SourceFileLoader("launcher_of_the_copy", str(folder / "untaxed"))
    launcher = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(launcher)
    (folder / ".venv/untaxed.json").write_text(json.dumps(launcher.wanted_stamp(vllm_cpu=False)))


@dataclass
class Finished(Repository):
    """A copy in which the smoke study ran from nothing to its end."""

    seconds: float  # wall time of the study, from its first job to its report
    said: str  # what the launcher said
    ran: Counter  # how many jobs of each rule ran


@pytest.fixture(scope="session")
def repository(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Repository]:
    """Make a copy of the repository, as it was when the tests began, under a name."""
    pristine = tmp_path_factory.mktemp("pristine")
    snapshot(root, pristine)

    def copy(name: str) -> Repository:
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(pristine, folder, symlinks=True, dirs_exist_ok=True)
        return Repository(folder.resolve())

    return copy


@pytest.fixture(scope="session")
def assets(repository: Callable[[str], Repository]) -> Repository:
    """A copy that has fetched what the smoke study needs from outside, and nothing else."""
    copy = repository("assets")
    result = copy.snakemake("assets")
    assert result.returncode == 0, result.stdout + result.stderr
    return copy


@pytest.fixture(scope="session")
def finished(assets: Repository) -> Finished:
    """The smoke study, run once: assets with the network, everything after them without."""
    started = time.monotonic()
    code, said = assets.finish(without_network=True)
    assert code == 0, said
    seconds = time.monotonic() - started
    log = (assets / "logs/smoke/snakemake.log").read_text()
    return Finished(assets.folder, seconds, said, Counter(re.findall(r"Finished jobid: \d+ \(Rule: (\w+)\)", log)))
