"""Attention over packed rows on a CPU: each row attends to itself alone, and padding exists nowhere but inside the attention.

PyTorch's fused CPU attention walks the whole block-diagonal mask of a packed batch; its backward pass took 32 % of a
training step of SmolLM2-135M in a profile (685 tokens, one thread, a busy machine). Rows of a laptop study are
short, so one small batched product per layer is cheaper.
"""

NAME = "packed_rows"


def packed_rows(module, query, key, value, attention_mask, scaling, dropout=0.0, cu_seq_lens_q=None, **_):
    """Causal attention within rows: query (1, heads, tokens, size), key and value (1, kv heads, tokens, size) to (1, tokens, heads, size).

    `cu_seq_lens_q` (rows + 1) holds the bounds of the rows, as TRL's padding-free collator gives them. Raises ValueError without it.
    """
    import torch

    if cu_seq_lens_q is None or query.shape[0] != 1:
        raise ValueError("packed_rows attention is for padding-free training batches alone")
    lengths = cu_seq_lens_q.diff().tolist()
    groups = query.shape[1] // key.shape[1]
    queries, keys, values = (padded(part[0], lengths) for part in (query, key, value))
    keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
    scores = (queries * scaling) @ keys.transpose(2, 3)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    weights = scores.float().masked_fill(later, float("-inf")).softmax(dim=-1).to(values.dtype)
    outputs = (torch.nn.functional.dropout(weights, dropout, module.training) @ values).transpose(1, 2)
    return torch.cat([output[:length] for output, length in zip(outputs, lengths, strict=True)])[None], None


def padded(packed, lengths):
    """Rows laid end to end (heads, tokens, size) as a batch (rows, heads, longest, size), zeros behind each.

    Not by `pad_sequence`, whose backward makes a whole zero batch for every row: without it copying fell from 10 to 7 % of a training step
    in a profile.
    """
    import torch

    longest = max(lengths)
    return torch.stack([torch.nn.functional.pad(row, (0, 0, 0, longest - row.shape[1])) for row in packed.split(lengths, dim=1)])


def use_packed_rows(model) -> None:
    """Register the attention and switch a model to it; the choice is not saved with the weights."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, packed_rows)
    AttentionMaskInterface.register(NAME, lambda *_, **__: None)
    model.set_attn_implementation(NAME)
