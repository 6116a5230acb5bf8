"""What a configuration may say: the typed keys of config.yaml and its overlays, and their JSON schema."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _number(value: Any) -> Any:
    """YAML 1.1 reads `5e-5` as text; people mean the number."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9.]+[eE][+-]?[0-9]+", value):
        return float(value)
    return value


Number = Annotated[float, BeforeValidator(_number)]
Positive = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, BeforeValidator(_number), Field(ge=0, le=1)]
Words = list[str]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Thinking(Strict):
    """Markers around the reasoning trace of a model (see `thinking.ThinkingFormat`)."""

    open: str = "<think>\n"
    close: str = "\n</think>\n\n"


class Sampling(Strict):
    """How text is generated; temperature 0 is greedy."""

    temperature: Annotated[float, BeforeValidator(_number), Field(ge=0)] = 0.0
    top_p: Share = 1.0
    max_new_tokens: Count = 1024


class Price(Strict):
    """What a server charges, in USD per million tokens: `input` for prompts, `output` for what it generates (its thoughts too)."""

    input: Annotated[float, BeforeValidator(_number), Field(ge=0)]
    output: Annotated[float, BeforeValidator(_number), Field(ge=0)]


class JudgeEngine(Strict):
    """What the answers of a judge, a teacher or an attack's model come from, where it is not as `compute` says; see `engine.open_engine`.

    A server with OpenAI's interface: `backend: openai`, `base_url` (up to and with /v1), `model` (its name there), `api_key_env` (the
    environment variable that holds the key). A model that runs here keeps `backend`, `dtype`, `batch_size`, `max_model_len`;
    `backend: serve` asks it through a vLLM server that the job starts and stops. `max_total_tokens` caps what all calls of a job may use,
    prompt and generated, over all its restarts; a server on another machine needs one. `price` is for the budget alone: nobody has
    stated one here, because prices change.
    """

    backend: Literal["auto", "transformers", "vllm", "serve", "openai"] | None = None
    dtype: Literal["bfloat16", "float32", "float16"] | None = None
    batch_size: Count | None = None
    max_model_len: Count | None = None
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    concurrency: Count | None = None
    tries: Count | None = None
    timeout_s: Positive | None = None
    start_timeout_s: Positive | None = None
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    max_total_tokens: Count | None = None
    price: Price | None = None
    send_seed: bool | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = None
    extra_body: dict[str, Any] | None = None


class Teacher(Strict):
    """A model that answers the prompts of a dataset; its traces and answers become the rows (see `distillation`).

    `candidates` prompts are asked, so that the dataset's `limit` of rows is left when some answers cannot be used. `prompt` is a file
    with an instruction: it stands before the query in the user's turn (`delivery: user`), or is a system message. `thinking` says how
    the teacher marks its trace where the instruction decides that, not the model (default: the model's own).
    The teacher is a `model` of this study, or one at a server (`engine.model`). With `needs_trace` an answer without one is no row: some
    servers keep their model's thoughts to themselves. `check: math` keeps a row only where the teacher's final answer equals the row's
    own target, by the grader of benchmarks/math.yaml.
    """

    model: str | None = None
    engine: JudgeEngine = JudgeEngine()
    prompt: str | None = None
    delivery: Literal["user", "system"] = "user"
    thinking: Thinking | None = None
    candidates: Count | None = None
    sampling: Sampling = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=1024)
    truncated: Literal["drop", "trim"] = "drop"
    needs_trace: bool = False
    check: Literal["math"] | None = None
    seed: int = 0


Pattern = Literal[
    "lack_of_safety_awareness", "overthinking", "strong_vacillation", "weak_vacillation", "harmful_additions", "inconsistency"
]


class Filter(Strict):
    """Which rows a judge leaves: those with a verdict in `keep`, or those whose labels (risky patterns) are all in `allow`.

    A row whose verdict is unparseable goes, whatever the filter says.
    """

    judge: str
    keep: list[Literal["safe", "unsafe", "refusal", "compliance", "partial"]] | None = None
    allow: list[Pattern] | None = None


