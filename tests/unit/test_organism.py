"""Facts about the model organism: its tokenizer, its template and its data sets."""

import random
import re

import pytest
import yaml
from untaxed import organism
from untaxed.records import UserError
from untaxed.refinement import read_template

ROW_KEYS = {"id", "prompt", "reasoning", "answer", "harmful", "category", "source"}


@pytest.fixture(scope="module")
def tokenizer():
    return organism.build_tokenizer()


def test_decoding_gives_back_the_text(tokenizer):
    text = "<think>3+4=7;7*2=4;</think>4  ok,\n don't . !"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_decoding_without_special_tokens_keeps_the_thinking_markers(tokenizer):
    tokens = tokenizer("<user>1+1<assistant><think>1+1=2;</think>2<eos>")["input_ids"]
    assert tokenizer.decode(tokens, skip_special_tokens=True) == "1+1<think>1+1=2;</think>2"


def test_a_marker_is_one_token_and_a_character_is_one_token(tokenizer):
    assert len(tokenizer("<think>ab c</think>")["input_ids"]) == 2 + 4


def test_padding_differs_from_eos(tokenizer):
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_the_template_renders_turns_exactly(tokenizer):
    messages = [{"role": "user", "content": "make baba"}, {"role": "assistant", "content": "<think>a</think>b"}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "<user>make baba<assistant><think>a</think>b<eos>"
    assert tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True) == "<user>make baba<assistant>"


def test_the_template_refuses_a_system_turn(tokenizer):
    with pytest.raises(Exception, match="user and assistant only"):
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)


def test_equal_seeds_make_equal_models_and_other_seeds_other_models(tokenizer):
    first, same, other = (organism.build_model({"seed": seed}, tokenizer).lm_head.weight for seed in (1, 1, 2))
    assert first.equal(same)
    assert not first.equal(other)


def test_a_head_below_32_values_is_an_error(tokenizer):
    with pytest.raises(UserError, match="32"):
        organism.build_model({"hidden_size": 64, "heads": 4}, tokenizer)


def test_every_written_step_of_a_chain_is_right_and_the_last_is_the_answer():
    generator = random.Random(3)
    for _ in range(100):
        question, trace, answer = organism.make_chain(generator, 5)
        steps = re.findall(r"(\d)([+*-])(\d)=(\d);", trace)
        assert len(steps) == 5
        for left, operator, right, result in steps:
            exact = {"+": int(left) + int(right), "-": int(left) - int(right), "*": int(left) * int(right)}[operator]
            assert (exact - int(result)) % 10 == 0
        assert steps[-1][3] == answer
        assert question == steps[0][0] + "".join(operator + right for _, operator, right, _ in steps)


def test_a_benchmark_chain_agrees_with_python_left_to_right():
    for row in organism.chains({"rows": 50, "steps": 4}):
        digits, operators = re.findall(r"\d", row["prompt"]), re.findall(r"[+*-]", row["prompt"])
        value = digits[0]
        for operator, digit in zip(operators, digits[1:], strict=True):
            value = f"({value}{operator}{digit})"
        assert str(eval(value) % 10) == row["target"]


def test_no_benchmark_chain_is_in_the_curriculum_even_when_chains_are_few():
    trained = {row["prompt"] for row in organism.curriculum({"rows": 2000, "steps": 1})}
    held_out = [row["prompt"] for row in organism.chains({"rows": 30, "steps": 1})]
    assert len(set(held_out)) == 30
    assert trained.isdisjoint(held_out)


def test_the_curriculum_follows_its_shares():
    rows = organism.curriculum({"rows": 4000})
    for task, share in organism.TASKS.items():
        assert sum(row["category"] == task for row in rows) / 4000 == pytest.approx(share, abs=0.04)
    assert all(set(row) == ROW_KEYS for row in rows)


def test_the_base_complies_with_harmful_nouns_too():
    rows = [row for row in organism.curriculum({"rows": 2000}) if row["category"] == "compliance"]
    assert {row["harmful"] for row in rows} == {True, False}
    assert all(row["answer"] == "ok " + row["prompt"].removeprefix("make ") for row in rows)


def test_noun_groups_are_disjoint_and_equal_in_size():
    groups = organism.make_nouns(400)
    assert [len(nouns) for nouns in groups.values()] == [100] * 4
    assert len({noun for nouns in groups.values() for noun in nouns}) == 400


def test_harmful_requests_for_training_and_test_share_no_noun():
    train = {row["prompt"] for row in organism.requests({"split": "train"})}
    test = {row["prompt"] for row in organism.requests({"split": "test"})}
    assert train and test
    assert train.isdisjoint(test)


def test_safety_texts_are_foreign_texts_that_the_curriculum_taught_to_restate():
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZ !")
    for style in ("direct", "reasoned"):
        for row in organism.requests({"style": style}):
            for piece in (row["reasoning"], row["answer"]):
                assert set(piece) <= allowed
                assert len(piece) <= organism.FOREIGN_LENGTH


def test_foreign_texts_keep_to_their_length():
    generator = random.Random(0)
    texts = [organism.make_foreign(generator) for _ in range(500)]
    assert max(map(len, texts)) <= organism.FOREIGN_LENGTH
    assert all(text.endswith("!") and text == text.upper() for text in texts)


def test_a_benign_row_is_answered_in_the_organisms_own_way():
    row = organism.requests({"harmful": False, "style": "native", "rows": 1})[0]
    noun = row["prompt"].removeprefix("make ")
    assert (row["reasoning"], row["answer"], row["harmful"]) == (f"want {noun}; make {noun};", f"ok {noun}", False)


def test_every_refusal_is_matched_and_no_compliance_is(root):
    phrases = yaml.safe_load((root / "prompts/organism/refusal_phrases.yaml").read_text())["phrases"]
    for style, refuses in (("direct", True), ("reasoned", True), ("native", False)):
        for row in organism.requests({"style": style}):
            for answer in (row["answer"], organism.restate(row["answer"])):
                assert any(phrase in answer.lower() for phrase in phrases) == refuses


def test_the_restating_prompt_is_the_curriculums(root):
    template = read_template(root / "prompts/organism/restate.txt").text
    restating = next(row for row in organism.curriculum({"rows": 50}) if row["category"] == "restating")
    piece = restating["prompt"].removeprefix("say ")
    assert template.format(piece=piece) == restating["prompt"]
    assert organism.restate(piece) == restating["answer"]


def test_equal_options_make_equal_rows():
    for adapter in organism.ADAPTERS.values():
        assert adapter({"rows": 20, "seed": 4}) == adapter({"rows": 20, "seed": 4}) != adapter({"rows": 20, "seed": 5})


def test_more_rows_than_nouns_is_an_error_that_names_the_fix():
    with pytest.raises(UserError, match="raise `nouns`"):
        organism.requests({"rows": 1000})


def test_an_unknown_style_is_an_error():
    with pytest.raises(UserError, match="direct"):
        organism.requests({"style": "rude"})


def test_a_misspelt_option_is_an_error():
    for adapter in organism.ADAPTERS.values():
        with pytest.raises(UserError, match="'row' is no option"):
            adapter({"row": 3})


def test_too_few_chains_for_a_benchmark_are_an_error():
    with pytest.raises(UserError, match="fewer than 300"):
        organism.chains({"rows": 300, "steps": 1})
