"""What compiled passes read and would otherwise work out, and keep, in their first run.

What is computed within a CUDA graph lies in memory that its next run writes over, and what is counted
there has to be waited for. So tables of positions, and what plans say of open keys, are worked out before.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lengthwise.model.joint import join_plans, share_attention
from lengthwise.model.plans import LayerPlan, LinesPlan
from lengthwise.model.transformer import Transformer


def prepare(
    model: Transformer,
    plan: Sequence[LayerPlan],
    source: int,
    rows: int,
    device: torch.device | str,
) -> None:
    """Work out all that a pass over sequences of these lengths keeps.

    Args:
        model: as its maker made it, not compiled.
        plan: for these lengths; it keeps what is worked out of it.
        source: tokens of the source.
        rows: tokens that are read.
        device: where both are.
    """
    device = torch.empty(0, device=device).device  # with its number
    scheme = model.scheme
    if scheme.kind in ("add", "rotate"):
        together = source + rows if model.joint else max(source, rows)
        recurs = scheme.period if scheme.kind == "add" else None
        model.position_table(recurs or together, device)
    for sites in plan:
        laid_out = list(sites.values())
        if model.joint:
            own, cross = sites["self"], sites["cross"]
            share_attention(own, cross)
            laid_out = [join_plans(own, cross, rows, source, rows, device=device)]
        for one in laid_out:
            if isinstance(one, LinesPlan):
                one.prepare()
