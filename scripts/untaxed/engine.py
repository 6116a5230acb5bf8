"""One engine for text that is not a benchmark (refining, distilling, attacking, judging): transformers, vLLM or OpenAI-like servers.

    with open_engine({"backend": "transformers", "model": "models/smollm2", "dtype": "bfloat16"}) as engine:
        generations = generate_resumable(engine, requests, Sampling(max_new_tokens=256), "work/generations.jsonl")

Keys of a spec (all but `backend` and `model` have defaults):
  every backend     backend, model, thinking_prefix ("": put after the generation prompt), thinking ({open, close})
  local backends    revision (required unless `model` is a folder), dtype ("auto"), max_model_len (the model's), threads,
                    too_long ("error"; "empty": a prompt that fills the context gets an empty text, cut off),
                    chat (true; false: the bare text of the messages), chat_template_kwargs ({}), batch_size (32; vLLM: 256)
  transformers      batch_tokens (most cached tokens at once; no limit), device (cuda if there is one)
  vllm              tensor_parallel_size, gpu_memory_utilization, enforce_eager, quantization, kv_cache_gib (CPU only, 2)
  next_token        words, lead, batch_tokens, device: the reply is the probabilities of the next token (`untaxed.scoring`)
  classifier        classes, batch_tokens, device: the reply is the probabilities of a classifier's classes (`untaxed.scoring`)
  openai            base_url, api_key_env (the environment variable that holds the key), concurrency (8), tries (6), backoff_s (1),
                    timeout_s (600: without a byte), send_seed (true), max_tokens_field ("max_tokens"), extra_body ({}),
                    requests_per_minute, tokens_per_minute (prompt and generated), max_total_tokens (the same, of all calls so far;
                    no limits unless told: `untaxed.served`)
  serve             those of vllm and openai but for base_url and api_key_env, and start_timeout_s (900): a vLLM server of this job's own
                    (`untaxed.serving`); concurrency is batch_size unless told, timeout_s 3600

Sampling is drawn per request from (id, seed), never from a shared stream, so that a batch's composition does not change a request's
random numbers. What remains is rounding: a batch's shape changes the last bits of the logits, which in bfloat16 flips many near ties.
"""

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from untaxed import scoring
from untaxed.machine import pick_engine, use_vllm
from untaxed.records import UserError, fingerprint, read_jsonl

LIMITS = {"requests_per_minute", "tokens_per_minute", "max_total_tokens"}
TRANSPORT = {"base_url", "api_key_env", "concurrency", "tries", "backoff_s", "timeout_s", "start_timeout_s", "key", *LIMITS}


class Unanswered(UserError):
    """An engine cannot go on now. What was answered is kept, and the same call goes on from it."""


@dataclass(frozen=True)
class Request:
    """One text to generate: chat messages {role, content}. `prefill` is put into the model's mouth and is not part of the result."""

    id: str
    messages: list[dict]
    seed: int = 0
    prefill: str = ""


