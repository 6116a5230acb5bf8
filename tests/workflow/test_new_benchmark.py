"""A benchmark is added by configuration alone, as docs/benchmarks.md says: rows of one's own, a task file, an overlay, and no code."""

import hashlib
import json
import re

import yaml

SUMS = [{"question": f"{a}+{b}", "answer": str((a + b) % 10)} for a in range(4) for b in range(3)]


def blocks(text: str) -> dict[str, dict]:
    """The three YAML files that the document shows, by what they are."""
    section = text[text.index("## A benchmark by configuration alone") :]
    found = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", section, flags=re.DOTALL)]
    return dict(zip(("lock", "task", "overlay"), found, strict=True))


def test_what_the_document_shows_is_evaluated_and_scored(repository):
    copy = repository("new_benchmark")
    shown = blocks((copy / "docs/benchmarks.md").read_text())
    content = "".join(json.dumps(record) + "\n" for record in SUMS).encode()
    (copy / "data").mkdir()
    (copy / "data/sums.jsonl").write_bytes(content)
    lock = yaml.safe_load((copy / "assets.lock.yaml").read_text())
    pin = {"file": "sums.jsonl", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "rows": len(SUMS)}
    lock["assets"]["small-sums"] = shown["lock"]["small-sums"] | {"files": [pin]}
    (copy / "assets.lock.yaml").write_text(yaml.safe_dump(lock))
    (copy / "benchmarks/small_sums.yaml").write_text(yaml.safe_dump(shown["task"]))
    untrained = {
        "experiments": {"smoke": {"models": ["organism-untrained"], "n": [0], "seeds": [0]}},
        "study": shown["overlay"]["study"] | {"experiments": ["smoke"]},
    }
    samples = "results/sums/runs/base--organism-untrained/samples.jsonl"
    result = copy.snakemake(samples, overlay={**shown["overlay"], **untrained})
    assert result.returncode == 0, result.stdout + result.stderr
    mine = [sample for sample in copy.records(samples) if sample["benchmark"] == "small_sums"]
    assert [(sample["prompt"], sample["target"]) for sample in mine] == [(record["question"], record["answer"]) for record in SUMS]
    for sample in mine:
        digits = re.findall(r"\d", sample["generation"])
        assert sample["correct"] == float(digits[-1:] == [sample["target"]])
        assert sample["version"] == 1
