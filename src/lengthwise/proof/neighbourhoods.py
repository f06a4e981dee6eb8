"""Logits of one row of many problems, with what their neighbourhoods have in common computed once.

The state of a row after some layers depends on its own neighbourhood alone: the cone of these layers
(docs/proof.md, lemma 1). Millions of contexts share thousands of neighbourhoods, so a state is computed for
the first problem that shows its neighbourhood and looked up for the others. What computes it are the layers
of the model themselves, with the plans that decoding uses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.bias import CLOSED, AttentionBias
from lengthwise.config import Config
from lengthwise.layout import Layout
from lengthwise.locality import Cone, Contexts, join
from lengthwise.model import Transformer, plan_attention
from lengthwise.model.plans import Plan
from lengthwise.model.transformer import Embedded, Layer
from lengthwise.proof.scope import period_of, receptive_reaches
from lengthwise.tasks import Transducer

# States are kept where there are this many times fewer neighbourhoods than contexts.
_WORTH = 4

# Neighbourhoods are numbered by what they hold, in one machine word.
_NUMBERS = 2**62


@dataclass(frozen=True)
class Problems:
    """Problems of one width, seen from some of their rows.

    Attributes:
        layout: their layout.
        source, target: their tokens `[problem, position]`.
    """

    layout: Layout
    source: Tensor
    target: Tensor

    def __getitem__(self, chosen: Tensor) -> Problems:
        return Problems(self.layout, self.source[chosen], self.target[chosen])


class Neighbourhoods:
    """A model under a bias of lines, or a window, row by row.

    Args:
        config: settings of the run.
        model: its model, in evaluation mode.
        bias: its bias.
        share: whether to compute states once for each neighbourhood; else for each context.

    Raises:
        NotApplicableError: as `receptive_reaches`.
    """

    def __init__(
        self, config: Config, model: Transformer, bias: AttentionBias, *, share: bool = True
    ) -> None:
        self.model, self.bias = model, bias
        self.device = model.target_embedding.weight.device
        self.reaches, self.period = receptive_reaches(config, bias), period_of(config)
        self.evaluated = [0] * len(self.reaches)
        task = config.make_task()
        levels = range(len(self.reaches))
        cones = [join(self.reaches[: level + 1], self.period) for level in levels]
        enough = Contexts(task, cones[-1]).bound() / _WORTH
        like = model.target_embedding.weight.detach()[:0]
        self._states = [
            _States(cone, like)
            if share and _shareable(task, cone) and Contexts(task, cone).bound() <= enough
            else None
            for cone in cones
        ]
        self._plans: dict[tuple[int, int, int], tuple[Plan, Plan, list[int]]] = {}

    @torch.inference_mode()
    def logits(self, problems: Problems, row: int) -> Tensor:
        """Logits `[problem, token]` of one row."""
        x = self._state(len(self.reaches) - 1, problems, row)
        return self.model.to_logits(self.model.norm(x))

    def _state(self, level: int, problems: Problems, row: int) -> Tensor:
        """States `[problem, width]` of a row after layer `level`."""
        self.evaluated[level] += len(problems.source)
        layer = self.model.decoder[level]
        own, cross, keys = self._plan(level, problems.layout, row)
        x, query, key, value = self._read_own(level, own, problems, row)
        x, query = layer.add_self(x, own.attend(query, key, value), cross)
        memory = self._embed(self.model.source_embedding, problems.source, keys)
        key, value = layer.read_source(memory, cross)
        return layer.add_cross(x, cross.attend(query, key, value))[:, 0]

    def _read_own(self, level: int, plan: Plan, problems: Problems, row: int) -> tuple[Tensor, ...]:
        """The row `[problem, 1, width]` before a layer, its query, keys and values of what it reads."""
        layer = self.model.decoder[level]
        # The row itself comes last.
        rows = [row + back for back in self.reaches[level].queries if row + back >= 0]
        states = self._states[level - 1] if level else None
        if states is not None:
            index = [self._find(states, level - 1, problems, one) for one in rows]
            return states.read_own(layer, plan, torch.stack(index, dim=1))
        if level:
            found = [self._state(level - 1, problems, one) for one in rows]
            embedded = Embedded(torch.stack(found, dim=1))
        else:
            embedded = self._embed(self.model.target_embedding, problems.target, rows)
        query, key, value = layer.read_own(embedded, plan)
        return embedded.apply(lambda x: x)[:, -1:], query[:, :, -1:], key, value

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, places: list[int]) -> Embedded:
        """The tokens at some places of a sequence `[problem, position]`, embedded."""
        if self.period == 1:
            return self.model._embed(embedding, tokens[:, places])
        # With the positions that they have in all of it, from whichever end these count.
        whole = self.model._embed(embedding, tokens)
        if whole.index is None:
            return Embedded(whole.table[:, places])
        return Embedded(whole.table, whole.index[:, places])

    def _find(self, states: _States, level: int, problems: Problems, row: int) -> Tensor:
        """Where the states of a row are kept `[problem]`; new ones are computed first."""
        numbers = states.number(problems, row)
        new = states.unknown(numbers)
        if len(new):
            states.add(numbers[new], self._state(level, problems[new], row))
        return states.find(numbers)

    def _plan(self, level: int, layout: Layout, row: int) -> tuple[Plan, Plan, list[int]]:
        """The plans of one row over the keys that it reads, and which keys of the source those are."""
        place = (level, layout.width, row)
        if place not in self._plans:
            one = range(row, row + 1)
            plan = plan_attention(
                self.bias, layout, len(self.reaches), rows=one, device=self.device
            )[level]
            rows = [row + back for back in self.reaches[level].queries if row + back >= 0]
            found = self.bias.open_keys("cross", level, layout, one)
            assert found is not None
            # A row past the end reads nothing; its plan then closes whatever key stands here.
            keys = found.index[found.value > CLOSED].unique().tolist() or [0]
            self._plans[place] = plan["self"].pick(rows), plan["cross"].pick(keys), keys
        return self._plans[place]


def _shareable(task: Transducer, cone: Cone) -> bool:
    """Whether neighbourhoods of a cone can be numbered."""
    symbols = task.base + len(task.symbols) + 3  # start, end, and none
    held = symbols ** len(cone.reads)
    return held * cone.period**2 < _NUMBERS


class _States:
    """States of the neighbourhoods met so far, and what the next layer makes of them.

    Args:
        cone: of a neighbourhood.
        like: an empty tensor of the model's type, on its device.
    """

    def __init__(self, cone: Cone, like: Tensor) -> None:
        self.cone = cone
        self._states = like
        # Numbers, ascending; and where the state of each is.
        self._known = self._place = like.new_zeros(0, dtype=torch.int64)
        self._read: dict[bool, list[Tensor]] = {}

    def number(self, problems: Problems, row: int) -> Tensor:
        """What the row's neighbourhood holds, as one number `[problem]`."""
        layout, none = problems.layout, len(problems.layout.vocabulary)
        found = problems.source.new_zeros(len(problems.source))
        for track in self.cone.reads:
            key, inside = track.keys(layout, torch.tensor([row]))
            tokens = problems.target if track.site == "self" else problems.source
            found.mul_(none + 1).add_(tokens[:, int(key)] if inside else none)
        for phase in (row % self.cone.period, layout.width % self.cone.period):
            found.mul_(self.cone.period).add_(phase)
        return found

    def unknown(self, numbers: Tensor) -> Tensor:
        """One problem for each number that is new, int64 `[problem]`."""
        place = torch.searchsorted(self._known, numbers)
        known = torch.cat([self._known, self._known.new_full((1,), -1)])
        new = (known[place] != numbers).nonzero()[:, 0]
        values, which = numbers[new].unique(return_inverse=True)
        return new[values.scatter(0, which, torch.arange(len(which), device=which.device))]

    def add(self, numbers: Tensor, states: Tensor) -> None:
        """Keep the states of new numbers."""
        place = torch.arange(len(states), device=states.device) + len(self._known)
        self._states = torch.cat([self._states, states])
        self._known, order = torch.cat([self._known, numbers]).sort()
        self._place = torch.cat([self._place, place])[order]

    def find(self, numbers: Tensor) -> Tensor:
        """Where the states of known numbers are, int64 `[problem]`."""
        return self._place[torch.searchsorted(self._known, numbers)]

    def read_own(self, layer: Layer, plan: Plan, index: Tensor) -> tuple[Tensor, ...]:
        """As `Neighbourhoods._read_own`, of states `[problem, row]`; projected once for each state."""
        kept = self._read.get(plan.scores, [])
        done = len(kept[0]) if kept else 0
        if done < len(self._states):
            parts = layer.read_own(Embedded(self._states[None, done:]), plan)
            # Without scores all three are the values.
            new = [part[0].transpose(0, 1) for part in parts[: 3 if plan.scores else 1]]
            kept = [torch.cat(pair) for pair in zip(kept, new, strict=True)] if kept else new
            self._read[plan.scores] = kept

        def look_up(part: Tensor, index: Tensor) -> Tensor:
            found = F.embedding(index, part.flatten(1))
            return found.unflatten(-1, part.shape[1:]).transpose(1, 2)

        value = look_up(kept[-1], index)
        query, key = value[:, :, -1:], value
        if plan.scores:
            query, key = look_up(kept[0], index[:, -1:]), look_up(kept[1], index)
        return F.embedding(index[:, -1:], self._states), query, key, value
