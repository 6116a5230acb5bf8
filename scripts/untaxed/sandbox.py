"""Run Python that a model wrote, where it can harm nothing: no network, no file of this machine, and every resource bounded.

bubblewrap (https://github.com/containers/bubblewrap) makes the namespaces: the program sees its interpreter and the system's libraries
read-only, an empty scratch folder in memory, and no process but its own. When it ends, the kernel ends whatever it started.
What namespaces do not bound is bounded by resource limits inside and by a watch from outside.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from untaxed.records import UserError

INSTALL = "install bubblewrap (Debian: apt-get install bubblewrap) where code benchmarks are graded"
PYTHON = "/python"
NOBODY = 65534
WATCH = 0.02  # seconds between two looks at the memory that a program holds
SYSTEM = ("/usr", "/bin", "/lib", "/lib64")

# Runs inside. It reads its order from stdin, gives up root where it has it, bounds itself, and only then runs what the model wrote.
RUNNER = """
import json, os, resource, sys
order = json.loads(sys.stdin.buffer.read())
if os.getuid() == 0:
    os.setgroups([]); os.setgid(order["nobody"]); os.setuid(order["nobody"])
for name, value in order["limits"].items():
    resource.setrlimit(getattr(resource, name), (value, value))
with open("/scratch/stdin", "w") as file:
    file.write(order["stdin"])
os.dup2(os.open("/scratch/stdin", os.O_RDONLY), 0); os.unlink("/scratch/stdin")
sys.stdin = open(0)
told = order.pop("told"); source = order.pop("program"); del order
def finish(write=os.write, told=told.encode()):
    sys.stdout.flush(); write(1, told)
del told
space = {"__name__": "__main__"}
exec(compile(source, "program.py", "exec"), space)
finish()
"""


@dataclass(frozen=True)
class Limits:
    """What one program may use: wall time in seconds, memory of all its processes and of its files in MiB, processes, bytes printed."""

    seconds: float = 10.0
    memory_mib: int = 1024
    scratch_mib: int = 64
    processes: int = 32
    output_bytes: int = 1 << 20


@dataclass(frozen=True)
class Outcome:
    """How a program ended: `finished` (ran to its last line), `failed` (an error, an exit or a signal before that), or the limit that it
    met: `time`, `memory`, `output`. `stdout` without the mark of the end, `stderr` its last 2,000 characters.
    """

    status: str
    stdout: str
    stderr: str
    seconds: float


def run(program: str, stdin: str = "", limits: Limits | None = None) -> Outcome:
    """Run a Python program in the sandbox. An early exit with code 0 is no end: the last line must be reached.

    A program that searches its interpreter's frames can find how the end is marked: this is a fence against accidents and harm, no
    proof against one that wants to be scored as right. Raises UserError where there is no sandbox (see `refusal`).
    """
    if (why := refusal()) is not None:
        raise UserError(why)
    return _run(program, stdin, limits or Limits())


def _run(program: str, stdin: str, limits: Limits) -> Outcome:
    told = secrets.token_hex(16)
    order = {"program": program, "stdin": stdin, "told": told, "nobody": NOBODY, "limits": _rlimits(limits)}
    started = time.monotonic()
    with _memory_file(json.dumps(order).encode()) as given:
        process = subprocess.Popen(_command(limits), stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={})
    status, stdout, stderr = _watch(process, limits, started)
    text = stdout.decode(errors="replace")
    ended = text.endswith(told)
    status = status or ("finished" if process.returncode == 0 and ended else "failed")
    return Outcome(status, text.removesuffix(told), stderr.decode(errors="replace")[-2000:], time.monotonic() - started)


@cache
def refusal() -> str | None:
    """Why no program can be run here, with the fix; None where the sandbox works."""
    if shutil.which("bwrap") is None:
        return f"sandbox: there is no bwrap on PATH; {INSTALL}"
    tried = _run("import signal", "", Limits())
    if tried.status == "finished":
        return None
    said = (tried.stderr.strip().splitlines() or [tried.status])[-1]
    return f"sandbox: bwrap cannot make its namespaces here ({said}); allow unprivileged user namespaces, or grade elsewhere"


def _rlimits(limits: Limits) -> dict[str, int]:
    return {
        "RLIMIT_AS": limits.memory_mib << 20,
        "RLIMIT_FSIZE": limits.scratch_mib << 20,
        "RLIMIT_CPU": int(limits.seconds * 4) + 1,  # the wall clock ends it first; this is for threads that a stopped watch would miss
        "RLIMIT_NPROC": limits.processes,
        "RLIMIT_NOFILE": 256,
        "RLIMIT_CORE": 0,
    }


def _command(limits: Limits) -> list[str]:
    """bwrap with everything unshared. Root keeps no user namespace, for there the number of processes would not be bounded; the runner
    becomes nobody instead.
    """
    root = os.geteuid() == 0
    command = [shutil.which("bwrap") or "bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox", "--cap-drop", "ALL"]
    command += (
        ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"] if root else ["--unshare-user", "--uid", str(NOBODY), "--disable-userns"]
    )
    for place in SYSTEM:
        path = Path(place)
        if path.is_symlink():
            command += ["--symlink", os.readlink(path), place]
        elif path.is_dir():
            command += ["--ro-bind", place, place]
    prefix, within = Path(sys.base_prefix), Path(sys.base_prefix).is_relative_to("/usr")
    command += [] if within else ["--ro-bind", str(prefix), PYTHON]  # its own place may lie below a folder that only root may enter
    command += ["--proc", "/proc", "--dev", "/dev", "--perms", "0777", "--size", str(limits.scratch_mib << 20), "--tmpfs", "/scratch"]
    command += ["--symlink", "/scratch", "/tmp", "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/scratch"]
    command += ["--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/scratch", "--setenv", "LANG", "C.UTF-8"]
    interpreter = (prefix if within else Path(PYTHON)) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [*command, str(interpreter), "-I", "-c", RUNNER]


@contextmanager
def _memory_file(content: bytes) -> Iterator[int]:
    """A file that no folder holds, open at its start: a pipe would wait for a program that does not read."""
    descriptor = os.memfd_create("order")
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def _watch(process: subprocess.Popen, limits: Limits, started: float) -> tuple[str, bytes, bytes]:
    """Read what a program prints until it ends or meets a limit: (the limit or "", stdout, stderr). All its processes are gone then."""
    import selectors

    import psutil

    outer, kept, met = psutil.Process(process.pid), {process.stdout: bytearray(), process.stderr: bytearray()}, ""
    with selectors.DefaultSelector() as selector:
        for stream in kept:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map() and not met:
            for key, _ in selector.select(WATCH):
                if data := os.read(key.fd, 1 << 16):
                    kept[key.fileobj] += data
                else:
                    selector.unregister(key.fileobj)
            if sum(map(len, kept.values())) > limits.output_bytes:
                met = "output"
            elif time.monotonic() - started > limits.seconds:
                met = "time"
            elif _held(outer) > limits.memory_mib << 20:
                met = "memory"
    if met:
        process.kill()  # bwrap dies, so the first process of its namespace does, and with that all others
    process.wait()
    for stream in kept:
        stream.close()
    return met, bytes(kept[process.stdout][: limits.output_bytes]), bytes(kept[process.stderr])


def _held(outer) -> int:
    """Bytes that the processes below one hold alone."""
    import psutil

    held = 0
    with suppress(psutil.Error):
        for child in outer.children(recursive=True):
            with suppress(psutil.Error):
                memory = child.memory_info()
                held += memory.rss - memory.shared
    return held
