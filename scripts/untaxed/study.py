"""One study: a checked configuration, with the runs, specs and files that the rules look up in it."""

import copy
import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from untaxed.machine import has_gpu, on_this_machine
from untaxed.prompts import UPSTREAM, UPSTREAM_ASSET, UPSTREAM_JUDGES, UPSTREAM_LIVECODEBENCH, UPSTREAM_STYLES
from untaxed.records import UserError, fingerprint, nearest, read_yaml
from untaxed.schema import AttackModel, Config, Dataset, JudgeEngine, Mix, Recipe, Sampling, Shift, Thinking, Trainer

SMALL_FILE = 20_000_000  # bytes of a file that is read before anything runs
NAME = re.compile(r"[a-z0-9][a-z0-9._]*(-[a-z0-9._]+)*")
CATALOGUES = (
    "datasets",
    "models",
    "trainers",
    "refinements",
    "recipes",
    "experiments",
    "benchmarks",
    "attacks",
    "judges",
    "figures",
    "tables",
)


def _held(mapping: Any, key: str) -> int:
    """How many characters of a dotted key a mapping holds (names may hold dots themselves)."""
    best = 0
    for name, value in mapping.items() if isinstance(mapping, dict) else ():
        if key == str(name):
            return len(key)
        if key.startswith(f"{name}."):
            best = max(best, len(str(name)) + 1 + _held(value, key[len(str(name)) + 1 :]))
    return best


def place(files: Sequence[Path | str], key: str) -> str:
    """The last file that sets a key, or most of its path."""
    held = [(_held(read_yaml(path), key), number) for number, path in enumerate(files)]
    return str(files[max(held)[1]]) if held else "config"


def _sampled(sampling: Sampling | None) -> dict:
    """What a configuration says of a model's sampling, without defaults."""
    return {"sampling": sampling.model_dump(exclude_unset=True)} if sampling else {}


