"""Warm start: a server that has imported the heavy libraries once and forks a child per command, so that no job pays for the imports.

Start it with `python -P scripts/untaxed/warm.py --socket FOLDER/warm.sock`; commands find it by `UNTAXED_WARM=FOLDER/warm.sock`.

A child is the same as a fresh process in what a command can see: arguments, folder, environment, umask, standard streams, code as it is on
disk now, signals and exit code. It dies with the command that asked for it (the client), the server with the process that started it.
"""

import argparse
import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
import types
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

HEAVY = (
    "numpy,torch,transformers,transformers.models.auto.modeling_auto,transformers.models.llama.modeling_llama,transformers.trainer,peft,datasets,"
    "trl,trl.trainer.sft_trainer,lm_eval,lm_eval.models.huggingface,lm_eval.tasks,scipy.stats,pandas,matplotlib.pyplot,seaborn"
)
# No threads before a fork: a lock that another thread held would stay locked in the child. The child sets its own number of threads.
WHILE_IMPORTING = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    "THP_MEM_ALLOC_ENABLE": "1",  # as machine.huge_pages
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")  # every command that comes here has set them
READ_AT_IMPORT = (
    "HF_",
    "TRANSFORMERS_",
    "TORCH_",
    "PYTORCH_",
    "PYTHON",
    "LD_",
)  # prefixes of variables that a loaded library no longer looks at
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
LENGTH = struct.Struct("!Q")


@dataclass
class Request:
    """One command as its client saw it."""

    script: str
    argv: list[str]
    folder: str
    environment: dict[str, str]
    umask: int
    path: list[str]  # the client's sys.path
    prefix: str  # the client's sys.prefix: which environment it runs in


def call(address: str, script: str) -> int | None:
    """Run `script` with this process's arguments, folder, environment and streams in the server at `address`.

    Returns its exit code (128 + n when signal n ended it), or None when no server takes it, so that the caller runs it itself.
    """
    umask = os.umask(0)
    os.umask(umask)
    request = Request(script, sys.argv, os.getcwd(), dict(os.environ), umask, sys.path, sys.prefix)
    payload = json.dumps(vars(request)).encode()
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    handlers = {number: signal.getsignal(number) for number in FORWARDED}
    try:
        connection.connect(address)
        socket.send_fds(connection, [LENGTH.pack(len(payload))], [0, 1, 2])
        connection.sendall(payload)
        for number in (number for number in FORWARDED if handlers[number] is not signal.SIG_IGN):
            signal.signal(number, lambda received, _frame: send(connection, bytes([received])))
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        with connection.makefile("r", encoding="utf-8") as replies:
            first = json.loads(replies.readline() or "{}")
            if "accepted" in first:
                last = json.loads(replies.readline() or "{}")
                if "exit" not in last:
                    print("error: the warm server died during this command; run it again", file=sys.stderr)
                return last.get("exit", 1)
        if "refused" in first:
            print(f"no warm start: {first['refused']}", file=sys.stderr)
    except OSError:
        pass
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        connection.close()
    return None


