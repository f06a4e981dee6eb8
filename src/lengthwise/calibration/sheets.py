"""Capture and calibration of sheets: which tokens near a cell a trained model reads, and needs.

Where a token near a cell lies differs from sheet to sheet, so attention is averaged along lines, over the
queries of each kind (those that write one field of a cell), not by cells of a matrix. In a small sheet many
lines run through the same cells: what closing one costs is measured where no line runs that was found
before, one after the other.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from lengthwise.bias import CLOSED, SITES, CalibratedBias, Line, Site, Track
from lengthwise.calibration.auto import Lines, NoLinesError, assign
from lengthwise.calibration.evidence import HINT, NEEDED, SHOWN, SheetEvidence
from lengthwise.calibration.maps import judge
from lengthwise.calibration.sheet_maps import SheetMaps
from lengthwise.calibration.sheet_sets import fewest
from lengthwise.errors import NoProblemsError
from lengthwise.locality.sheets import LAST_TOKEN, near_of
from lengthwise.model import plan_attention
from lengthwise.model.loop import Output
from lengthwise.model.plans import AttentionPlan, DensePlan, LayerPlan, close_safely
from lengthwise.problems.sampling import generator
from lengthwise.problems.sheet_sampling import training_sheets
from lengthwise.problems.sheets import SheetLayout, Sheets
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.tasks import Worksheet
from lengthwise.tasks.near import SHEET, Axis, Near

# How far from a cell candidates are looked for, in rows up and in columns either way.
_UP, _ASIDE = 2, 2

# Lines that are found, at most; and others, where those do not tell every symbol.
_MOST, _HIDDEN = 8, 8


def sheet_candidates(task: Worksheet) -> list[Track]:
    """The lines that calibration considers: tokens near the cell, and symbols.

    Digits of operands are looked for along both axes, whichever the task counts them by; those of a row -1,
    or a column -1, where they can be read.
    """
    aside = [*range(-_ASIDE, _ASIDE + 1)]
    found: list[str] = []
    for operand in task.operands:
        axis = task.axis(operand.name)
        ways = [axis] if axis.names[1:] or axis.counter in task.counters else [*map(Axis, "cr")]
        found += [str(way.near(operand.name, k)) for way in ways for k in aside]
    found += list(task.symbols)
    for row in range(-_UP, 1):
        for column in aside:
            for field in task.fields:
                if row == 0 and (column > 0 or (column == 0 and field == task.fields[-1])):
                    continue  # not written yet
                found.append(str(Near(SHEET, row, column, field.name)))
    return [LAST_TOKEN, *map(Track.parse, found)]


@torch.inference_mode()
def capture_sheets(run: Run) -> SheetMaps:
    """Average a run's attention along lines near the cell being written, and find those that it needs.

    The problems come from the training split, and the right sheets are given. Line after line, the one that
    the model needs most is taken: closing it to all heads of all layers, where no line runs that was taken
    before, costs the most.

    Raises:
        InputError: when no problem of the training size is trained on.
    """
    config, layout = run.config, run.config.layout()
    rng, count = generator(config.seed, "capture"), config.calibration.problems
    large = config.data.carry_fraction
    try:
        operands = training_sheets(layout.task, rng, count, size=layout.size, large=large)
    except NoProblemsError as error:
        raise InputError(str(error)) from error
    source, target = layout.batch(operands)
    sheets = Sheets([(layout, source, target)])
    reader = _Reader(run, layout, source, target)
    output = reader.forward({}, keep=True)
    attention: dict[Site, Tensor] = {
        site: torch.stack([layer[site] for layer in output.attention]).cpu() for site in SITES
    }  # [layer, problem, head, query, key]
    tracks = sheet_candidates(layout.task)
    cells = {track: _cells(track, sheets, len(source)) for track in tracks}
    tracks = [track for track in tracks if bool(cells[track][1].any())]
    weights = {track: _along(attention, track, cells[track], sheets, target) for track in tracks}
    wanted = reader.target[:, 1:]
    loss, exact = judge(reader.forward({}), wanted)
    taken: list[SheetEvidence] = []

    def need(track: Track) -> float:
        closed = _closed(track, [item.track for item in taken], cells, layout)
        return judge(reader.forward(closed), wanted)[0] - loss

    rest = [track for track in tracks if track != LAST_TOKEN]
    shown = {track: _evidence(track, weights[track], cells[track], sheets) for track in rest}
    needs = {track: need(track) for track in rest}
    while len(taken) < _MOST:
        likely = [t for t in rest if needs[t] >= NEEDED and shown[t][0] >= SHOWN]
        if not likely:
            break
        best = max(likely, key=lambda track: needs[track])
        taken.append(SheetEvidence(best, shown[best][0], needs[best], shown[best][1]))
        rest.remove(best)
        # What is not needed by itself is not needed where less of it counts.
        needs = {t: need(t) if needs[t] >= NEEDED / 2 else needs[t] for t in rest}
    others = [SheetEvidence(t, shown[t][0], needs[t], shown[t][1]) for t in rest]
    return SheetMaps(
        format=config.format,
        size=layout.size,
        problems=len(source),
        exact_match=exact,
        found=tuple(taken),
        others=tuple(sorted(others, key=lambda item: -item.need)),
        weights={str(track): weights[track] for track in tracks},
        model=run.fingerprint,
        joint=run.model.joint,
    )


class _Reader:
    """A model on some problems, with cells of its attention closed."""

    def __init__(self, run: Run, layout: SheetLayout, source: Tensor, target: Tensor) -> None:
        self.run = run
        self.source, self.target = source.to(run.device), target.to(run.device)
        self.plans, self.layout = _plans(run, layout, source, target), layout

    def forward(self, closed: dict[Site, Tensor], keep: bool = False) -> Output:
        """What the model returns; closed cells are bool `[problem, query, key]`."""
        layers: list[LayerPlan] = [
            {
                site: _close(cast(DensePlan, plan), closed[site], self.run.device)
                if site in closed
                else plan
                for site, plan in sites.items()
            }
            for sites in self.plans
        ]
        inputs, plan = self.target[:, :-1].clamp(min=0), AttentionPlan(layers, self.layout)
        return self.run.model(self.source, inputs, plan, return_attention=keep)


def _plans(run: Run, layout: SheetLayout, source: Tensor, target: Tensor) -> list[LayerPlan]:
    """A run's bias as matrices; of lines one for each problem, as they lead to what is written there."""
    layers, device = len(run.model.layers), run.device
    if not isinstance(run.bias, CalibratedBias):
        encoder = run.model.encodes
        return plan_attention(
            *(run.bias, layout, layers),
            queries=range(target.shape[1] - 1),
            path="dense",
            device=device,
            encoder=encoder,
        )
    each = [
        plan_attention(run.bias, Sheets([(layout, *one)]), layers, path="dense", device=device)
        for one in zip(source.split(1), target.split(1), strict=True)
    ]
    return [
        {
            site: _stack([cast(DensePlan, plans[layer][site]) for plans in each], device)
            for site in SITES
        }
        for layer in range(layers)
    ]


