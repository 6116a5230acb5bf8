"""The budget against sums worked by hand for a study of five runs."""

from pathlib import Path

import pytest
from untaxed.budget import budget, hours, light_jobs, render
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
    # each experiment: stage 1; base and two runs: 3 evaluate, 6 judge, 2 train, 2 shift; `one` refines
    assert (one.jobs, two.jobs) == (1 + 3 + 6 + 2 + 2 + 1, 1 + 3 + 6 + 2 + 2)
    # shared: the stage; base and plain n 50: 2 evaluate, 4 judge, 1 train, 1 shift
    assert found.total.jobs == one.jobs + two.jobs - (1 + 2 + 4 + 1 + 1)
    assert found.total.hours == pytest.approx(sum(row.hours for row in found.stages))
    assert found.total.hours < one.hours + two.hours


def test_a_figure_costs_the_experiments_that_it_needs(root: Path) -> None:
    kinds = {
        "all": {"kind": "shift_tax"},
        "most": {"kind": "method_bars", "options": {"select": {"n": "max"}}},  # n 100 is in `two`
        "rewritten": {"kind": "refinement_outcomes"},  # DGR is in `one`
        "judged": {"kind": "judge_agreement"},
    }
    figures = {name: {**entry, "title": name, "caption": name} for name, entry in kinds.items()}
    found = budget(load(merge(SMALL, {"figures": figures, "study": {"figures": list(figures)}}), root))
    one, two = found.experiments
    costs = {row.name: (names, row.jobs, row.hours) for row, names in found.figures}
    assert costs["all"] == (["one", "two"], found.total.jobs, pytest.approx(found.total.hours))
    assert costs["most"] == (["two"], two.jobs, pytest.approx(two.hours))
    assert costs["rewritten"] == (["one"], one.jobs, pytest.approx(one.hours))
    assert costs["judged"] == ([], 0, 0.0)  # SMALL compares no judge with people
    text = render(found)
    assert "all experiments" in text
    assert "the judges alone" in text


def test_the_ablations_are_in_no_figure_of_the_paper(root: Path) -> None:
    figures = {row.name: names for row, names in budget(read([root / "config.yaml"], root)).figures}
    assert figures["shift_tax"] == ["dgr_table1", "dgr_activation"]
    assert figures["method_bars"] == ["dgr_table1"]  # the runs of dgr_activation with n 1000 are among its own
    assert figures["judge_agreement"] == []
    assert figures["judge_pairs"] == ["dgr_table1", "dgr_activation", "dgr_ablation"]  # it is about the judges, on whatever runs


def test_disk_is_the_weights_of_every_trained_run(small: Study) -> None:
    found = budget(small)
    assert found.checkpoints == 4  # three runs and the reasoning stage
    assert found.checkpoint_bytes == 4 * 1e6 * 2
    assert found.training_bytes == 1e6 * 12


def test_light_jobs_are_those_that_snakemake_plans(small: Study) -> None:
    # fetch the encoder; 3 data sets; prepare 1 model; filter 1 refinement; mix 5 runs; all assets, list, collect; claims
    assert light_jobs(small) == 1 + 3 + 1 + 1 + 5 + 3 + 1


def test_two_judges_are_compared_in_one_job_where_a_figure_shows_it(small: Study, root: Path) -> None:
    figures = {"pairs": {"kind": "judge_pairs", "title": "t", "caption": "c"}}
    shown = load(merge(SMALL, {"figures": figures, "study": {"figures": ["pairs"]}}), root)
    assert len(shown.config.study.judges) == 2
    assert light_jobs(shown) == light_jobs(small) + 2
    alone = load(merge(SMALL, {"figures": figures, "study": {"figures": ["pairs"], "judges": shown.config.study.judges[:1]}}), root)
    assert alone.judge_pairs("judge_pairs") == shown.judge_pairs("shift_tax") == []


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
    text = render(budget(read([root / "config.yaml"], root)))
    assert "GPU-hours" in text
    for word in ("evaluate", "dgr_table1", "shared, counted once", "Disk: 77 checkpoints, 1,170.40 GB", "Not verified", "s1.1-7b"):
        assert word in text  # 77 runs x 7.6e9 parameters x 2 bytes = 1,170.4 GB


def test_a_job_without_tokens_takes_no_time(small: Study) -> None:
    from untaxed.budget import Job

    assert hours(small, Job("judge", "x")) == 0
    assert hours(small, Job("train", "x", train=180_000)) == 1  # 180,000 tokens / 50 a second


def test_cpu_studies_count_cpu_hours(root: Path) -> None:
    overlay = read_yaml(root / "studies/organism.yaml")
    assert "CPU-hours" in render(budget(load(merge(read_yaml(root / "config.yaml"), overlay), root)))
