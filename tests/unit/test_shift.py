"""Distribution shift: similarity of outputs, NLL of targets, KL of next-token distributions, on models made here."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from untaxed.records import UserError
from untaxed.shift import (
    batches_by_length,
    choose,
    embed,
    generation_sequences,
    kl_divergence,
    paired_outputs,
    position_kl,
    similarity,
    target_lengths,
    target_logits,
    target_nll,
)
from untaxed.thinking import ThinkingFormat

torch = pytest.importorskip("torch")

THINKING = ThinkingFormat(open="<t>", close="</t>")
TEMPLATE = (
    "{% for m in messages %}{{ '<u>' + m['content'] if m['role'] == 'user' else '<a>' + m['content'] + '<e>' }}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)


def character_tokenizer():
    """One token a character, one for each marker; <e> ends a turn."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    characters = [chr(code) for code in range(32, 127)]
    vocabulary = {token: number for number, token in enumerate(["<p>", "<e>", "<u>", "<a>", *characters])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<p>", eos_token="<e>", additional_special_tokens=["<u>", "<a>"], chat_template=TEMPLATE
    )
    return fast


def tiny_llama(folder: Path, seed: int) -> Path:
    """A random Llama (width 64, two heads, two layers) with the character tokenizer, saved in `folder`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        initializer_range=0.3,  # far from uniform, so that a wrong position shows
        pad_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return folder


def tiny_encoder(folder: Path, pooling: str = "pooling_mode_mean_tokens") -> Path:
    """A random BERT in the form of a sentence-transformers folder, with at most 16 tokens a text."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=99, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({pooling: True}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16}))
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    from transformers.utils import logging

    logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("models")
    return {
        "base": tiny_llama(root / "base", 1),
        "tuned": tiny_llama(root / "tuned", 2),
        "encoder": tiny_encoder(root / "encoder"),
        "cls": tiny_encoder(root / "cls", "pooling_mode_cls_token"),
    }


def load(folder, dtype="float32"):
    from untaxed.decoding import load_model

    return load_model(str(folder), dtype, "cpu", local_files_only=True)


@pytest.fixture(scope="module")
def base(folders):
    return load(folders["base"])


@pytest.fixture(scope="module")
def tuned(folders):
    return load(folders["tuned"])


def rows():
    texts = [("1+1", "one and one", "2"), ("hello there", "", "hi"), ("name a fruit", "a fruit; an apple is one", "apple, or a pear")]
    return [{"id": str(i), "prompt": p, "reasoning": r, "answer": a} for i, (p, r, a) in enumerate(texts)]


def targets():
    from untaxed.training_sets import tokenize

    return tokenize(rows(), character_tokenizer(), THINKING, 1 << 20)


def sample(number, generation, benchmark="sums", finish="stop"):
    return {"benchmark": benchmark, "id": str(number), "prompt": f"{number}+1", "generation": generation, "finish": finish}


# --- intervals, batches, pairs


def test_batches_hold_every_index_once_and_respect_the_token_limit():
    lengths = [5, 1, 9, 2, 40, 2]
    batches = list(batches_by_length(lengths, 10))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 10 for batch in batches)
    assert batches[0] == [1, 3, 5]


def test_outputs_are_paired_by_benchmark_and_id():
    base_side = [sample(1, "b1"), sample(2, "b2"), sample(1, "bx", "other")]
    run_side = [sample(2, "r2"), sample(1, "r1"), sample(1, "again"), sample(3, "r3"), sample(1, "rx", "other")]
    assert paired_outputs(base_side, run_side, ["sums"]) == [("b2", "r2"), ("b1", "r1")]
    assert paired_outputs(base_side, run_side) == [("b2", "r2"), ("b1", "r1"), ("bx", "rx")]
    with pytest.raises(UserError, match="share no item of absent"):
        paired_outputs(base_side, run_side, ["absent"])


def test_the_draw_of_kl_items_is_seeded_and_keeps_the_order():
    samples = [sample(number, "x", "sums" if number % 2 else "other") for number in range(40)]
    drawn = [int(s["id"]) for s in choose(samples, ["sums"], 5, seed=0)]
    assert drawn == sorted(drawn) == [int(s["id"]) for s in choose(samples, ["sums"], 5, seed=0)]
    assert len(set(drawn)) == 5 and all(number % 2 for number in drawn)
    assert len(choose(samples, ["sums"], None, seed=0)) == 20


