"""What a study costs before anything runs: jobs, hours from stated throughputs, and disk, by stage, experiment, figure and table."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

from untaxed.machine import on_this_machine
from untaxed.prompts import UPSTREAM
from untaxed.records import UserError, read_jsonl
from untaxed.schema import AttackModel, JudgeEngine, Tokens
from untaxed.study import Study

STAGES = (
    "prepare",
    "distil",
    "filter",
    "rewrite",
    "reasoning stage",
    "train",
    "attack",
    "evaluate",
    "judge",
    "agreement",
    "shift",
    "results",
)
CHARACTERS_PER_TOKEN = 4  # of English text: https://help.openai.com/en/articles/4936856
ROWS = 1000  # of an asset whose rows nobody has stated
WEIGHT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
TRAINING_BYTES = 12  # of resumable state per parameter: fp32 weights and Adam's two moments
GIB = 2**30
MILLION = 10**6  # tokens, of which servers state a price


@dataclass(frozen=True)
class Asked:
    """What a job asks of a server on another machine: tokens of prompts and answers, its cap (both together), and USD per million of each.

    `who` is the key of the configuration that asks. Retries, and tokens that a server adds by itself, are not counted.
    """

    who: str
    model: str
    host: str
    prompt: float
    generated: float
    cap: int
    price: tuple[float, float] | None


@dataclass(frozen=True)
class Job:
    """One job: the tokens it generates, reads (prefill) and trains on, counted as those of the model whose throughput is stated, the bytes
    of what it leaves, and what it asks of servers elsewhere. `prepare` and `results` are stages of jobs that run no model.
    """

    stage: str
    name: str
    generate: float = 0
    prefill: float = 0
    train: float = 0
    disk: float = 0
    asked: tuple[Asked, ...] = ()


@dataclass
class Bill:
    """What all jobs of one key ask of a server, and at worst: until every job has met its cap, all of it at the dearer price.

    `usd` and `most_usd` are None where the configuration states no price.
    """

    who: str
    model: str
    host: str
    jobs: int
    prompt: float
    generated: float
    most: int
    usd: float | None
    most_usd: float | None


@dataclass
class Row:
    """One line of the table: jobs, device hours and bytes on the disk."""

    name: str
    jobs: int = 0
    hours: float = 0.0
    disk: float = 0.0


@dataclass
class Result:
    """What making a figure or table alone costs (`row`), from which experiments (none named: all), and the hours that others need too."""

    kind: str
    row: Row
    experiments: list[str]
    shared_hours: float


@dataclass
class Budget:
    """Hours of one GPU (of one CPU job where `unit` says so). `total` counts a job once, however many experiments or figures need it."""

    study: str
    unit: str
    hardware: str
    stages: list[Row]
    experiments: list[Row]
    results: list[Result]
    total: Row
    checkpoints: int
    checkpoint_bytes: float
    training_bytes: float
    unverified: list[str]
    sources: list[tuple[str, int, Tokens, str]] = field(default_factory=list)
    bills: list[Bill] = field(default_factory=list)


class Counter:
    """Rows and tokens of a study's data: from its prepared rows where they are (unless `prepared` is False), else as configured."""

    def __init__(self, study: Study, prepared: bool = True) -> None:
        self.study, self.compute, self.prepared = study, study.config.compute, prepared
        self.data = cache(self._data)

    def _data(self, name: str) -> tuple[int, Tokens, str]:
        """(rows, mean tokens of a row, where that is from) of a dataset."""
        stated = self.compute.tokens.datasets.get(name)
        prepared = self.study.root / self.study.rows(name)
        if self.prepared and prepared.is_file():
            rows, measured = _measure(prepared)
            return rows, stated or measured, "stated" if stated else "prepared rows"
        entry = self.study.config.datasets[name]
        if entry.of:  # how many a filter leaves is not known before
            rows, tokens, origin = self.data(entry.of)
            return entry.limit or (stated and stated.rows) or rows, stated or tokens, "stated" if stated else origin
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

    def scale(self, model: str | None) -> float:
        """How much longer a model takes for a token than the one whose throughput is stated: in proportion to its parameters."""
        stated = self.compute.tokens_per_second.parameters
        return self.study.config.models[model].parameters / stated if model and stated else 1.0

    def weights(self, model: str) -> float:
        """Bytes of a model's weights."""
        entry = self.study.config.models[model]
        return entry.parameters * WEIGHT_BYTES[entry.dtype]

    def fetched(self, asset: str) -> float:
        """Bytes of an asset, by the lock; those of unverified weights by their parameters, and none of an adapter's, which are few."""
        if known := self.study.asset_bytes(asset):
            return known
        whole = {entry.asset: name for name, entry in self.study.config.models.items() if not entry.adapter_on}
        return self.weights(whole[asset]) if asset in whole else 0.0

    def text(self, dataset: str) -> float:
        """Bytes of a dataset's rows."""
        rows, tokens, _ = self.data(dataset)
        return rows * (tokens.prompt + tokens.reasoning + tokens.answer) * CHARACTERS_PER_TOKEN

    def template(self, path: str | None) -> float:
        """Tokens of a prompt file; none of one that is fetched at run time."""
        return (self.study.root / path).stat().st_size / CHARACTERS_PER_TOKEN if path and not path.startswith(UPSTREAM) else 0


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
    who = f"refinements.{refinement}"
    return asking("rewrite", f"{dataset}/{model}/{refinement}", count, rows * written, rows * read, who, model, JudgeEngine())


