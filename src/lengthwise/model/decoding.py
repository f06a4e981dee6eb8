"""Greedy decoding, row by row, with a key/value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from lengthwise.bias import SITES, AttentionBias
from lengthwise.layout import Layout
from lengthwise.model.attention import LayerPlan, Path, plan_attention
from lengthwise.model.transformer import Transformer

# Rows whose plan is laid out at once: few enough to be small, many enough to be cheap.
_CHUNK = 64


@torch.inference_mode()
def greedy_decode(
    model: Transformer, bias: AttentionBias, layout: Layout, source: Tensor, path: Path = "auto"
) -> Tensor:
    """Write the answers: each row takes the likeliest token after those written before it.

    Decoding runs for the rows of the layout, as many as a right answer and its end token need; a
    problem that has written the end token writes it again in every later row.

    Args:
        model: the model, in evaluation mode.
        bias: the bias it was trained with.
        layout: the task at one width.
        source: tokens `[problem, source position]`.
        path: the attention path.

    Returns:
        Tokens `[problem, width + 1]`, the end token last when all went well.
    """
    rows, layers = layout.target_length, len(model.layers)
    end = layout.vocabulary.end
    tokens = torch.full((len(source),), layout.vocabulary.start, device=source.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    written = torch.full((len(source), rows), end, device=source.device)
    state = None
    for first in range(0, rows, _CHUNK):
        chunk = range(first, min(first + _CHUNK, rows))
        plan = plan_attention(
            *(bias, layout, layers),
            rows=chunk,
            path=path,
            device=source.device,
            encoder=state is None and model.encodes,
        )
        state = model.begin(source, rows, plan) if state is None else state
        for row in chunk:
            logits = model.step(tokens, state, [cut(layer, row - first) for layer in plan])
            tokens = logits.argmax(dim=-1).masked_fill(ended, end)
            written[:, row] = tokens
            ended = tokens == end
        if bool(ended.all()):
            break
    return written


def cut(plan: LayerPlan, row: int) -> LayerPlan:
    """The plan of one row."""
    return {site: plan[site].row(row) for site in SITES}
