"""Training speed, against the same model made of `torch.nn`, and against the matrix peak.

Ours is the training step as `train` takes it, data and accelerate included. The baseline is the
step that a person would write by hand around `nn.TransformerDecoder`: the same problems, weights,
loss and optimizer, and no accelerate. Both run in one process, in alternating blocks of steps.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from lengthwise.bench.matmul import SIZES, peak
from lengthwise.bench.models import TorchTransformer, bench_bias, bench_config
from lengthwise.bench.results import Bench, alternate, ratios
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config
from lengthwise.training.halves import shard_threads
from lengthwise.training.trainer import Trainer


class Pair:
    """Our trainer and the baseline, with equal weights before the first step.

    Attributes:
        trainer: ours.
        baseline: the same model made of `torch.nn`; see there for `cheapest`.
    """

    def __init__(self, config: Config, calibrated: bool, cheapest: bool = True) -> None:
        bias = bench_bias(config, calibrated)
        # The trainer's steps write nothing, so that the folder need not exist.
        self.trainer = Trainer(config, Run(Path("bench"), config, bias), Accelerator(cpu=True))
        layout, batch = self.trainer.layout, config.training.batch_size
        self.baseline = TorchTransformer(self.trainer.bare, bias, layout, batch, cheapest)
        self.optimizer = torch.optim.Adam(
            self.baseline.parameters(),
            lr=config.training.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.step = 0

    def ours(self, steps: int) -> None:
        """Take steps with our trainer."""
        with shard_threads(self.trainer.shards):
            for _ in range(steps):
                self.trainer.one_step()

    def theirs(self, steps: int) -> None:
        """Take steps with the baseline."""
        for _ in range(steps):
            self.baseline_step()

    def baseline_step(self) -> torch.Tensor:
        """One step of the baseline on the problems that ours has at that step; its loss."""
        trainer = self.trainer
        batch = trainer.batches.train(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = trainer.schedule.learning_rate(self.step)
        logits = self.baseline(batch.source, batch.target[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch.target[:, 1:].flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.detach()


def step_flops(config: Config) -> int:
    """Floating-point operations of all matrix products in one training step of the dense model.

    For one problem with L rows and S source positions, width d, feed-forward f, and t tokens,
    forward takes per layer

    - self-attention: 2 L d (3 d) to project, 4 L L d to score and read, 2 L d d to join,
    - cross-attention: 2 L d d + 2 S d (2 d), 4 L S d, 2 L d d,
    - feed-forward: 4 L d f,

    and 2 L d t for the logits. Backward takes twice that: each product has two gradients. Products
    that a bias of lines makes unnecessary are counted nevertheless, so that equal steps have
    equal numbers.
    """
    layout = config.layout()
    rows, source, tokens = layout.target_length, layout.source_length, len(layout.vocabulary)
    d, f = config.model.width, config.model.feed_forward
    own = 2 * rows * d * 3 * d + 4 * rows * rows * d + 2 * rows * d * d
    cross = 2 * rows * d * d + 2 * source * d * 2 * d + 4 * rows * source * d + 2 * rows * d * d
    forward = config.model.layers * (own + cross + 4 * rows * d * f) + 2 * rows * d * tokens
    return 3 * forward * config.training.batch_size


def run(
    bench: Bench,
    *,
    tasks: Iterable[str] = ("addition", "successor"),
    steps: int = 50,
    sizes: Iterable[int] = SIZES,
) -> None:
    """Samples per second of the default settings, for both trainings of each task.

    Args:
        bench: the benchmark; its repeats are blocks of each side.
        tasks: names of tasks.
        steps: optimizer steps in a block.
        sizes: of the matrices that find the peak.
    """
    peaks, shares = [], {}
    for task in tasks:
        for calibrated in (False, True):
            case = f"{task}, {'calibrated' if calibrated else 'vanilla'}"
            bench.say(case)
            # Others may slow the machine for a while, so the peak is measured again and again.
            peaks.append(peak(sizes, bench.repeats)[0])
            config = bench_config(task, calibrated)
            pair, other = Pair(config, calibrated, cheapest=False), Pair(config, calibrated)
            works = [partial(work, steps) for work in (pair.ours, pair.theirs, other.theirs)]
            ours, *baselines = alternate(works, bench.repeats)
            samples = steps * config.training.batch_size
            note = f"batch {config.training.batch_size}, blocks of {steps} steps in turn"
            rate = bench.add(case, (samples / spent for spent in ours), "samples/s", note)
            for masks, theirs in zip(("", ", cheapest masks"), baselines, strict=True):
                rates, found = (samples / spent for spent in theirs), ratios(theirs, ours)
                bench.add(f"{case}: torch.nn{masks}", rates, "samples/s", note)
                spread = f"pairs of blocks: {min(found):.2f} to {max(found):.2f}"
                bench.add(f"{case}: ratio{masks}", found, "x", spread)
            shares[case] = step_flops(config) * rate / config.training.batch_size / 1e9
    gflops = max(peaks)
    for case, own in shares.items():
        bench.add(f"{case}: matrix peak", 100 * own / gflops, "%", f"of {gflops:.0f} GFLOP/s")
