"""Random problems of worksheets: what is trained on, and the suites.

The split of a problem is that of its operands' values (`lengthwise.problems.sampling`); of lists, which are
counted from the left, zeros on the left count, and so does the length.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, Literal

import numpy as np

from lengthwise.problems.sampling import Split, filled, in_split
from lengthwise.problems.sizes import Size
from lengthwise.tasks import Worksheet

SheetSuite = Literal["uniform", "hard"]

# Digits that a problem of few values has.
_FEW = 3

# Of lists of a size of which there are no more than so many, none is held out.
_FEWEST = 100


def training_sheets(
    task: Worksheet,
    rng: np.random.Generator,
    count: int,
    *,
    size: Size,
    large: float,
    split: Split = "train",
) -> np.ndarray:
    """Problems of one size, as training and validation see them: zeros on the left are kept.

    Digits are uniform; in a share `large` of the problems large ones are common. A large carry takes
    several in a row, and what is rare is not learned: by this the rarest neighbourhood of multiplication is
    met four times as often (docs/log.md, 2026-11-26, "the rarest neighbourhood").

    Returns:
        Digits, uint8 `[problem, operand, place]`, least significant first.
    """

    def draw(n: int) -> np.ndarray:
        digits = _uniform(task, rng, n, size)
        chosen = rng.random(n) < large
        digits[chosen] = _large(task, rng, int(chosen.sum()), size)
        return admit(task, rng, digits, size)

    return filled(task, draw, count, split, f"of size {size}", inside=partial(of_split, size=size))


def suite_sheets(
    task: Worksheet,
    rng: np.random.Generator,
    count: int,
    *,
    suite: SheetSuite,
    size: Size,
    split: Split = "test",
) -> np.ndarray:
    """Problems of exactly this size, for evaluation.

    `uniform`: every operand is a uniform number of exactly so many digits. `hard`, in equal shares: the
    largest digits alone, and beside them 10...01; few values of digits; long runs of one digit; and small
    numbers with all their zeros on the left.

    Returns:
        Digits, as `training_sheets`.

    Raises:
        NoProblemsError: when the split has no such problem (only tiny sizes).
    """

    def draw(n: int) -> np.ndarray:
        digits = _uniform(task, rng, n, size)
        if suite == "hard":
            kinds = np.arange(n) % len(_HARD)
            rng.shuffle(kinds)
            for number, kind in enumerate(_HARD):
                chosen = kinds == number
                digits[chosen] = kind(task, rng, int(chosen.sum()), size)
            return admit(task, rng, digits, size, begin=True)
        for place, name in enumerate(segment.name for segment in task.operands):
            top = size.of(task, name) - 1
            if top and name not in task.from_left:  # a number of one digit may be zero
                lead = digits[:, place, top]
                lead[lead == 0] = rng.integers(1, task.base, int((lead == 0).sum()))
        return admit(task, rng, digits, size)

    return filled(task, draw, count, split, f"of size {size}", inside=partial(of_split, size=size))


def of_split(task: Worksheet, problems: np.ndarray, size: Size, split: Split) -> np.ndarray:
    """Which problems `[problem, operand, place]` of a size belong to a split, bool `[problem]`."""
    lists = [segment.name in task.from_left for segment in task.operands]
    if all(lists) and _problems(task, size) <= _FEWEST:
        # What so short a list shows, no longer one does: all are trained on.
        return np.full(len(problems), split in ("train", "any"))
    if any(lists):
        inside = np.array(lists)[:, None] & ~_outside(task, size)
        problems = problems + inside.astype(np.uint8)
    return in_split(task, problems, split)


def _problems(task: Worksheet, size: Size) -> int:
    """How many problems of a size there are, at most."""
    counts = (len(task.texts(s.name)) ** size.of(task, s.name) for s in task.operands)
    return math.prod(counts)


def admit(
    task: Worksheet, rng: np.random.Generator, digits: np.ndarray, size: Size, begin: bool = False
) -> np.ndarray:
    """Random digits `[problem, operand, place]` as problems of the task: zeros past each operand's own."""
    digits[:, _outside(task, size)] = 0
    lengths = [size.of(task, segment.name) for segment in task.operands]
    parts = [digits[:, place, :length] for place, length in enumerate(lengths)]
    for place, own in enumerate(task.admit(rng, parts, begin=begin)):
        digits[:, place, : lengths[place]] = own
    return digits


def _outside(task: Worksheet, size: Size) -> np.ndarray:
    """The places past each operand's own digits, bool `[operand, place]`."""
    lengths = np.array([size.of(task, segment.name) for segment in task.operands])
    return np.arange(size.longest) >= lengths[:, None]


def _values(task: Worksheet) -> Any:
    """How many values a digit has; where operands differ in that, of each, `[operand, 1]`."""
    found = [len(task.texts(segment.name)) for segment in task.operands]
    return found[0] if len(set(found)) == 1 else np.array(found)[:, None]


def _uniform(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    shape = count, len(task.operands), size.longest
    return rng.integers(0, _values(task), shape, np.uint8)


def _large(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    """Digits that are the commoner the larger: the largest less the base times a uniform share squared."""
    shares, values = rng.random((count, len(task.operands), size.longest)), _values(task)
    return (values - 1 - np.floor(values * shares**2)).astype(np.uint8)


def _few_values(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    shape = (count, len(task.operands), size.longest)
    values = rng.integers(0, task.base, (count, 1, _FEW), np.uint8)
    values = np.minimum(values, _values(task) - 1).astype(np.uint8)
    return np.take_along_axis(values, rng.integers(0, _FEW, shape), axis=2)


def _largest(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    """9...9 and 9...9."""
    shape = count, len(task.operands), size.longest
    return np.broadcast_to(_values(task) - 1, shape).astype(np.uint8)


def _sparse(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    """10...01 in one operand, and 9...9 in the others."""
    digits, own = _largest(task, rng, count, size), rng.integers(0, len(task.operands), count)
    for place, name in enumerate(segment.name for segment in task.operands):
        chosen = own == place
        digits[chosen, place] = 0
        one = min(1, len(task.texts(name)) - 1)
        digits[chosen, place, 0] = digits[chosen, place, size.of(task, name) - 1] = one
    return digits


def _runs(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    """Uniform numbers with a run of one digit in each operand."""
    digits = _uniform(task, rng, count, size)
    start = rng.integers(0, size.longest, digits.shape[:2])
    stop = start + rng.integers(1, size.longest + 1, digits.shape[:2])
    place = np.arange(size.longest)
    inside = (place >= start[..., None]) & (place < stop[..., None])
    most = _values(task)
    most = most if isinstance(most, int) else most[:, 0]
    value = rng.integers(0, most, digits.shape[:2], np.uint8)
    return np.where(inside, value[..., None], digits)


def _small(task: Worksheet, rng: np.random.Generator, count: int, size: Size) -> np.ndarray:
    """0...02 and the like: numbers of one digit, with all zeros on the left."""
    digits = _uniform(task, rng, count, size)
    digits[:, :, 1:] = 0
    return digits


_HARD = (_largest, _sparse, _few_values, _runs, _small)