def _stack(plans: list[DensePlan], device: torch.device) -> DensePlan:
    """The plans of several problems as one, `[problem, head, query, key]`."""
    zero = torch.zeros(1, 1, 1, device=device)
    biases = torch.broadcast_tensors(*(zero if p.bias is None else p.bias for p in plans))
    rows = torch.broadcast_tensors(
        *(zero + 1 if p.open_rows is None else p.open_rows for p in plans)
    )
    return DensePlan(torch.stack(biases), torch.stack(rows))


def _close(plan: DensePlan, closed: Tensor, device: torch.device) -> DensePlan:
    """A plan with cells `[problem, query, key]` closed to all heads."""
    bias = torch.zeros(1) if plan.bias is None else plan.bias.cpu()
    if plan.open_rows is not None:
        bias = bias.masked_fill(plan.open_rows.cpu() == 0, CLOSED)
    found, open_rows = close_safely(bias.masked_fill(closed[:, None], CLOSED))
    open_rows = None if open_rows is None else open_rows.to(device)
    return DensePlan(found.to(device), open_rows, plan.relative)


def _cells(track: Track, sheets: Sheets, count: int) -> tuple[Tensor, Tensor]:
    """The key that each query reads along a track, in its own problem, and whether there is one, each
    `[problem, query]`."""
    queries = torch.arange(sheets.target_length)
    position, inside = track.keys(sheets, queries)
    if track.site == "self":
        inside = inside & (position <= queries)
    width = sheets.keys(track.site) // count
    position = position % width
    inside = inside & (sheets.wanted[0] >= 0)
    return position.view(count, -1), inside.view(count, -1)


def _closed(
    track: Track,
    taken: list[Track],
    cells: dict[Track, tuple[Tensor, Tensor]],
    layout: SheetLayout,
) -> dict[Site, Tensor]:
    """The cells of a track through which none runs that was taken; never the query's own token."""
    site = track.site

    def mask(of: Track) -> Tensor:
        position, inside = cells[of]
        keys = position.shape[1] if site == "self" else layout.source_length
        found = torch.zeros(*position.shape, keys, dtype=torch.bool)
        return found.scatter_(2, position[..., None], inside[..., None])

    found = mask(track)
    for other in [*taken, LAST_TOKEN]:
        if other.site == site:
            found &= ~mask(other)
    return {site: found}


