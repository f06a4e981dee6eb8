"""Random problems: the training distribution, the test suites, and the split that keeps them apart.

Every problem belongs to exactly one split, decided by a hash of its operands' values (not of their
padding), so no problem used for validation or test can ever occur in training, whatever the
seeds. One problem in 16 is kept for validation, one in 16 for test: seven parts to one, as in the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np

from lengthwise.errors import NoProblemsError
from lengthwise.tasks import Dataset, Transducer, Worksheet

Split = Literal["train", "validation", "test", "any"]
Suite = Literal["uniform", "carry"]
Distribution = Literal["lengths", "paper"]

# The paper's training data: operands below this.
PAPER_LIMIT = 2**20

_STREAMS = {
    "train": 0,
    "validation": 1,
    "test": 2,
    "any": 3,
    "capture": 4,
    "batches": 5,
    "items": 6,
    "sizes": 7,
    "positions": 8,
    "vanilla": 9,
}
_REDRAWS = 1000

# Digits of long problems that are drawn at once: arrays of some tens of megabytes each.
_DRAWN, _LONG = 10_000_000, 2000

# Digits that are worked on at once, so that the numbers made of them stay in a core's cache.
_AT_ONCE = 1 << 15


def generator(seed: int, stream: str, step: int = 0) -> np.random.Generator:
    """The random generator of one step of one stream; equal arguments give equal draws."""
    return np.random.default_rng([seed, _STREAMS[stream], step])


def split_of(operands: np.ndarray) -> np.ndarray:
    """The split of each problem: 0 to 15, where 0 is validation, 1 is test, the rest training.

    Args:
        operands: digits `[problem, operand, column]`, least significant first. Zeros on the left
            of a number do not change its split. An operand of one digit counts once: zeros after
            column 0.
    """
    count = operands.shape[1] * operands.shape[2]
    # Weights are numbered column by column, so that a wider array keeps those of a narrower one.
    weights = _mix(np.arange(1, count + 1, dtype=np.uint64)).reshape(operands.shape[2], -1).T
    value = np.empty(len(operands), np.uint64)
    for some in _blocks(operands):
        numbers = operands[some].astype(np.uint64)
        numbers *= weights
        value[some] = numbers.sum(axis=(1, 2), dtype=np.uint64)
    return (_mix(value) >> np.uint64(60)).astype(np.int64)


def _blocks(operands: np.ndarray) -> Iterator[slice]:
    """The problems `[problem, operand, column]`, some at a time."""
    each = max(1, _AT_ONCE // max(1, operands[:1].size))
    for first in range(0, len(operands), each):
        yield slice(first, first + each)


def _mix(x: np.ndarray) -> np.ndarray:
    """The 64-bit finalizer of splitmix64: every input bit reaches every output bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def in_split(task: Transducer | Worksheet, operands: np.ndarray, split: Split) -> np.ndarray:
    """Which problems `[problem, operand, column]` belong to a split, bool `[problem]`."""
    if split == "any":
        return np.ones(len(operands), bool)
    if task.fixed:
        # It is repeated in every column, however many there are; its split must not depend on that.
        operands = operands.copy()
        operands[:, task.fixed, 1:] = 0
    bucket = split_of(operands)
    return bucket > 1 if split == "train" else bucket == ("validation", "test").index(split)


def training_problems(
    task: Transducer,
    rng: np.random.Generator,
    count: int,
    *,
    length: int,
    width: int,
    carry_fraction: float,
    split: Split = "train",
    distribution: Distribution = "lengths",
) -> np.ndarray:
    """Problems of length 1 to `length`, as training and validation see them.

    With the distribution `paper`, every operand is uniform below 2^20, a one-digit operand uniform over
    the digits; neither `length` nor `carry_fraction` has a say.

    Otherwise the length of a problem is the larger of two uniform draws from 1 to `length`. Half of the
    problems have operands of that same length; in the others one operand, chosen at random, keeps
    it and the rest draw theirs uniformly from 1 up to it. A share `carry_fraction` gets a carry
    chain (see `add_chains`), and some tasks enrich what rarely occurs (`Transducer.enrich`).

    Returns:
        Digits, uint8 `[problem, operand, column]`, least significant first.
    """

    if isinstance(task, Dataset):
        return task.draw(rng, count, split, width, range(1, length + 1))

    def draw(n: int) -> np.ndarray:
        if distribution == "paper":
            return task.admit(_below(task, rng, n, width))
        longest = rng.integers(1, length + 1, (2, n)).max(axis=0)
        operands = len(task.operands)
        lengths = np.repeat(longest[:, None], operands, axis=1)
        if operands > 1:
            keeps = rng.integers(0, operands, n)
            shorter = rng.integers(1, longest[:, None] + 1, (n, operands))
            unequal = rng.random(n)[:, None] < 0.5
            lengths = np.where(unequal & (np.arange(operands) != keeps[:, None]), shorter, lengths)
        digits = _numbers(task, rng, lengths, width)
        chained = rng.random(n) < carry_fraction
        digits[chained] = add_chains(task, rng, digits[chained], longest[chained])
        return task.admit(task.enrich(rng, digits, longest))

    return filled(task, draw, count, split, f"of length 1 to {length}", width=width)


