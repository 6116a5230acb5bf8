"""The configuration as files: config.yaml and its overlays become one `Study`; every wrong key gets one line that names it and the fix."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel, ValidationError

from untaxed.records import UserError, nearest, read_yaml
from untaxed.schema import Config
from untaxed.study import Study, place


def _path(error: Any) -> str:
    """The dotted key of a pydantic error, without the tags of the branches that pydantic tried."""
    return ".".join(str(part) for part in error["loc"] if not (isinstance(part, str) and ("[" in part or part.startswith("constrained"))))


def _explain(error: Any) -> str:
    """What is wrong with a key, and the fix."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key; {nearest(error['loc'][-1], _fields_at(error['loc'][:-1]))}"
    if kind == "missing":
        return "this key is required; add it"
    given = repr(error["input"])[:60]
    if kind == "literal_error":
        return f"{given} is not one of {context['expected']}"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"must be a mapping of keys (given: {given})"
    return f"{error['msg'][0].lower()}{error['msg'][1:]} (given: {given})"


def _fields_at(location: tuple) -> list[str]:
    """Field names valid at a location of the configuration."""
    kind: Any = Config
    for part in location:
        if isinstance(kind, UnionType):  # a section that may be left out
            kind = next((a for a in kind.__args__ if hasattr(a, "model_fields")), kind)
        fields = getattr(kind, "model_fields", None)
        if fields is None or part not in fields:
            arguments = [a for a in getattr(kind, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            kind = arguments[-1] if arguments else kind
            continue
        kind = fields[part].annotation
    if not hasattr(kind, "model_fields"):
        kind = next((a for a in getattr(kind, "__args__", ()) if hasattr(a, "model_fields")), Config)
    return list(kind.model_fields)


def load(mapping: dict, root: Path | str = ".", files: Sequence[Path | str] = ()) -> Study:
    """Check a configuration that was merged from `files` and return the study. Raises UserError with every fault, one line each."""
    try:
        config = Config.model_validate(mapping)
    except ValidationError as error:
        faults: dict[str, list[str]] = {}  # a key that may hold one of two types has a fault for each
        for fault in error.errors():
            faults.setdefault(_path(fault), []).append(_explain(fault))
        raise UserError("\n".join(f"{place(files, key)}: {key}: {'; or: '.join(found)}" for key, found in faults.items())) from None
    return Study(config, Path(root), files)


def read(paths: list[Path | str], root: Path | str = ".") -> Study:
    """Load config.yaml and overlays in the order Snakemake merges them: mappings by key, all else replaced."""
    merged: dict = {}
    for path in paths:
        value = read_yaml(path)
        if not isinstance(value, dict):
            raise UserError(f"{path}: must be a mapping of keys; found {type(value).__name__}")
        merged = merge(merged, value)
    return load(merged, root, paths)


def in_order(paths: Sequence[Path | str], root: Path | str = ".") -> list[Path]:
    """config.yaml, then the overlays, as Snakemake merges them (it lists config.yaml last); each relative to `root` where it lies there."""
    root = Path(root).resolve()
    base = root / "config.yaml"
    found = [base, *(path for path in ((root / path).resolve() for path in paths) if path != base)]
    return [path.relative_to(root) if path.is_relative_to(root) else path for path in found]


def load_or_exit(mapping: dict, root: Path | str = ".", files: Sequence[Path | str] = ()) -> Study:
    """`load` for the Snakefile: a faulty configuration prints its lines and ends with exit code 1, without a traceback."""
    try:
        return load(mapping, root, files)
    except UserError as error:
        print("\n".join(f"error: {line}" for line in str(error).splitlines()), file=sys.stderr)
        sys.exit(1)


def merge(under: dict, over: dict) -> dict:
    """Return `under` updated by `over`, mapping by mapping."""
    result = dict(under)
    for key, value in over.items():
        result[key] = merge(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result
