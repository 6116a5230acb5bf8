"""What a study costs before anything runs: tokens of every job divided by the stated throughputs, jobs, and disk for checkpoints."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from untaxed.records import UserError, read_jsonl
from untaxed.schema import Tokens
from untaxed.study import Study

STAGES = ("distil", "rewrite", "reasoning stage", "train", "evaluate", "judge", "agreement", "shift")
CHARACTERS_PER_TOKEN = 4  # of English text: https://help.openai.com/en/articles/4936856
ROWS = 1000  # of an asset whose rows nobody has stated
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINING_BYTES = 12  # of resumable state per parameter: fp32 weights and Adam's two moments


@dataclass(frozen=True)
class Job:
    """One job that runs a model, and the tokens it generates, reads (prefill) and trains on."""

    stage: str
    name: str
    generate: float = 0
    prefill: float = 0
    train: float = 0


@dataclass
class Row:
    """One line of the table: jobs and device hours."""

    name: str
    jobs: int = 0
    hours: float = 0.0


@dataclass
class Budget:
    """Hours of one GPU (of one CPU job where `unit` says so). `total` counts a job once, however many experiments need it; `figures` have
    the experiments that they need, and what those alone would cost.
    """

    study: str
    unit: str
    hardware: str
    stages: list[Row]
    experiments: list[Row]
    figures: list[tuple[Row, list[str]]]
    total: Row
    light_jobs: int
    checkpoints: int
    checkpoint_bytes: float
    training_bytes: float
    unverified: list[str]
    sources: list[tuple[str, int, Tokens, str]] = field(default_factory=list)


class Counter:
    """Rows and tokens of a study's data: from its prepared rows where they are, from what the configuration states where not."""

    def __init__(self, study: Study) -> None:
        self.study, self.compute = study, study.config.compute
        self.data = cache(self._data)

    def _data(self, name: str) -> tuple[int, Tokens, str]:
        """(rows, mean tokens of a row, where that is from) of a dataset."""
        stated = self.compute.tokens.datasets.get(name)
        prepared = self.study.root / self.study.rows(name)
        if prepared.is_file():
            rows, measured = _measure(prepared)
            return rows, stated or measured, "stated" if stated else "prepared rows"
        return self._rows(name, stated), stated or Tokens(), "stated" if stated else "assumed"

    def _rows(self, name: str, stated: Tokens | None) -> int:
        dataset = self.study.config.datasets[name]
        known = dataset.limit or (stated and stated.rows) or dataset.options.get("rows")
        if known:
            return known
        if dataset.assets:
            return sum(self.study.asset_rows(asset) for asset in dataset.assets) or ROWS
        from untaxed.datasets import prepare

        return len(prepare(self.study.dataset_spec(name), {}))

    def items(self, benchmark: str) -> int:
        entry = self.study.config.benchmarks[benchmark]
        rows = self.data(entry.dataset)[0]
        return min(rows, entry.limit or rows)

    def generated(self, benchmark: str) -> int:
        """Mean tokens of a generation: stated, else the most that the benchmark allows."""
        return self.compute.tokens.generated.get(benchmark, self.study.config.benchmarks[benchmark].sampling.max_new_tokens)

    def row(self, dataset: str, refinement: str | None = None) -> int:
        """Tokens of one training row, as it is or with the pieces that the target rewrote."""
        tokens = self.data(dataset)[1]
        pieces = self.study.config.refinements[refinement].pieces if refinement else []
        rewritten = self.compute.tokens.rewritten
        return tokens.prompt + sum(getattr(rewritten if p in pieces else tokens, p) for p in ("reasoning", "answer"))

    def template(self, path: str | None) -> float:
        """Tokens of a prompt file."""
        return (self.study.root / path).stat().st_size / CHARACTERS_PER_TOKEN if path else 0


def _measure(path: Path) -> tuple[int, Tokens]:
    """Rows of a file, and their mean tokens."""
    rows, characters = 0, dict.fromkeys(("prompt", "reasoning", "answer"), 0)
    for row in read_jsonl(path):
        rows += 1
        for key in characters:
            characters[key] += len(row[key])
    mean = {key: round(total / max(rows, 1) / CHARACTERS_PER_TOKEN) for key, total in characters.items()}
    return rows, Tokens(**{**mean, "prompt": max(1, mean["prompt"])})


