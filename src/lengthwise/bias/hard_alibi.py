"""Hard-ALiBi: some heads see the last few tokens alone, the others everything (Jelassi et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lengthwise.bias.base import (
    Site,
    SomeSite,
    Spoken,
    causal,
    closed_where,
    sequence_distances,
)
from lengthwise.methods import Bias
from lengthwise.problems.layout import Layout


class HardAlibiBias(Spoken):
    """Keys m and more tokens back are closed, m of each head's own; the last heads have none."""

    def __init__(self, heads: int, masked: int) -> None:
        self.heads, self.masked = heads, masked

    def __str__(self) -> str:
        return (
            f"every head sees the whole problem and all of the answer so far, but for the first "
            f"{self.masked}: the k-th of these sees the last k tokens"
        )

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        """See `AttentionBias.dense`."""
        bias = self._near(site, layout, queries)
        return bias + causal(layout.target_length, queries) if site == "self" else bias

    def encoder(self, layout: Layout) -> Tensor:
        """See `encoder_bias`: as far to both sides."""
        return self._near("encoder", layout, range(layout.source_length))

    def _near(self, site: SomeSite, layout: Layout, queries: range) -> Tensor:
        most = torch.arange(1, self.heads + 1)[:, None, None]
        far = sequence_distances(site, layout, queries).abs() >= most
        return closed_where(far & (most <= self.masked))


@dataclass(frozen=True)
class HardAlibi(Bias):
    """Hard-ALiBi (section 2): without positions; the k-th of the masked heads sees the last k tokens.

    To them there is one sequence; at cross-attention the distance of row i to key k is
    source_length + i - k, so that masked heads soon see nothing of the problem, and add nothing there. The
    shares of what a head reads are of the problem and of the answer apart, for ours is a model with
    cross-attention.

    Attributes:
        masked: heads with a mask; the others have none.
    """

    name = "hard_alibi"
    paper = "Jelassi et al. 2024"
    arxiv = "2402.01032"
    needs = ("lengths",)

    masked: int = 2

    def __post_init__(self) -> None:
        self.positive("masked")

    def bias(self, heads: int) -> HardAlibiBias:
        if self.masked >= heads:
            raise ValueError(
                f"bias.masked must be below model.heads, got {self.masked} and {heads}"
            )
        return HardAlibiBias(heads, self.masked)
