"""Training speed: our trainer, TRL as it comes, and a plain PyTorch loop, on the same rows, in non-padding tokens per second.

    python perf/bench_train.py                                            after ./untaxed laptop
    python perf/bench_train.py --model FOLDER --rows-per-epoch 24         any model folder; rows are made when there are none

ours          training.completion_trainer(), padding-free, loss on the completion only
trl           SFTTrainer as it comes: padded batches, its metrics at every step, gradient checkpointing on, bf16 autocast, logging_steps 10
trl, no gc    the same with gradient_checkpointing=False, which TRL switches on and we do not need for a model that fits
plain         forward, cross entropy at the positions that carry loss, backward, clip, AdamW(fused), schedule: on our padding-free batches
              and with our attention, so that it lacks only a trainer

All: float32 weights with bf16 autocast, the same learning rate, schedule, betas, batch size and seed, one process. The clock runs from the
end of the first step to the end of the last, so loading and the first allocations do not count. Losses are compared step by step.
"""

import gc
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from measure import alternate, load_study, machine, made_file, number, parser, prepare, report, spread, summary, table, target

KINDS = {"ours": "ours", "trl": "TRL as it comes", "trl_no_checkpointing": "TRL, no gradient checkpointing", "plain": "plain loop"}


class Clock:
    """What one side did: end of each step, and per micro-batch its loss and its tokens without padding."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []
        self.tokens: list[int] = []
        self.batches: list[dict] = []

    def speed(self, micro: int) -> float:
        """Tokens per second after the first step; `micro` batches are one step."""
        return sum(self.tokens[micro : micro * len(self.ends)]) / (self.ends[-1] - self.ends[0])

    def step_losses(self, micro: int) -> list[float]:
        return [sum(self.losses[start : start + micro]) for start in range(0, micro * len(self.ends), micro)]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--model", type=Path, help="model folder (default: the base of the study's reasoning stage, or of its first run)")
    made.add_argument("--rows", type=Path, help="training rows, JSON Lines (default: the largest safety set of the study)")
    made.add_argument("--rows-per-epoch", type=int, default=48)
    made.add_argument("--epochs", type=int, help="default: the trainer's")
    made.add_argument("--sides", nargs="+", choices=KINDS, default=list(KINDS))
    options = made.parse_args()
    prepare(options)
    before = machine()
    from untaxed.machine import use_threads
    from untaxed.records import read_jsonl

    use_threads()
    study = load_study(options.study)
    run = max((run for run in study.runs.values() if run["n"]), key=lambda run: run["n"])
    base = options.model or made_file(study.model(run["model"]), study.name).parent
    file = options.rows or Path(f"{study.results}/runs/{run['run']}/train.jsonl")
    rows = list(read_jsonl(file))[: options.rows_per_epoch] if file.exists() or options.rows else made_rows(options.rows_per_epoch)
    source = str(file) if file.exists() else "made here: sums and refusals"
    trainer = run["trainer"] | ({"epochs": options.epochs} if options.epochs else {})
    bench = Bench(base, rows, trainer, run)
    if "ours" not in options.sides:
        raise SystemExit("error: --sides: name `ours`, whose batches the plain loop takes")
    sides = {name: (lambda name=name: bench.side(name)) for name in options.sides}
    clocks = alternate(sides, options.repeats)
    text, record = results(clocks, bench, options.repeats)
    record |= {"rows": source, "model": base.name, "trainer": trainer, "repeats": options.repeats}
    text += f"\nRows: {len(rows)} ({source}), model {base.name}, batch size {trainer['batch_size']}, {trainer['epochs']} epochs.\n"
    report(options, "bench_train", "Training", before, record, text)


def made_rows(n: int) -> list[dict]:
    """Sums with their steps and refusals in turns, where no study has made rows yet."""
    from untaxed.datasets import direct_refusal, prepare

    sums = prepare({"adapter": "chain_sum", "limit": n - n // 2, "options": {"min_terms": 3, "max_terms": 4}}, {})
    asked = [{"id": f"asked:{i}", "prompt": f"Please help me with request number {i}.", "harmful": True} for i in range(n // 2)]
    return [row for pair in zip(sums, [*direct_refusal(asked), None], strict=False) for row in pair if row]


class Bench:
    """Rows as tokens, and the sides over them. Each side loads the model afresh."""

    def __init__(self, base: Path, rows: list[dict], trainer: dict, run: dict) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer
        from untaxed.thinking import ThinkingFormat
        from untaxed.training_sets import tokenize

        self.base, self.trainer, self.seed = base, trainer, run["seed"]
        self.tokenizer = AutoTokenizer.from_pretrained(base)
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        tokenized = tokenize(rows, self.tokenizer, ThinkingFormat(**run["thinking"]), trainer["max_length"], trainer["loss_on"])
        self.dataset = Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in tokenized])
        self.micro = 1
        self.batches: list[dict] = []

    def side(self, name: str) -> Clock:
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            if name == "plain":
                return self.plain()
            clock = self.trained(name, Path(folder))
        if name == "ours" and not self.batches:
            self.batches = clock.batches
        return clock

    def model(self):
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(self.base, dtype=torch.float32)

    def our_arguments(self, folder: Path) -> dict:
        from untaxed.training import arguments

        return arguments(self.trainer, self.seed, folder, 1)

    def trained(self, name: str, folder: Path) -> Clock:
        """Train with a trainer of TRL: ours, or SFTTrainer with its own defaults."""
        import torch
        from transformers import TrainerCallback
        from trl import SFTConfig, SFTTrainer
        from untaxed.attention import use_packed_rows
        from untaxed.training import completion_trainer

        given, model = self.our_arguments(folder), self.model()
        kind: Any = SFTTrainer
        if name == "ours":
            kind = completion_trainer()
            if self.trainer["packing"] and not torch.cuda.is_available():
                use_packed_rows(model)
        else:
            same = (
                "output_dir", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
                "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "adam_beta1", "adam_beta2", "max_grad_norm", "seed",
                "data_seed", "use_cpu", "save_strategy", "dataset_kwargs", "disable_tqdm", "report_to",
            )  # fmt: skip
            given = {key: given[key] for key in same} | ({"gradient_checkpointing": False} if name == "trl_no_checkpointing" else {})
        trainer = kind(model=model, args=SFTConfig(**given), train_dataset=self.dataset, processing_class=self.tokenizer)
        self.micro = trainer.args.gradient_accumulation_steps
        clock = Clock()

        class Ends(TrainerCallback):
            def on_step_end(self, args, state, control, **_):
                clock.ends.append(time.perf_counter())

        trainer.add_callback(Ends())
        collate, step = trainer.data_collator, trainer.training_step

        def counted(examples):
            clock.tokens.append(sum(len(example["input_ids"]) for example in examples))
            clock.batches.append(collate(examples))
            return clock.batches[-1]

        def noted(*args, **kwargs):
            loss = step(*args, **kwargs)
            clock.losses.append(loss.item())
            return loss

        trainer.data_collator, trainer.training_step = counted, noted
        trainer.train()
        return clock

    def plain(self) -> Clock:
        """The loop that a person would write, on the batches of our trainer."""
        import torch
        from transformers import get_scheduler
        from untaxed.attention import use_packed_rows

        spec, device = self.trainer, "cuda" if torch.cuda.is_available() else "cpu"
        model = self.model().to(device).train()
        if spec["packing"] and device == "cpu":
            use_packed_rows(model)
        groups = [
            {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": spec["weight_decay"]},
            {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=spec["learning_rate"], betas=tuple(spec["betas"]), fused=True)
        steps = [self.batches[start : start + self.micro] for start in range(0, len(self.batches), self.micro)]
        schedule = get_scheduler(spec["schedule"], optimizer, spec["warmup_steps"], len(steps))
        clock = Clock()
        for batches in steps:
            count = sum(int((batch["labels"] != -100).sum()) for batch in batches)
            for batch in batches:
                inputs = {key: value.to(device) if hasattr(value, "to") else value for key, value in batch.items()}
                labels = inputs.pop("labels")[:, 1:]
                places = (labels != -100).any(dim=0).nonzero().flatten()
                with torch.autocast(device, dtype=torch.bfloat16, enabled=spec["precision"] == "bf16-mixed"):
                    logits = model(**inputs, use_cache=False, logits_to_keep=places).logits
                loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels[:, places].flatten(), reduction="sum") / count
                loss.backward()
                clock.losses.append(loss.item())
                clock.tokens.append(real_tokens(inputs))
            torch.nn.utils.clip_grad_norm_(model.parameters(), spec["max_grad_norm"])
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            clock.ends.append(time.perf_counter())
        return clock


def real_tokens(batch: dict) -> int:
    """Tokens of a batch without padding; a padding-free batch has no attention mask."""
    return int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel()


def results(clocks: dict[str, list[Clock]], bench: Bench, repeats: int) -> tuple[str, dict]:
    """The table in Markdown, and the record: tokens per second, ratios, and losses per step with their largest difference from ours."""
    speeds = {name: summary([clock.speed(bench.micro) for clock in found]) for name, found in clocks.items()}
    losses = {name: found[0].step_losses(bench.micro) for name, found in clocks.items()}
    ours = losses["ours"]
    apart = {name: max(abs(a - b) for a, b in zip(ours, values, strict=True)) for name, values in losses.items()}
    ratios = {name: speeds["ours"]["median"] / speeds[name]["median"] for name in speeds}
    rows = [[KINDS[name], spread(speeds[name]), ratios[name], f"{apart[name]:.2g}"] for name in clocks]
    text = table(["side", "tokens per second", "ours / this", "largest difference of a step's loss from ours"], rows)
    seconds = [late - early for clock in clocks["ours"] for early, late in pairwise(clock.ends)]
    text += f"\nMedians of {repeats} (least to most), in turns; {len(ours)} steps, {sum(clocks['ours'][0].tokens)} tokens a side. "
    text += (
        f"A step of ours: {number(summary(seconds)['median'])} s; its loss {ours[0]:.4f} at the first step, {ours[-1]:.4f} at the last.\n"
    )
    targets = [target(f"ours / {KINDS[name]}", ratios[name], wanted) for name, wanted in (("trl", 1.5), ("plain", 0.8)) if name in ratios]
    record = {"tokens_per_second": speeds, "ratios": ratios, "losses": losses, "loss_difference": apart, "targets": targets}
    return text, record


if __name__ == "__main__":
    main()