def rewrite_job(study: Study, count: Counter, dataset: str, model: str, refinement: str) -> Job:
    """The target reads instruction, prompt and piece, and writes the piece anew."""
    rows, tokens, _ = count.data(dataset)
    refinement = study.rewriter(dataset, model, refinement)  # rewrites are shared, and counted once
    entry = study.config.refinements[refinement]
    read = sum(count.template(entry.prompts[piece]) + tokens.prompt + getattr(tokens, piece) for piece in entry.pieces)
    written = sum(min(getattr(count.compute.tokens.rewritten, piece), entry.sampling.max_new_tokens) for piece in entry.pieces)
    return Job("rewrite", f"{dataset}/{model}/{refinement}", generate=rows * written, prefill=rows * read)


def distil_job(study: Study, count: Counter, dataset: str) -> Job:
    """The teacher reads every prompt and writes a trace and an answer; one at a server costs nothing here."""
    entry, tokens = study.config.datasets[dataset], count.data(dataset)[1]
    if entry.teacher.model is None:
        return Job("distil", dataset)
    asked = entry.teacher.candidates or count.data(dataset)[0]
    written = min(tokens.reasoning + tokens.answer, entry.teacher.sampling.max_new_tokens)
    return Job("distil", dataset, generate=asked * written, prefill=asked * tokens.prompt)


def training_tokens(count: Counter, spec: dict) -> float:
    """Tokens of all epochs: safety rows and mixed rows; or of a fixed number of optimiser steps."""
    row = count.row(spec["dataset"], spec["refinement"])
    parts = [(spec["n"], row), *((part["n"], count.row(part["dataset"])) for part in spec["mix"])]
    tokens, rows, trainer = sum(n * size for n, size in parts), sum(n for n, _ in parts), spec["trainer"]
    return tokens / rows * trainer["steps"] * trainer["batch_size"] if trainer.get("steps") else tokens * trainer["epochs"]


def evaluate_job(study: Study, count: Counter, run: str) -> Job:
    generate = prefill = 0.0
    for name in study.suites[run]:
        entry = study.config.benchmarks[name]
        asked = count.items(name) * entry.repeats
        generate += asked * count.generated(name)
        prefill += asked * count.data(entry.dataset)[1].prompt
    return Job("evaluate", run, generate, prefill)


def judge_job(study: Study, count: Counter, judge: str, run: str) -> Job:
    """A judge that asks a model reads prompt and generation of every item; the others cost nothing that counts."""
    entry = study.config.judges[judge]
    name, written = f"{run}/{judge}", study.judge_sampling(judge).max_new_tokens
    if entry.model is None:
        return Job("judge", name)
    generate = prefill = 0.0
    for benchmark in set(entry.benchmarks) & set(study.suites[run]):
        asked = count.items(benchmark) * study.config.benchmarks[benchmark].repeats
        prompt = count.data(study.config.benchmarks[benchmark].dataset)[1].prompt
        generate += asked * written
        prefill += asked * (count.template(entry.prompt) + prompt + count.generated(benchmark))
    return Job("judge", name, generate, prefill)


def agreement_job(study: Study, count: Counter, judge: str) -> Job:
    entry = study.config.judges[judge]
    if entry.model is None:
        return Job("agreement", judge)
    rows = study.config.agreement.limit or study.asset_rows(study.labelled(judge)) or ROWS
    written, tokens = study.judge_sampling(judge).max_new_tokens, Tokens()
    return Job("agreement", judge, rows * written, rows * (count.template(entry.prompt) + tokens.prompt + tokens.answer))


def shift_job(study: Study, count: Counter, run: str, spec: dict) -> Job:
    """Base and run read the same generations (KL), and the base reads the training targets (NLL)."""
    name = study.config.shift.kl_benchmark
    read = count.data(study.config.benchmarks[name].dataset)[1].prompt + count.generated(name)
    targets = spec["n"] * count.row(spec["dataset"], spec["refinement"])
    return Job("shift", run, prefill=2 * min(study.config.shift.limit, count.items(name)) * read + targets)


