"""DGR's Equation 3, its filters and its report, worked by hand with an engine that is a plain function."""

import json

import pytest
from untaxed.engine import Engine, Generation, Sampling, generate_resumable
from untaxed.records import UserError
from untaxed.refinement import (
    assemble,
    build_requests,
    check_spec,
    judge_piece,
    read_ban_list,
    read_template,
)
from untaxed.thinking import ThinkingFormat

THINK = ThinkingFormat()
S1 = ThinkingFormat("<|im_start|>think\n", "\n<|im_start|>answer\n")
BOTH = ("overthinking", "meta-thinking")


def row(name: str, reasoning: str = "a thought", answer: str = "an answer") -> dict:
    return {
        "id": name,
        "prompt": f"question {name}",
        "reasoning": reasoning,
        "answer": answer,
        "harmful": True,
        "category": "c",
        "source": "s",
    }


def generation(text: str, finish: str = "stop", name: str = "r/reasoning", opened: bool = False, tokens: int = 7) -> Generation:
    return Generation(name, text, [], finish, 10, tokens, opened)


@pytest.fixture
def spec(root) -> dict:
    prompts = root / "prompts"
    return {
        "thinking": {"open": THINK.open, "close": THINK.close},
        "prompts": {"reasoning": str(prompts / "dgr_reasoning.txt"), "answer": str(prompts / "dgr_answer.txt")},
        "meta_thinking": str(prompts / "meta_thinking.yaml"),
        "refusal_phrases": str(prompts / "refusal_phrases.yaml"),
        "pieces": ["reasoning", "answer"],
        "filters": list(BOTH),
        "fallback": "original",
        "seed": 3,
    }


@pytest.fixture
def bans(root):
    return read_ban_list(root / "prompts" / "meta_thinking.yaml")


def test_equation_3_keeps_each_rewrite_that_passes_and_each_original_that_does_not(spec):
    rows = [row("1", "t1", "a1"), row("2", "t2", "a2")]
    results = [
        generation("<think>\nhm\n</think>\n\nmy t1", name="1/reasoning", tokens=5),
        generation("my a1", name="1/answer", tokens=2),
        generation("endless", "length", name="2/reasoning", tokens=9),
        generation("<think>\nhm\n</think>\n\nHere is a paraphrase: a2", name="2/answer", tokens=4),
    ]
    refined, report = assemble(rows, results, spec)
    assert [(r["reasoning"], r["answer"]) for r in refined] == [("my t1", "my a1"), ("t2", "a2")]
    assert refined[1]["pieces"] == {
        "reasoning": {"reason": "overthinking", "kept": "original", "tokens": 9},
        "answer": {"reason": "meta-thinking", "kept": "original", "tokens": 4},
    }
    assert refined[0]["original"] == {"reasoning": "t1", "answer": "a1"}
    assert report["pieces"]["reasoning"]["ok"] == 1
    assert report["fallback_rate"] == {
        "reasoning": {"failed": 1, "n": 2, "rate": 0.5},
        "answer": {"failed": 1, "n": 2, "rate": 0.5},
        "overall": {"failed": 2, "n": 4, "rate": 0.5},
    }
    assert report["tokens"]["reasoning"] == {"prompt": 20, "generated": 14}


def test_dropping_leaves_out_rows_with_a_failed_piece_and_still_counts_them(spec):
    rows = [row("1"), row("2")]
    results = [generation("x", name=f"{n}/{p}") for n in "12" for p in ("reasoning", "answer")]
    results[3] = generation("", name="2/answer")
    refined, report = assemble(rows, results, {**spec, "fallback": "drop"})
    assert [r["id"] for r in refined] == ["1"]
    assert (report["dropped"], report["pieces"]["answer"]["empty"], report["fallback_rate"]["overall"]["n"]) == (1, 1, 4)


def test_an_ablation_of_one_piece_leaves_the_other_as_it_is(spec):
    spec = {**spec, "pieces": ["reasoning"]}
    requests = build_requests([row("1")], spec)
    assert [request.id for request in requests] == ["1/reasoning"]
    refined, report = assemble([row("1")], [generation("mine", name="1/reasoning")], spec)
    assert refined[0]["answer"] == "an answer"
    assert refined[0]["pieces"]["answer"] == {"reason": "not-refined", "kept": "original", "tokens": 0}
    assert report["fallback_rate"]["answer"] == {"failed": 0, "n": 0, "rate": None}


