"""Asking a server with OpenAI's interface: every request is answered once, every call is logged, limits hold across restarts.

A call is one try of one request. The log (`engine.calls_file` of a work file) gets a line when a call begins and one when it ends:

    {"id", "attempt", "time", "status": "sent", "reserved"}
    {"id", "attempt", "time", "status", "seconds", "prompt_tokens", "generated_tokens", "estimated_tokens", "retry_after"}

`attempt` counts the calls of an id since the log began. No prompt, no text and no key stands in it. `status` is

  ok              an answer
  refused         the interface withheld the answer (content filter, or a refusal in place of the content)
  empty choices   a reply that holds no answer at all
  http 429, …     an error of the server
  timeout, cut connection, broken JSON, wrong shape
  lost            the job ended while the call was under way

Tokens are those that the server tells. Where it may have worked without telling, they are estimated: what was reserved for a call without
a reply, the characters of prompt and text over `CHARACTERS` for an answer without counts. An HTTP error costs none.
"""

import json
import math
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from untaxed.engine import Generation, Request, Sampling, Unanswered, calls_file, draw_seed, drop_cut_line
from untaxed.records import read_jsonl
from untaxed.thinking import ThinkingFormat

CHARACTERS = 4  # of a token, where only an estimate is needed
MINUTE = 60.0  # seconds over which a rate is counted
LONGEST_PAUSE = 600.0  # seconds; a server that asks for a longer one has a quota by the hour or day, and a job should not sit through it
LONGEST_BACKOFF = 60.0
WITHHELD = ("content_filter", "content_policy_violation", "invalid_prompt")  # error codes of a prompt that the interface itself refuses
TOO_LONG = "context_length_exceeded"
SPENT_OUT = ("insufficient_quota", "billing_hard_limit_reached")  # a 429 that no wait mends


class MayPass(Exception):
    """A call failed in a way that another try may mend; the argument is its status."""


class Ended(Exception):
    """Another request has failed for good, so that nothing more is asked."""


@dataclass
class Call:
    """A call under way: the tokens reserved for it, when it began (monotonic seconds), and its entry [time, tokens] in the window."""

    id: str
    attempt: int
    reserved: int
    began: float
    entry: list


