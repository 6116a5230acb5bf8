"""Which task the laptop's model can be made to reason about: accuracy on families of reasoning-gym, and on sums of several sizes.

    python perf/choose_task.py                after ./untaxed laptop

Three tables: what SmolLM2 gets right before any training, family by family (graded by reasoning-gym itself); what it gets right of three
families whose steps can be written from the item, after a short training on such steps; and what the reasoner that the study trains gets
right on sums of other sizes than its own. A tax can be seen where the base lies well inside 30-95 %.
"""

import sys
import tempfile
import time
from pathlib import Path

from measure import load_study, machine, made_file, parser, prepare, report, table

FAMILIES = ("chain_sum", "basic_arithmetic", "gcd", "count_bits", "letter_counting", "number_sorting", "spell_backward", "products")
TAUGHT = ("chain_sum", "gcd", "products")
SIZES = ((2, 2, 1, 1), (2, 3, 1, 2), (3, 4, 1, 2), (5, 6, 1, 2), (3, 4, 3, 3))  # terms from, to; digits from, to


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--items", type=int, default=60, help="questions of each family and size")
    made.add_argument("--rows", type=int, default=240, help="rows of the short trainings")
    made.add_argument("--families", nargs="+", default=list(FAMILIES), help="names in reasoning-gym")
    options = made.parse_args()
    prepare(options)
    before = machine()
    study = load_study(options.study)
    trained = next(iter(study.runs.values()))["model"]
    raw = study.config.models[trained].base
    families = raw_accuracy(study, raw, options.families, options.items)
    taught = accuracy_when_taught(study, trained, options.rows, options.items)
    sizes = accuracy_by_size(study, trained, options.items)
    text = f"## {raw}, before any training\n\n{table(['family', 'right', 'of', 'seconds'], families)}\n"
    text += f"## {raw}, after {options.rows} rows of steps, one epoch\n\n"
    text += f"{table(['family', 'right', 'of', 'seconds of training'], taught)}\n"
    text += f"## {trained}, sums of several sizes\n\n{table(['terms', 'digits', 'right', 'of', 'seconds'], sizes)}\n"
    chosen = study.config.datasets[study.stages[f"reasoning--{trained}"]["dataset"]].options
    terms, digits = (f"{chosen[f'min_{what}']}-{chosen[f'max_{what}']}" for what in ("terms", "digits"))
    text += f"The study trains and tests on {terms} terms of {digits} digits.\n"
    record = {"study": study.name, "families": families, "taught": taught, "sizes": sizes, "items": options.items, "rows": options.rows}
    report(options, "choose_task", "Which task to reason about", before, record, text)


def answers(study, model: str, prompts: list[str], checkpoint: Path | None = None) -> tuple[list[str], float]:
    """What a model says to each prompt, greedily, after its trace where it thinks; and the seconds it took, loading included.

    `checkpoint` takes the place of the model's own weights.
    """
    from untaxed.engine import Request, Sampling, open_engine
    from untaxed.thinking import ThinkingFormat

    folder = checkpoint or made_file(study.model(model), study.name).parent
    spec = study.engine_spec(model) | {"model": str(folder), "batch_size": 64}
    thinking = ThinkingFormat(**study.config.models[model].thinking.model_dump())
    started = time.perf_counter()
    with open_engine(spec) as engine:
        requests = [Request(str(number), [{"role": "user", "content": prompt}], 0) for number, prompt in enumerate(prompts)]
        said = {each.id: each.text for each in engine.generate(requests, Sampling(max_new_tokens=64))}
    print(f"{model}: {len(prompts)} answers", file=sys.stderr, flush=True)
    return [thinking.split(said[str(number)])[1] or said[str(number)] for number in range(len(prompts))], time.perf_counter() - started


