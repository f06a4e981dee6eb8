"""The whole method: train, capture, calibrate, retrain, evaluate."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from lengthwise.bias import CalibratedBias
from lengthwise.calibration import Maps, calibrate, capture, kept_maps, suffices
from lengthwise.evaluation import measure
from lengthwise.evaluation.curve import LengthCurve
from lengthwise.files import write_bytes
from lengthwise.pipeline.outcome import Outcome
from lengthwise.pipeline.stages import Clock, Observer, Silent
from lengthwise.pipeline.until_proven import prove_and_drill, with_drill
from lengthwise.problems.sizes import Size
from lengthwise.runs.folder import (
    BIAS,
    CALIBRATED,
    CONFIG,
    MAPS,
    VANILLA,
    check_folder,
    locked,
    prepare,
    set_aside,
)
from lengthwise.runs.run import LONGEST, Run
from lengthwise.settings.config import Config, InputError
from lengthwise.tasks.own import lost_digits
from lengthwise.training.resuming import changed, continued
from lengthwise.training.trainer import NotInterpolatedError, check_training

# The settings of a calibration that are arguments of `calibrate`.
SELECTION = {"policy", "kappa_cross", "kappa_self", "lines"}


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
            calibrated, proof = prove_and_drill(calibrated, bias, clock, workers)
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
        retraining = with_drill(retraining, Run.open(folder).config.data.drill)
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
