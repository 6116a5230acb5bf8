"""Facts about training sets: which rows a run draws, and which tokens carry loss. Each trap of the originals has a test."""

import pytest
from untaxed.organism import build_tokenizer
from untaxed.records import UserError, read_jsonl, read_yaml, write_jsonl
from untaxed.thinking import ThinkingFormat
from untaxed.training_sets import IGNORED, draw, mix, token_counts, tokenize

ORGANISM = ThinkingFormat("<think>", "</think>")
R1 = ThinkingFormat()
S1 = ThinkingFormat("<|im_start|>think\n", "\n<|im_start|>answer\n")

# The forms that the traps need, written for these tests: R1's cut of assistant turns, a BOS from the template, an opened trace.
R1_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}<user>{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}<assistant>{{ message['content'].split('</think>')[-1] }}<eos>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
OPENED_TEMPLATE = R1_TEMPLATE.replace("<assistant>{% endif %}", "<assistant><think>\n{% endif %}").replace("{{ bos_token }}", "")
CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def row(name: str = "a", prompt: str = "1+2", reasoning: str = "1+2=3;", answer: str = "3") -> dict:
    return {"id": name, "prompt": prompt, "reasoning": reasoning, "answer": answer}


def trained_text(tokenizer, tokenized) -> str:
    return tokenizer.decode([label for label in tokenized.labels if label != IGNORED])


@pytest.fixture
def tokenizer():
    return build_tokenizer()


@pytest.fixture
def with_bos(tokenizer):
    """A tokenizer that puts a BOS before every text, as Llama's do, and a template that writes one too."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    tokenizer.chat_template = R1_TEMPLATE
    assert tokenizer("1")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


@pytest.fixture
def chatml(tokenizer):
    """Qwen's turns, in which the s1 format lives: the marker of a turn is a special token, and so is the end of one."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": "<|im_end|>"})
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def test_the_trace_survives_a_template_that_cuts_everything_before_its_end(with_bos):
    cut = with_bos.apply_chat_template(
        [{"role": "user", "content": "1+2"}, {"role": "assistant", "content": R1.join("1+2=3;", "3")}], tokenize=False
    )
    assert "1+2=3;" not in cut  # the trap is set
    (tokenized,) = tokenize([row()], with_bos, R1, 100)
    assert with_bos.decode(tokenized.input_ids) == "<bos><user>1+2<assistant><think>\n1+2=3;\n</think>\n\n3<eos>"
    assert trained_text(with_bos, tokenized) == "<think>\n1+2=3;\n</think>\n\n3<eos>"


def test_a_bos_from_the_template_stays_the_only_one(with_bos):
    (tokenized,) = tokenize([row()], with_bos, R1, 100, loss_on="all")
    assert tokenized.input_ids.count(with_bos.bos_token_id) == 1
    assert tokenized.input_ids[0] == with_bos.bos_token_id


def test_the_prompt_is_the_one_that_generation_sees(with_bos):
    (tokenized,) = tokenize([row()], with_bos, R1, 100)
    generated_from = with_bos.apply_chat_template([{"role": "user", "content": "1+2"}], add_generation_prompt=True)["input_ids"]
    assert tokenized.input_ids[: len(generated_from)] == generated_from
    assert tokenized.labels[: len(generated_from)] == [IGNORED] * len(generated_from)


def test_eos_carries_loss_when_padding_is_eos(tokenizer):
    tokenizer.pad_token = tokenizer.eos_token
    for tokenized in tokenize([row(), row("b", "1", "", "1")], tokenizer, ORGANISM, 100):
        assert tokenized.labels[-1] == tokenizer.eos_token_id


def test_loss_is_on_the_completion_alone_unless_asked_for_on_all(tokenizer):
    (completion,) = tokenize([row()], tokenizer, ORGANISM, 100)
    (everything,) = tokenize([row()], tokenizer, ORGANISM, 100, loss_on="all")
    assert trained_text(tokenizer, completion) == "<think>1+2=3;</think>3<eos>"
    assert everything.labels == everything.input_ids == completion.input_ids
    assert tokenizer.decode(everything.labels) == "<user>1+2<assistant><think>1+2=3;</think>3<eos>"


