"""Batches of problems, the same for the same seed and step, whatever was drawn before."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lengthwise.errors import NoProblemsError
from lengthwise.methods import Positions
from lengthwise.problems.layout import Layout, least_width
from lengthwise.problems.sampling import Split, generator, training_problems
from lengthwise.problems.sheet_sampling import training_sheets
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size
from lengthwise.problems.tokens import extent_of
from lengthwise.settings.config import Config, InputError
from lengthwise.training.drill import drill_problems, drill_sheets

# Steps whose problems are drawn at once: drawing costs many small calls, however few the problems.
STEPS = 16

# Where problems are padded further than their answers need, of so many batches the last is of drilled
# problems alone, at the width of each: their answers reach the end there, which they never do when padded.
_OWN_WIDTH = 8


@dataclass(frozen=True)
class Batch:
    """Problems as tokens.

    Attributes:
        layout: of all of them.
        source: source tokens, int64 `[problem, source position]`.
        target: the start token, the answer's and the end, int64 `[problem, row + 1]`.
    """

    layout: Layout | SheetLayout
    source: Tensor
    target: Tensor

    @classmethod
    def of(cls, layout: Layout | SheetLayout, operands: np.ndarray) -> Batch:
        """Problems `[problem, operand, place]` with their true answers."""
        return cls(layout, *layout.batch(operands))


class SheetBatches:
    """The sheets of one training: as `Batches`.

    With `data.widths` varied, batches have sizes of their own, uniform from 1 x 1 up to that of training;
    with `rows`, from one row on, and all of its columns. Those with drill problems, every second one then,
    have that of training.

    Raises:
        InputError: for a drill that is none of the task, or larger than the training size.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.layout = config, config.layout()
        self.drill = drill_sheets(config, self.layout)

    def train(self, step: int) -> Batch:
        """The batch of a step."""
        count, drill = self.config.training.batch_size, self.drill
        rng = generator(self.config.seed, "batches", step)
        widths = self.config.data.widths
        if widths != "fixed" and (not len(drill) or step % 2):
            size = self.layout.size
            least = size.columns if widths == "rows" else 1
            smaller = Size(
                int(rng.integers(least, size.columns + 1)), int(rng.integers(1, size.rows + 1))
            )
            layout = self.config.layout(smaller)
            try:
                return Batch.of(layout, self._draw(layout, "train", step, count))
            except NoProblemsError:
                pass  # of the smallest sizes another split may hold all
        sizes = [*drill] or [self.layout.size]
        size = sizes[rng.integers(0, len(sizes))] if len(sizes) > 1 else sizes[0]
        layout = self.layout if size == self.layout.size else self.config.layout(size)
        operands = self._draw_whole("train", step, count, layout)
        if size in drill:
            own = drill[size]
            operands[: count // 8] = own[rng.integers(0, len(own), count // 8)]
        return Batch.of(layout, operands)

    def validation(self, count: int) -> Batch:
        """Held-out problems, of the training size."""
        operands = self._draw_whole("validation", 0, count, self.layout)
        if self.layout.size in self.drill:
            operands = np.concatenate([operands, self.drill[self.layout.size]])
        return Batch.of(self.layout, operands)

    def _draw_whole(self, stream: Split, step: int, count: int, layout: SheetLayout) -> np.ndarray:
        try:
            return self._draw(layout, stream, step, count)
        except NoProblemsError as error:
            size = layout.size
            if size in self.drill:  # of the smallest sizes another split may hold all others
                own = self.drill[size]
                return own[np.arange(count) % len(own)]
            raise InputError(f"{error}; data.length must be more than {size}") from error

    def _draw(self, layout: SheetLayout, stream: Split, step: int, count: int) -> np.ndarray:
        return training_sheets(
            layout.task,
            generator(self.config.seed, stream, step),
            count,
            size=layout.size,
            large=self.config.data.carry_fraction,
            split=stream,
        )


class Batches:
    """The problems of one training.

    Drill problems, if any, take an eighth of a training batch; in validation all of them count. Where all
    are padded as in the paper (`data.width`), they also have a batch of their own now and then, at their
    own width: a departure from the paper, whose models know the end by its place.

    Raises:
        InputError: for a drill that is none of the task.
    """

    def __init__(self, config: Config) -> None:
        self.config, self.layout = config, config.layout()
        self.drill = drill_problems(config, self.layout)
        padded = self.layout.width > config.data.length + self.layout.task.growth
        self._own_widths = [
            least_width(self.layout.task, one[None]) for one in self.drill if padded
        ]
        self._steps: tuple[int, list[Batch]] = -1, []

    def train(self, step: int) -> Batch:
        """The batch of a step."""
        several, place = divmod(step, STEPS)
        if several != self._steps[0]:
            self._steps = several, self._draw_steps(several)
        return self._steps[1][place]

    def validation(self, count: int) -> Batch:
        """Held-out problems, padded to the training width even where batches are cut to less."""
        operands = np.concatenate([self._draw("validation", 0, count), self.drill])
        return Batch.of(self.layout, operands)

    def _draw(self, stream: Split, step: int, count: int) -> np.ndarray:
        data = self.config.data
        try:
            return training_problems(
                self.layout.task,
                generator(self.config.seed, stream, step),
                count,
                length=data.length,
                width=self.layout.width,
                carry_fraction=data.carry_fraction,
                split=stream,
                distribution=data.distribution,
            )
        except NoProblemsError as error:
            raise InputError(f"{error}; data.length must be more than {data.length}") from error

    def _draw_steps(self, several: int) -> list[Batch]:
        size, varied = self.config.training.batch_size, self.config.data.widths == "varied"
        operands = self._draw("train", several, size * STEPS)
        rng = generator(self.config.seed, "batches", several)
        steps = operands.reshape(STEPS, size, *operands.shape[1:])
        if len(self.drill):
            steps[:, : size // 8] = self.drill[rng.integers(0, len(self.drill), (STEPS, size // 8))]
        if varied:
            batches = [self._narrow(own, rng) for own in steps]
        else:
            whole = Batch.of(self.layout, steps.reshape(operands.shape))
            parts = zip(whole.source.split(size), whole.target.split(size), strict=True)
            batches = [Batch(self.layout, *own) for own in parts]
        if self._own_widths:
            for place in range(_OWN_WIDTH - 1, STEPS, _OWN_WIDTH):
                batches[place] = self._drilled(size, rng)
        return batches

    def _drilled(self, count: int, rng: np.random.Generator) -> Batch:
        """Drilled problems of one width, that which their answers need."""
        width = self._own_widths[rng.integers(0, len(self._own_widths))]
        own = self.drill[np.array(self._own_widths) == width]
        operands = own[rng.integers(0, len(own), count), :, :width]
        return Batch.of(self.config.layout(width), operands)

    def _narrow(self, operands: np.ndarray, rng: np.random.Generator) -> Batch:
        """A batch at a width of its own: uniform from what its answers need up to the training width."""
        least, most = least_width(self.layout.task, operands), self.layout.width
        width = int(rng.integers(least, most + 1))
        return Batch.of(self.config.layout(width), operands[:, :, :width])


def draw_positions(
    method: Positions, config: Config, step: int, layout: Layout | SheetLayout
) -> Tensor:
    """What a position scheme draws for a step, int64 `[problem, number]`: as the problems, of the step."""
    rng, count = generator(config.seed, "positions", step), config.training.batch_size
    return method.draw(rng, count, extent_of(layout)).expand(count, -1)


def make_batches(config: Config) -> Batches | SheetBatches:
    """The problems of a training with some settings."""
    return SheetBatches(config) if config.is_sheet else Batches(config)