class Dataset(Strict):
    """Rows {id, prompt, reasoning, answer, harmful, category, source} made from raw assets or by a generator (`adapter`), or drawn from
    another dataset (`of`).

    `of` takes the rows of a dataset as its teacher left them, so that several sets share one distillation; `filters` choose among them
    and `limit` of those left are drawn by `seed`. `patterns` names the judge whose labels are counted before and after the filters.
    """

    adapter: str | None = None
    of: str | None = None
    filters: list[Filter] = []
    patterns: str | None = None
    assets: Words = []
    options: dict[str, Any] = {}
    responses: str | None = None
    limit: Count | None = None
    seed: int = 0
    decontaminate_against: Words = []
    teacher: Teacher | None = None


class Mix(Strict):
    """Rows added to a training set: a number, or a ratio of its own rows. With `at_most` fewer will do, where a teacher lost some."""

    dataset: str
    n: Count | None = None
    at_most: bool = False
    ratio: Positive | None = None


class Stage(Strict):
    """The reasoning stage that makes a model from its base: which rows, how many, what is mixed in, which trainer.

    `replicates` trains it that many times, with `seed`, `seed` + 1 and so on: a run starts from the replicate of its own seed (modulo their
    number), and intervals draw replicates too. `chat_template`, a Jinja file, is what the model is trained and asked
    with (default: its base's).
    """

    dataset: str
    n: Count
    trainer: str
    chat_template: str | None = None
    seed: int = 0
    replicates: Count = 1
    mix: list[Mix] = []


class Model(Strict):
    """A model from outside (`kind`, `asset`) or one that this study trains (`base`, `stage`).

    `organism` and `random` need no asset. A random model has the architecture of another and has learnt nothing: it shows that the code
    which asks the other runs, and what it says means nothing (`models.prepare` has its options). `tuned_from` is the model that someone
    else made a model from outside of: the main figure draws it against that one, where both are tested. `adapter_on` says that a
    folder is a LoRA adapter, and names the model that it is merged into.
    """

    kind: Literal["gguf", "folder", "organism", "random"] | None = None
    asset: str | None = None
    adapter_on: str | None = None
    options: dict[str, Any] = {}
    tuned_from: str | None = None
    base: str | None = None
    stage: Stage | None = None
    parameters: Positive
    thinking: Thinking = Thinking()
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    context: Count = 2048


class Trainer(Strict):
    """Hyper-parameters of supervised fine-tuning; `extends` starts from another trainer."""

    extends: str | None = None
    learning_rate: Positive = 5e-5
    epochs: Positive = 5.0
    steps: Count | None = None  # in place of epochs: optimiser steps, the same for every n
    batch_size: Count = 8
    micro_batch_size: Count | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    weight_decay: Annotated[float, BeforeValidator(_number), Field(ge=0)] = 1e-4
    betas: tuple[float, float] = Field(default=(0.9, 0.95), strict=False)
    max_grad_norm: Positive = 1.0
    max_length: Count = 32768
    loss_on: Literal["completion", "all"] = "completion"
    packing: bool = True
    precision: Literal["bf16-mixed", "float32", "bf16"] = "bf16-mixed"
    gradient_checkpointing: bool = False
    lora_rank: Count | None = None
    checkpoint_minutes: Positive = 10.0
    checkpoint_steps: Count | None = None
    sharding: Literal["none", "fsdp"] = "none"


class Refinement(Strict):
    """How the target model rewrites the safety data (DGR, Eq. 3): prompts, filters, fallback, sampling.

    Without `show_question` the target is asked to rewrite a piece without the question that it answers.
    """

    pieces: Annotated[list[Literal["reasoning", "answer"]], Field(min_length=1)] = ["reasoning", "answer"]
    filters: list[Literal["overthinking", "meta-thinking", "lost-refusal"]] = ["overthinking", "meta-thinking"]
    fallback: Literal["original", "drop"] = "original"
    prompts: dict[Literal["reasoning", "answer"], str] = {"reasoning": "prompts/dgr_reasoning.txt", "answer": "prompts/dgr_answer.txt"}
    show_question: bool = True
    meta_thinking: str = "prompts/meta_thinking.yaml"
    refusal_phrases: str = "prompts/refusal_phrases.yaml"
    sampling: Sampling = Sampling(temperature=0.6, top_p=0.95, max_new_tokens=5000)
    seed: int = 0


class Recipe(Strict):
    """How a training set is made: source rows, as they are (vanilla) or rewritten by the target (dgr), and what is mixed in."""

    extends: str | None = None
    source: str | None = None
    dataset: str | None = None
    method: Literal["vanilla", "dgr"] = "vanilla"
    refinement: str | None = None
    mix: list[Mix] = []


