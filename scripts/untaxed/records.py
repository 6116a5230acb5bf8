"""Files that are either whole or absent: JSON, JSON Lines, YAML and folders, written by atomic rename, and the one error a user sees."""

import difflib
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

ABSENT = "check the path, or run what makes the file (snakemake -n says which rule)"


class UserError(Exception):
    """A mistake that the user can mend: one line that names the file, the key and the fix. Commands print it without a traceback."""


class Lasting(UserError):
    """A mistake in a setting that costs nothing to meet again: until the setting changes, the same command ends in the same way."""


def nearest(name: str, valid: Any, most: int | None = None) -> str:
    """A hint that names the closest valid name, or lists the valid ones, the first `most` of them where there are more."""
    valid = sorted(map(str, valid))
    close = difflib.get_close_matches(str(name), valid, n=1, cutoff=0.5)
    more = f", … ({len(valid)} in all)" if len(valid[:most]) < len(valid) else ""
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(valid[:most]) or 'none is defined'}{more}"


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success and remove it on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path | str) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it replaces `path`, on failure it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` with sorted keys, so that equal content is equal bytes."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Raises UserError when the file is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {ABSENT}") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not JSON (line {error.lineno}: {error.msg}); delete it and run again") from None


def write_yaml(path: Path | str, value: Any) -> None:
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path | str) -> Any:
    """Raises UserError when the file is missing or is not YAML."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {ABSENT}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UserError(
            f"{path}: not YAML{where}: {getattr(error, 'problem', error)}; mend that line (brackets, quotes, indents)"
        ) from None


def write_jsonl(path: Path | str, records: Iterable[dict]) -> int:
    """Write one record a line and return how many there were."""
    count = 0
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as stream:
        for record in records:
            stream.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_jsonl(path: Path | str) -> Iterator[dict]:
    """Stream the records of a JSON Lines file. Raises UserError with the line number when a line is cut or broken."""
    if not Path(path).is_file():
        raise UserError(f"{path}: no such file; {ABSENT}")
    with Path(path).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError:
                raise UserError(f"{path}: line {number} is not JSON; the file is damaged, delete it and run again") from None


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def fingerprint(value: Any) -> str:
    """Twelve hexadecimal characters that identify a JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


def git_commit(place: Path = Path(__file__).parent) -> str:
    """The commit of the code that runs, with "-dirty" where tracked files were changed since; "unknown" outside a repository."""
    try:
        command = ["git", "-C", str(place), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
