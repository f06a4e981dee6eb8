"""What a training keeps on its way: nothing that is not finite, and of its models the last and the best."""

from __future__ import annotations

import re
from collections.abc import Iterable

import torch
from torch import Tensor

from lengthwise.runs.folder import CHECKPOINT, CHECKPOINTS, remove_run
from lengthwise.runs.metrics import Metrics
from lengthwise.runs.run import Run

_KEPT = re.compile(r"step-(\d+)")


class Finite:
    """Counts the steps since the last row of metrics whose sum of losses is finite, without waiting for it.

    A sum that is not finite never is again, so the count tells the first such step.

    Args:
        device: where the losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self._count = torch.zeros((), dtype=torch.int64, device=device)

    def restart(self, count: int = 0) -> None:
        """Begin anew, with so many steps that were finite."""
        self._count.fill_(count)

    def add(self, loss_sum: Tensor) -> None:
        """Take note of a step."""
        self._count += torch.isfinite(loss_sum)

    def check(
        self, run: Run, step: int, count: int, weights: Tensor, losses: Iterable[float]
    ) -> None:
        """Stop a training whose numbers have left the finite.

        Args:
            run: the run, whose last checkpoint is named.
            step, count: steps done, and those among them since the last row of metrics.
            weights: of the model.
            losses: what was measured of it.

        Raises:
            FloatingPointError: with the step, what is kept, and what to try.
        """
        first, path = int(self._count), run.path / CHECKPOINT
        measured = first == count and all(loss < float("inf") for loss in losses)
        if measured and bool(torch.isfinite(weights).all()):
            return
        where = f"at step {step - count + first + 1}" if first < count else f"after step {step}"
        kept = f"{path} is of before that" if path.exists() else "nothing was kept"
        raise FloatingPointError(
            f"the loss is not finite {where}; {kept}. From there the same would happen again: lower "
            f"training.learning_rate, or raise training.warmup_steps, and train with --force or in another "
            f"--out"
        )


def thin_out(run: Run, rows: list[Metrics], most: int) -> None:
    """Remove kept models but the last so many, and the best: that with the most exact matches when it was
    kept, of several that with the least loss.

    Args:
        rows: of its training.
        most: of the last ones; 0 keeps all.
    """
    folder = run.path / CHECKPOINTS
    if not most or not folder.is_dir():
        return
    found = {
        int(match[1]): entry
        for entry in folder.iterdir()
        if (match := _KEPT.fullmatch(entry.name)) and not entry.is_symlink()
    }
    measured = {row.step: (row.exact_match, -row.validation_loss) for row in rows}
    best = max((step for step in found if step in measured), key=measured.__getitem__, default=None)
    for step in sorted(found)[:-most]:
        if step != best:
            remove_run(found[step])