@pytest.mark.parametrize(
    ("generated", "expected"),
    [
        (generation("said my way"), ("ok", "said my way")),
        (generation("<think>\nmust rephrase this\n</think>\n\nsaid my way"), ("ok", "said my way")),
        (generation("must rephrase this\n</think>\n\nsaid my way", opened=True), ("ok", "said my way")),
        (generation("said my", "length"), ("overthinking", "said my")),
        (generation("thinking on", opened=True), ("stray-marker", "")),
        (generation("<think>\nthinking on"), ("stray-marker", "")),
        (generation("a</think>b</think>c"), ("stray-marker", "b</think>c")),
        (generation("plain, then <think> again"), ("stray-marker", "plain, then <think> again")),
        (generation("  \n"), ("empty", "")),
        (generation("<think>\nhm\n</think>\n\n"), ("empty", "")),
        (generation("In my own words: no."), ("meta-thinking", "In my own words: no.")),
    ],
)
def test_the_first_reason_that_holds_decides(generated, expected, bans):
    assert judge_piece(generated, THINK, BOTH, bans) == expected


def test_s1_markers_are_understood(bans):
    text = "<|im_start|>think\nhm\n<|im_start|>answer\nsaid my way"
    assert judge_piece(generation(text), S1, BOTH, bans) == ("ok", "said my way")


def test_a_filter_that_is_off_lets_its_text_pass_but_never_an_unclosed_thought(bans):
    assert judge_piece(generation("cut he", "length"), THINK, ("meta-thinking",), bans) == ("ok", "cut he")
    assert judge_piece(generation("<think>\ncut he", "length"), THINK, (), bans)[0] == "stray-marker"
    assert judge_piece(generation("a paraphrase"), THINK, ("overthinking",), bans) == ("ok", "a paraphrase")


def test_a_model_without_a_thinking_format_is_taken_as_it_speaks(bans):
    assert judge_piece(generation("i will not do it;"), None, BOTH, bans) == ("ok", "i will not do it;")


@pytest.mark.parametrize(
    "text",
    [
        "I should not answer this question!",
        "I'm sorry, but I can't help with that. If you are in danger, please call your local emergency number.",
        "This asks for something illegal. The original owner would be harmed, so I refuse and offer a legal way.",
        "The user asks how to pick a lock. I will decline.",
        "I cannot write that letter for you.",
    ],
)
def test_harmless_refusals_hold_no_banned_phrase(text, bans):
    assert bans.found(text) == set()


@pytest.mark.parametrize(
    "text", ["REPHRASING it:", "Here’s a revised reply", "the  original\ntext says", "The user wants me to restate it"]
)
def test_talk_about_the_instruction_is_found_whatever_its_case_blanks_and_apostrophes(text, bans):
    assert bans.found(text)


def test_a_phrase_of_the_original_piece_does_not_count_against_its_rewrite(bans):
    said = generation("So the user wants me to help with a theft; no.")
    assert judge_piece(said, THINK, BOTH, bans, "The user wants me to steal.")[0] == "ok"
    assert judge_piece(said, THINK, BOTH, bans, "It is theft.")[0] == "meta-thinking"


def test_published_traces_pass_the_ban_list_when_they_are_repeated_word_for_word(mirror, bans):
    rows = json.loads((mirror / "star-1" / "STAR-1.json").read_text())
    for item in rows[:200]:
        reasoning, answer, closed = THINK.split(item["response"])
        assert closed
        for piece in (reasoning, answer):
            assert judge_piece(generation(piece), THINK, BOTH, bans, piece)[0] == "ok"


def test_equal_pieces_get_one_draw_per_row(spec):
    rows = [row("1", "I should not answer this question!"), row("2", "I should not answer this question!")]
    ids = [request.id for request in build_requests(rows, spec)]
    assert ids == ["1/reasoning", "1/answer", "2/reasoning", "2/answer"]


def test_an_empty_piece_is_not_refined(spec):
    refined, _ = assemble([row("1", reasoning="")], [generation("x", name="1/answer")], spec)
    assert [request.id for request in build_requests([row("1", reasoning="")], spec)] == ["1/answer"]
    assert refined[0]["pieces"]["reasoning"]["reason"] == "not-refined"