def _along(
    attention: dict[Site, Tensor],
    track: Track,
    cells: tuple[Tensor, Tensor],
    sheets: Sheets,
    target: Tensor,
) -> Tensor:
    """Mean attention along a track by kind of query, `[kind, layer, head]`."""
    position, inside = cells
    weights = attention[track.site]
    index = position[None, :, None, :, None].expand(*weights.shape[:4], 1)
    along = weights.gather(4, index)[..., 0]  # [layer, problem, head, query]
    field = sheets.field.view(len(target), -1)
    found = []
    for kind in range(len(sheets.task.fields)):
        chosen = (inside & (field == kind)).float()
        total = torch.einsum("lphq,pq->lh", along, chosen)
        found.append(total / chosen.sum().clamp(min=1))
    return torch.stack(found)


def _evidence(
    track: Track, weights: Tensor, cells: tuple[Tensor, Tensor], sheets: Sheets
) -> tuple[float, tuple[float, ...]]:
    """Support beyond a uniform head's, in the kind of query where it is plainest; and by head."""
    size = sheets.keys(track.site) // len(cells[0])
    uniform = 2 / size if track.site == "self" else 1 / size
    best = weights.amax(dim=(0, 1))
    support = (best.max().item() - uniform) / (1 - uniform)
    return support, tuple(best.tolist())


def calibrate_sheets(maps: SheetMaps, *, lines: Lines = "fewest", extra: int = 0) -> CalibratedBias:
    """Turn what a model needs near a cell into a bias that is defined at every size.

    Of the lines that the model needs the fewest are taken that tell every symbol, exactly, by the task's
    rule (`lengthwise.locality.sheets`), and of equally few those with the fewest cases. Where no set of
    them does, those are tried, too, that are hardly needed.

    Args:
        maps: from `capture_sheets`.
        lines: `fewest`, or `all` that the model needs.
        extra: lines beyond those, the most needed first.

    Raises:
        NoLinesError: where the model needs no line.
    """
    task: Worksheet = maps.format.task
    found = [item for item in maps.found if near_of(item.track, task) is not None]
    if not found:
        raise NoLinesError(
            f"no head of the {maps.task} model reads along a line. Does the model interpolate? It answers "
            f"{maps.exact_match:.1%} of its training problems"
        )
    chosen = found if lines == "all" else fewest(task, maps.size, found)
    if not chosen:
        # A line may be hidden: in small sheets what it tells is known in other ways, too.
        hidden = [i for i in maps.others if near_of(i.track, task) is not None]
        hidden = [i for i in hidden if i.need >= HINT and i.support > 0]
        chosen = fewest(task, maps.size, [*found, *hidden[:_HIDDEN]]) or found
    more = [item for item in found if item not in chosen]
    more += [i for i in maps.others if near_of(i.track, task) is not None and i.need > 0]
    chosen = [*chosen, *more[:extra]]
    cross = [item for item in chosen if item.track.site == "cross"]
    own = [item for item in chosen if item.track.site == "self"]
    if maps.joint:
        return CalibratedBias(maps.format, maps.heads, _joint_lines(chosen, maps))
    heads, last = range(maps.heads), range(1, maps.layers)
    found_lines = assign(cross, maps.heads, maps.layers)
    # What a cell read itself lies in tokens alone: the first layer reads them, later ones their own query.
    first = assign(own, maps.heads, 1, spare=LAST_TOKEN)
    found_lines += [Line(line.track, line.head, 0) for line in first]
    found_lines += [Line(LAST_TOKEN, head, layer) for layer in last for head in heads]
    return CalibratedBias(maps.format, maps.heads, found_lines)


def _joint_lines(chosen: list[SheetEvidence], maps: SheetMaps) -> list[Line]:
    """One line to a head that reads problem and answer in one attention.

    As where they are read apart, what a cell read itself is read in the first layer. What the problem says
    may be read in any: lines that find no free head in the first are those of later layers. Two lines of
    one head would be an average, which tells neither which held what, nor one token from two alike.
    """
    heads, later = maps.heads, range(1, maps.layers)
    cross = [item for item in chosen if item.track.site == "cross"]
    room = max(0, heads - (len(chosen) - len(cross))) if later else len(cross)
    late = cross[room:]
    begin = assign([item for item in chosen if item not in late], heads, 1, spare=LAST_TOKEN)
    found = [Line(line.track, line.head, 0) for line in begin]
    if late:
        again = [*late, *cross[: min(room, max(0, heads - len(late)))]]
        end = assign(again, heads, len(later), spare=LAST_TOKEN)
    else:
        end = [LAST_TOKEN if line.site == "self" else line.track for line in begin]
        end = [Line(track, line.head) for track, line in zip(end, begin, strict=True)]
    for line in end:
        layers = later if line.layer is None else [line.layer + 1]
        found += [Line(line.track, line.head, layer) for layer in layers]
    return found
