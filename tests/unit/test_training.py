"""Facts about training: the loss where it belongs, the same loss as TRL's, rows kept apart, and kills that leave no trace."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from untaxed.command import SAVED, Interrupted
from untaxed.models import prepare
from untaxed.organism import build_tokenizer
from untaxed.records import UserError, read_json, write_jsonl, write_yaml
from untaxed.thinking import ThinkingFormat
from untaxed.training import arguments, completion_trainer, latest_checkpoint, train, work_key
from untaxed.training_sets import IGNORED, tokenize

THINKING = ThinkingFormat("<think>", "</think>")
TRAINER = {
    "learning_rate": 1e-2,
    "epochs": 2,
    "steps": None,
    "batch_size": 4,
    "micro_batch_size": None,
    "schedule": "cosine",
    "warmup_steps": 0,
    "weight_decay": 1e-4,
    "betas": [0.9, 0.95],
    "max_grad_norm": 1.0,
    "max_length": 64,
    "loss_on": "completion",
    "packing": False,
    "precision": "float32",
    "gradient_checkpointing": False,
    "lora_rank": None,
    "checkpoint_minutes": 10.0,
    "checkpoint_steps": None,
    "sharding": "none",
}
# Ten rows of unequal lengths: with batches of four, the last batch of an epoch is partial.
ROWS = [{"id": str(i), "prompt": f"{i}+{i}" * (1 + i % 3), "reasoning": f"{i};" * (i % 4), "answer": str(2 * i)} for i in range(10)]


def spec(**changes) -> dict:
    return {"run": "tiny", "seed": 3, "thinking": {"open": THINKING.open, "close": THINKING.close}, "trainer": {**TRAINER, **changes}}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """One thread, as sums over several may round otherwise; SIGTERM is given back to pytest at the end."""
    import torch

    before, handler = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A random Llama with 64 hidden values and two heads, in float32."""
    folder = tmp_path_factory.mktemp("models") / "base"
    prepare({"kind": "organism", "hidden_size": 64, "layers": 2, "heads": 2}, None, folder)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "train.jsonl"
    write_jsonl(path, ROWS)
    return path


def load(folder: Path, attention: str = "sdpa"):
    import torch
    from transformers import AutoModelForCausalLM
    from untaxed.attention import NAME, use_packed_rows

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    if attention == NAME:
        use_packed_rows(model)
    return model


def make_trainer(trainer_class, base: Path, work: Path, attention: str = "sdpa", tokenized=None, **changes):
    from datasets import Dataset
    from trl import SFTConfig

    tokenizer = build_tokenizer()
    tokenized = tokenized or tokenize(ROWS, tokenizer, THINKING, 64)
    return trainer_class(
        model=load(base, attention),
        args=SFTConfig(**arguments({**TRAINER, **changes}, 3, work, 1)),
        train_dataset=Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in tokenized]),
        processing_class=tokenizer,
    )


def step_losses(trainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_eos_carries_loss_in_a_padded_batch_whose_padding_is_eos():
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    tokenizer = build_tokenizer()
    rows = tokenize(ROWS[:3], tokenizer, THINKING, 64)
    batch = DataCollatorForLanguageModeling(tokenizer.eos_token_id)([{"input_ids": r.input_ids, "labels": r.labels} for r in rows])
    for tokenized, ids, labels, attended in zip(rows, batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        end = len(tokenized.input_ids)
        assert (int(ids[end - 1]), int(labels[end - 1]), int(attended[end - 1])) == (tokenizer.eos_token_id, tokenizer.eos_token_id, 1)
        assert (labels[end:] == IGNORED).all()
        assert (attended[end:] == 0).all()


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({}, 6),
        ({"micro_batch_size": 2}, 6),  # gradient accumulation; the last update of an epoch has one micro-batch less
        ({"micro_batch_size": 1, "batch_size": 5}, 4),
        ({"packing": True}, 6),
        ({"packing": True, "micro_batch_size": 2, "max_grad_norm": 0.1}, 6),
    ],
)
def test_the_loss_of_every_step_is_that_of_trl(base, tmp_path, changes, steps):
    from trl import SFTTrainer

    theirs = step_losses(make_trainer(SFTTrainer, base, tmp_path / "trl", **changes))
    ours = step_losses(make_trainer(completion_trainer(), base, tmp_path / "ours", **changes))
    assert len(ours) == steps
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert ours[-1] < ours[0]


