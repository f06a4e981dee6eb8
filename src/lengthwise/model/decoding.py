"""Greedy decoding, row by row, with a key/value cache."""

from __future__ import annotations

import torch
from torch import Tensor

from lengthwise.bias import AttentionBias
from lengthwise.layout import Layout
from lengthwise.model.attention import DensePlan, LayerPlan, LinesPlan, Path, plan_attention
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
    state = model.begin(source, rows)
    tokens = torch.full((len(source),), layout.vocabulary.start, device=source.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    written = torch.full((len(source), rows), end, device=source.device)
    for first in range(0, rows, _CHUNK):
        chunk = range(first, min(first + _CHUNK, rows))
        plan = plan_attention(bias, layout, layers, rows=chunk, path=path, device=source.device)
        for row in chunk:
            logits = model.step(tokens, state, [_row(layer, row - first) for layer in plan])
            tokens = logits.argmax(dim=-1).masked_fill(ended, end)
            written[:, row] = tokens
            ended = ended | (tokens == end)
        if bool(ended.all()):
            break
    return written


def _row(plan: LayerPlan, row: int) -> LayerPlan:
    """One row of a plan."""
    return {site: _plan_row(site_plan, row) for site, site_plan in plan.items()}


def _plan_row(plan: DensePlan | LinesPlan, row: int) -> DensePlan | LinesPlan:
    open_rows = None if plan.open_rows is None else plan.open_rows[:, row : row + 1]
    if isinstance(plan, DensePlan):
        bias = None if plan.bias is None else plan.bias[:, row : row + 1]
        return DensePlan(bias, open_rows)
    rows = slice(row, row + 1)
    return LinesPlan(plan.index[:, rows], plan.bias[:, rows], open_rows, plan.keys)
