"""Training steps on a GPU: in float32 and bfloat16, launched one by one and as CUDA graphs.

Each case says how many problems a step takes a second, what share of the GPU's own matrix peak that is, and
how far the logits are from those of the CPU in float32, of the same weights and problems.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import get_args

import torch

from lengthwise.bench.matmul import CPU, peak
from lengthwise.bench.models import Precision, Steps, bench_config
from lengthwise.bench.results import Bench, seconds
from lengthwise.bench.train import step_flops
from lengthwise.runs.parts import make_device
from lengthwise.settings.config import make_config
from lengthwise.settings.files import load_config, shipped_configs

# A task, whether the model is of the paper's size, and whether it has a calibrated bias.
CASES = tuple(
    ("addition", paper, calibrated) for paper in (False, True) for calibrated in (False, True)
)


def run(
    bench: Bench,
    *,
    device: str = "cuda",
    cases: Iterable[tuple[str, bool, bool]] = CASES,
    steps: int = 100,
    size: int = 8192,
    graphs: Iterable[bool] = (False, True),
) -> None:
    """Problems per second of a training step, share of the matrix peak, distance from the CPU's logits.

    Args:
        device: where.
        cases: as `CASES`.
        steps: in a block.
        size: of the matrices that find the peak.
        graphs: whether the passes are compiled, in turn.

    Raises:
        InputError: without a GPU.
    """
    where = make_device(device)
    for precision in get_args(Precision):
        bench.say(f"{precision} peak")
        best, _ = peak((size,), bench.repeats, device=where, precision=precision, least=10)
        bench.add(f"peak, {precision}", best, "GFLOP/s", f"{size} x {size}")
        for task, paper, calibrated in cases:
            config = bench_config(task, False)
            if paper:
                # Without dropout logits can be compared.
                values = {**load_config(shipped_configs()["paper"]), "task": task}
                config = make_config(values, ["model.dropout=0"])
            config = config.for_retraining() if calibrated else config
            kind = f"{task}, {'paper' if paper else 'default'}, "
            kind += "calibrated" if calibrated else "vanilla"
            with torch.no_grad():
                on_cpu = Steps(config, calibrated, CPU)
                wanted = on_cpu.logits(*on_cpu.problems)
            for compiles in graphs:
                name = f"{kind}, {precision}{', CUDA graphs' if compiles else ''}"
                bench.say(name)
                work = Steps(config, calibrated, where, precision, graphs=compiles)
                found = work.logits(*work.problems).detach().float().cpu()
                apart = (found - wanted).abs().max().item()
                work.take(max(3, steps // 10))  # compiles, and warms up
                blocks = [seconds(partial(work.take, steps), where) for _ in range(bench.repeats)]
                batch = config.training.batch_size
                note = f"batch {batch}, blocks of {steps} steps"
                rates = (batch * steps / spent for spent in blocks)
                rate = bench.add(name, rates, "samples/s", note)
                share = step_flops(config) * rate / batch / 1e9 / best
                bench.add(f"{name}: matrix peak", 100 * share, "%", note)
                bench.add(f"{name}: from float32 on the CPU", apart, "logits", note)
