"""A decode loop over a transformers model that keeps its batch full: finished rows leave at once and waiting prompts take their place.

`model.generate` keeps a finished row until the longest one ends, copies the whole cache at every token (`torch.cat`), and, for models with
grouped heads and a padded batch on a CPU, repeats keys and values once per group. This loop does none of the three. What all prompts of a
batch begin with, such as a judge's rubric, it reads once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from transformers import AttentionInterface, AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from untaxed.records import UserError

ROOM = 128  # tokens by which a cache buffer grows
SHARED = 32  # tokens that prompts must have in common before it is worth reading them apart
CANDIDATES = 256  # tokens looked at before a whole vocabulary is sorted


@dataclass
class Row:
    """One sequence: its prompt, its own random numbers, and the tokens drawn so far."""

    index: int
    prompt: list[int]
    max_new_tokens: int
    draws: Random
    tokens: list[int] = field(default_factory=list)


class RoomyLayer(DynamicLayer):
    """A cache layer with spare room at its end, so that a new token is one small write. Shapes: [rows, key heads, tokens, head size]."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.assign(key_states, value_states)
            return self.keys, self.values
        start = self.keys.shape[-2]
        end = start + key_states.shape[-2]
        if end > self.buffers[0].shape[-2]:
            self.assign(self.keys, self.values, room=max(ROOM, end - start))
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, start:end] = new
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def assign(self, keys: torch.Tensor, values: torch.Tensor, room: int = ROOM) -> None:
        """Hold copies of `keys` and `values` with room for more tokens."""
        length = keys.shape[-2]
        self.buffers = [states.new_empty((*states.shape[:2], length + room, states.shape[-1])) for states in (keys, values)]
        for buffer, states in zip(self.buffers, (keys, values), strict=True):
            buffer[:, :, :length] = states
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention that does not repeat grouped key heads, under a mask either: the CPU kernel takes both, 5 to 9 times faster.

    A single new token's heads are handed over as the queries of their key head, or the kernel walks the cache once per head, which takes
    five times as long.
    """
    rows, heads, length, size = query.shape
    if length == 1 and heads != key.shape[1]:
        grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
        output = torch.nn.functional.scaled_dot_product_attention(
            grouped, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
        )
        return output.reshape(rows, 1, heads, size), None
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = causal and query.shape[2] > 1 and attention_mask is None
    output = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, is_causal=causal, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


def load_model(name: str, dtype: str, device: str, auto: Any = AutoModelForCausalLM, **where: Any) -> Any:
    """A model of the class `auto` (a causal language model) in evaluation mode.

    Raises UserError when it is not on this machine, or lacks weights that its class needs.
    """
    attention = None
    if torch.device(device).type == "cpu":
        attention = "grouped_sdpa"
        AttentionInterface.register(attention, grouped_attention)
        AttentionMaskInterface.register(attention, sdpa_mask)
    try:
        model, loaded = auto.from_pretrained(
            name, dtype=dtype, attn_implementation=attention, trust_remote_code=False, output_loading_info=True, **where
        )
    except OSError as error:
        raise UserError(f"engine.model: {name} cannot be loaded ({str(error).splitlines()[0]}); fetch the model first") from None
    if missing := sorted(loaded["missing_keys"]):
        # transformers would draw them at random and go on
        raise UserError(f"engine.model: {name} has no weights for {missing[0]}; it is not the {auto.__name__} that is asked for")
    return model.to(device).eval()


def end_tokens(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text: those of the generation config and the tokenizer's."""
    configured = model.generation_config.eos_token_id
    ends = configured if isinstance(configured, list) else [configured]
    return {token for token in [*ends, tokenizer.eos_token_id] if token is not None}


def draw(logits: torch.Tensor, uniforms: list[float], temperature: float, top_p: float) -> torch.Tensor:
    """One token per row by inverse distribution function, [rows]. `logits` [rows, vocabulary]; temperature 0 takes the largest."""
    if temperature == 0:
        return logits.max(-1).indices  # as argmax, which takes four times as long in bfloat16
    probabilities = (logits.float() / temperature).softmax(-1)
    uniform = torch.tensor(uniforms, device=logits.device)[:, None]
    if top_p >= 1:
        mass = probabilities.cumsum(-1)
        return torch.searchsorted(mass, uniform * mass[:, -1:], right=True)[:, 0].clamp(max=logits.shape[-1] - 1)
    # The nucleus lies among the largest few unless the distribution is flat; a sort of the vocabulary costs ten times more.
    largest, tokens = probabilities.topk(min(CANDIDATES, logits.shape[-1]), dim=-1)
    if bool((largest.sum(-1) < top_p).any()):
        largest, tokens = probabilities.sort(-1, descending=True)
    mass = largest.cumsum(-1)
    size = (mass - largest < top_p).sum(-1, keepdim=True)
    total = mass.gather(1, size - 1)
    place = torch.searchsorted(mass, uniform * total, right=True)
    return tokens.gather(1, torch.minimum(place, size - 1))[:, 0]


