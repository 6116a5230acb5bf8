"""Which task the laptop's model can be made to reason about: accuracy on families of reasoning-gym, and on sums of several sizes.

    python perf/choose_task.py                after ./untaxed laptop

Two tables: what SmolLM2 gets right before any training, family by family (graded by reasoning-gym itself), and what the reasoner that the
study trains gets right on sums of other sizes than its own. A tax can be seen where the base lies well inside 30-95 %.
"""

import sys
import time

from measure import load_study, machine, made_file, parser, prepare, report, table

FAMILIES = ("chain_sum", "basic_arithmetic", "gcd", "count_bits", "letter_counting", "number_sorting", "spell_backward", "products")
SIZES = ((2, 2, 1, 1), (2, 3, 1, 2), (3, 4, 1, 2), (5, 6, 1, 2), (3, 4, 3, 3))  # terms from, to; digits from, to


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--items", type=int, default=60, help="questions of each family and size")
    made.add_argument("--families", nargs="+", default=list(FAMILIES), help="names in reasoning-gym")
    options = made.parse_args()
    prepare(options)
    before = machine()
    study = load_study(options.study)
    trained = next(iter(study.runs.values()))["model"]
    raw = study.config.models[trained].base
    families = raw_accuracy(study, raw, options.families, options.items)
    sizes = accuracy_by_size(study, trained, options.items)
    text = f"## {raw}, before any training\n\n{table(['family', 'right', 'of', 'seconds'], families)}\n"
    text += f"## {trained}, sums of several sizes\n\n{table(['terms', 'digits', 'right', 'of', 'seconds'], sizes)}\n"
    chosen = study.config.datasets[study.stages[f"reasoning--{trained}"]["dataset"]].options
    terms, digits = (f"{chosen[f'min_{what}']}-{chosen[f'max_{what}']}" for what in ("terms", "digits"))
    text += f"The study trains and tests on {terms} terms of {digits} digits. Why sums: no family is near 30 % before training, so a\n"
    text += "model has to be trained on traces, and those of a sum can be written from its item, step by step. Only sums were measured\n"
    text += "after training.\n"
    record = {"study": study.name, "families": families, "sizes": sizes, "items": options.items}
    report(options, "choose_task", "Which task to reason about", before, record, text)


def answers(study, model: str, prompts: list[str]) -> tuple[list[str], float]:
    """What a model says to each prompt, greedily, after its trace where it thinks; and the seconds it took, loading included."""
    from untaxed.engine import Request, Sampling, open_engine
    from untaxed.thinking import ThinkingFormat

    folder = made_file(study.model(model), study.name).parent
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
