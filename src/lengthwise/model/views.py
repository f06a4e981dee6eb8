"""Views: what the rows of each layer read; whatever computes logits prepares one for the same loop.

A view has a pair of readers for each layer, of self- and cross-attention. There are four makers: of whole
sequences and of the next row with a cache (`transformer.py`), of rows that differ (`distinct.py`), and of
any rows of any problems (`decoding/any_rows.py`; `decoding/walks.py` walks through them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lengthwise.model.layers import Attention, Embedded, Reader, look_up
from lengthwise.model.plans import LinesPlan, OwnPlan, Plan

View = Sequence[tuple[Reader, Reader | None]]
Turn = Callable[[Tensor, int], Tensor]


class Rows:
    """Self-attention of whole sequences: what rows read are rows.

    Args:
        plan: which keys are open.
        index: which of the entries that the layer is given stands in each row; None where each has its own.
        turn: turns queries or keys `[batch, head, position, channel]` by their positions, from a first one.
        learned: what is added to scores, of the plan's `relative` and the queries.
        keep: whether to keep the attention weights.

    Attributes:
        first: the position of the first query.
        weights: those kept, `[batch, head, query, key]`.
        scores: whether there are scores to compute; by default the plan says so.
        before: keys and values that stand before those of the rows, where both are read together.
    """

    weights: Tensor
    before: tuple[Tensor, Tensor] | None = None

    def __init__(
        self,
        plan: Plan,
        index: Tensor | None = None,
        *,
        turn: Turn | None = None,
        learned: nn.Module | None = None,
        keep: bool = False,
    ) -> None:
        self.plan, self.index, self.keep = plan, index, keep
        self.turn, self.learned, self.first = turn, learned, 0
        self._scores: bool | None = None

    @property
    def scores(self) -> bool:
        return self.plan.scores if self._scores is None else self._scores

    @scores.setter
    def scores(self, scores: bool) -> None:
        self._scores = scores

    def rows(self, x: Tensor) -> Tensor:
        """See `Reader.rows`."""
        return look_up(self.index, x)

    def read(self, attention: Attention, given: Callable[[], Tensor]) -> Tensor:
        """See `Reader.read`."""
        plan = self.plan
        if isinstance(plan, OwnPlan) and not self.keep:
            return self.rows(attention.read_itself(given()))
        query, key, value = self.parts(attention, given)
        relative = getattr(plan, "relative", None)
        term = None if relative is None or self.learned is None else self.learned(relative, query)
        if self.keep:
            self.weights = plan.weights(query, key, term)
        return attention.join(plan.attend(query, key, value, term))

    def parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; the values stand for all where no scores are needed."""
        query, key, value = self.own_parts(attention, given)
        value = self._behind(1, value)
        return query, self._behind(0, key) if self.scores else value, value

    def own_parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Those of the rows alone."""
        parts = attention.split(self.rows(attention.project(given(), self.scores)))
        query, key, value = parts[0], parts[-2 if self.scores else -1], parts[-1]
        return self.turned(query), self.turned(key), value

    def _behind(self, part: int, x: Tensor) -> Tensor:
        """Keys or values with those that stand before them."""
        if self.before is None:
            return x
        return torch.cat([self.before[part].expand(len(x), -1, -1, -1), x], dim=2)

    def turned(self, x: Tensor, first: int | None = None) -> Tensor:
        """Queries, or other things that stand at a first position, turned where the scheme turns them."""
        if self.turn is None or not self.scores:
            return x
        return self.turn(x, self.first if first is None else first)


class Cache(Rows):
    """Self-attention of the next rows, with keys and values of all rows before.

    Before each step its maker sets `plan`, of the keys done so far and these, and `first`.

    Args:
        size: rows that there is room for.
        options: as `Rows`.
    """

    def __init__(self, plan: Plan, size: int, **options) -> None:
        super().__init__(plan, **options)
        self.size = size
        self.kept: dict[int, Tensor] = {}

    def _behind(self, part: int, x: Tensor) -> Tensor:
        """As `Rows._behind`; those of the new rows are kept."""
        begin = 0 if self.before is None else self.before[part].shape[2]
        if part not in self.kept:
            batch, heads, _, channels = x.shape
            room = x.new_zeros(batch, begin + self.size, heads, channels).transpose(1, 2)
            # Of a single sequence, what a lookup reads lies together; else what a product reads.
            self.kept[part] = room if batch == 1 else room.contiguous()
            if self.before is not None:
                self.kept[part][:, :, :begin] = self.before[part]
        start = begin + self.first
        stop = start + x.shape[2]
        self.kept[part][:, :, start:stop] = x
        return self.kept[part][:, :, :stop]


class Source(Rows):
    """Cross-attention: rows read the source, whose keys and values, or what they mean, are worked out once.

    Args:
        memory: the source.
        readers: how many rows will read it, if more than a plan has.
        turn_source: turns keys, where that is not as `turn` does.
        options: as `Rows`.
    """

    def __init__(
        self,
        plan: Plan,
        memory: Embedded,
        index: Tensor | None = None,
        *,
        readers: int = 0,
        turn_source: Turn | None = None,
        **options,
    ) -> None:
        super().__init__(plan, index, **options)
        self.turn_source = turn_source
        self.memory, self.readers = memory, readers
        self.projected: tuple[Tensor, Tensor] | None = None
        self.meaning: Tensor | None = None
        self._ahead: Tensor | None = None

    def read_ahead(self, attention: Attention) -> None:
        """Work out what all rows of the plan read, where that needs no query: then reads are of those from
        `first` on, as many as the plan has that is set later."""
        if isinstance(self.plan, LinesPlan) and not self.plan.scores:
            self._ahead = self.read(attention, lambda: self.memory.table).flatten(0, -2)

    def read(self, attention: Attention, given: Callable[[], Tensor]) -> Tensor:
        """See `Reader.read`."""
        plan, table = self.plan, self.memory.table
        if self._ahead is not None and isinstance(plan, LinesPlan):
            return self._ahead[self.first : self.first + plan.index.shape[1]]
        single = self.memory.index is None and (table.dim() == 2 or len(table) == 1)
        if not isinstance(plan, LinesPlan) or plan.scores or self.keep or not single:
            return super().read(attention, given)
        # For more rows than entries: what each reads is one of the few things that they mean.
        if self.meaning is None and max(self.readers, plan.index.shape[1]) > table.shape[-2]:
            self.meaning = attention.meaning(table.flatten(0, -2))
        if self.meaning is not None:
            return attention.add_up(self.meaning, plan.index[..., 0])
        return super().read(attention, given)

    def parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        key, value = self.remembered(attention)
        if not self.scores:
            return value, key, value
        (query,) = attention.split(self.rows(attention.query(given())))
        return self.turned(query), key, value

    def remembered(self, attention: Attention) -> tuple[Tensor, Tensor]:
        """Keys and values of the source; the values stand for both where no scores are needed."""
        if not self.projected:
            scores = self.scores
            project = attention.project if attention.cross else attention.remember
            parts = attention.split(self.memory.apply(lambda x: project(x, scores)))
            turned = self.turn_source if scores else None
            key = self.turned(parts[0], 0) if turned is None else turned(parts[0], 0)
            self.projected = (key, parts[-1])
        return self.projected


class Entries(Rows):
    """Self-attention of rows that differ: what they read are entries that the layer is given."""

    def own_parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = given()
        fused = attention.project(x, self.scores)
        if not self.scores:
            (value,) = attention.split(fused)
            return value, value, value
        query, key_value = fused.tensor_split([x.shape[-1]], dim=-1)
        (query,), (key, value) = attention.split(self.rows(query)), attention.split(key_value)
        return query, key, value
