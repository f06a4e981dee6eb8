"""KERPLE: distances through learned kernels, one of each head (Chi et al. 2022)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lengthwise.bias.base import Causal, LearnedModules, SomeSite, sequence_distances
from lengthwise.methods import Bias
from lengthwise.problems.layout import Layout

# Their code keeps both numbers of a head above this.
_LEAST = 1e-2


class KerpleBias(Causal):
    """A learned number for each distance, counted in one sequence of problem and answer."""

    def __init__(self, heads: int, kernel: type[Kernel]) -> None:
        super().__init__(heads)
        self.learned = LearnedModules(lambda heads, width: kernel(heads))
        self.kernel = kernel

    def __str__(self) -> str:
        return f"{super().__str__()}, with a learned {self.kernel.word} of distance for each head (KERPLE)"

    def relative(self, site: SomeSite, layout: Layout, queries: range) -> Tensor:
        """See `relative_index`: distances."""
        return sequence_distances(site, layout, queries).abs()


class Kernel(nn.Module):
    """Two positive numbers of each head, drawn uniformly at first, as in their code.

    Their code begins with a `slope` from 0 to 2 in the logarithmic kernel, and with an `inner` from 0 to 2
    in the power kernel.
    """

    word: ClassVar[str]
    begins: ClassVar[tuple[float, float]]

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.rand(heads) * self.begins[0])
        self.inner = nn.Parameter(torch.rand(heads) * self.begins[1])


class LogKernel(Kernel):
    """-r1 log(1 + r2 d)."""

    word, begins = "logarithm", (2.0, 1.0)

    def forward(self, index: Tensor, query: Tensor) -> Tensor:
        """Distances `[query, key]` to numbers `[head, query, key]`."""
        slope, inner = (x.clamp(min=_LEAST)[:, None, None] for x in (self.slope, self.inner))
        return -slope * torch.log1p(inner * index)


class PowerKernel(Kernel):
    """-r1 d^r2, r2 at most 2."""

    word, begins = "power", (1.0, 2.0)

    def forward(self, index: Tensor, query: Tensor) -> Tensor:
        """Distances `[query, key]` to numbers `[head, query, key]`."""
        slope = self.slope.clamp(min=_LEAST)[:, None, None]
        power = self.inner.clamp(_LEAST, 2.0)[:, None, None]
        return -slope * index.float() ** power


@dataclass(frozen=True)
class KerpleLog(Bias):
    """KERPLE with the logarithmic kernel (section 4, equation 3), every layer and site with its own.

    To them there is one sequence; at cross-attention the distance of row i to key k is
    source_length + i - k.
    In an encoder, which sees both sides, distances have no sign.
    """

    name = "kerple_log"
    paper = "Chi et al. 2022"
    arxiv = "2205.09921"
    needs = ("lengths",)

    def bias(self, heads: int) -> KerpleBias:
        return KerpleBias(heads, LogKernel)


@dataclass(frozen=True)
class KerplePower(Bias):
    """KERPLE with the power kernel; else as `KerpleLog`."""

    name = "kerple_power"
    paper = "Chi et al. 2022"
    arxiv = "2205.09921"
    needs = ("lengths",)

    def bias(self, heads: int) -> KerpleBias:
        return KerpleBias(heads, PowerKernel)
