"""What a query sees of a problem, in words; and two that see the same but must write different symbols."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lengthwise.locality.cone import Cone
from lengthwise.locality.contexts import Contexts
from lengthwise.problems.layout import END, START, Layout
from lengthwise.tasks import Transducer

# Contexts among which two that look alike are looked for.
_MOST = 1_000_000


@dataclass(frozen=True)
class Sight:
    """What a query sees of a problem, and what it must write.

    Attributes:
        tokens: of each line of the cone the token, `` where there is none.
        writes: the right symbol, `$` for the end token.
        problem: the problem, as a person writes it.
        column: the column that the query writes.
    """

    tokens: tuple[tuple[str, str], ...]
    writes: str
    problem: str
    column: int

    def __str__(self) -> str:
        return f"{self.seen}: it must write {self.writes}"

    @property
    def seen(self) -> str:
        """The tokens alone: `a[c] = 9, a[c-1] = 9, answer[c-1] = 0`."""
        return ", ".join(f"{line} = {token or 'nothing'}" for line, token in self.tokens)


def look(task: Transducer, cone: Cone, operands: np.ndarray, row: int) -> Sight:
    """What one row of a problem `[operand, column]` sees."""
    layout = Layout(task, operands.shape[1])
    seen = tokens_seen(layout, cone, operands[None], torch.tensor([row]))[0, 0]
    characters = layout.vocabulary.characters
    symbols = [characters[token] if token >= 0 else "" for token in seen.tolist()]
    lines = [str(track) for track in cone.reads]
    return Sight(
        tuple(zip(lines, symbols[:-1], strict=True)), symbols[-1], write_out(task, operands), row
    )


def write_out(task: Transducer, operands: np.ndarray) -> str:
    """The problem `[operand, column]` as text, padding of the answer left out."""
    width = operands.shape[1] - task.growth
    layout = Layout(task, width)
    return layout.text(layout.source(operands[None, :, :width])[0]).strip(START + END)


def look_alikes(contexts: Contexts) -> tuple[Sight, Sight] | None:
    """Two rows of short problems that see the same and must write different symbols.

    None where there are none (`Contexts.suffice`), or none among the first million contexts.
    """
    if contexts.suffice():
        return None
    known: dict[bytes, tuple[int, np.ndarray, int]] = {}
    looked = 0
    for batch in contexts:
        layout, query = Layout(contexts.task, batch.width), torch.tensor([batch.row])
        seen = tokens_seen(layout, contexts.cone, batch.operands, query)[:, 0]
        for place, (*sight, symbol) in enumerate(seen.tolist()):
            key = np.array(sight).tobytes()
            before = known.setdefault(key, (symbol, batch.operands[place], batch.row))
            if before[0] != symbol:
                pair = (before[1:], (batch.operands[place], batch.row))
                first, second = (look(contexts.task, contexts.cone, *one) for one in pair)
                return first, second
        looked += len(seen)
        if looked > _MOST:
            break
    return None


def tokens_seen(layout: Layout, cone: Cone, operands: np.ndarray, queries: Tensor) -> Tensor:
    """Tokens that queries see, -1 where there is none, and last the one that each must write.

    Returns:
        int64 `[problem, query, token]`.
    """
    source, target = layout.batch(operands)
    seen = []
    for track in cone.reads:
        position, inside = track.keys(layout, queries)
        tokens = target if track.site == "self" else source
        seen.append(tokens[:, position].where(inside, -1))
    return torch.stack([*seen, target[:, queries + 1]], dim=-1)