@torch.inference_mode()
def decode(
    model: Any,
    rows: list[Row],
    *,
    temperature: float,
    top_p: float,
    ends: set[int],
    stopped: Callable[[list[int]], bool] | None,
    batch_size: int,
    batch_tokens: int | None,
) -> Iterator[Row]:
    """Yield each row when it ends: at a token of `ends`, when `stopped(tokens)`, or at its max_new_tokens.

    Prompts are taken longest first. At most `batch_size` rows run at once, and rows × (cache + longest answer) stays within `batch_tokens`.
    """
    waiting = sorted(rows, key=lambda row: len(row.prompt))
    layers = DynamicCache(config=model.config).layers
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    batch = _Batch(model)
    while waiting or batch.rows:
        free = _capacity(batch, waiting, batch_size, batch_tokens) - len(batch.rows)
        # A prefill stops the others, so it waits until it is worth it; caches with a window cannot be merged and run to their end.
        if waiting and (not batch.rows or (plain and free >= max(1, batch_size // 4))):
            taken = [waiting.pop() for _ in range(min(len(waiting), max(free, 0 if batch.rows else 1)))]
            batch.join(_prefill(model, taken, RoomyLayer if plain else None))
        logits = batch.logits
        uniforms = [row.draws.random() for row in batch.rows] if temperature > 0 else []
        tokens = draw(logits, uniforms, temperature, top_p)
        kept = []
        for place, (row, token) in enumerate(zip(batch.rows, tokens.tolist(), strict=True)):
            if batch.done[place]:
                continue
            row.tokens.append(token)
            if token in ends or len(row.tokens) >= row.max_new_tokens or (stopped and stopped(row.tokens)):
                batch.done[place] = True
                yield row
            else:
                kept.append(place)
        if not kept:
            batch = _Batch(model)
            continue
        if plain and len(kept) < len(batch.rows):
            batch.keep(kept)
            tokens = tokens[kept]
        batch.step(tokens)


def _capacity(batch: "_Batch", waiting: list[Row], batch_size: int, batch_tokens: int | None) -> int:
    if not batch_tokens or not waiting:
        return batch_size
    width = max(batch.width, len(waiting[-1].prompt)) + max(row.max_new_tokens for row in (waiting[-1], *batch.rows))
    return min(batch_size, max(1, batch_tokens // width))


def _prefill(model: Any, rows: list[Row], layer: type[DynamicLayer] | None) -> "_Batch":
    """Read the prompts of `rows`: what all of them begin with once, then the rest of each, padded on the left."""
    batch = _Batch(model)
    batch.rows, batch.done = list(rows), [False] * len(rows)
    batch.cache = DynamicCache(config=model.config)
    if layer:
        batch.cache.layers = [layer() for _ in batch.cache.layers]
    shared = common_start([row.prompt for row in rows]) if layer and len(rows) > 1 else 0
    shared = shared if shared >= SHARED else 0
    if shared:
        start, batch.mask, positions = pad_left([rows[0].prompt[:shared]], model.device)
        batch.forward(start, positions)
        for each in batch.cache.layers:
            each.assign(*(states.expand(len(rows), -1, -1, -1) for states in (each.keys, each.values)))
    ids, mask, positions = pad_left([row.prompt[shared:] for row in rows], model.device)
    batch.mask = torch.cat([mask.new_ones(len(rows), shared), mask], dim=1)
    batch.forward(ids, shared + positions)
    return batch


def common_start(prompts: list[list[int]]) -> int:
    """How many tokens all prompts begin with, leaving at least one of each to be read alone."""
    least, most = min(prompts), max(prompts)  # in the order of their tokens: what these two share, all share
    length = next((place for place, pair in enumerate(zip(least, most, strict=False)) if pair[0] != pair[1]), min(len(least), len(most)))
    return min(length, min(map(len, prompts)) - 1)


def pad_left(prompts: list[list[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, attention mask and positions of `prompts`, each [prompts, longest prompt], so that each ends in the last column."""
    width = max(map(len, prompts))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for place, prompt in enumerate(prompts):
        ids[place, width - len(prompt) :] = torch.tensor(prompt)
        mask[place, width - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    return ids, mask, (mask.cumsum(-1) - 1).clamp(min=0)


class _Batch:
    """The rows that run together. Cache and mask are padded on the left to one width; `logits` [rows, vocabulary] are the next token's."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows: list[Row] = []
        self.done: list[bool] = []
        self.cache: Any = None
        self.mask: Any = None
        self.logits: Any = None

    @property
    def width(self) -> int:
        return 0 if self.mask is None else self.mask.shape[1]

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> None:
        output = self.model(
            input_ids=ids, attention_mask=self.mask, position_ids=positions, past_key_values=self.cache, use_cache=True, logits_to_keep=1
        )
        self.logits = output.logits[:, -1]

    def step(self, tokens: torch.Tensor) -> None:
        """Read one more token per row."""
        positions = self.mask.sum(-1, keepdim=True)
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.rows), 1)], dim=1)
        self.forward(tokens[:, None], positions)

    def keep(self, places: list[int]) -> None:
        """Drop all rows but those at `places`, and the columns that only they needed."""
        self.rows, self.done = [self.rows[place] for place in places], [False] * len(places)
        mask = self.mask[places]
        first = int(mask.argmax(-1).min())
        self.mask = mask[:, first:]
        for layer in self.cache.layers:
            layer.assign(layer.keys[places][:, :, first:], layer.values[places][:, :, first:])

    def join(self, other: "_Batch") -> None:
        """Take over the rows of `other`; the narrower cache gets padding on its left."""
        if not self.rows:
            self.rows, self.done, self.cache, self.mask, self.logits = other.rows, other.done, other.cache, other.mask, other.logits
            return
        width = max(self.width, other.width)

        def padded(tensor: torch.Tensor, dimension: int) -> torch.Tensor:
            missing = width - tensor.shape[dimension]
            return torch.nn.functional.pad(tensor, (*[0, 0] * (tensor.dim() - 1 - dimension), missing, 0))

        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            mine.assign(
                torch.cat([padded(mine.keys, 2), padded(theirs.keys, 2)]), torch.cat([padded(mine.values, 2), padded(theirs.values, 2)])
            )
        self.mask = torch.cat([padded(self.mask, 1), padded(other.mask, 1)])
        self.rows, self.done = self.rows + other.rows, self.done + other.done
        self.logits = torch.cat([self.logits, other.logits])