@dataclass(frozen=True)
class Sampling:
    """How to draw. Temperature 0 is greedy; the text ends before the first of `stop`."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    stop: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Generation:
    """What came back: the text without prompt, prefill and end token, but with its special tokens (thinking markers may be special).

    `finish` is "length" when the text was cut by max_new_tokens or the model's context; "refused" when a server withheld the answer, and
    "empty" when it never gave one: then the text is empty. `tokens` counts the generated tokens; `token_ids` is empty when a server does
    not tell them. `opened` says that the prompt itself ended with the opening thinking marker.
    """

    id: str
    text: str
    token_ids: list[int]
    finish: Literal["stop", "length", "refused", "empty"]
    prompt_tokens: int
    tokens: int = -1
    opened: bool = False

    def __post_init__(self) -> None:
        if self.tokens < 0:
            object.__setattr__(self, "tokens", len(self.token_ids))


@dataclass(frozen=True)
class Prompt:
    """A request as a local model reads it."""

    request: Request
    token_ids: list[int]
    opened: bool


@dataclass(frozen=True)
class Engine:
    """A loaded model. `generate(requests, sampling)` yields results as they finish; `identity` is what else decides their text.

    `keep_log` tells one that asks a server where to log its calls from now on (`untaxed.served`). `cut(text, limit)` is the beginning of a
    text that the model's tokenizer reads as at most `limit` tokens; a server has none.
    """

    generate: Callable[[Iterable[Request], Sampling], Iterator[Generation]]
    identity: dict
    keep_log: Callable[[Path], None] | None = None
    cut: Callable[[str, int], str] | None = None


def draw_seed(request: Request) -> int:
    """A seed below 2**31 that differs between requests of the same `seed`."""
    digest = hashlib.sha256(f"{request.seed}\n{request.id}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


@contextmanager
def open_engine(spec: dict) -> Iterator[Engine]:
    """Load the model that `spec` names (keys: the top of this module). Raises UserError for a spec that cannot work."""
    local = {"transformers": _open_transformers, "vllm": _open_vllm, **scoring.BACKENDS}
    servers = {"openai": _open_openai, "serve": _open_serve}
    spec = {**spec, "backend": pick_engine(spec.get("backend"))}
    if spec["backend"] not in {**local, **servers}:
        raise UserError(f"engine.backend: {spec['backend']!r} is none of {', '.join({**local, **servers})}")
    if not spec.get("model"):
        raise UserError("engine.model: missing; give a model folder, or a name with a revision")
    harmless = {
        "model",
        "threads",
        "batch_size",
        "batch_tokens",
        "device",
        "kv_cache_gib",
        "gpu_memory_utilization",
        *TRANSPORT,
    }
    identity = {"model": model_identity(spec["model"]), **{key: value for key, value in spec.items() if key not in harmless}}
    with ExitStack() as stack:
        if spec["backend"] in local:
            yield Engine(local[spec["backend"]](spec), identity, cut=_cutter(spec))
        else:
            yield Engine(*servers[spec["backend"]](spec, identity, stack))


def model_identity(model: str) -> Any:
    """A name stands for itself; a folder for its path and the size and time of its files, so that a retrained model is another model."""
    folder = Path(model)
    if not folder.is_dir():
        return model
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return [str(folder.resolve()), [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]]


def generate_resumable(engine: Engine, requests: Iterable[Request], sampling: Sampling, path: Path | str) -> list[Generation]:
    """Generate what `path` does not hold yet, append each result to it as it comes, and return all results in request order.

    A result is reused when its id and the fingerprint of (messages, prefill, seed, sampling, engine) agree. A last line that a kill cut
    short is removed. An engine that asks a server logs its calls beside `path`. Raises UserError for two requests with one id, and when a
    server does not let the engine go on.
    """
    requests = list(requests)
    marks = {}
    for request in requests:
        if request.id in marks:
            raise UserError(f"request {request.id}: the id occurs twice; ids must be unique")
        marks[request.id] = fingerprint([asdict(request), asdict(sampling), engine.identity])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    done: dict[str, Generation] = {}
    if path.exists():
        drop_cut_line(path)
        for record in read_jsonl(path):
            if marks.get(record["id"]) == record.pop("fingerprint"):
                done[record["id"]] = Generation(**record)
    missing = [request for request in requests if request.id not in done]
    if engine.keep_log:
        engine.keep_log(calls_file(path))
    if missing:
        try:
            with path.open("a", encoding="utf-8") as stream:
                for generation in engine.generate(missing, sampling):
                    if generation.id in done:
                        raise RuntimeError(f"request {generation.id}: the engine answered twice")
                    stream.write(json.dumps({**asdict(generation), "fingerprint": marks[generation.id]}, ensure_ascii=False) + "\n")
                    stream.flush()
                    done[generation.id] = generation
        except Unanswered as stop:
            raise Unanswered(f"{stop}; {path} keeps {len(done)} of {len(requests)} answers, and the same call goes on from them") from None
    lost = [request.id for request in requests if request.id not in done]
    if lost:
        raise RuntimeError(f"request {lost[0]}: the engine ended without an answer ({len(lost)} of {len(requests)} missing)")
    return [done[request.id] for request in requests]


def calls_file(path: Path | str) -> Path:
    """The log of calls beside a file of answers."""
    return Path(f"{path}.calls.jsonl")


def drop_cut_line(path: Path) -> None:
    """Remove what follows the last line break of a file: a line that a kill cut short."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


def _check_local(spec: dict) -> dict:
    """The arguments that make a load local and pinned."""
    if Path(spec["model"]).is_dir():
        return {"local_files_only": True}
    if not spec.get("revision"):
        raise UserError(f"engine.model: {spec['model']} is no folder and has no `revision`; fetch it first, or pin a revision")
    return {"local_files_only": True, "revision": spec["revision"]}


def _load_tokenizer(spec: dict) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(spec["model"], **_check_local(spec))
    except OSError as error:
        why = str(error).splitlines()[0]
        raise UserError(f"engine.model: {spec['model']} has no tokenizer here ({why}); fetch the model first") from None
    if spec.get("chat", True) and not tokenizer.chat_template:
        raise UserError(
            f"engine.model: {spec['model']} has no chat template; add one, or set engine.chat (a judge's prompt file: `chat`) to false"
        )
    return tokenizer


