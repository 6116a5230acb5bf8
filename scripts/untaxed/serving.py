"""A vLLM server for one job: `vllm serve` on a free port of this machine, up while the job runs and stopped with it.

    with serve_model({"model": "models/smollm2", "dtype": "bfloat16"}) as server:
        ...  # {"base_url": "http://127.0.0.1:…/v1", "api_key": "…", "max_model_len": 8192}

It listens on the loopback address alone and asks for a key that is made for it, so that nobody else on the machine can use it.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from untaxed.command import Interrupted
from untaxed.machine import use_vllm
from untaxed.records import UserError

START_S = 900  # seconds until a server must answer: large weights are read from a disk, and graphs are compiled
STOP_S = 20  # seconds that it has to end by itself
TAIL = 15  # lines of its log in an error
HOST = "127.0.0.1"

# The kernel ends the server when the thread that started it is gone, even by SIGKILL, which lets no code of ours run.
TIED = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
FLAGS = {
    "dtype": "--dtype",
    "max_model_len": "--max-model-len",
    "tensor_parallel_size": "--tensor-parallel-size",
    "gpu_memory_utilization": "--gpu-memory-utilization",
    "quantization": "--quantization",
    "batch_size": "--max-num-seqs",
    "revision": "--revision",
}


def serve_command(spec: dict, port: int) -> list[str]:
    """The arguments after `python` that serve the model folder of a spec (keys: `untaxed.engine`) under its own path as its name."""
    command = ["-m", "vllm.entrypoints.cli.main", "serve", spec["model"], "--host", HOST, "--port", str(port)]
    command += ["--disable-uvicorn-access-log"]
    for key, flag in FLAGS.items():
        if spec.get(key) is not None:
            command += [flag, str(spec[key])]
    return command + (["--enforce-eager"] if spec.get("enforce_eager") else [])


@contextmanager
def serve_model(spec: dict) -> Iterator[dict]:
    """Start a server for `spec`, wait until it answers, yield its address, key and context in tokens, and stop it and all that it started.

    While it runs, SIGTERM ends this process by an exception, so that the server is stopped then too. Raises UserError with the end of the
    server's log when it ends or does not answer within `start_timeout_s` (900).
    """
    if find_spec("vllm") is None:
        raise UserError("engine.backend: serve needs vLLM, which is not installed; install it, or take the transformers backend")
    use_vllm(spec.get("kv_cache_gib"), spec.get("threads"))
    key, port = secrets.token_urlsafe(32), free_port()
    with tempfile.TemporaryFile() as log, _ended_by_sigterm():
        server = subprocess.Popen(
            [sys.executable, "-c", TIED, *serve_command(spec, port)],
            env={**os.environ, "VLLM_API_KEY": key},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            card = _wait_until_up(server, f"http://{HOST}:{port}", key, log, spec.get("start_timeout_s", START_S))
            yield {"base_url": f"http://{HOST}:{port}/v1", "api_key": key, "max_model_len": card["max_model_len"]}
        finally:
            _stop(server)


def free_port() -> int:
    """A port of the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set a handler
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Interrupted("told to stop (SIGTERM); the same call goes on from the answers that it has")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_until_up(server: subprocess.Popen, address: str, key: str, log: Any, seconds: float) -> dict:
    """What the server says of its model, once it answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy of the site knows nothing of this port
    request = urllib.request.Request(f"{address}/v1/models", headers={"Authorization": f"Bearer {key}"})
    deadline = time.monotonic() + seconds
    while True:
        if server.poll() is not None:
            raise UserError(f"engine.backend: vllm serve ended with exit code {server.returncode} before it answered; {_tail(log)}")
        if time.monotonic() > deadline:
            raise UserError(f"engine.start_timeout_s: vllm serve did not answer within {seconds:g} s; raise it, or see why: {_tail(log)}")
        try:
            opener.open(f"{address}/health", timeout=5).close()
            with opener.open(request, timeout=5) as reply:  # only this server knows the key, whoever else took the port meanwhile
                return json.load(reply)["data"][0]
        except OSError:
            time.sleep(0.5)


def _tail(log: Any) -> str:
    log.seek(0)
    lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return "its last lines: " + " | ".join(line.strip() for line in lines[-TAIL:])


def _stop(server: subprocess.Popen) -> None:
    """End the whole process group: gently, then by force, since its workers may outlive the first process."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.pid, number)
        except ProcessLookupError:
            break
        try:
            server.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
    server.wait()
