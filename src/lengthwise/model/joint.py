"""Problem and answer in one sequence: the rows of a decoder-only model read both in one attention.

One softmax shares itself out among tokens of the problem and of the answer; what may be read of either is
said by the same bias as where they are read apart, so lines, cones and contexts are the same. Tokens of the
problem read themselves alone: what a layer knows of one is what that token is, and a line that leads to it
names it. Their states are worked out once for each token that differs (`Transformer.memories`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lengthwise.bias import CLOSED
from lengthwise.model.layers import Attention
from lengthwise.model.plans import DensePlan, LinesPlan, OwnPlan, Plan, close_safely
from lengthwise.model.views import Cache, Rows, Source


class Joint:
    """Attention over the source and over rows at once.

    Args:
        own: what rows read of rows.
        cross: what they read of the source; its keys stand before those of the rows.
    """

    def __init__(self, own: Rows, cross: Source) -> None:
        self.own, self.cross = own, cross
        if cross.index is not None:  # rows are looked up before this attention, not within it
            own.index, cross.index = cross.index, None

    def rows(self, x: Tensor) -> Tensor:
        """See `Reader.rows`."""
        return self.own.rows(x)

    def read(self, attention: Attention, given: Callable[[], Tensor]) -> Tensor:
        """See `Reader.read`."""
        own, cross = self.own, self.cross
        # What is kept for later rows is kept whole, for these may read more.
        own.scores = cross.scores = (
            isinstance(own, Cache) or own.keep or share_attention(own.plan, cross.plan)
        )
        own.before = cross.remembered(attention)
        query, key, value = own.parts(attention, given)
        source = own.before[1].shape[2]
        sizes = query.shape[2], source, key.shape[2] - source
        plan = join_plans(own.plan, cross.plan, *sizes, device=query.device)
        if own.keep:
            weights = plan.weights(query, key)
            cross.weights, own.weights = weights[..., :source], weights[..., source:]
        return attention.join(plan.attend(query, key, value))


def share_attention(own: Plan, cross: Plan) -> bool:
    """Whether some head may read two keys, so that scores decide: of rows, of the source, or of both."""
    if isinstance(own, DensePlan) or not isinstance(cross, LinesPlan) or own.scores or cross.scores:
        return True
    kept = vars(cross).get("shared")
    if kept is None or kept[0] is not own:
        there = isinstance(own, OwnPlan) or own.index[..., 0] < own.keys
        kept = own, bool(((cross.index[..., 0] < cross.keys) & there).any())
        vars(cross)["shared"] = kept
    return kept[1]


def join_plans(
    own: Plan,
    cross: Plan,
    rows: int,
    source: int,
    keys: int,
    device: torch.device | str = "cpu",
) -> DensePlan | LinesPlan:
    """The plan of both, the source's keys first; kept with that of the source, for the next time.

    Args:
        own: of rows.
        cross: of the source.
        rows: how many read.
        source, keys: how many keys there are, of the source and of rows.
        device: where the plan is used.
    """
    # Read once, and replaced as a whole: threads share plans.
    kept, key = vars(cross).get("joined"), (rows, source, keys, device)
    if kept is not None and kept[0] is own and kept[1] == key:
        return kept[2]
    if isinstance(own, DensePlan) or isinstance(cross, DensePlan):
        parts = _matrix(cross, rows, source), _matrix(own, rows, keys)
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        whole = torch.cat([part.to(device).expand(*shape, -1) for part in parts], dim=-1)
        plan = DensePlan(*close_safely(whole)) if bool(whole.any()) else DensePlan(None, None)
    else:
        assert isinstance(cross, LinesPlan)
        plan = _lines(own, cross, rows, keys)
    vars(cross)["joined"] = own, key, plan
    return plan


def _lines(own: LinesPlan | OwnPlan, cross: LinesPlan, rows: int, keys: int) -> LinesPlan:
    """Open keys of both, with one slot where none has two."""
    source = cross.keys
    if isinstance(own, OwnPlan):
        last = torch.arange(keys - rows, keys, device=cross.index.device)
        index = last[:, None].expand(own.heads, rows, 1)
        own = LinesPlan(index, _own_value(own)[..., None].to(index.device), keys)
    closed = source + own.keys
    index = cross.index.masked_fill(cross.index == source, closed), own.index + source
    value = cross.value.expand(index[0].shape), own.value.expand(index[1].shape)
    single = all(part.shape[-1] == 1 for part in index)
    if single and not bool(((index[0] < closed) & (index[1] < closed)).any()):
        chosen = torch.where(index[0] < closed, value[0], value[1])
        return LinesPlan(torch.minimum(*index), chosen, closed)
    return LinesPlan(torch.cat(index, dim=-1), torch.cat(value, dim=-1), closed)


def _own_value(plan: OwnPlan) -> Tensor:
    """What is added to the logit of a row's own key, `[head, 1]`."""
    return torch.zeros(plan.heads, 1) if plan.value is None else plan.value[:, None]


def _matrix(plan: Plan, rows: int, keys: int) -> Tensor:
    """What a plan adds, `-inf` where it closes: float32 `[(problem,) head or 1, query, key]`."""
    if isinstance(plan, OwnPlan):
        own = torch.full((plan.heads, rows, keys), CLOSED)
        own.diagonal(keys - rows, dim1=1, dim2=2).copy_(_own_value(plan))
        return own
    if isinstance(plan, LinesPlan):
        found = torch.full((*plan.index.shape[:2], plan.keys + 1), CLOSED, device=plan.index.device)
        value = plan.value.expand(plan.index.shape)
        return found.scatter_reduce_(-1, plan.index, value, "amax")[..., :keys]
    if plan.bias is None:
        return torch.zeros(1, rows, keys)
    if plan.open_rows is None:
        return plan.bias
    return plan.bias.masked_fill(plan.open_rows == 0, CLOSED)
