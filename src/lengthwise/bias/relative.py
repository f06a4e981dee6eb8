"""Learned relative positions: the bias says which entry each pair of query and key looks up, the model
holds the table (`lengthwise.model.learned_bias`), for it is trained."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lengthwise.bias.base import Causal, LearnedTables, SomeSite, distances
from lengthwise.problems.layout import Layout


def buckets(distance: Tensor, count: int, farthest: int, both: bool) -> Tensor:
    """The bucket of each distance (Raffel et al. 2020, section 2.1, as their code has it).

    Half of the buckets hold one distance each, the others logarithmically more, up to `farthest`, from
    which on all share the last. With `both`, keys after the query have the upper half of all buckets;
    without, they share the bucket of distance 0 (they are closed to a causal bias).
    """
    first = torch.zeros_like(distance)
    if both:
        count //= 2
        first = (distance > 0) * count
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    single = count // 2
    steps = (distance.clamp(min=1).float() / single).log() / math.log(farthest / single)
    far = (single + (steps * (count - single)).long()).clamp(max=count - 1)
    return first + torch.where(distance < single, distance, far)


class T5(Causal):
    """A learned number for each head and bucket of distance (Raffel et al. 2020), shared by all layers.

    Causal self-attention has buckets for the past only; the encoder, and cross-attention, for both
    sides. T5 itself has none at cross-attention: its encoder tells keys where they are. Our encoder is
    the identity by default, so that without them no row could tell one key of the problem from another.

    Args:
        heads: attention heads.
        count: buckets at each site, even.
        farthest: the distance from which on all share a bucket.
    """

    def __init__(self, heads: int, count: int = 32, farthest: int = 128) -> None:
        super().__init__(heads)
        self.count, self.farthest = count, farthest
        self.learned = LearnedTables("numbers", count)

    def __str__(self) -> str:
        return f"{super().__str__()}, with a learned bias for each bucket of distance"

    def relative(self, site: SomeSite, layout: Layout, queries: range) -> Tensor:
        """See `relative_index`."""
        far = distances(layout.keys(site), queries)
        return buckets(far, self.count, self.farthest, both=site != "self")


class Shaw(Causal):
    """A learned key for each clipped distance, added to the keys (Shaw et al. 2018, section 3.2).

    Heads share the keys, layers do not. The values that they add besides (their table 3 finds that the keys
    suffice) are left out. Their cross-attention has no relative keys; ours has, for the reason given at
    `T5`.

    Args:
        heads: attention heads.
        farthest: the distance at which distances are clipped, k there.
    """

    def __init__(self, heads: int, farthest: int = 16) -> None:
        super().__init__(heads)
        self.farthest = farthest
        self.learned = LearnedTables("keys", 2 * farthest + 1)

    def __str__(self) -> str:
        return f"{super().__str__()}, with a learned key for each distance"

    def relative(self, site: SomeSite, layout: Layout, queries: range) -> Tensor:
        """See `relative_index`."""
        far = distances(layout.keys(site), queries)
        return far.clamp(-self.farthest, self.farthest) + self.farthest
