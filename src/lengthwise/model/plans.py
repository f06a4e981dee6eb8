"""Plans: one layer's bias at one site, ready to attend with. Several paths, one meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.bias import SomeSite
from lengthwise.model.few_keys import attend_few
from lengthwise.model.reads import Reads

# Up to this many keys, dense matrices beat gathering, and plain products beat the fused kernel
# (docs/log.md, 2026-11-24, "Where a training step goes").
FEW_KEYS = 48

# In a training step gathering one open key of several costs as much as scoring about so many: with 33 lines
# to a head and 62 keys, lines took 136 ms and dense attention 40 (batch 32, one thread).
KEYS_PER_SLOT = 24


@dataclass(frozen=True)
class DensePlan:
    """One layer's bias at one site, ready for the dense path.

    Every plan says by `scores` whether it needs queries and keys, or reads from the values alone; then
    any tensor may stand for them.

    Attributes:
        bias: float32 `[head, query, key]`, or None where every key is open with value 0. Rows
            without an open key hold 0, for softmax needs one.
        open_rows: float32 `[head, query, 1]`: 0 in those rows, 1 elsewhere; None when all are open.
        relative: what the model's learned tables are asked for, int64 `[query, key]`; None without any.
        reads: the keys that are open, where they may be counted (`lengthwise.model.distinct`).
    """

    bias: Tensor | None
    open_rows: Tensor | None
    relative: Tensor | None = None
    reads: Reads | None = field(default=None, compare=False)
    scores = True

    def row(self, row: int) -> DensePlan:
        """The plan of one query."""
        relative = None if self.relative is None else self.relative[row : row + 1]
        return DensePlan(_cut(self.bias, row), _cut(self.open_rows, row), relative)

    def narrow(self, keys: int) -> DensePlan:
        """The plan of the first keys alone; the others must be closed."""
        bias, relative = (
            None if tensor is None else tensor[..., :keys] for tensor in (self.bias, self.relative)
        )
        return DensePlan(bias, self.open_rows, relative, _narrow(self.reads, keys))

    def pick(self, keys: list[int]) -> DensePlan:
        """The plan of some keys alone, in their order; the others must be closed."""
        bias, relative = (
            None if tensor is None else tensor[..., keys] for tensor in (self.bias, self.relative)
        )
        return DensePlan(bias, self.open_rows, relative)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """Read `[batch, head, query, channel]` from keys and values `[batch, head, key, channel]`.

        Args:
            query, key, value: what attends, is attended to, and is read.
            term: what was learned, added to the logits besides: `[(batch,) head, query, key]`.
        """
        if key.shape[2] <= FEW_KEYS:
            read = attend_few(query, key, value, self._with(term))
        else:
            bias = self._with(term)
            # With a batch axis, or the kernel that is linear in memory is not taken.
            bias = bias[None] if bias is not None and bias.dim() == 3 else bias
            read = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return read if self.open_rows is None else read * self.open_rows

    def weights(self, query: Tensor, key: Tensor, term: Tensor | None = None) -> Tensor:
        """The attention weights `[batch, head, query, key]`."""
        logits, bias = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]), self._with(term)
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        return weights if self.open_rows is None else weights * self.open_rows

    def _with(self, term: Tensor | None) -> Tensor | None:
        """The bias and a term together."""
        if term is None or self.bias is None:
            return self.bias if term is None else term
        return self.bias + term


@dataclass(frozen=True)
class CopyPlan:
    """One layer's bias at one site where no query has more than one open key and keys are few.

    Attributes:
        open: float32 `[head, query, key]`: 1 for the open keys, 0 for the others.
        reads: as in `DensePlan`.
    """

    open: Tensor
    reads: Reads | None = field(default=None, compare=False)
    scores = False

    def row(self, row: int) -> CopyPlan:
        """The plan of one query."""
        return CopyPlan(self.open[:, row : row + 1])

    def narrow(self, keys: int) -> CopyPlan:
        """As `DensePlan.narrow`."""
        return CopyPlan(self.open[..., :keys], _narrow(self.reads, keys))

    def pick(self, keys: list[int]) -> CopyPlan:
        """As `DensePlan.pick`."""
        return CopyPlan(self.open[..., keys])

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """As `DensePlan.attend`, from the values alone."""
        return self.open @ value

    def weights(self, query: Tensor, key: Tensor, term: Tensor | None = None) -> Tensor:
        """As `DensePlan.weights`."""
        return self.open.expand(len(query), -1, -1, -1)


@dataclass(frozen=True)
class LinesPlan:
    """One layer's bias at one site, ready for the lines path.

    Attributes:
        index: open keys, int64 `[head, query, slot]`.
        bias: float32 `[head, query, slot]`, `-inf` in unused slots; 0 in rows without an open key.
        open_rows: as in `DensePlan`.
        keys: number of keys.
        reads: as in `DensePlan`.
    """

    index: Tensor
    bias: Tensor
    open_rows: Tensor | None
    keys: int
    reads: Reads | None = field(default=None, compare=False)

    @property
    def scores(self) -> bool:
        return self.index.shape[-1] > 1

    def row(self, row: int) -> LinesPlan:
        """The plan of one query."""
        rows = slice(row, row + 1)
        return LinesPlan(
            self.index[:, rows], self.bias[:, rows], _cut(self.open_rows, row), self.keys
        )

    def narrow(self, keys: int) -> LinesPlan:
        """As `DensePlan.narrow`."""
        return replace(self, keys=keys, reads=_narrow(self.reads, keys))

    def pick(self, keys: list[int]) -> LinesPlan:
        """As `DensePlan.pick`."""
        place = self.index.new_zeros(self.keys)
        place[keys] = torch.arange(len(keys), device=place.device)
        return replace(self, index=place[self.index], keys=len(keys), reads=None)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """As `DensePlan.attend`, without a term; with one slot, from the values alone."""
        read = self._gather(value)
        if self.scores:
            read = self._slots(query, key)[..., None] * read
        read = read.sum(dim=-2)
        return read if self.open_rows is None else read * self.open_rows

    def weights(self, query: Tensor, key: Tensor, term: Tensor | None = None) -> Tensor:
        """As `DensePlan.weights`."""
        slots = self._slots(query, key)
        if self.open_rows is not None:
            slots = slots * self.open_rows
        full = slots.new_zeros(*slots.shape[:-1], self.keys)
        return full.scatter_add(-1, self.index.expand(len(slots), -1, -1, -1), slots)

    def _gather(self, x: Tensor) -> Tensor:
        """`[batch, head, key, channel]` to `[batch, head, query, slot, channel]`."""
        heads, queries, slots = self.index.shape
        if len(x) == 1 and not torch.is_grad_enabled():
            # Whole rows of a table, several times as fast as element by element; backward is slower.
            table = x[0].transpose(0, 1).reshape(-1, x.shape[-1])
            places = self.index * heads + torch.arange(heads, device=x.device)[:, None, None]
            return F.embedding(places, table)[None]
        index = self.index.view(1, heads, queries * slots, 1)
        index = index.expand(x.shape[0], -1, -1, x.shape[-1])
        return x.gather(2, index).view(x.shape[0], heads, queries, slots, x.shape[-1])

    def _slots(self, query: Tensor, key: Tensor) -> Tensor:
        if not self.scores:
            return self.bias.new_ones(len(query), *self.bias.shape)
        logits = (query[..., None, :] * self._gather(key)).sum(dim=-1)
        return (logits / math.sqrt(query.shape[-1]) + self.bias).softmax(dim=-1)


@dataclass(frozen=True)
class OwnPlan:
    """One layer's bias at self-attention where every query reads its own row and nothing else.

    Attributes:
        heads: attention heads.
        reads: as in `DensePlan`.
    """

    heads: int
    reads: Reads | None = field(default=None, compare=False)
    scores = False

    def row(self, row: int) -> LinesPlan:
        """The plan of one query, among the keys of all rows."""
        index = torch.full((self.heads, 1, 1), row)
        return LinesPlan(index, torch.zeros(index.shape), None, row + 1)

    def narrow(self, keys: int) -> OwnPlan:
        """As `DensePlan.narrow`; the rows are as many."""
        return self

    def pick(self, keys: list[int]) -> OwnPlan:
        """As `DensePlan.pick`; the keys are those of the rows."""
        return self

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """As `DensePlan.attend`, from the values alone."""
        return value

    def weights(self, query: Tensor, key: Tensor, term: Tensor | None = None) -> Tensor:
        """As `DensePlan.weights`."""
        own = torch.eye(key.shape[2], dtype=key.dtype, device=key.device)
        return own.expand(len(key), self.heads, -1, -1)


Plan = DensePlan | CopyPlan | LinesPlan | OwnPlan
LayerPlan = dict[SomeSite, Plan]


def as_type(plan: LayerPlan, dtype: torch.dtype) -> LayerPlan:
    """A layer's plan for a model of another floating-point type."""

    def convert(value):
        return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

    return {
        site: replace(one, **{f.name: convert(getattr(one, f.name)) for f in fields(one)})
        for site, one in plan.items()
    }


def _narrow(reads: Reads | None, keys: int) -> Reads | None:
    return None if reads is None else reads.narrow(keys)


def _cut(tensor: Tensor | None, row: int) -> Tensor | None:
    return None if tensor is None else tensor[:, row : row + 1]
