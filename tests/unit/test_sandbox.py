"""What a program that a model wrote can and cannot do: hostile programs stay inside, end in time, and leave nothing behind."""

import json
import os
import shutil
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from untaxed import sandbox
from untaxed.records import UserError
from untaxed.sandbox import Limits, run

TIGHT = Limits(seconds=2.0, memory_mib=256, scratch_mib=8, processes=16, output_bytes=100_000)


@pytest.fixture(autouse=True)
def works():
    if shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap (Debian: apt-get install bubblewrap)")
    if (why := sandbox.refusal()) is not None:
        pytest.skip(why)


def sandboxed() -> set[int]:
    """Processes of this machine that run the runner of a sandbox, or what it became."""
    found = set()
    for process in psutil.process_iter(["cmdline", "pid"]):
        if any("order = json.loads" in word for word in process.info["cmdline"] or ()):
            found.add(process.info["pid"])
    return found


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = sandboxed()
    yield
    until = time.monotonic() + 5
    while sandboxed() - before and time.monotonic() < until:
        time.sleep(0.05)
    assert sandboxed() <= before


def test_a_program_gets_its_input_and_its_output_is_kept():
    outcome = run("name = input()\nprint('hello', name)", stdin="world\n")
    assert (outcome.status, outcome.stdout) == ("finished", "hello world\n")


def test_the_standard_library_is_there():
    outcome = run(
        "import collections, ctypes, decimal, json, re, signal, socket, sqlite3, subprocess, threading\nprint(re.findall('a', 'banana'))"
    )
    assert outcome.stdout == "['a', 'a', 'a']\n", outcome.stderr


def test_an_error_is_told():
    outcome = run("assert 1 == 2, 'one is not two'")
    assert outcome.status == "failed"
    assert "one is not two" in outcome.stderr


@pytest.mark.parametrize(
    "way", ["import sys; sys.exit(0)", "import os; os._exit(0)", "raise SystemExit", "quit()", "import os, signal; os.kill(os.getpid(), 9)"]
)
def test_who_leaves_early_has_not_finished(way):
    assert run(f"print('all tests passed')\n{way}\nassert False").status == "failed"


def test_the_mark_of_the_end_cannot_be_guessed():
    outcome = run("import os\nfor word in ('told', 'finished', '0' * 32): os.write(1, word.encode())\nos._exit(0)")
    assert outcome.status == "failed"


def test_it_is_nobody_in_an_empty_folder_without_our_environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "secret-1234")
    program = "import os\nprint(os.getuid(), os.getcwd(), os.listdir('.'), sorted(os.environ))\n"
    program += "print([open(f'/proc/{name}/environ').read() for name in os.listdir('/proc') if name == 'self'])"
    outcome = run(program)
    assert outcome.stdout.startswith("65534 /scratch [] ['HOME', 'LANG', 'PATH'")
    assert "secret" not in outcome.stdout


def test_it_sees_no_process_but_its_own():
    outcome = run("import json, os\nprint(json.dumps([int(name) for name in os.listdir('/proc') if name.isdigit()]))")
    assert max(json.loads(outcome.stdout)) < 10


@pytest.mark.parametrize("path", ["/etc/passwd", "/home", "/proc/1/environ", "/proc/1/mem", "/sys/kernel", str(Path(__file__))])
def test_it_cannot_read_files_of_this_machine(path):
    outcome = run(f"import os\nos.listdir({path!r}) if os.path.isdir({path!r}) else open({path!r}, 'rb').read(1)")
    assert outcome.status == "failed"
    assert any(error in outcome.stderr for error in ("FileNotFoundError", "PermissionError", "OSError")), outcome.stderr


@pytest.mark.parametrize(
    "path", ["/file", "/usr/file", "/dev/shm/file", "/dev/file", "/proc/sys/kernel/hostname", "/python/lib/file", "{json}"]
)
def test_it_cannot_write_outside_its_folder(path):
    path = path.format(json=json.__file__.replace(sys.base_prefix, "/python"))
    before = Path(path).stat().st_mtime_ns if Path(path).is_file() else None
    outcome = run(f"open({path!r}, 'w').write('x')")
    assert outcome.status == "failed"
    assert (Path(path).stat().st_mtime_ns if Path(path).is_file() else None) == before or path.startswith("/proc")


def test_its_folder_is_new_for_each_program():
    assert run("open('/scratch/a', 'w').write('x'); open('/tmp/b', 'w').write('x')").status == "finished"
    assert run("import os; print(os.listdir('/scratch'), os.listdir('/tmp'))").stdout == "[] []\n"


def test_it_reaches_no_network():
    server = socket.create_server(("127.0.0.1", 0))
    reached = []
    threading.Thread(target=lambda: reached.append(server.accept()), daemon=True).start()
    program = f"import socket\nsocket.create_connection(('127.0.0.1', {server.getsockname()[1]}), timeout=1)"
    assert "ConnectionRefusedError" in run(program).stderr
    assert "Network is unreachable" in run("import socket\nsocket.create_connection(('1.1.1.1', 53), timeout=1)").stderr
    assert "gaierror" in run("import socket\nsocket.getaddrinfo('example.org', 80)").stderr
    assert not reached
    server.close()