def jobs_of(study: Study, count: Counter, run: str, spec: dict) -> Iterator[Job]:
    """Every job that runs a model and that a run needs."""
    models = {spec["model"], *(study.config.judges[judge].model for judge in study.config.study.judges)} - {None}
    datasets = {study.config.benchmarks[name].dataset for name in study.suites[run]} | _sets(spec)
    while models or datasets:
        if datasets:
            dataset = datasets.pop()
            if teacher := study.config.datasets[dataset].teacher:
                yield distil_job(study, count, dataset)
                models |= {teacher.model} - {None}
            continue
        model = models.pop()
        if study.config.models[model].base is not None:
            stage = f"reasoning--{model}"
            yield Job("reasoning stage", stage, train=training_tokens(count, study.stages[stage]))
            models.add(study.config.models[model].base)
            datasets |= _sets(study.stages[stage])
    yield evaluate_job(study, count, run)
    yield from (judge_job(study, count, judge, run) for judge in study.config.study.judges)
    yield from (agreement_job(study, count, judge) for judge in study.agreement_judges())
    if spec["n"]:
        if spec["refinement"]:
            yield rewrite_job(study, count, spec["dataset"], spec["model"], spec["refinement"])
        yield Job("train", run, train=training_tokens(count, spec))
        if study.shifted(run):
            yield shift_job(study, count, run, spec)


def _sets(spec: dict) -> set[str]:
    """The data sets that a run trains on."""
    return {spec["dataset"], *(part["dataset"] for part in spec["mix"])} if spec["n"] else set()


def hours(study: Study, job: Job) -> float:
    """Device hours of a job: its start, and its tokens at the stated throughputs. A job without tokens takes none."""
    compute = study.config.compute
    seconds = sum(getattr(job, work) / getattr(compute.tokens_per_second, work) for work in ("generate", "prefill", "train"))
    devices = max(1, study.train_gpus if job.train else study.gpus)  # all of them wait while a job starts
    return (seconds + devices * compute.start_seconds) / 3600 if seconds else 0.0


def _row(name: str, study: Study, jobs: Collection[Job]) -> Row:
    return Row(name, len(jobs), sum(hours(study, job) for job in jobs))


def needed(study: Study, figure: str) -> list[str]:
    """The experiments that have the runs of a figure, without those that add none; a figure of the judges needs none."""
    from untaxed.metrics import run_fields, select

    spec = study.figure_spec(figure)
    if spec["figure"] == "judge_agreement":
        return []
    chosen = set(select({run: run_fields(fields, run) for run, fields in study.runs.items() if fields["n"]}, spec.get("select")))
    if spec["figure"] == "judge_pairs":
        chosen = {run for run, fields in study.runs.items() if fields["n"]}  # ablations too: it is about the judges
    if spec["figure"] == "refinement_outcomes":
        chosen = {run for run in chosen if study.runs[run]["refinement"]}
    shown = {name: chosen & set(study.experiment_runs(name)) for name in study.config.study.experiments}
    for name in reversed(study.config.study.experiments):
        if shown[name] <= set().union(*(runs for other, runs in shown.items() if other != name)):
            del shown[name]
    return list(shown)


