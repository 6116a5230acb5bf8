"""Exit codes and error lines of a command, each in a real process."""

import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMAND = """
import sys, time
from untaxed.command import Interrupted, run_command
from untaxed.records import UserError

def main(arguments):
    match arguments:
        case ["mistake"]:
            raise UserError("config.yaml: model: no model named smol;\\n  the nearest name is smollm2")
        case ["bug"]:
            raise ValueError("a bug")
        case ["saved"]:
            raise Interrupted("saved step 40")
        case ["exit", code]:
            sys.exit(int(code))
        case ["library"]:
            import evaluate
            print(evaluate.__file__)
        case ["download"]:
            from huggingface_hub import hf_hub_download
            try:
                hf_hub_download("nobody/nothing", "config.json")
            except Exception:
                print("no such file")
        case ["wait"]:
            print("ready", flush=True)
            time.sleep(20)
        case _:
            print(arguments)

if __name__ == "__main__":
    run_command(main)
"""


@pytest.fixture
def command(root: Path, tmp_path: Path) -> Path:
    (tmp_path / "untaxed").symlink_to(root / "scripts/untaxed")
    path = tmp_path / "example.py"
    path.write_text(COMMAND)
    return path


def run(command: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    settings = {name: value for name, value in os.environ.items() if name != "UNTAXED_WARM"} | environment
    return subprocess.run([sys.executable, command, *arguments], env=settings, capture_output=True, text=True, timeout=30, check=False)


def test_main_gets_the_command_line_and_success_is_0(command):
    result = run(command, "--run", "a b")
    assert (result.returncode, result.stdout) == (0, "['--run', 'a b']\n")


def test_a_mistake_of_the_user_is_one_line_and_1(command):
    result = run(command, "mistake")
    assert (result.returncode, result.stderr) == (1, "error: config.yaml: model: no model named smol; the nearest name is smollm2\n")


def test_a_bug_is_a_traceback_and_1(command):
    result = run(command, "bug")
    assert result.returncode == 1
    assert result.stderr.startswith("Traceback")


def test_a_command_that_saved_before_it_stopped_exits_with_75(command):
    result = run(command, "saved")
    assert (result.returncode, result.stderr) == (75, "stopped: saved step 40\n")


def test_an_exit_code_of_its_own_passes(command):
    assert run(command, "exit", "7").returncode == 7


def test_ctrl_c_is_130_without_a_traceback(command):
    process = subprocess.Popen([sys.executable, command, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert process.stderr.read() == "stopped by the keyboard\n"


def test_a_dead_socket_of_the_warm_server_changes_nothing(command, tmp_path):
    assert run(command, "hello", UNTAXED_WARM=str(tmp_path / "gone.sock")).stdout == "['hello']\n"


def test_a_command_named_like_a_library_does_not_hide_it(command, tmp_path):
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    (libraries / "evaluate.py").write_text("")
    (tmp_path / "evaluate.py").write_text("raise SystemExit('the command was imported')")
    assert run(command, "library", PYTHONPATH=str(libraries)).stdout == f"{libraries / 'evaluate.py'}\n"


@pytest.fixture
def hub():
    """A hub on this machine that has nothing, and what was asked of it."""
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_GET = do_HEAD

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}"}, asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("call", ["run_command(main)", "run_command(main, network=True)"])
def test_only_a_command_that_says_so_asks_the_hub(call, hub, command):
    address, asked = hub
    command.write_text(COMMAND.replace("run_command(main)", call))
    result = run(command, "download", **address, HF_HUB_OFFLINE="0", TRANSFORMERS_OFFLINE="0")
    assert result.stdout == "no such file\n", result.stderr
    assert bool(asked) == ("network" in call)


def test_the_commands_that_use_the_network_are_fetch_and_lock_assets(root):
    using = {path.name for path in (root / "scripts").glob("*.py") if "network=True" in path.read_text()}
    assert using == {"fetch.py", "lock_assets.py"}


def test_importing_it_brings_along_none_of_the_modules_that_cost_milliseconds(root):
    code = "import sys, untaxed.command; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-S", "-c", code], cwd=root / "scripts", capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "untaxed.command" in loaded
    assert not loaded & {"yaml", "typing", "re", "argparse", "socket", "json", "traceback", "pathlib", "untaxed.records", "untaxed.warm"}
