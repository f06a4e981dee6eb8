"""Position schemes: how a model knows where a token is. One function a scheme, one line in `POSITIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lengthwise.methods import Abacus, Coupling, Positions, Randomized


def _angles(positions: Tensor, width: int) -> Tensor:
    """Positions times rates of geometrically spaced wavelengths, `[position, width / 2]`."""
    return positions[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))


def sinusoidal(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017, section 3.5).

    Args:
        positions: integers `[position]`.
        width: the model's width, even.

    Returns:
        float32 `[position, width]`: sines in even channels, cosines in odd ones.
    """
    angles = _angles(positions, width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def logarithmic(positions: Tensor, width: int) -> Tensor:
    """log(1 + position) in every channel, float32 `[position, width]`."""
    return torch.log1p(positions.float())[:, None].expand(-1, width)


def none(positions: Tensor, width: int) -> Tensor:
    """No positions (NoPE): order is known from the bias and the causal mask alone."""
    return torch.zeros(len(positions), width)


def rotary(positions: Tensor, channels: int) -> Tensor:
    """Cosines and sines of the angles by which pairs of channels turn (Su et al. 2021, section 3.2).

    Args:
        positions: integers `[position]`.
        channels: channels of a head, even; channels 2c and 2c + 1 are a pair, as in that paper (other
            programs pair c with c + channels / 2).

    Returns:
        float32 `[2, position, channel]`: cosines, then sines, each twice in a row.
    """
    angles = _angles(positions, channels).repeat_interleave(2, dim=1)
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn the pairs of channels of queries or keys `[batch, head, position, channel]`.

    A score of a turned query and a turned key depends on the difference of their positions alone.
    """
    cosines, sines = rotation
    turned = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return x * cosines + turned * sines


@dataclass(frozen=True)
class Scheme:
    """A position scheme.

    Attributes:
        kind: `add`: `encode` gives what is added to token embeddings; `rotate`: `encode` gives the
            rotation of queries and keys, at self- and at cross-attention, each by its own position in
            its own sequence;
            `learn`: the model learns what is added, a table for the source and one for the target;
            `ids`: a method numbers the tokens, and says what a number becomes; `none`: nothing.
        encode: positions `[position]` and channels to a table.
        period: position i is taken for i modulo this; None where it is not.
        from_end: whether positions of the source are counted from its end, -1 for the last.
        adjustable: whether the setting `model.period` replaces `period`.
        method: the class, where it is of kind `ids`.
    """

    kind: Literal["none", "add", "rotate", "learn", "ids"]
    encode: Callable[[Tensor, int], Tensor] = none
    period: int | None = None
    from_end: bool = False
    adjustable: bool = False
    method: type[Positions] | None = None

    def __call__(self, positions: Tensor, channels: int) -> Tensor:
        """The table of these positions."""
        return self.encode(positions % self.period if self.period else positions, channels)

    def with_period(self, period: int) -> Scheme:
        """The scheme with a period of its own, where it takes one."""
        return replace(self, period=period) if self.adjustable else self


POSITIONS: dict[str, Scheme] = {
    "sinusoidal": Scheme("add", sinusoidal),
    "none": Scheme("none"),
    # Cyclic Position Indexing (paper, section on Attention Bias Scaffolding), T = 3 there. Counted from
    # the end of the source, which the paper need not do, for it pads all problems to one width: counted
    # from the start, the index of a digit depends on the width, and only widths congruent to that of
    # training modulo T come out right (docs/log.md).
    "cyclic": Scheme("add", sinusoidal, period=3, from_end=True, adjustable=True),
    # ENCODING_TYPE of the paper's repository: T = 3 for good, counted from the start; log(1 + i mod 7).
    "sin_periodical": Scheme("add", sinusoidal, period=3),
    "log_periodical": Scheme("add", logarithmic, period=7),
    "learned": Scheme("learn"),
    "rope": Scheme("rotate", rotary),
    "coupling": Scheme("ids", method=Coupling),
    "abacus": Scheme("ids", method=Abacus),
    "randomized": Scheme("ids", method=Randomized),
}
