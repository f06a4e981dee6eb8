"""Views: what the rows of each layer read; whatever computes logits prepares one for the same loop.

A view has a pair of readers for each layer, of self- and cross-attention. There are four makers: of whole
sequences and of the next row with a cache (`transformer.py`), of rows that differ (`distinct.py`), and of
any rows of any problems (`decoding/any_rows.py`; `decoding/walks.py` walks through them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from torch import Tensor, nn

from lengthwise.model.layers import Attention, Embedded, Layer, Reader, look_up
from lengthwise.model.plans import LinesPlan, OwnPlan, Plan

View = Sequence[tuple[Reader, Reader | None]]
Turn = Callable[[Tensor, int], Tensor]


def run(layers: Iterable[nn.Module], x: Tensor, view: View) -> Tensor:
    """What the last of some layers leaves, `[..., width]`, of what the first is given."""
    for layer, (own, cross) in zip(layers, view, strict=True):
        x = cast(Layer, layer)(x, own, cross)
    return x


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
    """

    weights: Tensor

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
        scores = self.plan.scores
        parts = attention.split(self.rows(attention.project(given(), scores)))
        query, key, value = parts[0], parts[-2 if scores else -1], parts[-1]
        return self.turned(query), self.turned(key), value

    def turned(self, x: Tensor, first: int | None = None) -> Tensor:
        """Queries, or other things that stand at a first position, turned where the scheme turns them."""
        if self.turn is None or not self.plan.scores:
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
        self.kept: dict[str, Tensor] = {}

    def parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Rows.parts`; those of the new rows are kept."""
        query, key, value = super().parts(attention, given)
        values = self._append("values", value)
        return query, self._append("keys", key) if self.plan.scores else values, values

    def _append(self, name: str, x: Tensor) -> Tensor:
        if name not in self.kept:
            batch, heads, _, channels = x.shape
            room = x.new_zeros(batch, self.size, heads, channels).transpose(1, 2)
            # Of a single sequence, what a lookup reads lies together; else what a product reads.
            self.kept[name] = room if batch == 1 else room.contiguous()
        stop = self.first + x.shape[2]
        self.kept[name][:, :, self.first : stop] = x
        return self.kept[name][:, :, :stop]


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
        self.projected: tuple[Tensor, ...] = ()
        self.meaning: Tensor | None = None

    def read(self, attention: Attention, given: Callable[[], Tensor]) -> Tensor:
        """See `Reader.read`."""
        plan, table = self.plan, self.memory.table
        single = self.memory.index is None and (table.dim() == 2 or len(table) == 1)
        if not isinstance(plan, LinesPlan) or plan.scores or self.keep or not single:
            return super().read(attention, given)
        # For more rows than entries: what each reads is one of the few things that they mean.
        if self.meaning is None and max(self.readers, plan.index.shape[1]) > table.shape[-2]:
            self.meaning = attention.meaning(table.flatten(0, -2))
        if self.meaning is not None:
            return attention.add_up(self.meaning, plan.index[..., 0])[None]
        return super().read(attention, given)

    def parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Rows.parts`."""
        scores = self.plan.scores
        if not self.projected:
            parts = attention.split(self.memory.apply(lambda x: attention.project(x, scores)))
            turned = self.turn_source if scores else None
            key = self.turned(parts[0], 0) if turned is None else turned(parts[0], 0)
            self.projected = (key, parts[-1])
        key, value = self.projected
        if not scores:
            return value, key, value
        (query,) = attention.split(self.rows(attention.query(given())))
        return self.turned(query), key, value


class Entries(Rows):
    """Self-attention of rows that differ: what they read are entries that the layer is given."""

    def parts(
        self, attention: Attention, given: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `Rows.parts`."""
        x = given()
        fused = attention.project(x, self.plan.scores)
        if not self.plan.scores:
            (value,) = attention.split(fused)
            return value, value, value
        query, key_value = fused.tensor_split([x.shape[-1]], dim=-1)
        (query,), (key, value) = attention.split(self.rows(query)), attention.split(key_value)
        return query, key, value
