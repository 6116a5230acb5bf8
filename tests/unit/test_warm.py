"""The warm server without heavy libraries: a command in it cannot be told from one in its own process."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

COMMAND = """
import json, os, signal, sys, time
from pathlib import Path
from untaxed.command import Interrupted, run_command
from untaxed.records import UserError

def main(arguments):
    what = arguments[0]
    if what == "look":
        umask = os.umask(0)
        os.umask(umask)
        print(json.dumps({"folder": os.getcwd(), "setting": os.environ.get("SETTING"), "umask": umask, "arguments": arguments[1:],
                          "parent": os.getppid(), "input": sys.stdin.read(), "name": __name__}))
        print("to the log", file=sys.stderr)
    if what == "exit":
        raise SystemExit(int(arguments[1]))
    if what == "mistake":
        raise UserError("config.yaml: no such model;\\n  write one of a, b")
    if what == "bug":
        raise ValueError("a bug")
    if what == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "sleep":
        Path(arguments[1]).write_text(str(os.getpid()))
        time.sleep(30)
    if what == "save":
        def stop(*_):
            raise Interrupted("saved step 3")
        signal.signal(signal.SIGTERM, stop)
        Path(arguments[1]).write_text(str(os.getpid()))
        time.sleep(30)
    if what == "leave":
        import atexit, threading
        open(arguments[1], "w").write("not closed")
        atexit.register(print, "at exit")
        threading.Timer(0.1, print, ["after the thread"]).start()
    if what == "meet":
        Path(arguments[1]).write_text("here")
        deadline = time.time() + 20
        while not Path(arguments[2]).exists():
            assert time.time() < deadline
            time.sleep(0.02)

if __name__ == "__main__":
    run_command(main)
"""


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        process, address = start_server(root, Path(folder))
        yield process, address
        process.terminate()
        process.wait(10)
        assert not address.exists()


def start_server(root: Path, folder: Path) -> tuple[subprocess.Popen, Path]:
    address = folder / "warm.sock"
    process = subprocess.Popen([sys.executable, "-P", root / "scripts/untaxed/warm.py", "--socket", address, "--preload", ""])
    wait_for(address.exists)
    return process, address


@pytest.fixture
def command(root: Path, tmp_path: Path) -> Path:
    """A script that stands where commands stand: its folder holds the package `untaxed`."""
    (tmp_path / "untaxed").symlink_to(root / "scripts/untaxed")
    path = tmp_path / "example.py"
    path.write_text(COMMAND)
    return path


def wait_for(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def alive(process: int) -> bool:
    """Whether a process runs; one that has ended and waits to be reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def start(command: Path, address: Path | None, *arguments: str | Path, **options) -> subprocess.Popen:
    environment = dict(os.environ) | options.pop("environment", {}) | ({"UNTAXED_WARM": str(address)} if address else {})
    return subprocess.Popen(
        [sys.executable, command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(command: Path, address: Path | None, *arguments: str | Path, text: str = "", **options) -> tuple[int, str, str]:
    process = start(command, address, *arguments, stdin=subprocess.PIPE, **options)
    output, errors = process.communicate(text, timeout=30)
    return process.returncode, output, errors


def test_a_command_sees_its_own_folder_environment_umask_arguments_and_streams(server, command, tmp_path):
    process, address = server
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    code, output, errors = run(
        command, address, "look", "a b", "ü", text="hello", environment={"SETTING": "x=1"}, cwd=folder, preexec_fn=lambda: os.umask(0o27)
    )
    assert (code, errors) == (0, "to the log\n")
    seen = json.loads(output)
    assert seen.pop("parent") == process.pid
    assert seen == {"folder": str(folder), "setting": "x=1", "umask": 0o27, "arguments": ["a b", "ü"], "input": "hello", "name": "__main__"}


@pytest.mark.parametrize("arguments", [("exit", "0"), ("exit", "7"), ("mistake",), ("bug",), ("die",)])
def test_exit_codes_and_error_lines_are_those_of_a_direct_call(server, command, arguments):
    code, output, errors = run(command, None, *arguments)
    expected = code if code >= 0 else 128 - code
    assert run(command, server[1], *arguments) == (expected, output, errors)


def test_an_exit_waits_for_threads_flushes_files_and_runs_exit_functions(server, command, tmp_path):
    code, output, _ = run(command, server[1], "leave", tmp_path / "file")
    assert (code, output) == (0, "after the thread\nat exit\n")
    assert (tmp_path / "file").read_text() == "not closed"


def test_edited_code_counts_in_the_next_call(server, command):
    command.write_text(COMMAND.replace('"to the log"', '"edited"'))
    assert run(command, server[1], "look")[2] == "edited\n"


def test_sigterm_reaches_the_command_which_saves_and_asks_to_be_run_again(server, command, tmp_path):
    ready = tmp_path / "ready"
    process = start(command, server[1], "save", ready)
    wait_for(lambda: ready.exists() and ready.read_text())
    process.terminate()
    assert process.wait(10) == 75
    assert process.stderr.read() == "stopped: saved step 3\n"


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 128 + 15), (signal.SIGINT, 130)])
def test_a_stopped_command_leaves_no_process(server, command, tmp_path, number, expected):
    ready = tmp_path / "ready"
    process = start(command, server[1], "sleep", ready)
    wait_for(lambda: ready.exists() and ready.read_text())
    process.send_signal(number)
    assert process.wait(10) == expected
    wait_for(lambda: not alive(int(ready.read_text())))


