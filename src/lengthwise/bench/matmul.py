"""The machine's float32 matrix peak, as torch reaches it with the threads of this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from lengthwise.bench.results import Result, seconds

SIZES = (256, 512, 1024, 2048)


def peak(sizes: Iterable[int] = SIZES, repeats: int = 5) -> tuple[float, int]:
    """The best GFLOP/s of square matrix products, and the size that reached it."""
    best = (0.0, 0)
    for size in sizes:
        a, b = torch.randn(size, size), torch.randn(size, size)
        out = torch.empty(size, size)
        # Small products are repeated until they fill some milliseconds.
        count = max(1, int(1e9 / size**3))

        def work(a=a, b=b, out=out, count=count) -> None:
            for _ in range(count):
                torch.mm(a, b, out=out)

        work()
        fastest = min(seconds(work) for _ in range(repeats))
        best = max(best, (2e-9 * size**3 * count / fastest, size))
    return best


def run(
    *,
    repeats: int = 5,
    on_progress: Callable[[str], object] = lambda words: None,
    sizes: Iterable[int] = SIZES,
) -> list[Result]:
    """The peak of this process's threads."""
    on_progress("matmul: peak")
    rate, size = peak(sizes, repeats)
    return [Result("matmul", "float32 peak", rate, "GFLOP/s", f"best of all, at {size} x {size}")]