def asking(stage: str, name: str, count: Counter, generate: float, prefill: float, who: str, model: str | None, engine: JudgeEngine) -> Job:
    """A job that asks a model of the study, or one at a server, and keeps what it wrote. A server takes no device time from us."""
    disk = generate * CHARACTERS_PER_TOKEN
    if model is None:
        return Job(stage, name, disk=disk, asked=served(who, engine, prefill, generate))
    return Job(stage, name, generate * count.scale(model), prefill * count.scale(model), disk=disk)


def served(who: str, engine: JudgeEngine, prompt: float, generated: float) -> tuple[Asked, ...]:
    """What is asked of a server on another machine; nothing where the server is on this one."""
    if on_this_machine(engine.base_url):
        return ()
    price = (engine.price.input, engine.price.output) if engine.price else None
    host = urlsplit(engine.base_url).hostname or ""
    return (Asked(who, engine.model, host, prompt, generated, engine.max_total_tokens, price),)


def distil_job(study: Study, count: Counter, dataset: str) -> Job:
    """The teacher reads every prompt, after its instruction, and writes a trace and an answer."""
    teacher, tokens = study.config.datasets[dataset].teacher, count.data(dataset)[1]
    asked = teacher.candidates or count.data(dataset)[0]
    written = min(tokens.reasoning + tokens.answer, teacher.sampling.max_new_tokens)
    read = count.template(teacher.prompt) + tokens.prompt
    return asking("distil", dataset, count, asked * written, asked * read, f"datasets.{dataset}.teacher", teacher.model, teacher.engine)


def _judging(stage: str, name: str, study: Study, count: Counter, judge: str, asked: float, read: float) -> Job:
    """A judge that asks a model reads `read` tokens in all, and its prompt `asked` times; writes at its longest. Phrases cost nothing."""
    from untaxed.judges import JUDGES

    entry = study.config.judges[judge]
    if not JUDGES[entry.kind].build:
        return Job(stage, name)
    written, read = asked * study.judge_sampling(judge).max_new_tokens, asked * count.template(entry.prompt) + read
    return asking(stage, name, count, written, read, f"judges.{judge}", entry.model, entry.engine)


def row_judge_job(study: Study, count: Counter, dataset: str, judge: str) -> Job:
    """A judge reads every row of a dataset that filters choose from."""
    rows, tokens, _ = count.data(dataset)
    read = rows * (tokens.prompt + tokens.reasoning + tokens.answer)
    return _judging("filter", f"{dataset}/{judge}", study, count, judge, rows, read)


def training_tokens(count: Counter, spec: dict) -> float:
    """Tokens of all epochs: safety rows and mixed rows; or of a fixed number of optimiser steps."""
    row = count.row(spec["dataset"], spec["refinement"])
    parts = [(spec["n"], row), *((part["n"], count.row(part["dataset"])) for part in spec["mix"])]
    tokens, rows, trainer = sum(n * size for n, size in parts), sum(n for n, _ in parts), spec["trainer"]
    return tokens / rows * trainer["steps"] * trainer["batch_size"] if trainer.get("steps") else tokens * trainer["epochs"]


