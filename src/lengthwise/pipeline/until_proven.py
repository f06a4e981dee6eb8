"""Training until the proof finds nothing wrong: what it finds is drilled, and all is trained anew."""

from __future__ import annotations

from pathlib import Path

from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.pipeline.outcome import Proof
from lengthwise.pipeline.stages import Clock, Observer
from lengthwise.proof import (
    Certificate,
    Counterexample,
    NotApplicable,
    NotApplicableError,
    receptive_cone,
)
from lengthwise.proof import prove as prove_run
from lengthwise.runs.folder import CERTIFICATE, CONFIG, PROGRESS
from lengthwise.runs.parts import fitted, make_bias
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config
from lengthwise.training.resuming import changed, reopen


class NotProvenError(RuntimeError):
    """A training ended, but its model could not be proven; the run is kept."""

    def __init__(self, run: Run, proof: Counterexample) -> None:
        super().__init__(str(proof))
        self.run, self.proof = run, proof


def train_until_proven(
    config: Config,
    path: Path,
    *,
    bias: CalibratedBias | MatrixBias | None = None,
    resume: bool = False,
    force: bool = False,
    observer: Observer | None = None,
) -> tuple[Run, Proof]:
    """Train a model in a run folder until it is proven right at every length.

    As `train_run`; then as the pipeline does with `prove`: where the proof finds failing contexts, another
    model is trained from nothing with those drilled, until that makes no progress (`prove_and_drill`).

    Returns:
        The run, and a certificate (also beside the weights), a counterexample, or why neither.

    Raises:
        InputError, NotInterpolatedError: as `train_run`.
        NotApplicableError: before any training, for a model that no proof could speak about.
    """
    bias = fitted(bias, config)
    begun = resume and (path / CONFIG).exists()
    if begun:
        opened = Run.open(path)
        config = with_drill(config, (*config.data.drill, *opened.config.data.drill))
        going_on = reopen(path, config, bias)
        bias = bias or (opened.bias if isinstance(opened.bias, CalibratedBias) else None)
        receptive_cone(going_on.config, going_on.bias)
    else:
        receptive_cone(config, bias or make_bias(config))
    clock = Clock(observer)
    run = clock.train("retrain", config, path, bias=bias, resume=resume, force=force)
    return prove_and_drill(run, bias, clock)


def prove_and_drill(
    run: Run, bias: CalibratedBias | MatrixBias | None, clock: Clock, workers: int = 1
) -> tuple[Run, Proof]:
    """Prove the run; where the proof finds failing contexts, train on them and prove again.

    A new model is trained from nothing on the problems of before, with those that failed drilled besides.
    It ends when no progress is made: `calibration.attempts` counts the trainings from the last on that left
    fewer contexts failing than any before it.
    """
    attempts = run.config.calibration.attempts
    least, left = None, attempts - 1
    while True:
        try:
            with clock.stage("prove", run.config):
                proof = prove_run(
                    run,
                    workers=workers,
                    progress=run.path / PROGRESS,
                    on_progress=clock.observer.checked,
                )
        except NotApplicableError as error:
            return run, NotApplicable(str(error))
        if isinstance(proof, Certificate):
            proof.save(run.path / CERTIFICATE)
            return run, proof
        left -= least is not None
        if least is None or proof.failing < least:
            least, left = proof.failing, attempts - 1
        if not proof.drill or left <= 0:
            return run, proof
        clock.observer.noted(
            f"{proof.failing:,} of {proof.contexts:,} local contexts fail: another training, with "
            f"{len(proof.drill)} problems drilled"
        )
        retraining = with_drill(run.config, (*run.config.data.drill, *proof.drill))
        run = clock.train("retrain", retraining, run.path, bias=bias, force=True)


def with_drill(config: Config, drill: tuple[str, ...]) -> Config:
    """The settings with these problems drilled, each once."""
    return changed(config, "data", drill=tuple(dict.fromkeys(drill)))
