"""What the benchmarks run: calibrated biases made by hand, and our model made of `torch.nn`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lengthwise.bias import AttentionBias, CalibratedBias, Line, Site, Track
from lengthwise.config import Config
from lengthwise.layout import Layout
from lengthwise.model.positions import POSITIONS
from lengthwise.model.transformer import Transformer
from lengthwise.tasks import TASKS


def hand_tracks(task: str) -> list[Track]:
    """What the method finds at cross-attention: each operand's digit in this column and the last."""
    operands = [segment.name for segment in TASKS[task].segments if segment.grows]
    return [
        Track("cross", name, "anti-diagonal", offset) for offset in (0, -1) for name in operands
    ]


def hand_bias(task: str, heads: int) -> CalibratedBias:
    """A calibrated bias as `auto` selects it: the tracks in turn, one to a head; self its own token."""
    tracks = hand_tracks(task)
    own = Track("self", "answer", "diagonal", 0)
    lines = [Line.of(tracks[head % len(tracks)], head) for head in range(heads)]
    return CalibratedBias(task, heads, lines + [Line.of(own, head) for head in range(heads)])


def bench_config(task: str, calibrated: bool) -> Config:
    """The default settings of the first training, or of the second."""
    config = Config(task=task, device="cpu")
    return config.for_retraining() if calibrated else config


class TorchTransformer(nn.Module):
    """Our model, made of `nn.TransformerDecoder`, with the same weights.

    The bias is added through `tgt_mask` and `memory_mask`, laid out once. A mask that is the same for
    all heads is given as `[query, key]`, one that is zero as None: what torch runs fastest.

    Args:
        model: ours, whose weights are copied.
        bias: the bias, the same in every layer.
        layout: the task at one width.
        batch: problems in a batch.
    """

    def __init__(
        self, model: Transformer, bias: AttentionBias, layout: Layout, batch: int
    ) -> None:
        super().__init__()
        width, heads = model.width, model.heads
        tokens = model.source_embedding.num_embeddings
        first: nn.Module = model.layers[0]
        layer = nn.TransformerDecoderLayer(
            width,
            heads,
            first.get_submodule("expand").out_features,  # type: ignore[arg-type]
            dropout=0.0,
            activation="relu",
            batch_first=True,
            norm_first=True,
        )
        self.source_embedding = nn.Embedding(tokens, width)
        self.target_embedding = nn.Embedding(tokens, width)
        self.decoder = nn.TransformerDecoder(layer, len(model.layers), nn.LayerNorm(width))
        self.to_logits = nn.Linear(width, tokens)
        self.load_state_dict(_torch_names(model.state_dict()))
        longest = max(layout.source_length, layout.target_length)
        self.table = POSITIONS[model.positions](torch.arange(longest), width)
        self.positions = model.positions
        rows = range(layout.target_length)
        dense: dict[Site, Tensor] = {
            site: bias.dense(site, 0, layout, rows) for site in ("self", "cross")
        }
        self.causal = dense["self"].equal(Causal_self(dense["self"]))
        self.self_mask = _mask(dense["self"], batch)
        self.cross_mask = _mask(dense["cross"], batch)