def render(requests: Iterable[Request], tokenizer: Any, spec: dict, max_model_len: int) -> tuple[list[Prompt], list[Generation]]:
    """Requests as token ids (chat template, generation prompt, thinking prefix, prefill), and the empty results of those that are too long.

    Raises UserError for a request that fills the context, unless the spec says that such a request stays empty.
    """
    prompts, too_long = [], []
    opening = spec.get("thinking", {}).get("open", "").strip()
    for request in requests:
        if spec.get("chat", True):
            text = tokenizer.apply_chat_template(
                request.messages, tokenize=False, add_generation_prompt=True, **spec.get("chat_template_kwargs", {})
            )
        else:
            text = "".join(message["content"] for message in request.messages)
        text += spec.get("thinking_prefix", "") + request.prefill
        if not text.endswith(spec.get("lead", "")):
            text += spec["lead"]
        # A chat template writes its own special tokens; adding them again would double the BOS.
        token_ids = tokenizer(text, add_special_tokens=not spec.get("chat", True))["input_ids"]
        if len(token_ids) >= max_model_len:
            length = len(token_ids)
            if spec.get("too_long") == "empty":
                too_long.append(Generation(request.id, "", [], "length", length))
                continue
            raise UserError(
                f"request {request.id}: its prompt has {length} tokens of {max_model_len}; raise engine.max_model_len or drop it"
            )
        prompts.append(Prompt(request, token_ids, bool(opening) and text.rstrip().endswith(opening)))
    return prompts, too_long


