"""What queries see in problems that are known, where a task has no rule that says what they may see."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch

from lengthwise.locality.cone import Cone
from lengthwise.locality.sights import tokens_seen
from lengthwise.problems.layout import Layout
from lengthwise.problems.sampling import generator

# Problems that are looked at, at most.
_MOST = 20_000


class KnownContexts:
    """As `Contexts`, of the training problems of a `Dataset`: what they show, which may not be all.

    Args:
        layout: of the training width.
        cone: what a query depends on.
    """

    def __init__(self, layout: Layout, cone: Cone) -> None:
        self.layout, self.cone = layout, cone

    @cached_property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Different sights with what is written there, int64 `[case, token]`, and the sight of each."""
        layout = self.layout
        known = layout.task.problems
        rng, longest = generator(0, "any"), layout.width - layout.task.growth
        count = min(_MOST, len(known.lengths))
        drawn = layout.task.draw(rng, count, "train", layout.width, range(1, longest + 1))
        queries = torch.arange(layout.target_length)
        cases = tokens_seen(layout, self.cone, np.unique(drawn, axis=0), queries)
        cases = np.unique(cases.flatten(0, 1).numpy(), axis=0)
        _, sight = np.unique(cases[:, :-1], axis=0, return_inverse=True)
        return cases, sight

    def suffice(self) -> bool:
        """Whether what a query sees tells, in all of these problems, what it must write."""
        cases, sight = self._seen
        return int(sight.max()) + 1 == len(cases)

    def bound(self) -> int:
        """How many sights there are."""
        return int(self._seen[1].max()) + 1
