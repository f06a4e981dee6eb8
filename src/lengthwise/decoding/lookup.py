"""Greedy decoding by lookup: what a row can see is computed once, whoever sees it.

Where no row reads another, a row's logits follow from the source tokens that its lines open and from the
one token that it reads itself. Many rows see the same: of an addition in base 10 there are some twenty
thousand different *sights* (docs/proof.md calls them contexts). So the model is asked once for each that
occurs, and its likeliest token is looked up from then on: the transducer that the model has learned.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from lengthwise.bias import CLOSED
from lengthwise.decoding.any_rows import AnyRows

# Sights that a table may hold, a byte each, and rows whose open keys are laid out at once.
_ENTRIES, _ROWS = 1 << 24, 65_536

# No token: not asked yet.
_UNKNOWN = 255


class Table:
    """The likeliest token after each sight of a model under a bias.

    Args:
        any_rows: problems, through the bias; see `make_table` for which.
        sights: how many there can be.

    Attributes:
        tokens: by sight, uint8; 255 where the model was not asked yet.
    """

    def __init__(self, any_rows: AnyRows, sights: int) -> None:
        self.any_rows = any_rows
        self.tokens = np.full(sights, _UNKNOWN, np.uint8)

    def numbers(self) -> np.ndarray:
        """What the rows of all problems see of the source, as one number each, int64 `[flat row]`."""
        count = int(self.any_rows.streams.first[-1])
        found = np.zeros(count, np.int64)
        for start in range(0, count, _ROWS):
            stop = min(start + _ROWS, count)
            for key in _open(self.any_rows, np.arange(start, stop)):
                found[start:stop] = found[start:stop] * _symbols(self.any_rows) + key
        return found

    def look_up(self, numbers: np.ndarray, rows: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        """The token that each row writes, uint8 `[row]`; the model is asked for what is new.

        Args:
            numbers: of what the rows see of the source.
            rows: flat rows.
            inputs: the token that each reads.
        """
        sights = numbers * len(self.any_rows.streams.vocabulary) + inputs
        found = self.tokens[sights]
        new = np.flatnonzero(found == _UNKNOWN)
        if len(new):
            which, first = np.unique(sights[new], return_index=True)
            asked = new[first]
            order = np.argsort(rows[asked])
            asked = asked[order]
            logits = self.any_rows.logits(rows[asked], inputs[asked])
            self.tokens[which[order]] = logits.argmax(dim=-1).to(torch.uint8).cpu().numpy()
            found = self.tokens[sights]
        return found


def make_table(any_rows: AnyRows) -> Table | None:
    """A table for some problems; None where rows read others, know where they are, or see too much."""
    if any_rows.depth or any_rows.model.scheme.kind != "none":
        return None
    keys = len(_open(any_rows, np.zeros(1, np.int64)))
    sights = _symbols(any_rows) ** keys * len(any_rows.streams.vocabulary)
    return Table(any_rows, sights) if sights <= _ENTRIES else None


def _symbols(any_rows: AnyRows) -> int:
    """What an open key may hold: a token, or nothing where it lies outside."""
    return len(any_rows.streams.vocabulary) + 1


def _open(any_rows: AnyRows, rows: np.ndarray) -> np.ndarray:
    """What the open keys of some rows hold, int `[key, row]`; heads that read the same count once."""
    streams, bias = any_rows.streams, any_rows.bias
    problems = streams.problems(rows)
    per_layer = any_rows.per_layer(
        "cross", lambda layer: streams.open_keys(bias, "cross", layer, rows, problems)
    )
    columns: dict[tuple, np.ndarray] = {}
    for layer, keys in enumerate(per_layer):
        inside = (keys.value > CLOSED).numpy()
        held = np.where(inside, streams.source[keys.index.numpy()], _symbols(any_rows) - 1)
        lines = bias.at("cross", layer, streams.layouts[0])
        for head in range(bias.heads):
            own = tuple((line.track, line.value) for line in lines if line.head == head)
            for slot in range(len(own)):
                columns[own, slot] = held[head, :, slot]
    return np.array(list(columns.values())).reshape(-1, len(rows))


def decode_by_lookup(
    table: Table, on_progress: Callable[[int], object], least: int = 1
) -> np.ndarray:
    """Write problems into `streams.written`, the same row of all of them at a time.

    Args:
        table: of these problems.
        on_progress: called with the number of rows that are done.
        least: stop when fewer problems than this are left.

    Returns:
        The next row of each problem that is left, flat.
    """
    streams, numbers = table.any_rows.streams, table.numbers()
    end, starts = streams.vocabulary.end, streams.first[:-1]
    rows, stops = starts.copy(), streams.first[1:].copy()
    inputs = np.full(len(rows), streams.vocabulary.start, np.uint8)
    done = 0
    while len(rows) >= least:
        wrote = table.look_up(numbers[rows], rows, inputs)
        streams.written[rows] = wrote
        ended = wrote == end
        for row, stop in zip(rows[ended].tolist(), stops[ended].tolist(), strict=True):
            streams.written[row:stop] = end
            done += stop - row
        rows, going = rows + 1, ~ended
        done += int(going.sum())
        going &= rows < stops
        rows, stops, inputs = rows[going], stops[going], wrote[going]
        on_progress(done)
    return rows