def _cutter(spec: dict) -> Callable[[str, int], str]:
    tokenizer = cache(lambda: _load_tokenizer(spec))

    def cut(text: str, limit: int) -> str:
        # by its place in the text, as decoding would not give back every blank
        ends = tokenizer()(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        return text if len(ends) <= limit else text[: ends[limit - 1][1]]

    return cut


def cut_at_stop(text: str, stop: list[str]) -> tuple[str, bool]:
    """The text before the first stop string, and whether there was one."""
    ends = [position for position in (text.find(mark) for mark in stop) if position >= 0]
    return (text[: min(ends)], True) if ends else (text, False)


def stopper(tokenizer: Any, stop: list[str]) -> Callable[[list[int]], bool] | None:
    """Whether tokens drawn so far hold one of the stop strings; None where there is none."""
    if not stop:
        return None
    longest = max(map(len, stop))

    def stopped(tokens: list[int]) -> bool:
        # A token is rarely less than a character, so this tail holds every stop string that the newest token can complete.
        return cut_at_stop(tokenizer.decode(tokens[-(longest + 8) :], skip_special_tokens=False), stop)[1]

    return stopped


def load_local(spec: dict, **how: Any) -> tuple[Any, Any, int]:
    """(tokenizer, transformers model, context in tokens) of a spec; `how` goes to `decoding.load_model`."""
    import torch
    from transformers.utils import logging

    from untaxed import decoding

    logging.disable_progress_bar()
    if spec.get("threads"):
        torch.set_num_threads(spec["threads"])
    tokenizer = _load_tokenizer(spec)
    device = spec.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    model = decoding.load_model(spec["model"], spec.get("dtype", "auto"), device, **how, **_check_local(spec))
    return tokenizer, model, spec.get("max_model_len") or getattr(model.config, "max_position_embeddings", None) or 10**9


def _open_transformers(spec: dict) -> Callable[[Iterable[Request], Sampling], Iterator[Generation]]:
    from untaxed import decoding

    tokenizer, model, limit = load_local(spec)
    ends = decoding.end_tokens(model, tokenizer)

    def generate(requests: Iterable[Request], sampling: Sampling) -> Iterator[Generation]:
        prompts, too_long = render(requests, tokenizer, spec, limit)
        yield from too_long
        rows = [
            decoding.Row(
                index=index,
                prompt=prompt.token_ids,
                max_new_tokens=min(sampling.max_new_tokens, limit - len(prompt.token_ids)),
                draws=random.Random(draw_seed(prompt.request)),
            )
            for index, prompt in enumerate(prompts)
        ]

        finished = decoding.decode(
            model,
            rows,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            ends=ends,
            stopped=stopper(tokenizer, sampling.stop),
            batch_size=spec.get("batch_size", 32),
            batch_tokens=spec.get("batch_tokens"),
        )
        for row in finished:
            ended = row.tokens[-1] in ends
            text = tokenizer.decode(row.tokens[:-1] if ended else row.tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text, cut = cut_at_stop(text, sampling.stop)
            prompt = prompts[row.index]
            finish = "stop" if ended or cut else "length"
            yield Generation(prompt.request.id, text, row.tokens, finish, len(row.prompt), opened=prompt.opened)

    return generate


def _open_vllm(spec: dict) -> Callable[[Iterable[Request], Sampling], Iterator[Generation]]:
    use_vllm(spec.get("kv_cache_gib"), spec.get("threads"))
    try:
        from vllm import LLM, SamplingParams
        from vllm.inputs import TokensPrompt
    except ImportError as error:
        raise UserError(f"engine.backend: vllm cannot be imported ({error}); install it, or take the transformers backend") from None

    tokenizer = _load_tokenizer(spec)
    arguments = {"revision": spec["revision"], "tokenizer_revision": spec["revision"]} if spec.get("revision") else {}
    for key in ("dtype", "max_model_len", "tensor_parallel_size", "gpu_memory_utilization", "enforce_eager", "quantization"):
        if spec.get(key) is not None:
            arguments[key] = spec[key]
    llm = LLM(model=spec["model"], trust_remote_code=False, max_num_seqs=spec.get("batch_size", 256), **arguments)
    limit = llm.llm_engine.model_config.max_model_len

    def generate(requests: Iterable[Request], sampling: Sampling) -> Iterator[Generation]:
        prompts, too_long = render(requests, tokenizer, spec, limit)
        yield from too_long
        waiting = {}
        # Steps by hand rather than LLM.generate: results come as they finish, so a killed job keeps them.
        for index, prompt in enumerate(prompts):
            parameters = SamplingParams(
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=min(sampling.max_new_tokens, limit - len(prompt.token_ids)),
                stop=list(sampling.stop),
                seed=draw_seed(prompt.request),
                skip_special_tokens=False,
                spaces_between_special_tokens=False,
            )
            number = llm.llm_engine.add_request(str(index), TokensPrompt(prompt_token_ids=prompt.token_ids), parameters)
            waiting[str(index)] = (prompt, number)
        try:
            while llm.llm_engine.has_unfinished_requests():
                for output in llm.llm_engine.step():
                    if not output.finished:
                        continue
                    prompt, _ = waiting.pop(output.request_id)
                    best = output.outputs[0]
                    finish = "length" if best.finish_reason == "length" else "stop"
                    yield Generation(
                        prompt.request.id, best.text, list(best.token_ids), finish, len(prompt.token_ids), opened=prompt.opened
                    )
        finally:
            if waiting:
                llm.llm_engine.abort_request([number for _, number in waiting.values()])

    return generate


def _open_openai(spec: dict, identity: dict, stack: ExitStack) -> tuple[Callable, dict, Callable]:
    from untaxed.served import open_client

    if not spec.get("base_url"):
        raise UserError("engine.base_url: missing; give the address of the server, up to and with /v1")
    name = spec.get("api_key_env")
    if name and not os.environ.get(name):
        raise UserError(f"engine.api_key_env: the environment variable {name} is empty; export the server's key in it")
    generate, keep_log = open_client(spec, spec["base_url"], os.environ[name] if name else "none")
    return generate, identity, keep_log


def _open_serve(spec: dict, identity: dict, stack: ExitStack) -> tuple[Callable, dict, Callable]:
    from untaxed.served import open_client
    from untaxed.serving import serve_model

    if not spec.get("chat", True):
        raise UserError("engine.backend: serve asks through the chat template; take vllm or transformers where `chat` is false")
    tokenizer = _load_tokenizer(spec)
    server = stack.enter_context(serve_model(spec))
    limit = server["max_model_len"]
    body = {
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "chat_template_kwargs": spec.get("chat_template_kwargs", {}),
    }
    asked = {"concurrency": spec.get("batch_size", 32), "timeout_s": 3600, **spec, "extra_body": body | (spec.get("extra_body") or {})}
    ask, keep_log = open_client(asked, server["base_url"], server["api_key"], loopback=True)

    def generate(requests: Iterable[Request], sampling: Sampling) -> Iterator[Generation]:
        prompts, too_long = render(requests, tokenizer, spec, limit)
        yield from too_long
        opened = {prompt.request.id: prompt.opened for prompt in prompts}
        room = {prompt.request.id: limit - len(prompt.token_ids) for prompt in prompts}
        for generation in ask([prompt.request for prompt in prompts], sampling, room):
            yield replace(generation, opened=opened[generation.id])

    return generate, identity, keep_log