def training_jobs(count: Counter, stage: str, run: str, spec: dict, model: str) -> list[Job]:
    """The draw of a run's rows, and its training; `model` is what the weights are called."""
    kept = spec["n"] * count.row(spec["dataset"], spec["refinement"]) + sum(part["n"] * count.row(part["dataset"]) for part in spec["mix"])
    trained = Job(stage, run, train=training_tokens(count, spec) * count.scale(model), disk=count.weights(model))
    return [Job("prepare", f"mix {run}", disk=kept * CHARACTERS_PER_TOKEN), trained]


def evaluate_job(study: Study, count: Counter, run: str) -> Job:
    generate = prefill = 0.0
    for name in study.suites[run]:
        entry = study.config.benchmarks[name]
        asked = count.items(name) * entry.repeats
        generate += asked * count.generated(name)
        prefill += asked * count.data(entry.dataset)[1].prompt
    return asking("evaluate", run, count, generate, prefill, run, study.runs[run]["model"], JudgeEngine())


def attack_job(study: Study, count: Counter, benchmark: str, run: str | None) -> Job:
    """An attack on all rows of a benchmark, of one run where it asks the model under test; PAIR at its longest, for it ends at a success.

    The target is always here; the other two may be at a server.
    """
    from untaxed.attacks import SAMPLING

    entry = study.config.benchmarks[benchmark]
    attack, prompt = study.config.attacks[entry.attack], count.data(entry.dataset)[1].prompt
    name = f"{benchmark}/{run}" if run else study.attacked(benchmark).split("/")[-2]

    def written(asked: AttackModel | None, role: str) -> int:
        return asked.sampling.max_new_tokens if asked and asked.sampling else SAMPLING[role]["max_new_tokens"]

    calls: list[tuple[str, AttackModel, float, float]] = []  # of one row: role, whom it asks, tokens written, tokens read
    if attack.kind == "pap-generated":
        calls = [("attacker", attack.attacker, written(attack.attacker, "attacker"), count.template(attack.attacker.prompt) + prompt)]
    elif attack.kind == "pair":
        turns, attacked = attack.streams * attack.iterations, written(attack.attacker, "attacker")
        limit = attack.target.sampling.max_new_tokens if attack.target.sampling else SAMPLING["target"]["max_new_tokens"]
        answered = min(limit, count.generated(benchmark))
        seen = count.template(attack.attacker.prompt) + prompt + attack.keep_last_n * (attacked + answered)
        judged = count.template(attack.judge.prompt) + attacked + answered
        calls = [
            ("attacker", attack.attacker, turns * attacked, turns * seen),
            ("target", AttackModel(model=study.runs[run]["model"]), turns * answered, turns * attacked),
        ]
        calls += [] if attack.judge.phrases else [("judge", attack.judge, turns * written(attack.judge, "judge"), turns * judged)]
    items = count.items(benchmark)
    here = [(items * count.scale(asked.model), generate, prefill) for _, asked, generate, prefill in calls if asked.model]
    there: list[Asked] = []
    for role, asked, generate, prefill in calls:
        if asked.model is None:
            there += served(f"attacks.{entry.attack}.{role}", asked.engine, items * prefill, items * generate)
    generate, prefill = (sum(rows * pair[place] for rows, *pair in here) for place in (0, 1))
    return Job("attack", name, generate, prefill, disk=items * 2 * prompt * CHARACTERS_PER_TOKEN, asked=tuple(there))


def judge_job(study: Study, count: Counter, judge: str, run: str) -> Job:
    """A judge that asks a model reads prompt and generation of every item; the others cost nothing that counts."""
    asked = read = 0.0
    for benchmark in set(study.config.judges[judge].benchmarks) & set(study.suites[run]):
        items = count.items(benchmark) * study.config.benchmarks[benchmark].repeats
        asked += items
        read += items * (count.data(study.config.benchmarks[benchmark].dataset)[1].prompt + count.generated(benchmark))
    return _judging("judge", f"{run}/{judge}", study, count, judge, asked, read)


def agreement_job(study: Study, count: Counter, judge: str) -> Job:
    rows = study.config.agreement.limit or study.asset_rows(study.labelled(judge)) or ROWS
    return _judging("agreement", judge, study, count, judge, rows, rows * (Tokens().prompt + Tokens().answer))


