"""The machine's float32 matrix peak, as torch reaches it with the threads of this process."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from lengthwise.bench.results import Bench, seconds

SIZES = (256, 512, 1024, 2048)
CPU = torch.device("cpu")


def peak(
    sizes: Iterable[int] = SIZES,
    repeats: int = 5,
    *,
    device: torch.device = CPU,
    precision: str = "float32",
    least: int = 1,
) -> tuple[float, int]:
    """The best GFLOP/s of square matrix products, and the size that reached it.

    Args:
        sizes: of the matrices.
        repeats: measurements of each.
        device, precision: where, and in which type.
        least: products in a measurement, at least; small ones are repeated until they fill milliseconds.
    """
    best = (0.0, 0)
    for size in sizes:
        kind = {"device": device, "dtype": getattr(torch, precision)}
        a, b, out = (torch.randn(size, size, **kind) for _ in range(3))
        count = max(least, int(1e9 / size**3))

        def work(a=a, b=b, out=out, count=count) -> None:
            for _ in range(count):
                torch.mm(a, b, out=out)

        work()
        fastest = min(seconds(work, device) for _ in range(repeats))
        best = max(best, (2e-9 * size**3 * count / fastest, size))
    return best


def run(bench: Bench, *, sizes: Iterable[int] = SIZES) -> None:
    """The peak of this process's threads."""
    bench.say("peak")
    rate, size = peak(sizes, bench.repeats)
    bench.add("float32 peak", rate, "GFLOP/s", f"best of all, at {size} x {size}")
