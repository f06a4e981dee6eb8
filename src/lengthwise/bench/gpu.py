"""Training steps on a GPU: in float32 and bfloat16, launched one by one and as CUDA graphs.

Each case says how many problems a step takes a second, what share of the GPU's own matrix peak that is, and
how far the logits are from those of the CPU in float32, of the same weights and problems.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lengthwise.batches import Batches
from lengthwise.bench.models import bench_config, hand_bias
from lengthwise.bench.results import Result
from lengthwise.bench.train import step_flops
from lengthwise.bias import Causal
from lengthwise.config import Config, make_config
from lengthwise.model import plan_attention
from lengthwise.parts import make_device, make_model
from lengthwise.shards import backward
from lengthwise.training import compiled, in_precision
from lengthwise.weights import FlatWeights

Precision = Literal["float32", "bfloat16"]

# The paper's model and batch (configs/paper.toml), but for dropout: without it logits can be compared.
PAPER = {
    "model": {
        **{"width": 128, "heads": 8, "layers": 6, "feed_forward": 512, "norm": "post"},
        "embedding_scale": "sqrt",
    },
    "training": {"batch_size": 512, "learning_rate": 1e-4, "warmup_steps": 0},
}

# A task, whether the model is of the paper's size, and whether it has a calibrated bias.
CASES = tuple(
    ("addition", paper, calibrated) for paper in (False, True) for calibrated in (False, True)
)


class Side:
    """A model on a device, and problems drawn once.

    Args:
        config: the settings.
        calibrated: with a bias made by hand, instead of the causal mask alone.
        device: where it is.
        precision: of the products in a step.
        graphs: compile the passes.
    """

    def __init__(
        self,
        config: Config,
        calibrated: bool,
        device: torch.device,
        precision: Precision = "float32",
        graphs: bool = False,
    ) -> None:
        self.device, self.precision = device, precision
        bias = (
            hand_bias(config.task, config.model.heads) if calibrated else Causal(config.model.heads)
        )
        batch = Batches(config).train(0)
        torch.manual_seed(config.seed)
        model = make_model(config).to(device).train()
        self.model = compiled(model, device) if graphs else model
        self.plan = plan_attention(bias, batch.layout, config.model.layers, device=device)
        self.weights = FlatWeights(model.parameters())
        self.optimizer = torch.optim.Adam(
            [self.weights.whole], lr=config.training.learning_rate, betas=(0.9, 0.98), fused=True
        )
        self.source, self.target = batch.source.to(device), batch.target.to(device)

    def logits(self) -> Tensor:
        """Of the problems, `[problem, row, token]`."""
        with in_precision(self.precision, self.device):
            return self.model(self.source, self.target[:, :-1], self.plan).logits

    def loss(self) -> Tensor:
        """The mean over the problems."""
        return F.cross_entropy(self.logits().flatten(0, 1).float(), self.target[:, 1:].flatten())

    def step(self) -> None:
        """One step of training."""
        backward(self.loss, (), self.weights, None)
        self.optimizer.step()

    def seconds(self, steps: int) -> float:
        """How long so many steps take, to the end of the last."""
        wait(self.device)
        began = time.perf_counter()
        for _ in range(steps):
            self.step()
        wait(self.device)
        return time.perf_counter() - began


def wait(device: torch.device) -> None:
    """Until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak(device: torch.device, precision: Precision, size: int, repeats: int) -> float:
    """The GFLOP/s of square matrix products."""
    a = torch.randn(size, size, device=device, dtype=getattr(torch, precision))
    times = []
    for _ in range(repeats + 1):  # the first loads the library
        wait(device)
        began = time.perf_counter()
        for _ in range(10):
            torch.mm(a, a)
        wait(device)
        times.append(time.perf_counter() - began)
    return 10 * 2e-9 * size**3 / min(times)


def run(
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] = lambda words: None,
    device: str = "cuda",
    cases: Iterable[tuple[str, bool, bool]] = CASES,
    steps: int = 100,
    size: int = 8192,
    graphs: Iterable[bool] = (False, True),
) -> list[Result]:
    """Problems per second of a training step, share of the matrix peak, distance from the CPU's logits.

    Args:
        repeats: blocks of each case; the median counts.
        on_progress: called with a few words before each measurement.
        device: where.
        cases: as `CASES`.
        steps: in a block.
        size: of the matrices that find the peak.
        graphs: whether the passes are compiled, in turn.

    Raises:
        InputError: without a GPU.
    """
    where, results = make_device(device), []
    for precision in get_args(Precision):
        on_progress(f"gpu: {precision} peak")
        best = peak(where, precision, size, repeats)
        results.append(Result("gpu", f"peak, {precision}", best, "GFLOP/s", f"{size} x {size}"))
        for task, paper, calibrated in cases:
            config = make_config({"task": task, **PAPER}) if paper else bench_config(task, False)
            config = config.for_retraining() if calibrated else config
            kind = f"{task}, {'paper' if paper else 'default'}, "
            kind += "calibrated" if calibrated else "vanilla"
            with torch.no_grad():
                wanted = Side(config, calibrated, torch.device("cpu")).logits()
            for compiles in graphs:
                name = f"{kind}, {precision}{', CUDA graphs' if compiles else ''}"
                on_progress(f"gpu: {name}")
                side = Side(config, calibrated, where, precision, compiles)
                apart = (side.logits().detach().float().cpu() - wanted).abs().max().item()
                side.seconds(max(3, steps // 10))  # compiles, and warms up
                spent = statistics.median(side.seconds(steps) for _ in range(repeats)) / steps
                note = f"batch {config.training.batch_size}, blocks of {steps} steps"
                share = step_flops(config) / spent / 1e9 / best
                results += [
                    Result("gpu", name, config.training.batch_size / spent, "samples/s", note),
                    Result("gpu", f"{name}: matrix peak", 100 * share, "%", note),
                    Result("gpu", f"{name}: from float32 on the CPU", apart, "logits", note),
                ]
    return results
