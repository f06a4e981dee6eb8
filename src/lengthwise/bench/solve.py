"""Throughput: ten thousand additions of up to 60 digits, mixed, against caches and against no cache."""

from __future__ import annotations

import numpy as np
import torch

from lengthwise.bench.models import TorchTransformer, no_cache, random_problems, trained_run
from lengthwise.bench.results import Bench, alternate, seconds
from lengthwise.problems.worked import expression_of
from lengthwise.runs.run import Run


def run(
    bench: Bench,
    *,
    problems: int = 10_000,
    length: int = 60,
    strata: int = 6,
    model: Run | None = None,
) -> None:
    """Problems per second of `solve_many`, of the dense path with a cache, and of `torch.nn` without one.

    The lengths of the problems are uniform from 1 to `length`. `torch.nn` decodes only the problems
    of `strata` lengths, batched by length, each of which stands for those around it, and only once.

    Args:
        bench: the benchmark; the cache is measured 3 times at most.
        problems: how many.
        length: digits, at most.
        strata: lengths that `torch.nn` decodes.
        model: the run; by default an addition is trained.
    """
    bench.say("training an addition by the default pipeline")
    trained = model or trained_run()
    dense = Run.open(trained.path, device="cpu", set=["attention=dense"])
    sizes = np.random.default_rng(0).integers(1, length + 1, problems).tolist()
    texts = [
        expression_of(trained.task, random_problems(trained.layout(size), size, seed)[0], size)
        for seed, size in enumerate(sizes)
    ]
    bench.say("windows")
    (ours,) = alternate([lambda: trained.solve_many(texts)], bench.repeats)
    bench.say("dense with a cache")
    cached = [seconds(lambda: dense.solve_many(texts)) for _ in range(min(bench.repeats, 3))]
    bench.say("torch.nn")
    bare = 0.0
    for stratum in range(strata):
        # The middle of the lengths that it stands for.
        chosen = int(length * (stratum + 0.5) / strata) + 1
        layout = trained.layout(chosen)
        batch = max(1, problems // length)
        sources = [layout.source(random_problems(layout, chosen, s)) for s in range(batch)]
        network = TorchTransformer(trained.model, trained.bias, layout, batch)
        decode = no_cache(network, layout, torch.cat(sources))
        bare += seconds(decode) * problems / batch / strata
    note = f"{problems:,} problems of 1 to {length} digits, mixed"
    rate = bench.add("windows", (problems / spent for spent in ours), "problems/s", note)
    scaled = f"{strata} lengths decoded, scaled to all"
    for name, times, how in (
        ("dense with a cache", cached, note),
        ("torch.nn without a cache", [bare], scaled),
    ):
        other = bench.add(name, (problems / spent for spent in times), "problems/s", how)
        bench.add(f"ratio to {name}", rate / other, "x", note)
