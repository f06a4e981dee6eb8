"""The model: a transformer decoder that reads the source through cross-attention, or in one sequence.

The paper's code passes the encoder's input through unchanged (docs/method.md), so cross-attention reads
token embeddings plus positions; ours does the same without the detour, and has encoder layers only where
they are asked for. Layers are those of `torch.nn.Transformer`, pre-norm or post-norm. Of kind `decoder` it
has no cross-attention: problem and answer are one sequence (`lengthwise.model.joint`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.bias import LearnedModules, LearnedTables, SomeSite
from lengthwise.engine.products import Linear
from lengthwise.methods import Positions
from lengthwise.model.distinct import view_distinct
from lengthwise.model.ids import Ids, IdVectors, NextRow
from lengthwise.model.layers import Embedded, Layer, Norm, look_up
from lengthwise.model.learned_bias import make_tables
from lengthwise.model.loop import Output, run
from lengthwise.model.plans import LayerPlan, OwnPlan, Plan
from lengthwise.model.positions import POSITIONS, rotate
from lengthwise.model.views import Cache, Rows, Source, Turn, View
from lengthwise.problems.layout import COLUMN, Layout
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.tokens import extent_of


class Transformer(nn.Module):
    """Decoder layers over a source that is embedded, and encoded where there are encoder layers.

    Args:
        tokens: size of the vocabulary.
        kind: `encoder-decoder`, or `decoder`: one embedding and one sequence, with positions throughout.
        width: channels of the residual stream, a multiple of `heads`.
        heads: attention heads.
        layers: decoder layers.
        feed_forward: hidden channels of the feed-forward part.
        dropout: share of channels dropped in training.
        positions: a name in `POSITIONS`.
        period: of `cyclic` positions.
        max_positions: the longest sequence that `learned` positions reach.
        encoder_layers: with any, they end in a norm, as in `torch.nn.Transformer`.
        norm: `pre` or `post`; the decoder ends in a norm in both.
        embedding_scale: `sqrt` multiplies token embeddings by the square root of the width (Vaswani et al.
            2017, section 3.4; the paper's code).
        learned: the learned part of the bias, if it has one.
        ids: the position scheme, where `positions` names one that is a method; by default as its class is.
        axes: those of the problems, which such a scheme may number along.
    """

    def __init__(
        self,
        tokens: int,
        *,
        kind: Literal["encoder-decoder", "decoder"] = "encoder-decoder",
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        feed_forward: int = 256,
        dropout: float = 0.0,
        positions: str = "sinusoidal",
        period: int = 3,
        max_positions: int = 512,
        encoder_layers: int = 0,
        norm: Norm = "pre",
        embedding_scale: Literal["none", "sqrt"] = "none",
        learned: LearnedTables | LearnedModules | None = None,
        ids: Positions | None = None,
        axes: tuple[str, ...] = (COLUMN,),
    ) -> None:
        super().__init__()
        self.width, self.heads, self.positions = width, heads, positions
        self.joint = kind == "decoder"
        self.scheme = POSITIONS[positions].with_period(period)
        self.scale = width**0.5 if embedding_scale == "sqrt" else None
        self.source_embedding = nn.Embedding(tokens, width)
        if self.joint:  # known by a second name, and kept once
            object.__setattr__(self, "target_embedding", self.source_embedding)
        else:
            self.target_embedding = nn.Embedding(tokens, width)
        if self.scale is not None:
            # As large as the positions once they are scaled; else they would drown them.
            for embedding in (self.source_embedding, self.target_embedding):
                nn.init.normal_(embedding.weight, std=1 / self.scale)
        self.layers = nn.ModuleList(
            Layer(width, heads, feed_forward, dropout, norm, cross=not self.joint)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_logits = Linear(width, tokens)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self.drops = dropout > 0
        # What not every model has comes last: a seed gives the other weights the same values with and
        # without it.
        self.encoder_layers = nn.ModuleList(
            Layer(width, heads, feed_forward, dropout, norm, cross=False)
            for _ in range(encoder_layers)
        )
        self.encoder_norm = nn.LayerNorm(width) if encoder_layers else None
        self.source_positions = self.target_positions = None
        if self.scheme.kind == "learn":
            self.source_positions = nn.Embedding(max_positions, width)
            if self.joint:
                object.__setattr__(self, "target_positions", self.source_positions)
            else:
                self.target_positions = nn.Embedding(max_positions, width)
        sites = {"self": layers, "cross": layers, "encoder": encoder_layers}
        self.tables = nn.ModuleDict(
            {s: make_tables(learned, n, heads, width) for s, n in sites.items() if n and learned}
        )
        method = self.scheme.method
        self.ids = None if method is None else IdVectors(ids or method(), axes, width, heads)
        self._position_cache: Tensor | None = None

    @property
    def decoder(self) -> list[Layer]:
        """The decoder layers, first to last."""
        return cast("list[Layer]", list(self.layers))

    @property
    def encodes(self) -> bool:
        """Whether there are encoder layers."""
        return self.encoder_norm is not None

    def reaches(self, layout: Layout | SheetLayout, rows: int | None = None) -> bool:
        """Whether problems can be embedded, all of their rows or the first: positions may have an end."""
        if self.ids is not None:
            return self.ids.method.reaches(extent_of(layout))
        table, rows = self.target_positions, layout.target_length if rows is None else rows
        together = layout.source_length + rows if self.joint else 0
        return table is None or max(layout.source_length, rows, together) <= table.num_embeddings

    def _embed(
        self, embedding: nn.Embedding, tokens: Tensor, first: int = 0, ids: Tensor | None = None
    ) -> Embedded:
        """Embed tokens `[batch, position]` and add their positions, counted from `first`, or by ids."""
        table, index, vocabulary = embedding.weight, tokens, embedding.num_embeddings
        table = table if self.scale is None else table * self.scale
        if ids is not None and self.ids is not None and not self.ids.turns:
            return Embedded(self.dropout(F.embedding(tokens, table) + self.ids(ids)))
        if self.scheme.kind in ("add", "learn"):
            is_source = embedding is self.source_embedding
            positions, place = self._positions(first, tokens, is_source)
            # There are no fewer pairs of token and position than tokens: look none up twice.
            if tokens.numel() <= len(positions) * vocabulary:
                added = positions if place is None else positions[place]
                return Embedded(self.dropout(F.embedding(tokens, table) + added))
            table = (table + positions[:, None]).flatten(0, 1)
            if place is None:
                place = torch.arange(len(positions), device=tokens.device)
            index = tokens + place * vocabulary
        if self.training and self.drops:
            return Embedded(self.dropout(F.embedding(index, table)))
        return Embedded(table, index)

    def _positions(
        self, first: int, tokens: Tensor, is_source: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What is added to tokens: the different rows `[entry, width]`, and the entry of each position.

        The latter is None where every position has an entry of its own.
        """
        count, device = tokens.shape[1], tokens.device
        learned = self.source_positions if is_source else self.target_positions
        if learned is not None:
            if first + count > learned.num_embeddings:
                raise ValueError(
                    f"learned positions end at {learned.num_embeddings} tokens "
                    f"(model.max_positions), got a sequence of {first + count}"
                )
            return learned.weight[first : first + count], None
        period = self.scheme.period
        if period is None:
            return self.position_table(first + count, device)[first:], None
        place = torch.arange(first, first + count, device=device)
        if is_source and self.scheme.from_end:
            place = place - count
        place = place % period
        return self.position_table(period, device), place

    def position_table(self, count: int, device: torch.device) -> Tensor:
        """The scheme's table of the first positions: what is added, or rotations."""
        rotates = self.scheme.kind == "rotate"
        table = self._position_cache
        if table is None or table.shape[-2] < count or table.device != device:
            channels = self.width // self.heads if rotates else self.width
            table = self.scheme(torch.arange(count), channels).to(device)
            self._position_cache = table
        return table[..., :count, :]

    def _turn(self, x: Tensor, first: int, begin: int = 0) -> Tensor:
        """Queries or keys `[batch, head, position, channel]`, turned by their positions from `begin` on."""
        table = self.position_table(begin + first + x.shape[2], x.device)[:, begin + first :]
        return rotate(x, table.to(x.dtype))

    def first_position(self, source_length: int) -> int:
        """The position of the first row: in one sequence with the source it stands behind that."""
        return source_length if self.joint else 0

    def _scores(
        self, site: SomeSite, layer: int, ids: Ids | None = None, begin: int = 0
    ) -> dict[str, Any]:
        """What scores follow from besides products and the bias: options of a reader.

        Args:
            begin: the position of the first row.
        """
        turn: Turn | None = None
        if self.scheme.kind == "rotate":
            turn = partial(self._turn, begin=begin)
        options: dict[str, Any] = {}
        if ids is not None and self.ids is not None and self.ids.turns:
            turn = self.ids.turn(ids.source if site == "encoder" else ids.target)
            options = {"turn_source": self.ids.turn(ids.source)} if site == "cross" else {}
        tables = cast(nn.ModuleList, self.tables[site]) if site in self.tables else None
        learned = None if tables is None else tables[min(layer, len(tables) - 1)]
        return {"turn": turn, "learned": learned, **options}

    def _read_source(
        self, source: Tensor, plan: list[LayerPlan], ids: Ids | None = None
    ) -> Embedded:
        """Embed the source, and encode it where there are encoder layers."""
        memory = self._embed(self.source_embedding, source, ids=None if ids is None else ids.source)
        if self.encoder_norm is None:
            return memory
        own = plan[0].get("encoder")
        if own is None:
            raise ValueError("the plan lays out no encoder; call plan_attention(..., encoder=True)")
        view: View = [
            (
                Rows(own, None if layer else memory.index, **self._scores("encoder", layer, ids)),
                None,
            )
            for layer in range(len(self.encoder_layers))
        ]
        return Embedded(self.encoder_norm(run(self.encoder_layers, memory.table, view)))

    def memories(self, memory: Embedded) -> list[Embedded]:
        """The source as each layer reads it.

        Read through cross-attention it is the same to all. In one sequence its tokens go through the
        layers, too, and read themselves alone: what they are follows from each entry.
        """
        if not self.joint:
            return [memory] * len(self.layers)
        x, found = memory.table, []
        for place, layer in enumerate(self.decoder):
            if place:
                x = self.decoder[place - 1](x, Rows(OwnPlan(self.heads)))
            found.append(Embedded(layer.readable(x), memory.index))
        return found

    def forward(
        self,
        source: Tensor,
        target: Tensor,
        plan: list[LayerPlan],
        return_attention: bool = False,
        last: int | None = None,
        drawn: Tensor | None = None,
    ) -> Output:
        """Logits for every row at once, the tokens before each row being given (teacher forcing).

        Args:
            source: tokens `[batch, source position]`.
            target: tokens that the rows read, `[batch, row]`, the start token first.
            plan: the bias, from `plan_attention` with the same layout.
            return_attention: also return the attention weights.
            last: return the logits of so many rows at the end alone.
            drawn: what a position scheme draws in training, `[problem or 1, number]`.
        """
        ids = None if self.ids is None else self.ids.ids(plan, target, drawn)
        own = None if ids is None else ids.target
        begin = self.first_position(source.shape[1])
        rows = self._embed(self.target_embedding, target, begin, own)
        memory = self._read_source(source, plan, ids)
        last = target.shape[1] if last is None else last
        indexed = rows.index is not None and memory.index is not None
        if not return_attention and indexed and self.shares(plan):
            view, index = view_distinct(rows, self.memories(memory), plan, last)
            return Output(look_up(index, self.logits(rows.table, view)), [])
        view = self.view(rows, memory, plan, return_attention, ids, begin)
        logits = self.logits(rows.table, view)[:, -last:]
        if not return_attention:
            return Output(logits, [])
        return Output(
            logits, [{"self": own.weights, "cross": cross.weights} for own, cross in view]
        )

    def view(
        self,
        rows: Embedded,
        memory: Embedded,
        plan: Sequence[Mapping[SomeSite, Plan]],
        keep: bool = False,
        ids: Ids | None = None,
        begin: int = 0,
    ) -> list[tuple[Rows, Source]]:
        """What whole sequences read.

        Args:
            rows: the tokens that the rows read.
            memory: the source.
            plan: the bias.
            keep: whether readers keep attention weights.
            ids: of a position scheme that turns by them.
            begin: the position of the first row, for a scheme that turns by positions.
        """
        index, view = rows.index, []
        for layer, (source, sites) in enumerate(zip(self.memories(memory), plan, strict=True)):
            own = Rows(sites["self"], index, keep=keep, **self._scores("self", layer, ids, begin))
            cross = Source(sites["cross"], source, keep=keep, **self._scores("cross", layer, ids))
            if isinstance(own.plan, OwnPlan) and not keep:
                # What entries read of themselves is looked up with them.
                own.index, cross.index = None, index
            index = None
            view.append((own, cross))
        return view

    def logits(self, x: Tensor, view: View) -> Tensor:
        """Logits `[..., token]` of the rows of a view, from what its first layer is given."""
        return self.to_logits(self.norm(run(self.layers, x, view)))

    def shares(self, plan: list[LayerPlan]) -> bool:
        """Whether rows that agree are computed once: few keys are open, positions tell few apart."""
        positions = self.scheme.kind == "none" or self.scheme.period is not None
        if not positions or (self.training and self.drops):
            return False
        # To count the different rows, a GPU would have to be waited for.
        on_cpu = self.target_embedding.weight.device.type == "cpu"
        return on_cpu and all(one.reads is not None for layer in plan for one in layer.values())

    @property
    def pointwise(self) -> bool:
        """Whether a key or a row, before any layer, depends on its own token and position alone."""
        return not self.encodes and self.scheme.kind not in ("rotate", "ids")

    def embed_at(self, embedding: nn.Embedding, tokens: Tensor, positions: Tensor) -> Embedded:
        """Embed tokens `[position]` that stand at any positions `[position]`, as a batch of one.

        The model must be `pointwise`.
        """
        table = embedding.weight if self.scale is None else embedding.weight * self.scale
        if self.scheme.kind == "none":
            return Embedded(table, tokens[None])
        if self.scheme.kind == "learn":
            own = embedding is self.target_embedding
            learned = cast(nn.Embedding, self.target_positions if own else self.source_positions)
            at = learned(positions.to(tokens.device))
        else:
            # Straight from the positions: a table up to the last of a million would be large.
            at = self.scheme(positions, self.width).to(tokens.device)
        return Embedded((F.embedding(tokens, table) + at)[None])

    def begin(self, source: Tensor, rows: int, plan: list[LayerPlan]) -> list[tuple[Cache, Source]]:
        """A view of the next row, with a cache of `rows` rows."""
        start = source.new_zeros(len(source), rows)
        ids = None if self.ids is None else self.ids.ids(plan, start[:, :1])
        memories = self.memories(self._read_source(source, plan, ids))
        begin = self.first_position(source.shape[1])
        view = [
            (
                Cache(sites["self"], rows, **self._scores("self", layer, ids, begin)),
                Source(sites["cross"], memory, **self._scores("cross", layer, ids)),
            )
            for layer, (sites, memory) in enumerate(zip(plan, memories, strict=True))
        ]
        return view if ids is None else NextRow(view, plan, start)

    def step(
        self, tokens: Tensor, row: int, view: list[tuple[Cache, Source]], plan: list[LayerPlan]
    ) -> Tensor:
        """One row of greedy decoding: its logits `[batch, token]`.

        Args:
            tokens: the token that the row reads, `[batch]`.
            row: the row; all before it are in the cache.
            view: from `begin`; the row's keys and values are added to it.
            plan: the bias of that one row, self-attention of the keys up to it alone.
        """
        for (own, cross), sites in zip(view, plan, strict=True):
            own.plan, cross.plan = sites["self"], sites["cross"]
            own.first = cross.first = row
        ids = None
        if self.ids is not None:
            assert isinstance(view, NextRow)
            view.read[:, row] = tokens
            ids = self.ids.ids(view.plan, view.read[:, : row + 1]).target[..., -1:]
            for own, cross in view if self.ids.turns else ():
                own.turn = cross.turn = self.ids.turn(ids)
        at = row + self.first_position(view[0][1].memory.length)
        x = self._embed(self.target_embedding, tokens[:, None], at, ids).apply(lambda x: x)
        return self.logits(x, view)[:, 0]
