"""Sheets written in waves, by lookup, against one token after the other with a cache of keys and values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from lengthwise.bench.results import Bench, alternate, seconds
from lengthwise.bias import CalibratedBias, Line
from lengthwise.decoding.sheets import SightTable, decode_one_by_one, decode_sheets
from lengthwise.problems.sampling import generator
from lengthwise.problems.sheet_sampling import suite_sheets
from lengthwise.problems.sizes import Size
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.tasks.near import LAST
from lengthwise.training.resuming import changed
from lengthwise.training.trainer import train_run

# Steps after which a model ends its rows and sheets where it should, though not all digits are right.
_STEPS = 500


def sheet_bias(heads: int, layers: int) -> CalibratedBias:
    """The lines of multiplication, as calibration selects them."""
    lines = [Line(("a[c]", "b[r]")[head % 2], head) for head in range(heads)]
    above = "sheet[r-1,c+1].digit"
    lines += [Line(LAST if head else above, head, 0) for head in range(heads)]
    lines += [Line(LAST, head, layer) for layer in range(1, layers) for head in range(heads)]
    return CalibratedBias("multiplication", heads, lines)


def briefly_trained(folder: Path) -> Run:
    """A model of multiplication with these lines, trained for a moment."""
    config = make_config({"task": "multiplication"}).for_retraining()
    config = changed(config, "training", max_steps=_STEPS, until="max_steps")
    bias = sheet_bias(config.model.heads, config.model.layers)
    return train_run(config, folder, bias=bias)


def run(
    bench: Bench,
    *,
    sizes: Iterable[str] = ("20x20", "100x100"),
    cached_up_to: int = 10_000,
    model: Run | None = None,
) -> None:
    """Cells a second at each size, of one problem: from nothing, with the sights known, and with a cache.

    Args:
        sizes: of the problems.
        cached_up_to: cells of the largest sheet that is written with a cache, too; it is measured once.
        model: the run; by default one is trained for a moment, for what is measured is not whether it is
            right.
    """
    bench.say("training a multiplication for a moment")
    with tempfile.TemporaryDirectory() as folder:
        trained = model or briefly_trained(Path(folder) / "run")
        network, bias, task = trained.model, trained.bias, trained.task
    assert isinstance(bias, CalibratedBias)
    for text in sizes:
        size = Size.parse(text)
        bench.say(f"{text}, in waves")
        layout = trained.config.layout(size)
        rng = generator(0, "any")
        operands = suite_sheets(task, rng, 1, suite="uniform", size=size, split="any")
        known = SightTable(network, bias, task)
        written = decode_sheets(network, bias, layout, operands, table=known)
        problem = (network, bias, layout, operands)
        cells = size.cells
        note = f"one problem, {len(written.tokens(0)):,} tokens"
        works = [partial(decode_sheets, *problem), partial(decode_sheets, *problem, table=known)]
        fresh, again = alternate(works, bench.repeats)
        rate = bench.add(f"{text}, in waves", (cells / s for s in fresh), "cells/s", note)
        bench.add(f"{text}, in waves, sights known", (cells / s for s in again), "cells/s", note)
        if cells <= cached_up_to:
            bench.say(f"{text}, with a cache")
            spent = seconds(partial(decode_one_by_one, *problem))
            other = bench.add(f"{text}, with a cache", cells / spent, "cells/s", f"{note}, once")
            bench.add(f"{text}: ratio", rate / other, "x", "from nothing, to that with a cache")