def shift_job(study: Study, count: Counter, run: str, spec: dict) -> Job:
    """Base and run read the same generations (KL), and the base reads the training targets (NLL)."""
    name = study.config.shift.kl_benchmark
    read = count.data(study.config.benchmarks[name].dataset)[1].prompt + count.generated(name)
    targets = spec["n"] * count.row(spec["dataset"], spec["refinement"])
    work = 2 * min(study.config.shift.limit, count.items(name)) * read + targets
    return Job("shift", run, prefill=work * count.scale(spec["model"]))


# ---- what needs what --------------------------------------------------------------------------------------------------------


class Needs:
    """The jobs that stand behind models, rows, runs, figures and tables, as the rules ask for them."""

    def __init__(self, study: Study, count: Counter) -> None:
        self.study, self.count = study, count
        self.model, self.prepared, self.rows, self.run = map(cache, (self._model, self._prepared, self._rows, self._run))
        assets = [Job("prepare", f"fetch {name}", disk=count.fetched(name)) for name in study.assets_needed]
        self.assets = frozenset([*assets, Job("prepare", "assets")])  # all are fetched before any model is prepared

    def _model(self, name: str) -> frozenset[Job]:
        entry = self.study.config.models[name]
        if entry.base is None:
            kept = (
                0 if entry.kind == "folder" and not entry.adapter_on else self.count.weights(name)
            )  # a snapshot's weights are hard links to the asset
            fetched = {Job("prepare", f"fetch {asset}", disk=self.count.fetched(asset)) for asset in [entry.asset] if asset}
            under = self.model(entry.adapter_on) if entry.adapter_on else frozenset()
            return self.assets | under | fetched | {Job("prepare", f"model {name}", disk=kept)}
        stage, spec = f"reasoning--{name}", self.study.stages[f"reasoning--{name}"]
        sets = (self.rows(dataset) for dataset in _sets(spec))
        return self.model(entry.base).union(*sets, training_jobs(self.count, "reasoning stage", stage, spec, name))

    def _prepared(self, dataset: str) -> frozenset[Job]:
        entry = self.study.config.datasets[dataset]
        fetched = [Job("prepare", f"fetch {name}", disk=self.count.fetched(name)) for name in entry.assets]
        others = (self.prepared(other) for other in entry.decontaminate_against)
        return frozenset([*fetched, Job("prepare", f"rows {dataset}", disk=self.count.text(dataset))]).union(*others)

    def _rows(self, dataset: str) -> frozenset[Job]:
        """The rows to train on or to test with: prepared, distilled, filtered."""
        entry, source = self.study.config.datasets[dataset], self.study.source(dataset)
        found = self.prepared(source)
        if teacher := self.study.config.datasets[source].teacher:
            taught = self.model(teacher.model) if teacher.model else frozenset()
            found |= taught | {distil_job(self.study, self.count, source)}
        for judge in self.study.row_judges_of(entry):
            found |= self._judge(judge) | {row_judge_job(self.study, self.count, source, judge)}
        return found | {Job("filter", f"{dataset}", disk=self.count.text(dataset))} if entry.of else found

    def _judge(self, judge: str) -> frozenset[Job]:
        model = self.study.config.judges[judge].model
        return self.model(model) if model else frozenset()

    def _run(self, run: str) -> frozenset[Job]:
        """The jobs behind all that is measured of a run."""
        study, count, spec = self.study, self.count, self.study.runs[run]
        found = self.model(spec["model"]).union(*(self.rows(dataset) for dataset in _sets(spec)))
        for name in study.suites[run]:
            found |= self.rows(study.config.benchmarks[name].dataset) | self._attack(name, run)
        for judge in study.judges_of(run):
            found |= self._judge(judge) | {judge_job(study, count, judge, run)}
        found |= {evaluate_job(study, count, run)}
        if not spec["n"]:
            return found | {Job("prepare", f"mix {run}")}
        if spec["refinement"]:
            found |= self._refined(spec["dataset"], spec["model"], spec["refinement"])
        found = found.union(training_jobs(count, "train", run, spec, spec["model"]))
        if study.shifted(run):  # it reads the base model's own generations too
            base = f"base--{spec['model']}"
            found |= {shift_job(study, count, run, spec), evaluate_job(study, count, base), Job("prepare", f"mix {base}")}
        return found

    def _attack(self, benchmark: str, run: str) -> frozenset[Job]:
        study, name = self.study, self.study.config.benchmarks[benchmark].attack
        if name is None:
            return frozenset()
        attack = study.config.attacks[name]
        asked = (entry.model for entry in (attack.attacker, attack.judge) if entry and entry.model)
        job = attack_job(study, self.count, benchmark, run if attack.kind == "pair" else None)
        return frozenset([job]).union(*(self.model(model) for model in asked))

    def agreements(self, part: Study) -> frozenset[Job]:
        """The tests against people of a part's judges, which its figures and tables wait for."""
        judges = part.agreement_judges()
        labelled = {Job("prepare", f"fetch {name}", disk=self.count.fetched(name)) for name in map(self.study.labelled, judges)}
        jobs = {agreement_job(self.study, self.count, judge) for judge in judges} | labelled
        return frozenset(jobs).union(*map(self._judge, judges))

    def runs(self, names: Iterable[str]) -> frozenset[Job]:
        return frozenset().union(*map(self.run, names))

    def unasked(self, assets: Iterable[str]) -> frozenset[Job]:
        """Fetches of the study's other assets: where something that needs these is asked for by name, they are not waited for."""
        others = set(self.study.assets_needed) - set(assets)
        return frozenset(Job("prepare", f"fetch {name}", disk=self.count.fetched(name)) for name in others)

    def result(self, catalogue: str, name: str) -> frozenset[Job]:
        """All that making one figure or table takes."""
        part, reads = self.study.part(catalogue, name), self.study.reads(catalogue, name)
        made = self.study.part_of(part)
        if reads is None:
            found = self.runs(made.runs) | self.agreements(made)
            found |= {Job("results", f"{verb} {part or 'all'}") for verb in ("list", "collect")}
        else:
            found = frozenset().union(*(self._reports(kind, catalogue, name) for kind in reads))
        return found - self.unasked(self.study.assets_of(catalogue, name)) | {Job("results", f"{catalogue} {name}")}

    def _reports(self, kind: str, catalogue: str, name: str) -> frozenset[Job]:
        """The jobs behind the reports of one kind that a figure or table reads."""
        study, made = self.study, self.study.part_of(self.study.part(catalogue, name))
        if kind == "agreement":
            return self.agreements(made)
        if kind == "pairs":  # the verdicts on all runs, whose rows and shift are not looked at
            unread = {Job("prepare", f"mix {run}") for run, spec in study.runs.items() if not spec["n"]}
            judged = frozenset(job for job in self.runs(study.runs) - unread if job.stage != "shift")
            return judged | {Job("results", "list all"), Job("results", "compare judges")} if study.judge_pairs() else frozenset()
        if kind == "refine":
            return frozenset().union(*(self._refined(*each) for each in made.refined))
        datasets, tokenizer = study.datasets_shown(catalogue, name), study.tokenizer(catalogue, name)
        if tokenizer:
            counted = {Job("prepare", f"lengths {each}") for each in datasets} if kind == "lengths" else set()
            return self.model(tokenizer).union(counted, *map(self.rows, datasets))
        wanted = {
            "filtered": [each for each in datasets if study.config.datasets[each].of],
            "distilled": [each for each in datasets if study.config.datasets[each].teacher],
        }.get(kind, [])
        prepared = [each for each in datasets if not study.config.datasets[each].of] if kind == "datasets" else []
        return frozenset().union(*map(self.rows, wanted), *map(self.prepared, prepared))

    def _refined(self, dataset: str, model: str, refinement: str) -> frozenset[Job]:
        """The jobs behind the rows that a model has rewritten."""
        refined = Job("prepare", f"refine {dataset}/{model}/{refinement}", disk=self.count.text(dataset))
        return self.model(model) | self.rows(dataset) | {rewrite_job(self.study, self.count, dataset, model, refinement), refined}

    def whole(self) -> frozenset[Job]:
        """Everything that the study makes."""
        ends = {Job("results", end) for end in ("list all", "collect all", "claims", "cards")}
        datasets = map(self.rows, {*self.study.datasets_used, *self.study.datasets_needed})
        results = (self.result(*each) for each in self.study.shown)
        return self.runs(self.study.runs).union(self.agreements(self.study), ends, *datasets, *results)


