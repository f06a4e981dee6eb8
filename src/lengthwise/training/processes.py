"""The processes that train together, as the environment sets them up."""

from __future__ import annotations

import os
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, reduce

from lengthwise.files import reason
from lengthwise.settings.config import InputError

# Steps between two questions of the processes to each other: one costs a small part of a step.
ASKING = 8

_VARIABLES = ("ACCELERATE_", "FORK_LAUNCHED", "LOCAL_RANK", "MASTER_", "RANK", "WORLD_SIZE")


def make_accelerator(device: torch.device, *, find_unused: bool) -> Accelerator:
    """What runs one process, or many under torchrun.

    Args:
        device: of this process.
        find_unused: whether some weights get no gradient, so that processes must not wait for it.

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


def any_asked(accelerator: Accelerator, asked: bool, step: int) -> bool:
    """Whether any process was asked to stop; all of them say the same after the same step.

    They ask each other after every `ASKING`-th step, since a process that stops alone would leave the
    others waiting for its gradients.

    Args:
        accelerator: of the processes.
        asked: whether this one was.
        step: the steps that are done, of all processes.
    """
    if accelerator.num_processes == 1:
        return asked
    if step % ASKING:
        return False
    flag = torch.tensor(float(asked), device=accelerator.device)
    return bool(cast(torch.Tensor, reduce(flag, reduction="sum")) > 0)


def rank_rows(batch_size: int, rank: int, processes: int) -> slice:
    """The rows of every batch that one process takes: each n-th, so that together they take all.

    Raises:
        InputError: when the processes' shares would differ.
    """
    if batch_size % processes:
        raise InputError(
            f"training.batch_size must be a multiple of the {processes} processes, got {batch_size}"
        )
    return slice(rank, None, processes)
