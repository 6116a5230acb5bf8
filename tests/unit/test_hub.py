"""The real huggingface_hub client against a local server that speaks the hub's protocol: redirects, 429, 5xx, broken transfers, locking."""

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from untaxed import assets
from untaxed.assets import fetch, load_lock
from untaxed.records import UserError, read_yaml

REVISION = "c0ffee" + "0" * 34
TABLE = b'{"q": 1}\n{"q": 2}\n{"q": 3}\n'
WEIGHTS = bytes(range(256)) * 400
FILES = {"data/train.jsonl": TABLE, "config.json": b"{}\n", "model.safetensors": WEIGHTS, "README.md": b"read me\n"}


class Hub(BaseHTTPRequestHandler):
    """Answers of one repository, owner/name, of either type. `faults` holds one fault per coming request of a kind."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = self.path.split("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        self.server.tokens.add((path.split("/")[1] == "cdn", self.headers.get("Authorization")))
        kind = "api" if path.startswith("/api") else "cdn" if path.startswith("/cdn") else "resolve"
        fault = self.server.faults.get(kind) and self.server.faults[kind].pop(0)
        if isinstance(fault, int):
            return self.send(fault, {"Retry-After": "0"} if fault == 429 else {}, b"", body)
        if kind == "api":
            return self.send(200, {"Content-Type": "application/json"}, json.dumps(self.listing(path)).encode(), body)
        if kind == "cdn":
            return self.send(200, {}, FILES[path.removeprefix("/cdn/")], body, cut=fault)
        revision, name = re.fullmatch(r"(?:/datasets)?/owner/name/resolve/([^/]+)/(.+)", path).groups()
        if revision != REVISION or name not in FILES:
            return self.send(404, {"X-Error-Code": "EntryNotFound"}, b"", body)
        content = FILES[name]
        headers = {
            "X-Repo-Commit": REVISION,
            "X-Linked-Etag": hashlib.sha256(content).hexdigest(),
            "X-Linked-Size": len(content),
            "Location": f"http://localhost:{self.server.server_port}/cdn/{name}",  # another origin, as the real CDN is
        }
        return self.send(302, headers, b"", body)

    def listing(self, path):
        if "/tree/" in path:
            return [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()} for n, b in FILES.items()]
        siblings = [{"rfilename": n, "size": len(b), "blobId": hashlib.sha1(b).hexdigest()} for n, b in FILES.items()]
        for sibling in siblings:
            if sibling["rfilename"].endswith(".safetensors"):
                sibling["lfs"] = {"size": len(WEIGHTS), "sha256": hashlib.sha256(WEIGHTS).hexdigest(), "pointerSize": 130}
        return {"id": "owner/name", "sha": REVISION, "siblings": siblings, "tags": []}

    def send(self, status, headers, content, body, cut=None):
        start = 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(asked[1]), 206
            self.server.ranges.append(start)
            headers = {**headers, "Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self.send_response(status)
        for name, value in {**headers, "ETag": '"e"', "Content-Length": len(content) - start}.items():
            self.send_header(name, str(value))
        self.end_headers()
        if body:
            self.wfile.write(content[start : cut[0] if cut else None])
        if cut:
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "RETRY_WAIT", 0.01)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    server.asked, server.faults, server.tokens, server.ranges = [], {}, set(), []
    server.environ = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "hf")}
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def file_entry(name, local=None, rows=None):
    content = FILES[name]
    return {"file": local or name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "rows": rows}


def lock_of(tmp_path, **keys):
    source = {"hub": "owner/name", "repo_type": "dataset", "revision": REVISION, "path": "data/train.jsonl"}
    entry = {"licence": "MIT", "purpose": "test", "format": "jsonl", "files": [file_entry("data/train.jsonl", "train.jsonl", 3)]}
    entry = {**entry, "sources": [source], **keys}
    path = tmp_path / "lock.yaml"
    path.write_text(
        "# a comment\nversion: 1\nassets:\n" + indented({"a": entry}) + "  # about b\n" + indented({"b": {**entry, "licence": "X"}})
    )
    return path


def indented(value):
    return "".join(f"  {line}\n" for line in yaml.safe_dump(value, sort_keys=False).splitlines())


def test_a_file_comes_through_the_redirect_at_the_pinned_revision(hub, tmp_path):
    fetch("a", load_lock(lock_of(tmp_path)), tmp_path / "out", hub.environ)
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == TABLE
    assert f"HEAD /datasets/owner/name/resolve/{REVISION}/data/train.jsonl" in hub.asked
    assert "GET /cdn/data/train.jsonl" in hub.asked
    assert {token for _, token in hub.tokens} == {None}


def test_the_token_goes_to_the_hub_but_not_to_its_cdn(hub, tmp_path):
    fetch("a", load_lock(lock_of(tmp_path, gated=True)), tmp_path / "out", hub.environ | {"HF_TOKEN": "hf_secret"})
    assert hub.tokens == {(False, "Bearer hf_secret"), (True, None)}


def test_429_is_waited_for_by_the_client(hub, tmp_path):
    hub.faults["resolve"] = [429]
    fetch("a", load_lock(lock_of(tmp_path)), tmp_path / "out", hub.environ)
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == TABLE


def test_503_on_the_body_is_tried_again_by_us(hub, tmp_path):
    hub.faults["cdn"] = [503]
    fetch("a", load_lock(lock_of(tmp_path)), tmp_path / "out", hub.environ)
    assert hub.asked.count("GET /cdn/data/train.jsonl") == 2


def test_a_broken_transfer_is_resumed_at_the_last_whole_chunk(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 4)  # 10 MiB in the client
    hub.faults["cdn"] = [(10,)]
    fetch("a", load_lock(lock_of(tmp_path)), tmp_path / "out", hub.environ)
    assert (tmp_path / "out" / "train.jsonl").read_bytes() == TABLE
    assert hub.ranges == [8]


def test_a_second_fetch_takes_the_cached_file(hub, tmp_path):
    lock = load_lock(lock_of(tmp_path))
    fetch("a", lock, tmp_path / "out", hub.environ)
    hub.asked.clear()
    fetch("a", lock, tmp_path / "again", hub.environ)
    assert not [line for line in hub.asked if line.startswith("GET")]


def test_a_folder_is_a_snapshot_of_the_locked_files(hub, tmp_path):
    source = {"hub": "owner/name", "repo_type": "model", "revision": REVISION, "path": "/"}
    files = [file_entry("config.json"), file_entry("model.safetensors")]
    fetch("a", load_lock(lock_of(tmp_path, format="model", files=files, sources=[source])), tmp_path / "out", hub.environ)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["asset.json", "config.json", "model.safetensors"]


def test_changed_bytes_on_the_hub_are_refused(hub, tmp_path):
    wrong = {**file_entry("data/train.jsonl", "train.jsonl"), "sha256": "0" * 64}
    with pytest.raises(UserError, match=r"hub owner/name@c0ffee000000: train\.jsonl: expected 27 bytes with sha256 0000"):
        fetch("a", load_lock(lock_of(tmp_path, files=[wrong])), tmp_path / "out", hub.environ)


def test_a_missing_file_is_told(hub, tmp_path):
    source = {"hub": "owner/name", "revision": REVISION, "path": "data/none.jsonl"}
    with pytest.raises(UserError, match="no such file or revision"):
        fetch("a", load_lock(lock_of(tmp_path, sources=[source])), tmp_path / "out", hub.environ)


def test_locking_fills_revision_checksums_and_rows_and_keeps_the_rest(hub, tmp_path, monkeypatch):
    from lock_assets import main

    for name, value in hub.environ.items():
        monkeypatch.setenv(name, value)
    source = {"hub": "owner/name", "repo_type": "dataset", "revision": None, "path": "/", "include": ["data/*.jsonl"], "seen": "abc"}
    path = lock_of(tmp_path, files=[], sources=[source], unverified=True)
    before = path.read_text()
    hub.faults["api"] = [503]
    main(["a", "--lock", str(path)])
    after = path.read_text()
    entry = read_yaml(path)["assets"]["a"]
    assert entry["sources"][0] == {**source, "revision": REVISION}
    assert entry["files"] == [file_entry("data/train.jsonl", rows=3)]
    assert "unverified" not in entry
    assert after.startswith("# a comment\n")
    assert after[after.index("  # about b") :] == before[before.index("  # about b") :]
    fetch("a", load_lock(path), tmp_path / "out", hub.environ)
    assert (tmp_path / "out" / "data" / "train.jsonl").read_bytes() == TABLE


def test_locking_a_model_takes_large_files_from_the_hubs_metadata(hub, tmp_path, monkeypatch):
    from lock_assets import main

    for name, value in hub.environ.items():
        monkeypatch.setenv(name, value)
    source = {"hub": "owner/name", "repo_type": "model", "revision": None, "path": "/", "include": ["*.json", "*.safetensors"]}
    path = lock_of(tmp_path, files=[], sources=[source], unverified=True, format="model")
    main(["a", "--lock", str(path)])
    found = {f.file: f.sha256 for f in load_lock(path)["a"].files}
    assert found == {name: hashlib.sha256(FILES[name]).hexdigest() for name in ("config.json", "model.safetensors")}
    assert not [line for line in hub.asked if "safetensors" in line]


def test_locking_tells_what_it_could_not_resolve(hub, tmp_path, monkeypatch, capsys):
    from lock_assets import main

    monkeypatch.setenv("HF_ENDPOINT", hub.environ["HF_ENDPOINT"])
    source = {"hub": "owner/name", "revision": None, "path": "/", "include": ["*.parquet"]}
    with pytest.raises(UserError, match="not resolved: a"):
        main(["a", "--lock", str(lock_of(tmp_path, files=[], sources=[source], unverified=True))])
    assert "no file of owner/name fits *.parquet" in capsys.readouterr().err
