"""The processes that train together, as the environment sets them up, and what they tell each other.

On GPUs Accelerate wraps the model, and gradients are averaged while the rest of them is computed. On CPUs a
wrapped model of some hundred thousand weights costs more than it overlaps, a hook for each of fifty small
gradients, buckets, and a thread that takes the core from the backward pass (docs/log.md, 2026-11-26).
Ours are one tensor anyway (`FlatWeights`), so processes there average that, once a step: in memory that
they share, or by messages where they share none.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather, reduce

from lengthwise.engine.flat_weights import FlatWeights
from lengthwise.files import reason
from lengthwise.runs.folder import CHECKPOINT
from lengthwise.settings.config import InputError
from lengthwise.training.shared_memory import GoneError, SharedMemory

# Steps between two questions of the processes to each other: one costs a small part of a step.
ASKING = 8

# How gloo and NCCL say that another process does not answer.
_LOST = re.compile(
    r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Bb]roken pipe|[Tt]imed out waiting|TCPStore"
)

_VARIABLES = ("ACCELERATE_", "FORK_LAUNCHED", "LOCAL_RANK", "MASTER_", "RANK", "WORLD_SIZE")


def make_accelerator(device: torch.device, *, find_unused: bool) -> Accelerator:
    """What runs one process, or many under torchrun.

    Args:
        device: of this process.
        find_unused: whether some weights get no gradient, so that a wrapped model must not wait for it.

    Raises:
        InputError: when variables of the environment ask for what can't be set up.
    """
    distributed = DistributedDataParallelKwargs(find_unused_parameters=find_unused)
    try:
        return Accelerator(cpu=device.type == "cpu", kwargs_handlers=[distributed])
    except (ImportError, ValueError) as error:
        found = ", ".join(sorted(name for name in os.environ if name.startswith(_VARIABLES)))
        raise InputError(
            f"no processes can be set up as the environment asks ({found}): {reason(error)}"
        ) from error


def prepared(accelerator: Accelerator, model: torch.nn.Module) -> torch.nn.Module:
    """A model as each of the processes trains it, on its device."""
    # The evaluation mode is all of Accelerate's preparation but the wrapping.
    return accelerator.prepare_model(model, evaluation_mode=_average_at_once(accelerator))


class Others:
    """The other processes of a training, if there are any: what all of them agree on.

    Args:
        accelerator: of the processes.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self._shared: SharedMemory | None = None

    def begin_alike(self, weights: FlatWeights) -> None:
        """Give every process the weights of the first; a wrapped model has seen to that."""
        if _average_at_once(self.accelerator):
            dist.broadcast(weights.whole.detach(), 0)
            self._shared = SharedMemory.open(weights.whole.numel())

    def average(self, weights: FlatWeights) -> None:
        """Make the gradient the mean of all processes', where the model does not see to that.

        Every process has the same bits then. Of two that send messages, each adds the other's to its own:
        one exchange, where reducing takes several.
        """
        if not _average_at_once(self.accelerator):
            return
        gradient, processes = weights.whole.grad, self.accelerator.num_processes
        assert gradient is not None
        if self._shared is not None:
            return self._shared.average(gradient)
        if processes == 2:
            others, other = torch.empty_like(gradient), 1 - self.accelerator.process_index
            coming, going = dist.irecv(others, other), dist.isend(gradient, other)
            for under_way in (coming, going):
                assert under_way is not None
                under_way.wait()
            gradient += others
        else:
            dist.all_reduce(gradient)
        gradient /= processes

    def any_asked(self, asked: bool, step: int) -> bool:
        """Whether any process was asked to stop; all of them say the same after the same step.

        A process that stops alone would leave the others waiting for its gradients. So they tell each other
        with these, or ask after every `ASKING`-th step.

        Args:
            asked: whether this one was.
            step: the steps that are done, of all processes.
        """
        if self.accelerator.num_processes == 1:
            return asked
        if self._shared is not None:
            self._shared.asked = asked
            return self._shared.any_asked
        if step % ASKING:
            return False
        flag = torch.tensor(float(asked), device=self.accelerator.device)
        return bool(cast(torch.Tensor, reduce(flag, reduction="sum")) > 0)

    def share(self, rows: int) -> slice:
        """The rows that this process takes of so many that all of them measure together."""
        processes = self.accelerator.num_processes
        return slice(self.accelerator.process_index, None, processes if rows >= processes else 1)

    def each(self, values: torch.Tensor) -> torch.Tensor:
        """What each process found, `[process, value]`; all of them get the same."""
        return cast(torch.Tensor, gather(values[None]))


def _average_at_once(accelerator: Accelerator) -> bool:
    return accelerator.num_processes > 1 and accelerator.device.type == "cpu"


class ProcessLostError(RuntimeError):
    """One of the processes that trained together has gone, so that the others could not go on."""


@contextlib.contextmanager
def together(accelerator: Accelerator, path: Path) -> Iterator[None]:
    """Training with others: what fails because one of them has gone is said so.

    Args:
        accelerator: of the processes.
        path: the run folder.

    Raises:
        ProcessLostError: when one has gone.
    """
    try:
        yield
    except RuntimeError as error:
        # Of errors of a connection torch has no kind: gloo raises the plain one.
        lost = isinstance(error, GoneError) or _LOST.search(str(error))
        if accelerator.num_processes == 1 or not lost:
            raise
        kept = (
            "its last checkpoint is whole" if (path / CHECKPOINT).exists() else "no checkpoint yet"
        )
        raise ProcessLostError(
            f"one of the {accelerator.num_processes} processes that train {path} has gone, and the others "
            f"end, too ({kept}); --resume goes on, on as many processes or on others"
        ) from error


def rank_rows(batch_size: int, rank: int, processes: int, parts: int = 1) -> slice:
    """The rows of every batch that one process takes: each n-th, so that together they take all.

    Args:
        batch_size: problems of a batch.
        rank, processes: of the process; of all.
        parts: in which each takes its rows (`training.accumulate`).

    Raises:
        InputError: when the processes' shares would differ, or the parts of each.
    """
    if batch_size % processes:
        raise InputError(
            f"training.batch_size must be a multiple of the {processes} processes, got {batch_size}"
        )
    if batch_size // processes % parts:
        each = f", and each process takes {batch_size // processes}" if processes > 1 else ""
        raise InputError(
            f"training.batch_size must be a multiple of training.accumulate, {parts}; got {batch_size}"
            f"{each}"
        )
    return slice(rank, None, processes)
