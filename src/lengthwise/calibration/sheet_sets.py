"""Which of the lines that a model needs are enough: the fewest that tell every symbol of every sheet.

Whether some lines do is decided by all sights along them (`lengthwise.locality.sheets`). That takes seconds
for many lines, so sets that do not even suffice on some sheets are dropped by those first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import combinations

import numpy as np

from lengthwise.bias import Track
from lengthwise.calibration.evidence import SheetEvidence
from lengthwise.errors import NoProblemsError
from lengthwise.locality.sheets import LAST_TOKEN, tell_apart
from lengthwise.problems.sampling import generator
from lengthwise.problems.sheet_sampling import suite_sheets, training_sheets
from lengthwise.problems.sheets import SheetLayout, Sheets
from lengthwise.problems.sizes import Size
from lengthwise.tasks import Worksheet

# Sheets of each kind, and how much larger than in training some are.
_SHEETS, _LARGER = 200, 3

# Lines of a set, at most.
_MOST = 8


def fewest(task: Worksheet, size: Size, found: Sequence[SheetEvidence]) -> list[SheetEvidence]:
    """The fewest that tell every symbol, of equally few those with the fewest sights; none where none do.

    Args:
        size: of training.
        found: lines that a model needs, or may need.
    """
    shown = _Shown(task, size, [item.track for item in found])
    for count in range(1, min(len(found), _MOST) + 1):
        sets = [
            (sights, chosen)
            for chosen in combinations(range(len(found)), count)
            if (sights := shown.sights(chosen))
        ]
        for _, chosen in sorted(sets):
            lines = [found[place] for place in chosen]
            if tell_apart(task, [item.track for item in lines]):
                return lines
    return []


class _Shown:
    """What the queries of some right sheets see along lines, and what they write."""

    def __init__(self, task: Worksheet, size: Size, tracks: Sequence[Track]) -> None:
        larger = Size(size.columns + _LARGER, size.rows + _LARGER)
        rng, groups = generator(0, "capture", 2), []
        for own in (Size(1, 1), Size(size.columns, 1), Size(1, size.rows), size, larger):
            layout = SheetLayout(task, own)
            for operands in _draw(task, rng, own):
                groups.append((layout, *layout.batch(operands)))
        sheets = Sheets(groups)
        wanted = sheets.wanted[0].numpy()
        seen = sheets.seen([LAST_TOKEN, *tracks]).astype(np.int16)
        rows = np.concatenate([seen, wanted[None].astype(np.int16)])[:, wanted >= 0]
        rows = np.unique(rows, axis=1)
        # A random number for each token on each line: their sum stands for what is seen on several.
        numbers = rng.integers(0, 2**64, (len(rows), 256), np.uint64)
        self.last, *self.lines, self.wanted = np.take_along_axis(
            numbers, rows.astype(np.int64), axis=1
        )

    def sights(self, chosen: Iterable[int]) -> int:
        """How many sights lines show, by their places; 0 where one does not tell what to write."""
        seen = self.last.copy()
        for place in chosen:
            seen += self.lines[place]
        alone = len(np.unique(seen))
        return alone if alone == len(np.unique(seen + self.wanted)) else 0


def _draw(task: Worksheet, rng: np.random.Generator, size: Size) -> list[np.ndarray]:
    found = [training_sheets(task, rng, _SHEETS, size=size, large=0.5, split="any")]
    with suppress(NoProblemsError):
        found.append(suite_sheets(task, rng, _SHEETS, suite="hard", size=size, split="any"))
    return found
