"""Attention with a bias: several paths, one meaning.

`dense` scores every key and adds the bias; `lines` gathers the open keys of each query and scores only
those, so that its cost follows the open keys. Where no query has more than one open key its weight is 1
whatever its score, and no scores are computed: attention copies. Tests hold all of them equal. A query with
no open key yields zeros, and zero gradients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from lengthwise.bias import (
    CLOSED,
    SITES,
    AttentionBias,
    OpenKeys,
    Site,
    encoder_bias,
    relative_index,
)
from lengthwise.layout import Layout
from lengthwise.model.plans import (
    FEW_KEYS,
    KEYS_PER_SLOT,
    CopyPlan,
    DensePlan,
    LayerPlan,
    LinesPlan,
    OwnPlan,
    Plan,
)
from lengthwise.model.reads import Reads

Path = Literal["auto", "dense", "lines"]


def plan_attention(
    bias: AttentionBias,
    layout: Layout,
    layers: int,
    *,
    rows: range | None = None,
    path: Path = "auto",
    device: torch.device | str = "cpu",
    encoder: bool = False,
) -> list[LayerPlan]:
    """Lay a bias out for one layout, once, so that every forward pass of that layout shares it.

    Args:
        bias: the bias.
        layout: the task at one width.
        layers: decoder layers.
        rows: the queries, all of them by default.
        path: `dense`, `lines`, or `auto`: lines where the bias opens few keys and there are many.
        device: where the plan is used.
        encoder: also lay out what all layers of an encoder share, as `encoder` of the first layer.

    Raises:
        ValueError: when `lines` is asked for and the bias does not consist of lines.
    """
    rows = range(layout.target_length) if rows is None else rows
    plans: list[LayerPlan] = [
        {site: _plan(bias, site, layer, layout, rows, path, device) for site in SITES}
        for layer in range(layers)
    ]
    if encoder:
        dense = encoder_bias(bias, layout)
        relative = relative_index(bias, "encoder", layout, range(layout.source_length))
        plans[0]["encoder"] = _dense_plan(dense, relative, device)
    return plans


def _plan(
    bias: AttentionBias,
    site: Site,
    layer: int,
    layout: Layout,
    rows: range,
    path: Path,
    device: torch.device | str,
) -> Plan:
    few = layout.keys(site) <= FEW_KEYS
    open_keys = None if path == "dense" else bias.open_keys(site, layer, layout, rows)
    if open_keys is None and path == "lines":
        raise ValueError(
            f"the lines path needs a bias that opens a bounded number of keys; "
            f"{type(bias).__name__} does not, at {site}-attention of layer {layer}"
        )
    reads = None if open_keys is None else Reads.of(open_keys, layout.keys(site))
    if open_keys is not None and few and path == "auto" and open_keys.index.shape[-1] == 1:
        is_open = (open_keys.value > CLOSED).float()
        copies = torch.zeros(*open_keys.index.shape[:-1], layout.keys(site))
        return CopyPlan(copies.scatter_(-1, open_keys.index, is_open).to(device), reads)
    if open_keys is not None and (path == "lines" or _lines_pay(open_keys, layout.keys(site))):
        if site == "self" and rows.start == 0 and reads is not None and reads.itself:
            return OwnPlan(bias.heads, reads)
        return replace(plan_lines(open_keys, layout.keys(site), device), reads=reads)
    relative = relative_index(bias, site, layout, rows)
    dense = _dense_plan(bias.dense(site, layer, layout, rows), relative, device)
    return replace(dense, reads=reads if relative is None else None)


def _lines_pay(open_keys: OpenKeys, keys: int) -> bool:
    """Whether gathering the open keys is less work than scoring all of them."""
    slots = open_keys.index.shape[-1]
    return keys > FEW_KEYS and (slots == 1 or slots * KEYS_PER_SLOT <= keys)


def _dense_plan(
    bias: Tensor | None, relative: Tensor | None, device: torch.device | str
) -> DensePlan:
    relative = None if relative is None else relative.to(device)
    if bias is None or not bias.any():
        return DensePlan(None, None, relative)
    return DensePlan(*_close_safely(bias, device), relative)


def plan_lines(open_keys: OpenKeys, keys: int, device: torch.device | str = "cpu") -> LinesPlan:
    """The plan of open keys, of `keys` in all."""
    values, open_rows = _close_safely(open_keys.value, device)
    return LinesPlan(open_keys.index.to(device), values, open_rows, keys)


def _close_safely(bias: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor | None]:
    """Give rows without an open key zeros, and say which they are."""
    open_rows = (bias > CLOSED).any(dim=-1, keepdim=True)
    if open_rows.all():
        return bias.contiguous().to(device), None
    return bias.masked_fill(~open_rows, 0.0).to(device), open_rows.float().to(device)
