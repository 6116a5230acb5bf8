"""Fixtures that every test shares, and the record by which `./untaxed test` goes on after a stop."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))


def pytest_configure(config: pytest.Config) -> None:
    if record := os.environ.pop("UNTAXED_TESTS", None):  # set by the launcher, and not for what the tests start
        from untaxed.progress import Recorder

        config.pluginmanager.register(Recorder(Path(record)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder with real bytes of public data sets that stands in for the network."""
    folder = Path(os.environ.get("UNTAXED_MIRROR", ROOT.parent / "shared" / "mirror"))
    if not (folder / "catalog.yaml").exists():
        pytest.skip(f"no data mirror (set UNTAXED_MIRROR; looked at {folder})")
    return folder
