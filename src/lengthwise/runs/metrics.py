"""What a training writes down while it runs: the rows of metrics.jsonl."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.files import from_row
from lengthwise.runs.folder import METRICS
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError


@dataclass(frozen=True)
class Metrics:
    """One row of metrics.jsonl.

    Attributes:
        step: optimizer steps done.
        loss: mean cross-entropy of the training batches since the last row, nats per symbol.
        validation_loss, worst_loss: mean and largest loss of a symbol on the validation problems.
        exact_match: share of validation problems answered right from start to end.
        learning_rate: of the last step.
        seconds: of training so far, interruptions left out.
        tokens_per_second: target tokens trained on, since the last row.
        phase: `stable`, `cooldown`, or `done`.
    """

    step: int
    loss: float
    validation_loss: float
    worst_loss: float
    exact_match: float
    learning_rate: float
    seconds: float
    tokens_per_second: float
    phase: str


def read_metrics(run: Run) -> list[Metrics]:
    """The rows of a run's training.

    Raises:
        InputError: when metrics.jsonl holds something else.
    """
    try:
        return [from_row(Metrics, row) for row in run.metrics()]
    except (TypeError, ValueError) as error:
        raise InputError(f"{run.path / METRICS} does not hold metrics: {error}") from error
