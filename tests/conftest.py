"""Fixtures that every test shares."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository root."""
    return ROOT


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The folder with real bytes of public data sets that stands in for the network."""
    import os

    folder = Path(os.environ.get("UNTAXED_MIRROR", ROOT.parent / "shared" / "mirror"))
    if not (folder / "catalog.yaml").exists():
        pytest.skip(f"no data mirror (set UNTAXED_MIRROR; looked at {folder})")
    return folder
