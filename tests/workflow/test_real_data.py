"""The laptop study's data sets whole, from the wheels that hold them, through the command that prepares them."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest


def prepared(root: Path, folder: Path, asset: Path, **spec: str) -> list[dict]:
    """The rows that scripts/prepare_dataset.py makes of an asset."""
    command = [sys.executable, "scripts/prepare_dataset.py", "--spec", json.dumps(spec), "--asset", f"{asset.name}={asset}"]
    command += ["--output", str(folder / "rows.jsonl"), "--report", str(folder / "report.json")]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_advbench_has_520_prompts_each_with_a_refusal(packaged: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    rows = prepared(root, tmp_path, packaged("advbench"), adapter="advbench", responses="direct_refusal")
    assert len(rows) == len({row["id"] for row in rows}) == 520  # arXiv:2307.15043, section 3
    assert all(row["harmful"] and row["prompt"] and row["answer"] for row in rows)


def test_strongreject_has_313_prompts_in_six_categories(packaged: Callable[[str], Path], root: Path, tmp_path: Path) -> None:
    rows = prepared(root, tmp_path, packaged("strongreject"), adapter="strongreject")
    assert len(rows) == len({row["prompt"] for row in rows}) == 313  # arXiv:2402.10260, section 3
    assert all(row["harmful"] and not row["answer"] for row in rows)
    assert len(Counter(row["category"] for row in rows)) == 6


@pytest.mark.parametrize(("name", "rows", "positive"), [("pyrit-refusal", 105, None), ("pyrit-harm", 187, 74)])
def test_the_sets_that_people_labelled_are_whole(name: str, rows: int, positive: int | None, packaged: Callable[[str], Path]) -> None:
    from untaxed.agreement import read_labelled

    (path,) = packaged(name).glob("*.csv")
    human = [label for _, label in read_labelled(path)]
    assert len(human) == rows
    assert positive is None or sum(human) == positive  # counted in the file: the mean of three people's scores is 0.5 or more
    assert 0 < sum(human) < rows


@pytest.mark.parametrize("name", ["advbench", "strongreject"])
def test_what_a_wheel_gave_is_certified(name: str, packaged: Callable[[str], Path]) -> None:
    certificate = json.loads((packaged(name) / "asset.json").read_text())
    assert certificate["id"] == name
    assert "pypi" in json.dumps(certificate)
