"""A local server with OpenAI's interface that fails as it is told, for the tests of what asks servers."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW = 3.0  # seconds of a slow reply
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
NO_REPLY = ("slow", "cut", "broken", "twice", "shape", "html", "empty", "filtered", "refusal")  # faults that hand over no answer


def completion(text: str) -> dict:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": dict(USAGE)}


def reply_to(prompt: str, fault: Any) -> Any:
    """The JSON value that is sent for a fault."""
    reply = completion(f"re {prompt}")
    choice = reply["choices"][0]
    if fault == "length":
        choice["finish_reason"] = "length"
    elif fault == "trace":
        choice["message"]["reasoning_content"] = "hm"
    elif fault == "empty":
        reply["choices"] = []
    elif fault == "filtered":
        choice |= {"finish_reason": "content_filter", "message": {"role": "assistant", "content": "safe"}}
    elif fault == "refusal":
        choice["message"] |= {"content": None, "refusal": "No."}
    elif fault == "uncounted":
        del reply["usage"]
    elif fault == "two choices":
        reply["choices"].append({**choice, "index": 1, "message": {"role": "assistant", "content": "another"}})
    elif fault == "shape":
        reply = ["no", {"completion": prompt}]
    return reply


class Server:
    """Plays `script[prompt]`, one entry per try, and then answers `re <prompt>`.

    An entry is a status, (status, headers, error code), or the name of a fault. `asked` and `answered` count tries and whole answers by
    prompt, `bodies` holds (body, Authorization), `times` when each try came.
    """

    def __init__(self, script: dict | Callable[[str, int], Any], delay: float = 0.0):
        self.script, self.delay = script, delay
        self.asked, self.answered, self.bodies, self.times = Counter(), Counter(), [], []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                with lock:
                    step = outer.asked[prompt]
                    outer.asked[prompt] += 1
                    outer.bodies.append((body, self.headers.get("Authorization")))
                    outer.times.append(time.monotonic())
                fault = outer.fault(prompt, step)
                status, headers, code = fault if isinstance(fault, tuple) else (fault if isinstance(fault, int) else 200, {}, None)
                error = {"error": {"message": f"about {prompt}", "code": code}}
                payload = json.dumps(reply_to(prompt, fault) if status == 200 else error).encode()
                payload = {"broken": b'{"choices": [', "twice": 2 * payload, "html": b"<html>busy</html>"}.get(str(fault), payload)
                time.sleep(SLOW if fault == "slow" else outer.delay)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "text/html" if fault == "html" else "application/json")
                    self.send_header("Content-Length", str(len(payload) + (50 if fault == "cut" else 0)))
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(payload)
                    if status == 200 and fault not in NO_REPLY:
                        with lock:
                            outer.answered[prompt] += 1
                except OSError:
                    pass
                self.close_connection = True

            def log_message(self, *arguments):
                pass

        class Threads(ThreadingHTTPServer):
            request_queue_size = 64

        self.server = Threads(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def fault(self, prompt: str, step: int) -> Any:
        if callable(self.script):
            return self.script(prompt, step)
        plan = self.script.get(prompt, [])
        return plan[step] if step < len(plan) else "ok"

    def spec(self, **more) -> dict:
        address = f"http://127.0.0.1:{self.server.server_port}/v1"
        return {"backend": "openai", "model": "m", "base_url": address, "backoff_s": 0.01, "timeout_s": 10, "tries": 4, **more}


@contextmanager
def serving(monkeypatch) -> Iterator[Callable[..., Server]]:
    """Yield what starts servers; they stop at the end. Proxies of the environment are left out."""
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    servers: list[Server] = []

    def start(*arguments: Any, **more: Any) -> Server:
        servers.append(Server(*arguments, **more))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.server.shutdown()
            server.server.server_close()
