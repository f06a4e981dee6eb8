"""Sheets through the model: logits of every token, the tokens before it being given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lengthwise.bias import AttentionBias, CalibratedBias
from lengthwise.model.attention import Path, plan_attention
from lengthwise.model.plans import LayerPlan
from lengthwise.model.transformer import Transformer
from lengthwise.problems.sheets import Seen, SheetLayout, Sheets


def through_lines(
    model: torch.nn.Module,
    bias: CalibratedBias,
    groups: Sequence[tuple[SheetLayout, Tensor, Tensor]],
    layers: int,
    path: Path = "auto",
) -> Tensor:
    """Logits `[flat, token]` of a model that reads along lines, of problems of any sizes at once.

    Where a line leads depends on what is written: every problem has open keys of its own, so that all are
    laid end to end as one sequence.

    Args:
        bias: lines alone.
        groups: as of `Sheets`.
        layers: of the model's decoder.
        path: the attention path.
    """
    sheets = Sheets(groups)
    # Not by matrices: of all problems' tokens together these are far too large.
    way: Path = "lines" if path == "auto" else path
    device = groups[0][1].device
    plan = plan_attention(bias, sheets, layers, path=way, device=device)
    return model(sheets.source.to(device), sheets.inputs.to(device), plan).logits[0]


def sheet_logits(
    model: torch.nn.Module,
    bias: AttentionBias,
    layout: SheetLayout,
    source: Tensor,
    target: Tensor,
    plan: list[LayerPlan],
    layers: int,
    drawn: Tensor | None = None,
) -> Tensor:
    """Logits `[problem, token, token of the vocabulary]` of problems of one size.

    Args:
        source, target: as `SheetLayout.batch` gives them.
        plan: the bias laid out for the layout; of no use for lines, which lead elsewhere in each sheet.
        layers: of the model's decoder.
        drawn: as of `Transformer.forward`.
    """
    if isinstance(bias, CalibratedBias):
        flat = through_lines(model, bias, [(layout, source, target)], layers)
        return flat.unflatten(0, (len(target), -1))
    return model(source, target[:, :-1].clamp(min=0), plan, drawn=drawn).logits


def logits_of_sights(
    model: Transformer,
    bias: CalibratedBias,
    seen: Seen,
    path: Path = "auto",
    share: bool = True,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Logits `[sight, token]` of queries that are told by what they see.

    Args:
        bias: lines that a sight tells of (`lengthwise.locality.sheets`).
        seen: the sights.
        path: the attention path.
        share: whether those that read the same are computed once.
        device: where the model is.
    """
    plan = plan_attention(bias, seen, len(model.layers), path=path, device=device)
    source, inputs = seen.source.to(device), seen.inputs.to(device)
    return model(source, inputs, plan, return_attention=not share, last=seen.count).logits[0]
