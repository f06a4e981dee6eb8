"""What several test files share: a task with a fixed digit, random biases, untrained models."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from lengthwise.bias import SITES, WHOLE, CalibratedBias, Line
from lengthwise.layout import Layout, Vocabulary
from lengthwise.model import Transformer
from lengthwise.tasks import TASKS, Segment, Transducer

# Of every bias that `biases` draws, and of every model that `make_untrained` makes.
HEADS, LAYERS = 3, 2

DIRECTIONS = ("diagonal", "anti-diagonal", "vertical", "everywhere")
SEGMENTS = {"successor": ("a",), "addition": ("a", "+", "b"), "nx1": ("a", "*", "d")}


class Multiple(Transducer):
    """a times one digit d: `0123*6` is 738. An operand that does not grow, and ten states."""

    name = "multiple"
    segments = (Segment("a", "operand"), Segment("*", "symbol"), Segment("d", "digit"))
    states = 10
    growth = 1
    example = ("12*3", "36")

    def step(self, state: int, *column: int) -> tuple[int, int]:
        return divmod(column[0] * column[1] + state, self.base)


@st.composite
def lines_for(draw, task: str, everywhere: bool) -> Line:
    """Any line that fits a task: at either site, crossing others, on or off the matrix."""
    site = draw(st.sampled_from(SITES))
    own = ("answer",) if site == "self" else SEGMENTS[task]
    return Line(
        site,
        draw(st.sampled_from((*own, WHOLE))),
        draw(st.sampled_from(DIRECTIONS if everywhere else DIRECTIONS[:3])),
        draw(st.integers(-4, 4)),
        layer=draw(st.sampled_from((None, *range(LAYERS)))),
        head=draw(st.integers(0, HEADS - 1)),
        value=draw(st.sampled_from((0.0, 0.0, -1.5, 2.0, -0.25))),
    )


@st.composite
def biases(draw, *, everywhere: bool = True, most: int = 10) -> CalibratedBias:
    """A bias of up to `most` lines; without `everywhere` it has a lines path."""
    task = draw(st.sampled_from(sorted(SEGMENTS)))
    lines = draw(st.lists(lines_for(task, everywhere), max_size=most))
    return CalibratedBias(task, HEADS, lines)


def make_untrained(task: str, seed: int = 0, positions: str = "sinusoidal") -> Transformer:
    """A small model in evaluation mode; all its parameters are random, norms and offsets too."""
    torch.manual_seed(seed)
    definition = TASKS[task]()
    model = Transformer(
        len(Vocabulary(definition.base, definition.symbols)),
        width=12,
        heads=HEADS,
        layers=LAYERS,
        feed_forward=20,
        positions=positions,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def random_batch(layout: Layout, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Source and target tokens of random problems at a layout's width."""
    rng = np.random.default_rng(seed)
    shape = (count, len(layout.task.operands), layout.width)
    return layout.batch(rng.integers(0, layout.task.base, shape, np.uint8))
