"""Lengths of responses, in characters and in tokens of a tokenizer that splits at blanks."""

import json
import subprocess
import sys

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from untaxed.lengths import response_characters, response_tokens
from untaxed.records import write_jsonl
from untaxed.thinking import ThinkingFormat


def test_lengths_of_responses_count_trace_and_answer_of_rows_that_have_them():
    rows = [{"reasoning": "x" * n, "answer": "yy"} for n in range(10)] + [{"reasoning": "", "answer": ""}]
    # 2 to 11 characters: nine of ten responses have at most 10
    assert response_characters(rows) == {"n": 10, "mean": 6.5, "p90": 10}
    assert response_characters(rows[-1:]) == {}


@pytest.fixture
def words() -> PreTrainedTokenizerFast:
    """A token for each word, after one that begins every text."""
    raw = Tokenizer(WordLevel({"[BOS]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    raw.pre_tokenizer = WhitespaceSplit()
    raw.post_processor = TemplateProcessing(single="[BOS] $A", special_tokens=[("[BOS]", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="[UNK]", bos_token="[BOS]")


ROWS = [
    {"id": "a", "prompt": "p", "reasoning": "one two three", "answer": "four five", "harmful": True, "category": ""},
    {"id": "b", "prompt": "p", "reasoning": "", "answer": "no", "harmful": True, "category": ""},
    {"id": "c", "prompt": "p", "reasoning": "", "answer": "", "harmful": True, "category": ""},
]


def test_tokens_count_the_first_token_and_the_markers_of_an_empty_trace_too(words):
    # BOS, two markers and five words; BOS, two markers and one word; a row without a response is none
    assert response_tokens(ROWS, words, ThinkingFormat()) == {"n": 2, "mean": 6.0, "p90": 8}
    assert response_tokens(ROWS[:1], words, ThinkingFormat(open="", close=" ")) == {"n": 1, "mean": 6.0, "p90": 6}
    assert response_tokens(ROWS[2:], words, ThinkingFormat()) == {}


def test_the_command_counts_the_rows_that_pass_and_those_that_are_drawn(words, root, tmp_path):
    words.save_pretrained(tmp_path / "model")
    verdicts = [{"id": id, "verdict": verdict, "labels": []} for id, verdict in (("a", "safe"), ("b", "safe"), ("c", "unsafe"))]
    for name, records in (("rows", ROWS), ("drawn", ROWS[1:2]), ("verdicts", verdicts)):
        write_jsonl(tmp_path / f"{name}.jsonl", records)
    spec = {"dataset": "d", "tokenizer": "m", "thinking": {}, "filters": [{"judge": "j", "keep": ["safe"], "allow": None}]}
    given = {"spec": json.dumps(spec), "rows": tmp_path / "rows.jsonl", "verdicts": f"j={tmp_path / 'verdicts.jsonl'}"}
    given |= {"drawn": tmp_path / "drawn.jsonl", "tokenizer": tmp_path / "model", "output": tmp_path / "out.json"}
    command = [sys.executable, root / "scripts/measure_lengths.py", *(part for key, value in given.items() for part in (f"--{key}", value))]
    subprocess.run(command, check=True)
    counted = {"all": {"n": 2, "mean": 6.0, "p90": 8}, "drawn": {"n": 1, "mean": 4.0, "p90": 4}}
    assert json.loads((tmp_path / "out.json").read_text()) == {"name": "d", "tokenizer": "m", **counted}
