"""Plans: one layer's bias at one site, ready to attend with. Several paths, one meaning."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.bias import CLOSED, OpenKeys, SomeSite
from lengthwise.engine.few_keys import attend_few
from lengthwise.problems.layout import Layout
from lengthwise.problems.sheets import Seen, SheetLayout, Sheets

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
    reads: LinesPlan | None = field(default=None, compare=False)
    scores = True

    def row(self, row: int, keys: int | None = None) -> DensePlan:
        """The plan of one query, for the first keys alone (all by default); the others must be closed."""
        bias = None if self.bias is None else self.bias[:, row : row + 1, :keys]
        relative = None if self.relative is None else self.relative[row : row + 1, :keys]
        open_rows = None if self.open_rows is None else self.open_rows[:, row : row + 1]
        return DensePlan(bias, open_rows, relative)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """Read `[batch, head, query, channel]` from keys and values `[batch, head, key, channel]`.

        Args:
            query, key, value: what attends, is attended to, and is read.
            term: what was learned, added to the logits besides: `[(batch,) head, query, key]`.
        """
        # Of a single query the fused kernel, one call for three, is never slower.
        if key.shape[2] <= FEW_KEYS and query.shape[2] > 1:
            read = attend_few(query, key, value, self._with(term))
        else:
            bias = self._with(term)
            # With a batch axis, or the kernel that is linear in memory is not taken.
            if bias is not None:
                bias = (bias if bias.dim() == 4 else bias[None]).to(query.dtype)
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
class LinesPlan:
    """One layer's bias at one site as the keys that each query reads, ready for the lines path.

    Attributes:
        index: int64 `[head, query, slot]`; `keys` in closed slots.
        value: what is added to their logits, float32 `[head, query, slot]`, or `[head, 1, slot]` where
            it is the same for all queries; anything in closed slots.
        keys: number of keys.
    """

    index: Tensor
    value: Tensor
    keys: int

    @classmethod
    def of(cls, open_keys: OpenKeys, keys: int, device: torch.device | str = "cpu") -> LinesPlan:
        """The plan of open keys, of `keys` in all."""
        index = open_keys.index.masked_fill(open_keys.value == CLOSED, keys)
        return cls(index.to(device), open_keys.value.to(device), keys)

    @property
    def scores(self) -> bool:
        return self.index.shape[-1] > 1

    @property
    def reads(self) -> LinesPlan | None:
        """As in `DensePlan`."""
        return None if self.slot_values is None else self

    @cached_property
    def slot_values(self) -> Tensor | None:
        """What is added to the logits of each slot, `[head, slot]`; None where it differs by query.

        Of a single slot, too: in one attention with other plans it counts (`lengthwise.model.joint`).
        """
        is_open, values = self.index < self.keys, self.value.amax(dim=1)
        differs = bool((is_open & (self.value != values[:, None])).any())
        return None if differs else values

    @cached_property
    def itself(self) -> bool:
        """Whether every query of every head reads the key of its own row alone; the first is row 0's."""
        rows = torch.arange(self.index.shape[1])[:, None]
        return not self.scores and torch.equal(self.index, rows.expand_as(self.index))

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
    def _columns(self) -> Tensor:
        return torch.stack(list(self.columns.values()))

    def entries(self, index: Tensor, entries: int) -> Tensor:
        """The entry that each query reads in every column, int64 `[column, batch, query]`.

        Args:
            index: the entry of each key, int64 `[batch, key]`.
            entries: their number, which stands where nothing is read.
        """
        return F.pad(index, (0, 1), value=entries)[:, self._columns].transpose(0, 1)

    def back(self, last: int) -> int:
        """How many of the last keys hold all that the last queries read, and their own."""
        earliest = int(self.index[:, -last:].min())
        return max(last, self.keys - earliest)

    @cached_property
    def _safe(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys that exist, what is added (`-inf` closes), and the open rows as in `DensePlan`."""
        closed = self.index == self.keys
        value = self.value.expand(closed.shape).masked_fill(closed, CLOSED)
        return self.index.masked_fill(closed, 0), *close_safely(value)

    def prepare(self) -> None:
        """Work out now what otherwise is when it is first read."""
        _ = self._safe

    def row(self, row: int, keys: int | None = None) -> LinesPlan:
        """As `DensePlan.row`."""
        index, value = self.index[:, row : row + 1], self.value[:, row : row + 1]
        keys = self.keys if keys is None else keys
        return LinesPlan(index.masked_fill(index == self.keys, keys), value, keys)

    def split(self, parts: int) -> list[LinesPlan]:
        """The plans of as many equal parts of the queries."""
        index, bias, open_rows = self._safe
        split = zip(
            *(x.chunk(parts, dim=1) for x in (self.index, self.value, index, bias)),
            [None] * parts if open_rows is None else open_rows.chunk(parts, dim=1),
            strict=True,
        )
        plans = []
        for own, value, *safe in split:
            plans.append(LinesPlan(own, value, self.keys))
            plans[-1].__dict__["_safe"] = safe  # worked out once for all
        return plans

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """As `DensePlan.attend`, without a term; with one slot, from the values alone."""
        read, open_rows = self._gather(value), self._safe[2]
        if self.scores:
            read = self._slots(query, key)[..., None] * read
        read = read.sum(dim=2).transpose(1, 2)
        return read if open_rows is None else read * open_rows

    def weights(self, query: Tensor, key: Tensor, term: Tensor | None = None) -> Tensor:
        """As `DensePlan.weights`."""
        index, bias, open_rows = self._safe
        slots = bias.new_ones(len(query), *bias.shape)
        if self.scores:
            slots = self._slots(query, key).permute(0, 3, 1, 2)
        if open_rows is not None:
            slots = slots * open_rows
        full = slots.new_zeros(*slots.shape[:-1], self.keys)
        return full.scatter_add(-1, index.expand_as(slots), slots)

    def _gather(self, x: Tensor) -> Tensor:
        """`[batch, head, key, channel]` to `[batch, query, slot, head, channel]`."""
        batch, heads, _, channels = x.shape
        if batch == 1:
            # Whole rows of a table, several times as fast as element by element.
            table = x[0].transpose(0, 1).reshape(-1, channels)
            places = self._safe[0].permute(1, 2, 0) * heads + torch.arange(heads, device=x.device)
            return F.embedding(places, table)[None]
        index = self._safe[0].view(1, heads, -1, 1).expand(batch, -1, -1, channels)
        found = x.gather(2, index).view(batch, *self.index.shape, channels)
        return found.permute(0, 2, 3, 1, 4)

    def _slots(self, query: Tensor, key: Tensor) -> Tensor:
        """The shares of the slots, `[batch, query, slot, head]`."""
        logits = (query.transpose(1, 2)[:, :, None] * self._gather(key)).sum(dim=-1)
        bias = self._safe[1].permute(1, 2, 0)
        return (logits / math.sqrt(query.shape[-1]) + bias).softmax(dim=2)


@dataclass(frozen=True)
class OwnPlan:
    """One layer's bias at self-attention where every query reads its own row and nothing else.

    Attributes:
        heads: attention heads.
        reads: as in `DensePlan`.
        value: what is added to the logit of that key, float32 `[head]`, which counts where more is read in
            the same attention; None adds nothing.
    """

    heads: int
    reads: LinesPlan | None = field(default=None, compare=False)
    value: Tensor | None = field(default=None, compare=False)
    scores = False

    def row(self, row: int, keys: int | None = None) -> OwnPlan:
        """The plan of one query."""
        return self

    def split(self, parts: int) -> list[OwnPlan]:
        """As `LinesPlan.split`."""
        return [self] * parts

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, term: Tensor | None = None
    ) -> Tensor:
        """As `DensePlan.attend`, from the values alone."""
        return value

    def weights(self, query: Tensor, key: Tensor, term: Tensor | None = None) -> Tensor:
        """As `DensePlan.weights`."""
        own = torch.eye(key.shape[2], dtype=key.dtype, device=key.device)
        return own.expand(len(key), self.heads, -1, -1)


Plan = DensePlan | LinesPlan | OwnPlan
LayerPlan = dict[SomeSite, Plan]
# As far as they are laid out for; position schemes ask it for places (`lengthwise.problems.tokens`).
Laid = Layout | SheetLayout | Sheets | Seen


class AttentionPlan(list[LayerPlan]):
    """The plan of every layer, and the layout that they are for."""

    def __init__(self, layers: Iterable[LayerPlan], layout: Laid) -> None:
        super().__init__(layers)
        self.layout = layout


def close_safely(bias: Tensor) -> tuple[Tensor, Tensor | None]:
    """Give rows without an open key zeros, and say which they are."""
    open_rows = (bias > CLOSED).any(dim=-1, keepdim=True)
    if open_rows.all():
        return bias.contiguous(), None
    return bias.masked_fill(~open_rows, 0.0), open_rows.float()