def test_killing_the_client_kills_its_command(server, command, tmp_path):
    ready = tmp_path / "ready"
    process = start(command, server[1], "sleep", ready)
    wait_for(lambda: ready.exists() and ready.read_text())
    child = int(ready.read_text())
    assert alive(child)
    process.kill()
    wait_for(lambda: not alive(child))


def test_commands_run_side_by_side(server, command, tmp_path):
    first = start(command, server[1], "meet", tmp_path / "a", tmp_path / "b")
    second = start(command, server[1], "meet", tmp_path / "b", tmp_path / "a")
    assert (first.wait(30), second.wait(30)) == (0, 0)


def test_without_a_server_a_command_runs_by_itself(command, tmp_path):
    code, output, _ = run(command, tmp_path / "no.sock", "look")
    assert code == 0
    assert json.loads(output)["parent"] == os.getpid()


def test_a_command_that_uses_the_network_stays_in_its_own_process(server, command):
    command.write_text(COMMAND.replace("run_command(main)", "run_command(main, network=True)"))
    code, output, errors = run(command, server[1], "look")
    assert (code, json.loads(output)["parent"], errors) == (0, os.getpid(), "to the log\n")


@pytest.mark.parametrize(("name", "value"), [("HF_HOME", "/elsewhere"), ("PYTHONHASHSEED", "3")])
def test_a_setting_that_loaded_libraries_would_miss_is_refused_and_the_command_runs_by_itself(server, command, name, value):
    code, output, errors = run(command, server[1], "look", environment={name: value})
    assert code == 0
    assert json.loads(output)["parent"] == os.getpid()
    assert errors.startswith("no warm start: ")


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_hub_is_off_in_the_server_whatever_the_environment_says(server, command, value):
    code, output, errors = run(command, server[1], "look", environment={"HF_HUB_OFFLINE": value, "TRANSFORMERS_OFFLINE": value})
    assert (code, json.loads(output)["parent"], errors) == (0, server[0].pid, "to the log\n")


def test_the_server_ends_with_the_process_that_started_it_and_its_commands_with_it(root, command, tmp_path):
    folder = tmp_path / "socket"
    folder.mkdir(mode=0o700)
    starter = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time; print(subprocess.Popen(sys.argv[1:]).pid, flush=True); time.sleep(60)",
            *[sys.executable, "-P", root / "scripts/untaxed/warm.py", "--socket", folder / "warm.sock", "--preload", ""],
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    server = int(starter.stdout.readline())
    wait_for((folder / "warm.sock").exists)
    ready = tmp_path / "ready"
    client = start(command, folder / "warm.sock", "sleep", ready)
    wait_for(lambda: ready.exists() and ready.read_text())
    starter.kill()
    starter.wait()
    wait_for(lambda: not alive(server) and not alive(int(ready.read_text())))
    assert client.wait(10) != 0
    assert not (folder / "warm.sock").exists()


def test_a_library_that_starts_threads_at_import_ends_the_server_by_name(root, tmp_path):
    (tmp_path / "threaded.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n")
    tmp_path.chmod(0o700)
    result = subprocess.run(
        [sys.executable, "-P", root / "scripts/untaxed/warm.py", "--socket", tmp_path / "warm.sock", "--preload", "threaded"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert "importing threaded started threads" in result.stderr
    assert not (tmp_path / "warm.sock").exists()


def test_a_folder_that_others_can_enter_is_refused(root, tmp_path):
    tmp_path.chmod(0o755)
    result = subprocess.run(
        [sys.executable, "-P", root / "scripts/untaxed/warm.py", "--socket", tmp_path / "warm.sock", "--preload", ""],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, "mode 0700" in result.stderr) == (1, True)
