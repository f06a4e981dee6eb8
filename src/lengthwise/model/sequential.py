"""Sequential greedy decoding through windows: each token costs its open keys, and no past is kept.

A *walk* writes some rows of several problems, one row of each at a step. Of the rows before it a walk
holds only as many as the lines reach back, and computes them anew from their tokens, so that nothing has
to be carried from one walk to the next: problems may come and go between walks, and start anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lengthwise.bias import CLOSED, OpenKeys
from lengthwise.model.attention import plan_lines
from lengthwise.model.plans import LinesPlan, OwnPlan
from lengthwise.model.transformer import Embedded, Layer
from lengthwise.model.window import Windows

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


def walk(windows: Windows, fronts: np.ndarray, steps: int) -> np.ndarray:
    """Write rows one after the other, as greedy decoding does.

    Args:
        windows: the problems, through the model's bias.
        fronts: the first row of each problem, flat; all before it are right.
        steps: rows of each to write. Those past the end of a problem mean nothing.

    Returns:
        Tokens `[step, problem]`; `streams.written` stays as it is.
    """
    return (_roll if windows.links.moving else _look)(windows, fronts, steps)


def _look(windows: Windows, fronts: np.ndarray, steps: int) -> np.ndarray:
    """A walk by views of one row: for lines of self-attention that do not move with the row."""
    streams, tokens = windows.streams, np.zeros((steps, len(fronts)), np.uint8)
    rows, ends = fronts + np.arange(steps)[:, None], streams.stops(fronts)
    going = rows < ends
    before = streams.written[rows[going]]
    for step in range(steps):
        own = rows[step, going[step]]
        tokens[step, going[step]] = windows.logits(own).argmax(dim=-1).cpu().numpy()
        streams.written[own] = tokens[step, going[step]]
    streams.written[rows[going]] = before
    return tokens


def _roll(windows: Windows, fronts: np.ndarray, steps: int) -> np.ndarray:
    """A walk that keeps the keys and values of the last rows."""
    streams, model, back = windows.streams, windows.model, windows.links.depth
    times, count = back + steps, len(fronts)
    problems = streams.problems(fronts)
    # `[time, problem]`: the rows that the first ones read, then those to write.
    rows = fronts - back + np.arange(times)[:, None]
    flat, owners = rows.ravel(), np.tile(problems, times)
    inputs = streams.inputs(rows[: back + 1].clip(min=streams.first[problems]))
    given = torch.from_numpy(inputs.astype(np.int64)).to(windows.device)
    positions = torch.from_numpy(rows - streams.first[problems]).clamp(min=0)

    crosses = windows.per_layer(
        "cross", lambda layer: streams.open_keys(windows.bias, "cross", layer, flat, owners)
    )
    memory, crosses = windows.remember(crosses)
    selves = windows.per_layer(
        "self", lambda layer: _self(windows, layer, flat, owners, rows[0], count)
    )
    halves = [
        _Half(layer, own, cross, memory, times, count)
        for layer, own, cross in zip(model.decoder, selves, crosses, strict=True)
    ]
    written: list[Tensor] = []
    token = given[0]
    for time in range(times):
        token = given[time] if time <= back else written[-1]
        x = model.embed_at(model.target_embedding, token, positions[time]).apply(lambda x: x)
        for half in halves:
            x = half.step(x, time)
        if time >= back:
            written.append(model.to_logits(model.norm(x[0])).argmax(dim=-1))
    return torch.stack(written).to(torch.uint8).cpu().numpy()


def _self(
    windows: Windows,
    layer: int,
    flat: np.ndarray,
    owners: np.ndarray,
    origin: np.ndarray,
    count: int,
) -> LinesPlan | OwnPlan:
    """The plan of self-attention, its keys numbered `time * count + problem`."""
    if windows.reads_itself(layer):
        return OwnPlan(windows.bias.heads)
    found = windows.streams.open_keys(windows.bias, "self", layer, flat, owners)
    column = torch.arange(len(flat)) % count
    time = found.index - torch.from_numpy(origin)[column][:, None]
    value = found.value.masked_fill(time < 0, CLOSED)
    index = time.clamp(min=0) * count + column[:, None]
    return plan_lines(OpenKeys(index, value), len(flat), windows.device)


class _Half:
    """One layer of a walk: its plans cut into steps, and the keys and values of its last rows."""

    def __init__(
        self,
        layer: Layer,
        own: LinesPlan | OwnPlan,
        cross: LinesPlan,
        memory: Embedded,
        times: int,
        count: int,
    ) -> None:
        self.layer, self.count = layer, count
        self.own = own if isinstance(own, OwnPlan) else None
        self.owns = [] if isinstance(own, OwnPlan) else _cut(own, times)
        self.crosses = _cut(cross, times)
        self.key, self.value = (_by_key(part) for part in layer.read_source(memory, cross))
        self.reads: list[Tensor] = []
        if not cross.scores:
            # What is copied from the source does not wait for the answer.
            read = cross.attend(self.value, self.key, self.value)
            self.reads = list(read.split(count, dim=2))
        heads, channels = self.value.shape[1], self.value.shape[3]
        shape = (1, 0 if self.own else times * count, heads, channels)
        self.own_values = self.value.new_zeros(shape).transpose(1, 2)
        self.own_keys = self.own_values
        if own.scores:
            self.own_keys = self.value.new_zeros(shape).transpose(1, 2)

    def step(self, x: Tensor, time: int) -> Tensor:
        """One row of each problem, `[1, problem, width]`."""
        layer, cross = self.layer, self.crosses[time]
        own = self.own or self.owns[time]
        query, key, value = layer.read_own(Embedded(x), own)
        if self.own is None:
            place = slice(time * self.count, (time + 1) * self.count)
            self.own_values[:, :, place] = value
            if own.scores:
                self.own_keys[:, :, place] = key
            read = own.attend(query, self.own_keys, self.own_values)
        else:
            read = value
        x, query = layer.add_self(x, read, cross)
        read = self.reads[time] if self.reads else cross.attend(query, self.key, self.value)
        return layer.add_cross(x, read)


def _by_key(x: Tensor) -> Tensor:
    """`[batch, head, key, channel]` so that what is looked up lies together."""
    return x.transpose(1, 2).contiguous().transpose(1, 2)


def _cut(plan: LinesPlan, times: int) -> list[LinesPlan]:
    """The plans of the steps one by one."""
    indices, biases = plan.index.chunk(times, dim=1), plan.bias.chunk(times, dim=1)
    rows = [None] * times if plan.open_rows is None else plan.open_rows.chunk(times, dim=1)
    parts = zip(indices, biases, rows, strict=True)
    return [LinesPlan(index, bias, open_rows, plan.keys) for index, bias, open_rows in parts]


def decode_sequentially(
    windows: Windows, on_progress: Callable[[int], object], least: int = 1
) -> np.ndarray:
    """Write problems into `streams.written` row by row; finished ones make room for others.

    Args:
        windows: the problems, through the model's bias.
        on_progress: called with the number of rows that are done.
        least: stop when fewer problems than this are left.

    Returns:
        The next row of each problem that is left, flat.
    """
    streams = windows.streams
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
        tokens = walk(windows, rows, steps)
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
