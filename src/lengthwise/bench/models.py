"""What the benchmarks run: a trained model, biases made by hand, and our model made of `torch.nn`."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.bias import OWN_TOKEN, AttentionBias, CalibratedBias, Causal, Line, Track
from lengthwise.engine.flat_weights import FlatWeights
from lengthwise.model import POSITIONS, Transformer, plan_attention
from lengthwise.model.ahead import prepare
from lengthwise.paper_repo.checkpoint import decoder_names
from lengthwise.pipeline import run_abc
from lengthwise.problems.layout import Layout
from lengthwise.problems.sampling import generator, suite_problems
from lengthwise.runs.parts import compiled, in_precision, make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, make_config
from lengthwise.tasks import TASKS
from lengthwise.training.batches import Batches
from lengthwise.training.halves import backward, choose_shards, shard_threads

Precision = Literal["float32", "bfloat16"]


def bench_config(task: str, calibrated: bool) -> Config:
    """The default settings of the first training, or of the second."""
    config = Config(task=task, device="cpu")
    return config.for_retraining() if calibrated else config


@cache
def trained_run() -> Run:
    """An addition trained by the default pipeline: once for a process, in a folder of its own."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    config = make_config({"task": "addition", "device": "cpu"}, ["evaluation.samples=10"])
    return run_abc(config, Path(folder.name) / "addition", lengths=[6]).calibrated


def random_problems(layout: Layout, length: int, seed: int = 0, count: int = 1) -> np.ndarray:
    """Digits `[problem, operand, column]` of uniform problems of this length."""
    rng, width = generator(seed, "test", length), layout.width
    return suite_problems(
        layout.task, rng, count, suite="uniform", length=length, width=width, split="any"
    )


