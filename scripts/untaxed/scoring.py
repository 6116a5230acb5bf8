"""Engines whose reply is numbers: the probabilities of a few next tokens, or of a classifier's classes, as JSON {name: probability}.

They are backends of `untaxed.engine`, so that requests, work files and resuming are those of every engine. Both read prompts in batches of
at most `batch_size` rows and `batch_tokens` tokens, padding counted (32,768 unless told), and generate nothing; sampling does not matter.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from untaxed.records import UserError

if TYPE_CHECKING:
    from untaxed.engine import Generation, Prompt, Request, Sampling

BATCH_TOKENS = 2**15


def open_next_token(spec: dict) -> Callable[[Iterable["Request"], "Sampling"], Iterator["Generation"]]:
    """A causal language model that is asked how likely each of `spec["words"]` is as its next token.

    The probabilities are of the whole vocabulary's softmax in float32: what they lack to 1 is what the model would rather say.
    `spec["lead"]` ("" unless told) is put at the end of a prompt that does not end so: blank lines that the chat template leaves out.
    """
    from untaxed.engine import load_local

    tokenizer, model, limit = load_local(spec)
    tokens = {word: word_tokens(tokenizer, word, spec["model"]) for word in spec["words"]}

    def read(ids: Any, mask: Any, positions: Any) -> list[dict]:
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1)
        probabilities = output.logits[:, -1].float().softmax(-1)
        return [{word: float(row[tokens[word]].sum()) for word in tokens} for row in probabilities]

    return _reader(spec, tokenizer, model, limit, read)


def open_classifier(spec: dict) -> Callable[[Iterable["Request"], "Sampling"], Iterator["Generation"]]:
    """A sequence classifier over a causal language model, several classes of which may hold at once: a sigmoid for each, in float32.

    The names are the model's own (`id2label`). Raises UserError when it has not as many classes as `spec["classes"]` says.
    """
    from transformers import AutoModelForSequenceClassification

    from untaxed.engine import load_local

    tokenizer, model, limit = load_local(spec, auto=AutoModelForSequenceClassification)
    if model.config.num_labels != spec["classes"]:
        raise UserError(f"engine.model: {spec['model']} has {model.config.num_labels} classes, not {spec['classes']}; name the right model")
    names = [model.config.id2label[number] for number in range(spec["classes"])]
    # transformers classifies the last token that is not padding, by its id; here that is the last column, whatever its id
    model.config.get_text_config().pad_token_id = -1

    def read(ids: Any, mask: Any, positions: Any) -> list[dict]:
        output = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
        return [dict(zip(names, row.tolist(), strict=True)) for row in output.logits.float().sigmoid()]

    return _reader(spec, tokenizer, model, limit, read)


BACKENDS = {"next_token": open_next_token, "classifier": open_classifier}


def word_tokens(tokenizer: Any, word: str, model: str) -> list[int]:
    """The tokens that are `word`, with the blank before it or without, in the forms of byte-level and SentencePiece vocabularies.

    Raises UserError when the vocabulary has none.
    """
    vocabulary = tokenizer.get_vocab()
    found = [vocabulary[form] for form in (word, f"\u2581{word}", f"\u0120{word}") if form in vocabulary]
    if not found:
        raise UserError(f"engine.model: the vocabulary of {model} has no token {word!r}; name the model that the judge was made for")
    return found


def batches(lengths: list[int], batch_size: int, batch_tokens: int) -> Iterator[list[int]]:
    """Places of `lengths` in batches, the longest first: at most `batch_size`, rows x longest within `batch_tokens` (one row always)."""
    waiting = sorted(range(len(lengths)), key=lambda place: lengths[place])
    while waiting:
        size = min(batch_size, max(1, batch_tokens // lengths[waiting[-1]]))
        yield [waiting.pop() for _ in range(min(size, len(waiting)))]


def _reader(
    spec: dict, tokenizer: Any, model: Any, limit: int, read: Callable[..., list[dict]]
) -> Callable[[Iterable["Request"], "Sampling"], Iterator["Generation"]]:
    import torch

    from untaxed.decoding import pad_left
    from untaxed.engine import Generation, render

    @torch.inference_mode()
    def numbers(prompts: list["Prompt"]) -> list[dict]:
        return read(*pad_left([prompt.token_ids for prompt in prompts], model.device))

    def generate(requests: Iterable["Request"], sampling: "Sampling") -> Iterator["Generation"]:
        prompts, too_long = render(requests, tokenizer, spec, limit)
        yield from too_long
        lengths = [len(prompt.token_ids) for prompt in prompts]
        for places in batches(lengths, spec.get("batch_size", 32), spec.get("batch_tokens") or BATCH_TOKENS):
            batch = [prompts[place] for place in places]
            for prompt, found in zip(batch, numbers(batch), strict=True):
                yield Generation(prompt.request.id, json.dumps(found), [], "stop", len(prompt.token_ids))

    return generate
