"""What the profiles plan, and what the budget says of it, on a machine without GPU, SLURM or network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from untaxed.config import read

# Trained models of config.yaml. DGR: 6 recipes x 3 seeds; 2 on R1-ACT x 2 further sizes x 3 seeds; 2 recipes x 7 sizes x 3 seeds, of which
# n = 1000 is in the table; 23 ablations. Empirical study, 3 seeds: 6 styles on 4 models, 3 recipes of other teachers, 3 arms of 250 rows,
# 3 styles in 9 further settings.
PAPER = 6 * 3 + 2 * 2 * 3 + 2 * (7 - 1) * 3 + 23 + 3 * (6 * 4 + 3 + 3 + 3 * 9)
BASES = 1 + 4 + 4  # DGR's, the empirical study's, and the prior models that it compares with


@pytest.fixture(scope="module")
def copy(repository):
    """A fresh copy, in which nothing is made yet."""
    return repository("planned")


def run(copy, *arguments: str) -> str:
    command = [str(copy / ".venv/bin/python"), *arguments]
    result = subprocess.run(command, cwd=copy.folder, env=copy.environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def jobs(output: str, rule: str = "total") -> int:
    return int(re.search(rf"^{rule} +(\d+)$", output, flags=re.MULTILINE).group(1))


@pytest.mark.parametrize("profile", ["slurm", "workstation"])
def test_a_profile_plans_the_study_of_the_paper(profile: str, copy) -> None:
    output = run(copy, "-m", "snakemake", "--profile", profile, "-n")
    assert (jobs(output, "train"), jobs(output, "evaluate")) == (PAPER, PAPER + BASES)


@pytest.mark.parametrize("overlays", [[], ["studies/laptop.yaml"], ["studies/organism.yaml", "studies/smoke.yaml"]], ids=len)
def test_the_budget_counts_the_jobs_that_snakemake_plans(overlays: list[str], copy) -> None:
    given = ["--configfile", *overlays] if overlays else []
    planned = jobs(run(copy, "-m", "snakemake", "-n", "-c1", *given))
    budget = json.loads(run(copy, "scripts/budget.py", "--json", *(part for path in overlays for part in ("--config", path))))
    assert budget["total"]["jobs"] + 1 == planned  # `all`


def test_the_budget_counts_the_jobs_of_a_figure_alone(copy) -> None:
    (copy / "part.yaml").write_text("figures: {method_bars: {experiments: [dgr_table1]}}")
    planned = jobs(run(copy, "-m", "snakemake", "-n", "-c1", "method_bars", "--configfile", "part.yaml"))
    budget = json.loads(run(copy, "scripts/budget.py", "--json", "--config", "part.yaml"))
    found = {result["row"]["name"]: result["row"] for result in budget["results"]}
    assert found["method_bars"]["jobs"] + 1 == planned  # the target of that name


def test_what_reads_reports_alone_plans_no_run(copy) -> None:
    """Each as the budget counts it, and together."""
    names = ["cot_table4", "cot_figure1", "data", "judges", "judge_accuracy", "refinement"]
    budget = json.loads(run(copy, "scripts/budget.py", "--json"))
    counted = {result["row"]["name"]: result["row"]["jobs"] for result in budget["results"]}
    for name in names:
        output = run(copy, "-m", "snakemake", name, "-n", "-c1", "--quiet", "rules")
        assert not re.search(r"^(train|evaluate|mix|collect\w*) ", output, flags=re.MULTILINE), name
        assert jobs(output) == counted[name] + 1, name  # the target of that name


@pytest.mark.parametrize(
    "overlays", [[], ["studies/laptop.yaml", "studies/laptop_cot.yaml"], ["studies/organism.yaml", "studies/smoke.yaml"]], ids=len
)
def test_every_figure_and_table_is_a_target(overlays: list[str], copy) -> None:
    """A rule of the same name, with wildcards, would take its place."""
    study = read([copy.folder / "config.yaml", *(copy.folder / path for path in overlays)], copy.folder)
    rules = run(copy, "-m", "snakemake", "--list-rules", "all", *(["--configfile", *overlays] if overlays else []))
    assert set(study.targets) <= set(rules.split())


@pytest.mark.parametrize(
    ("target", "said"),
    [("cot_tabel1", "did you mean 'cot_table1'?"), ("cot_figure5", "study 'laptop' does not select it; add it to study.figures")],
)
def test_a_misspelled_target_is_one_error_that_names_the_nearest(target: str, said: str, copy) -> None:
    overlays = ["studies/laptop.yaml", *(["studies/laptop_cot.yaml"] if "tabel" in target else [])]
    command = [str(copy / ".venv/bin/python"), "-m", "snakemake", target, "-c1", "--configfile", *overlays]
    result = subprocess.run(command, cwd=copy.folder, env=copy.environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 1
    (error,) = [line for line in (result.stdout + result.stderr).splitlines() if "rror" in line]
    assert error.startswith(f"error: no figure, table or stage is called {target!r} here; ")
    assert said in error
    assert "Traceback" not in result.stderr


def test_a_dry_run_says_what_it_plans_costs_and_a_run_does_not(copy) -> None:
    output = run(copy, "-m", "snakemake", "-n", "-c1", "dgr_table1", "cot_table4")
    shown = dict(re.findall(r"^table (\w+) +([\d,]+) +[\d,.]+ +[\d,.]+$", output, flags=re.MULTILINE))
    budget = json.loads(run(copy, "scripts/budget.py", "--json"))
    counted = {result["row"]["name"]: f"{result['row']['jobs']:,}" for result in budget["results"] if result["kind"] == "table"}
    assert shown == {name: counted[name] for name in ("dgr_table1", "cot_table4")}
    assert "from an empty folder" not in run(copy, "-m", "snakemake", "-c1", "--rulegraph")


def test_the_budget_ends_when_its_reader_leaves(copy) -> None:
    command = f"{copy / '.venv/bin/python'} -m snakemake budget -c1 2>&1 | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(
        ["bash", "-c", command], cwd=copy.folder, env=copy.environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert len(result.stdout.splitlines()) == 1


def test_snakemake_budget_runs_no_other_job(copy) -> None:
    output = run(copy, "-m", "snakemake", "budget", "-c1", "--configfile", "studies/laptop.yaml")
    assert jobs(output) == 1
    assert "Study laptop: " in output
    assert not (copy / "results/laptop").exists()


SHOW = """
rule show:
    log: "logs/show.log"
    shell: "echo gpus=${{CUDA_VISIBLE_DEVICES-all}}, 2> {log}"