def preload(names: list[str]) -> None:
    """Import each module. One that is missing or broken is reported and left to the child; one that starts a thread ends the server."""
    started = time.monotonic()
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            print(f"warm: {name} not imported: {error!r}", file=sys.stderr, flush=True)
        if len(threads := thread_names()) > 1:
            raise SystemExit(
                f"warm: importing {name} started threads ({', '.join(threads[1:])}); a fork would not be safe, so no warm start"
            )
    gc.freeze()  # the collector must not touch what children share
    print(f"warm: {len(names)} modules in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


def thread_names() -> list[str]:
    """The kernel's names of this process's threads; one name when it can be forked safely."""
    return [Path(f"/proc/self/task/{thread}/comm").read_text().strip() for thread in sorted(os.listdir("/proc/self/task"), key=int)]


def serve(listener: socket.socket, environment: dict[str, str]) -> Request | None:
    """Fork a child per request until the parent process ends or SIGTERM comes.

    `environment` is what the server was started with. Returns None in the server, and the request in each child.
    """
    parent = os.getppid()
    stopping: list[int] = []
    signal.signal(signal.SIGCHLD, lambda *_: None)  # with a handler, the end of a child wakes the select below
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    alarm, alarm_writer = socket.socketpair()
    alarm_writer.setblocking(False)
    signal.set_wakeup_fd(alarm_writer.fileno(), warn_on_full_buffer=False)
    clients: dict[int, socket.socket | None] = {}  # by child; None once the client has gone
    while not stopping and os.getppid() == parent:
        ready, _, _ = select.select([listener, alarm, *filter(None, clients.values())], [], [], 1)
        if alarm in ready:
            alarm.recv(4096)
        for child, connection in clients.items():
            if connection in ready and not pass_signals(connection, child):
                clients[child] = None
        reap(clients)
        if listener in ready and (received := receive(listener, environment)):
            request, connection, streams = received
            child = os.fork()
            if child == 0:
                signal.set_wakeup_fd(-1)
                os.setpgid(0, 0)
                for inherited in (listener, alarm, alarm_writer, connection, *filter(None, clients.values())):
                    inherited.close()
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                    os.close(stream)
                return request
            with contextlib.suppress(OSError):  # the child does it too, whoever comes first
                os.setpgid(child, child)
            for stream in streams:
                os.close(stream)
            clients[child] = connection
    for child in clients:
        send_signal(child, signal.SIGKILL, group=True)
    return None


def pass_signals(connection: socket.socket, child: int) -> bool:
    """Pass the signals that a client sent, one byte each, on to its child. A client that has gone takes its child along: False."""
    try:
        numbers = connection.recv(64)
    except OSError:
        numbers = b""
    for number in numbers:
        send_signal(child, number, group=number == signal.SIGINT)  # Ctrl-C reaches all of a command, another signal its first process
    if not numbers:
        connection.close()
        send_signal(child, signal.SIGKILL, group=True)
    return bool(numbers)


def reap(clients: dict[int, socket.socket | None]) -> None:
    """Tell the clients of children that have ended how they ended, and forget both."""
    for child in list(clients):
        finished, status = os.waitpid(child, os.WNOHANG)
        if finished:
            code = os.waitstatus_to_exitcode(status)
            if connection := clients.pop(child):
                send(connection, json.dumps({"exit": code if code >= 0 else 128 - code}).encode() + b"\n")
                connection.close()


def receive(listener: socket.socket, environment: dict[str, str]) -> tuple[Request, socket.socket, list[int]] | None:
    """Read one request and its three streams and answer whether it is accepted. Returns None when it is not."""
    connection, _ = listener.accept()
    connection.settimeout(5)
    streams: list[int] = []
    try:
        header, streams, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        with connection.makefile("rb") as payload:
            request = Request(**json.loads(payload.read(*LENGTH.unpack(header))))
        refusal = why_not(request, environment)
        send(connection, json.dumps({"refused": refusal} if refusal else {"accepted": True}).encode() + b"\n")
        if not refusal:
            connection.settimeout(None)
            return request, connection, streams
    except (OSError, ValueError, TypeError, struct.error) as error:
        print(f"warm: a broken request: {error!r}", file=sys.stderr, flush=True)
    for stream in streams:
        os.close(stream)
    connection.close()
    return None


def why_not(request: Request, environment: dict[str, str]) -> str:
    """Why a forked child could not do what a fresh process would do, or "" when it can."""
    if request.prefix != sys.prefix:
        return f"the server runs in {sys.prefix}, the command in {request.prefix}"
    names = {name for name in {*request.environment, *environment} if name.startswith(READ_AT_IMPORT) and name not in OFFLINE}
    different = sorted(name for name in names if request.environment.get(name) != environment.get(name))
    if different:
        return f"{', '.join(different)} differs from the server's"
    return "" if len(thread_names()) == 1 else f"the server has threads ({', '.join(thread_names())})"


def become(request: Request) -> NoReturn:
    """Turn this forked child into the command: run its script from disk as `__main__` and exit."""
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end_with_parent()
    os.environ.clear()
    os.environ.update(request.environment)
    os.environ.pop("UNTAXED_WARM", None)  # this is the warm process
    os.chdir(request.folder)
    os.umask(request.umask)
    time.tzset()
    sys.argv, sys.path = request.argv, request.path
    importlib.invalidate_caches()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty(), write_through="PYTHONUNBUFFERED" in os.environ)
    set_threads()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()  # or all children would draw the server's numbers (`random` does it by itself)
    module = types.ModuleType("__main__")
    module.__file__ = request.script
    sys.modules["__main__"] = module
    try:
        exec(compile(Path(request.script).read_bytes(), request.script, "exec"), vars(module))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    leave(code, module)


def leave(code: int, module: types.ModuleType) -> NoReturn:
    """Do what an exit must do and skip taking the loaded libraries apart, which takes a second and copies their memory."""
    threading._shutdown()  # waits for the threads that are no daemons
    vars(module).clear()
    gc.collect()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def set_threads() -> None:
    """Give the libraries that are loaded the threads of `OMP_NUM_THREADS`, or one per core."""
    wanted = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    threads = int(wanted) if wanted.isdigit() and int(wanted) else len(os.sched_getaffinity(0))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(threads)
    if "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def end_with_parent() -> None:
    """Ask Linux to kill this process when the server dies, however it dies."""
    import ctypes

    set_parent_death_signal = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>
    with contextlib.suppress(OSError, AttributeError):  # not Linux: only a SIGKILL of the server leaves a command behind
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def send(connection: socket.socket, data: bytes) -> None:
    """Send to a peer that may have gone."""
    with contextlib.suppress(OSError):
        connection.sendall(data)


def send_signal(process: int, number: int, group: bool) -> None:
    """Signal a process, or the group that it leads, that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(process, number)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--socket", type=Path, required=True, help="path of the socket, in a folder that only this user can enter")
    parser.add_argument("--preload", default=HEAVY, help="modules to import, separated by commas (default: all heavy ones)")
    options = parser.parse_args(arguments)
    if options.socket.parent.stat().st_mode & 0o077:
        raise SystemExit(f"warm: {options.socket.parent} can be entered by other users; use a folder with mode 0700")
    own_folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != own_folder]  # its modules are no top-level modules
    environment = dict(os.environ)
    os.environ.update(WHILE_IMPORTING)
    preload([name for name in options.preload.split(",") if name])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(options.socket))
    listener.listen(128)
    server = os.getpid()
    try:
        request = serve(listener, environment)
    finally:
        if os.getpid() == server:
            options.socket.unlink(missing_ok=True)
    if request:
        become(request)


if __name__ == "__main__":
    main(sys.argv[1:])
