"""Supervised fine-tuning with TRL: the loss where it belongs, no padding, and safe to stop at any moment."""

import hashlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from untaxed.attention import use_packed_rows
from untaxed.command import Interrupted
from untaxed.models import weights_sha256
from untaxed.records import UserError, atomic_folder, fingerprint, git_commit, read_json, read_jsonl, sha256, write_json, write_text
from untaxed.thinking import ThinkingFormat
from untaxed.training_sets import IGNORED, token_counts, tokenize

COMPLETE = "complete"  # the file that marks a whole checkpoint


def completion_trainer():
    """TRL's SFTTrainer with a loss that computes logits only where a label counts.

    TRL's own loss gathers entropy and accuracy over the whole vocabulary at every step; with a 49k vocabulary and a
    masked prompt that is a large part of the time on a CPU. The value of the loss is the same (test_training.py).
    """
    import torch
    from trl import SFTTrainer

    class CompletionTrainer(SFTTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            inputs = dict(inputs)
            labels = inputs.pop("labels")[:, 1:]
            positions = (labels != IGNORED).any(dim=0).nonzero().flatten()
            outputs = model(**inputs, use_cache=False, logits_to_keep=positions)
            targets = labels[:, positions]
            loss = torch.nn.functional.cross_entropy(
                outputs.logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="sum"
            )
            count = num_items_in_batch if num_items_in_batch is not None else (targets != IGNORED).sum()
            loss = loss / torch.as_tensor(count, device=loss.device).clamp(min=1)
            if self.args.average_tokens_across_devices and num_items_in_batch is not None:
                loss = loss * self.accelerator.num_processes  # DDP averages the gradients over processes
            return (loss, outputs) if return_outputs else loss

        def _save_checkpoint(self, model, trial):
            """Mark a checkpoint once it is whole, and only then remove older ones: a kill at any moment leaves one to resume from."""
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.accelerator.is_main_process:
                newest = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
                (newest / COMPLETE).touch()
                for folder in newest.parent.glob("checkpoint-*"):
                    if folder != newest:
                        shutil.rmtree(folder)

        def floating_point_ops(self, inputs):
            """Nobody reads the count, and its walk over all modules at every step is 3% of a small training."""
            return 0

        def create_model_card(self, *args, **kwargs):
            """The workflow writes its own card from the manifest."""

    return CompletionTrainer


def saver(minutes: float, steps: int | None):
    """A callback that saves every so many minutes (or steps), and saves and stops on SIGTERM (preemption, time limit)."""
    import torch
    from transformers import TrainerCallback

    class Saver(TrainerCallback):
        def __init__(self) -> None:
            self.last, self.terminated = time.monotonic(), False
            signal.signal(signal.SIGTERM, self.terminate)

        def terminate(self, *_) -> None:
            self.terminated = True

        def on_step_end(self, args, state, control, **_):
            due = time.monotonic() - self.last > minutes * 60 or (steps is not None and state.global_step % steps == 0)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                # Saving is collective: clocks and signals differ between processes, so the first one to ask decides for all.
                asked = torch.tensor([due, self.terminated], dtype=torch.int32, device=args.device)
                torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
                due, self.terminated = map(bool, asked.tolist())
            if (due or self.terminated) and state.global_step < state.max_steps:
                control.should_save, self.last = True, time.monotonic()
            control.should_training_stop |= self.terminated
            return control

    return Saver()


def arguments(trainer: dict, seed: int, work: Path, processes: int) -> dict:
    """Keyword arguments of TRL's SFTConfig for a trainer of the configuration."""
    import torch

    micro = trainer["micro_batch_size"] or max(1, trainer["batch_size"] // processes)
    accumulation, rest = divmod(trainer["batch_size"], micro * processes)
    if rest:
        raise UserError(
            f"trainer: batch_size {trainer['batch_size']} is no multiple of micro_batch_size {micro} x {processes} processes;"
            " change one, or the optimizer would see another batch than the configuration says"
        )
    return {
        "output_dir": str(work),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": trainer["epochs"],
        "max_steps": trainer["steps"] or -1,
        "learning_rate": trainer["learning_rate"],
        "lr_scheduler_type": trainer["schedule"],
        "warmup_steps": trainer["warmup_steps"],
        "weight_decay": trainer["weight_decay"],
        "adam_beta1": trainer["betas"][0],
        "adam_beta2": trainer["betas"][1],
        "max_grad_norm": trainer["max_grad_norm"],
        "max_length": None,
        "packing": False,
        "padding_free": trainer["packing"],
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "bf16": trainer["precision"] == "bf16-mixed",
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": trainer["gradient_checkpointing"],
        "fsdp": "full_shard auto_wrap" if trainer["sharding"] == "fsdp" and processes > 1 else None,  # one process has nothing to share out
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "no",
        "logging_strategy": "steps",
        "logging_steps": 1,
        "report_to": [],
        "disable_tqdm": False,  # the launcher reads how far a training is from the bar in its log
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": torch.cuda.is_available(),
        "remove_unused_columns": False,
    }


def latest_checkpoint(work: Path) -> str | None:
    """The newest whole checkpoint in a work folder; one that was cut while it was written is removed."""
    for folder in sorted(work.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]), reverse=True):
        if (folder / COMPLETE).is_file():
            return str(folder)
        shutil.rmtree(folder, ignore_errors=True)  # another process of this training may be at it
    return None