"""


@pytest.mark.parametrize(("gpus", "visible"), [(0, ""), (1, "all")])
def test_the_jobs_of_a_study_without_gpus_see_none(gpus: int, visible: str, repository, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    copy = repository("gpus")
    (copy / "rules/figures.smk").write_text((copy / "rules/figures.smk").read_text() + SHOW)
    (copy / "overlay.yaml").write_text(f"compute: {{gpus: {gpus}}}")
    output = run(copy, "-m", "snakemake", "show", "-c1", "--configfile", "studies/organism.yaml", "overlay.yaml")
    assert f"gpus={visible},\n" in output


@pytest.mark.parametrize(
    ("compute", "start"),
    [
        ("{gpus: 0}", "python"),
        ("{gpus: 1}", "python"),
        ("{gpus: 2, train_gpus: 0}", "env CUDA_VISIBLE_DEVICES= python"),
        ("{gpus: 1, train_gpus: 4}", "accelerate launch --num_processes 4 --mixed_precision no"),
    ],
)
def test_a_training_that_asks_for_no_gpu_sees_none(compute: str, start: str, copy) -> None:
    (copy / "overlay.yaml").write_text(f"compute: {compute}")
    output = run(copy, "-m", "snakemake", "-n", "-p", "-c1", "--configfile", "studies/organism.yaml", "studies/smoke.yaml", "overlay.yaml")
    assert set(re.findall(r"^ *Shell command: (.*) scripts/train\.py ", output, flags=re.MULTILINE)) == {start}


def test_on_a_machine_with_several_gpus_each_job_gets_its_own(repository) -> None:
    copy = repository("several")
    with (copy / "scripts/untaxed/machine.py").open("a") as code:
        code.write("\n\ndef installed_gpus():\n    return 4\n")
    (copy / "overlay.yaml").write_text("compute: {gpus: 1, train_gpus: 2}")
    output = run(copy, "-m", "snakemake", "-n", "-p", "-c1", "--configfile", "studies/organism.yaml", "studies/smoke.yaml", "overlay.yaml")
    found = {
        rule: start for start, rule in re.findall(r"^ *Shell command: (.*) scripts/(train|evaluate|mix)\.py ", output, flags=re.MULTILINE)
    }
    assert found == {
        "train": "python scripts/on_gpus.py 2 accelerate launch --num_processes 2 --mixed_precision no",
        "evaluate": "python scripts/on_gpus.py 1 python",
        "mix": "python",
    }


def test_every_key_of_a_profile_is_an_option_of_snakemake(root: Path) -> None:
    options = subprocess.run([sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=True).stdout
    for profile in ("slurm", "workstation"):
        for key in yaml.safe_load((root / profile / "profile.yaml").read_text()):
            assert re.search(rf"--{key}\b", options), f"{profile}: {key}"


def test_no_profile_gives_tasks_arrays_or_a_gpu_model_to_all_jobs(root: Path) -> None:
    profile = yaml.safe_load((root / "slurm/profile.yaml").read_text())
    assert profile["default-resources"]["nodes"] == 1  # or SLURM spreads --gpus=N over nodes
    assert not {"tasks", "gpu", "gpu_model"} & set(profile["default-resources"])
    assert "slurm-array-jobs" not in profile
    assert yaml.safe_load((root / "workstation/profile.yaml").read_text())["resources"]["gpu"] == 1
