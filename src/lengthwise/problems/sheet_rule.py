"""The rule of a worksheet on many cells at once: what it writes where tokens are seen."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from lengthwise.errors import InputError
from lengthwise.tasks.worksheet import LARGEST_TABLE, Worksheet

# What tokens are written: of a field, by what is seen, uint8 `[near, cell]`.
Rule = Callable[[int, np.ndarray], np.ndarray]


@lru_cache(maxsize=16)
def rule_of(task: Worksheet) -> Rule:
    """The rule of a task itself: by its table, or where that is large as sights are met."""
    codes = np.zeros((len(task.nears), 256), np.int64)
    shape = [len(values) for values in task.alphabets]
    for number, values in enumerate(task.alphabets):
        codes[number, [token for token, _ in values]] = np.arange(len(values))
    met = None
    if task.sights > LARGEST_TABLE:
        met = _Met(task)
    else:
        table = task.table.reshape(len(task.fields), -1)

    def rule(field: int, seen: np.ndarray) -> np.ndarray:
        index = np.zeros(seen.shape[1], np.int64)
        for number, tokens in enumerate(seen):
            index = index * shape[number] + codes[number, tokens]
        return table[field, index] if met is None else met(field, index)

    return rule


class _Met:
    """A rule, asked once about each sight that is met.

    Raises:
        InputError: for a rule of so many sights that a number of 64 bits does not tell them apart.
    """

    def __init__(self, task: Worksheet) -> None:
        self.task = task
        self.shape = [len(values) for values in task.alphabets]
        if task.sights >= 2**62:
            raise InputError(f"the rule of {task.name} follows from too many tokens at once")
        self.codes = np.zeros(0, np.int64)
        self.tokens = np.zeros((len(task.fields), 0), np.uint8)

    def __call__(self, field: int, index: np.ndarray) -> np.ndarray:
        place = np.searchsorted(self.codes, index)
        known = place < len(self.codes)
        known[known] = self.codes[place[known]] == index[known]
        if not known.all():
            new = np.unique(index[~known])
            every = np.concatenate([self.codes, new])
            order = np.argsort(every, kind="stable")
            self.codes = every[order]
            self.tokens = np.concatenate([self.tokens, self._ask(new)], axis=1)[:, order]
            place = np.searchsorted(self.codes, index)
        return self.tokens[field, place]

    def _ask(self, codes: np.ndarray) -> np.ndarray:
        found = np.empty((len(self.task.fields), len(codes)), np.uint8)
        for number, index in enumerate(zip(*np.unravel_index(codes, self.shape), strict=True)):
            seen = [v[i][1] for v, i in zip(self.task.alphabets, index, strict=True)]
            found[:, number] = self.task.written(seen)
        return found