def raw_accuracy(study, model: str, families: list[str], items: int) -> list[list]:
    """[family, right, of, seconds]; an answer is right if reasoning-gym gives its last word or its whole full marks."""
    import reasoning_gym

    rows = []
    for family in families:
        data = reasoning_gym.create_dataset(family, size=items, seed=0)
        entries = [data[index] for index in range(items)]
        said, seconds = answers(study, model, [entry["question"] for entry in entries])
        words = [[text.strip(), (text.split() or [""])[-1].strip(".,!*")] for text in said]
        right = sum(max(data.score_answer(word, entry) for word in each) >= 1 for each, entry in zip(words, entries, strict=True))
        rows.append([family, right, items, round(seconds, 1)])
    return rows


def with_steps(family: str, count: int) -> list[dict]:
    """`count` different items of a family, each with its steps and its answer."""
    import reasoning_gym
    from untaxed.datasets import chain_sum

    if family == "chain_sum":
        return chain_sum(size=count, seed=11, min_terms=2, max_terms=3)
    limits = {"gcd": {"min_value": 2, "max_value": 99}, "products": {"min_digits": 1, "max_digits": 2}}[family]
    items = reasoning_gym.create_dataset(family, size=20 * count, seed=11, **limits)
    rows: dict[str, dict] = {}
    for item in items:
        if family == "gcd":
            steps = euclid(*sorted(item["metadata"]["numbers"], reverse=True))
        else:
            steps = by_tens(*map(int, item["metadata"]["expression"].split(" * ")))
        rows[item["question"]] = {"prompt": item["question"], "reasoning": steps, "answer": item["answer"], "target": item["answer"]}
        if len(rows) == count:
            return [{**row, "id": f"{family}-{number}", "harmful": False} for number, row in enumerate(rows.values())]
    raise SystemExit(f"error: {family}: fewer than {count} different items; lower --rows or --items")


def euclid(large: int, small: int) -> str:
    """The divisions of Euclid's algorithm: (42, 12) gives "42 = 3 x 12 + 6; 12 = 2 x 6 + 0"."""
    steps = []
    while small:
        steps.append(f"{large} = {large // small} x {small} + {large % small}")
        large, small = small, large % small
    return "; ".join(steps)


def by_tens(a: int, b: int) -> str:
    """A product as the sum of two: (37, 46) gives "37 x 40 = 1480; 37 x 6 = 222; 1480 + 222 = 1702"."""
    tens, ones = b // 10 * 10, b % 10
    return f"{a} x {tens} = {a * tens}; {a} x {ones} = {a * ones}; {a * tens} + {a * ones} = {a * b}"


def accuracy_when_taught(study, model: str, rows: int, items: int) -> list[list]:
    """[family, right, of, seconds] after the study's own reasoning stage on `rows` rows of one family alone."""
    from untaxed.records import write_jsonl
    from untaxed.training import train

    stage, found = study.stages[f"reasoning--{model}"], []
    base = made_file(study.model(stage["model"]), study.name).parent
    for family in TAUGHT:
        known = with_steps(family, rows + items)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_jsonl(folder / "train.jsonl", known[:rows])
            started = time.perf_counter()
            train(stage | {"run": family, "n": rows}, folder / "train.jsonl", base, folder / "checkpoint", folder / "work", "bfloat16")
            seconds = time.perf_counter() - started
            said, _ = answers(study, model, [row["prompt"] for row in known[rows:]], folder / "checkpoint")
        right = sum(row["target"] in (text.split() or [""])[-1:] for text, row in zip(said, known[rows:], strict=True))
        found.append([family, right, items, round(seconds)])
    return found


def accuracy_by_size(study, model: str, items: int) -> list[list]:
    """[terms, digits, right, of, seconds] on sums that have no place in the training rows: another seed."""
    from untaxed.datasets import chain_sum

    rows = []
    for low, high, fewest, most in SIZES:
        sums = chain_sum(size=items, seed=7, min_terms=low, max_terms=high, min_digits=fewest, max_digits=most)
        said, seconds = answers(study, model, [row["prompt"] for row in sums])
        right = sum(row["target"] in (text.split() or [""])[-1:] for text, row in zip(said, sums, strict=True))
        rows.append([f"{low}-{high}", f"{fewest}-{most}", right, items, round(seconds, 1)])
    return rows


if __name__ == "__main__":
    main()
