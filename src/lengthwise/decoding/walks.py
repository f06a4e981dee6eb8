"""Sequential greedy decoding by lines: each token costs its open keys, and no past is kept.

A *walk* writes some rows of several problems, one row of each at a step. Of the rows before it a walk
holds only as many as the lines reach back, and computes them anew from their tokens, so that nothing has
to be carried from one walk to the next: problems may come and go between walks, and start anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lengthwise.bias import CLOSED, SITES, OpenKeys
from lengthwise.decoding.any_rows import AnyRows
from lengthwise.model.views import Cache, Source

# Steps of a walk, and rows of all its problems: enough to spread the cost of beginning, few enough
# for what is laid out at once to be small.
STEPS, _ROWS = 256, 16384

# Problems that walk side by side.
ABREAST = 512

# So many problems walk faster than they are decoded in parallel, for a walk computes each row once
# (docs/log.md, 2026-11-24, "A hundred thousand digits").
MANY = 32


def walk_steps(problems: int) -> int:
    """How many steps a walk of so many problems should take."""
    return max(16, min(STEPS, _ROWS // problems))


def walk(any_rows: AnyRows, fronts: np.ndarray, steps: int) -> np.ndarray:
    """Write rows one after the other, as greedy decoding does.

    Args:
        any_rows: the problems, through the model's bias.
        fronts: the first row of each problem, flat; all before it are right.
        steps: rows of each to write. Those past the end of a problem mean nothing.

    Returns:
        Tokens `[step, problem]`; `streams.written` stays as it is.
    """
    streams, model, back = any_rows.streams, any_rows.model, any_rows.depth
    times, count = back + steps, len(fronts)
    problems = streams.problems(fronts)
    # `[time, problem]`: the rows that the first ones read, then those to write.
    rows = fronts - back + np.arange(times)[:, None]
    flat, owners = rows.ravel(), np.tile(problems, times)
    inputs = streams.inputs(rows[: back + 1].clip(min=streams.first[problems]))
    given = torch.from_numpy(inputs.astype(np.int64)).to(any_rows.device)
    positions = torch.from_numpy(any_rows.positions(rows, problems))

    def number(found: OpenKeys) -> OpenKeys:
        """Rows read as `time * count + problem`."""
        column = torch.arange(len(flat))[:, None] % count
        time = found.index - torch.from_numpy(rows[0])[column]
        return OpenKeys(time * count + column, found.value.masked_fill(time < 0, CLOSED))

    memory, plan = any_rows.lay_out(flat, owners, number)
    view = [
        (Cache(own["self"], len(flat)), Source(own["cross"], source, readers=len(flat)))
        for own, source in zip(plan, model.memories(memory), strict=True)
    ]
    for layer, (_, source) in zip(model.decoder, view, strict=True):
        if layer.cross:  # what is read of the problem does not wait for the answer
            source.read_ahead(layer.cross_attention)
    steps_of = [[sites[site].split(times) for site in SITES] for sites in plan]
    written: list[Tensor] = []
    for time in range(times):
        for layer, (own, cross) in enumerate(view):
            own.plan, cross.plan = (plans[time] for plans in steps_of[layer])
            own.first = cross.first = time * count
        token = given[time] if time <= back else written[-1]
        x = model.embed_at(model.target_embedding, token, positions[time]).apply(lambda x: x)
        logits = model.logits(x, view)[0]
        if time >= back:
            written.append(logits.argmax(dim=-1))
    return torch.stack(written).to(torch.uint8).cpu().numpy()


def decode_sequentially(
    any_rows: AnyRows, on_progress: Callable[[int], object], least: int = 1
) -> np.ndarray:
    """Write problems into `streams.written` row by row; finished ones make room for others.

    Args:
        any_rows: the problems, through the model's bias.
        on_progress: called with the number of rows that are done.
        least: stop when fewer problems than this are left.

    Returns:
        The next row of each problem that is left, flat.
    """
    streams = any_rows.streams
    end, starts = streams.vocabulary.end, streams.first[:-1]
    rows, waiting, done = starts[:0], 0, 0
    while True:
        room = min(ABREAST - len(rows), len(streams) - waiting)
        rows = np.concatenate([rows, starts[waiting : waiting + room]])
        waiting += room
        if len(rows) < least:
            return rows
        ends = streams.stops(rows)
        steps = min(walk_steps(len(rows)), int((ends - rows).max()))
        tokens = walk(any_rows, rows, steps)
        going = []
        for column, (row, stop) in enumerate(zip(rows.tolist(), ends.tolist(), strict=True)):
            wrote = tokens[: stop - row, column]
            after = row + len(wrote)
            streams.written[row:after] = wrote
            over = np.flatnonzero(wrote == end)
            if len(over):
                streams.written[row + over[0] : stop] = end
                after = stop
            if after < stop:
                going.append(after)
            done += after - row
        rows = np.array(going, np.int64)
        on_progress(done)