class Steps:
    """Training steps of a model on a device, on problems drawn once, without a schedule.

    Args:
        calibrated: with a bias made by hand, instead of the causal mask alone.
        device: where it is.
        precision: of the products in a step.
        graphs: compile the passes.
        halves: compute a batch as a training on the CPU does.
    """

    def __init__(
        self,
        config: Config,
        calibrated: bool,
        device: torch.device,
        precision: Precision = "float32",
        *,
        graphs: bool = False,
        halves: bool = False,
    ) -> None:
        self.device, self.precision = device, precision
        batch, size = Batches(config).train(0), config.training.batch_size
        torch.manual_seed(config.seed)
        model = make_model(config).to(device).train()
        self.model = compiled(model, device) if graphs else model
        self.plan = plan_attention(
            bench_bias(config, calibrated),
            batch.layout,
            config.model.layers,
            path=config.attention,
            device=device,
        )
        rows = batch.layout.target_length
        if graphs:
            prepare(model, self.plan, batch.layout.source_length, rows, device)
        self.weights = FlatWeights(model.parameters())
        self.optimizer = torch.optim.Adam(
            [self.weights.whole], lr=config.training.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.problems = batch.source.to(device), batch.target.to(device)
        self.shards = choose_shards(model, self.plan, size, rows) if halves else None

    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """Of problems, `[problem, row, token]`."""
        with in_precision(self.precision, self.device):
            return self.model(source, target[:, :-1], self.plan).logits

    def loss(self, source: Tensor, target: Tensor) -> Tensor:
        """The mean over problems."""
        logits = self.logits(source, target).flatten(0, 1).float()
        return F.cross_entropy(logits, target[:, 1:].flatten())

    def take(self, steps: int) -> None:
        """So many steps."""
        with shard_threads(self.shards):
            for _ in range(steps):
                backward(self.loss, self.problems, self.weights, self.shards)
                self.optimizer.step()


def bench_bias(config: Config, calibrated: bool) -> AttentionBias:
    """A bias made by hand, or the causal mask alone."""
    heads = config.model.heads
    return hand_bias(config.task, heads) if calibrated else Causal(heads)


def hand_tracks(task: str) -> list[Track]:
    """What a model must read: each operand's digit in this column and in the one before."""
    operands = [segment.name for segment in TASKS[task]().segments if segment.grows]
    return [Track.along(name, back) for back in (0, -1) for name in operands]


def hand_bias(task: str, heads: int) -> CalibratedBias:
    """A bias as calibration selects it: one track to a head, in turn; at self the own token."""
    tracks = hand_tracks(task)
    cross = [Line(tracks[head % len(tracks)], head) for head in range(heads)]
    return CalibratedBias(task, heads, cross + [Line(OWN_TOKEN, head) for head in range(heads)])


class TorchTransformer(nn.Module):
    """Our model, made of `nn.TransformerDecoder`, with the same weights; the bias goes in as masks.

    Masks are laid out once: as float masks `[batch * head, query, key]` at both sites, the form that takes
    any bias, or in the cheapest form that this bias allows: None where every key is open, `[query, key]`
    where all heads have the same.

    Args:
        model: ours, whose weights are copied.
        bias: the bias, the same in every layer.
        layout: the task at one width.
        batch: problems in a batch.
        cheapest: take the cheapest form.
    """

    def __init__(
        self,
        model: Transformer,
        bias: AttentionBias,
        layout: Layout,
        batch: int,
        cheapest: bool = True,
    ) -> None:
        super().__init__()
        ours, layers = model.state_dict(), len(model.layers)
        weights = {name: ours[name] for name in ours if not name.startswith(("layers.", "norm."))}
        for theirs, parts in decoder_names(layers).items():
            weights[f"decoder.{theirs}"] = torch.cat([ours[part] for part in parts])
        feed_forward, width = weights["decoder.layers.0.linear1.weight"].shape
        tokens = len(weights["to_logits.weight"])
        layer = nn.TransformerDecoderLayer(
            width, model.heads, feed_forward, dropout=0.0, batch_first=True, norm_first=True
        )
        self.source_embedding = nn.Embedding(tokens, width)
        self.target_embedding = nn.Embedding(tokens, width)
        self.decoder = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.to_logits = nn.Linear(width, tokens)
        self.load_state_dict(weights)
        longest = max(layout.source_length, layout.target_length)
        table = POSITIONS[model.positions](torch.arange(longest), width)
        self.table = None if model.positions == "none" else table
        rows = range(layout.target_length)
        self.causal = cheapest and isinstance(bias, Causal)
        self.self_mask = _mask(bias.dense("self", 0, layout, rows), batch, cheapest)
        self.cross_mask = _mask(bias.dense("cross", 0, layout, rows), batch, cheapest)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits `[batch, row, token]` of the first rows, as many as `target` has."""
        rows = target.shape[1]
        read = self.decoder(
            self._embed(self.target_embedding, target),
            self._embed(self.source_embedding, source),
            tgt_mask=None if self.self_mask is None else self.self_mask[..., :rows, :rows],
            memory_mask=None if self.cross_mask is None else self.cross_mask[..., :rows, :],
            tgt_is_causal=self.causal,  # spares torch from finding out at every step
        )
        return self.to_logits(read)

    def _embed(self, embedding: nn.Embedding, tokens: Tensor) -> Tensor:
        x = embedding(tokens)
        return x if self.table is None else x + self.table[: tokens.shape[1]]


def no_cache(model: TorchTransformer, layout: Layout, source: Tensor) -> Callable[[], Tensor]:
    """Greedy decoding as torch offers it: every token takes a pass over all tokens before it."""

    @torch.inference_mode()
    def decode() -> Tensor:
        tokens = torch.full((len(source), 1), layout.vocabulary.start)
        for _ in range(layout.target_length):
            written = model(source, tokens)[:, -1].argmax(dim=-1, keepdim=True)
            tokens = torch.cat([tokens, written], dim=1)
        return tokens[:, 1:]

    return decode


def _mask(bias: Tensor, batch: int, cheapest: bool) -> Tensor | None:
    if cheapest and not bias.any():
        return None
    if cheapest and (bias == bias[:1]).all():
        return bias[0].contiguous()
    return bias.repeat(batch, 1, 1)
