"""Facts about files: whole or absent, never half."""

import json
import subprocess

import pytest
from untaxed.records import (
    UserError,
    atomic_folder,
    atomic_path,
    fingerprint,
    git_commit,
    read_json,
    read_jsonl,
    read_yaml,
    sha256,
    write_json,
    write_jsonl,
    write_text,
    write_yaml,
)


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_failure_in_the_middle_of_a_file_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_failure_in_the_middle_of_a_folder_leaves_the_old_folder_and_nothing_else(tmp_path):
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("old")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("half")
        raise RuntimeError
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "old"


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    for name in ("old", "new"):
        with atomic_folder(tmp_path / "model") as folder:
            (folder / name).touch()
    assert names(tmp_path / "model") == ["new"]


def test_records_that_fail_in_the_middle_leave_no_file(tmp_path):
    def records():
        yield {"id": "a"}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_jsonl(tmp_path / "rows.jsonl", records())
    assert names(tmp_path) == []


def test_a_value_that_is_not_json_leaves_no_file(tmp_path):
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"path": tmp_path})
    assert names(tmp_path) == []


def test_written_files_can_be_read_by_others(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "text")
    assert (tmp_path / "deep" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_records_come_back_as_they_were_written(tmp_path):
    rows = [{"id": "1", "prompt": "Grüße\n\u2028 ✓"}, {"id": "2", "prompt": ""}]
    assert write_jsonl(tmp_path / "rows.jsonl", rows) == 2
    assert list(read_jsonl(tmp_path / "rows.jsonl")) == rows


def test_a_cut_line_names_its_number(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"id": "1"}\n{"id": "2"}\n{"id": "3')
    records = read_jsonl(tmp_path / "rows.jsonl")
    assert [next(records), next(records)] == [{"id": "1"}, {"id": "2"}]
    with pytest.raises(UserError, match=r"rows\.jsonl: line 3 "):
        next(records)


def test_missing_and_broken_files_are_user_errors_that_name_the_file(tmp_path):
    (tmp_path / "broken").write_text("{a: [1")
    for read in (read_json, read_yaml, lambda path: list(read_jsonl(path))):
        with pytest.raises(UserError, match="absent: no such file"):
            read(tmp_path / "absent")
        with pytest.raises(UserError, match=r"broken.*line 1"):
            read(tmp_path / "broken")


def test_equal_content_is_equal_bytes(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": 2})
    write_json(tmp_path / "b", {"a": 2, "b": 1})
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1}) != fingerprint({"a": 2, "b": 2})
    assert json.loads((tmp_path / "a").read_text()) == {"a": 2, "b": 1}


def test_yaml_keeps_the_order_of_keys(tmp_path):
    write_yaml(tmp_path / "run.yaml", {"run": "b", "a": [1, None, 3e-4]})
    assert (tmp_path / "run.yaml").read_text().startswith("run:")
    assert read_yaml(tmp_path / "run.yaml") == {"run": "b", "a": [1, None, 3e-4]}


def test_the_checksum_is_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_commit_says_when_the_code_was_changed_since(tmp_path):
    def git(*words):
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        return subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init")
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "one")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD")
    (tmp_path / "code.py").write_text("2")
    assert git_commit(tmp_path) == git("rev-parse", "HEAD") + "-dirty"


def test_outside_a_repository_the_commit_is_unknown(tmp_path):
    assert git_commit(tmp_path) == "unknown"
    assert git_commit(tmp_path / "nowhere") == "unknown"
