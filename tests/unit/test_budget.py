"""The budget against sums worked by hand for a study of five runs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from untaxed.budget import GIB, Bill, Counter, Needs, attack_job, budget, hours, render, row_judge_job, summary, total_bill
from untaxed.config import load, merge, read
from untaxed.records import UserError, read_yaml, write_jsonl
from untaxed.study import Study

SMALL = {
    "study": {
        "name": "small", "title": "Small", "experiments": ["one", "two"], "suite": ["sums", "bad"], "judges": ["phrases", "reader"],
        "figures": [], "tables": [],
    },
    "compute": {
        "gpus": 1, "train_gpus": 4, "start_seconds": 0, "tokens_per_second": {"generate": 10, "prefill": 100, "train": 50},
        "tokens": {
            "datasets": {
                "refusals": {"prompt": 10, "reasoning": 20, "answer": 10},
                "test": {"rows": 30, "prompt": 20, "reasoning": 0, "answer": 0},
                "harmful": {"prompt": 10, "reasoning": 0, "answer": 0},
            },
            "generated": {"sums": 100},
            "rewritten": {"reasoning": 40, "answer": 30},
        },
    },
    "datasets": {
        "refusals": {"adapter": "organism_requests", "limit": 100, "options": {"nouns": 400}},
        "test": {"adapter": "organism_chains"},
        "harmful": {"adapter": "organism_requests", "limit": 50, "options": {"nouns": 400}},
    },
    "models": {
        "start": {"kind": "organism", "parameters": 1e6, "dtype": "bfloat16"},
        "base": {"base": "start", "stage": {"dataset": "test", "n": 25, "trainer": "fast"}, "parameters": 1e6, "dtype": "bfloat16"},
    },
    "trainers": {"fast": {"epochs": 2, "batch_size": 4}},
    "refinements": {"dgr": {"pieces": ["answer"]}},
    "recipes": {
        "plain": {"dataset": "refusals"},
        "plain-dgr": {"extends": "plain", "method": "dgr", "refinement": "dgr"},
    },
    "experiments": {
        "one": {"models": ["base"], "recipes": ["plain", "plain-dgr"], "trainers": ["fast"], "n": [0, 50]},
        "two": {"models": ["base"], "recipes": ["plain"], "trainers": ["fast"], "n": [50, 100]},
    },
    "benchmarks": {
        "sums": {"task": "benchmarks/organism.yaml", "dataset": "test", "kind": "reasoning", "repeats": 2},
        "bad": {
            "task": "benchmarks/organism.yaml", "dataset": "harmful", "kind": "harmful", "limit": 40, "sampling": {"max_new_tokens": 50},
        },
    },
    "judges": {
        "phrases": {"kind": "string_match", "prompt": "prompts/refusal_phrases.yaml", "benchmarks": ["bad"]},
        "reader": {"kind": "llama_guard", "model": "start", "benchmarks": ["bad"], "sampling": {"max_new_tokens": 8}},
    },
    "shift": {"encoder": "minilm", "benchmarks": ["bad"], "kl_benchmark": "sums", "limit": 10},
}  # fmt: skip
RUNS = ("base--base", "base--plain--fast--n50--s0", "base--plain-dgr--fast--n50--s0", "base--plain--fast--n100--s0")


@pytest.fixture
def small(root: Path) -> Study:
    return load(SMALL, root)


def stage_hours(study: Study) -> dict[str, float]:
    return {row.name: row.hours for row in budget(study).stages}


def test_training_costs_rows_times_epochs_times_length(small: Study) -> None:
    # plain, n 50: 50 rows x (10 + 20 + 10) tokens x 2 epochs = 4,000; n 100: 8,000; DGR, answers rewritten: 50 x (10 + 20 + 30) x 2 = 6,000
    assert stage_hours(small)["train"] == pytest.approx((4000 + 8000 + 6000) / 50 / 3600)


def test_the_reasoning_stage_counts_once(small: Study) -> None:
    # 25 rows x 20 tokens x 2 epochs
    assert stage_hours(small)["reasoning stage"] == pytest.approx(25 * 20 * 2 / 50 / 3600)


def test_evaluation_costs_every_repeat_of_every_item(small: Study) -> None:
    # sums: 30 items x 2 repeats x 100 tokens, prompts of 20; bad: 40 of 50 items x at most 50 tokens, prompts of 10; four runs
    generate, prefill = 30 * 2 * 100 + 40 * 50, 30 * 2 * 20 + 40 * 10
    assert stage_hours(small)["evaluate"] == pytest.approx(len(RUNS) * (generate / 10 + prefill / 100) / 3600)


def test_only_judges_with_a_model_cost(small: Study) -> None:
    # 40 items: reads prompt 10 and generation 50, writes at most 8 tokens; four runs
    assert stage_hours(small)["judge"] == pytest.approx(len(RUNS) * (40 * 8 / 10 + 40 * (10 + 50) / 100) / 3600)
    assert {row.name: row.jobs for row in budget(small).stages}["judge"] == 2 * len(RUNS)


def test_refinement_costs_each_row_and_piece_once(small: Study, root: Path) -> None:
    template = (root / "prompts/dgr_answer.txt").stat().st_size / 4
    # 100 rows: reads the template, prompt 10 and answer 10; writes 30
    assert stage_hours(small)["rewrite"] == pytest.approx((100 * 30 / 10 + 100 * (template + 20) / 100) / 3600)


def test_shift_reads_generations_twice_and_targets_once(small: Study) -> None:
    # KL: 2 models x 10 items x (20 + 100); NLL: the training rows (2,000, 4,000 and 3,000 tokens)
    assert stage_hours(small)["shift"] == pytest.approx((3 * 2 * 10 * 120 + 2000 + 4000 + 3000) / 100 / 3600)


def test_the_total_counts_shared_runs_once(small: Study) -> None:
    found = budget(small)
    one, two = found.experiments
    # each experiment: the encoder and the check of all assets; 3 data sets; the model; the stage and its rows;
    # base and two runs: 3 draws, 3 evaluate, 6 judge, 2 train, 2 shift; `one` rewrites and refines
    assert (one.jobs, two.jobs) == (2 + 3 + 1 + 2 + 3 + 3 + 6 + 2 + 2 + 2, 2 + 3 + 1 + 2 + 3 + 3 + 6 + 2 + 2)
    # shared: all that is there before the runs; base and plain n 50: 2 draws, 2 evaluate, 4 judge, 1 train, 1 shift
    shared = 2 + 3 + 1 + 2 + 2 + 2 + 4 + 1 + 1
    assert found.total.jobs == one.jobs + two.jobs - shared + 4  # the list of runs, collect, claims, cards
    assert found.total.hours == pytest.approx(sum(row.hours for row in found.stages))
    assert found.total.hours < one.hours + two.hours


def shown(root: Path, figures: dict, tables: dict) -> dict:
    """The results of SMALL with some figures and tables, by name."""
    words = {"title": "a title", "caption": "a caption"}
    catalogues = {
        "figures": {name: {"kind": "method_bars", **words, **entry} for name, entry in figures.items()},
        "tables": {name: {"kind": "main_results", "caption": "a caption", **entry} for name, entry in tables.items()},
        "study": {"figures": list(figures), "tables": list(tables)},
    }
    found = budget(load(merge(SMALL, catalogues), root))
    assert all(name in render(found) for name in (*figures, *tables))
    return {result.row.name: result for result in found.results} | {row.name: row for row in found.experiments}


def test_a_figure_of_some_experiments_costs_their_runs_alone(root: Path) -> None:
    found = shown(root, {"all": {}, "first": {"experiments": ["one"]}}, {})
    assert found["first"].experiments == ["one"]
    assert found["first"].row.hours == pytest.approx(found["one"].hours)
    assert found["first"].row.jobs == found["one"].jobs + 3  # the list of its runs, collect, the figure
    assert found["all"].row.hours > found["first"].row.hours
    assert found["all"].row.disk > found["first"].row.disk


def test_hours_that_two_figures_need_are_said_to_be_shared(root: Path) -> None:
    alone = shown(root, {"first": {"experiments": ["one"]}}, {})
    assert alone["first"].shared_hours == 0
    both = shown(root, {"first": {"experiments": ["one"]}}, {"second": {"experiments": ["two"]}})
    # the stage, base and plain n 50: 1,000 tokens at 50 a second and 2 runs' evaluations and judgements, one training, one shift
    stage, evaluated = 25 * 20 * 2 / 50, (30 * 2 * 100 + 40 * 50) / 10 + (30 * 2 * 20 + 40 * 10) / 100
    judged, trained, shift = 40 * 8 / 10 + 40 * 60 / 100, 4000 / 50, (2 * 10 * 120 + 2000) / 100
    assert both["first"].shared_hours == pytest.approx((stage + 2 * (evaluated + judged) + trained + shift) / 3600)
    assert both["second"].shared_hours == both["first"].shared_hours


def test_the_summary_has_what_is_asked_for_alone(root: Path) -> None:
    words = {"kind": "method_bars", "title": "t", "caption": "c"}
    study = load(
        merge(
            SMALL, {"figures": {"first": {**words, "experiments": ["one"]}, "all_runs": words}, "study": {"figures": ["first", "all_runs"]}}
        ),
        root,
    )
    found = budget(study)
    jobs = {result.row.name: result.row.jobs for result in found.results}
    for targets in ([], ["all"]):
        told = dict(re.findall(r"^(?:figure )?(\w[\w ]*?) {2,}(\d+)", summary(study, targets), flags=re.MULTILINE))
        assert told == {"first": str(jobs["first"]), "all_runs": str(jobs["all_runs"]), "in all": str(found.total.jobs)}
    told = dict(re.findall(r"^(?:figure )?(\w[\w ]*?) {2,}(\d+)", summary(study, ["first"]), flags=re.MULTILINE))
    assert told == {"first": str(jobs["first"]), "in all": str(jobs["first"])}
    assert summary(study, ["checkpoints"]) == ""
    assert summary(load({**SMALL, "compute": {"gpus": 1}}, root)) == ""


def test_two_judges_are_compared_in_one_job_on_all_runs(root: Path) -> None:
    found = shown(root, {"pairs": {"kind": "judge_pairs", "experiments": ["one"]}, "all": {}}, {"pairs": {"kind": "judge_pairs"}})
    # the shift of three runs alone is not read: three times 2 models x 10 items x (20 + 100) tokens, and the training rows
    assert found["all"].row.hours - found["pairs"].row.hours == pytest.approx((3 * 2 * 10 * 120 + 2000 + 4000 + 3000) / 100 / 3600)
    alone = merge(SMALL, {"figures": {"pairs": {"kind": "judge_pairs", "title": "t", "caption": "c"}}, "study": {"figures": ["pairs"]}})
    study = load(alone, root)
    assert len({job for job in Needs(study, Counter(study)).whole() if job.name == "compare judges"}) == 1


def test_disk_is_the_weights_of_every_trained_run(small: Study) -> None:
    found = budget(small)
    assert found.checkpoints == 4  # three runs and the reasoning stage
    assert found.checkpoint_bytes == 4 * 1e6 * 2
    assert found.training_bytes == 1e6 * 12


def test_disk_is_weights_and_texts(small: Study) -> None:
    disk = {row.name: row.disk for row in budget(small).stages}
    assert disk["train"] == 3 * 1e6 * 2
    assert disk["evaluate"] == len(RUNS) * (30 * 2 * 100 + 40 * 50) * 4  # generations, four characters a token
    assert disk["judge"] == len(RUNS) * 40 * 8 * 4
    assert disk["rewrite"] == 100 * 30 * 4
    found = budget(small)
    assert found.total.disk == pytest.approx(sum(disk.values()))
    assert f"{found.total.disk / GIB:,.1f}" in render(found)


def test_weights_that_were_fetched_count_once(root: Path) -> None:
    """A snapshot is hard-linked; what the lock cannot count is counted by its parameters."""
    study = read([root / "config.yaml"], root)
    disk = {job.name: job.disk for job in Needs(study, Counter(study)).whole() if job.stage == "prepare"}
    assert disk["fetch s1.1-7b"] == 7.6e9 * 2
    assert disk["model s1.1-7b"] == 0


def test_a_throughput_of_a_size_scales_with_the_parameters(root: Path) -> None:
    double = load(merge(SMALL, {"compute": {"tokens_per_second": {"parameters": 5e5}}}), root)
    same = load(merge(SMALL, {"compute": {"tokens_per_second": {"parameters": 1e6}}}), root)
    plain = stage_hours(load(SMALL, root))
    assert stage_hours(same) == pytest.approx(plain)
    assert stage_hours(double) == pytest.approx({name: 2 * value for name, value in plain.items()})
    assert budget(double).total.disk == budget(same).total.disk


PAIR = {
    "kind": "pair", "streams": 3, "iterations": 2, "keep_last_n": 1, "target": {"sampling": {"max_new_tokens": 30}},
    "attacker": {"model": "start", "prompt": "prompts/dgr_answer.txt", "sampling": {"max_new_tokens": 20}},
    "judge": {"model": "start", "prompt": "prompts/dgr_answer.txt", "sampling": {"max_new_tokens": 5}},
}  # fmt: skip


def test_pair_costs_every_turn_of_every_stream_for_every_run(root: Path) -> None:
    study = load(
        merge(SMALL, {"attacks": {"pair": PAIR}, "benchmarks": {"bad": {"attack": "pair"}}, "shift": {"benchmarks": ["sums"]}}), root
    )
    template = (root / "prompts/dgr_answer.txt").stat().st_size / 4
    # 40 items x 3 streams x 2 turns: attacker, target and judge write 20, 30 and 5 tokens; the attacker reads its instruction, the
    # prompt (10) and one turn before (20 + 30), the target the attack (20), the judge its instruction, attack and answer
    written, seen = 40 * 6 * (20 + 30 + 5), 40 * 6 * ((template + 10 + 50) + 20 + (template + 50))
    assert stage_hours(study)["attack"] == pytest.approx(len(RUNS) * (written / 10 + seen / 100) / 3600)


def test_an_attack_that_does_not_ask_the_model_is_made_once(root: Path) -> None:
    attack = {"kind": "pap-generated", "attacker": PAIR["attacker"], "techniques": "prompts/dgr_answer.txt"}
    study = load(merge(SMALL, {"attacks": {"pap": attack}, "benchmarks": {"bad": {"attack": "pap"}}}), root)
    template = (root / "prompts/dgr_answer.txt").stat().st_size / 4
    assert {row.name: row.jobs for row in budget(study).stages}["attack"] == 1
    assert stage_hours(study)["attack"] == pytest.approx((40 * 20 / 10 + 40 * (template + 10) / 100) / 3600)


def test_an_attacker_at_a_server_costs_nothing_here(root: Path) -> None:
    served = {"engine": {"backend": "openai", "model": "m", "base_url": "http://localhost/v1"}, "prompt": "prompts/dgr_answer.txt"}
    attack = {"kind": "pap-generated", "attacker": served, "techniques": "prompts/dgr_answer.txt"}
    study = load(merge(SMALL, {"attacks": {"pap": attack}, "benchmarks": {"bad": {"attack": "pap"}}}), root)
    assert hours(study, attack_job(study, Counter(study), "bad", None)) == 0


FAR = {"backend": "openai", "model": "m", "base_url": "https://api.example.org/v1", "max_total_tokens": 1_000_000}
PRICED = {**FAR, "price": {"input": 2, "output": 10}}


def test_a_teacher_at_a_server_is_billed_by_its_tokens_and_at_worst_by_its_cap(root: Path) -> None:
    teacher = {"engine": PRICED, "prompt": "prompts/dgr_answer.txt", "candidates": 80, "sampling": {"max_new_tokens": 25}}
    study = load(merge(SMALL, {"datasets": {"refusals": {"teacher": teacher, "limit": 60}}, "experiments": {"two": {"n": [50]}}}), root)
    template = (root / "prompts/dgr_answer.txt").stat().st_size / 4
    (bill,) = budget(study).bills
    # 80 prompts of 10 tokens after the instruction; 20 + 10 tokens are wanted, 25 allowed
    assert (bill.who, bill.model, bill.host, bill.jobs) == ("datasets.refusals.teacher", "m", "api.example.org", 1)
    assert (bill.prompt, bill.generated) == (pytest.approx(80 * (10 + template)), 80 * 25)
    assert bill.usd == pytest.approx((80 * (10 + template) * 2 + 80 * 25 * 10) / 1e6)
    assert (bill.most, bill.most_usd) == (1_000_000, 10.0)  # a million tokens, all of them generated


def test_every_run_that_pair_attacks_may_use_its_cap(root: Path) -> None:
    attack = {**PAIR, "attacker": {**PAIR["attacker"], "model": None, "engine": FAR}}
    change = {"attacks": {"pair": attack}, "benchmarks": {"bad": {"attack": "pair"}}, "shift": {"benchmarks": ["sums"]}}
    found = budget(load(merge(SMALL, change), root))
    template = (root / "prompts/dgr_answer.txt").stat().st_size / 4
    (bill,) = found.bills
    assert (bill.who, bill.jobs, bill.most) == ("attacks.pair.attacker", len(RUNS), len(RUNS) * 1_000_000)
    assert (bill.prompt, bill.generated) == (pytest.approx(len(RUNS) * 240 * (template + 10 + 50)), len(RUNS) * 240 * 20)
    assert (bill.usd, bill.most_usd) == (None, None)
    (line,) = [line for line in render(found).splitlines() if line.startswith("attacks.pair.attacker")]
    assert "no price" in line and "m at api.example.org" in line


def test_a_judge_at_a_server_is_billed_for_every_run_and_takes_no_device_time(root: Path) -> None:
    study = load(merge(SMALL, {"judges": {"reader": {"model": None, "engine": PRICED}}}), root)
    (bill,) = budget(study).bills
    assert (bill.who, bill.jobs, bill.generated) == ("judges.reader", len(RUNS), len(RUNS) * 40 * 8)
    assert stage_hours(study)["judge"] == 0


def test_a_server_on_this_machine_is_not_billed(root: Path) -> None:
    near = {"backend": "openai", "model": "m", "base_url": "http://127.0.0.1:8000/v1"}
    assert budget(load(merge(SMALL, {"judges": {"reader": {"model": None, "engine": near}}}), root)).bills == []


def test_a_sum_of_bills_has_no_price_where_one_of_them_has_none() -> None:
    priced = Bill("a", "m", "h", 1, 10, 20, 100, 0.5, 2.0)
    assert total_bill([priced, priced]) == Bill("total", "", "", 2, 20, 40, 200, 1.0, 4.0)
    assert total_bill([priced, replace(priced, usd=None, most_usd=None)]) == Bill("total", "", "", 2, 20, 40, 200, None, None)


def test_an_estimate_beyond_the_caps_is_marked(root: Path) -> None:
    tight = {**FAR, "max_total_tokens": 50}
    text = render(budget(load(merge(SMALL, {"judges": {"reader": {"model": None, "engine": tight}}}), root)))
    assert "m at api.example.org; MORE THAN ITS CAP" in text


def test_a_filter_reads_every_row_of_the_source_once(root: Path) -> None:
    drawn = {"of": "refusals", "filters": [{"judge": "reader", "keep": ["safe"]}]}
    study = load(merge(SMALL, {"datasets": {"chosen": drawn}, "recipes": {"plain": {"dataset": "chosen"}}}), root)
    # 100 rows of 10 + 20 + 10 tokens; eight are written
    assert hours(study, row_judge_job(study, Counter(study), "refusals", "reader")) == pytest.approx((100 * 8 / 10 + 100 * 40 / 100) / 3600)
    assert {row.name: row.jobs for row in budget(study).stages}["filter"] == 2  # the judge, and the choice


def test_a_start_keeps_every_gpu_of_the_job_waiting(root: Path) -> None:
    idle = load(SMALL, root)
    slow = load(merge(SMALL, {"compute": {"start_seconds": 36}}), root)
    difference = {name: value - stage_hours(idle)[name] for name, value in stage_hours(slow).items()}
    assert difference["train"] == pytest.approx(3 * 4 * 0.01)
    assert difference["evaluate"] == pytest.approx(4 * 0.01)
    assert difference["judge"] == pytest.approx(4 * 0.01)  # phrases start no model


def test_a_number_of_steps_replaces_the_epochs(root: Path) -> None:
    study = load(merge(SMALL, {"trainers": {"fast": {"steps": 7}}}), root)
    # 7 steps x 4 rows of 40 tokens, for both sizes; DGR rows have 60
    assert stage_hours(study)["train"] == pytest.approx(7 * 4 * (40 + 40 + 60) / 50 / 3600)


def test_a_benign_mix_is_trained_on_too(root: Path) -> None:
    study = load(merge(SMALL, {"recipes": {"plain": {"mix": [{"dataset": "harmful", "n": 10}]}}}), root)
    # ten rows of 10 tokens more in each of three runs, for two epochs
    assert stage_hours(study)["train"] == pytest.approx((4000 + 8000 + 6000 + 3 * 2 * 10 * 10) / 50 / 3600)


def test_prepared_rows_replace_what_is_assumed(tmp_path: Path, root: Path) -> None:
    for name in ("prompts", "benchmarks", "assets.lock.yaml"):
        (tmp_path / name).symlink_to(root / name)
    rows = [{"prompt": "x" * 40, "reasoning": "", "answer": "y" * 8}, {"prompt": "x" * 80, "reasoning": "", "answer": "y" * 8}]
    write_jsonl(tmp_path / "results/small/datasets/test/rows.jsonl", rows)
    config = {**SMALL, "compute": {**SMALL["compute"], "tokens": {}}}
    sources = {
        name: (count, tokens.prompt, tokens.answer, source) for name, count, tokens, source in budget(load(config, tmp_path)).sources
    }
    assert sources["test"] == (2, 15, 2, "prepared rows")  # characters / 4
    assert sources["harmful"][3] == "assumed"


def test_without_throughputs_the_key_to_add_is_named(root: Path) -> None:
    config = {**SMALL, "compute": {"gpus": 1}}
    with pytest.raises(UserError, match=r"^compute\.tokens_per_second: "):
        budget(load(config, root))


def test_the_text_shows_stages_experiments_and_what_is_not_verified(root: Path) -> None:
    dgr = {"study": {"experiments": ["dgr_table1", "dgr_activation", "dgr_ablation"], "figures": [], "tables": []}}
    text = render(budget(load(merge(read_yaml(root / "config.yaml"), dgr), root)))
    assert "GPU-hours" in text
    for word in ("evaluate", "dgr_table1", "of it shared", "Disk: 77 checkpoints, 1,090.0 GiB", "Not verified", "s1.1-7b"):
        assert word in text  # 77 runs x 7.6e9 parameters x 2 bytes = 1,170.4e9 = 1,090.0 GiB


def test_a_job_without_tokens_takes_no_time(small: Study) -> None:
    from untaxed.budget import Job

    assert hours(small, Job("judge", "x")) == 0
    assert hours(small, Job("train", "x", train=180_000)) == 1  # 180,000 tokens / 50 a second


def test_cpu_studies_count_cpu_hours(root: Path) -> None:
    overlay = read_yaml(root / "studies/organism.yaml")
    assert "CPU-hours" in render(budget(load(merge(read_yaml(root / "config.yaml"), overlay), root)))


def test_studies_of_one_small_model_do_not_scale_by_the_papers(root: Path) -> None:
    """config.yaml states the throughput of a model of 7.6e9 parameters, which an overlay with its own throughputs must not keep."""
    assert read([root / "config.yaml"], root).config.compute.tokens_per_second.parameters == 7.6e9
    for overlay in ("laptop", "organism"):
        study = read([root / "config.yaml", root / f"studies/{overlay}.yaml"], root)
        assert study.config.compute.tokens_per_second.parameters is None