class Study:
    """A checked configuration with its references resolved: runs, recipes, trainers, paths."""

    def __init__(self, config: Config, root: Path, files: Sequence[Path | str] = ()) -> None:
        self.config, self.root, self.files = config, root, files
        self.replicates = self._replicate()
        self.name = config.study.name
        self.results = f"results/{self.name}"
        self.figures = f"paper_figures/{self.name}"
        self._taught: list[str] = []  # data sets whose teacher is being checked
        self._source_rows: dict[str, int | None] = {}
        self._parts: dict[str, Study] = {}  # by their names
        self._check()

    # ---- checks -------------------------------------------------------------------------------------------------

    def _fail(self, key: str, message: str) -> None:
        raise UserError(f"{place(self.files, key)}: {key}: {message}")

    def _named(self, catalogue: str, name: str, key: str) -> Any:
        entries = getattr(self.config, catalogue)
        if name not in entries:
            self._fail(key, f"no {catalogue[:-1]} is called {name!r}; {nearest(name, entries)}")
        return entries[name]

    def _file(self, path: str, key: str) -> None:
        if not (self.root / path).is_file():
            self._fail(key, f"no such file {path!r}; create it or mend the path (it is relative to the repository root)")

    def _check_options(self, options: Iterable[str], valid: Iterable[str], key: str, whose: str) -> None:
        for option in options:
            if option not in valid:
                self._fail(f"{key}.{option}", f"{whose} has no such option; {nearest(option, valid)}")

    def _replicate(self) -> dict[str, list[str]]:
        """Add a model for every replicate of a stage but the first, called `<model>.<number>`; returns them all by their model."""
        models, found = dict(self.config.models), {}
        for name, model in self.config.models.items():
            found[name] = [name]
            for number in range(1, model.stage.replicates if model.stage else 1):
                if (copy := f"{name}.{number}") in models:
                    self._fail(f"models.{copy}", f"a replicate of models.{name} is called so; rename this model, or lower stage.replicates")
                stage = model.stage.model_copy(update={"seed": model.stage.seed + number, "replicates": 1})
                models[copy] = model.model_copy(update={"stage": stage})
                found[name].append(copy)
        self.config = self.config.model_copy(update={"models": models})
        return found

    def _check(self) -> None:
        config = self.config
        for catalogue in CATALOGUES:
            for name in getattr(config, catalogue):
                if not NAME.fullmatch(name):
                    self._fail(
                        f"{catalogue}.{name}", "names are lower case letters, digits, '.', '_' and single '-' (they become folder names)"
                    )
        if not NAME.fullmatch(config.study.name):
            self._fail("study.name", f"{config.study.name!r} becomes a folder name: lower case letters, digits, '.', '_' and single '-'")
        self._check_selection()
        for experiment in config.study.experiments:
            self._check_experiment(experiment)
        self._check_evaluation()
        self._check_contexts()
        self._check_parts()
        self._check_engine()
        self._check_results()

    def _check_selection(self) -> None:
        selection = self.config.study
        for key, catalogue in (
            ("experiments", "experiments"),
            ("suite", "benchmarks"),
            ("judges", "judges"),
            ("figures", "figures"),
            ("tables", "tables"),
        ):
            names = getattr(selection, key)
            for name in names:
                self._named(catalogue, name, f"study.{key}")
            if len(set(names)) < len(names):
                self._fail(f"study.{key}", f"{next(n for n in names if names.count(n) > 1)!r} stands there twice; remove one")
        if not selection.experiments:
            self._fail("study.experiments", "is empty; name at least one")
        for catalogue in ("figures", "tables"):
            for name in getattr(selection, catalogue):
                for experiment in getattr(self.config, catalogue)[name].experiments:
                    self._named("experiments", experiment, f"{catalogue}.{name}.experiments")

    def _check_experiment(self, name: str) -> None:
        experiment, key = self.config.experiments[name], f"experiments.{name}"
        for field in ("models", "recipes", "trainers", "n", "seeds", "suite"):
            values = getattr(experiment, field)
            if not values and field in ("models", "n", "seeds", *(("recipes", "trainers") if any(experiment.n) else ())):
                self._fail(f"{key}.{field}", "is empty; name at least one")
            if len(set(values)) < len(values):
                self._fail(f"{key}.{field}", "holds a value twice; remove one")
        for benchmark in experiment.suite:
            self._named("benchmarks", benchmark, f"{key}.suite")
        if not (experiment.suite or self.config.study.suite):
            self._fail("study.suite", f"is empty, and {key} has no `suite` of its own; name at least one benchmark")
        if not any(self.config.benchmarks[each].kind == "reasoning" for each in experiment.suite or self.config.study.suite):
            where = f"{key}.suite" if experiment.suite else "study.suite"
            self._fail(where, "has no reasoning benchmark, so no safety tax can be measured; add one")
        for model in experiment.models:
            self._check_model(model, f"{key}.models")
        for trainer in experiment.trainers:
            self._named("trainers", trainer, f"{key}.trainers")
            self._check_trainer(trainer)
        for recipe in experiment.recipes:
            self._named("recipes", recipe, f"{key}.recipes")
            resolved = self.recipe(recipe)
            self._check_size(max(experiment.n), resolved.dataset, f"{key}.n")
            for part in self._mixed(resolved.mix, max(experiment.n)):
                self._check_size(part["n"], part["dataset"], f"recipes.{recipe}.mix")

    def _check_model(self, name: str, key: str) -> None:
        from untaxed.models import FROM_NOTHING, OPTIONS

        seen: list[str] = []
        while True:
            model = self._named("models", name, key)
            if name in seen:
                link = "base" if model.base else "adapter_on"
                self._fail(f"models.{name}.{link}", f"models build on each other in a circle: {' -> '.join([*seen, name])}")
            seen.append(name)
            if (model.kind is None) == (model.base is None):
                self._fail(f"models.{name}", "give either `kind` (a model from outside) or `base` and `stage` (a model trained here)")
            if model.tuned_from is not None:
                self._named("models", model.tuned_from, f"models.{name}.tuned_from")
            if model.base is None:
                if model.kind not in FROM_NOTHING and model.asset is None:
                    self._fail(f"models.{name}.asset", f"a model of kind {model.kind!r} needs the asset it comes from")
                self._asset(model.asset, f"models.{name}.asset")
                self._check_options(model.options, OPTIONS[model.kind], f"models.{name}.options", f"a model of kind {model.kind!r}")
                if model.adapter_on is None:
                    return
                self._check_adapter_on(name)
                name, key = model.adapter_on, f"models.{name}.adapter_on"
                continue
            if model.adapter_on is not None:
                self._fail(f"models.{name}.adapter_on", "is for an adapter from outside (`kind: folder`); remove it")
            self._check_options(model.options, (), f"models.{name}.options", "a model with a `base`")
            if model.stage is None:
                self._fail(f"models.{name}.stage", "a model with a `base` needs the reasoning stage that makes it")
            self._check_dataset(model.stage.dataset, f"models.{name}.stage.dataset")
            self._named("trainers", model.stage.trainer, f"models.{name}.stage.trainer")
            self._check_trainer(model.stage.trainer)
            self._check_size(model.stage.n, model.stage.dataset, f"models.{name}.stage.n")
            self._check_mix(model.stage.mix, f"models.{name}.stage.mix")
            if model.stage.chat_template:
                self._file(model.stage.chat_template, f"models.{name}.stage.chat_template")
            for part in self._mixed(model.stage.mix, model.stage.n):
                self._check_size(part["n"], part["dataset"], f"models.{name}.stage.mix")
            name, key = model.base, f"models.{name}.base"

    def _check_adapter_on(self, name: str) -> None:
        model, key = self.config.models[name], f"models.{name}.adapter_on"
        if model.kind != "folder":
            self._fail(key, f"is for an adapter from outside (`kind: folder`), and this model's kind is {model.kind!r}; remove it")
        if self._named("models", model.adapter_on, key).base is not None:
            self._fail(key, f"{model.adapter_on!r} is trained here, and the adapter was made for a model from outside; name that one")

    def _check_trainer(self, name: str) -> None:
        """What would end a training only after all that is made before it."""
        trainer, processes = self.trainer(name), max(1, self.train_gpus)
        micro = trainer.micro_batch_size or max(1, trainer.batch_size // processes)
        if trainer.batch_size % (micro * processes):
            given = f"micro_batch_size {micro}" + (f" on {processes} GPUs" if processes > 1 else "")
            self._fail(f"trainers.{name}.batch_size", f"{trainer.batch_size} is no multiple of {given}; change one, or compute.train_gpus")
        if trainer.lora_rank and trainer.sharding == "fsdp" and processes > 1:
            self._fail(f"trainers.{name}.lora_rank", "low-rank updates cannot be merged into sharded weights; set sharding to none")

    def _check_size(self, n: int, dataset: str, key: str) -> None:
        """Refuse more rows than a dataset is certain to lack: filters and decontamination may still leave fewer than its source has."""
        limit, most = self.config.datasets[dataset].limit, self.source_rows(dataset)
        if limit is not None and n > limit:
            self._fail(key, f"{n} rows asked of dataset {dataset!r}, which has {limit}; ask for fewer or raise its limit")
        if most is not None and n > most:
            self._fail(key, f"{n} rows asked of dataset {dataset!r}, whose source has {most}; ask for fewer")

    def source_rows(self, dataset: str) -> int | None:
        """The most rows that a dataset's asset (as the lock counts them) or generator can give; None where that is not known."""
        if dataset not in self._source_rows:
            self._source_rows[dataset] = self._count_source(dataset)
        return self._source_rows[dataset]

    def _count_source(self, name: str) -> int | None:
        from untaxed import organism

        dataset = self.config.datasets[name]
        if dataset.of:
            return None if dataset.filters else self.source_rows(dataset.of)
        if len(dataset.assets) > 1:
            return None  # how an adapter joins several assets is its own matter
        if dataset.adapter in organism.ADAPTERS:
            try:
                return organism.size(dataset.adapter, dataset.options)
            except (UserError, TypeError, ValueError) as error:
                self._fail(f"datasets.{name}.options", str(error))
        rows = sum(self.asset_rows(asset) for asset in dataset.assets) or dataset.options.get("size")
        return max(0, rows - (dataset.options.get("offset") or 0)) if isinstance(rows, int) else None

    def _asset(self, name: str | None, key: str) -> None:
        if name is not None and name not in self.asset_names:
            self._fail(key, f"assets.lock.yaml has no asset {name!r}; {nearest(name, self.asset_names)}")

    def _check_dataset(self, name: str, key: str, asked: tuple[str, ...] = ()) -> None:
        """Check a dataset and those that it is decontaminated against; `asked` are the datasets whose check led here."""
        dataset = self._named("datasets", name, key)
        if name in asked:
            circle = " -> ".join([*asked[asked.index(name) :], name])
            self._fail(f"datasets.{asked[-1]}.decontaminate_against", f"data sets are checked against each other in a circle: {circle}")
        if (dataset.adapter is None) == (dataset.of is None):
            self._fail(f"datasets.{name}", "give either `adapter` (rows from assets or a generator) or `of` (rows of another dataset)")
        if dataset.of is not None:
            self._check_drawn(name, (*asked, name))
            return
        for field in ("filters", "patterns"):
            if getattr(dataset, field):
                self._fail(f"datasets.{name}.{field}", "is for a dataset with `of`; name the dataset whose rows are filtered there")
        self._check_adapter(name)
        if dataset.teacher is not None:
            self._check_teacher(name)
        wanted, most = (dataset.teacher and dataset.teacher.candidates) or dataset.limit, self.source_rows(name)
        if wanted and most is not None and wanted > most:
            field = "teacher.candidates" if dataset.teacher and dataset.teacher.candidates else "limit"
            self._fail(f"datasets.{name}.{field}", f"{wanted} rows asked of a source that has {most}; lower it")
        for other in dataset.decontaminate_against:
            self._check_dataset(other, f"datasets.{name}.decontaminate_against", (*asked, name))

    def _check_drawn(self, name: str, asked: tuple[str, ...]) -> None:
        """Check a dataset that is drawn from another: its source, its filters, and nothing that only a dataset with an adapter has."""
        dataset = self.config.datasets[name]
        for field in ("assets", "options", "responses", "decontaminate_against", "teacher"):
            if getattr(dataset, field):
                self._fail(f"datasets.{name}.{field}", f"is for the dataset that the rows are from ({dataset.of}); move it there")
        if self._named("datasets", dataset.of, f"datasets.{name}.of").of is not None:
            self._fail(f"datasets.{name}.of", f"{dataset.of!r} is drawn from another dataset itself; name that one, and all filters here")
        self._check_dataset(dataset.of, f"datasets.{name}.of", asked)
        for number, rule in enumerate(dataset.filters):
            key = f"datasets.{name}.filters.{number}"
            self._check_row_judge(rule.judge, f"{key}.judge")
            if (rule.keep is None) == (rule.allow is None):
                self._fail(key, "give either `keep` (verdicts) or `allow` (labels)")
            if rule.allow is not None and self.config.judges[rule.judge].kind != "risky_patterns":
                self._fail(f"{key}.allow", f"judge {rule.judge!r} gives no labels; name one of kind 'risky_patterns', or use `keep`")
        if dataset.patterns:
            self._check_row_judge(dataset.patterns, f"datasets.{name}.patterns")
            if self.config.judges[dataset.patterns].kind != "risky_patterns":
                self._fail(f"datasets.{name}.patterns", f"judge {dataset.patterns!r} gives no labels; name one of kind 'risky_patterns'")
        source = self.config.datasets[dataset.of]
        if dataset.limit and source.limit and dataset.limit > source.limit:
            self._fail(f"datasets.{name}.limit", f"{dataset.limit} rows asked of {dataset.of!r}, which has {source.limit}; lower it")

    def _check_row_judge(self, name: str, key: str) -> None:
        """Check a judge that reads rows, so that its `benchmarks` may be empty."""
        self._named("judges", name, key)
        self._check_judge(name, reads_rows=True)

    def _check_adapter(self, name: str) -> None:
        """Check what makes the rows of a dataset: adapter, options, assets, responses, prompt files."""
        from untaxed import organism
        from untaxed.datasets import ADAPTERS, COMMON, RESPONSES, asset_parameters

        dataset = self.config.datasets[name]
        if dataset.adapter not in ADAPTERS:
            self._fail(f"datasets.{name}.adapter", f"no adapter is called {dataset.adapter!r}; {nearest(dataset.adapter, ADAPTERS)}")
        parameters, folders = inspect.signature(ADAPTERS[dataset.adapter]).parameters, asset_parameters(dataset.adapter)
        own = organism.OPTIONS.get(dataset.adapter) or [*(p for p in parameters if p not in (*folders, "wanted")), *COMMON]
        self._check_options(dataset.options, own, f"datasets.{name}.options", f"adapter {dataset.adapter!r}")
        if isinstance(shares := dataset.options.get("shares"), dict):
            self._check_options(shares, organism.TASKS, f"datasets.{name}.options.shares", f"adapter {dataset.adapter!r}")
        if folders and len(dataset.assets) != len(folders):
            wanted = "one asset" if len(folders) == 1 else f"{len(folders)} assets ({', '.join(folders)}, in this order)"
            self._fail(
                f"datasets.{name}.assets", f"adapter {dataset.adapter!r} reads {wanted}, {len(dataset.assets)} are named; mend the list"
            )
        if dataset.responses is not None and dataset.responses not in RESPONSES:
            hint = nearest(dataset.responses, RESPONSES)
            self._fail(f"datasets.{name}.responses", f"no way to write responses is called {dataset.responses!r}; {hint}")
        for asset in dataset.assets:
            self._asset(asset, f"datasets.{name}.assets")
        template = dataset.options.get("template")
        if str(template).startswith(UPSTREAM):
            if dataset.adapter != "livecodebench" or template != f"{UPSTREAM}livecodebench":
                message = f"no authors' wording is known as {template!r}; name a file, or for livecodebench `upstream:livecodebench`"
                self._fail(f"datasets.{name}.options.template", message)
            self._asset(UPSTREAM_LIVECODEBENCH[0], f"datasets.{name}.options.template")
        for path in self.dataset_files(name):
            if not path.endswith("/asset.json"):
                self._file(path, f"datasets.{name}")
        if any("local" in source for asset in dataset.assets for source in self._lock[asset].get("sources") or []):
            self._check_own(name)

    def _check_own(self, name: str) -> None:
        """Read a dataset of the user's own file as its rule will: a mistake there would else be found hours later. Large files wait."""
        from untaxed.assets import Unavailable, load_lock, verify
        from untaxed.datasets import prepare

        dataset, lock = self.config.datasets[name], load_lock(self.root / "assets.lock.yaml")
        with tempfile.TemporaryDirectory() as scratch:
            for asset in (lock[asset] for asset in dataset.assets):
                for source in (source for source in asset.sources if source.kind == "local"):
                    for file in asset.files:
                        origin, copy = self.root / source.path_of(file.file), Path(scratch, asset.id, file.file)
                        if not origin.is_file():
                            self._fail(f"datasets.{name}.assets", f"{asset.id}: no such file {source.path_of(file.file)!r}; put it there")
                        if origin.stat().st_size > SMALL_FILE:
                            return
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(origin, copy)
                        try:
                            verify(file, copy, asset.format)
                        except Unavailable as error:
                            self._fail(f"datasets.{name}.assets", f"{asset.id}: {error}")
            try:
                spec = {key: getattr(dataset, key) for key in ("adapter", "options", "limit", "responses", "seed")}
                prepare(spec, {asset: Path(scratch, asset) for asset in dataset.assets})
            except UserError as error:
                self._fail(f"datasets.{name}", str(error).replace(f"{scratch}{os.sep}", ""))

    def _check_teacher(self, name: str) -> None:
        dataset = self.config.datasets[name]
        if dataset.limit and dataset.teacher.candidates and dataset.teacher.candidates < dataset.limit:
            message = f"{dataset.teacher.candidates} prompts cannot give {dataset.limit} rows; ask more, or lower the dataset's limit"
            self._fail(f"datasets.{name}.teacher.candidates", message)
        if name in self._taught:
            circle = " -> ".join([*self._taught[self._taught.index(name) :], name])
            self._fail(f"datasets.{name}.teacher.model", f"teachers are trained on what they teach, in a circle of data sets: {circle}")
        if dataset.teacher.prompt and dataset.teacher.prompt.startswith(UPSTREAM):
            self._asset(UPSTREAM_ASSET, f"datasets.{name}.teacher.prompt")
            style = dataset.teacher.prompt.removeprefix(UPSTREAM)
            if style not in UPSTREAM_STYLES:
                self._fail(f"datasets.{name}.teacher.prompt", f"the release has no prompt {style!r}; {nearest(style, UPSTREAM_STYLES)}")
        elif dataset.teacher.prompt:
            self._file(dataset.teacher.prompt, f"datasets.{name}.teacher.prompt")
        self._check_served(dataset.teacher.model, dataset.teacher.engine, f"datasets.{name}.teacher", "a teacher")
        cap, longest = dataset.teacher.engine.max_total_tokens, dataset.teacher.sampling.max_new_tokens
        if cap is not None and cap <= longest:
            message = f"{cap} tokens do not hold one answer of sampling.max_new_tokens: {longest}; raise it"
            self._fail(f"datasets.{name}.teacher.engine.max_total_tokens", message)
        if dataset.teacher.model is not None:
            self._taught.append(name)
            self._check_model(dataset.teacher.model, f"datasets.{name}.teacher.model")
            self._taught.pop()

    def _check_parts(self) -> None:
        """Refuse a run that trains on the prompts that it is tested with: of one asset, unless parted or cleaned of one another."""
        for run, spec in self.runs.items():
            trained = sorted({self.source(name) for name in self._trained_on(spec)})
            for benchmark in self.suites[run]:
                asked = self.config.benchmarks[benchmark].dataset
                tested = self.config.datasets[asked]
                for name in trained:
                    dataset = self.config.datasets[name]
                    parts = {dataset.options.get("part"), tested.options.get("part")}
                    if "part" in {*dataset.options, *tested.options} and dataset.assets == tested.assets and parts != {"train", "test"}:
                        message = (
                            f"trains on prompts that benchmark {benchmark!r} tests with; set `part: train` here and `part: test` there"
                        )
                        self._fail(f"datasets.{name}.options.part", message)
                        continue
                    shared = sorted({*dataset.assets} & {*tested.assets})
                    if shared and "part" not in dataset.options and asked not in dataset.decontaminate_against:
                        message = (
                            f"trains on rows of {shared[0]!r}, which benchmark {benchmark!r} tests with; add {asked!r} to its"
                            " `decontaminate_against`, or take the benchmark out of the suite"
                        )
                        self._fail(f"datasets.{name}.assets", message)

    def _trained_on(self, spec: dict) -> set[str]:
        """The datasets that a run's checkpoint has seen: its own, and those of the stages of its model."""
        found = {spec["dataset"], *(part["dataset"] for part in spec["mix"])} if spec["n"] else set()
        model = self.config.models[spec["model"]]
        while model.stage is not None:
            found |= {model.stage.dataset, *(part.dataset for part in model.stage.mix)}
            model = self.config.models[model.base]
        return found

    def _check_results(self) -> None:
        from untaxed.figures import FIGURES
        from untaxed.tables import TABLES

        for catalogue, kinds in (("figures", FIGURES), ("tables", TABLES)):
            for name in getattr(self.config.study, catalogue):
                kind = getattr(self.config, catalogue)[name].kind
                if kind not in kinds:
                    self._fail(f"{catalogue}.{name}.kind", f"no kind of {catalogue[:-1]} is called {kind!r}; {nearest(kind, kinds)}")
                if (tokenizer := self.tokenizer(catalogue, name)) is not None:
                    self._check_tokenizer(tokenizer, f"{catalogue}.{name}.options.tokenizer")

    def _check_tokenizer(self, model: str, key: str) -> None:
        """Check a model whose tokenizer counts: one that is trained here would be trained for its tokenizer alone."""
        self._check_model(model, key)
        if (base := self.config.models[model].base) is not None:
            self._fail(key, f"{model!r} is trained here, and has the tokenizer of {base!r}; name that")

    def _check_engine(self) -> None:
        shards = self.config.compute.vllm.tensor_parallel_size or 1
        if self.gpus and shards > self.gpus:
            self._fail("compute.vllm.tensor_parallel_size", f"{shards} GPUs for a job that is given compute.gpus: {self.gpus}; change one")

    def _check_evaluation(self) -> None:
        config = self.config
        for name in self.suite:
            benchmark, key = config.benchmarks[name], f"benchmarks.{name}"
            self._check_dataset(benchmark.dataset, f"{key}.dataset")
            self._file(benchmark.task, f"{key}.task")
            if benchmark.attack is not None:
                self._named("attacks", benchmark.attack, f"{key}.attack")
                self._check_attack(benchmark.attack)
            if benchmark.kind != "reasoning" and not any(name in config.judges[judge].benchmarks for judge in config.study.judges):
                self._fail("study.judges", f"no judge reads benchmark {name!r}; add one whose `benchmarks` names it")
        for name in config.study.judges:
            self._check_judge(name)
        if config.agreement is not None:
            self._asset(config.agreement.refusal, "agreement.refusal")
            self._asset(config.agreement.harm, "agreement.harm")
        if config.shift is not None:
            self._check_shift(config.shift)

    def _check_contexts(self) -> None:
        """Refuse a benchmark whose answers alone fill a model's context: no backend can ask it."""
        for run, spec in self.runs.items():
            context = self.config.models[spec["model"]].context
            for name in self.suites[run]:
                longest = self.config.benchmarks[name].sampling.max_new_tokens
                if longest >= context:
                    key = f"benchmarks.{name}.sampling.max_new_tokens"
                    self._fail(key, f"{longest} tokens leave no room for a prompt in models.{spec['model']}.context: {context}; change one")

    def _check_shift(self, shift: Shift) -> None:
        self._asset(shift.encoder, "shift.encoder")
        if not shift.benchmarks:
            self._fail("shift.benchmarks", "is empty; name at least one benchmark of the study")
        for key, names in (("benchmarks", shift.benchmarks), ("kl_benchmark", [shift.kl_benchmark])):
            for name in names:
                if name not in self.suite:
                    self._fail(f"shift.{key}", f"{name!r} is in no suite of this study; {nearest(name, self.suite)}")
                if self._asks_target(name):
                    self._fail(
                        f"shift.{key}", f"the prompts of {name!r} differ between runs (PAIR); name a benchmark that asks all the same"
                    )

    def _check_attack(self, name: str) -> None:
        """Check the models, files and sizes of an attack."""
        attack, key = self.config.attacks[name], f"attacks.{name}"
        roles = {"pair": ("attacker", "judge"), "pap-generated": ("attacker",)}.get(attack.kind, ())
        for role in ("attacker", "judge"):
            asked = getattr(attack, role)
            if (asked is None) == (role in roles):
                fix = "give its `model` (or `engine`) and `prompt`" if asked is None else "remove the key"
                self._fail(
                    f"{key}.{role}", f"an attack of kind {attack.kind!r} {'asks such a model' if asked is None else 'asks none'}; {fix}"
                )
            if asked is not None:
                self._check_attack_model(asked, f"{key}.{role}", f"an attack of kind {attack.kind!r}", judges=role == "judge")
        for field, kind in (("table", "pap-static"), ("techniques", "pap-generated"), ("templates", "pap-templates")):
            value = getattr(attack, field)
            if (value is None) == (attack.kind == kind):
                fix = "add it" if value is None else "remove the key"
                self._fail(f"{key}.{field}", f"an attack of kind {attack.kind!r} {'needs' if value is None else 'has no'} {field}; {fix}")
        self._asset(attack.table, f"{key}.table")
        for field in ("techniques", "templates"):
            if path := getattr(attack, field):
                self._file(path, f"{key}.{field}")

    def _check_attack_model(self, asked: AttackModel, key: str, whose: str, judges: bool) -> None:
        """Check a model that an attack asks, or the phrases that stand for its judge."""
        if asked.phrases is not None:
            if not judges or asked.model is not None or asked.prompt is not None:
                self._fail(f"{key}.phrases", "stand for a judge without `model` and `prompt`; remove the key, or those")
            self._file(asked.phrases, f"{key}.phrases")
            return
        if asked.prompt is None:
            self._fail(f"{key}.prompt", f"{whose} needs the prompt of its models; name a file of prompts/attacks")
        self._file(asked.prompt, f"{key}.prompt")
        self._check_served(asked.model, asked.engine, key, whose)
        if asked.model is not None:
            self._check_model(asked.model, f"{key}.model")

    def _check_judge(self, name: str, reads_rows: bool = False) -> None:
        from untaxed.judges import JUDGES

        judge, key = self.config.judges[name], f"judges.{name}"
        if not judge.benchmarks and not reads_rows:
            self._fail(f"{key}.benchmarks", "is empty; name at least one benchmark of the study")
        for benchmark in judge.benchmarks:
            self._named("benchmarks", benchmark, f"{key}.benchmarks")
        if judge.prompt is not None and judge.prompt.startswith(UPSTREAM):
            known = [wording for wording, (kind, _, _) in UPSTREAM_JUDGES.items() if kind == judge.kind]
            if judge.prompt.removeprefix(UPSTREAM) not in known:
                fix = f"valid: {', '.join(UPSTREAM + each for each in known)}" if known else "name a file of prompts/"
                self._fail(f"{key}.prompt", f"a judge of kind {judge.kind!r} has no authors' wording {judge.prompt!r}; {fix}")
            self._asset(UPSTREAM_JUDGES[judge.prompt.removeprefix(UPSTREAM)][1], f"{key}.prompt")
        elif judge.prompt is not None:
            self._file(judge.prompt, f"{key}.prompt")
        if JUDGES[judge.kind].needs and judge.prompt is None:
            self._fail(f"{key}.prompt", f"a judge of kind {judge.kind!r} needs a prompt file; name one of prompts/")
        self._check_options(judge.options, JUDGES[judge.kind].options, f"{key}.options", f"a judge of kind {judge.kind!r}")
        tokens = judge.options.get("response_tokens")
        if tokens is not None and (type(tokens) is not int or tokens < 1):
            message = f"{tokens!r} is no number of tokens; give 1 or more, or null for whole responses"
            self._fail(f"{key}.options.response_tokens", message)
        if JUDGES[judge.kind].build and not JUDGES[judge.kind].generates:
            if judge.sampling is not None:
                self._fail(f"{key}.sampling", f"a judge of kind {judge.kind!r} generates nothing; remove the key")
            if judge.engine.backend in ("vllm", "serve", "openai"):
                message = f"a judge of kind {judge.kind!r} reads probabilities from transformers; remove the key, and name a `model`"
                self._fail(f"{key}.engine.backend", message)
        self._check_judge_engine(name)
        if judge.model is not None:
            self._check_model(judge.model, f"{key}.model")

    def _check_judge_engine(self, name: str) -> None:
        from untaxed.judges import JUDGES

        judge, key = self.config.judges[name], f"judges.{name}"
        given = {field for field, value in judge.engine if value is not None}
        if not JUDGES[judge.kind].build:
            for field in (["model"] if judge.model else []) + (["engine"] if given else []):
                self._fail(f"{key}.{field}", f"a judge of kind {judge.kind!r} asks no model; remove the key")
            return
        self._check_served(judge.model, judge.engine, key, f"a judge of kind {judge.kind!r}")

    def _check_served(self, model: str | None, engine: JudgeEngine, key: str, whose: str) -> None:
        """Check where the answers of a judge, a teacher or an attack's model come from: a model of this study, or one at a server."""
        given = {field for field, value in engine if value is not None}
        server, own = engine.backend == "openai", engine.backend == "serve"
        for field in sorted(given - {"backend"}):
            if server and field in ("dtype", "batch_size", "max_model_len", "start_timeout_s"):
                self._fail(f"{key}.engine.{field}", "is for a model that runs here; remove the key")
            if own and field in ("model", "base_url", "api_key_env", "price"):
                self._fail(
                    f"{key}.engine.{field}", "is for a server that is there already; set `engine.backend: openai`, or remove the key"
                )
            if not (server or own) and field not in ("dtype", "batch_size", "max_model_len"):
                fix = f"set `engine.backend: {'serve' if field == 'start_timeout_s' else 'openai'}`, or remove the key"
                self._fail(f"{key}.engine.{field}", f"is for a server; {fix}")
        if server:
            if model is not None:
                self._fail(f"{key}.model", "is for a model that runs here; a server's model is named by `engine.model`")
            for field, what in (("model", "the model's name at the server"), ("base_url", "the server's address, up to and with /v1")):
                if field not in given:
                    self._fail(f"{key}.engine.{field}", f"this key is required with `backend: openai`; give {what}")
            if engine.max_total_tokens is None and not on_this_machine(engine.base_url):
                why = "this key is required for a server that is not on this machine"
                self._fail(f"{key}.engine.max_total_tokens", f"{why}; give the most tokens, prompt and generated, that a job may use there")
        elif model is None:
            valid = nearest("", self.config.models)
            self._fail(f"{key}.model", f"{whose} needs a model of this study ({valid}), or `engine.model` at a server")
        variable = engine.api_key_env
        if variable is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", variable):  # perhaps a key: it must not be shown
            self._fail(f"{key}.engine.api_key_env", "is no name of an environment variable; export the key and give the variable's name")

    @cached_property
    def _lock(self) -> dict[str, dict]:
        from untaxed.assets import read_lock

        return read_lock(self.root / "assets.lock.yaml")

    @property
    def asset_names(self) -> set[str]:
        return set(self._lock)

    # ---- resolved parts -----------------------------------------------------------------------------------------

    def _extended(self, catalogue: str, name: str) -> dict:
        """An entry with the entries it extends laid under it. Raises UserError on a circle."""
        chain: list[str] = []
        fields: dict = {}
        current: str | None = name
        while current is not None:
            if current in chain:
                self._fail(
                    f"{catalogue}.{name}.extends", f"{catalogue} extend each other in a circle: {' -> '.join([*chain, current])}; break it"
                )
            entry = self._named(catalogue, current, f"{catalogue}.{chain[-1] if chain else current}.extends")
            fields = {**entry.model_dump(exclude_unset=True), **fields}
            chain.append(current)
            current = entry.extends
        fields.pop("extends", None)
        return fields

    def trainer(self, name: str) -> Trainer:
        return Trainer.model_validate(self._extended("trainers", name), strict=False)

    def recipe(self, name: str) -> Recipe:
        key = f"recipes.{name}"
        recipe = Recipe.model_validate(self._extended("recipes", name), strict=False)
        if recipe.dataset is None:
            self._fail(f"{key}.dataset", "this key is required; name the dataset that the recipe trains on")
        self._check_dataset(recipe.dataset, f"{key}.dataset")
        if recipe.method == "dgr":
            if recipe.refinement is None:
                self._fail(f"{key}.refinement", f"method dgr needs a refinement; {nearest('dgr', self.config.refinements)}")
            refinement = self._named("refinements", recipe.refinement, f"{key}.refinement")
            for piece in refinement.pieces:
                if piece not in refinement.prompts:
                    self._fail(f"refinements.{recipe.refinement}.prompts.{piece}", "a piece that is refined needs its prompt file")
            for piece, path in refinement.prompts.items():
                self._file(path, f"refinements.{recipe.refinement}.prompts.{piece}")
            for field in ("meta_thinking", "refusal_phrases"):
                self._file(getattr(refinement, field), f"refinements.{recipe.refinement}.{field}")
        self._check_mix(recipe.mix, f"{key}.mix")
        return recipe

    def _check_mix(self, mix: list[Mix], key: str) -> None:
        for index, part in enumerate(mix):
            self._check_dataset(part.dataset, f"{key}.{index}.dataset")
            if (part.n is None) == (part.ratio is None):
                self._fail(f"{key}.{index}", "give either `n` (rows) or `ratio` (of the rows that it is added to)")

    def experiment_runs(self, name: str) -> dict[str, dict]:
        """The runs of one experiment by their ids; n = 0 is the base model, once for every replicate that a seed starts from."""
        experiment, runs = self.config.experiments[name], {}
        for model in experiment.models:
            for base in self._base_runs(model, experiment.seeds):
                runs[base["run"]] = base
            for recipe in experiment.recipes:
                for trainer in experiment.trainers:
                    for n in experiment.n:
                        for seed in experiment.seeds if n else []:
                            run = self._run(model, recipe, trainer, n, seed)
                            runs[run["run"]] = run
        return runs

    @cached_property
    def runs(self) -> dict[str, dict]:
        """Every run of the selected experiments; a run that two experiments share stands once."""
        return {run: spec for name in self.config.study.experiments for run, spec in self.experiment_runs(name).items()}

    @cached_property
    def suites(self) -> dict[str, list[str]]:
        """The benchmarks of each run: those of all selected experiments that hold it, in the order in which they are named."""
        found: dict[str, dict[str, None]] = {run: {} for run in self.runs}
        for name in self.config.study.experiments:
            for run in self.experiment_runs(name):
                found[run] |= dict.fromkeys(self.config.experiments[name].suite or self.config.study.suite)
        return {run: list(suite) for run, suite in found.items()}

    @cached_property
    def suite(self) -> list[str]:
        """Every benchmark that some run is tested with."""
        return list(dict.fromkeys(name for suite in self.suites.values() for name in suite))

    def judges_of(self, run: str) -> list[str]:
        """The study's judges that read a benchmark of a run."""
        return [name for name in self.config.study.judges if set(self.config.judges[name].benchmarks) & set(self.suites[run])]

    def shifted(self, run: str) -> bool:
        """Whether the shift of a run can be measured: it is trained, and tested with the benchmarks that are compared."""
        shift = self.config.shift
        return shift is not None and bool(self.runs[run]["n"]) and {*shift.benchmarks, shift.kl_benchmark} <= set(self.suites[run])

    def source(self, dataset: str) -> str:
        """The dataset that rows come from: itself, or the one that it is drawn from."""
        return self.config.datasets[dataset].of or dataset

    @cached_property
    def row_judges(self) -> list[tuple[str, str]]:
        """(dataset, judge) of all rows that a filter, or the count of risky patterns, has judged."""
        drawn = [self.config.datasets[name] for name in self.datasets_used if self.config.datasets[name].of]
        return sorted({(entry.of, judge) for entry in drawn for judge in self.row_judges_of(entry)})

    @staticmethod
    def row_judges_of(entry: Dataset) -> list[str]:
        """The judges that the rows of a drawn dataset are chosen by and counted with, once each."""
        return list(dict.fromkeys([rule.judge for rule in entry.filters] + ([entry.patterns] if entry.patterns else [])))

    @cached_property
    def stages(self) -> dict[str, dict]:
        """The reasoning stages of all models that the study uses, as runs called `reasoning--<model>`."""
        return {f"reasoning--{name}": self._stage(name) for name in self.models_needed if self.config.models[name].stage}

    @cached_property
    def models_needed(self) -> list[str]:
        """Every model that runs, judges, teaches, or that one of these is made from."""
        config = self.config
        datasets = {config.benchmarks[name].dataset for name in self.suite}
        attacks = [config.attacks[name] for name in self.attacks_used]
        waiting = {run["model"] for run in self.runs.values()} | {config.judges[judge].model for judge in config.study.judges}
        waiting |= {asked.model for attack in attacks for asked in (attack.attacker, attack.judge) if asked}
        for run in self.runs.values():
            datasets |= {run.get("dataset"), *(part["dataset"] for part in run["mix"])}
        return sorted(self._made_from(waiting | self._makers(datasets)))

    def _made_from(self, models: Iterable[str | None]) -> set[str]:
        """Models, with all that they are trained from and that teach or judge what they are trained on."""
        found: set[str] = set()
        waiting = set(models)
        while waiting := waiting - found - {None}:
            name = waiting.pop()
            found.add(name)
            model = self.config.models[name]
            waiting |= {model.base, model.adapter_on, *self._makers(self._staged(name))}
        return found

    def _staged(self, model: str) -> set[str]:
        """The datasets of a model's own reasoning stage."""
        stage = self.config.models[model].stage
        return {stage.dataset, *(part.dataset for part in stage.mix)} if stage else set()

    def _makers(self, datasets: Iterable[str | None]) -> set[str | None]:
        """The models that write or judge the rows of datasets: teachers, and the judges of filters."""
        names = {name for name in datasets if name is not None}
        judges = {judge for name in names for judge in self.row_judges_of(self.config.datasets[name])}
        taught = [self.config.datasets[self.source(name)].teacher for name in names]
        return {teacher.model for teacher in taught if teacher} | {self.config.judges[judge].model for judge in judges}

    @property
    def attacks_used(self) -> list[str]:
        """The attacks of all benchmarks that some run is tested with."""
        return list(dict.fromkeys(filter(None, (self.config.benchmarks[name].attack for name in self.suite))))

    @cached_property
    def trained(self) -> dict[str, dict]:
        """Every run that trains: reasoning stages and safety runs."""
        return {**self.stages, **{name: run for name, run in self.runs.items() if run["n"]}}

    @cached_property
    def specs(self) -> dict[str, dict]:
        """Every run, trained or not."""
        return {**self.stages, **self.runs}

    def _common(self, run: str, model: str) -> dict:
        entry = self.config.models[model]
        return {"run": run, "model": model, "thinking": entry.thinking.model_dump()}

    def _replicate_of(self, model: str, seed: int) -> dict:
        """The keys of a run that say which replicate of a model it starts from."""
        known = self.replicates[model]
        own = known[seed % len(known)]
        return {"model": own, **({} if own == model else {"replicate_of": model})}

    def _base_runs(self, model: str, seeds: Iterable[int]) -> Iterable[dict]:
        for seed in seeds:
            origin = self._replicate_of(model, seed)
            yield {
                **self._common(f"base--{origin['model']}", origin["model"]), **origin,
                "recipe": "none", "method": "none", "source": "none", "benign": 0, "trainer_name": "none", "n": 0, "seed": 0, "mix": [],
            }  # fmt: skip

    def _stage(self, name: str) -> dict:
        model = self.config.models[name]
        return {
            **self._common(f"reasoning--{name}", model.base),
            "thinking": model.thinking.model_dump(),
            "recipe": "reasoning", "method": "reasoning", "source": model.stage.dataset, "benign": 0,
            "trainer_name": model.stage.trainer, "trainer": self.trainer(model.stage.trainer).model_dump(mode="json", exclude={"extends"}),
            "n": model.stage.n, "seed": model.stage.seed, "dataset": model.stage.dataset, "refinement": None,
            "mix": self._mixed(model.stage.mix, model.stage.n),
            **({"chat_template": model.stage.chat_template} if model.stage.chat_template else {}),
        }  # fmt: skip

    def _mixed(self, mix: list[Mix], n: int) -> list[dict]:
        """How many rows of each mixed-in dataset come to n rows, and whether fewer will do."""
        lax = {True: {"at_most": True}, False: {}}  # no new key in the runs of before
        return [{"dataset": m.dataset, "n": m.n if m.n is not None else max(1, round(m.ratio * n))} | lax[m.at_most] for m in mix]

    def _run(self, model: str, recipe_name: str, trainer_name: str, n: int, seed: int) -> dict:
        recipe = self.recipe(recipe_name)
        mix, refined = self._mixed(recipe.mix, n), recipe.method == "dgr"
        return {
            **self._common(f"{model}--{recipe_name}--{trainer_name}--n{n}--s{seed}", model), **self._replicate_of(model, seed),
            "recipe": recipe_name, "method": recipe.method, "source": recipe.source or recipe.dataset, "benign": sum(m["n"] for m in mix),
            "trainer_name": trainer_name, "trainer": self.trainer(trainer_name).model_dump(mode="json", exclude={"extends"}),
            "n": n, "seed": seed, "dataset": recipe.dataset, "mix": mix,
            "refinement": recipe.refinement if refined else None,
            **({"refinement_settings": self.config.refinements[recipe.refinement].model_dump(mode="json")} if refined else {}),
        }  # fmt: skip

    # ---- what each command is told ------------------------------------------------------------------------------

    @cached_property
    def gpus(self) -> int:
        """GPUs of one job that runs a model."""
        return int(has_gpu()) if self.config.compute.gpus == "auto" else self.config.compute.gpus

    @property
    def train_gpus(self) -> int:
        return self.gpus if self.config.compute.train_gpus is None or not self.gpus else self.config.compute.train_gpus

    def engine_spec(self, model: str) -> dict:
        """The engine for a model (see `engine.open_engine`)."""
        compute, entry = self.config.compute, self.config.models[model]
        told = {"backend": compute.engine, "dtype": entry.dtype, "batch_size": compute.batch_size, "max_model_len": entry.context}
        return told | compute.vllm.model_dump(exclude_none=True)

    def attack_spec(self, benchmark: str, run: str | None = None) -> dict:
        """What `attack` is told: models and sizes of a benchmark's attack, and how many rows are asked; with `run`, the target."""
        entry = self.config.benchmarks[benchmark]
        attack = self.config.attacks[entry.attack]
        sizes = ("streams", "iterations", "keep_last_n", "attempts") if attack.kind == "pair" else ()
        told = {"attack": attack.kind, "name": entry.attack, "seed": attack.seed, "limit": entry.limit}
        told |= {key: value for key in (*sizes, "fields", "techniques", "templates") if (value := getattr(attack, key))}
        told |= {role: self._attack_model(asked) for role in ("attacker", "judge") if (asked := getattr(attack, role))}
        if run is None:
            return told
        model = self.runs[run]["model"]
        target = {
            "engine": self.engine_spec(model),
            "thinking": self.config.models[model].thinking.model_dump(),
            "trace": attack.target.trace,
        }
        return told | {"target": target | _sampled(attack.target.sampling)}

    def _attack_model(self, asked: AttackModel) -> dict:
        """What a model of an attack is told, and how it marks its own trace where it has one; or the phrases that stand for it."""
        if asked.phrases is not None:
            return {"phrases": asked.phrases}
        told = {"engine": self.asked_engine(asked.model, asked.engine), "prompt": asked.prompt}
        told |= asked.model_dump(include={"system_role", "reply"})
        thinking = {"thinking": self.config.models[asked.model].thinking.model_dump()} if asked.model else {}
        return told | thinking | _sampled(asked.sampling)

    def asked_engine(self, model: str | None, engine: JudgeEngine) -> dict:
        """The engine of what asks a model of this study, or one at a server; empty for what asks none."""
        return {**(self.engine_spec(model) if model else {}), **engine.model_dump(exclude_none=True, exclude={"price"})}

    def row_judge_spec(self, dataset: str, judge: str) -> dict:
        """What `judge_rows` is told: the judge, and whose rows they are."""
        return {**self.judge_spec(judge), "benchmarks": [dataset], "dataset": dataset}

    def filter_spec(self, name: str) -> dict:
        """What `filter` is told: the filters in their order, whose labels are counted, and how many rows are drawn."""
        entry = self.config.datasets[name]
        return {"dataset": name, **entry.model_dump(include={"filters", "patterns", "limit", "seed"})}

    def dataset_spec(self, name: str) -> dict:
        """What `prepare_dataset` is told; with a teacher, the prompts that it is asked."""
        entry = self.config.datasets[name]
        spec = entry.model_dump(exclude={"assets", "teacher", "of", "filters", "patterns"})
        if str(entry.options.get("template")).startswith(UPSTREAM):
            asset, file = UPSTREAM_LIVECODEBENCH
            spec["options"] = {**entry.options, "template": f"{Path(self.asset(asset)).parent}/{file}"}
        return spec | ({"limit": entry.teacher.candidates or entry.limit} if entry.teacher else {})

    def teacher_spec(self, dataset: str) -> dict:
        """What `distil` is told: engine and thinking format of the teacher, sampling, and how many rows are wanted."""
        entry = self.config.datasets[dataset]
        model = entry.teacher.model
        asked = entry.teacher.model_dump(exclude={"model", "engine", "candidates", "thinking", "needs_trace", "check"})
        asked |= {field: value for field in ("needs_trace", "check") if (value := getattr(entry.teacher, field))}
        thinking = entry.teacher.thinking or (self.config.models[model].thinking if model else Thinking())
        engine = self.asked_engine(model, entry.teacher.engine)
        return {**asked, "dataset": dataset, "limit": entry.limit, "thinking": thinking.model_dump(), "engine": engine}

    def model_spec(self, name: str) -> dict:
        entry = self.config.models[name]
        return {"kind": entry.kind, "dtype": entry.dtype, **entry.options}

    def refinement_spec(self, dataset: str, model: str, refinement: str) -> dict:
        """What `refine` is told: the filters, and the format in which the target thinks."""
        entry = self.config.refinements[refinement].model_dump(exclude={"sampling", "seed"})
        return {**entry, "thinking": self.config.models[model].thinking.model_dump(), "n": self.config.datasets[dataset].limit}

    def rewrite_spec(self, dataset: str, model: str, refinement: str) -> dict:
        """What `rewrite` is told: what the target is asked, and its engine."""
        thinking = self.config.models[model].thinking.model_dump()
        asked = self._rewriting(refinement)
        return {**asked, "thinking": thinking, "engine": self.engine_spec(model), "n": self.config.datasets[dataset].limit}

    def _rewriting(self, refinement: str) -> dict:
        """The part of a refinement that decides what the target writes."""
        entry = self.config.refinements[refinement]
        prompts = {piece: entry.prompts[piece] for piece in entry.pieces}
        return {**entry.model_dump(include={"pieces", "show_question", "sampling", "seed"}), "prompts": prompts}

    def rewriter(self, dataset: str, model: str, refinement: str) -> str:
        """The first refinement of the study that asks the same of the target: its rewrites serve all of them."""
        asked = self._rewriting(refinement)
        rivals = [name for d, m, name in self.refined if (d, m) == (dataset, model) and self._rewriting(name) == asked]
        return rivals[0] if rivals else refinement

    def evaluation_spec(self, run: str) -> dict:
        """The suite for one run: lm-eval tasks, sampling, thinking format, engine."""
        compute, entry = self.config.compute, self.config.models[self.runs[run]["model"]]
        suite = {name: self.config.benchmarks[name].model_dump(exclude={"dataset", "kind", "attack"}) for name in self.suites[run]}
        vllm = compute.vllm.model_dump(exclude_none=True)
        return {
            "benchmarks": suite,
            "thinking": entry.thinking.model_dump(),
            "engine": compute.engine,
            "dtype": entry.dtype,
            "context": entry.context,
            "batch_size": compute.batch_size,
            "seed": 0,
            **({"vllm": vllm} if vllm else {}),
        }

    def judges_that_ask(self, a_model: bool) -> list[str]:
        """The study's judges that ask a model, or those that look for phrases."""
        from untaxed.judges import JUDGES

        return [name for name in self.config.study.judges if bool(JUDGES[self.config.judges[name].kind].build) == a_model]

    def judge_sampling(self, name: str) -> Sampling:
        """How a judge is sampled: what its entry says, else greedily, with the length of its kind."""
        from untaxed.judges import JUDGES

        judge = self.config.judges[name]
        given = judge.sampling.model_dump(exclude_unset=True) if judge.sampling else {}
        return Sampling(**{"max_new_tokens": JUDGES[judge.kind].max_new_tokens, **given})

    def judge_spec(self, name: str) -> dict:
        from untaxed.judges import JUDGES

        judge = self.config.judges[name]
        engine = self.asked_engine(judge.model, judge.engine)
        if engine and not JUDGES[judge.kind].generates:
            engine["backend"] = "transformers"  # whatever `compute` says: probabilities are read with transformers alone
        told = judge.model_dump(exclude={"model", "agreement", "engine"})
        if (judge.prompt or "").startswith(UPSTREAM):
            _, asset, file = UPSTREAM_JUDGES[judge.prompt.removeprefix(UPSTREAM)]
            told["upstream"] = f"{Path(self.asset(asset)).parent}/{file}"
        return {**told, "sampling": self.judge_sampling(name).model_dump(), "judge": name, "engine": engine or None}

    def shift_spec(self, run: str) -> dict:
        shift, entry = self.config.shift, self.config.models[self.runs[run]["model"]]
        return {
            "thinking": entry.thinking.model_dump(),
            "similarity_benchmarks": shift.benchmarks,
            "similarity_limit": shift.limit,
            "kl_benchmarks": [shift.kl_benchmark],
            "kl_limit": shift.limit,
            "max_length": self.runs[run]["trainer"]["max_length"],
            "dtype": entry.dtype,
        }

    def figure_spec(self, name: str) -> dict:
        entry = self.config.figures[name]
        spec = {**entry.options, "figure": entry.kind, "name": name, "title": entry.title, "caption": entry.caption}
        if entry.kind != "safety_tax_plane":
            return spec
        return spec | {"tuned_from": {key: model.tuned_from for key, model in self.config.models.items() if model.tuned_from}}

    def table_spec(self, name: str) -> dict:
        entry = self.config.tables[name]
        return {**entry.options, "table": entry.kind, "name": name, "title": entry.title, "caption": entry.caption}

    def agreement_judges(self) -> list[str]:
        """Judges that a human-labelled set of this study can measure."""
        if self.config.agreement is None:
            return []
        sets = {label for label in ("refusal", "harm") if getattr(self.config.agreement, label)}
        return [name for name in self.config.study.judges if self.config.judges[name].agreement in sets]

    def agreement_limit(self, judge: str) -> list[str]:
        """Judges that ask a model read a part of the labelled set where the study says so; phrases read all of it."""
        limit = self.config.agreement.limit
        return ["--limit", str(limit)] if limit and self.judge_spec(judge)["engine"] else []

    def labelled(self, judge: str) -> str:
        """The asset that a judge is measured on."""
        return getattr(self.config.agreement, self.config.judges[judge].agreement)

    # ---- paths (relative to the repository root) ----------------------------------------------------------------

    def asset(self, name: str) -> str:
        return f"results/assets/{name}/asset.json"

    def prepared(self, dataset: str) -> str:
        """The rows as prepared: with a teacher, the prompts that it is asked."""
        return f"{self.results}/datasets/{dataset}/rows.jsonl"

    def rows(self, dataset: str) -> str:
        """The rows to train on or to test with."""
        entry = self.config.datasets[dataset]
        folder = "filtered" if entry.of else "distilled" if entry.teacher else "datasets"
        return f"{self.results}/{folder}/{dataset}/rows.jsonl"

    def row_verdicts(self, dataset: str) -> dict[str, str]:
        """The files of verdicts on the source of a drawn dataset, by judge."""
        entry = self.config.datasets[dataset]
        return {judge: f"{self.results}/row_verdicts/{entry.of}/{judge}.jsonl" for judge in self.row_judges_of(entry)}

    def _asks_target(self, benchmark: str) -> bool:
        """Whether the attack of a benchmark asks the model under test, so that every run has prompts of its own."""
        attack = self.config.benchmarks[benchmark].attack
        return attack is not None and self.config.attacks[attack].kind == "pair"

    def benchmark_rows(self, benchmark: str, run: str) -> str:
        """The rows that a run is tested with: as they are, attacked once for all runs, or attacked with this run as the target."""
        entry = self.config.benchmarks[benchmark]
        if entry.attack is None:
            return self.rows(entry.dataset)
        return f"{self.results}/runs/{run}/attacked/{benchmark}/rows.jsonl" if self._asks_target(benchmark) else self.attacked(benchmark)

    def attacked(self, benchmark: str) -> str:
        """The rows of a benchmark whose attack does not ask the model under test; benchmarks that differ in nothing of it share them."""
        told = self.attack_spec(benchmark), self.config.benchmarks[benchmark].dataset
        rivals = [name for name in self.suite if self.config.benchmarks[name].attack and not self._asks_target(name)]
        same = [name for name in rivals if (self.attack_spec(name), self.config.benchmarks[name].dataset) == told]
        return f"{self.results}/attacked/{same[0] if same else benchmark}/rows.jsonl"

    def model(self, name: str) -> str:
        """The manifest beside the weights of a model, whether it was fetched or trained here."""
        if self.config.models[name].base is not None:
            return f"{self.results}/runs/reasoning--{name}/checkpoint/manifest.json"
        return f"{self.results}/models/{name}/manifest.json"

    def checkpoint(self, run: str) -> str:
        """The manifest beside the weights of a run; the base run is the model itself."""
        spec = self.runs.get(run)
        return self.model(spec["model"]) if spec is not None and not spec["n"] else f"{self.results}/runs/{run}/checkpoint/manifest.json"

    def safety_rows(self, run: str) -> list[str]:
        """The file of rows that a run trains on: as they are, or refined by its model; none for the base model."""
        spec = self.specs[run]
        if not spec["n"]:
            return []
        if spec["refinement"] is None:
            return [self.rows(spec["dataset"])]
        return [f"{self.results}/refined/{spec['dataset']}/{spec['model']}/{spec['refinement']}/rows.jsonl"]

    @cached_property
    def refined(self) -> list[tuple[str, str, str]]:
        """(dataset, model, refinement) of everything that is refined."""
        return sorted({(r["dataset"], r["model"], r["refinement"]) for r in self.trained.values() if r["refinement"]})

    def rewrites(self, dataset: str, model: str, refinement: str) -> str:
        return f"{self.results}/rewritten/{dataset}/{model}/{self.rewriter(dataset, model, refinement)}/generations.jsonl"

    def refine_reports(self) -> list[str]:
        return [f"{self.results}/refined/{dataset}/{model}/{refinement}/report.json" for dataset, model, refinement in self.refined]

    def filter_reports(self) -> list[str]:
        """The reports of the filters of all rows that are trained on."""
        return [f"{self.results}/filtered/{name}/report.json" for name in self.datasets_used if self.config.datasets[name].of]

    # ---- parts: what a figure or a table is made of ---------------------------------------------------------------

    def part(self, catalogue: str, name: str) -> str | None:
        """The part of the study that a figure or table shows: its experiments, of those that are selected, joined; None is all of it."""
        named = getattr(self.config, catalogue)[name].experiments
        return "+".join(each for each in named if each in self.config.study.experiments) or None

    def part_of(self, part: str | None) -> "Study":
        """The study with the experiments of a part alone, and with the judges that read what these are tested with; None is all of it."""
        if part is None:
            return self
        if part not in self._parts:
            narrowed = copy.copy(self)
            for name, value in vars(type(self)).items():
                if isinstance(value, cached_property):
                    narrowed.__dict__.pop(name, None)
            for field, value in (("experiments", lambda: part.split("+")), ("judges", lambda: narrowed.judges_asked)):
                selection = narrowed.config.study.model_copy(update={field: value()})
                narrowed.config = narrowed.config.model_copy(update={"study": selection})
            self._parts[part] = narrowed
        return self._parts[part]

    @property
    def judges_asked(self) -> list[str]:
        """The study's judges that read a benchmark which some run is tested with."""
        return [name for name in self.config.study.judges if set(self.config.judges[name].benchmarks) & set(self.suite)]

    def reads(self, catalogue: str, name: str) -> frozenset[str] | None:
        """The kinds of reports that a figure or table is made of; None for one that reads the metrics of its runs."""
        from untaxed import figures, tables

        known = figures.READS if catalogue == "figures" else tables.READS
        return known.get(getattr(self.config, catalogue)[name].kind)

    def sources_of(self, catalogue: str, name: str) -> dict[str, Any]:
        """The files that a figure or table reads: metrics, scores and list of its runs, and reports; empty what it does not."""
        part, reads = self.part(catalogue, name), self.reads(catalogue, name)
        folder, made = (f"{self.results}/parts/{part}" if part else self.results), self.part_of(part)
        runs = {"metrics": f"{folder}/metrics.csv", "scores": f"{folder}/items.parquet", "runs": f"{folder}/runs.txt"}
        reports = {"refine": made.refine_reports(), "agreement": made.agreements(), "filtered": made.filter_reports()}
        unread: dict[str, Any] = {key: [] for key in (*runs, *reports, "pairs", "lengths", "datasets", "distilled")}
        if reads is None:
            return unread | runs | reports
        reports |= {"pairs": self.judge_pairs()} | self._dataset_reports(catalogue, name)
        return unread | {key: value for key, value in reports.items() if key in reads}

    def _dataset_reports(self, catalogue: str, name: str) -> dict[str, list[str]]:
        """The reports on the datasets that a figure or table shows; where a tokenizer counts, its counts are all that is read."""
        if self.reads(catalogue, name).isdisjoint({"filtered", "datasets", "distilled"}):
            return {}
        datasets, catalogued = self.datasets_shown(catalogue, name), self.config.datasets
        if tokenizer := self.tokenizer(catalogue, name):
            return {"lengths": [self.lengths(tokenizer, each) for each in datasets], "filtered": []}
        return {
            "filtered": [f"{self.results}/filtered/{each}/report.json" for each in datasets if catalogued[each].of],
            "datasets": [f"{self.results}/datasets/{each}/report.json" for each in datasets if not catalogued[each].of],
            "distilled": [f"{self.results}/distilled/{each}/report.json" for each in datasets if catalogued[each].teacher],
        }

    def datasets_shown(self, catalogue: str, name: str) -> list[str]:
        """The datasets of a figure or table that reads reports on them: those of its option `datasets` that its part of the study uses.

        The table `data` shows all that are prepared.
        """
        made, entry = self.part_of(self.part(catalogue, name)), getattr(self.config, catalogue)[name]
        named = entry.options.get("datasets")
        if named is None:
            return made.datasets_needed if "datasets" in self.reads(catalogue, name) else made.datasets_used
        return [each for each in made.datasets_used if each in (named.values() if isinstance(named, dict) else named)]

    def tokenizer(self, catalogue: str, name: str) -> str | None:
        """The model whose tokens a table of lengths counts."""
        return getattr(self.config, catalogue)[name].options.get("tokenizer") if "lengths" in (self.reads(catalogue, name) or ()) else None

    def lengths(self, tokenizer: str, dataset: str) -> str:
        return f"{self.results}/lengths/{tokenizer}/{dataset}.json"

    def lengths_spec(self, tokenizer: str, dataset: str) -> dict:
        """What `measure_lengths` is told: the format of the responses, and the filters that rows have to pass."""
        filters = self.config.datasets[dataset].model_dump(include={"filters"})
        return {"dataset": dataset, "tokenizer": tokenizer, "thinking": self.config.models[tokenizer].thinking.model_dump(), **filters}

    def assets_asked(self, targets: Iterable[str]) -> list[str]:
        """The assets that are needed for what is asked by name; all of the study's where something else is asked, or nothing."""
        targets, shown = list(targets), self.shown
        if not targets or not {name for _, name in shown}.issuperset(targets):
            return self.assets_needed
        return sorted({asset for catalogue, name in shown if name in targets for asset in self.assets_of(catalogue, name)})

    def assets_of(self, catalogue: str, name: str) -> list[str]:
        """The assets behind one figure or table."""
        part, reads = self.part_of(self.part(catalogue, name)), self.reads(catalogue, name)
        if reads is None or "refine" in reads:
            return part.assets_needed
        if "pairs" in reads:  # it compares the verdicts on all runs
            return self.assets_needed
        if "agreement" in reads:
            judges = part.agreement_judges()
            return [*self._assets_behind((), {self.config.judges[judge].model for judge in judges}, judges), *map(self.labelled, judges)]
        return self._assets_behind(self.datasets_shown(catalogue, name), {self.tokenizer(catalogue, name)})

    def _assets_behind(self, datasets: Iterable[str], models: set[str | None], judges: Iterable[str] = ()) -> list[str]:
        """The assets that datasets, with the judges of their rows, models and judges are made from."""
        made = self._made_from(models | self._makers(datasets))
        prepared = self._prepared_for({*datasets, *(each for model in made for each in self._staged(model))})
        names = {asset for name in prepared for asset in self.config.datasets[name].assets}
        judges = {*judges, *(judge for name in datasets for judge in self.row_judges_of(self.config.datasets[name]))}
        return sorted((names | {self.config.models[model].asset for model in made} | self._upstream_assets(prepared, judges)) - {None})

    @cached_property
    def shown(self) -> list[tuple[str, str]]:
        """(catalogue, name) of every figure and table of the study."""
        return [(catalogue, name) for catalogue in ("figures", "tables") for name in getattr(self.config.study, catalogue)]

    @cached_property
    def targets(self) -> dict[str, list[str]]:
        """What can be made by name: every figure and table of the study, with its files."""
        found: dict[str, list[str]] = {}
        for name in self.config.study.figures:
            found.setdefault(name, []).append(f"{self.figures}/{name}.pdf")
        for name in self.config.study.tables:
            found.setdefault(name, []).append(f"{self.results}/tables/{name}.csv")
        return found

    def agreements(self) -> list[str]:
        return [f"{self.results}/agreement/{judge}.json" for judge in self.agreement_judges()]

    def judged(self) -> list[str]:
        """The samples of all runs, and the verdicts on them."""
        return [path for path in self.measured() if path.endswith("/samples.jsonl") or "/verdicts/" in path]

    def judge_pairs(self) -> list[str]:
        """The comparison of every two judges, where there are two."""
        return [f"{self.results}/judge_pairs.json"] if len(self.config.study.judges) > 1 else []

    def measured(self) -> list[str]:
        """All per-run files that the metrics are made of."""
        paths = []
        for run, spec in self.runs.items():
            folder = f"{self.results}/runs/{run}"
            paths += [f"{folder}/run.yaml", f"{folder}/samples.jsonl"]
            paths += [f"{folder}/verdicts/{judge}.jsonl" for judge in self.judges_of(run)]
            paths += [f"{folder}/checkpoint/manifest.json"] if spec["n"] else []
            paths += [f"{folder}/shift.json"] if self.shifted(run) else []
        return paths

    @cached_property
    def datasets_used(self) -> list[str]:
        """Every dataset that the selected experiments train on, mixed in or not, and that the benchmarks test with."""
        datasets = {self.config.benchmarks[name].dataset for name in self.suite}
        for spec in self.trained.values():
            datasets |= {spec["dataset"], *(part["dataset"] for part in spec["mix"])}
        return sorted(datasets)

    @cached_property
    def datasets_needed(self) -> list[str]:
        """Every dataset that is prepared: what is used, or what that is drawn from; what these are cleaned against, and so on."""
        return sorted(self._prepared_for(self.datasets_used))

    def _prepared_for(self, datasets: Iterable[str]) -> set[str]:
        """The datasets that are prepared so that these can be used."""
        found: set[str] = set()
        waiting = {self.source(name) for name in datasets}
        while waiting:
            found |= waiting
            waiting = {other for name in waiting for other in self.config.datasets[name].decontaminate_against} - found
        return found

    def dataset_rows(self) -> list[str]:
        """All rows to train on or to test with, as they are, distilled, and refined."""
        refined = [path for run in self.trained for path in self.safety_rows(run)]
        return sorted({*refined, *map(self.rows, self.datasets_used)})

    def dataset_reports(self) -> list[str]:
        return [f"{self.results}/datasets/{name}/report.json" for name in self.datasets_needed]

    def distil_reports(self) -> list[str]:
        return [f"{self.results}/distilled/{name}/report.json" for name in self.datasets_needed if self.config.datasets[name].teacher]

    @cached_property
    def assets_needed(self) -> list[str]:
        """Every asset that the selected experiments, benchmarks, judges and measures use."""
        config, names = self.config, {self.config.shift.encoder} if self.config.shift else set()
        names |= {asset for name in self.datasets_needed for asset in config.datasets[name].assets}
        names |= {config.models[model].asset for model in self.models_needed}
        names |= {self.labelled(judge) for judge in self.agreement_judges()}
        names |= {config.attacks[attack].table for attack in self.attacks_used}
        judges = {*config.study.judges, *(judge for _, judge in self.row_judges)}
        return sorted((names | self._upstream_assets(self.datasets_needed, judges)) - {None})

    def _upstream_assets(self, datasets: Iterable[str], judges: Iterable[str]) -> set[str]:
        """The authors' sources, where a teacher or a prompt of these datasets, or one of these judges, asks in their words."""
        files = [path for name in datasets for path in (*self._told(name), *self.dataset_files(name))]
        files += [path for judge in judges for path in self.judge_files(judge)]
        return {Path(path).parent.name for path in files if path.endswith("/asset.json")}

    # ---- files and machines a rule asks for ---------------------------------------------------------------------

    def asset_rows(self, asset: str) -> int:
        """Rows of all files of an asset, as the lock counts them; 0 where it does not know."""
        return sum(file.get("rows") or 0 for file in self._lock[asset].get("files") or [])

    def asset_bytes(self, asset: str) -> int:
        """Bytes of all files of an asset, as the lock counts them; 0 where it does not know."""
        return sum(file.get("bytes") or 0 for file in self._lock[asset].get("files") or [])

    def asset_unverified(self, asset: str) -> bool:
        """Whether the lock lacks the revision or the checksums of an asset, so that `fetch` refuses it."""
        return bool(self._lock[asset].get("unverified"))

    def empty_keys(self, environ: Mapping[str, str]) -> list[str]:
        """One line for each key of a server that is not in the environment."""
        return [
            f"{place(self.files, key)}: {key}: the environment variable {name} is empty; export the server's key in it"
            for key, name in self.served_keys().items()
            if not environ.get(name)
        ]

    def refusals(self, assets: Iterable[str], environ: Mapping[str, str]) -> list[str]:
        """One line for each asset that `fetch` is certain to refuse: nobody has verified it, or it is gated and no token is there."""
        from untaxed.assets import load_lock

        path, lines = self.root / "assets.lock.yaml", []
        lock = load_lock(path)
        for asset in (lock[name] for name in sorted(set(assets))):
            where = f"assets.lock.yaml: assets.{asset.id}:"
            if asset.unverified:
                token = " (it is gated, so with HF_TOKEN set)" if asset.gated and not environ.get("HF_TOKEN") else ""
                fix = f"run `python scripts/lock_assets.py {asset.id}` with a network{token} and commit the file"
                lines.append(f"{where} is not verified, its revision or checksums are unknown; {fix}")
            elif asset.gated and not environ.get("HF_TOKEN") and not self._on_disk(asset, environ):
                lines.append(f"{where} is gated and HF_TOKEN is empty; accept its licence on the hub and export HF_TOKEN")
        return lines

    def _on_disk(self, asset: Any, environ: Mapping[str, str]) -> bool:
        """Whether a source before the hub has all files of an asset: the mirror folder, or a path of the user's."""
        roots = {"local": self.root, "mirror": Path(environ["UNTAXED_MIRROR"]) if environ.get("UNTAXED_MIRROR") else None}
        for source in asset.sources:
            if source.kind == "hub":
                return False
            root = roots.get(source.kind)
            if root is not None and all((root / source.path_of(file.file)).is_file() for file in asset.files):
                return True
        return False

    def pin(self, asset: str) -> str:
        """A fingerprint of an asset's entry in the lock, so that another pin fetches again."""
        self._asset(asset, "assets")
        return fingerprint(self._lock[asset])

    def dataset_files(self, dataset: str) -> list[str]:
        """The prompt files that a dataset is made with: what builds its answers, and what its prompts are put into."""
        entry = self.config.datasets[dataset]
        template = entry.options.get("template")
        if str(template).startswith(UPSTREAM):
            template = self.asset(UPSTREAM_LIVECODEBENCH[0])
        return [*([f"prompts/{entry.responses}.yaml"] if entry.responses else []), *filter(None, [template])]

    def teacher_files(self, dataset: str) -> list[str]:
        """The prompt file that instructs a dataset's teacher: of this repository, or the release's own (`upstream:<style>`); or none."""
        prompt = self.config.datasets[dataset].teacher.prompt
        if prompt and prompt.startswith(UPSTREAM):
            return [self.asset(UPSTREAM_ASSET)]
        return [prompt] if prompt else []

    def teacher_graders(self, dataset: str) -> list[str]:
        """The graders that a teacher's answers are checked by; answers that are there already are checked anew when these change."""
        return ["benchmarks/grading.py"] if self.config.datasets[dataset].teacher.check else []

    def _told(self, dataset: str) -> list[str]:
        return self.teacher_files(dataset) if self.config.datasets[dataset].teacher else []

    def upstream(self, dataset: str) -> list[str]:
        """The flag with the file of the release's own prompts, for a teacher that is told one of them."""
        found = [f"{Path(path).parent}/template.py" for path in self.teacher_files(dataset) if path == self.asset(UPSTREAM_ASSET)]
        return ["--upstream", *found] if found else []

    def teacher_models(self, dataset: str) -> list[str]:
        """The manifest of a dataset's teacher; none where a server has it."""
        model = self.config.datasets[dataset].teacher.model
        return [self.model(model)] if model else []

    def teacher_threads(self, dataset: str) -> int:
        return self.config.compute.threads if self.teacher_models(dataset) else 1

    def model_assets(self, model: str) -> list[str]:
        asset = self.config.models[model].asset
        return [asset] if asset else []

    def adapter_base(self, model: str) -> list[str]:
        """The manifest of the model that an adapter is merged into; none for a model that is whole."""
        base = self.config.models[model].adapter_on
        return [self.model(base)] if base else []

    def rewrite_files(self, refinement: str) -> list[str]:
        entry = self.config.refinements[refinement]
        return [entry.prompts[piece] for piece in entry.pieces]

    def filter_files(self, refinement: str) -> list[str]:
        entry = self.config.refinements[refinement]
        return [*self.rewrite_files(refinement), entry.meta_thinking, entry.refusal_phrases]

    def attack_files(self, benchmark: str) -> list[str]:
        """The prompt files that a benchmark's attack reads."""
        attack = self.config.attacks[self.config.benchmarks[benchmark].attack]
        asked = [entry.phrases or entry.prompt for entry in (attack.attacker, attack.judge) if entry]
        return [*asked, *filter(None, [attack.techniques, attack.templates])]

    def attack_models(self, benchmark: str) -> dict[str, str]:
        """The manifests of this study's models that a benchmark's attack asks, by role."""
        attack = self.config.attacks[self.config.benchmarks[benchmark].attack]
        asked = {"attacker": attack.attacker, "judge": attack.judge}
        return {role: self.model(entry.model) for role, entry in asked.items() if entry and entry.model}

    def attack_table(self, benchmark: str) -> list[str]:
        table = self.config.attacks[self.config.benchmarks[benchmark].attack].table
        return [self.asset(table)] if table else []

    def attack_memory(self, benchmark: str, run: str | None = None) -> int:
        """Host memory of an attack in MiB: all models that it asks are loaded together."""
        attack = self.config.attacks[self.config.benchmarks[benchmark].attack]
        models = {entry.model for entry in (attack.attacker, attack.judge) if entry} | ({self.runs[run]["model"]} if run else set())
        return min(self.config.compute.mem_mb, sum(self.memory(model, "generate") for model in sorted(filter(None, models))) or 1500)

    def served_keys(self) -> dict[str, str]:
        """The environment variables that hold the keys of servers that this study asks, by the configuration's key that names each."""
        config = self.config
        asked = {f"judges.{name}": config.judges[name].engine for name in [*config.study.judges, *(judge for _, judge in self.row_judges)]}
        for name in self.attacks_used:
            models = {"attacker": config.attacks[name].attacker, "judge": config.attacks[name].judge}
            asked |= {f"attacks.{name}.{role}": entry.engine for role, entry in models.items() if entry}
        taught = {name: config.datasets[name].teacher for name in self.datasets_needed}
        asked |= {f"datasets.{name}.teacher": teacher.engine for name, teacher in taught.items() if teacher}
        return {f"{key}.engine.api_key_env": engine.api_key_env for key, engine in asked.items() if engine.api_key_env}

    def judge_models(self, judge: str) -> list[str]:
        model = self.config.judges[judge].model
        return [self.model(model)] if model else []

    def judge_files(self, judge: str) -> list[str]:
        prompt = self.config.judges[judge].prompt
        if (prompt or "").startswith(UPSTREAM):
            return [self.asset(UPSTREAM_JUDGES[prompt.removeprefix(UPSTREAM)][1])]
        return [prompt] if prompt else []

    def judge_code(self, judge: str) -> list[str]:
        """The code of a judge that looks for phrases, which is cheap to run again when it has changed; of others none."""
        return ["scripts/untaxed/judges.py"] if judge in self.judges_that_ask(False) else []

    def judge_threads(self, judge: str) -> int:
        return self.config.compute.threads if self.config.judges[judge].model else 1

    def train_files(self, run: str) -> list[str]:
        """What a training reads beside its rows and its base."""
        return [template] if (template := self.trained[run].get("chat_template")) else []

    def train_threads(self, run: str) -> int:
        compute = self.config.compute
        return (compute.stage_threads if run in self.stages else None) or compute.threads

    def launcher(self) -> str:
        """How a training starts: plain Python, or accelerate with one process per GPU."""
        return f"accelerate launch --num_processes {self.train_gpus} --mixed_precision no" if self.train_gpus > 1 else "python"

    def memory(self, model: str | None, work: str) -> int:
        """Host memory of a job in MiB: libraries, and the weights as often as the work holds them (fp32 + gradients + Adam in training)."""
        copies = {"convert": 8, "generate": 4, "compare": 8, "train": 20}[work]  # bytes per parameter on a CPU
        parameters = self.config.models[model].parameters if model else 0.0
        processes = max(1, self.train_gpus) if work == "train" else 1
        if processes > 1:
            copies = 4 * processes  # each process loads the weights before they are sharded; the rest lies on the GPUs
        return min(self.config.compute.mem_mb, 1500 * processes + round(parameters * copies / 2**20))

    def judge_memory(self, judge: str) -> int:
        return self.memory(self.config.judges[judge].model, "generate")
