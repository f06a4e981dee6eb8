"""The trained part of relative positions: tables that pairs of query and key look up."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lengthwise.bias import LearnedModules, LearnedTables


class RelativeNumbers(nn.Module):
    """A number for each entry and head, added to scores (Raffel et al. 2020)."""

    def __init__(self, entries: int, heads: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(entries, heads)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, index: Tensor, query: Tensor) -> Tensor:
        """Entries `[query, key]` to numbers `[head, query, key]`."""
        return self.table(index).permute(2, 0, 1)


class RelativeKeys(nn.Module):
    """A key for each entry, which adds its product with the query to scores (Shaw et al. 2018)."""

    def __init__(self, entries: int, heads: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(entries, width // heads)
        nn.init.normal_(self.table.weight, std=(width // heads) ** -0.5)

    def forward(self, index: Tensor, query: Tensor) -> Tensor:
        """Entries `[query, key]`, queries `[batch, head, query, channel]` to their products.

        These are `[batch, head, query, key]`.
        """
        products = query @ self.table.weight.T / math.sqrt(query.shape[-1])
        return products.gather(-1, index.expand(*products.shape[:2], -1, -1))


_KINDS = {"numbers": RelativeNumbers, "keys": RelativeKeys}


def make_tables(
    learned: LearnedTables | LearnedModules, layers: int, heads: int, width: int
) -> nn.ModuleList:
    """The tables, or modules, of one site: one of each layer, or a single one of all layers."""
    if isinstance(learned, LearnedModules):
        return nn.ModuleList(learned.make(heads, width) for _ in range(layers))
    count = 1 if learned.kind == "numbers" else layers
    make = _KINDS[learned.kind]
    return nn.ModuleList(make(learned.entries, heads, width) for _ in range(count))
