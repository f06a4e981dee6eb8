"""Position schemes: what is added to token embeddings. One function a scheme, one line in `POSITIONS`."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def sinusoidal(positions: Tensor, width: int) -> Tensor:
    """Sines and cosines of geometrically spaced wavelengths (Vaswani et al. 2017, section 3.5).

    Args:
        positions: integers `[position]`.
        width: the model's width, even.

    Returns:
        float32 `[position, width]`: sines in even channels, cosines in odd ones.
    """
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = positions[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def none(positions: Tensor, width: int) -> Tensor:
    """No positions (NoPE): order is known from the bias and the causal mask alone."""
    return torch.zeros(len(positions), width)


POSITIONS: dict[str, Callable[[Tensor, int], Tensor]] = {"sinusoidal": sinusoidal, "none": none}
