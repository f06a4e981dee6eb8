"""Problems for others: a sequence of them, with answers, that can be drawn again one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from lengthwise.api.given import SomeSizes, as_sizes
from lengthwise.api.task_settings import Assignments, settings
from lengthwise.arguments import as_choice, as_whole, as_wholes
from lengthwise.errors import InputError
from lengthwise.problems.format import Format
from lengthwise.problems.items import Problems
from lengthwise.problems.sampling import Suite
from lengthwise.problems.sheet_sampling import SheetSuite
from lengthwise.problems.sizes import Size
from lengthwise.settings.assignments import refuse_uncounted, with_options
from lengthwise.settings.config import Config

SPLITS = ("train", "validation", "test")

# The settings that define problems.
_DEFINING = ("base", "data.length", "data.columns", "data.rows", "parameters.*")

# More than anyone counts; every index has a problem.
_MOST = 10**12

# Digits of a problem, or cells of a sheet, of which there are a few bytes of text each.
_LARGEST = 1_000_000


def problems(
    task: str | Path | Config,
    sizes: SomeSizes | None = None,
    split: str = "train",
    seed: int = 0,
    *,
    count: int = 1000,
    suite: str = "uniform",
    set: Assignments = (),
) -> Problems:
    """Problems of a task with their true answers, as a sequence; each can be drawn again by its number.

    `problems(...)[i]` follows from the task with its parameters and base, `sizes`, `split`, `seed`, `suite`
    and i, whatever else was drawn, and however many there are. Splits are those of training: no problem of
    `test` is one that any model of ours was trained on. They are not unlike by more than that: a task has
    few short problems, which come again and again.

    Args:
        task: a task's name, a settings file, or settings.
        sizes: digits of the operands, one or several lengths; of sheets columns and rows, such as `"20x15"`
            or `(20, 15)`. Problem i has the i-th of them, counted around. By default that of training.
        split: `train`, `validation` or `test`.
        seed: of all of them.
        count: how many there are.
        suite: `uniform`; of tasks of one pass `carry`, of sheets `hard`.
        set: settings, such as `"base=16"`; those that define the task count.

    Raises:
        InputError: for what can't be used; where a split has no problem of a size, asking for one says so.
    """
    given = with_options(set)
    config = settings(task, given)
    own = [f"parameters.{name}" for name in config.parameters]
    named = [one for one in given if f"parameters.{one.partition('=')[0].strip()}" not in own]
    refuse_uncounted(named, _DEFINING, "problems are drawn")
    chosen = as_choice("split", split, SPLITS)
    suites = get_args(SheetSuite if config.is_sheet else Suite)
    return Problems(
        Format(config.task, config.base, config.parameters),
        some_sizes(config, sizes),
        count=as_whole("count", count, 0, _MOST),
        split=chosen,  # type: ignore[arg-type]
        seed=as_whole("seed", seed),
        suite=as_choice("suite", suite, suites),
    )


def some_sizes(config: Config, sizes: Any) -> list[int] | list[Size]:
    """What people pass as sizes: lengths, or of sheets sizes; by default that of training.

    Raises:
        InputError: for anything else, and for larger ones than fit anyone's memory.
    """
    if not config.is_sheet:
        lengths = as_wholes("sizes", config.data.length if sizes is None else sizes)
        if max(lengths) > _LARGEST:
            raise InputError(f"sizes must be at most {_LARGEST:,}, got {max(lengths):,}")
        return lengths
    found = [config.size] if sizes is None else as_sizes("sizes", sizes)
    for size in found:
        if size.cells > _LARGEST:
            raise InputError(f"a sheet has at most {_LARGEST:,} cells; {size} has {size.cells:,}")
    return found
