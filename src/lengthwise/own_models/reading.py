"""What the queries of somebody else's model may read, as tensors for its own attention.

Our biases know two sites, and a query without an open key reads nothing. Other models take one number
for each query and key in a softmax, which makes NaN of nothing. So here every query has an open key:

- a head whose line is closed (`a[c-1]` in column 0) reads the problem's first symbol, such as `+`,
  which says so; in a problem without one, the token before the answer;
- where problem and answer lie in one sequence, a head reads along its lines of both. Its own token
  each query holds anyway, so a head reads that only where it has no other line;
- queries of the problem, in an encoder too, read their own token alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from lengthwise.bias import CLOSED, OWN_TOKEN, SITES, AttentionBias, CalibratedBias, Site
from lengthwise.bias.base import causal
from lengthwise.errors import InputError
from lengthwise.own_models.tokens import Tokens
from lengthwise.problems.layout import Layout

Kind = Literal["decoder", "encoder-decoder"]
Place = Literal["self", "cross", "encoder"]

# Queries x keys x heads of whole matrices that are kept; what is larger is made for each pass.
_KEPT = 4_000_000


class Reading:
    """The numbers added to attention scores in each layer of a model.

    Args:
        bias: the bias. One of lines is settled as above; any other is taken as it is, with queries of the
            problem as they were.
        tokens: of the model.
        kind: `decoder` for problem and answer in one sequence.
        heads, layers: of the model; of its decoder, where it has an encoder.

    Attributes:
        attention: where a dictionary, it takes each layer's weights per site as the model computes them.
    """

    def __init__(
        self, bias: AttentionBias, tokens: Tokens, kind: Kind, heads: int, layers: int
    ) -> None:
        self.bias, self.tokens, self.kind = bias, tokens, kind
        self.heads, self.layers = heads, layers
        self.settled = isinstance(bias, CalibratedBias)
        self.attention: dict[tuple[str, int], Tensor] | None = None
        self.source_length, self.first = 0, 0
        # What passes with gradients were of, by their shape; backward may go through them again.
        self._passes: dict[tuple[Place, int, int], set[tuple[int, int]]] = {}
        self._learns = False
        if kind == "decoder":
            tokens.check_one_sequence()
        self._uncompiled: Any = torch.compiler.disable(self._at)
        self._by_layer = isinstance(bias, CalibratedBias) and bias.layers is not None
        self._whole = lru_cache(maxsize=4 * (layers if self._by_layer else 1))(self._make)
        if bias.heads != heads:
            raise InputError(
                f"the bias has {bias.heads} heads, the model {heads}; calibrate maps of a model "
                f"with as many"
            )
        layout = tokens.format.at(1)
        if self.settled and kind == "encoder-decoder" and self.rest(layout) == layout.source_length:
            raise InputError(
                f"problems of {layout.task.name} have no symbol that a head could read where its line is "
                f"closed; write them in Format({layout.task.name!r}, frame='tokens')"
            )

    def begin(self, source_length: int, first: int = 0) -> None:
        """What the next pass is of.

        Args:
            source_length: tokens of the problem.
            first: the first query: tokens that a cache holds (in one sequence those of the problem, too).
        """
        self.tokens.width(source_length)
        self.source_length, self.first = source_length, first
        # Asked here, for some checkpointing runs a model's layers without gradients at first.
        self._learns = torch.is_grad_enabled()

    def __deepcopy__(self, memo: object) -> Reading:
        """Itself: a deep copy of a model shares it, as it shares the hooks that tell it of each pass."""
        return self

    def _note(self, place: Place, queries: int, keys: int) -> None:
        """Note what a pass is of; in the backward pass of gradient checkpointing go back to that.

        Raises:
            InputError: where passes of one shape were of problems of several widths.
        """
        shape = place, queries, keys
        if torch._C._current_graph_task_id() == -1:  # no backward pass, as torch's own asks it
            if self._learns:
                self._passes.setdefault(shape, set()).add((self.source_length, self.first))
            return
        passes = self._passes.get(shape, set())
        if len(passes) > 1:
            raise InputError(
                f"gradient checkpointing can't tell passes of {queries} queries and {keys} keys apart, "
                f"which were of problems of several widths"
            )
        for self.source_length, self.first in passes:
            return

    def rest(self, layout: Layout) -> int:
        """The key that a closed head reads, in one sequence or of the problem."""
        symbols = [one.name for one in layout.task.segments if one.kind == "symbol"]
        return layout.anchors("cross")[symbols[0]].start if symbols else layout.source_length

    def at(
        self, place: Place, layer: int, queries: int, keys: int, like: Tensor | None = None
    ) -> Tensor | None:
        """What is added at one place, `[head, query, key]`; None where nothing is.

        Args:
            place: `self` (in one sequence all of it), `cross`, or `encoder`.
            layer: 0 for the first.
            queries, keys: their numbers in this pass; queries go on from `first`.
            like: a tensor of the type and on the device wanted.

        Raises:
            InputError: where the keys are not those of the problem.
        """
        return self._uncompiled(place, layer, queries, keys, like)

    def _at(
        self, place: Place, layer: int, queries: int, keys: int, like: Tensor | None
    ) -> Tensor | None:
        if place == "encoder":
            found = self._encoder(keys) if self.settled else None
        else:
            self._note(place, queries, keys)
            if place == "cross" and keys != self.source_length:
                raise InputError(
                    f"the model reads {keys} tokens of a problem of {self.source_length}; problems "
                    f"of one batch must be padded to one width, with nothing else around them"
                )
            found = self._rows(place, layer, queries, keys)
        return found if found is None or like is None else found.to(like.device, like.dtype)

    def _encoder(self, keys: int) -> Tensor:
        own = torch.full((keys, keys), CLOSED).fill_diagonal_(0.0)
        return own.expand(self.heads, -1, -1)

    def _rows(self, place: Place, layer: int, queries: int, keys: int) -> Tensor:
        rows = range(self.first, self.first + queries)
        layer = layer if self._by_layer else 0
        layout: Layout = self.tokens.format.at(self.tokens.width(self.source_length))
        ahead = layout.source_length if self.kind == "decoder" else 0
        total = max(rows.stop, ahead + layout.target_length)
        if self.heads * total * (layout.source_length + total) <= _KEPT:
            found = self._whole(place, layer, self.source_length, range(total))[
                :, rows.start : rows.stop
            ]
        else:
            found = self._make(place, layer, self.source_length, rows)
        if place == "cross" or found.shape[2] == keys:
            return found
        if keys < rows.stop:
            raise InputError(
                f"a cache kept {keys} of {rows.stop} tokens, as those of a sliding window do; lines reach "
                f"further back: use_cache=False, or sliding_window=None in the model's settings"
            )
        if found.shape[2] > keys:
            return found[:, :, :keys]
        return torch.nn.functional.pad(found, (0, keys - found.shape[2]), value=CLOSED)

    def _make(self, place: Place, layer: int, source_length: int, rows: range) -> Tensor:
        layout: Layout = self.tokens.format.at(self.tokens.width(source_length))
        if self.kind == "decoder":
            return self._one_sequence(layer, layout, rows)
        site: Site = "cross" if place == "cross" else "self"
        found = self._site(site, layer, layout, rows)
        # A closed head reads a symbol of the problem, or of an answer its start.
        return _open(found, self.rest(layout) if site == "cross" else 0)

    def _site(self, site: Site, layer: int, layout: Layout, rows: range) -> Tensor:
        """Of any rows, those behind the end, too: they read what lines read of an answer, or nothing."""
        keys = layout.source_length if site == "cross" else max(layout.target_length, rows.stop)
        found = torch.full((self.heads, len(rows), keys), CLOSED)
        inside = range(min(rows.start, layout.target_length), min(rows.stop, layout.target_length))
        if inside:
            part = self.bias.dense(site, layer, layout, inside)
            found[:, : len(inside), : part.shape[2]] = part
        return found

    def _one_sequence(self, layer: int, layout: Layout, rows: range) -> Tensor:
        ahead = layout.source_length
        stop = max(ahead + layout.target_length, rows.stop)
        found = torch.full((self.heads, len(rows), stop), CLOSED)
        problem = range(min(rows.start, ahead), min(rows.stop, ahead))
        if problem:
            place = torch.arange(len(problem))
            if self.settled:
                found[:, place, place + problem.start] = 0.0
            else:
                found[:, : len(problem)] = causal(stop, problem)
        answer = range(max(rows.start, ahead) - ahead, max(rows.stop, ahead) - ahead)
        if answer:
            cross, own = (self._site(site, layer, layout, answer) for site in ("cross", "self"))
            if self.settled:
                own = self._without_own(own, layer, layout, answer)
            part = found[:, len(problem) :]
            part[:, :, :ahead], part[:, :, ahead : ahead + own.shape[2]] = cross, own
        return _open(found, self.rest(layout))

    def _without_own(self, own: Tensor, layer: int, layout: Layout, rows: range) -> Tensor:
        """Close its own token to every head that has another line."""
        assert isinstance(self.bias, CalibratedBias)
        lines = [line for site in SITES for line in self.bias.at(site, layer, layout)]
        others = sorted({line.head for line in lines if line.track != OWN_TOKEN})
        place = torch.arange(len(rows))
        for head in others:
            own[head, place, place + rows.start] = CLOSED
        return own


def _open(bias: Tensor, key: int) -> Tensor:
    """Open one key to every query that has none."""
    bias[..., key].masked_fill_((bias == CLOSED).all(dim=-1), 0.0)
    return bias
