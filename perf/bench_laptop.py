"""A whole study against the same work by hand: perf/by_hand.sh runs the usual commands, a job at a time, over the study's own rows.

    python perf/bench_laptop.py --with-study                 both sides now: first ./untaxed laptop over again, then by hand
    python perf/bench_laptop.py --runs 3                     the first 3 runs by hand; the rest is extrapolated from them

By hand there is no warm server, no shared model load, no padding-free batch and no large batch. Shift, string-match judges, agreement,
tables, figures and report are left out by hand and counted in ours; so are distilling, the preparation of rows and the conversion of the
model. Runs are taken so that every n comes early: --runs needs one for each n. The evaluations alone are compared in core-seconds,
because ours lie side by side on fewer threads each.
The study's side is the launcher's wall time, with --with-study of a new run over everything but the downloads, else of its last log.
"""

import subprocess
import sys
import tempfile
from collections import defaultdict
from itertools import zip_longest
from pathlib import Path

from bench_evaluate import write_tasks
from measure import ROOT, load_study, machine, made_file, number, parser, prepare, report, table, target
from peak_memory import watch
from rule_seconds import jobs as jobs_of
from rule_seconds import wall

PARTS = ("stage", "refine", "train", "evaluate", "judge")


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--runs", type=int, help="how many runs by hand (default: all)")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    made.add_argument("--batch", type=int, default=8, help="batch of the generate loops that refine and judge; many scripts use 1")
    made.add_argument("--with-study", action="store_true", help="run the study over again first (the launcher's output goes to logs/)")
    made.add_argument("--keep", type=Path, help="folder for checkpoints, samples and logs of the work by hand (default: a temporary one)")
    options = made.parse_args()
    prepare(options)
    before = machine()
    study = load_study(options.study)
    ours = run_study(study.name) if options.with_study else wall(Path("logs") / study.name / "snakemake.log")
    with tempfile.TemporaryDirectory() as name:
        folder = (options.keep or Path(name)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        jobs = plan(study, folder, options.parts, options.batch)
        chosen = set(order(study)[: options.runs])
        doing = [job for job in jobs if job["run"] is None or job["run"] in chosen]
        done = by_hand(doing, folder)
    parts, whole = totals(jobs, done)
    record = {"study": study.name, "by_hand": {"parts": parts, "seconds": whole, "jobs": done}, "ours": ours, "batch": options.batch}
    record |= {"repeats": 1, "runs": len(chosen), "runs_of_study": len(study.runs), "with_study": options.with_study}
    text = table(["part", "jobs", "done", "seconds of those", "seconds of all"], [[*part.values()] for part in parts])
    extrapolated = len(done) < len(jobs)
    if whole is None:
        text += "\nThe whole cannot be told: a kind of job was never done; take more runs.\n"
    elif set(options.parts) == set(PARTS):
        text += f"\nBy hand: {number(whole)} s in all" + (", extrapolated from the jobs that were done.\n" if extrapolated else ".\n")
        if ours and ours["done"] == ours["steps"]:
            record["targets"] = [target(f"by hand / ./untaxed {study.name}", whole / ours["seconds"], 2.0)]
            text += f"The study by Untaxed: {number(ours['seconds'])} s, {ours['steps']} jobs"
            text += f" (run just before; {ours['peak_mib'] / 1024:.1f} GiB of memory at its peak).\n" if options.with_study else ""
            text += "" if options.with_study else " (its last log; not the same session).\n"
    record["targets"] = record.get("targets", []) + evaluations(study, parts, before["cores"])
    report(options, f"by_hand_{study.name}", f"The study {study.name} by hand", before, record, text)


def evaluations(study, parts: list[dict], cores: int) -> list[dict]:
    """All evaluations by hand, which use every core, against the study's, by their benchmark files; in core-seconds."""
    by_hand_seconds = next((part["all"] for part in parts if part["part"] == "evaluate"), None)
    ours = sum(jobs_of(ROOT / study.results / "benchmarks").get("evaluate", [])) * study.config.compute.threads
    if not by_hand_seconds or not ours:
        return []
    return [target("all evaluations: by hand / ours, core-seconds", by_hand_seconds * cores / ours, 2.0)]


def run_study(study: str) -> dict:
    """Run the study over again, downloads excepted. Returns the launcher's wall time, its jobs and its peak memory."""
    found = watch([sys.executable, "untaxed", "--plain", study, "--forcerun", "prepare_dataset", "prepare_model"])
    if found["exit"]:
        raise SystemExit(f"error: ./untaxed {study} failed; see logs/{study}/snakemake.log")
    return wall(Path("logs") / study / "snakemake.log") | found


def order(study) -> list[str]:
    """The study's runs, one of each n in turns, so that the first few stand for all."""
    by_n = defaultdict(list)
    for name, run in study.runs.items():
        by_n[run["n"]].append(name)
    return [name for turn in zip_longest(*by_n.values()) for name in turn if name]


def plan(study, folder: Path, parts: list[str], batch: int) -> list[dict]:
    """Every job by hand, in an order in which it can run: {part, group (alike jobs), name, run (None: always done), arguments}."""
    from untaxed.machine import has_gpu
    from untaxed.records import read_jsonl, write_jsonl
    from untaxed.refinement import build_requests

    jobs: list[dict] = []
    checkpoints: dict[str, str] = {}

    def add(part: str, group: str, name: str, run: str | None, *arguments) -> None:
        jobs.append({"part": part, "group": group, "name": name, "run": run, "arguments": [str(argument) for argument in arguments]})

    def model(name: str) -> str:
        return checkpoints.get(name) or str(made_file(study.model(name), study.name).parent.resolve())

    def train(part: str, run: dict, base: str, always: bool) -> str:
        name, trainer = run["run"], run["trainer"]
        rows = read_jsonl(made_file(f"{study.results}/runs/{name}/train.jsonl", study.name))
        write_jsonl(folder / "rows" / name / "train.jsonl", (conversation(row, run["thinking"]) for row in rows))
        length = f"--max_steps {trainer['steps']}" if trainer["steps"] else f"--num_train_epochs {trainer['epochs']}"
        output = folder / "checkpoints" / name
        add(
            part, f"n={run['n']}", name, None if always else name, base, folder / "rows" / name, output, trainer["learning_rate"], length,
            trainer["batch_size"], trainer["schedule"], trainer["warmup_steps"], trainer["weight_decay"], run["seed"],
            trainer["max_length"], trainer["precision"] == "bf16-mixed",
            Path(run["chat_template"]).resolve() if "chat_template" in run else "",
        )  # fmt: skip
        return str(output)

    if "stage" in parts:
        for name, run in study.stages.items():
            checkpoints[name.removeprefix("reasoning--")] = train("stage", run, model(run["model"]), always=True)
    if "refine" in parts:
        for dataset, target_model, refinement in study.refined:
            spec = study.rewrite_spec(dataset, target_model, refinement)
            rows = list(read_jsonl(made_file(study.rows(dataset), study.name)))[: spec["n"]]
            name = f"{dataset}--{target_model}--{refinement}"
            requests = folder / "requests" / f"{name}.jsonl"
            write_jsonl(requests, ({"messages": request.messages} for request in build_requests(rows, spec)))
            drawn, output = spec["sampling"], folder / "refined" / f"{name}.jsonl"
            add(
                "refine", dataset, name, None, model(target_model), requests, output, batch,
                drawn["max_new_tokens"], drawn["temperature"], drawn["top_p"],
            )  # fmt: skip
    rows = {name: made_file(study.rows(study.config.benchmarks[name].dataset), study.name) for name in study.config.study.suite}
    spec = study.evaluation_spec(next(iter(study.runs)))
    if not (folder / "tasks").exists():
        write_tasks(folder / "tasks", rows, spec)
    for name in order(study):
        run = study.runs[name]
        checkpoint = model(run["model"])
        if run["n"] and "train" in parts:
            checkpoint = train("train", run, checkpoint, always=False)
        elif run["n"]:
            checkpoint = str(made_file(study.checkpoint(name), study.name).parent.resolve())
        for benchmark in rows if "evaluate" in parts else []:
            place, device = folder / "samples" / name / benchmark, "cuda" if has_gpu() else "cpu"
            add(
                "evaluate", benchmark, f"{name}--{benchmark}", name, checkpoint, folder / "tasks", f"by_hand_{benchmark}", place, device,
                spec["dtype"], spec["context"],
            )  # fmt: skip
        for judge in study.config.study.judges if {"evaluate", "judge"} <= set(parts) else []:
            entry = study.config.judges[judge]
            if entry.model is None or entry.prompt is None:
                continue
            for benchmark in entry.benchmarks:
                samples, output = folder / "samples" / name / benchmark, folder / "verdicts" / f"{name}--{judge}--{benchmark}.jsonl"
                arguments = (model(entry.model), samples, Path(entry.prompt).resolve(), output, batch, entry.sampling.max_new_tokens)
                add("judge", f"{judge}--{benchmark}", f"{name}--{judge}--{benchmark}", name, *arguments)
    return jobs


def conversation(row: dict, thinking: dict) -> dict:
    """A row in TRL's form of a prompt and its completion."""
    from untaxed.thinking import ThinkingFormat

    completion = ThinkingFormat(**thinking).join(row["reasoning"], row["answer"])
    return {"prompt": [{"role": "user", "content": row["prompt"]}], "completion": [{"role": "assistant", "content": completion}]}


def by_hand(jobs: list[dict], folder: Path) -> list[dict]:
    """Run perf/by_hand.sh over the jobs: the jobs with their seconds."""
    lines = []
    for job in jobs:
        command = "train" if job["part"] == "stage" else job["part"]
        lines.append("|".join([command, job["group"], job["name"], *job["arguments"]]))
    (folder / "plan").write_text("\n".join(lines) + "\n")
    command = [ROOT / "perf" / "by_hand.sh", folder / "plan", folder / "times", folder / "logs"]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit("error: perf/by_hand.sh stopped; its message says at which job")
    seconds = [float(line.rpartition("|")[2]) for line in (folder / "times").read_text().splitlines()]
    return [{**{key: job[key] for key in ("part", "group", "name")}, "seconds": s} for job, s in zip(jobs, seconds, strict=True)]


def totals(jobs: list[dict], done: list[dict]) -> tuple[list[dict], float | None]:
    """Per part: jobs, jobs done, their seconds, and of all (a job costs the mean of its group; None: none was done)."""
    known = defaultdict(list)
    for job in done:
        known[job["part"], job["group"]].append(job["seconds"])
    parts = []
    for part in dict.fromkeys(job["part"] for job in jobs):
        mine = [job for job in jobs if job["part"] == part]
        means = [known.get((part, job["group"])) for job in mine]
        whole = sum(sum(values) / len(values) for values in means) if all(means) else None
        spent = [job["seconds"] for job in done if job["part"] == part]
        parts.append({"part": part, "jobs": len(mine), "done": len(spent), "seconds": sum(spent), "all": whole})
    wholes = [part["all"] for part in parts]
    return parts, None if None in wholes else sum(wholes)


if __name__ == "__main__":
    main()