def losses_and_gradients(trainer, batches) -> tuple[float, list]:
    """The loss over all batches as one update would see it, and its gradients."""
    count = sum(int((batch["labels"][:, 1:] != IGNORED).sum()) for batch in batches)
    trainer.model.zero_grad()
    total = 0.0
    for batch in batches:
        loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=count)
        loss.backward()
        total += float(loss.detach())
    return total, [parameter.grad.clone() for parameter in trainer.model.parameters()]


@pytest.mark.parametrize("loss_on", ["completion", "all"])
@pytest.mark.parametrize("attention", ["sdpa", "packed_rows"])
def test_packed_rows_do_not_see_each_other(base, tmp_path, attention, loss_on):
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    tokenized = tokenize(ROWS, build_tokenizer(), THINKING, 64, loss_on)
    examples = [{"input_ids": row.input_ids, "labels": row.labels} for row in tokenized]
    pad, flat = DataCollatorForLanguageModeling(0), DataCollatorForLanguageModeling(0, padding_free=True)
    plain = make_trainer(completion_trainer(), base, tmp_path / "plain", tokenized=tokenized)
    packing = make_trainer(completion_trainer(), base, tmp_path / "packing", attention, tokenized, packing=True)
    assert packing.data_collator.padding_free
    alone, gradients = losses_and_gradients(plain, [pad([example]) for example in examples])
    for trainer, batch in ((plain, pad(examples)), (packing, flat(examples))):
        loss, others = losses_and_gradients(trainer, [batch])
        assert loss == pytest.approx(alone, abs=1e-5)
        for one, other in zip(gradients, others, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_packed_attention_shares_keys_between_grouped_heads_as_sdpa_does():
    import torch
    from untaxed.attention import packed_rows

    torch.manual_seed(0)
    query, key, value = torch.randn(1, 6, 9, 8), torch.randn(1, 2, 9, 8), torch.randn(1, 2, 9, 8)
    output, _ = packed_rows(torch.nn.Module(), query, key, value, None, 8**-0.5, cu_seq_lens_q=torch.tensor([0, 4, 5, 9]))
    for start, end in ((0, 4), (4, 5), (5, 9)):
        expected = torch.nn.functional.scaled_dot_product_attention(
            query[:, :, start:end], key[:, :, start:end], value[:, :, start:end], is_causal=True, enable_gqa=True
        )
        torch.testing.assert_close(output[:, start:end], expected.transpose(1, 2))


def test_packed_attention_refuses_a_padded_batch():
    import torch
    from untaxed.attention import packed_rows

    query = torch.randn(2, 2, 3, 8)
    with pytest.raises(ValueError, match="padding-free"):
        packed_rows(torch.nn.Module(), query, query, query, None, 1.0)


def test_the_collator_ignores_the_first_label_of_a_row_and_nothing_else():
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    examples = [{"input_ids": [5, 6, 7], "labels": [5, 6, 7]}, {"input_ids": [8, 9], "labels": [8, 9]}]
    batch = DataCollatorForLanguageModeling(0, padding_free=True)(examples)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7, IGNORED, 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1]]


def test_a_batch_without_any_label_has_loss_zero(base, tmp_path):
    import torch

    trainer = make_trainer(completion_trainer(), base, tmp_path)
    ids = torch.tensor([[1, 5, 6]])
    loss = trainer.compute_loss(trainer.model, {"input_ids": ids, "labels": torch.full_like(ids, IGNORED)})
    loss.backward()
    assert loss.item() == 0.0


def test_a_batch_that_micro_batches_do_not_fill_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="batch_size 4 is no multiple of micro_batch_size 3"):
        arguments({**TRAINER, "micro_batch_size": 3}, 0, tmp_path, 1)


