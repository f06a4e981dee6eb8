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

from lengthwise.bias import CalibratedBias
from lengthwise.locality.sheets import cone_of_sheet
from lengthwise.model import Transformer
from lengthwise.model.sheets import logits_of_sights
from lengthwise.problems.sheets import Seen, SheetLayout
from lengthwise.problems.wavefront import Written, write_sheets
from lengthwise.tasks import Worksheet
from lengthwise.tasks.worksheet import LAST, Near

# A table of at most so many entries is kept whole; else sights are looked up among those met.
_ENTRIES = 1 << 24


class SightTable:
    """A model as a table: of each sight the token that it writes, computed when first asked.

    Args:
        model: the model, in evaluation mode.
        bias: lines near the cell being written.
        task: the worksheet.
        device: where the model is.

    Attributes:
        met: sights in the table.
        worst: the largest loss of a token that was written, nats.

    Raises:
        NotApplicableError: for other lines.
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
        self.whole = self.size ** len(self.tracks) <= _ENTRIES
        self.met, self.worst = 0, 0.0
        # Of each sight the token, -1 where it is not known; then its loss.
        entries = self.size ** len(self.tracks) if self.whole else 0
        self.values = np.full(entries, -1, np.int16)
        self.losses = np.zeros(entries, np.float32)
        self.codes = np.zeros(0, np.int64)

    def __call__(self, field: int, seen: np.ndarray) -> np.ndarray:
        """The tokens that queries write that see this, uint8 `[track, query]`."""
        code = np.zeros(seen.shape[1], np.int64)
        for tokens in seen:
            code = code * self.size + np.minimum(tokens, self.size - 1)
        place, known = self._look_up(code)
        if not known.all():
            new, first = np.unique(code[~known], return_index=True)
            self._fill(new, *self._compute(seen[:, ~known][:, first]))
            place, _ = self._look_up(code)
        if len(place):
            self.worst = max(self.worst, float(self.losses[place].max()))
        return self.values[place].astype(np.uint8)

    def _look_up(self, code: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where sights are in the table, and which of them are there."""
        if self.whole:
            return code, self.values[code] >= 0
        place = np.searchsorted(self.codes, code).clip(max=max(0, len(self.codes) - 1))
        known = self.codes[place] == code if len(self.codes) else np.zeros(len(code), bool)
        return place, known

    def _fill(self, codes: np.ndarray, tokens: np.ndarray, losses: np.ndarray) -> None:
        self.met += len(codes)
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
    """Write the sheets of problems of one size greedily.

    Args:
        model, bias: as of `SightTable`.
        layout: of the problems; its limits end a sheet that has no end.
        operands: digits `[problem, operand, place]`.
        device: where the model is.
        table: one of the same model, to be filled further.
        on_progress: called with steps done, and their greatest number.
    """
    table = table or SightTable(model, bias, layout.task, device)
    parts: Sequence[np.ndarray] = layout.parts(operands)
    return write_sheets(
        layout.task, parts, table.nears, table, on_progress=on_progress, **layout.limits
    )