# --- similarity


def test_embeddings_do_not_depend_on_what_else_is_in_the_batch(folders):
    from transformers import AutoModel

    texts = ["a", "a longer text", "a longer text", "b", "a text that is cut after sixteen tokens"]
    together = embed(texts, folders["encoder"], batch_size=3)
    model, tokenizer = AutoModel.from_pretrained(folders["encoder"]).eval(), character_tokenizer()
    for text, vector in zip(texts, together, strict=True):
        ids = tokenizer(text)["input_ids"][:16]
        with torch.inference_mode():
            mean = model(torch.tensor([ids])).last_hidden_state[0].mean(dim=0).numpy()
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(5), abs=1e-6)


def test_equal_outputs_have_similarity_one(folders):
    result = similarity([("same", "same"), ("also the same", "also the same")], folders["encoder"])
    assert result["values"] == [1.0, 1.0]
    assert (result["mean"], result["n"]) == (pytest.approx(1.0, abs=1e-6), 2)


def test_an_encoder_with_another_pooling_is_refused(folders):
    with pytest.raises(UserError, match="does not pool by the mean"):
        embed(["a"], folders["cls"])


def test_minilm_gives_the_similarities_of_the_sentence_transformers_documentation(packaged):
    vectors = embed(["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."], packaged("minilm"))
    expected = [[1.0, 0.6660, 0.1046], [0.6660, 1.0, 0.1411], [0.1046, 0.1411, 1.0]]  # the quickstart of sbert.net
    assert vectors @ vectors.T == pytest.approx(np.array(expected), abs=1e-4)


# --- NLL


def nll_row_by_row(model, row):
    """Losses of a row's targets from the full logits of that row alone."""
    ids = torch.tensor(row.input_ids)
    with torch.inference_mode():
        log_p = torch.log_softmax(model(ids[None]).logits[0].double(), dim=-1)
    start = len(ids) - row.reasoning_tokens - row.answer_tokens
    return [-log_p[position - 1, ids[position]].item() for position in range(start, len(ids))]


@pytest.mark.parametrize("tokens_per_batch", [1, 64, 4096])
def test_nll_in_batches_is_nll_row_by_row(base, tokens_per_batch):
    losses = [(nll_row_by_row(base, row), row.reasoning_tokens) for row in targets()]
    reasoning = [loss for row, split in losses for loss in row[:split]]
    answer = [loss for row, split in losses for loss in row[split:]]
    result = target_nll(base, targets(), tokens_per_batch)
    assert result["n_tokens"] == len(reasoning) + len(answer)
    assert result["mean"] == pytest.approx(np.mean(reasoning + answer), rel=1e-5)
    assert result["reasoning"] == pytest.approx(np.mean(reasoning), rel=1e-5)
    assert result["answer"] == pytest.approx(np.mean(answer), rel=1e-5)


