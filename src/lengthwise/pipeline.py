"""The whole method: train, capture, calibrate, retrain, evaluate."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.calibration import Maps, calibrate, capture, kept_maps, suffices
from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.files import write_bytes
from lengthwise.problems.sizes import Size
from lengthwise.proof import (
    Certificate,
    Counterexample,
    NotApplicable,
    NotApplicableError,
    receptive_cone,
)
from lengthwise.proof import prove as prove_run
from lengthwise.runs.folder import (
    BIAS,
    CALIBRATED,
    CERTIFICATE,
    CONFIG,
    MAPS,
    PROGRESS,
    VANILLA,
    check_folder,
    locked,
    prepare,
    set_aside,
)
from lengthwise.runs.metrics import Metrics
from lengthwise.runs.parts import fitted, make_bias
from lengthwise.runs.run import LONGEST, Run
from lengthwise.settings.config import Config, InputError
from lengthwise.tasks.own import lost_digits
from lengthwise.training.resuming import changed, continued, reopen
from lengthwise.training.trainer import NotInterpolatedError, check_training, train_run

Proof = Certificate | Counterexample | NotApplicable
# The settings of a calibration that are arguments of `calibrate`.
SELECTION = {"policy", "kappa_cross", "kappa_self", "lines"}

Stage = Literal["train", "calibrate", "retrain", "prove", "evaluate"]


class Observer:
    """What the pipeline tells while it works; here every method does nothing."""

    def begin(self, stage: Stage, config: Config) -> None: ...
    def trained(self, stage: Stage, metrics: Metrics) -> None: ...
    def calibrated(self, bias: CalibratedBias, attempt: int) -> None: ...
    def checked(self, contexts: int, total: int) -> None: ...
    def scored(self, score: Score) -> None: ...
    def end(self, stage: Stage, seconds: float) -> None: ...


class Silent(Observer):
    """An observer that says nothing."""


@dataclass(frozen=True)
class Outcome:
    """What the pipeline made.

    Attributes:
        path: the folder that holds it all.
        vanilla, calibrated: the two runs.
        maps: the vanilla model's attention.
        bias: the calibrated bias.
        curve: exact match of both.
        proof: a certificate, a counterexample, or why neither; None where none was asked for.
        seconds: of each stage, in this call (a resumed stage took longer in all).
    """

    path: Path
    vanilla: Run
    calibrated: Run
    maps: Maps
    bias: CalibratedBias
    curve: LengthCurve
    proof: Proof | None
    seconds: dict[str, float]

    def __repr__(self) -> str:
        proven = "proven" if self.proof is not None and self.proof.proven else "not proven"
        return f"Outcome({str(self.path)!r}: {self.calibrated.config.task}, {proven})"

    @property
    def right(self) -> bool:
        """Whether the calibrated model is proven, or no proof speaks about it and it made no mistake."""
        if isinstance(self.proof, Counterexample):
            return False
        return (self.proof is not None and self.proof.proven) or not self._mistakes

    @property
    def _measured(self) -> list[Score]:
        return [score for score in self.curve if score.model == self.calibrated.fingerprint]

    @property
    def _mistakes(self) -> int:
        return sum(score.n - score.correct for score in self._measured)

    @property
    def verdict(self) -> str:
        """What may be said of the calibrated model, in a sentence."""
        n = sum(score.n for score in self._measured)
        on = f"{n:,} problems of up to {max(self._measured, key=lambda s: s.extent).size} digits"
        seen = (
            f"it is wrong on {self._mistakes:,} of {on}"
            if self._mistakes
            else f"it is right on all {on}"
        )
        if isinstance(self.proof, Certificate):
            return f"Proven: {self.proof.claim}; measured, {seen}."
        if isinstance(self.proof, Counterexample):
            if not self.proof.problem:
                return (
                    f"Not proven: no problem is known that the model gets wrong, but "
                    f"{self.proof.failing:,} of {self.proof.contexts:,} local contexts fail; measured, "
                    f"{seen}."
                )
            how = "is wrong on" if self.proof.wrong else "is not sure of"
            return f"Not proven: the model {how} {self.proof.problem}; measured, {seen}."
        why = "no proof was asked for" if self.proof is None else self.proof.reason
        return f"Not proven, but measured: {seen} ({why})."


def run_abc(
    config: Config,
    path: Path,
    *,
    lengths: Iterable[int] | None = None,
    sizes: Iterable[Size] | None = None,
    prove: bool = True,
    resume: bool = False,
    force: bool = False,
    workers: int = 1,
    observer: Observer | None = None,
) -> Outcome:
    """Attention Bias Calibration (paper, section 5) from nothing to a measured model.

    The vanilla model is trained in `path/vanilla`, the one with the calibrated bias in `path/calibrated`.
    If the retrained model does not interpolate, its lines were too few: calibration adds one more and
    tries again, up to `calibration.attempts` times; or, where they tell every symbol, the training goes on
    for as many steps again. Unless `prove` is false, problems that the proof finds the model to get wrong
    are drilled in another retraining, and so on, up to as many times.

    With `resume` what is there goes on, under the settings of before where none are set now; after another
    calibration the model that was calibrated otherwise is set aside, as `path/calibrated-1`.

    Workers are processes of this machine that share the proof and the evaluation.

    Of sheets `sizes` are evaluated, by default those of the settings; else `lengths`.

    Raises:
        InputError: when the folder may not be written, or the settings can't be trained with; nothing is
            written then.
        NotInterpolatedError: when a training does not meet its criterion.
        NoLinesError: when calibration finds no line.
    """
    check_local(config)
    clock = Clock(observer or Silent())
    check_folder(path, resume=resume, force=force, pipeline=True)
    lengths = None if lengths is None else list(lengths)
    sizes = None if sizes is None else list(sizes)
    if not config.is_sheet and max(lengths or config.evaluation.lengths) > LONGEST:
        raise InputError(
            f"lengths go up to {LONGEST}, got {max(lengths or config.evaluation.lengths)}"
        )
    if not (resume and (path / VANILLA / CONFIG).exists()):
        for each in (config, config.for_retraining()):
            check_training(each, path)
    with locked(path), _unchanged_where_refused(path / VANILLA / CONFIG, resume):
        prepare(path, resume=resume, force=force, pipeline=True)
        vanilla = clock.train("train", config, path / VANILLA, resume=resume)
        config = vanilla.config  # where it was begun before, changed by what is set now
        lengths = config.evaluation.lengths if lengths is None else lengths
        maps, bias, calibrated = calibrate_and_retrain(
            config, path / CALIBRATED, vanilla, resume=resume, clock=clock
        )
        proof = None
        if prove:
            calibrated, proof = _until_proven(calibrated, bias, clock, workers)
        curve = LengthCurve([])
        with clock.stage("evaluate", config):
            for run in (vanilla, calibrated):
                # Without lines there is a length past which a model can't be asked.
                within = [length for length in lengths if length <= run.longest]
                if config.is_sheet:
                    within = [
                        size for size in sizes or config.sizes if size.cells <= run.most_cells
                    ]
                if within:
                    curve += measure(
                        run,
                        within,
                        suites=config.evaluation.suites,
                        workers=workers,
                        on_progress=clock.observer.scored,
                        keep=lambda measured: measured.add_to(path),
                    )
                    curve.add_to(path)
    return Outcome(path, vanilla, calibrated, maps, bias, curve, proof, clock.seconds)


@contextlib.contextmanager
def _unchanged_where_refused(file: Path, resume: bool) -> Iterator[None]:
    """Put the settings of a begun run back where those that are set now are refused later on."""
    before = file.read_bytes() if resume and file.exists() else None
    try:
        yield
    except InputError:
        if before is not None:
            write_bytes(file, before)
        raise


def check_local(config: Config) -> None:
    """Refuse a task that the method can't serve.

    Raises:
        InputError: for it.
    """
    if config.make_task().writes is not None:
        raise InputError(
            f"{config.task} is not local: its answer depends on all of the problem, so there are no lines "
            f"to find; `lengthwise train {config.task}` trains a model without"
        )
    lost = lost_digits(config.make_task())
    if lost is not None:
        raise InputError(lost)


def calibrate_and_retrain(
    config: Config, folder: Path, vanilla: Run, *, resume: bool = False, clock: Clock | None = None
) -> tuple[Maps, CalibratedBias, Run]:
    """Turn what a vanilla model attends to into a bias, and train a fresh model with it.

    Args:
        config: the settings of the vanilla model; its `retraining` part makes those of the other.
        folder: of the other model.
        vanilla: the vanilla model.
        resume: go on with what the folder holds.
        clock: times the stages and tells of them.

    Raises:
        NotInterpolatedError: when no attempt meets its criterion.
        NoLinesError: when calibration finds no line.
    """
    clock, retraining = clock or Clock(Silent()), config.for_retraining()
    if resume and (folder / CONFIG).exists():
        retraining = _with_drill(retraining, Run.open(folder).config.data.drill)
    with clock.stage("calibrate", config):
        settings = config.calibration
        maps = kept_maps(vanilla) if resume else None
        # Of one row, half of them carry chains.
        count = settings.problems if config.is_sheet else 2 * ((settings.problems + 1) // 2)
        if maps is None or maps.problems != count:
            maps = capture(vanilla)
            maps.save(vanilla.path / MAPS)
        attempts = settings.attempts if settings.policy == "auto" else 1
        chosen = settings.model_dump(include=SELECTION)
        biases = [calibrate(maps, **chosen, extra=attempt) for attempt in range(attempts)]
    begun = CalibratedBias.load(folder / BIAS) if resume and (folder / CONFIG).exists() else None
    if begun in biases:
        continued(Run.open(folder).config, retraining, folder, retraining=True)
    elif begun is not None:
        check_training(retraining, folder, biases[0])
        set_aside(folder)
    first = next((i for i, bias in enumerate(biases) if bias == begun), 0)
    tries = [(attempt, biases[attempt], 1) for attempt in range(first, attempts)]
    if suffices(maps, biases[first]):
        # Lines that tell every symbol are not too few: what a model lacks then is steps.
        tries = [(first, biases[first], times) for times in range(1, attempts + 1)]
    for number, (attempt, bias, times) in enumerate(tries, start=1):
        if times == 1:
            clock.observer.calibrated(bias, attempt)
        steps, same = times * retraining.training.max_steps, bias == begun
        longer = retraining if times == 1 else changed(retraining, "training", max_steps=steps)
        try:
            run = clock.train("retrain", longer, folder, bias=bias, resume=same, force=not same)
        except NotInterpolatedError:
            if number == len(tries):
                raise
            begun = bias
            continue
        return maps, bias, run
    raise AssertionError("the last attempt returns or raises")


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
    model is trained from nothing with those drilled, up to `calibration.attempts` trainings in all.

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
        config = _with_drill(config, (*config.data.drill, *opened.config.data.drill))
        going_on = reopen(path, config, bias)
        bias = bias or (opened.bias if isinstance(opened.bias, CalibratedBias) else None)
        receptive_cone(going_on.config, going_on.bias)
    else:
        receptive_cone(config, bias or make_bias(config))
    clock = Clock(observer or Silent())
    run = clock.train("retrain", config, path, bias=bias, resume=resume, force=force)
    return _until_proven(run, bias, clock)


def _until_proven(
    run: Run, bias: CalibratedBias | MatrixBias | None, clock: Clock, workers: int = 1
) -> tuple[Run, Proof]:
    """Prove the run; where the proof finds failing contexts, train on them and prove again.

    A new model is trained from nothing on the problems of before, with those that failed drilled besides,
    up to `calibration.attempts` times in all.
    """
    attempts = run.config.calibration.attempts
    for attempt in range(attempts):
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
        if not proof.drill or attempt == attempts - 1:
            break
        retraining = _with_drill(run.config, (*run.config.data.drill, *proof.drill))
        run = clock.train("retrain", retraining, run.path, bias=bias, force=True)
    return run, proof


def _with_drill(config: Config, drill: tuple[str, ...]) -> Config:
    return changed(config, "data", drill=tuple(dict.fromkeys(drill)))


class Clock:
    """Times the stages and tells the observer when they begin and end."""

    def __init__(self, observer: Observer) -> None:
        self.observer = observer
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
