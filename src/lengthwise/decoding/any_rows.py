"""Any rows of any problems at once: what they read, and nothing else.

A bias of lines opens a handful of keys to each row. So the logits of some rows follow from those rows, the
rows that they read, and the few source tokens that these read. Just these are laid out, with
open keys numbered anew, so that nothing of the size of a problem is ever computed: a problem itself is one
byte for each symbol. Problems of different widths stand side by side, for a line has its key at every
width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lengthwise.bias import CLOSED, CalibratedBias, OpenKeys, Site, SomeSite
from lengthwise.model.layers import Embedded
from lengthwise.model.plans import LinesPlan, OwnPlan
from lengthwise.model.transformer import Transformer
from lengthwise.problems.layout import Layout, Places, Span

# A layer's plan whose sites have lines.
LinePlan = dict[SomeSite, LinesPlan | OwnPlan]


class Streams:
    """Problems laid end to end: their source tokens, and the rows that are written.

    A *flat* number counts the rows of all problems, or the source tokens of all.

    Args:
        layouts: the layout of each problem.
        sources: the source tokens of each, uint8 `[source position]`.

    Attributes:
        source: the tokens of all problems, uint8 `[flat]`.
        written: the tokens of all rows, uint8 `[flat]`; zeros at first.
        first: the first row of each problem, and the number of rows, int64 `[problem + 1]`.
    """

    def __init__(self, layouts: Sequence[Layout], sources: Sequence[np.ndarray]) -> None:
        self.task, self.vocabulary = layouts[0].task, layouts[0].vocabulary
        self.source = np.concatenate(sources).astype(np.uint8, copy=False)
        self.first = _starts([layout.target_length for layout in layouts])
        self.source_first = _starts([layout.source_length for layout in layouts])
        self.written = np.zeros(self.first[-1], np.uint8)
        # One layout for each width, and which of them each problem has.
        self.layouts = list({layout.width: layout for layout in layouts}.values())
        number = {layout.width: place for place, layout in enumerate(self.layouts)}
        self.kinds = np.array([number[layout.width] for layout in layouts])
        # Of all layouts: the same few are asked for with every row.
        self._numbers: dict[tuple[int, ...], Tensor] = {}

    def __len__(self) -> int:
        return len(self.kinds)

    def problems(self, rows: np.ndarray) -> np.ndarray:
        """The problem that each flat row belongs to."""
        return np.searchsorted(self.first, rows, side="right") - 1

    def stops(self, rows: np.ndarray) -> np.ndarray:
        """Where the problem of each flat row ends."""
        return self.first[self.problems(rows) + 1]

    def inputs(self, rows: np.ndarray) -> np.ndarray:
        """The token that each row reads: the one before, or the start token, uint8."""
        before = self.written[np.maximum(rows - 1, 0)]
        is_first = rows == self.first[self.problems(rows)]
        return np.where(is_first, np.uint8(self.vocabulary.start), before)

    def open_keys(
        self, bias: CalibratedBias, site: Site, layer: int, rows: np.ndarray, problems: np.ndarray
    ) -> OpenKeys:
        """The open keys of flat rows (rows past their problem's end count too), flat themselves."""
        own = torch.from_numpy(rows - self.first[problems])
        places = _Places(self.layouts, torch.from_numpy(self.kinds[problems]), self._numbers)
        found = bias.open_at(site, layer, self.layouts[0] if places.same else places, own)
        assert found is not None
        starts = self.first if site == "self" else self.source_first
        return OpenKeys(found.index + torch.from_numpy(starts[problems])[:, None], found.value)


def _starts(lengths: list[int]) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


class _Places(Places):
    """The layouts of rows of several widths: bounds of segments are tensors `[row]`."""

    def __init__(
        self, layouts: list[Layout], kinds: Tensor, numbers: dict[tuple[int, ...], Tensor]
    ) -> None:
        self._layouts, self._kinds, self.task = layouts, kinds, layouts[0].task
        self._numbers = numbers
        self._anchors: dict[str, dict[str, Span]] = {}

    @property
    def same(self) -> bool:
        return len(self._layouts) == 1

    def anchors(self, site: str) -> dict[str, Span]:
        if site not in self._anchors:  # every track asks for them
            every = [layout.anchors(site) for layout in self._layouts]
            self._anchors[site] = {
                name: replace(
                    span,
                    start=self._each([spans[name].start for spans in every]),
                    stop=self._each([spans[name].stop for spans in every]),
                )
                for name, span in every[0].items()
            }
        return self._anchors[site]

    def keys(self, site: str) -> int:
        return self._each([layout.keys(site) for layout in self._layouts])  # type: ignore[return-value]

    def _each(self, numbers: list[int]) -> Tensor:
        known = tuple(numbers)
        if known not in self._numbers:
            self._numbers[known] = torch.tensor(numbers)
        return self._numbers[known][self._kinds]


class AnyRows:
    """Views of problems through a bias: the logits of any rows.

    Args:
        model: the model, in evaluation mode.
        bias: lines alone (`is_local`).
        device: where the model is.

    Attributes:
        reach: where the rows stand that a row depends on, by the lines of self-attention in all layers,
            seen from it: 0, and numbers below.
        depth: how far back a row depends on others.
        own_values: of each layer what is added to the logit of the own row, `[head]`, where all heads of
            its self-attention read that and nothing else; or None.
    """

    def __init__(
        self,
        model: Transformer,
        bias: CalibratedBias,
        streams: Streams,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model, self.bias, self.streams, self.device = model, bias, streams, device
        self.reach = {0}
        for layer in range(len(model.layers)):
            backs = bias.backs(layer, streams.layouts[0])
            self.reach |= {far - back for far in self.reach for back in backs}
        self.depth = -min(self.reach)
        self.own_values = self.per_layer("self", self._own_value)
        self._meanings: list[Tensor | None] = [None] * len(model.layers)

    def readers(self, rows: np.ndarray) -> np.ndarray:
        """The rows that depend on what was written in these rows; sorted, each once."""
        return self._at(rows, {1 - far for far in self.reach})

    def _at(self, rows: np.ndarray, offsets: set[int]) -> np.ndarray:
        """The rows of the same problems that stand so far from these; sorted, each once."""
        if not len(rows):
            return rows
        problems = self.streams.problems(rows)
        start, stop = self.streams.first[problems], self.streams.first[problems + 1]
        found = rows + np.array(list(offsets))[:, None]
        return np.unique(found[(found >= start) & (found < stop)])

    def logits(self, rows: np.ndarray, inputs: np.ndarray | None = None) -> Tensor:
        """Logits `[row, token]` of flat rows, sorted, given what is written before them.

        Or given the tokens that the rows read, where no row reads another.
        """
        every, memory, plan = self.around(rows)
        tokens = self.streams.inputs(every) if inputs is None else inputs
        own = torch.from_numpy(self.positions(every, self.streams.problems(every)))
        ids = torch.from_numpy(tokens.astype(np.int64)).to(self.device)
        embedded = self.model.embed_at(self.model.target_embedding, ids, own)
        view = self.model.view(embedded, memory, plan)
        if self.model.scheme.kind == "none":
            # The source is the vocabulary, every time: what it means is worked out once.
            for (_, cross), meaning in zip(view, self._meanings, strict=True):
                cross.meaning = meaning
        logits = self.model.logits(embedded.table, view)[0]
        self._meanings = [cross.meaning for _, cross in view]
        if len(every) == len(rows):
            return logits
        return logits[torch.from_numpy(np.searchsorted(every, rows)).to(self.device)]

    def positions(self, rows: np.ndarray, problems: np.ndarray) -> np.ndarray:
        """Where flat rows stand in their sequences; those before the first row stand there."""
        own = (rows - self.streams.first[problems]).clip(min=0)
        if not self.model.joint:
            return own
        first = self.streams.source_first
        return own + first[problems + 1] - first[problems]

    def around(self, rows: np.ndarray) -> tuple[np.ndarray, Embedded, list[LinePlan]]:
        """What flat rows, sorted, need.

        Returns:
            These and all rows that they depend on, sorted; the source tokens that they read; and the open
            keys, numbered as both are.
        """
        every = self._at(rows, self.reach) if self.depth else rows

        def number(found: OpenKeys) -> OpenKeys:
            flat = found.index.numpy()
            index = np.searchsorted(every, flat).clip(max=len(every) - 1)
            # What is missing is read only by rows that are there for what they hold further down.
            value = found.value.masked_fill(torch.from_numpy(every[index] != flat), CLOSED)
            return OpenKeys(torch.from_numpy(index), value)

        return every, *self.lay_out(every, self.streams.problems(every), number)

    def lay_out(
        self, rows: np.ndarray, problems: np.ndarray, number: Callable[[OpenKeys], OpenKeys]
    ) -> tuple[Embedded, list[LinePlan]]:
        """The source tokens that flat rows read, and the open keys of the rows.

        Args:
            rows: flat rows.
            problems: the problem of each.
            number: numbers rows that are read, flat, as they stand in `rows`.
        """

        def cross(layer: int) -> OpenKeys:
            return self.streams.open_keys(self.bias, "cross", layer, rows, problems)

        def own(layer: int) -> LinesPlan | OwnPlan:
            value = self.own_values[layer]
            if value is not None:
                return OwnPlan(self.bias.heads, value=value)
            found = self.streams.open_keys(self.bias, "self", layer, rows, problems)
            return LinesPlan.of(number(found), len(rows), self.device)

        memory, crosses = self.remember(self.per_layer("cross", cross))
        selves = self.per_layer("self", own)
        return memory, [
            {"self": own, "cross": cross} for own, cross in zip(selves, crosses, strict=True)
        ]

    def per_layer(self, site: Site, work) -> list:
        """One result for each layer, computed once where all have the same lines."""
        layers = range(len(self.model.layers))
        if any(line.site == site and line.layer is not None for line in self.bias.lines):
            return [work(layer) for layer in layers]
        return [work(0)] * len(layers)

    def _own_value(self, layer: int) -> Tensor | None:
        places, heads = self.streams.layouts[0], range(self.bias.heads)
        backs = self.bias.backs(layer, places)
        if backs.keys() != {0} or backs[0] != set(heads):
            return None
        own = [line for line in self.bias.at("self", layer, places) if line.track.offset == -1]
        values = [max(line.value for line in own if line.head == head) for head in heads]
        return torch.tensor(values, device=self.device)

    def remember(self, crosses: list[OpenKeys]) -> tuple[Embedded, list[LinesPlan]]:
        """Embed the source tokens that are read, and number them anew.

        Without positions a token is the same wherever it stands: the source is the vocabulary.
        """
        embedding, source = self.model.source_embedding, self.streams.source
        if self.model.scheme.kind == "none":
            every = torch.arange(embedding.num_embeddings, device=self.device)
            memory = Embedded(self.model.embed_at(embedding, every, every).table[None])
            count = embedding.num_embeddings
            indices = [torch.from_numpy(source[keys.index].astype(np.int64)) for keys in crosses]
        else:
            flat = torch.cat([keys.index.flatten() for keys in crosses])
            read, inverse = flat.unique(return_inverse=True)
            number = read.numpy()
            first = self.streams.source_first
            problems = np.searchsorted(first, number, side="right") - 1
            # Counted as the model counts them: from the start of the source, or back from its end.
            own = number - first[problems + self.model.scheme.from_end]
            tokens = torch.from_numpy(source[number].astype(np.int64)).to(self.device)
            memory = self.model.embed_at(embedding, tokens, torch.from_numpy(own))
            count = len(read)
            parts = inverse.split([keys.index.numel() for keys in crosses])
            indices = [part.view_as(k.index) for part, k in zip(parts, crosses, strict=True)]
        plans: dict[int, LinesPlan] = {}
        for keys, index in zip(crosses, indices, strict=True):
            if id(keys) not in plans:
                plans[id(keys)] = LinesPlan.of(OpenKeys(index, keys.value), count, self.device)
        return memory, [plans[id(keys)] for keys in crosses]
