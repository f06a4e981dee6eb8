"""A batch in parts, one after the other: the same step in less memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lengthwise.engine.flat_weights import FlatWeights
from lengthwise.training.halves import Shards, backward


def accumulated(
    loss: Callable[..., Tensor],
    batch: Sequence[Tensor],
    weights: FlatWeights,
    shards: Shards | None,
    count: int,
) -> Tensor:
    """As `backward`, part by part; the gradient is that of the whole batch, up to rounding.

    Of sheets of different lengths each part weighs the same, as with shards and with several processes,
    whatever symbols it has.

    Args:
        loss, batch, weights: as of `backward`.
        shards: how each part is computed.
        count: parts, of equal size.
    """
    if count == 1:
        return backward(loss, batch, weights, shards)
    first, *rest = zip(*(tensor.chunk(count) for tensor in batch), strict=True)
    value = backward(loss, first, weights, shards).clone()
    for part in rest:
        before = weights.whole.grad
        assert before is not None
        value += backward(loss, part, weights, shards)
        assert weights.whole.grad is not None
        weights.whole.grad += before
    assert weights.whole.grad is not None
    weights.whole.grad /= count
    return value / count