def budget(study: Study) -> Budget:
    """Raises UserError when the configuration states no throughputs."""
    if study.config.compute.tokens_per_second is None:
        raise UserError("compute.tokens_per_second: this key is required for a budget; add {generate: …, prefill: …, train: …}")
    count = Counter(study)
    experiments = {
        name: {job for run, spec in study.experiment_runs(name).items() for job in jobs_of(study, count, run, spec)}
        for name in study.config.study.experiments
    }
    jobs = set().union(*experiments.values())
    figures = {name: needed(study, name) for name in study.config.study.figures}
    judged = {job for job in jobs if job.stage == "agreement"}
    drawn = {name: set().union(*(experiments[each] for each in found)) if found else judged for name, found in figures.items()}
    config = study.config
    trained = [config.models[name].parameters for name in (run["model"] for run in study.trained.values())]
    sizes = [config.models[run["model"]].parameters * WEIGHT_BYTES[config.models[run["model"]].dtype] for run in study.trained.values()]
    used = set().union(*(_sets(run) for run in study.trained.values()), {config.benchmarks[name].dataset for name in study.suite})
    return Budget(
        study=study.name,
        unit="GPU" if study.gpus else "CPU",
        hardware=config.compute.hardware,
        stages=[_row(stage, study, [job for job in jobs if job.stage == stage]) for stage in STAGES],
        experiments=[_row(name, study, found) for name, found in experiments.items()],
        figures=[(_row(name, study, drawn[name]), found) for name, found in figures.items()],
        total=_row("total", study, jobs),
        light_jobs=light_jobs(study),
        checkpoints=len(sizes),
        checkpoint_bytes=sum(sizes),
        training_bytes=max(trained, default=0) * TRAINING_BYTES,
        unverified=[name for name in study.assets_needed if study.asset_unverified(name)],
        sources=[(name, *count.data(name)) for name in sorted(used)],
    )


def light_jobs(study: Study) -> int:
    """Jobs that fetch, prepare, mix, collect and draw."""
    config = study.config
    prepared = [name for name in study.models_needed if config.models[name].base is None]
    results = len(config.study.figures) + len(config.study.tables) + 1  # the claims
    once = len(("assets", "list_runs", "collect"))
    shown = [config.figures[name].kind for name in config.study.figures] + [config.tables[name].kind for name in config.study.tables]
    once += any(study.judge_pairs(kind) for kind in shown)
    return len(study.assets_needed) + len(study.datasets_needed) + len(prepared) + len(study.refined) + len(study.specs) + once + results


def _experiments(names: list[str], found: Budget) -> str:
    if not names:
        return "the judges alone"
    return "all experiments" if len(names) == len(found.experiments) else ", ".join(names)


def render(found: Budget) -> str:
    """The budget as text."""
    head = f"Study {found.study}: {found.unit}-hours on {found.hardware} (from stated throughputs, not measured)"
    rule = f"{'':28}{'jobs':>8}{found.unit + '-hours':>14}"
    line = "{0.name:28}{0.jobs:>8,}{0.hours:>14,.2f}".format
    shared = Row(
        "shared, counted once",
        found.total.jobs - sum(row.jobs for row in found.experiments),
        found.total.hours - sum(row.hours for row in found.experiments),
    )
    lines = [head, "", rule, *(line(row) for row in found.stages), line(found.total), ""]
    lines += [rule.replace(" " * 10, "experiment", 1), *(line(row) for row in found.experiments), line(shared), line(found.total), ""]
    lines += [rule.replace(" " * 6, "figure", 1) + "  needs"]
    lines += [f"{line(row)}  {_experiments(names, found)}" for row, names in found.figures]
    lines += [
        "",
        "A figure's line is what a study of the experiments that it needs would cost. In this study figures, tables and claims are all",
        "made from one file of all metrics: to make any of them is to pay the total.",
        f"Jobs that fetch, prepare, mix, collect and draw: {found.light_jobs:,}; all jobs: {found.light_jobs + found.total.jobs:,}.",
        f"Disk: {found.checkpoints:,} checkpoints, {found.checkpoint_bytes / 1e9:,.2f} GB; "
        f"while one training runs, {found.training_bytes / 1e9:,.2f} GB more.",
        "",
        f"{'tokens per row':28}{'rows':>8}{'prompt':>9}{'reasoning':>11}{'answer':>8}  from",
    ]
    lines += [f"{name:28}{rows:>8,}{t.prompt:>9,}{t.reasoning:>11,}{t.answer:>8,}  {source}" for name, rows, t, source in found.sources]
    if found.unverified:
        lines += ["", f"Not verified, so not fetched before scripts/lock_assets.py has run: {', '.join(found.unverified)}"]
    return "\n".join(lines)