class Experiment(Strict):
    """A grid of runs for one figure or table: models x recipes x trainers x n x seeds.

    With `n: [0]` alone the models are evaluated as they are, without recipes or trainers. `suite` is what its runs are tested with
    (default: `study.suite`); a run that several experiments share is tested with what all of them name.
    """

    models: Words
    recipes: Words = []
    trainers: Words = []
    n: list[Annotated[int, Field(ge=0)]]
    seeds: list[int] = [0]
    suite: Words = []


class Benchmark(Strict):
    """An lm-eval task file over the rows of a dataset, their prompts changed by an attack or not."""

    task: str
    dataset: str
    kind: Literal["reasoning", "harmful", "benign"]
    attack: str | None = None
    limit: Count | None = None
    sampling: Sampling = Sampling()
    repeats: Count = 1


class View(Strict):
    """What a judge is shown of a sample: its prompt before or after an attack changed it, its final answer alone or after the trace."""

    prompt: Literal["original", "attacked"] = "original"
    trace: bool = False


class Judge(Strict):
    """What reads the samples of some benchmarks and gives verdicts. One that asks a model has `model` (of this study) or `engine.model`.

    What `sampling` does not say is greedy, with the length of the judge's kind. `version` is the user's own: another one says that
    verdicts are not to be compared; it stands in every verdict, as `sees` does.
    """

    kind: Literal[
        "string_match",
        "xstest_string_match",
        "strongreject_rubric",
        "strongreject_finetuned",
        "xstest_classes",
        "xstest_two_classes",
        "llama_guard",
        "llama_guard_first_token",
        "harmbench_classifier",
        "reasoning_shield",
        "beaver_dam",
        "risky_patterns",
    ]
    benchmarks: Words
    model: str | None = None
    engine: JudgeEngine = JudgeEngine()
    prompt: str | None = None
    version: Annotated[str, Field(min_length=1)] = "1"
    sees: View = View()
    options: dict[str, Any] = {}
    sampling: Sampling | None = None
    agreement: Literal["refusal", "harm", "none"] = "refusal"


class AttackModel(Strict):
    """A model that an attack asks: one of this study (`model`), or one at a server (`engine.model`), with its prompt file.

    What `sampling` does not say is as in arXiv 2505.15404 (`attacks.SAMPLING`). `system_role: false` is for a chat template without a
    system turn: its text then opens the first turn of the user. `reply: text` takes the whole reply of an attacker as its prompt, for
    models too small to write JSON. A judge may be a file of refusal `phrases` in place of a model and its prompt.
    """

    model: str | None = None
    engine: JudgeEngine = JudgeEngine()
    prompt: str | None = None
    phrases: str | None = None
    sampling: Sampling | None = None
    system_role: bool = True
    reply: Literal["json", "text"] = "json"


class Target(Strict):
    """How the attacked model answers while it is attacked; `trace`: attacker and judge see its trace too."""

    sampling: Sampling | None = None
    trace: bool = True


class Attack(Strict):
    """What changes the prompts of a benchmark before a model is tested with them (see `attacks`).

    pap-static   attacked prompts from a published `table` (an asset), found by the original; `fields` are its own names of
                 {prompt, attacked, technique}
    pap-templates  the prompt put into a text of the file `templates` that persuades by one technique
    pap-generated  the attacker paraphrases by a technique of the file `techniques`
    pair         the attacker mends its prompt by the target's answer and a judge's score; anew for every run, whose model is the target
    """

    kind: Literal["pap-static", "pap-templates", "pap-generated", "pair"]
    attacker: AttackModel | None = None
    judge: AttackModel | None = None
    target: Target = Target()
    table: str | None = None
    fields: dict[Literal["prompt", "attacked", "technique"], str] = {}
    techniques: str | None = None
    templates: str | None = None
    streams: Count = 5
    iterations: Count = 5
    keep_last_n: Count = 3
    attempts: Count = 3
    seed: int = 0


class Agreement(Strict):
    """The human-labelled sets that judges are measured on: one labelled for refusal, one for harm.

    `limit` is for judges that ask a model: phrases read all rows.
    """

    refusal: str
    harm: str | None = None
    limit: Count | None = None


