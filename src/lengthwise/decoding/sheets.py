"""Greedy decoding of sheets by lines: cells that are ready together, each sight computed once.

What a token follows from is what its query sees along the lines and the token before. So the model is a
table from sights to tokens, filled as sights are met, and sheets are written by it in waves
(`lengthwise.problems.wavefront`). That is exactly what writing one token after the other gives: no
coordinate is known that does not follow from the tokens written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from lengthwise.bias import SITES, CalibratedBias
from lengthwise.locality import NotApplicableError, cone_of_sheet
from lengthwise.model import Transformer
from lengthwise.model.plans import LayerPlan, LinesPlan
from lengthwise.model.sheets import logits_of_sights
from lengthwise.problems.layout import COLUMN, ROW, Places, Span
from lengthwise.problems.sheet_rule import rule_of
from lengthwise.problems.sheets import Seen, SheetLayout, Sheets, digit_at
from lengthwise.problems.wavefront import Pen, Written, write_sheets
from lengthwise.tasks import Worksheet
from lengthwise.tasks.near import CLOSED, LAST, SHEET, Near

# Sights that a number of 64 bits tells apart.
_MOST = 2**62

# A table of at most so many entries is kept whole; else sights are looked up among those met.
_ENTRIES = 1 << 24


class SightTable:
    """A model as a table: of each sight the token that it writes, computed when first asked.

    Args:
        model: the model, in evaluation mode.
        bias: lines near the cell being written.
        device: where the model is.

    Attributes:
        worst: the largest loss of a token that was written, nats.

    Raises:
        NotApplicableError: for other lines, and for more of them than a table can tell apart.
    """

    def __init__(
        self,
        model: Transformer,
        bias: CalibratedBias,
        task: Worksheet,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.bias, self.task, self.device = model, bias, task, device
        cone = cone_of_sheet(task, bias, len(model.layers))
        self.tracks = [*map(str, cone), LAST]
        self.nears = [Near.parse(track) for track in self.tracks]
        self.size = len(task.tokens) + 1
        entries = self.size ** len(self.tracks)
        if entries > _MOST:
            raise NotApplicableError(f"what {len(self.tracks)} lines show is too much for a table")
        self.whole, self.worst = entries <= _ENTRIES, 0.0
        # Of each sight the token, -1 where it is not known; then its loss.
        self.values = np.full(entries if self.whole else 0, -1, np.int16)
        self.losses = np.zeros(len(self.values), np.float32)
        self.codes = np.zeros(0, np.int64)

    def __call__(self, field: int, seen: np.ndarray) -> np.ndarray:
        """The tokens that queries write that see this, uint8 `[track, query]`."""
        code = self._code(seen)
        place, known = self._look_up(code)
        if not known.all():
            new, first = np.unique(code[~known], return_index=True)
            self._fill(new, *self._compute(seen[:, ~known][:, first]))
            place, _ = self._look_up(code)
        if len(place):
            self.worst = max(self.worst, float(self.losses[place].max()))
        return self.values[place].astype(np.uint8)

    def foresee(self, layout: SheetLayout, parts: Sequence[np.ndarray]) -> None:
        """Compute at once the sights that right sheets show; what else is met, when it is met.

        Args:
            parts: their digits, as of `SheetLayout.parts`.
        """
        true, shown = rule_of(self.task), []
        before = len(self.task.nears)

        def look(field: int, seen: np.ndarray) -> np.ndarray:
            shown.append(np.unique(self._code(seen[before:])))
            return true(field, seen[:before])

        columns, rows = layout.limits["columns"], layout.limits["rows"]
        nears = [*self.task.nears, *self.nears]
        write_sheets(self.task, parts, nears, look, columns=columns, rows=rows)
        codes = np.unique(np.concatenate([np.zeros(0, np.int64), *shown]))
        codes = codes[~self._look_up(codes)[1]]
        if not len(codes):
            return
        tokens, rest = [], codes
        for _ in self.tracks:
            rest, token = np.divmod(rest, self.size)
            tokens.append(np.where(token == self.size - 1, CLOSED, token).astype(np.uint8))
        self._fill(codes, *self._compute(np.stack(tokens[::-1])))

    def _code(self, seen: np.ndarray) -> np.ndarray:
        """A number for each sight."""
        code = np.zeros(seen.shape[1], np.int64)
        for tokens in seen:
            code = code * self.size + np.minimum(tokens, self.size - 1)
        return code

    def _look_up(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where sights are in the table, and which of them are there."""
        if self.whole:
            return code, self.values[code] >= 0
        place = np.searchsorted(self.codes, code).clip(max=max(0, len(self.codes) - 1))
        known = self.codes[place] == code if len(self.codes) else np.zeros(len(code), bool)
        return place, known

    def _fill(self, codes: np.ndarray, tokens: np.ndarray, losses: np.ndarray) -> None:
        if self.whole:
            self.values[codes], self.losses[codes] = tokens, losses
            return
        every = np.concatenate([self.codes, codes])
        order = np.argsort(every, kind="stable")
        self.codes = every[order]
        self.values = np.concatenate([self.values, tokens])[order]
        self.losses = np.concatenate([self.losses, losses])[order]

    @torch.inference_mode()
    def _compute(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tokens that are written where this is seen, and the loss of each."""
        sights = Seen(self.task, self.tracks, seen)
        logits = logits_of_sights(self.model, self.bias, sights, "lines", device=self.device)
        best, token = logits.log_softmax(dim=-1).max(dim=-1)
        return token.cpu().numpy().astype(np.int16), -best.cpu().numpy()


def make_sight_table(
    model: Transformer, bias: object, task: Worksheet, device: torch.device | str = "cpu"
) -> SightTable | None:
    """The table of a model; None where its bias is not one of lines that a table can be made of."""
    if not isinstance(bias, CalibratedBias):
        return None
    try:
        return SightTable(model, bias, task, device)
    except NotApplicableError:
        return None


def decode_sheets(
    model: Transformer,
    bias: CalibratedBias,
    layout: SheetLayout,
    operands: np.ndarray,
    *,
    device: torch.device | str = "cpu",
    table: SightTable | None = None,
    on_progress: Callable[[int, int], object] | None = None,
) -> Written:
    """Write the sheets of problems of one size greedily; without a table, one token after the other.

    Args:
        model, bias: as of `SightTable`, or any lines.
        layout: of the problems; its limits end a sheet that has no end.
        operands: digits `[problem, operand, place]`.
        device: where the model is.
        table: one of the same model, to be filled further.
        on_progress: called with steps done, and their greatest number.
    """
    table = table or make_sight_table(model, bias, layout.task, device)
    if table is None:
        each = [
            decode_one_by_one(model, bias, layout, operands[i : i + 1], device=device)
            for i in range(len(operands))
        ]
        return Written.of(each)
    parts: Sequence[np.ndarray] = layout.parts(operands)
    table.foresee(layout, [digits[:1] for digits in parts])
    limits = layout.limits
    return write_sheets(layout.task, parts, table.nears, table, **limits, on_progress=on_progress)


class _Prefix(Places):
    """Where tokens lie for the one query that writes the next token of a sheet."""

    def __init__(self, layout: SheetLayout) -> None:
        self.layout, self.task = layout, layout.task
        self.pen, self.written = Pen(self.task, **layout.limits), 0
        self.counted = dict.fromkeys(self.task.counters, 0)
        # Where each row begins, among what was written.
        self.begins = [0]

    def add(self, token: int) -> bool:
        """Write a token; whether the sheet goes on."""
        goes_on, self.written = self.pen.write(token), self.written + 1
        if self.pen.row == len(self.begins):
            for name, kinds in self.task.counters.items():
                self.counted[name] += self.task.tokens[token] in kinds
            self.begins.append(self.written)
        return goes_on

    def anchors(self, site: str) -> dict[str, Span]:
        if site == "self":
            return dict.fromkeys((SHEET, LAST), Span(0, self.written + 1, True))
        return self.layout.source_spans

    axes = Sheets.axes

    def keys(self, site: str) -> int:
        return self.written + 1 if site == "self" else self.layout.source_length

    def coordinates(self, queries: torch.Tensor) -> dict[str, torch.Tensor]:
        own = {ROW: self.pen.row, COLUMN: self.pen.column, **self.counted}
        return {name: torch.tensor([number]) for name, number in own.items()}

    def find(
        self, segment: str, place: Sequence[torch.Tensor], field: str = ""
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if segment not in (SHEET, LAST):
            digit, beside = digit_at(self.task, segment, place)
            found, inside = super().find(segment, [] if digit is None else [digit])
            return found, inside & beside
        found = self.written if segment == LAST else self._find_cell(place, field)
        return torch.tensor([max(found, 0)]), torch.tensor([found >= 0])

    def _find_cell(self, place: Sequence[torch.Tensor], field: str) -> int:
        """The query that reads a cell's token: the one after it; -1 where there is none."""
        row, column = map(int, place)
        if not 0 <= row < len(self.begins) or column < 0:
            return -1
        names = [one.name for one in self.task.fields]
        token = self.begins[row] + column * len(names) + names.index(field)
        stop = self.begins[row + 1] if row + 1 < len(self.begins) else self.written
        return token + 1 if token < stop else -1


@torch.inference_mode()
def decode_one_by_one(
    model: Transformer,
    bias: CalibratedBias,
    layout: SheetLayout,
    operands: np.ndarray,
    *,
    device: torch.device | str = "cpu",
) -> Written:
    """As `decode_sheets` of one problem, one token after the other, with a cache of keys and values.

    What other programs do; for comparison, and for biases that are not near the cell being written.
    """
    prefix, view, last = _Prefix(layout), None, layout.vocabulary.start
    source = layout.source(operands[:1]).to(device)
    layers = range(len(model.layers))
    for step in range(layout.tokens_at_most):
        query = torch.tensor([step])
        plans: list[LayerPlan] = []
        for layer in layers:
            sites: LayerPlan = {}
            for site in SITES:
                keys = bias.open_at(site, layer, prefix, query)
                assert keys is not None
                sites[site] = LinesPlan.of(keys, prefix.keys(site), device)
            plans.append(sites)
        if view is None:
            view = model.begin(source, layout.tokens_at_most, plans)
        logits = model.step(torch.tensor([last], device=device), step, view, plans)
        last = int(logits.argmax(dim=-1))
        if not prefix.add(last):
            break
    return prefix.pen.written