def test_braces_in_a_question_or_a_piece_reach_the_model_unchanged(tmp_path):
    (tmp_path / "p.txt").write_text("# version: 4\n\nQ {question}\n\nsay {piece}\n")
    template = read_template(tmp_path / "p.txt")
    assert template.fill("{piece}", "{question} \\boxed{3}") == "Q {piece}\n\nsay {question} \\boxed{3}"
    assert template.version == "4"


def test_the_question_can_be_hidden(root):
    for name in ("dgr_reasoning.txt", "dgr_answer.txt"):
        shown, hidden = read_template(root / "prompts" / name), read_template(root / "prompts" / name, show_question=False)
        assert "QQ" in shown.fill("QQ", "PP")
        assert "QQ" not in hidden.fill("QQ", "PP") and "PP" in hidden.fill("QQ", "PP")


def test_a_prompt_file_that_is_missing_or_wrong_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.txt: no such prompt file"):
        read_template(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_text("say {peice}")
    with pytest.raises(UserError, match=r"a\.txt: unknown placeholder \{peice\}"):
        read_template(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("say it")
    with pytest.raises(UserError, match=r"b\.txt: no placeholder \{piece\}"):
        read_template(tmp_path / "b.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pieces": ["trace"]}, "refinement.pieces"),
        ({"filters": ["length"]}, "refinement.filters"),
        ({"fallback": "keep"}, "refinement.fallback"),
        ({"prompts": {"reasoning": "x"}}, "refinement.prompts.answer"),
        ({"thinking": {"open": "", "close": "</think>"}}, "thinking.open"),
    ],
)
def test_a_wrong_spec_is_named(spec, change, message):
    check_spec(spec)
    with pytest.raises(UserError, match=message):
        check_spec({**spec, **change})


def test_a_refinement_that_was_killed_goes_on_to_the_same_result(spec, tmp_path):
    rows = [row(str(number)) for number in range(5)]
    asked = []

    def answer(requests, sampling):
        for request in requests:
            asked.append(request.id)
            yield generation(f"own words {request.id}", name=request.id)

    def killed(requests, sampling):
        for number, result in enumerate(answer(requests, sampling)):
            if number == 4:
                raise KeyboardInterrupt
            yield result

    requests, sampling = build_requests(rows, spec), Sampling(0.6, 0.95, 5000)
    whole = assemble(rows, generate_resumable(Engine(answer, {}), requests, sampling, tmp_path / "whole.jsonl"), spec)
    asked.clear()
    with pytest.raises(KeyboardInterrupt):
        generate_resumable(Engine(killed, {}), requests, sampling, tmp_path / "cut.jsonl")
    with (tmp_path / "cut.jsonl").open("a") as stream:
        stream.write('{"id": "2/reas')
    resumed = assemble(rows, generate_resumable(Engine(answer, {}), requests, sampling, tmp_path / "cut.jsonl"), spec)
    assert resumed == whole
    assert sorted(asked) == sorted([*[request.id for request in requests], requests[4].id])  # only the one under way was asked again


def test_a_rewrite_that_no_longer_refuses_is_counted_and_falls_back_only_where_that_filter_is_on(spec):
    harmful = {"id": "a", "prompt": "p", "reasoning": "", "answer": "I can't help with that.", "harmful": True}
    lost, kept = generation("I can help with that.", name="a/answer"), generation("I can't do that for you.", name="a/answer")
    on = spec | {"filters": ["overthinking", "meta-thinking", "lost-refusal"]}
    cases = [(harmful, lost, spec, "ok", 1), (harmful, lost, on, "lost-refusal", 1), (harmful, kept, on, "ok", 0)]
    cases += [({**harmful, "harmful": False}, lost, on, "ok", 0), ({**harmful, "answer": "Sure, here it is."}, lost, on, "ok", 0)]
    for row, said, chosen, reason, count in cases:
        (refined,), report = assemble([row], [said], chosen)
        assert (refined["pieces"]["answer"]["reason"], report["lost_refusals"]) == (reason, count)
        assert refined["answer"] == (row["answer"] if reason == "lost-refusal" else said.text)
