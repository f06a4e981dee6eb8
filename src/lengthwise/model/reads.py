"""Which keys the queries of a bias of lines read: what it opens, without how large the opening is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.bias import CLOSED, OpenKeys


@dataclass(frozen=True)
class Reads:
    """The keys that each query reads at one site, all equally open.

    Attributes:
        index: int64 `[head, query, slot]`; `keys` in slots that are not used.
        keys: number of keys.
    """

    index: Tensor
    keys: int

    @classmethod
    def of(cls, open_keys: OpenKeys, keys: int) -> Reads | None:
        """Those of a bias; None where it prefers one of several open keys to another."""
        index, value = open_keys.index, open_keys.value
        is_open = value > CLOSED
        if index.shape[-1] > 1 and bool((is_open & (value != 0)).any()):
            return None
        return cls(index.masked_fill(~is_open, keys), keys)

    @property
    def copies(self) -> bool:
        """Whether no query reads more than one key."""
        return self.index.shape[-1] == 1

    @cached_property
    def itself(self) -> bool:
        """Whether every query of every head reads the key of its own row alone; the first is row 0's."""
        rows = torch.arange(self.index.shape[1])[:, None]
        return self.copies and torch.equal(self.index, rows.expand_as(self.index))

    @cached_property
    def columns(self) -> dict[bytes, Tensor]:
        """Each different column of keys `[query]`, one slot of one head, by its bytes."""
        slots = self.index.transpose(1, 2).flatten(0, 1)
        return {slot.numpy().tobytes(): slot for slot in slots}

    @cached_property
    def places(self) -> Tensor:
        """The place among `columns` of each slot of each head, int64 `[head, slot]`."""
        order = {name: place for place, name in enumerate(self.columns)}
        slots = self.index.transpose(1, 2)
        return torch.tensor([[order[slot.numpy().tobytes()] for slot in head] for head in slots])

    @cached_property
    def _keys(self) -> Tensor:
        return torch.stack(list(self.columns.values()))

    def entries(self, index: Tensor, entries: int) -> Tensor:
        """The entry that each query reads in every column, int64 `[column, batch, query]`.

        Args:
            index: the entry of each key, int64 `[batch, key]`.
            entries: their number, which stands where nothing is read.
        """
        return F.pad(index, (0, 1), value=entries)[:, self._keys].transpose(0, 1)

    def narrow(self, keys: int) -> Reads:
        """The same of the first keys alone; the others must not be read."""
        return Reads(self.index.clamp(max=keys), keys)