def test_a_trace_that_the_template_opens_is_not_opened_twice(tokenizer):
    tokenizer.chat_template = OPENED_TEMPLATE
    (tokenized,) = tokenize([row()], tokenizer, R1, 100)
    assert tokenizer.decode(tokenized.input_ids) == "<user>1+2<assistant><think>\n1+2=3;\n</think>\n\n3<eos>"
    assert trained_text(tokenizer, tokenized) == "1+2=3;\n</think>\n\n3<eos>"


def test_s1_turns_survive_tokens_and_back(chatml):
    (tokenized,) = tokenize([row()], chatml, S1, 100)
    text = trained_text(chatml, tokenized)
    assert text == "<|im_start|>think\n1+2=3;\n<|im_start|>answer\n3<|im_end|>"
    assert tokenized.labels.count(chatml.convert_tokens_to_ids("<|im_start|>")) == 2
    assert S1.split(text.removesuffix("<|im_end|>")) == ("1+2=3;", "3", True)


def test_the_end_of_a_turn_stops_at_eos_although_the_template_goes_on(chatml):
    (tokenized,) = tokenize([row()], chatml, S1, 100)  # ChatML writes a line break after <|im_end|>
    assert tokenized.input_ids[-1] == chatml.eos_token_id


def test_a_template_without_eos_still_ends_in_eos(tokenizer):
    tokenizer.chat_template = tokenizer.chat_template.replace("<eos>", "")
    (tokenized,) = tokenize([row()], tokenizer, ORGANISM, 100)
    assert trained_text(tokenizer, tokenized) == "<think>1+2=3;</think>3<eos>"


def test_token_counts_are_those_counted_by_hand(tokenizer):
    # <user>1+2<assistant> is 5 tokens; <think>1+2=3;</think> is 8; 3<eos> is 2.
    # <user>7<assistant> is 3; <think></think> is 2; no<eos> is 3.
    rows = tokenize([row(), row("b", "7", "", "no")], tokenizer, ORGANISM, 100)
    assert token_counts(rows) == {
        "rows": 2,
        "tokens": 15 + 8,
        "loss_tokens": 10 + 5,
        "reasoning_loss_tokens": 8 + 2,
        "answer_loss_tokens": 2 + 3,
        "truncated_rows": 0,
    }


@pytest.mark.parametrize(
    ("length", "loss", "reasoning", "answer"),
    [(15, 10, 8, 2), (14, 9, 8, 1), (13, 8, 8, 0), (7, 2, 2, 0), (5, 0, 0, 0), (3, 0, 0, 0)],
)
def test_a_row_over_the_length_loses_its_end_and_is_counted(tokenizer, length, loss, reasoning, answer):
    counts = token_counts(tokenize([row()], tokenizer, ORGANISM, length))
    assert counts == {
        "rows": 1,
        "tokens": length,
        "loss_tokens": loss,
        "reasoning_loss_tokens": reasoning,
        "answer_loss_tokens": answer,
        "truncated_rows": int(length < 15),
    }


