"""The stages of the method: timed, and told of to whoever watches."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lengthwise.bias import CalibratedBias
from lengthwise.evaluation.curve import Score
from lengthwise.runs.metrics import Metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config
from lengthwise.training.trainer import train_run

Stage = Literal["train", "calibrate", "retrain", "prove", "evaluate"]


class Observer:
    """What the pipeline tells while it works; here every method does nothing."""

    def begin(self, stage: Stage, config: Config) -> None: ...
    def trained(self, stage: Stage, metrics: Metrics) -> None: ...
    def calibrated(self, bias: CalibratedBias, attempt: int) -> None: ...
    def noted(self, what: str) -> None: ...
    def checked(self, contexts: int, total: int) -> None: ...
    def scored(self, score: Score) -> None: ...
    def end(self, stage: Stage, seconds: float) -> None: ...


class Clock:
    """Times the stages and tells the observer, where there is one, when they begin and end."""

    def __init__(self, observer: Observer | None = None) -> None:
        self.observer = observer or Observer()
        self.seconds: dict[str, float] = {}

    def train(self, stage: Stage, config: Config, path: Path, **options: Any) -> Run:
        """Train a run as a stage; `options` are those of `train_run`."""
        with self.stage(stage, config):
            return train_run(
                config,
                path,
                on_progress=lambda metrics: self.observer.trained(stage, metrics),
                **options,
            )

    @contextlib.contextmanager
    def stage(self, stage: Stage, config: Config) -> Iterator[None]:
        self.observer.begin(stage, config)
        began = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - began
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        self.observer.end(stage, spent)