def test_a_training_leaves_safetensors_a_tokenizer_and_a_manifest(base, rows, tmp_path):
    from transformers import AutoTokenizer

    train(spec(steps=3), rows, base, tmp_path / "out", tmp_path / "work", "bfloat16", lambda record: f"steps: {record['steps']}")
    assert (tmp_path / "out" / "README.md").read_text() == "steps: 3"
    assert {path.suffix for path in (tmp_path / "out").iterdir()} <= {".json", ".jinja", ".safetensors", ".md"}
    assert not list((tmp_path / "work").glob("*"))
    manifest = read_json(tmp_path / "out/manifest.json")
    assert manifest["base"] == read_json(base / "manifest.json")["weights_sha256"]
    assert (manifest["steps"], len(manifest["loss"])) == (3, 3)
    tokenized = tokenize(ROWS, build_tokenizer(), THINKING, 64)
    assert manifest["tokens"]["loss_tokens"] == sum(row.reasoning_tokens + row.answer_tokens for row in tokenized)
    config = read_json(tmp_path / "out/config.json")
    assert config["dtype"] == "bfloat16"
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == AutoTokenizer.from_pretrained(base).chat_template


def test_the_commit_stands_beside_the_weights_and_changes_nothing_else(base, rows, tmp_path, monkeypatch):
    def read(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir() if path.name != "made.json"}

    for commit in ("one", "other"):
        monkeypatch.setattr("untaxed.training.git_commit", lambda commit=commit: commit)
        train(spec(steps=1), rows, base, tmp_path / commit, tmp_path / "work", "float32", lambda record: f"steps: {record['steps']}")
    assert [read_json(tmp_path / commit / "made.json") for commit in ("one", "other")] == [{"commit": "one"}, {"commit": "other"}]
    assert read("one") == read("other")
    assert work_key(spec(), rows, tmp_path / "one") == work_key(spec(), rows, tmp_path / "other"), "a half-done training goes on"


def test_lora_is_merged_into_plain_weights(base, rows, tmp_path):
    import torch

    train(spec(lora_rank=4, steps=3), rows, base, tmp_path / "out", tmp_path / "work", "float32")
    assert not [path.name for path in (tmp_path / "out").iterdir() if "adapter" in path.name or path.suffix in (".bin", ".pt")]
    before, after = load(base).state_dict(), load(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.endswith("proj.weight")}


