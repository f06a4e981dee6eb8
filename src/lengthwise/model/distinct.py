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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.model.layers import Attention, Embedded, Layer
from lengthwise.model.linear import filled, linear
from lengthwise.model.plans import LayerPlan
from lengthwise.model.reads import Reads

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


def decode_distinct(
    layers: list[Layer], rows: Embedded, memory: Embedded, plan: list[LayerPlan]
) -> Embedded:
    """What the last layer leaves in every row.

    Args:
        layers: decoder layers; no dropout is applied.
        rows: what the rows read, with an index.
        memory: the source, with an index.
        plan: one whose plans all say what they read.
    """
    assert rows.index is not None
    assert memory.index is not None
    x, index, tokens = rows.table, rows.index, len(memory.table)
    numbers = None
    told: set[bytes] = set()  # columns of the source that the numbers of rows tell apart already
    for layer, layer_plan in zip(layers, plan, strict=True):
        own, cross = layer_plan["self"].reads, layer_plan["cross"].reads
        assert own is not None
        assert cross is not None
        source = cross.entries(memory.index, tokens)
        parts = [
            (column, tokens + 1)
            for column, name in zip(source, cross.columns, strict=True)
            if name not in told
        ]
        told |= cross.columns.keys()
        past = None if own.itself else own.entries(index, len(x))
        if past is None:
            # It depends on the row's entry alone, whatever else the row reads.
            x = layer.after(layer.norm_self, x + _read_itself(layer, x))
        else:
            parts += [(column, len(x) + 1) for column in past]
        if parts or past is not None or numbers is None:
            numbers = number_rows([(index, len(x)), *parts])
            entry = index.flatten()[numbers.example]
            before, x = x, F.embedding(entry, x)
            if past is not None:
                past = past.flatten(1)[own.places[..., None], numbers.example]
                x = layer.after(layer.norm_self, x + _read_rows(layer, before, entry, past, own))
            index = numbers.index
        read = source.flatten(1)[cross.places[..., None], numbers.example]
        x = layer.after(layer.norm_cross, x + _read_tokens(layer, x, memory.table, read, cross))
        x = layer.add_feed_forward(x)
    return Embedded(x, index)


def _read_itself(layer: Layer, x: Tensor) -> Tensor:
    """What self-attention adds to rows `[row, width]` that read themselves."""
    attention = layer.self_attention
    weight, bias = attention.value
    joined = linear(attention.out.weight, weight.T), attention.out(bias)
    return linear(layer.before(layer.norm_self, x), *joined)


def _read_rows(layer: Layer, x: Tensor, entry: Tensor, read: Tensor, reads: Reads) -> Tensor:
    """What self-attention adds `[row, width]`.

    Args:
        layer: the layer.
        x: all entries, `[entry, width]`.
        entry: that of each row, `[row]`.
        read: those that its slots read, `[head, slot, row]`; `len(x)` in slots that are not used.
        reads: of self-attention.
    """
    attention = layer.self_attention
    x = layer.before(layer.norm_self, x)
    if reads.copies:
        return attention.out(_by_head(linear(x, *attention.value), read).sum(dim=1).flatten(1))
    query, key, value = attention.query_key_value(x).chunk(3, dim=-1)
    return _attend(attention, F.embedding(entry, query), key, value, read)


def _read_tokens(layer: Layer, x: Tensor, table: Tensor, read: Tensor, reads: Reads) -> Tensor:
    """What cross-attention adds `[row, width]`.

    Args:
        layer: the layer.
        x: the rows, `[row, width]`.
        table: the source's entries, `[entry, width]`.
        read: those that each row's slots read, `[head, slot, row]`; `len(table)` in slots not used.
        reads: of cross-attention.
    """
    attention = layer.cross_attention
    if not reads.copies:
        key, value = attention.key_value(table).chunk(2, dim=-1)
        return _attend(
            attention, attention.query(layer.before(layer.norm_cross, x)), key, value, read
        )
    # What each entry means to each head, in the residual stream: then a row adds up what its heads read.
    heads, size = attention.heads, len(table) + 1
    value = linear(table, *attention.value).unflatten(-1, (heads, -1))
    meaning = torch.einsum("thc,whc->htw", value, attention.out.weight.unflatten(-1, (heads, -1)))
    bags = read[:, 0] + torch.arange(0, heads * size, size)[:, None]
    padded = F.pad(meaning, (0, 0, 0, 1)).flatten(0, 1)
    return F.embedding_bag(bags.T.contiguous(), padded, mode="sum") + attention.out.bias


def _attend(
    attention: Attention, query: Tensor, key: Tensor, value: Tensor, read: Tensor
) -> Tensor:
    """Softmax attention of rows `[row, width]` to the entries `[entry, width]` in their slots."""
    query = query.unflatten(-1, (attention.heads, -1))[:, None]
    logits = (query * _by_head(key, read)).sum(dim=-1) / math.sqrt(query.shape[-1])
    closed = (read == len(key)).permute(2, 1, 0)
    logits = logits.masked_fill(closed, -torch.inf)
    # Where every slot is closed, equal shares of nothing; values of closed slots are zeros.
    logits = logits.masked_fill(closed.all(dim=1, keepdim=True), 0.0)
    shares = logits.softmax(dim=1)[..., None]
    return attention.out((shares * _by_head(value, read)).sum(dim=1).flatten(1))


def _by_head(x: Tensor, read: Tensor) -> Tensor:
    """Each head's channels of what its slots read, `[row, slot, head, channel]`; else zeros."""
    heads = len(read)
    by_head = F.pad(x, (0, 0, 0, 1)).unflatten(-1, (heads, -1)).flatten(0, 1)
    places = read * heads + torch.arange(heads)[:, None, None]
    return F.embedding(places.permute(2, 1, 0), by_head)