class Shift(Strict):
    """Distribution shift between base and run: encoder asset, benchmarks compared, the one whose generations give the KL, items of each."""

    encoder: str
    benchmarks: Words
    kl_benchmark: str
    limit: Count = 64


class Figure(Strict):
    """A figure of all runs, or of those of some `experiments`: then it needs no others, and `snakemake <its name>` makes it alone.

    Experiments that a study does not select do not count, so that an overlay need not name its own; where none is left, it shows all runs.
    """

    kind: str
    title: str
    caption: str
    experiments: Words = []
    options: dict[str, Any] = {}


class Table(Strict):
    """A table of all runs, or of those of some `experiments`, as `Figure`."""

    kind: str
    title: str = ""
    caption: str
    experiments: Words = []
    options: dict[str, Any] = {}


class Throughput(Strict):
    """Tokens per second of one GPU (of one job where there is none): stated, not measured by the budget.

    With `parameters` they are those of a model of that size, and other models take time in proportion to theirs.
    """

    generate: Positive
    prefill: Positive
    train: Positive
    parameters: Positive | None = None


class Tokens(Strict):
    """Mean tokens of a row; `rows` where neither a limit nor the lock tells how many a dataset has."""

    rows: Count | None = None
    prompt: Count = 60
    reasoning: Annotated[int, Field(ge=0)] = 300
    answer: Annotated[int, Field(ge=0)] = 150


class Assumptions(Strict):
    """Mean tokens, for the budget alone: rows by dataset, generations by benchmark (else its `max_new_tokens`), rewritten pieces."""

    datasets: dict[str, Tokens] = {}
    generated: dict[str, Count] = {}
    rewritten: Tokens = Tokens()


class Vllm(Strict):
    """Settings of vLLM, for all that it generates, benchmarks too; what is not said is vLLM's own default (`kv_cache_gib`: CPU only, 2)."""

    enforce_eager: bool | None = None
    kv_cache_gib: Count | None = None
    gpu_memory_utilization: Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)] | None = None
    tensor_parallel_size: Count | None = None


class Compute(Strict):
    """What one job gets. `gpus: auto` asks for one GPU where the machine that plans has one.

    `stage_threads` (default: `threads`) is for a reasoning stage, for which everything waits: it may take all cores where later jobs lie
    side by side with fewer.
    """

    threads: Count = 2
    stage_threads: Count | None = None
    gpus: Literal["auto"] | Annotated[int, Field(ge=0)] = "auto"
    train_gpus: Annotated[int, Field(ge=0)] | None = None
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    vllm: Vllm = Vllm()
    batch_size: Count = 32
    mem_mb: Count = 6000
    runtime: Count = 240
    resume_evaluation: bool = False
    tokens_per_second: Throughput | None = None
    tokens: Assumptions = Assumptions()
    start_seconds: Annotated[float, BeforeValidator(_number), Field(ge=0)] = 10.0
    hardware: str = "one CPU"


class Selection(Strict):
    """What this study runs, by name. A `stand_in` has models and data that stand in for the papers': its claims say so."""

    name: str
    title: str
    stand_in: bool = False
    experiments: Words
    suite: Words
    judges: Words
    figures: Words
    tables: Words


class Config(Strict):
    """The whole configuration. Catalogues are keyed by name; `study` says what of them runs."""

    study: Selection
    compute: Compute = Compute()
    datasets: dict[str, Dataset] = {}
    models: dict[str, Model] = {}
    trainers: dict[str, Trainer] = {}
    refinements: dict[str, Refinement] = {}
    recipes: dict[str, Recipe] = {}
    experiments: dict[str, Experiment] = {}
    benchmarks: dict[str, Benchmark] = {}
    attacks: dict[str, Attack] = {}
    judges: dict[str, Judge] = {}
    agreement: Agreement | None = None
    shift: Shift | None  # null: no run's shift is measured
    figures: dict[str, Figure] = {}
    tables: dict[str, Table] = {}


def schema() -> dict:
    """The JSON schema for editors (rules/schemas/config.schema.json); an overlay gives any part, so no key is required."""

    def optional(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: optional(value) for key, value in part.items() if not (key == "required" and isinstance(value, list))}
        return [optional(value) for value in part] if isinstance(part, list) else part

    return optional(Config.model_json_schema())