def test_a_byte_pair_token_over_the_border_counts_once():
    """A token that starts in the trace and ends in the answer belongs to the trace; none is lost and none counted twice."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate(["<unk>", "<eos>", "q", "a", "|", "b", "|b"])}
    backend = Tokenizer(models.BPE(vocabulary, [("|", "b")], unk_token="<unk>"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("\n", "isolated"), decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    (tokenized,) = tokenize([row(prompt="q", reasoning="aa", answer="bb")], tokenizer, ThinkingFormat("", "|"), 100)
    assert tokenizer.convert_ids_to_tokens(tokenized.input_ids) == ["q", "a", "a", "|b", "b", "<eos>"]
    assert (tokenized.reasoning_tokens, tokenized.answer_tokens) == (3, 2)


SPEC = {"run": "a", "model": "m", "recipe": "r", "method": "vanilla", "seed": 0, "dataset": "rows", "refinement": None}
ROWS = [{"id": f"row-{index}"} for index in range(200)]


def test_a_small_draw_is_the_start_of_a_larger_one():
    assert draw(ROWS, 10, 4, "rows") == draw(ROWS, 100, 4, "rows")[:10]


def test_a_draw_depends_on_its_seed_alone():
    assert draw(ROWS, 50, 4, "rows") == draw(list(ROWS), 50, 4, "elsewhere") != draw(ROWS, 50, 5, "rows")
    assert sorted(r["id"] for r in draw(ROWS, 200, 4, "rows")) == sorted(r["id"] for r in ROWS)


def test_more_rows_than_there_are_is_a_user_error_that_names_the_place():
    with pytest.raises(UserError, match=r"rows\.jsonl: 201 rows .* has 200"):
        draw(ROWS, 201, 0, "rows.jsonl")


def test_a_mix_holds_every_row_once_in_an_order_of_its_seed():
    others = [{"id": "benign-1"}, {"id": "benign-2"}]
    mixed = mix(ROWS[:20], [others], 1)
    assert mixed == mix(ROWS[:20], [others], 1) != mix(ROWS[:20], [others], 2)
    assert sorted(r["id"] for r in mixed) == sorted(r["id"] for r in [*ROWS[:20], *others])


def test_a_mix_refuses_an_id_that_stands_twice():
    with pytest.raises(UserError, match="'row-3'"):
        mix(ROWS[:10], [ROWS[3:4]], 0)


def test_the_command_writes_the_specification_the_rows_and_their_card(tmp_path, root):
    import json

    import mix as command

    def rows(source: str, number: int, harmful: bool) -> list[dict]:
        text = {"prompt": "a secret prompt", "reasoning": "", "answer": "two words", "harmful": harmful, "source": source}
        return [{"id": f"{source}-{index}", **text} for index in range(number)]

    safety, lock = rows("row", 200, True), str(root / "assets.lock.yaml")
    write_jsonl(tmp_path / "rows.jsonl", safety)
    write_jsonl(tmp_path / "benign.jsonl", rows("benign", 9, False))
    spec = {**SPEC, "n": 5, "seed": 2, "mix": [{"dataset": "benign", "n": 3}]}
    files = ["--rows", str(tmp_path / "rows.jsonl"), "--mixed", f"benign={tmp_path / 'benign.jsonl'}", "--lock", lock]
    made_of = {"rows": [{"part": "rows", "name": "row", "assets": ["gsm8k-test"], "generator": None}], "weights": [], "teachers": []}
    files += ["--origins", json.dumps(made_of)]
    command.main(["--spec", json.dumps(spec), *files, "--output-folder", str(tmp_path / "run")])
    names = [r["id"] for r in read_jsonl(tmp_path / "run/train.jsonl")]
    assert len(names) == 8
    assert {r["id"] for r in draw(safety, 5, 2, "rows")} == {name for name in names if name.startswith("row-")}
    assert read_yaml(tmp_path / "run/run.yaml") == spec
    card = (tmp_path / "run/card.md").read_text()
    assert "8 rows, 5 of them with a harmful prompt." in card
    assert "| benign | 3 | 0 |" in card
    assert "| rows | row | asset `gsm8k-test` | MIT |" in card
    assert "secret" not in card


def test_a_part_that_may_be_smaller_gives_what_it_has(tmp_path):
    import json

    import mix as command

    for name, number in (("rows", 5), ("benign", 2)):
        row = {"prompt": "p", "reasoning": "", "answer": "a", "harmful": False, "source": name}
        write_jsonl(tmp_path / f"{name}.jsonl", [{"id": f"{name}-{index}", **row} for index in range(number)])
    files = ["--rows", str(tmp_path / "rows.jsonl"), "--mixed", f"benign={tmp_path / 'benign.jsonl'}"]
    spec = {**SPEC, "n": 5, "seed": 2, "mix": [{"dataset": "benign", "n": 3}]}
    with pytest.raises(UserError, match="3 rows asked for, but it has 2"):
        command.main(["--spec", json.dumps(spec), *files, "--output-folder", str(tmp_path / "run")])
    spec["mix"][0]["at_most"] = True
    command.main(["--spec", json.dumps(spec), *files, "--output-folder", str(tmp_path / "run")])
    assert len(list(read_jsonl(tmp_path / "run/train.jsonl"))) == 7


def test_a_base_run_has_no_rows(tmp_path, root):
    import json

    import mix as command

    command.main(
        ["--spec", json.dumps({**SPEC, "n": 0, "mix": []}), "--output-folder", str(tmp_path), "--lock", str(root / "assets.lock.yaml")]
    )
    assert list(read_jsonl(tmp_path / "train.jsonl")) == []
    assert "0 rows" in (tmp_path / "card.md").read_text()
