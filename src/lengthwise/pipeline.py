"""The whole method: train, capture, calibrate, retrain, evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lengthwise.attempts import (
    SELECTION,
    Proof,
    calibrate_and_retrain,
    train_and_calibrate,
    until_proven,
    with_drill,
)
from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.calibration import Maps
from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.files import write_bytes
from lengthwise.problems.sizes import Size
from lengthwise.proof import Certificate, Counterexample, receptive_cone
from lengthwise.runs.folder import CONFIG, VANILLA, check_folder, locked, prepare
from lengthwise.runs.parts import fitted, make_bias
from lengthwise.runs.run import LONGEST, Run
from lengthwise.settings.config import Config, InputError
from lengthwise.stages import Clock, Observer, Silent, Stage
from lengthwise.tasks.own import lost_digits
from lengthwise.training.resuming import reopen
from lengthwise.training.trainer import check_training


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
    Unless `prove` is false, problems that the proof finds the model to get wrong are drilled in another
    retraining, and so on. What is tried again where a step fails, and how often: `lengthwise.attempts`.

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
        vanilla, maps, bias, calibrated = train_and_calibrate(
            config, path, clock, resume=resume, prove=prove
        )
        config = vanilla.config
        lengths = config.evaluation.lengths if lengths is None else lengths
        proof = None
        if prove:
            calibrated, proof = until_proven(calibrated, bias, clock, workers)
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
    folder = file.parent.stat().st_ino if before is not None else 0
    try:
        yield
    except InputError:
        # Not into the folder of another model that was trained since.
        if before is not None and file.parent.exists() and file.parent.stat().st_ino == folder:
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
        config = with_drill(config, (*config.data.drill, *opened.config.data.drill))
        going_on = reopen(path, config, bias)
        bias = bias or (opened.bias if isinstance(opened.bias, CalibratedBias) else None)
        receptive_cone(going_on.config, going_on.bias)
    else:
        receptive_cone(config, bias or make_bias(config))
    clock = Clock(observer or Silent())
    run = clock.train("retrain", config, path, bias=bias, resume=resume, force=force)
    return until_proven(run, bias, clock)


__all__ = [
    "SELECTION",
    "Clock",
    "NotProvenError",
    "Observer",
    "Outcome",
    "Proof",
    "Silent",
    "Stage",
    "calibrate_and_retrain",
    "check_local",
    "run_abc",
    "train_until_proven",
]