def _sets(spec: dict) -> set[str]:
    """The data sets that a run trains on."""
    return {spec["dataset"], *(part["dataset"] for part in spec["mix"])} if spec["n"] else set()


def hours(study: Study, job: Job) -> float:
    """Device hours of a job: its start, and its tokens at the stated throughputs. A job without tokens takes none."""
    compute = study.config.compute
    seconds = sum(getattr(job, work) / getattr(compute.tokens_per_second, work) for work in ("generate", "prefill", "train"))
    devices = max(1, study.train_gpus if job.train else study.gpus)  # all of them wait while a job starts
    return (seconds + devices * compute.start_seconds) / 3600 if seconds else 0.0


def bills(jobs: Iterable[Job]) -> list[Bill]:
    """What jobs ask of servers elsewhere, by the key that asks, in its order."""
    found: dict[str, list[Asked]] = {}
    for job in jobs:
        for asked in job.asked:
            found.setdefault(asked.who, []).append(asked)
    lines = []
    for who, asked in sorted(found.items()):
        one, prompt, generated = asked[0], sum(each.prompt for each in asked), sum(each.generated for each in asked)
        most, price = sum(each.cap for each in asked), one.price
        usd = (prompt * price[0] + generated * price[1]) / MILLION if price else None
        lines.append(
            Bill(who, one.model, one.host, len(asked), prompt, generated, most, usd, most * max(price) / MILLION if price else None)
        )
    return lines