def suite_problems(
    task: Transducer,
    rng: np.random.Generator,
    count: int,
    *,
    suite: Suite,
    length: int,
    width: int,
    split: Split = "test",
) -> np.ndarray:
    """Problems of exactly `length` digits, for evaluation.

    `uniform`: every operand is a uniform number of exactly `length` digits. `carry`: the same with a
    carry chain laid over it.

    Returns:
        Digits, uint8 `[problem, operand, column]`, least significant first.

    Raises:
        NoProblemsError: when the split has no problem of that length (only tiny lengths).
    """

    if isinstance(task, Dataset):
        return task.draw(rng, count, split, width, range(length, length + 1))

    def draw(n: int) -> np.ndarray:
        lengths = np.full((n, len(task.operands)), length)
        digits = _numbers(task, rng, lengths, width)
        if suite == "carry":
            digits = add_chains(task, rng, digits, lengths[:, 0])
            # A chain of zeros (decrement, subtraction) must not make the problem shorter.
            short = ~digits[:, task.growing, length - 1].any(axis=1)
            if short.any():
                digits[short, task.growing[0], length - 1] = rng.integers(1, task.base, short.sum())
        return task.admit(digits)

    return filled(task, draw, count, split, f"of length {length}", width=width)


def filled(
    task: Transducer | Worksheet,
    draw: Callable[[int], np.ndarray],
    count: int,
    split: Split,
    what: str,
    *,
    width: int = 0,
    inside: Callable[..., np.ndarray] = in_split,
) -> np.ndarray:
    """Draw until `count` problems of the split are there.

    Args:
        draw: so many random problems.
        what: the problems, as an error says it.
        width: of those of which fewer are drawn at once where it is large.
        inside: as `in_split`.

    Raises:
        NoProblemsError: where none are found.
    """
    share = {"train": 14 / 16, "any": 1.0}.get(split, 1 / 16)
    kept, missing = [], count
    most = max(1, _DRAWN // (width * len(task.operands))) if width > _LONG else None
    for _ in range(_REDRAWS):
        wanted = int(missing / share * 1.1) + 8
        problems = draw(wanted if most is None else min(wanted, most))
        kept.append(problems[inside(task, problems, split=split)][:missing])
        missing -= len(kept[-1])
        if missing == 0:
            return np.concatenate(kept)
    raise NoProblemsError(f"the {split} split holds no problem of {task.name} {what}")


def _below(task: Transducer, rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Numbers uniform below `PAPER_LIMIT`, digits `[problem, operand, column]`."""
    numbers = rng.integers(0, PAPER_LIMIT, (count, len(task.operands)))
    digits = np.empty((*numbers.shape, width), np.uint8)
    for column in range(width):
        numbers, digits[..., column] = np.divmod(numbers, task.base)
    for place in task.fixed:
        digits[:, place] = rng.integers(0, task.base, (count, 1), np.uint8)
    return digits


def _numbers(
    task: Transducer, rng: np.random.Generator, lengths: np.ndarray, width: int
) -> np.ndarray:
    """Uniform numbers of exactly the given lengths `[problem, operand]`, digits `[..., width]`."""
    digits = rng.integers(0, task.base, (*lengths.shape, width), np.uint8)
    digits[np.arange(width) >= lengths[..., None]] = 0
    top = np.take_along_axis(digits, lengths[..., None] - 1, axis=2)
    leading = rng.integers(1, task.base, top.shape, np.uint8)
    # A number of one digit may be zero.
    top = np.where((top == 0) & (lengths[..., None] > 1), leading, top)
    np.put_along_axis(digits, lengths[..., None] - 1, top, axis=2)
    digits[:, task.fixed] = digits[:, task.fixed, :1]
    return digits


def add_chains(
    task: Transducer, rng: np.random.Generator, digits: np.ndarray, lengths: np.ndarray
) -> np.ndarray:
    """Lay one carry chain over each problem: a run of columns that let the state through.

    Half of the chains begin at column 0, the others at a uniform column; the number of columns is
    uniform from 1 to `length`, cut off at the length of the problem.

    Args:
        digits: `[problem, operand, column]`.
        lengths: digits of the longest operand, `[problem]`.
    """
    count, _, width = digits.shape
    start = np.where(rng.random(count) < 0.5, 0, rng.integers(0, lengths, count))
    stop = np.minimum(start + rng.integers(1, lengths + 1, count), lengths)
    # For each value of the one-digit operands, the propagating columns of the growing ones.
    table = np.moveaxis(task.propagating, task.fixed, range(len(task.fixed)))
    table = table.reshape(task.base ** len(task.fixed), -1)
    choices = table.sum(axis=1)
    order = np.argsort(~table, axis=1, kind="stable")
    key = np.zeros(count, np.int64)
    for index in task.fixed:
        key = key * task.base + digits[:, index, 0]
    position = np.arange(width)
    for some in _blocks(digits):
        most, own = choices[key[some]][:, None], digits[some]
        inside = (position >= start[some, None]) & (position < stop[some, None]) & (most > 0)
        pick = (rng.random(inside.shape) * most).astype(np.int64)
        column = order[key[some, None], pick]
        for index in reversed(task.growing):
            column, digit = np.divmod(column, task.base)
            own[:, index] = np.where(inside, digit, own[:, index])
    return digits