class Ledger:
    """What calls have cost, and when the next one may go: spend cap, rates, pauses that the server asks for, and the log.

    Rates count the last minute: calls, and tokens (reserved while a call is under way, then what it cost). A call that alone exceeds
    `tokens_per_minute` goes when nothing else was sent for a minute. Safe to use from several threads.
    """

    def __init__(self, spec: dict) -> None:
        self.key = spec.get("key", "engine")
        self.cap, self.calls_per_minute = spec.get("max_total_tokens"), spec.get("requests_per_minute")
        self.tokens_per_minute = spec.get("tokens_per_minute")
        self.spent, self.paused_until = 0, 0.0
        self.under_way: dict[tuple[str, int], Call] = {}
        self.attempts: Counter[str] = Counter()
        self.window: deque[list] = deque()
        self.logs: list[Path] = []
        self.changed, self.ended = threading.Condition(), threading.Event()

    def keep_log(self, path: Path) -> None:
        """Write calls to `path` from now on, and count what it already holds: tokens spent, attempts, calls that a kill cut short."""
        with self.changed:
            if path in self.logs:
                self.logs.remove(path)
                self.logs.append(path)
                return
            self.logs.append(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                return
            drop_cut_line(path)
            sent: dict[tuple[str, int], int] = {}
            for line in read_jsonl(path):
                mark = (line["id"], line["attempt"])
                self.attempts[line["id"]] = max(self.attempts[line["id"]], line["attempt"])
                if line["status"] == "sent":
                    sent[mark] = line["reserved"]
                else:
                    sent.pop(mark, None)
                    self.spent += cost(line)
            for (name, attempt), reserved in sent.items():
                self._write({"id": name, "attempt": attempt, **_now(), "status": "lost", **_tokens(estimated=reserved)})
                self.spent += reserved

    def start(self) -> None:
        self.ended.clear()

    def end(self) -> None:
        """Wake whoever waits for leave to ask: there will be none."""
        with self.changed:
            self.ended.set()
            self.changed.notify_all()

    def begin(self, name: str, tokens: int) -> Call:
        """Wait until a call that may cost `tokens` may go. Raises Ended after `end`, and Unanswered where the cap leaves no room for it."""
        with self.changed:
            while (seconds := self._delay(tokens)) > 0:
                if self.ended.is_set():
                    raise Ended
                self.changed.wait(seconds)
            if self.ended.is_set():
                raise Ended
            self.attempts[name] += 1
            now = time.monotonic()
            call = Call(name, self.attempts[name], tokens, now, [now, tokens])
            self.window.append(call.entry)
            self.under_way[name, call.attempt] = call
            self._write({"id": name, "attempt": call.attempt, **_now(), "status": "sent", "reserved": tokens})
            return call

    def finish(self, call: Call, status: str, retry_after: float | None = None, **tokens: int) -> None:
        """Note how a call ended (`tokens`: prompt, generated, estimated), and hold all calls back as long as the server asks for."""
        with self.changed:
            del self.under_way[call.id, call.attempt]
            counted = _tokens(**tokens)
            call.entry[1] = cost(counted)
            self.spent += cost(counted)
            if retry_after is not None and retry_after <= LONGEST_PAUSE:
                self.paused_until = max(self.paused_until, time.monotonic() + retry_after)
            seconds = {"seconds": round(time.monotonic() - call.began, 3)}
            self._write(
                {"id": call.id, "attempt": call.attempt, **_now(), "status": status, **seconds, **counted, "retry_after": retry_after}
            )
            self.changed.notify_all()

    def _write(self, line: dict) -> None:
        if self.logs:
            with self.logs[-1].open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _delay(self, tokens: int) -> float:
        """Seconds until a call of `tokens` should ask again whether it may go; 0: now."""
        now = time.monotonic()
        while self.window and self.window[0][0] <= now - MINUTE:
            self.window.popleft()
        waits = [self.paused_until - now]
        if self.calls_per_minute and len(self.window) >= self.calls_per_minute:
            waits.append(self.window[-self.calls_per_minute][0] + MINUTE - now)
        if self.tokens_per_minute and self.window and sum(used for _, used in self.window) + tokens > self.tokens_per_minute:
            waits.append(self.window[0][0] + MINUTE - now)
        reserved = sum(call.reserved for call in self.under_way.values())
        if self.cap is not None and self.spent + reserved + tokens > self.cap:
            if not self.under_way:
                raise Unanswered(
                    f"{self.key}.max_total_tokens: {self.spent:,} of {self.cap:,} tokens are spent, and the next call may need {tokens:,}; "
                    "raise it to go on"
                )
            waits.append(MINUTE)  # calls under way may cost less than they reserve; their end wakes this one
        return max(waits)


def _now() -> dict:
    return {"time": datetime.now(UTC).isoformat(timespec="seconds")}


def _tokens(prompt: int = 0, generated: int = 0, estimated: int = 0) -> dict:
    return {"prompt_tokens": prompt, "generated_tokens": generated, "estimated_tokens": estimated}


def cost(line: Mapping[str, Any]) -> int:
    """The tokens that an ended call counts for."""
    return line["prompt_tokens"] + line["generated_tokens"] + line["estimated_tokens"]


def summarise(work_file: Path | str, cap: int | None = None) -> dict:
    """Totals of the log beside `work_file`: calls, answers, retries by the status that caused them, tokens, and the share of the cap."""
    log = calls_file(work_file)
    ended = [line for line in read_jsonl(log) if line["status"] != "sent"] if log.exists() else []
    last = {line["id"]: line["attempt"] for line in sorted(ended, key=lambda line: line["attempt"])}
    retried = Counter(line["status"] for line in ended if line["attempt"] < last[line["id"]])
    spent = sum(map(cost, ended))
    return {
        "calls": len(ended),
        "answered": sum(line["status"] in ("ok", "refused") for line in ended),
        "retries": dict(sorted(retried.items())),
        "tokens": {name: sum(line[f"{name}_tokens"] for line in ended) for name in ("prompt", "generated", "estimated")},
        "spent": spent,
        "cap": cap,
        "share_of_cap": round(spent / cap, 4) if cap else None,
    }


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait, or None: `retry-after-ms`, `retry-after` (seconds or a date), or the reset of a used-up limit.

    The last are `x-ratelimit-reset-requests` and `-tokens`, such as `1s`, `6m0s` or `20ms`, each beside a `-remaining-` of 0.
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        if math.isfinite(seconds):
            return max(0.0, seconds)
    try:
        return max(0.0, (parsedate_to_datetime(headers["retry-after"]) - datetime.now(UTC)).total_seconds())
    except (KeyError, ValueError, TypeError):
        pass
    resets = [
        _duration(headers.get(f"x-ratelimit-reset-{what}", ""))
        for what in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{what}") == "0"
    ]
    return max((seconds for seconds in resets if seconds is not None), default=None)


def _duration(text: str) -> float | None:
    """Seconds of `1h2m3.5s`, `20ms` or a bare number."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        return None
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text))


def open_client(spec: dict, base_url: str, api_key: str, loopback: bool = False) -> tuple[Callable, Callable[[Path], None]]:
    """(generate, keep_log) of an engine that asks the server at `base_url`. `loopback`: no proxy of the environment stands between."""
    import openai

    client = openai.OpenAI(
        base_url=base_url,
        api_key=api_key,
        max_retries=0,  # retries are ours, so that each is logged and counted
        timeout=spec.get("timeout_s", 600),
        **({"http_client": openai.DefaultHttpxClient(trust_env=False)} if loopback else {}),
    )
    ledger = Ledger(spec)

    def generate(requests: Iterable[Request], sampling: Sampling, room: Mapping[str, int] | None = None) -> Iterator[Generation]:
        """Answers as they come. `room`: the most tokens that may be generated, by request id, where it is less than the sampling's."""
        from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

        failures: list[Unanswered] = []
        queue, running, width = iter(requests), set(), spec.get("concurrency", 8)
        ledger.start()
        with ThreadPoolExecutor(width) as pool:
            try:
                while True:
                    # After a failure nothing new is asked, but what is under way is kept.
                    while not failures and len(running) < width and (request := next(queue, None)) is not None:
                        most = min(sampling.max_new_tokens, (room or {}).get(request.id, sampling.max_new_tokens))
                        running.add(pool.submit(_answer, client, ledger, request, sampling, most, spec))
                    if not running:
                        break
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        try:
                            yield future.result()
                        except Unanswered as failure:
                            failures.append(failure)
                            ledger.end()
                        except Ended:
                            pass
            finally:
                ledger.end()
        if failures:
            raise failures[0]

    return generate, ledger.keep_log


def _answer(client: Any, ledger: Ledger, request: Request, sampling: Sampling, most: int, spec: dict) -> Generation:
    """The answer to a request, asked for until it comes or `tries` calls have failed. Raises Unanswered, or Ended."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_when_event_set, wait_exponential_jitter
    from tenacity.nap import sleep_using_event

    tries, backoff = spec.get("tries", 6), spec.get("backoff_s", 1.0)
    retrying = Retrying(
        retry=retry_if_exception_type(MayPass),
        stop=stop_after_attempt(tries) | stop_when_event_set(ledger.ended),
        wait=wait_exponential_jitter(multiplier=backoff, jitter=backoff, max=LONGEST_BACKOFF),
        sleep=sleep_using_event(ledger.ended),
        reraise=True,
    )
    arguments = _arguments(request, sampling, most, spec)
    prompt = math.ceil(sum(len(message["content"]) for message in arguments["messages"]) / CHARACTERS)
    try:
        return retrying(_call, client, ledger, request, arguments, prompt, most, spec)
    except MayPass as failure:
        if retrying.statistics["attempt_number"] < tries:
            raise Ended from None
        if failure.args == ("empty choices",):  # the server was there and had nothing to say: a row without an answer
            return Generation(request.id, "", [], "empty", 0, 0)
        raise Unanswered(f"{ledger.key}.tries: request {request.id}: no answer after {tries} tries (last: {failure}); try later") from None


def _arguments(request: Request, sampling: Sampling, most: int, spec: dict) -> dict[str, Any]:
    messages, extra = list(request.messages), dict(spec.get("extra_body") or {})
    if prefix := spec.get("thinking_prefix", "") + request.prefill:
        messages.append({"role": "assistant", "content": prefix})
        extra |= {"continue_final_message": True, "add_generation_prompt": False}
    arguments: dict[str, Any] = {
        "model": spec["model"],
        "messages": messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        spec.get("max_tokens_field", "max_tokens"): most,
    }
    if sampling.stop:
        arguments["stop"] = list(sampling.stop)
    if spec.get("send_seed", True):
        arguments["seed"] = draw_seed(request)
    if extra:
        arguments["extra_body"] = extra
    return arguments


def _call(client: Any, ledger: Ledger, request: Request, arguments: dict, prompt: int, most: int, spec: dict) -> Generation:
    """One call, logged. Raises MayPass or Unanswered; server messages are left out of both: they may repeat a prompt or a key."""
    import openai

    call = ledger.begin(request.id, prompt + most)
    status, told, wait = "lost", {"estimated": call.reserved}, None
    try:
        reply = client.chat.completions.create(**arguments)
        status = "wrong shape"
        usage = _usage(reply)
        told = usage or told
        if reply.choices == []:
            status = "empty choices"
            raise MayPass(status)
        generation = _read_answer(reply, request, spec, usage or {})
        if not usage:
            told = {"estimated": prompt + math.ceil(len(generation.text) / CHARACTERS)}
        status = "refused" if generation.finish == "refused" else "ok"
        return generation
    except openai.APIStatusError as error:
        status, told, wait = f"http {error.status_code}", {}, retry_after(error.response.headers)
        if error.code in WITHHELD:
            status = "refused"
            return Generation(request.id, "", [], "refused", 0, 0)
        if spec.get("too_long") == "empty" and (error.code == TOO_LONG or error.param == "input_tokens"):  # OpenAI's way, vLLM's way
            return Generation(request.id, "", [], "length", 0, 0)
        _check_passing(error, wait, request, spec, ledger.key)
        raise MayPass(status) from None
    except openai.APITimeoutError:
        status = "timeout"
        raise MayPass(status) from None
    except openai.APIConnectionError:
        status = "cut connection"
        raise MayPass(status) from None
    except (openai.APIError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        status = "broken JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else "wrong shape"
        raise MayPass(status) from None
    finally:
        ledger.finish(call, status, wait, **told)


def _check_passing(error: Any, wait: float | None, request: Request, spec: dict, key: str) -> None:
    """Raise Unanswered for an HTTP error that another try will not mend."""
    code = error.code if error.code and re.fullmatch(r"[\w.-]{1,60}", error.code) else ""
    reason = f"HTTP {error.status_code}" + (f", {code}" if code and code != str(error.status_code) else "")
    variable = spec.get("api_key_env")
    if error.status_code in (401, 403):
        fix = f"export a valid key in {variable}" if variable else "name the environment variable that holds the server's key"
        raise Unanswered(f"{key}.api_key_env: request {request.id}: the server does not accept the key ({reason}); {fix}") from None
    if error.status_code == 404:
        raise Unanswered(
            f"{key}.model: request {request.id}: the server knows no such model or address ({reason}); mend it or {key}.base_url"
        ) from None
    if code in SPENT_OUT:
        raise Unanswered(
            f"{key}.api_key_env: request {request.id}: the account of this key has nothing left ({reason}); top it up"
        ) from None
    if wait is not None and wait > LONGEST_PAUSE:
        raise Unanswered(
            f"{key}.requests_per_minute: request {request.id}: the server asks to wait {wait:.0f} s ({reason}); lower it"
        ) from None
    if error.status_code < 500 and error.status_code not in (408, 409, 425, 429):
        raise Unanswered(
            f"{key}: request {request.id}: refused with {reason}; check max_tokens_field, send_seed, extra_body and the prompt's length"
        ) from None


def _usage(reply: Any) -> dict[str, int]:
    """The tokens that a reply tells; {} when it tells none."""
    usage = getattr(reply, "usage", None)
    found = {"prompt": getattr(usage, "prompt_tokens", None), "generated": getattr(usage, "completion_tokens", None)}
    return found if all(isinstance(count, int) and count >= 0 for count in found.values()) else {}


def _read_answer(reply: Any, request: Request, spec: dict, usage: dict[str, int]) -> Generation:
    """The generation of a reply. One of another shape raises TypeError, IndexError or AttributeError, and is asked again."""
    choice = reply.choices[0]
    text = choice.message.content
    if not isinstance(text, str | None):
        raise TypeError("content is no text")
    tokens = usage.get("prompt", 0), usage.get("generated", 0)
    if choice.finish_reason == "content_filter" or (not text and getattr(choice.message, "refusal", None)):
        return Generation(request.id, "", [], "refused", *tokens)
    text = text or ""
    # Servers with a reasoning parser hand the trace over apart from the answer.
    trace = getattr(choice.message, "reasoning_content", None) or getattr(choice.message, "reasoning", None)
    if trace:
        text = ThinkingFormat(**spec.get("thinking") or {}).join(trace, text)
    return Generation(request.id, text, [], "length" if choice.finish_reason == "length" else "stop", *tokens)
