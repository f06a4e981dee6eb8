"""The model: a pre-norm transformer decoder that reads the embedded source through cross-attention.

The paper's code passes the encoder's input through unchanged (docs/method.md), so cross-attention reads
token embeddings plus positions; ours does the same without the detour.
"""

from __future__ import annotations

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

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """`[batch, position, part * width]` to one `[batch, head, position, channel]` per part."""
        batch, length, channels = x.shape
        x = x.view(batch, length, parts, self.heads, channels // parts // self.heads)
        return x.permute(2, 0, 3, 1, 4).unbind(0)

    def project_own(self, x: Tensor, plan: Plan) -> tuple[Tensor, ...]:
        """Queries, keys and values of self-attention.

        Where the plan needs no scores, only values are computed; they stand for the others too.
        """
        fused = self.query_key_value
        if plan.scores:
            return self.split(fused(x), 3)
        width = self.out.in_features
        return 3 * self.split(F.linear(x, fused.weight[-width:], fused.bias[-width:]), 1)

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

    def add_self(self, x: Tensor, read: Tensor, cross: Plan) -> tuple[Tensor, Tensor]:
        """Add what self-attention read; return the rows and their queries for cross-attention."""
        x = x + self.dropout(self.self_attention.join(read))
        if not cross.scores:
            return x, x
        (query,) = self.cross_attention.split(self.cross_attention.query(self.norm_cross(x)), 1)
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
        self._position_cache: dict[tuple[int, torch.device], Tensor] = {}

    @property
    def decoder(self) -> list[Layer]:
        """The decoder layers, first to last."""
        return cast("list[Layer]", list(self.layers))

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, first: int = 0) -> Tensor:
        x = embedding(tokens)
        if self.positions != "none":
            x = x + self._positions(first + tokens.shape[1], x.device)[first:]
        return self.dropout(x)

    def _positions(self, count: int, device: torch.device) -> Tensor:
        key = (count, device)
        if key not in self._position_cache:
            self._position_cache.clear()
            table = POSITIONS[self.positions](torch.arange(count), self.width)
            self._position_cache[key] = table.to(device)
        return self._position_cache[key]

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
        x = self._embed(self.target_embedding, target)
        attention: list[dict[str, Tensor]] = []
        for layer, layer_plan in zip(self.decoder, plan, strict=True):
            own, cross = layer_plan["self"], layer_plan["cross"]
            own_query, own_key, value = layer.self_attention.project_own(layer.norm_self(x), own)
            x, query = layer.add_self(x, own.attend(own_query, own_key, value), cross)
            key, value = self._project_source(layer.cross_attention, source, cross)
            x = layer.add_cross(x, cross.attend(query, key, value))
            if return_attention:
                attention.append(
                    {"self": own.weights(own_query, own_key), "cross": cross.weights(query, key)}
                )
        return Output(self.to_logits(self.norm(x)), attention)

    def _project_source(
        self, attention: Attention, source: Tensor, plan: Plan
    ) -> tuple[Tensor, Tensor]:
        """Keys and values of the source; values stand for keys where the plan needs no scores.

        Projection is linear: project the few tokens of the vocabulary and the positions, then look up.
        """
        parts = 2 if plan.scores else 1
        width = self.width * parts
        weight, bias = attention.key_value.weight[-width:], attention.key_value.bias[-width:]
        if self.training and isinstance(self.dropout, nn.Dropout):
            x = F.linear(self._embed(self.source_embedding, source), weight, bias)
        else:
            x = F.embedding(source, F.linear(self.source_embedding.weight, weight, bias))
            if self.positions != "none":
                x = x + F.linear(self._positions(source.shape[1], x.device), weight)
        projected = attention.split(x, parts)
        return projected[0], projected[-1]

    def begin(self, source: Tensor, rows: int, plan: list[LayerPlan]) -> DecoderState:
        """Project the source once and make room for the keys and values of `rows` rows."""
        cross = [
            self._project_source(layer.cross_attention, source, layer_plan["cross"])
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
        x = self._embed(self.target_embedding, tokens[:, None], first=state.row)
        layers = zip(self.decoder, plan, state.own, state.cross, strict=True)
        for layer, layer_plan, (own_keys, own_values), (key, value) in layers:
            own, cross = layer_plan["self"], layer_plan["cross"]
            query, new_key, new_value = layer.self_attention.project_own(layer.norm_self(x), own)
            own_keys[:, :, row] = new_key
            own_values[:, :, row] = new_value
            x, query = layer.add_self(x, own.attend(query, own_keys, own_values), cross)
            x = layer.add_cross(x, cross.attend(query, key, value))
        state.row += 1
        return self.to_logits(self.norm(x[:, 0]))
