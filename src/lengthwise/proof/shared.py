"""A proof on several processes of this machine: each checks some contexts, one puts together what is found.

What is found does not depend on how many they are: every context is checked in the same forward pass as
alone, and findings are put together in the order of the contexts.
"""

from __future__ import annotations

import base64
import itertools
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lengthwise.locality import Batch, Contexts
from lengthwise.locality.sheets import Sights
from lengthwise.proof.checker import Checker, Progress
from lengthwise.proof.scope import receptive_cone
from lengthwise.proof.sheets import CHUNK, Checked, check_some
from lengthwise.runs.elsewhere import computing_with, from_values, to_values
from lengthwise.runs.run import Run
from lengthwise.workers import Workers

# Contexts of one share, at least: whole batches.
SHARE = 1 << 15


def shares_of(contexts: Contexts, done: int, least: int) -> Iterator[tuple[int, list[Batch]]]:
    """The batches after the first `done`, so many that they have at least so many contexts together; each
    time with how many batches there are up to there."""
    some: list[Batch] = []
    number = done
    for number, batch in enumerate(contexts, start=1):
        if number <= done:
            continue
        some.append(batch)
        if sum(len(one.operands) for one in some) >= least:
            yield number, some
            some = []
    if some:
        yield number, some


def check_shared(run: Run, share: bool, workers: int, done: int, checker: Checker) -> Iterator[int]:
    """Check all batches after the first `done` on worker processes; what they find goes into the checker.

    Args:
        run, share: as of `Checker`.
        workers: processes.
        done: batches that the checker has seen.
        checker: of this process.

    Yields:
        How many batches the checker has seen, after each share.
    """
    about = {"share": share, "done": done, "least": SHARE}
    over = False
    numbers = itertools.takewhile(lambda number: not over, itertools.count())
    here, values = _finder(run, **about), {"run": to_values(run), **about}
    with computing_with(1), Workers(workers, here, "lengthwise.proof.shared:begin", values) as pool:
        for answer in pool.answers(numbers):
            if answer is None:
                over = True
            else:
                checker.add(answer["found"])
                yield answer["batches"]


def begin(values: dict[str, Any]) -> Callable[[int], dict[str, Any] | None]:
    """Another process's part of `check_shared`."""
    return _finder(from_values(values.pop("run")), **values)


def _finder(run: Run, share: bool, done: int, least: int) -> Callable[[int], dict[str, Any] | None]:
    """What finds all that there is in a share, by its number; None past the last."""
    checker = Checker(run, share=share)
    nothing = checker.state()
    cone = receptive_cone(run.config, run.bias)

    def restart() -> Iterator[tuple[int, tuple[int, list[Batch]]]]:
        return enumerate(shares_of(Contexts(run.task, cone), done, least))

    coming, at = restart(), -1

    def find(number: int) -> dict[str, Any] | None:
        nonlocal coming, at
        if number <= at:  # that of a worker which died
            coming, at = restart(), -1
        for at, (batches, some) in coming:
            if at == number:
                checker.restore(nothing)
                for batch in some:
                    checker.check(batch)
                return {"batches": batches, "found": checker.state()}
        return None

    return find


def check_sights_shared(
    run: Run,
    sights: Sights,
    share: bool,
    workers: int,
    on_progress: Progress | None = None,
) -> Checked:
    """As `check_sights`, on several processes: the others read the sights from files."""
    with tempfile.TemporaryDirectory(prefix="lengthwise-") as folder:
        np.save(Path(folder) / "tokens.npy", sights.tokens)
        np.save(Path(folder) / "wanted.npy", sights.wanted)
        values = {"run": to_values(run), "share": share, "folder": folder}
        values["tracks"] = list(sights.tracks)
        here = partial(_find_sights, run, sights, share)
        begun = "lengthwise.proof.shared:begin_sheet"
        with computing_with(1), Workers(workers, here, begun, values) as pool:
            answers = pool.answers(range(0, len(sights), CHUNK))
            return Checked.joined(map(_checked, answers), len(sights), on_progress)


def _checked(answer: dict[str, Any]) -> Checked:
    """What another process has found in a chunk of sights."""
    margins, given = (
        torch.from_numpy(np.frombuffer(base64.b64decode(answer[name]), kind).copy())
        for name, kind in (("margins", np.float32), ("given", np.int64))
    )
    return Checked(margins, given, answer["rounding"])


def begin_sheet(values: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    """Another process's part of `check_sights_shared`."""
    run, folder = from_values(values["run"]), Path(values["folder"])
    tokens, wanted = (
        np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("tokens", "wanted")
    )
    sights = Sights(run.task, tuple(values["tracks"]), tokens, wanted, {})
    return partial(_find_sights, run, sights, values["share"])


def _find_sights(run: Run, sights: Sights, share: bool, first: int) -> dict[str, Any]:
    """What is found in a chunk of sights, by the number of the first."""
    checked = check_some(run, sights, first, share)
    texts = {
        name: base64.b64encode(tensor.numpy().tobytes()).decode()
        for name, tensor in (("margins", checked.margins), ("given", checked.given))
    }
    return {**texts, "rounding": checked.rounding}
