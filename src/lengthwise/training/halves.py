"""A batch in shards, each on a thread of its own; and in parts, one after the other, for less memory.

By default torch lets all threads share every operation. A small model's operations take some tens of
microseconds, and a step has hundreds: threads that fall asleep between them and must be woken cost more
than they do (docs/log.md, "two halves of a batch"). Here a thread takes a shard of the problems through
the whole step, the calling thread one of them, and they meet once, to add up their gradients.

The gradients are those of the whole batch, up to rounding; the same shards give the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from threading import Barrier

import torch
from torch import Tensor

from lengthwise.engine.flat_weights import FlatWeights
from lengthwise.model import Transformer
from lengthwise.model.plans import LayerPlan
from lengthwise.runs.elsewhere import computing_with

# So many multiplications of a shard's largest product keep a thread busy.
PER_THREAD = 2**24

# A batch of fewer rows is one shard: half of it takes nearly as long. Where rows that read the same are
# computed once, half of a batch has nearly as many that differ, until it is larger.
FEW_ROWS, FEW_SHARED_ROWS = 256, 4096


@dataclass(frozen=True)
class Shards:
    """How a batch is computed.

    Attributes:
        count: shards, of equal size.
        threads: of each, for torch's operations.
    """

    count: int
    threads: int


def choose_shards(
    model: Transformer, plan: list[LayerPlan], problems: int, rows: int
) -> Shards | None:
    """How to compute batches of so many problems with so many rows each.

    None where all threads had better share every operation: on a GPU, on a single thread, for an odd number
    of problems, for a model so large that one shard keeps them busy; and with dropout, which would draw its
    numbers in no fixed order.
    """
    available = torch.get_num_threads()
    weight = model.decoder[0].expand.weight
    if available == 1 or weight.device.type != "cpu" or model.drops:
        return None
    few = FEW_SHARED_ROWS if model.shares(plan) else FEW_ROWS
    count = 1 if problems * rows < few else 2
    if problems % count:
        return None
    largest = problems // count * rows * weight.numel()
    threads = min(available // count, max(1, largest // PER_THREAD))
    return None if (count, threads) == (1, available) else Shards(count, threads)


def backward(
    loss: Callable[..., Tensor],
    batch: Sequence[Tensor],
    weights: FlatWeights,
    shards: Shards | None,
) -> Tensor:
    """Give weights the gradient of a mean loss, as one tensor: `weights.whole.grad`.

    Args:
        loss: the mean loss of the problems that it is given; it must draw no random numbers.
        batch: tensors `[problem, ...]`; a number of problems that the shards divide.
        weights: all that need gradients.
        shards: how to compute it; None computes all at once, on the calling thread.

    Returns:
        The loss, without a graph.
    """
    weights.whole.grad = None  # before there is another
    if shards is None:
        value = loss(*batch)
        value.backward()  # what listens for gradients, as several processes do, hears of them
        weights.whole.grad = weights.gather(
            torch.zeros_like(part) if part.grad is None else part.grad for part in weights.parts
        )
        for part in weights.parts:
            part.grad = None
        return value.detach()
    share = torch.full((), 1 / shards.count)

    def one(*part: Tensor) -> tuple[Tensor, Tensor]:
        value = loss(*part)
        # Not `backward`: two at once would add to one gradient.
        found = torch.autograd.grad(value, weights.parts, share, materialize_grads=True)
        return value.detach(), weights.gather(found)

    own, *parts = zip(*(tensor.chunk(shards.count) for tensor in batch), strict=True)
    running = [_workers(os.getpid(), shards).submit(one, *part) for part in parts]
    try:
        value, grad = one(*own)
    finally:
        wait(running)
    for shard in running:
        other, more = shard.result()
        value, grad = value + other, grad.add_(more)
    weights.whole.grad = grad
    return value / shards.count


def accumulated(
    loss: Callable[..., Tensor],
    batch: Sequence[Tensor],
    weights: FlatWeights,
    shards: Shards | None,
    count: int,
) -> Tensor:
    """As `backward`, part by part; the gradient is that of the whole batch, up to rounding.

    Of sheets of different lengths each part weighs the same, as with shards and with several processes,
    whatever symbols it has.

    Args:
        loss, batch, weights: as of `backward`.
        shards: how each part is computed.
        count: parts, of equal size.
    """
    if count == 1:
        return backward(loss, batch, weights, shards)
    first, *rest = zip(*(tensor.chunk(count) for tensor in batch), strict=True)
    value = backward(loss, first, weights, shards).clone()
    for part in rest:
        before = weights.whole.grad
        assert before is not None
        value += backward(loss, part, weights, shards)
        assert weights.whole.grad is not None
        weights.whole.grad += before
    assert weights.whole.grad is not None
    weights.whole.grad /= count
    return value / count


def shard_threads(shards: Shards | None) -> AbstractContextManager[None]:
    """For a while, torch's operations on this thread take as many threads as a shard does.

    Around a loop of steps, for the optimizer's part, too; torch forgets some of what it has prepared.
    """
    return nullcontext() if shards is None else computing_with(shards.threads)


@cache
def _workers(process: int, shards: Shards) -> ThreadPoolExecutor:
    """Threads for all shards but one; a process that was forked has none of its parent's."""
    others, before = shards.count - 1, torch.get_num_threads()
    workers, begun = ThreadPoolExecutor(others, thread_name_prefix="shard"), Barrier(others)

    def begin() -> None:
        torch.get_num_threads()  # or torch would set its own at the thread's first operation
        torch.set_num_threads(shards.threads)  # of the thread that calls it
        begun.wait()

    wait([workers.submit(begin) for _ in range(others)])
    torch.set_num_threads(before)  # that others begin with as many as before
    return workers