@pytest.mark.parametrize(
    "program",
    [
        "while True: pass",
        "import time; time.sleep(1000)",
        "import signal, time\nfor number in (1, 2, 3, 13, 14, 15): signal.signal(number, signal.SIG_IGN)\ntime.sleep(1000)",
        "import threading\nthreading.Event().wait()",
        "input_never = open('/dev/zero', 'rb')\nwhile True: input_never.read(1 << 20)",
    ],
)
def test_it_ends_in_time(program):
    outcome = run(program, limits=TIGHT)
    assert outcome.status == "time"
    assert outcome.seconds < TIGHT.seconds + 3


@pytest.mark.parametrize(
    "program",
    [
        "import os\nwhile True: os.fork()",
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        "import subprocess\nwhile True: subprocess.Popen(['/usr/bin/env', 'sleep', '1000'])",
    ],
)
def test_a_fork_bomb_stays_small(program):
    most, ended = [0], threading.Event()

    def count() -> None:
        while not ended.wait(0.05):
            most[0] = max(most[0], len(psutil.pids()))

    before = len(psutil.pids())
    watch = threading.Thread(target=count)
    watch.start()
    outcome = run(program, limits=TIGHT)
    ended.set()
    watch.join()
    assert outcome.status in ("failed", "time", "memory")
    assert outcome.status != "failed" or "Resource temporarily unavailable" in outcome.stderr
    assert most[0] - before < 3 * TIGHT.processes


def test_threads_are_bounded_too():
    program = "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()"
    outcome = run(program, limits=TIGHT)
    assert outcome.status == "time" or "can't start new thread" in outcome.stderr


def test_ten_gibibytes_are_refused():
    outcome = run("held = bytearray(10 << 30)", limits=TIGHT)
    assert outcome.status == "failed"
    assert "MemoryError" in outcome.stderr


def test_processes_cannot_share_out_the_memory():
    child = "held = os.urandom(60 << 20); time.sleep(1000)"
    program = f"import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n        {child}\ntime.sleep(1000)"
    assert run(program, limits=Limits(seconds=20, memory_mib=256, processes=16)).status == "memory"


@pytest.mark.parametrize(
    "program",
    [
        "with open('big', 'wb') as file:\n    while True: file.write(b'x' * 65536)",
        "for number in range(10**6):\n    open(f'file{number}', 'wb').write(b'x' * 65536)",
    ],
)
def test_it_cannot_fill_the_disk(program):
    outcome = run(program, limits=TIGHT)
    assert outcome.status == "failed"
    assert "No space left on device" in outcome.stderr or "File too large" in outcome.stderr


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_endless_output_is_cut(stream):
    outcome = run(f"import sys\nwhile True: sys.{stream}.write('x' * 10000)", limits=TIGHT)
    assert outcome.status == "output"
    assert len(outcome.stdout) <= TIGHT.output_bytes
    assert len(outcome.stderr) <= 2000


def test_a_daemon_does_not_outlive_its_program():
    program = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        for number in range(3): os.close(number)\n"
    )
    program += "        time.sleep(1000)\n    os._exit(0)\nos.wait()"
    started = time.monotonic()
    assert run(program).status == "finished"
    assert time.monotonic() - started < 5  # and `nothing_is_left` looks for the daemon


def test_it_cannot_kill_its_way_out():
    outcome = run("import os, signal, sys\nprint('trying', flush=True)\nos.kill(-1, signal.SIGKILL)\nos.kill(os.getppid(), signal.SIGKILL)")
    assert outcome.stdout.startswith("trying")
    assert outcome.status in ("failed", "finished")  # its own process is not among those that -1 names


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import os\nos.setuid(0)", "PermissionError"),
        ("import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/scratch', b'tmpfs', 0, None) == 0", "AssertionError"),
        ("import ctypes\nassert ctypes.CDLL(None).ptrace(16, 1, 0, 0) == 0", "AssertionError"),  # of its namespace's first process
        ("import os\nos.chroot('/scratch')", "PermissionError"),
        ("import os\nos.mknod('disk', 0o60666, os.makedev(8, 0))", "PermissionError"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_NPROC, (4096, 4096))", "ValueError: not allowed to raise"),
        ("import os\nos.nice(-5)", "PermissionError"),
        ("import subprocess\nsubprocess.run(['/usr/bin/su', '-c', 'id'], check=True, stdin=subprocess.DEVNULL)", "Error"),
    ],
)
def test_it_gains_no_rights(program, said):
    outcome = run(program)
    assert outcome.status == "failed"
    assert said in outcome.stderr.splitlines()[-1], outcome.stderr


def test_a_namespace_of_its_own_gives_no_rights_over_ours():
    program = "import ctypes, os\nctypes.CDLL(None).unshare(0x10020000)\n"  # CLONE_NEWUSER | CLONE_NEWNS
    program += "assert ctypes.CDLL(None).mount(b'none', b'/usr', b'tmpfs', 0, None) == 0\nopen('/usr/file', 'w').write('x')"
    run(program)
    assert not Path("/usr/file").exists()


def test_a_crash_of_the_interpreter_is_a_failure():
    assert run("import ctypes\nctypes.string_at(0)").status == "failed"


def test_where_there_is_no_bubblewrap_the_fix_is_told(monkeypatch):
    sandbox.refusal.cache_clear()
    monkeypatch.setenv("PATH", os.devnull)
    try:
        with pytest.raises(UserError, match="no bwrap on PATH; install bubblewrap"):
            run("print(1)")
    finally:
        sandbox.refusal.cache_clear()
