"""Ids of tokens as a method gives them, and what they become: vectors that are added, or turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.errors import InputError
from lengthwise.methods import Positions
from lengthwise.model.plans import AttentionPlan, LayerPlan
from lengthwise.model.positions import rotary, rotate, sinusoidal
from lengthwise.model.views import Cache, Source, Turn
from lengthwise.problems.layout import Layout
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.tokens import Tokens, extent_of, source_tokens, target_tokens


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
        source, target = source_tokens(layout, read.device), target_tokens(layout, read)
        return Ids(
            *(self._checked(self.method.ids(tokens, drawn), tokens) for tokens in (source, target))
        )

    def check(self, ids: Ids) -> None:
        """Refuse ids past the last one, which would all be taken for that (`InputError`)."""
        every = torch.cat([ids.source.flatten(), ids.target.flatten()])
        least, most = int(every.min()), int(every.max())
        if self.method.encoding == "learned" and not 0 <= least <= most < self.method.size:
            raise InputError(
                f"ids of {self.method} are from 0 to {self.method.size - 1}; got some from {least} to "
                f"{most}"
            )

    def _checked(self, ids: Tensor, tokens: Tokens) -> Tensor:
        """The ids that a method gave.

        Raises:
            InputError: for what are none; a class may be anybody's.
        """
        levels = len(self.tables) or self.method.levels(tuple(tokens.coordinates))
        shape = getattr(ids, "shape", ())
        good = len(shape) == 3 and (shape[0], shape[2]) == (levels, len(tokens.place))
        if not good or ids.dtype != torch.int64:
            told = f"{ids.dtype} {list(shape)}" if isinstance(ids, Tensor) else repr(ids)
            raise InputError(
                f"ids of {self.method} are int64 [level, problem, position], here [{levels}, ..., "
                f"{len(tokens.place)}]; got {told}"
            )
        return ids

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
