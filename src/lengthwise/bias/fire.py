"""FIRE: a small network of the distance, relative to how far there is to look back (Li et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lengthwise.bias.base import Causal, LearnedModules, SomeSite, sequence_distances
from lengthwise.methods import Bias
from lengthwise.problems.layout import Layout


class FireBias(Causal):
    """Of each query and key, counted in one sequence of problem and answer, distance and query.

    In an encoder, which sees both sides, the distance has no sign, and the later of the two is the query.
    """

    def __init__(self, heads: int, method: Fire) -> None:
        super().__init__(heads)
        self.learned = LearnedModules(lambda heads, width: FireNetwork(heads, method))

    def __str__(self) -> str:
        return f"{super().__str__()}, with a learned function of distance and position (FIRE)"

    def relative(self, site: SomeSite, layout: Layout, queries: range) -> Tensor:
        """See `relative_index`: int64 `[query, key, 2]`, the distance and the position of the query."""
        distance = sequence_distances(site, layout, queries)
        begin = 0 if site == "encoder" else layout.source_length
        position = begin + torch.arange(queries.start, queries.stop)[:, None]
        if site == "encoder":
            position = torch.maximum(position, position - distance)
        return torch.stack([distance.abs(), position.expand_as(distance)], dim=-1)


class FireNetwork(nn.Module):
    """f(psi(i - j) / psi(max(i, L))) of each head, psi(x) = log(1 + c x), f a network of one hidden layer.

    c and L are learned; f has a rectifier, as their code does.
    """

    def __init__(self, heads: int, method: Fire) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(method.rate))
        # A multiple, as in their code: its steps are then as large as those of other weights.
        self.threshold = nn.Parameter(torch.tensor(1.0))
        self.first_threshold = method.threshold
        self.hidden = nn.Linear(1, method.hidden)
        self.out = nn.Linear(method.hidden, heads)

    def forward(self, index: Tensor, query: Tensor) -> Tensor:
        """Distances and positions `[query, key, 2]` to numbers `[head, query, key]`."""
        distance, position = index.float().unbind(-1)
        farthest = torch.maximum(position, (self.threshold * self.first_threshold).abs())
        share = self._log(distance) / (self._log(farthest) + 1e-6)
        return self.out(self.hidden(share[..., None]).relu()).permute(2, 0, 1)

    def _log(self, x: Tensor) -> Tensor:
        return torch.log1p((self.rate * x).abs())


@dataclass(frozen=True)
class Fire(Bias):
    """FIRE (section 3): every layer, at every site, has a function of its own.

    To them there is one sequence; a row of our answer stands behind all keys of the problem, so that at
    cross-attention the distance of row i to key k is source_length + i - k.

    Attributes:
        hidden: channels of the network.
        rate: c at first.
        threshold: L at first, tokens.
    """

    name = "fire"
    paper = "Li et al. 2023"
    arxiv = "2310.04418"
    needs = ("lengths",)

    hidden: int = 32
    rate: float = 0.1
    threshold: float = 512.0

    def __post_init__(self) -> None:
        self.positive("hidden")
        if self.rate <= 0 or self.threshold <= 0:
            raise ValueError(
                f"rate and threshold must be above 0, got {self.rate} and {self.threshold}"
            )

    def bias(self, heads: int) -> FireBias:
        return FireBias(heads, self)
