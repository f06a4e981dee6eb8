"""Rows that read the same hold the same: they are computed once.

Where a bias opens a few keys and no position is added but a period's few, what a row holds after a layer
depends on a few entries alone: its own before the layer, those of the rows that it reads, and the source
tokens that it reads. Rows that agree in all of them agree after it, whatever problem they stand in. A batch
has many rows but few that differ (of six-digit successors a fifth, of padding one), so rows are numbered,
computed once for each number, and looked up: cost follows the contexts that occur. The proof
(`lengthwise.proof`) walks the same contexts, over all problems.

Where no query has more than one open key besides, what is read is linear in one entry: values and output
projection are one product, of the few entries instead of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.engine.products import filled
from lengthwise.model.layers import Embedded
from lengthwise.model.plans import LayerPlan, LinesPlan, OwnPlan
from lengthwise.model.views import Entries, Rows, Source, View

# Numbers below this fit int64.
_MOST = 2**62


@dataclass(frozen=True)
class Numbers:
    """The rows of a batch, numbered.

    Attributes:
        index: the number of each row, int64 `[batch, row]`.
        example: a row with each number, int64 `[number]`, counted through the batch; at its end there may
            be rows without a number of their own, so that products have sizes that recur.
    """

    index: Tensor
    example: Tensor


def number_rows(parts: Sequence[tuple[Tensor, int]]) -> Numbers:
    """Number rows so that two have the same number exactly when they agree in every part.

    Args:
        parts: at least one: a value of each row, int64 `[batch, row]`, and how many values there are.
    """
    code, size = parts[0]
    for values, most in parts[1:]:
        if size * most > _MOST:
            _, code = torch.unique(code, return_inverse=True)
            size = code.numel()
        code, size = code * most + values, size * most
    found, index = torch.unique(code, return_inverse=True)
    example = torch.zeros(filled(len(found)), dtype=torch.int64)
    example[index.flatten()] = torch.arange(index.numel())  # any of them
    return Numbers(index, example)


def view_distinct(
    rows: Embedded, memories: list[Embedded], plan: list[LayerPlan], last: int
) -> tuple[View, Tensor]:
    """A view of the rows that differ, and which of those that the last layer leaves each row is.

    Args:
        rows: the tokens that the rows read, with an index.
        memories: the source as each layer reads it, with the same index.
        plan: one whose plans all say what they read.
        last: how many rows, at the end of each sequence, are asked for.

    Returns:
        The view, to be given `rows.table`, and an index `[batch, last]`.
    """
    there = memories[0].index
    assert rows.index is not None
    assert there is not None
    reads = [
        (cast(LinesPlan, sites["self"].reads), cast(LinesPlan, sites["cross"].reads))
        for sites in plan
    ]
    counts = [last]  # of rows that each layer leaves, those that later layers read
    for own, _ in reversed(reads[1:]):
        counts.insert(0, own.back(counts[0]))
    index, size, tokens = rows.index, len(rows.table), len(memories[0].table)
    before = 0
    told: set[bytes] = set()  # columns of the source that the numbers of rows tell apart already
    view: list[tuple[Rows, Source]] = []
    for (own, cross), count, memory in zip(reads, counts, memories, strict=True):
        read = cross.entries(there, tokens)[:, :, -count:]
        parts = [
            (column, tokens + 1)
            for column, name in zip(read, cross.columns, strict=True)
            if name not in told
        ]
        told |= cross.columns.keys()
        past = None
        if not own.itself:
            past = own.entries(index, size)[:, :, -count:]
            parts += [(column, size + 1) for column in past]
        entry = None
        if parts or count != before:
            numbers, before = number_rows([(index[:, -count:], size), *parts]), count
            entry = index[:, -count:].flatten()[numbers.example]
        if past is None:
            # It depends on the row's entry alone, whatever else the row reads.
            assert own.slot_values is not None
            left = Rows(OwnPlan(len(own.index), value=own.slot_values[:, 0]))
        else:
            left = Entries(_pick(own, past, numbers.example, size), entry)
            entry = None
        source = Embedded(memory.table)
        view.append((left, Source(_pick(cross, read, numbers.example, tokens), source, entry)))
        # Rows before those counted are read no more.
        index = F.pad(numbers.index, (index.shape[1] - count, 0))
        size = len(numbers.example)
    return view, index[:, -last:]


def _pick(reads: LinesPlan, columns: Tensor, example: Tensor, entries: int) -> LinesPlan:
    """What some rows read, as a plan.

    Args:
        reads: of all rows.
        columns: the entry that each row reads in each column, int64 `[column, batch, row]`.
        example: the rows, counted through the batch, `[row]`.
        entries: how many there are.
    """
    index = columns.flatten(1)[reads.places[..., None], example].transpose(1, 2)
    assert reads.slot_values is not None
    return LinesPlan(index, reads.slot_values[:, None], entries)