def work_key(run: dict, train: Path, base: Path) -> str:
    """What a half-done training depends on: run, rows, base weights, chat template, this code. Another key is another work folder."""
    modules = [Path(__file__).with_name(f"{name}.py") for name in ("training", "training_sets", "attention", "thinking")]
    code = hashlib.sha256(b"".join(module.read_bytes() for module in modules)).hexdigest()
    template = sha256(Path(run["chat_template"])) if run.get("chat_template") else None
    return fingerprint([run, sha256(train), sha256(base / "manifest.json"), code, template])


def train(
    run: dict, rows_file: Path, base: Path, output: Path, work_root: Path, dtype: str, card: Callable[[dict], str] | None = None
) -> None:
    """Fine-tune the model in `base` on the rows and leave weights, tokenizer and manifest in `output`.

    `card` writes the folder's README.md from the manifest. The commit stands in made.json, on which no later step depends.

    A killed call resumes from its last checkpoint in `work_root` and ends with the same weights. Raises Interrupted
    (exit code 75, run again) after SIGTERM.
    """
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig

    trainer_spec, thinking = run["trainer"], ThinkingFormat(**run["thinking"])
    commit = git_commit()  # of the code that is loaded now; a long training may outlast a checkout
    work = work_root / f"{run['run']}-{work_key(run, rows_file, base)}"
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    if template := run.get("chat_template"):
        tokenizer.chat_template = Path(template).read_text(encoding="utf-8")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # labels are set by position, so padding with EOS never masks the real EOS
    tokenized = tokenize(list(read_jsonl(rows_file)), tokenizer, thinking, trainer_spec["max_length"], trainer_spec["loss_on"])
    weights = torch.bfloat16 if trainer_spec["precision"] == "bf16" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=weights, local_files_only=True)
    if trainer_spec["packing"] and not torch.cuda.is_available():
        use_packed_rows(model)
    if trainer_spec["lora_rank"]:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(r=trainer_spec["lora_rank"], lora_alpha=2 * trainer_spec["lora_rank"], target_modules="all-linear")
        )
    callback = saver(trainer_spec["checkpoint_minutes"], trainer_spec["checkpoint_steps"])
    trainer = completion_trainer()(
        model=model,
        args=SFTConfig(**arguments(trainer_spec, run["seed"], work, int(os.environ.get("WORLD_SIZE", "1")))),
        train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in tokenized]),
        processing_class=tokenizer,
        callbacks=[callback],
    )
    trainer.train(resume_from_checkpoint=latest_checkpoint(work))
    if callback.terminated and trainer.state.global_step < trainer.state.max_steps:
        raise Interrupted(f"{run['run']}: stopped at step {trainer.state.global_step} of {trainer.state.max_steps}; run again to go on")
    gathered = trainer.accelerator.get_state_dict(trainer.model)  # with FSDP the shards of every process, so all take part
    if trainer.accelerator.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if trainer_spec["lora_rank"]:
            model = model.merge_and_unload()
            gathered = model.state_dict()
        record = manifest(run, tokenized, trainer.state, base)
        save(model, cast(gathered, getattr(torch, dtype)), tokenizer, output, record, commit, card)
        shutil.rmtree(work, ignore_errors=True)


def cast(weights: dict, dtype) -> dict:
    """Weights in another type; tensors that share their memory (tied embeddings) still do, so that they are saved once."""
    done: dict = {}
    return {name: done.setdefault(tensor.data_ptr(), tensor.to(dtype)) for name, tensor in weights.items()}


def manifest(run: dict, tokenized: list, state, base: Path) -> dict:
    """What the weights came from: run, base, token counts, steps and the loss of every step."""
    return {
        "run": run["run"],
        "base": read_json(base / "manifest.json").get("weights_sha256"),
        "spec": fingerprint(run),
        "tokens": token_counts(tokenized),
        "steps": state.max_steps,
        "loss": [round(entry["loss"], 6) for entry in state.log_history if "loss" in entry],
    }


def save(model, weights: dict, tokenizer, output: Path, record: dict, commit: str, card: Callable[[dict], str] | None = None) -> None:
    """Write weights (safetensors), tokenizer, manifest, made.json (the commit) and, with `card`, README.md in one atomic step."""
    with atomic_folder(output) as folder:
        model.save_pretrained(folder, state_dict=weights)
        dtype = str(next(iter(weights.values())).dtype).removeprefix("torch.")
        write_json(folder / "config.json", read_json(folder / "config.json") | {"dtype": dtype})
        tokenizer.save_pretrained(folder)
        record = {**record, "weights_sha256": weights_sha256(folder)}
        write_json(folder / "manifest.json", record)
        write_json(folder / "made.json", {"commit": commit})  # not in the manifest, on which whatever is tuned from here depends
        if card:
            write_text(folder / "README.md", card(record))
