"""All weights of a model in one tensor, so that an optimizer has one to update and not some fifty.

Adam spends more on each small tensor than on its numbers; together they cost a fifth (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class FlatWeights:
    """Weights, and the tensor that they are slices of from now on.

    Attributes:
        parts: the weights, of one type on one device; what changes `whole` changes them.
        whole: all of them, one after another, `[number]`; what an optimizer is given.
    """

    def __init__(self, parts: Iterable[nn.Parameter]) -> None:
        self.parts = list(parts)
        self.whole = nn.Parameter(torch.cat([part.detach().flatten() for part in self.parts]))
        slices = self.whole.detach().split([part.numel() for part in self.parts])
        for part, values in zip(self.parts, slices, strict=True):
            part.data = values.view_as(part)

    def gather(self, gradients: Iterable[Tensor]) -> Tensor:
        """One gradient of `whole` from those of the parts."""
        return torch.cat(list(map(torch.ravel, gradients)))
