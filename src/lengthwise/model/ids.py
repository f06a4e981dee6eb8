"""Ids of tokens as a method gives them, and what they become: vectors that are added, or turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.methods import Positions
from lengthwise.model.plans import AttentionPlan, LayerPlan
from lengthwise.model.positions import rotary, rotate, sinusoidal
from lengthwise.model.views import Cache, Source, Turn
from lengthwise.problems.layout import Layout
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.tokens import extent_of, source_tokens, target_tokens


@dataclass(frozen=True)
class Ids:
    """The ids of some tokens, int64 `[level, problem, position]`: of the source, and of what rows read."""

    source: Tensor
    target: Tensor


class NextRow(list[tuple[Cache, Source]]):
    """A view of the next row, and what was read so far, from which ids follow.

    Attributes:
        plan: the plan that it began with.
        read: the tokens, int64 `[batch, row]`.
    """

    def __init__(
        self, view: Sequence[tuple[Cache, Source]], plan: Sequence[LayerPlan], read: Tensor
    ) -> None:
        super().__init__(view)
        self.plan, self.read = plan, read


class IdVectors(nn.Module):
    """The vectors of ids: of each level a table that is learned, or sines and cosines."""

    def __init__(self, method: Positions, axes: tuple[str, ...], width: int, heads: int) -> None:
        super().__init__()
        self.method, self.width, self.channels = method, width, width // heads
        learned = method.encoding == "learned"
        count = method.levels(axes) if learned else 0
        self.tables = nn.ModuleList(nn.Embedding(method.size, width) for _ in range(count))

    @property
    def turns(self) -> bool:
        """Whether ids turn queries and keys, and are not added."""
        return self.method.encoding == "rope"

    def ids(self, plan: Sequence[LayerPlan], read: Tensor, drawn: Tensor | None = None) -> Ids:
        """The ids of problems.

        Args:
            plan: from `plan_attention`, which knows their layout.
            read: the tokens that rows read, int64 `[batch, row]`.
            drawn: what the training step draws; where it is None, what stands for it in an evaluation.
        """
        layout = plan.layout if isinstance(plan, AttentionPlan) else None
        if not isinstance(layout, Layout | SheetLayout):
            raise ValueError(
                f"{self.method} number tokens by their layout; give the plan of plan_attention for one"
            )
        drawn = self.method.fixed(extent_of(layout)) if drawn is None else drawn
        drawn = drawn.to(read.device)
        return Ids(
            self.method.ids(source_tokens(layout, read.device), drawn),
            self.method.ids(target_tokens(layout, read), drawn),
        )

    def forward(self, ids: Tensor) -> Tensor:
        """The vectors of ids `[level, problem, position]`, those of all levels added up."""
        if self.method.encoding == "sinusoidal":
            found = sinusoidal(ids.flatten().cpu(), self.width).to(ids.device)
            return found.view(*ids.shape, self.width).sum(dim=0)
        # What a wrong answer writes without end runs past the table.
        ids = ids.clamp(0, self.method.size - 1)
        tables = [cast(nn.Embedding, table).weight for table in self.tables]
        return torch.stack(
            [F.embedding(own, table) for own, table in zip(ids, tables, strict=True)]
        ).sum(dim=0)

    def turn(self, ids: Tensor) -> Turn:
        """What turns queries or keys `[batch, head, position, channel]` that have these ids."""
        first = ids[0]
        table = rotary(first.flatten().cpu(), self.channels).to(ids.device)
        rotation = table.view(2, len(first), 1, first.shape[1], self.channels)
        return lambda x, _: rotate(x, rotation.to(x.dtype))
