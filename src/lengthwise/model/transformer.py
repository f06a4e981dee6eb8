"""The model: a pre-norm transformer decoder that reads the embedded source through cross-attention.

The paper's code passes the encoder's input through unchanged (docs/method.md), so cross-attention reads
token embeddings plus positions; ours does the same without the detour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.model.attention import LayerPlan, Plan
from lengthwise.model.positions import POSITIONS


@dataclass(frozen=True)
class Output:
    """What the model computed.

    Attributes:
        logits: `[batch, row, token]`.
        attention: per layer and site, weights `[batch, head, query, key]`; empty unless asked for.
    """

    logits: Tensor
    attention: list[dict[str, Tensor]]


@dataclass(frozen=True)
class Embedded:
    """Embedded tokens: all of them, or the few that differ and where each stands.

    What is computed from a token and its position alone can be computed once for each that differs, and
    then looked up: a batch has thousands of tokens, but few pairs of token and position.

    Attributes:
        table: `[batch, position, width]`, or `[entry, width]` with an index.
        index: entries, int64 `[batch, position]`, or None.
    """

    table: Tensor
    index: Tensor | None = None

    def apply(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """The function of every token, `[batch, position, ...]`; it must treat each by itself."""
        x = function(self.table)
        return x if self.index is None else F.embedding(self.index, x)


@dataclass
class DecoderState:
    """Keys and values that decoding keeps: of the source for good, of the answer as it grows.

    Attributes:
        cross: per layer, keys and values `[batch, head, key, channel]`.
        own: the same for the rows done so far, allocated for all of them.
        row: the next row.
    """

    cross: list[tuple[Tensor, Tensor]]
    own: list[tuple[Tensor, Tensor]]
    row: int = 0


class Attention(nn.Module):
    """Multi-head attention with fused projections; the plan says which keys are open."""

    def __init__(self, width: int, heads: int, cross: bool) -> None:
        super().__init__()
        self.heads, self.cross = heads, cross
        if cross:
            self.query = nn.Linear(width, width)
            self.key_value = nn.Linear(width, 2 * width)
        else:
            self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def project(self, x: Tensor, plan: Plan) -> Tensor:
        """Queries, keys and values (of the source: keys and values), fused `[..., part * width]`.

        Only the values, the last part, where the plan needs no scores.
        """
        fused = self.key_value if self.cross else self.query_key_value
        if plan.scores:
            return fused(x)
        width = self.out.in_features
        return F.linear(x, fused.weight[-width:], fused.bias[-width:])

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[batch, position, part * width]` to one `[batch, head, position, channel]` per part."""
        batch, length, _ = x.shape
        x = x.view(batch, length, -1, self.heads, self.out.in_features // self.heads)
        return x.permute(2, 0, 3, 1, 4).unbind(0)

    def join(self, read: Tensor) -> Tensor:
        """`[batch, head, position, channel]` to `[batch, position, width]`, projected."""
        return self.out(read.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Self-attention, cross-attention, feed-forward; each normalizes its input and adds its output."""

    def __init__(self, width: int, heads: int, feed_forward: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = Attention(width, heads, cross=False)
        self.cross_attention = Attention(width, heads, cross=True)
        self.expand = nn.Linear(width, feed_forward)
        self.contract = nn.Linear(feed_forward, width)
        self.norm_self = nn.LayerNorm(width)
        self.norm_cross = nn.LayerNorm(width)
        self.norm_feed_forward = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def read_own(self, rows: Embedded, plan: Plan) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the decoder's rows; the values stand for all without scores."""
        attention = self.self_attention
        parts = attention.split(rows.apply(lambda x: attention.project(self.norm_self(x), plan)))
        return parts[0], parts[-2 if plan.scores else -1], parts[-1]

    def read_source(self, memory: Embedded, plan: Plan) -> tuple[Tensor, Tensor]:
        """Keys and values of the source; the values stand for both without scores."""
        attention = self.cross_attention
        parts = attention.split(memory.apply(lambda x: attention.project(x, plan)))
        return parts[0], parts[-1]

    def add_self(self, x: Tensor, read: Tensor, cross: Plan) -> tuple[Tensor, Tensor]:
        """Add what self-attention read; return the rows and their queries for cross-attention."""
        x = x + self.dropout(self.self_attention.join(read))
        if not cross.scores:
            return x, x
        (query,) = self.cross_attention.split(self.cross_attention.query(self.norm_cross(x)))
        return x, query

    def add_cross(self, x: Tensor, read: Tensor) -> Tensor:
        """Add what cross-attention read, then the feed-forward part."""
        x = x + self.dropout(self.cross_attention.join(read))
        hidden = F.relu(self.expand(self.norm_feed_forward(x)))
        return x + self.dropout(self.contract(self.dropout(hidden)))


class Transformer(nn.Module):
    """Decoder layers over an embedded source.

    Args:
        tokens: size of the vocabulary.
        width: channels of the residual stream, a multiple of `heads`.
        heads: attention heads.
        layers: decoder layers.
        feed_forward: hidden channels of the feed-forward part.
        dropout: share of channels dropped in training.
        positions: a name in `POSITIONS`.
    """

    def __init__(
        self,
        tokens: int,
        *,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        feed_forward: int = 256,
        dropout: float = 0.0,
        positions: str = "sinusoidal",
    ) -> None:
        super().__init__()
        self.width, self.heads, self.positions = width, heads, positions
        self.source_embedding = nn.Embedding(tokens, width)
        self.target_embedding = nn.Embedding(tokens, width)
        self.layers = nn.ModuleList(
            Layer(width, heads, feed_forward, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self.to_logits = nn.Linear(width, tokens)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()
        self._position_cache: Tensor | None = None

    @property
    def decoder(self) -> list[Layer]:
        """The decoder layers, first to last."""
        return cast("list[Layer]", list(self.layers))

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, first: int = 0) -> Embedded:
        """Embed tokens `[batch, position]` and add their positions, counted from `first`."""
        table, index, vocabulary = embedding.weight, tokens, embedding.num_embeddings
        if self.positions != "none":
            positions = self._positions(first + tokens.shape[1], tokens.device)[first:]
            if (
                len(tokens) <= vocabulary
            ):  # there are no fewer pairs of token and position than tokens
                return Embedded(self.dropout(embedding(tokens) + positions))
            table = (table + positions[:, None]).flatten(0, 1)
            index = tokens + torch.arange(len(positions), device=tokens.device) * vocabulary
        if self.training and isinstance(self.dropout, nn.Dropout):
            return Embedded(self.dropout(F.embedding(index, table)))
        return Embedded(table, index)

    def _positions(self, count: int, device: torch.device) -> Tensor:
        table = self._position_cache
        if table is None or len(table) < count or table.device != device:
            table = POSITIONS[self.positions](torch.arange(count), self.width).to(device)
            self._position_cache = table
        return table[:count]

    def forward(
        self, source: Tensor, target: Tensor, plan: list[LayerPlan], return_attention: bool = False
    ) -> Output:
        """Logits for every row at once, the tokens before each row being given (teacher forcing).

        Args:
            source: tokens `[batch, source position]`.
            target: tokens that the rows read, `[batch, row]`, the start token first.
            plan: the bias, from `plan_attention` with the same layout.
            return_attention: also return the attention weights.
        """
        rows = self._embed(self.target_embedding, target)
        memory = self._embed(self.source_embedding, source)
        return self.decode(rows, memory, plan, return_attention)

    def embed_at(self, embedding: nn.Embedding, tokens: Tensor, positions: Tensor) -> Embedded:
        """Embed tokens `[position]` that stand at any positions `[position]`, as a batch of one."""
        if self.positions == "none":
            return Embedded(embedding.weight, tokens[None])
        # Straight from the positions: a table up to the last of a million would be large.
        at = POSITIONS[self.positions](positions, self.width).to(tokens.device)
        return Embedded((embedding(tokens) + at)[None])

    def decode(
        self,
        rows: Embedded,
        memory: Embedded,
        plan: list[LayerPlan],
        return_attention: bool = False,
    ) -> Output:
        """As `forward`, from what rows read and from the source, both embedded."""
        x = rows.apply(lambda x: x)
        attention: list[dict[str, Tensor]] = []
        for layer, layer_plan in zip(self.decoder, plan, strict=True):
            own, cross = layer_plan["self"], layer_plan["cross"]
            own_query, own_key, value = layer.read_own(rows, own)
            x, query = layer.add_self(x, own.attend(own_query, own_key, value), cross)
            key, source_value = layer.read_source(memory, cross)
            x = layer.add_cross(x, cross.attend(query, key, source_value))
            rows = Embedded(x)
            if return_attention:
                attention.append(
                    {"self": own.weights(own_query, own_key), "cross": cross.weights(query, key)}
                )
        return Output(self.to_logits(self.norm(x)), attention)

    def begin(self, source: Tensor, rows: int, plan: list[LayerPlan]) -> DecoderState:
        """Project the source once and make room for the keys and values of `rows` rows."""
        memory = self._embed(self.source_embedding, source)
        cross = [
            layer.read_source(memory, layer_plan["cross"])
            for layer, layer_plan in zip(self.decoder, plan, strict=True)
        ]
        shape = (len(source), self.heads, rows, self.width // self.heads)
        own = [(value.new_zeros(shape), value.new_zeros(shape)) for _, value in cross]
        return DecoderState(cross, own)

    def step(self, tokens: Tensor, state: DecoderState, plan: list[LayerPlan]) -> Tensor:
        """One row of greedy decoding: logits `[batch, token]` of the next row.

        Args:
            tokens: the token that the row reads, `[batch]`.
            state: from `begin`; the row's keys and values are added to it.
            plan: the bias of that one row.
        """
        row = slice(state.row, state.row + 1)
        x = self._embed(self.target_embedding, tokens[:, None], state.row).apply(lambda x: x)
        layers = zip(self.decoder, plan, state.own, state.cross, strict=True)
        for layer, layer_plan, (own_keys, own_values), (key, value) in layers:
            own, cross = layer_plan["self"], layer_plan["cross"]
            query, new_key, new_value = layer.read_own(Embedded(x), own)
            own_keys[:, :, row] = new_key
            own_values[:, :, row] = new_value
            x, query = layer.add_self(x, own.attend(query, own_keys, own_values), cross)
            x = layer.add_cross(x, cross.attend(query, key, value))
        state.row += 1
        return self.to_logits(self.norm(x[:, 0]))