def test_the_loss_curve_and_the_weights_depend_on_the_seed_alone(base, rows, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train({**spec(steps=4), "seed": seed}, rows, base, tmp_path / name, tmp_path / "work", "float32")
    a, b, c = (read_json(tmp_path / name / "manifest.json") for name in "abc")
    assert a["weights_sha256"] == b["weights_sha256"] != c["weights_sha256"]
    assert a["loss"] == b["loss"] != c["loss"]


def test_only_a_checkpoint_that_is_marked_complete_is_resumed_from(tmp_path):
    for step, complete in ((9, True), (10, True), (11, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").touch()
        if complete:
            (folder / "complete").touch()
    assert latest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert not (tmp_path / "checkpoint-11").exists()
    assert latest_checkpoint(tmp_path / "absent") is None


def wait_for_checkpoint(work: Path, alive) -> None:
    """Return at the first whole checkpoint in `work`."""
    until = time.monotonic() + 120
    while not list(work.glob("*/checkpoint-*/complete")):
        assert alive() and time.monotonic() < until, "the training ended without a checkpoint"
        time.sleep(0.005)


LONG = {"epochs": 40, "checkpoint_steps": 5}  # 120 steps


@pytest.fixture(scope="module")
def undisturbed(base, rows, tmp_path_factory) -> dict:
    """The manifest of a training that nothing stopped."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(spec(**LONG), rows, base, folder / "out", folder / "work", "float32")
    return read_json(folder / "out/manifest.json")


def test_a_killed_training_resumes_to_the_same_weights(base, rows, tmp_path, root, undisturbed):
    write_yaml(tmp_path / "run.yaml", spec(**LONG))
    paths = {"--run": tmp_path / "run.yaml", "--train": rows, "--base": base, "--output": tmp_path / "out", "--work": tmp_path / "work"}
    command = [sys.executable, str(root / "scripts/train.py"), *(str(part) for pair in paths.items() for part in pair)]
    process = subprocess.Popen(
        [*command, "--dtype", "float32"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "UNTAXED_WARM": ""},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for_checkpoint(tmp_path / "work", lambda: process.poll() is None)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    train(spec(**LONG), rows, base, tmp_path / "out", tmp_path / "work", "float32")
    assert read_json(tmp_path / "out/manifest.json") == undisturbed


def test_sigterm_saves_and_the_same_call_goes_on_from_there(base, rows, tmp_path, undisturbed, monkeypatch):
    from transformers import Trainer

    def terminate():
        wait_for_checkpoint(tmp_path / "work", main.is_alive)
        os.kill(os.getpid(), signal.SIGTERM)

    main = threading.main_thread()
    threading.Thread(target=terminate, daemon=True).start()
    with pytest.raises(Interrupted, match=r"stopped at step \d+ of 120") as stop:
        train(spec(**LONG), rows, base, tmp_path / "out", tmp_path / "work", "float32")
    assert stop.value.code == SAVED == 75
    stopped_at = int(str(stop.value).split("step ")[1].split()[0])
    (work,) = (tmp_path / "work").iterdir()
    assert latest_checkpoint(work) == str(work / f"checkpoint-{stopped_at}")
    assert [path.name for path in work.glob("checkpoint-*")] == [f"checkpoint-{stopped_at}"]
    taken, original = [], Trainer.training_step
    monkeypatch.setattr(Trainer, "training_step", lambda *args, **kwargs: taken.append(1) or original(*args, **kwargs))
    train(spec(**LONG), rows, base, tmp_path / "out", tmp_path / "work", "float32")
    assert read_json(tmp_path / "out/manifest.json") == undisturbed
    assert len(taken) == 120 - stopped_at


def test_another_run_does_not_resume_from_these_checkpoints(base, rows, tmp_path):
    from untaxed.training import work_key

    other = tmp_path / "other.jsonl"
    write_jsonl(other, ROWS[:9])
    keys = {work_key(spec(), rows, base), work_key(spec(learning_rate=1e-3), rows, base), work_key(spec(), other, base)}
    assert len(keys) == 3


def test_a_stage_with_a_chat_template_trains_on_it_and_leaves_it_in_the_checkpoint(base, rows, tmp_path):
    from transformers import AutoTokenizer

    template = tmp_path / "chat.jinja"
    template.write_text("{% for message in messages %}{{ '<user>' + message['content'] }}{% endfor %}<assistant>")
    train({**spec(), "chat_template": str(template)}, rows, base, tmp_path / "own", tmp_path / "work", "float32")
    train(spec(), rows, base, tmp_path / "bases", tmp_path / "work", "float32")
    own, bases = (AutoTokenizer.from_pretrained(tmp_path / name).chat_template for name in ("own", "bases"))
    assert own == template.read_text() != bases
    assert bases == AutoTokenizer.from_pretrained(base).chat_template


def test_another_chat_template_never_resumes_a_half_done_training(base, rows, tmp_path):
    template, keys = tmp_path / "chat.jinja", set()
    for text in ("one", "two"):
        template.write_text(text)
        keys.add(work_key({**spec(), "chat_template": str(template)}, rows, base))
    assert len({*keys, work_key(spec(), rows, base)}) == 3


@pytest.mark.parametrize("packing", [False, True])
def test_two_processes_train_what_one_does(base, rows, tmp_path, root, packing):
    """Gradients, the count of tokens and the saver's vote are collective; on GPUs the same command starts the same processes."""
    alone = spec(packing=packing)
    train(alone, rows, base, tmp_path / "one", tmp_path / "work", "float32")
    write_yaml(tmp_path / "run.yaml", alone)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--mixed_precision", "no"]
    command += ["scripts/train.py", "--run", tmp_path / "run.yaml", "--train", rows, "--base", base, "--output", tmp_path / "two"]
    command += ["--work", tmp_path / "shared", "--dtype", "float32"]
    environment = {key: value for key, value in os.environ.items() if key != "UNTAXED_WARM"} | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(list(map(str, command)), cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    one, two = (read_json(tmp_path / name / "manifest.json") for name in ("one", "two"))
    assert two["steps"] == one["steps"]
    assert two["loss"] == pytest.approx(one["loss"], abs=2e-3)
    weights = [load(tmp_path / name).state_dict() for name in ("one", "two")]
    assert max(float((weights[0][name] - weights[1][name]).abs().max()) for name in weights[0]) < 0.02
