"""The whole method: train, capture, calibrate, retrain, evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import write_bytes
from lengthwise.pipeline.attempts import train_and_calibrate
from lengthwise.pipeline.outcome import Outcome
from lengthwise.pipeline.stages import Clock, Observer
from lengthwise.pipeline.until_proven import prove_and_drill
from lengthwise.problems.sizes import Size
from lengthwise.runs.folder import CONFIG, VANILLA, check_folder, locked, prepare
from lengthwise.runs.run import LONGEST
from lengthwise.settings.config import Config, InputError
from lengthwise.tasks.own import lost_digits
from lengthwise.training.trainer import check_training


def run_abc(
    config: Config,
    path: Path,
    *,
    lengths: Iterable[int | Size] | None = None,
    prove: bool = True,
    resume: bool = False,
    force: bool = False,
    workers: int = 1,
    observer: Observer | None = None,
) -> Outcome:
    """Attention Bias Calibration (paper, section 5) from nothing to a measured model.

    The vanilla model is trained in `path/vanilla`, the one with the calibrated bias in `path/calibrated`.
    Unless `prove` is false, problems that the proof finds the model to get wrong are drilled in another
    retraining, and so on. What is tried again where a step fails, and how often: attempts.py.

    With `resume` what is there goes on, under the settings of before where none are set now; after another
    calibration the model that was calibrated otherwise is set aside, as `path/calibrated-1`.

    Workers are processes of this machine that share the proof and the evaluation.

    Lengths are evaluated, of sheets sizes; by default those of the settings.

    Raises:
        InputError: when the folder may not be written, or the settings can't be trained with; nothing is
            written then.
        NotInterpolatedError: when a training does not meet its criterion.
        NoLinesError: when calibration finds no line.
    """
    check_local(config)
    clock = Clock(observer)
    check_folder(path, resume=resume, force=force, pipeline=True)
    asked: list[Any] | None = None if lengths is None else list(lengths)
    if not config.is_sheet and (most := max(asked or config.asked)) > LONGEST:
        raise InputError(f"lengths go up to {LONGEST}, got {most}")
    if not (resume and (path / VANILLA / CONFIG).exists()):
        for each in (config, config.for_retraining()):
            check_training(each, path)
    with locked(path), _unchanged_where_refused(path / VANILLA / CONFIG, resume):
        prepare(path, resume=resume, force=force, pipeline=True)
        vanilla, maps, bias, calibrated = train_and_calibrate(
            config, path, clock, resume=resume, prove=prove
        )
        config = vanilla.config
        proof = None
        if prove:
            calibrated, proof = prove_and_drill(calibrated, bias, clock, workers)
        curve = LengthCurve([])
        with clock.stage("evaluate", config):
            for run in (vanilla, calibrated):
                # Without lines there is a length past which a model can't be asked.
                if within := run.within(config.asked if asked is None else asked):
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
    """Refuse a task that the method can't serve (`InputError`)."""
    if config.make_task().writes is not None:
        raise InputError(
            f"{config.task} is not local: its answer depends on all of the problem, so there are no lines "
            f"to find; `lengthwise train {config.task}` trains a model without"
        )
    lost = lost_digits(config.make_task())
    if lost is not None:
        raise InputError(lost)