def _row(name: str, study: Study, jobs: Collection[Job]) -> Row:
    return Row(name, len(jobs), sum(hours(study, job) for job in jobs), sum(job.disk for job in jobs))


def budget(study: Study, prepared: bool = True) -> Budget:
    """The budget of a study; with `prepared` False by its configuration alone, so that every machine says the same.

    Raises UserError when the configuration states no throughputs.
    """
    if study.config.compute.tokens_per_second is None:
        raise UserError("compute.tokens_per_second: this key is required for a budget; add {generate: …, prefill: …, train: …}")
    count = Counter(study, prepared)
    needs, config = Needs(study, count), study.config
    parts = {name: study.part_of(name) for name in config.study.experiments}
    experiments = {name: needs.runs(part.runs) - needs.unasked(part.assets_needed) for name, part in parts.items()}
    jobs = needs.whole()
    return Budget(
        study=study.name,
        unit="GPU" if study.gpus else "CPU",
        hardware=config.compute.hardware,
        stages=[_row(stage, study, [job for job in jobs if job.stage == stage]) for stage in STAGES],
        experiments=[_row(name, study, found) for name, found in experiments.items()],
        results=_results(study, needs),
        total=_row("total", study, jobs),
        checkpoints=len(study.trained),
        checkpoint_bytes=sum(job.disk for job in jobs if job.train),
        training_bytes=max((config.models[run["model"]].parameters for run in study.trained.values()), default=0) * TRAINING_BYTES,
        unverified=[name for name in study.assets_needed if study.asset_unverified(name)],
        sources=[(name, *count.data(name)) for name in study.datasets_used],
        bills=bills(jobs),
    )


def _results(study: Study, needs: Needs) -> list[Result]:
    """Every figure and table, with the hours that another of them, of other experiments or the same, needs too."""
    jobs = [needs.result(catalogue, name) for catalogue, name in study.shown]
    found = []
    for place, (catalogue, name) in enumerate(study.shown):
        others = frozenset().union(*(each for other, each in enumerate(jobs) if other != place))
        shared = sum(hours(study, job) for job in jobs[place] & others)
        named = [each for each in getattr(study.config, catalogue)[name].experiments if each in study.config.study.experiments]
        found.append(Result(catalogue.removesuffix("s"), _row(name, study, jobs[place]), named, shared))
    return found


def summary(study: Study, targets: Collection[str] = ()) -> str:
    """What a dry run says of the cost: each figure and table that is asked for by name (all of them: none is, or `all`), and the total.

    Empty where something else is asked, or where the configuration states no throughputs.
    """
    names = [name for _, name in study.shown]
    whole = not targets or set(targets) == {"all"}
    if study.config.compute.tokens_per_second is None or not (whole or set(names).issuperset(targets)):
        return ""
    needs = Needs(study, Counter(study))
    made = {each: needs.result(*each) for each in study.shown if whole or each[1] in targets}
    unit = "GPU" if study.gpus else "CPU"
    rows = [_row(f"{catalogue.removesuffix('s')} {name}", study, jobs) for (catalogue, name), jobs in made.items()]
    rows.append(_row("in all", study, needs.whole() if whole else frozenset().union(*made.values())))
    lines = [f"{'from an empty folder':32}{'jobs':>8}{unit + '-hours':>12}{'GiB':>10}"]
    lines += [f"{row.name:32}{row.jobs:>8,}{row.hours:>12,.2f}{row.disk / GIB:>10,.1f}" for row in rows]
    return "\n".join([*lines, "What several of them need counts once in all. Stages, rows and throughputs: snakemake budget -c1"])