def test_nll_is_the_loss_that_training_starts_from(base):
    result, total = target_nll(base, targets()), 0.0
    for row in targets():
        with torch.inference_mode():
            loss = base(input_ids=torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss.item()
        total += loss * sum(label != -100 for label in row.labels)
    assert result["mean"] == pytest.approx(total / result["n_tokens"], rel=1e-5)


def test_bfloat16_is_near_fp32(folders, base):
    assert target_nll(load(folders["base"], "bfloat16"), targets())["mean"] == pytest.approx(target_nll(base, targets())["mean"], rel=0.02)


def test_lengths_count_markers_with_the_trace_and_the_end_with_the_answer():
    # one token a character: traces 11, 0, 24 with 7 characters of markers each; answers 1, 2, 16 with one end token each
    assert target_lengths(targets()) == {"reasoning_mean": (18 + 7 + 31) / 3, "answer_mean": (2 + 3 + 17) / 3}


# --- KL


def test_kl_of_a_vocabulary_of_three_by_hand():
    p, q = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    tuned, reference = torch.log(torch.tensor([p, q])) + 3.0, torch.log(torch.tensor([q, q]))
    # 0.5 ln 2 + 0.25 ln 1 + 0.25 ln 0.5 = 0.25 ln 2, and 0 where both agree
    assert position_kl(tuned, reference).tolist() == pytest.approx([0.25 * math.log(2), 0.0], abs=1e-6)


def test_kl_of_a_model_from_itself_is_exactly_zero(folders, base):
    sequences = generation_sequences([sample(1, "one"), sample(2, "two and more")], character_tokenizer())
    assert kl_divergence(base, load(folders["base"]), sequences) == {"mean": 0.0, "ci_low": 0.0, "ci_high": 0.0, "n_tokens": 17}


def test_kl_in_batches_is_kl_row_by_row(base, tuned):
    sequences = generation_sequences(
        [sample(1, "one"), sample(2, "two and more"), sample(30, "cut", finish="length")], character_tokenizer()
    )
    values = []
    for ids, start in sequences:
        with torch.inference_mode():
            log_p, log_q = (torch.log_softmax(m(torch.tensor([ids])).logits[0].double(), dim=-1) for m in (tuned, base))
        values += [(log_p[i - 1].exp() * (log_p[i - 1] - log_q[i - 1])).sum().item() for i in range(start, len(ids))]
    result = kl_divergence(tuned, base, sequences, tokens_per_batch=40)
    assert result["n_tokens"] == len(values) == 4 + 13 + 3
    assert result["mean"] == pytest.approx(np.mean(values), rel=1e-4)
    assert result["ci_low"] <= result["mean"] <= result["ci_high"]
    assert result["mean"] > 0.1


def test_the_exact_kl_per_position_agrees_with_sampling_the_next_token(base, tuned):
    [(ids, start)] = generation_sequences([sample(1, "x", finish="length")], character_tokenizer())
    (_, p), (_, q) = next(target_logits(tuned, [(ids, start)], 64)), next(target_logits(base, [(ids, start)], 64))
    log_ratio = torch.log_softmax(p[0], dim=-1) - torch.log_softmax(q[0], dim=-1)
    drawn = torch.multinomial(torch.softmax(p[0], dim=-1), 200_000, replacement=True, generator=torch.Generator().manual_seed(0))
    assert position_kl(p, q)[0].item() == pytest.approx(log_ratio[drawn].mean().item(), rel=0.03)


def test_a_generation_is_followed_by_the_end_of_the_turn_only_if_it_stopped():
    tokenizer = character_tokenizer()
    stopped, cut, short = (
        generation_sequences([sample(1, "abc", finish=f)], tokenizer, m)[0] for f, m in (("stop", None), ("length", None), ("stop", 2))
    )
    assert tokenizer.convert_ids_to_tokens(stopped[0]) == ["<u>", "1", "+", "1", "<a>", "a", "b", "c", "<e>"]
    assert stopped[1] == 5
    assert cut[0] == stopped[0][:-1]
    assert short[0] == stopped[0][:7]
    assert generation_sequences([sample(1, "", finish="length")], tokenizer) == []


def test_kl_without_generations_or_with_unequal_vocabularies_is_an_error(base, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    with pytest.raises(UserError, match="no generation"):
        kl_divergence(base, base, [])
    other = LlamaForCausalLM(LlamaConfig(vocab_size=10, hidden_size=64, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2))
    with pytest.raises(UserError, match="10 and 99 tokens"):
        kl_divergence(other, base, [([1, 2], 1)])


# --- all of it


def test_the_command_writes_the_shift_of_a_run(folders, tmp_path, capsys):
    import measure_shift as command

    def write(name, records):
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(tmp_path / name)

    arguments = [
        *("--spec", json.dumps({"thinking": {"open": "<t>", "close": "</t>"}, "kl_benchmarks": ["sums"], "kl_limit": 1})),
        *("--base-model", str(folders["base"]), "--checkpoint", str(folders["tuned"]), "--encoder", str(folders["encoder"])),
        *("--base-samples", write("base.jsonl", [sample(1, "one"), sample(2, "two")])),
        *("--samples", write("run.jsonl", [sample(1, "one"), sample(2, "I will not")])),
        *("--train", write("train.jsonl", rows()), "--output", str(tmp_path / "shift.json")),
    ]
    command.main(arguments)
    result = json.loads((tmp_path / "shift.json").read_text())
    assert set(result) == {"similarity", "shift", "nll", "kl", "lengths"}
    assert result["similarity"]["values"][0] == 1.0 > result["similarity"]["values"][1]
    assert result["shift"] == 1 - result["similarity"]["mean"]
    assert result["kl"]["mean"] > 0
    assert "I will not" not in capsys.readouterr().out
