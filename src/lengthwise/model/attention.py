"""Attention with a bias: several paths, one meaning.

`dense` scores every key and adds the bias; `lines` gathers the open keys of each query and scores only
those, so that its cost follows the open keys. Where no query has more than one open key its weight is 1
whatever its score, and no scores are computed. Tests hold both equal. A query with no open key yields
zeros, and zero gradients.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor

from lengthwise.bias import SITES, AttentionBias, Site, encoder_bias, relative_index
from lengthwise.model.plans import (
    FEW_KEYS,
    KEYS_PER_SLOT,
    AttentionPlan,
    DensePlan,
    Laid,
    LayerPlan,
    LinesPlan,
    OwnPlan,
    Plan,
    close_safely,
)
from lengthwise.problems.layout import Layout

Path = Literal["auto", "dense", "lines"]


def plan_attention(
    bias: AttentionBias,
    layout: Laid,
    layers: int,
    *,
    queries: range | None = None,
    path: Path = "auto",
    device: torch.device | str = "cpu",
    encoder: bool = False,
) -> AttentionPlan:
    """Lay a bias out for one layout, once, so that every forward pass of that layout shares it.

    Args:
        layout: the task at one width, or sheets as they are written.
        layers: decoder layers.
        queries: all of them by default. The keys of self-attention are those up to the last
            query.
        path: `dense`, `lines`, or `auto`: lines where the bias opens few keys and there are many.
        device: where the plan is used.
        encoder: also lay out what all layers of an encoder share, as `encoder` of the first layer.

    Raises:
        ValueError: when `lines` is asked for and the bias does not consist of lines.
    """
    queries = range(layout.target_length) if queries is None else queries
    laid, layout = layout, cast(Layout, layout)  # as far as biases ask
    plans: list[LayerPlan] = [
        {site: _plan(bias, site, layer, layout, queries, path, device) for site in SITES}
        for layer in range(layers)
    ]
    if encoder:
        dense = encoder_bias(bias, layout)
        relative = relative_index(bias, "encoder", layout, range(layout.source_length))
        plans[0]["encoder"] = _dense_plan(dense, relative, device)
    return AttentionPlan(plans, laid)


def _plan(
    bias: AttentionBias,
    site: Site,
    layer: int,
    layout: Layout,
    queries: range,
    path: Path,
    device: torch.device | str,
) -> Plan:
    open_keys = None if path == "dense" else bias.open_keys(site, layer, layout, queries)
    if open_keys is None and path == "lines":
        raise ValueError(
            f"the lines path needs a bias that opens a bounded number of keys; "
            f"{type(bias).__name__} does not, at {site}-attention of layer {layer}"
        )
    # No query reads a later row.
    keys = queries.stop if site == "self" else layout.keys(site)
    lines = None if open_keys is None else LinesPlan.of(open_keys, keys)
    if lines is not None and (path == "lines" or _lines_pay(lines)):
        value = lines.slot_values
        if site == "self" and queries.start == 0 and lines.itself and value is not None:
            return OwnPlan(bias.heads, lines, value[:, 0].to(device))
        return LinesPlan(lines.index.to(device), lines.value.to(device), keys)
    relative = relative_index(bias, site, layout, queries)
    relative = None if relative is None else relative[:, :keys]
    dense = _dense_plan(bias.dense(site, layer, layout, queries)[..., :keys], relative, device)
    return replace(dense, reads=None if lines is None or relative is not None else lines.reads)


def _lines_pay(lines: LinesPlan) -> bool:
    """Whether gathering the open keys is less work than scoring all of them."""
    slots = lines.index.shape[-1]
    return slots == 1 or (lines.keys > FEW_KEYS and slots * KEYS_PER_SLOT <= lines.keys)


def _dense_plan(
    bias: Tensor | None, relative: Tensor | None, device: torch.device | str
) -> DensePlan:
    relative = None if relative is None else relative.to(device)
    if bias is None or not bias.any():
        return DensePlan(None, None, relative)
    return DensePlan(*close_safely(bias.to(device)), relative)