def render(found: Budget) -> str:
    """The budget as text."""
    head = f"Study {found.study}: {found.unit}-hours on {found.hardware} (from stated throughputs, not measured)"

    def rule(first: str) -> str:
        return f"{first:28}{'jobs':>8}{found.unit + '-hours':>14}{'GiB':>10}"

    def line(row: Row) -> str:
        return f"{row.name:28}{row.jobs:>8,}{row.hours:>14,.2f}{row.disk / GIB:>10,.1f}"

    stages = [row for row in found.stages if row.jobs]
    lines = [head, "", rule("stage"), *map(line, stages), line(found.total), ""]
    lines += [rule("experiment"), *map(line, found.experiments), line(found.total), ""]
    for kind in ("figure", "table"):
        shown = [result for result in found.results if result.kind == kind]
        lines += [f"{rule(kind)}{'of it shared':>14}  from"] if shown else []
        for result in shown:
            lines.append(f"{line(result.row)}{result.shared_hours:>14,.2f}  {', '.join(result.experiments) or 'all experiments'}")
        lines += [""] if shown else []
    lines += _render_bills(found.bills)
    lines += [
        "A line is what making that alone costs, by `snakemake <its name>` in an empty folder. What several lines need (`of it shared`)",
        "runs once, so lines add up to more than the total, which has the claims and the cards too. `prepare` and `results` run no model.",
        f"Disk: {found.checkpoints:,} checkpoints, {found.checkpoint_bytes / GIB:,.1f} GiB; while one training runs,"
        f" {found.training_bytes / GIB:,.1f} GiB more. Not counted: the hub client's own cache of what is fetched, and unfinished work.",
        "",
        f"{'tokens per row':28}{'rows':>8}{'prompt':>9}{'reasoning':>11}{'answer':>8}  from",
    ]
    lines += [f"{name:28}{rows:>8,}{t.prompt:>9,}{t.reasoning:>11,}{t.answer:>8,}  {source}" for name, rows, t, source in found.sources]
    if found.unverified:
        lines += ["", f"Not verified, so not fetched before scripts/lock_assets.py has run: {', '.join(found.unverified)}"]
    return "\n".join(lines)


def _usd(amount: float | None) -> str:
    return "no price" if amount is None else f"{amount:,.2f}"


def _render_bills(found: list[Bill]) -> list[str]:
    """What is asked of servers on other machines: tokens, price, and the most that the caps allow."""
    if not found:
        return []

    def line(bill: Bill) -> str:
        tokens = f"{bill.prompt / MILLION:>9,.2f}{bill.generated / MILLION:>11,.2f}{_usd(bill.usd):>11}"
        over = "; MORE THAN ITS CAP" if bill.prompt + bill.generated > bill.most else ""
        at = f"  {bill.model} at {bill.host}{over}" if bill.model else ""
        return f"{bill.who:44}{bill.jobs:>6,}{tokens}{bill.most / MILLION:>10,.1f}{_usd(bill.most_usd):>11}{at}"

    head = f"{'asked of servers, in M tokens':44}{'jobs':>6}{'prompt':>9}{'generated':>11}{'USD':>11}{'at most':>10}{'USD':>11}  model"
    return [head, *map(line, [*found, total_bill(found)]), *BILL_NOTES, ""]


def total_bill(found: list[Bill]) -> Bill:
    """The sum of all bills; its price is None where one of them has none."""

    def total(amounts: Iterable[float | None]) -> float | None:
        known = list(amounts)
        return None if None in known else sum(known)

    jobs, prompt, generated, most = (sum(getattr(bill, part) for bill in found) for part in ("jobs", "prompt", "generated", "most"))
    return Bill("total", "", "", jobs, prompt, generated, most, total(bill.usd for bill in found), total(bill.most_usd for bill in found))


BILL_NOTES = (
    "`prompt` and `generated` are estimates from the tokens below, judges and the models of PAIR at their longest. `at most` is",
    "`max_total_tokens` of all these jobs, prompt and generated together, at the dearer of the two prices. An `engine` states its price as",
    "`price: {input: …, output: …}`, USD per million tokens; where none is stated, none is assumed. GPU-hours hold nothing of this.",
)
