"""What is tried again where a step of the method fails.

Another vanilla model, a line more, or more steps; what a proof finds wrong is drilled in until_proven.py.
"""

from __future__ import annotations

from pathlib import Path

from lengthwise.bias import CalibratedBias
from lengthwise.calibration import (
    Maps,
    NoLinesError,
    calibrate,
    capture,
    direct,
    kept_maps,
    suffices,
    too_many,
)
from lengthwise.calibration.account import unusual
from lengthwise.pipeline.stages import Clock
from lengthwise.pipeline.until_proven import with_drill
from lengthwise.problems.sampling import generator
from lengthwise.runs.folder import BIAS, CALIBRATED, CONFIG, MAPS, VANILLA, set_aside
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, overlaid
from lengthwise.tasks.own import has_rule
from lengthwise.training.resuming import changed, continued
from lengthwise.training.trainer import NotInterpolatedError, check_training

# The settings of a calibration that are arguments of `calibrate`.
SELECTION = {"policy", "kappa_cross", "kappa_self", "lines"}


# Lines that tell every symbol, but by a detour, are known by a training in which fewer problems than these
# were ever right (docs/log.md, 2026-11-27, "lines that tell all and teach nothing").
_LEARNED = 0.9


class _HiddenLinesError(NoLinesError):
    """What a vanilla model shows of its lines does not tell every symbol, or can't be learned or proven."""


def train_and_calibrate(
    config: Config, path: Path, clock: Clock, *, resume: bool = False, prove: bool = True
) -> tuple[Run, Maps, CalibratedBias, Run]:
    """A vanilla model, in `path/vanilla`; its lines; and a fresh model with them, in `path/calibrated`.

    Of a task of one row with a rule it is known whether lines tell every symbol, and that some do. Where
    those that a vanilla model shows don't, no training can make up for it: another vanilla model is
    trained, from another seed. So it is where one does not interpolate, where fewer than `_LEARNED` of the
    problems were ever right with its lines (both unless such steps were set), and, if the model is to be
    proven, where its lines have too many contexts. The one before is set aside, as
    `path/vanilla-1`; there are `calibration.attempts` of them at most.

    Raises:
        NotInterpolatedError: when the last vanilla model, or its retraining, does not meet its criterion.
        NoLinesError: when calibration finds no line in the last.
    """
    steps_set = "max_steps" in config.training.model_fields_set
    retraining_set = "max_steps" in config.retraining.model_fields_set
    number, seed = 0, config.seed
    while resume and (path / f"{VANILLA}-{number + 1}" / CONFIG).exists():
        number += 1
    if number:
        first = Run.open(path / f"{VANILLA}-1").config
        seed = first.seed
        if not (path / VANILLA / CONFIG).exists():  # it ended between two of them
            config = overlaid(first, config)
        if "seed" in config.model_fields_set and config.seed == seed:
            config = config.model_copy(update={"seed": _seed(seed, number)})
    while True:
        try:
            vanilla = clock.train("train", config, path / VANILLA, resume=resume)
            config = vanilla.config  # where it was begun before, changed by what is set now
            begun = resume and (path / CALIBRATED / CONFIG).exists()
            another = _another_may_help(config, number)
            made = calibrate_and_retrain(
                config,
                path / CALIBRATED,
                vanilla,
                resume=resume,
                clock=clock,
                settle=begun or not another,
                another=another,
                stuck=not retraining_set,
                prove=prove,
            )
            return vanilla, *made
        except _HiddenLinesError as error:
            why = str(error)
        except NotInterpolatedError as error:
            config = error.run.config
            is_vanilla = error.run.path.name == VANILLA
            if steps_set or not is_vanilla or not _another_may_help(config, number):
                raise
            why = f"does not interpolate in {error.last.step:,} steps"
        seed = seed if number else config.seed
        number += 1
        clock.observer.noted(
            f"The vanilla model of seed {config.seed} {why}: another is trained, of seed "
            f"{_seed(seed, number)} ({clock.seconds['train']:.0f} s so far)"
        )
        set_aside(path / VANILLA)
        config = config.model_copy(update={"seed": _seed(seed, number)})


def _another_may_help(config: Config, number: int) -> bool:
    """Whether to train a vanilla model after so many others and one; only what is local has lines."""
    known = not config.is_sheet and has_rule(config.make_task())
    return (
        known and config.calibration.policy == "auto" and number + 1 < config.calibration.attempts
    )


def _seed(seed: int, number: int) -> int:
    """The seed of the vanilla model after so many others."""
    return int(generator(seed, "vanilla", number).integers(2**31)) if number else seed


def calibrate_and_retrain(
    config: Config,
    folder: Path,
    vanilla: Run,
    *,
    resume: bool = False,
    clock: Clock | None = None,
    settle: bool = True,
    another: bool = False,
    stuck: bool = False,
    prove: bool = True,
) -> tuple[Maps, CalibratedBias, Run]:
    """Turn what a vanilla model attends to into a bias, and train a fresh model with it.

    Args:
        config: the settings of the vanilla model; its `retraining` part makes those of the other.
        folder: of the other model.
        vanilla: the vanilla model.
        resume: go on with what the folder holds.
        clock: times the stages and tells of them.
        settle: train with lines that leave a case open, too, or with which a proof would be too long, for
            there are no others.
        another: whether another vanilla model could show others.
        stuck: whether to look for others where fewer than `_LEARNED` of the problems were ever right: those
            of `direct`, or of another vanilla model.
        prove: whether the model is to be proven.

    If the retrained model does not interpolate, its lines were too few: one more is added and the training
    repeated, up to `calibration.attempts` times; or, where they tell every symbol, it goes on for as many
    steps again.

    Raises:
        NotInterpolatedError: when no attempt meets its criterion.
        NoLinesError: when calibration finds no line; where it should not `settle`, none that tell all.
    """
    clock, retraining = clock or Clock(), config.for_retraining()
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
        begun = (
            CalibratedBias.load(folder / BIAS) if resume and (folder / CONFIG).exists() else None
        )
        try:
            biases = [calibrate(maps, **chosen)]
        except NoLinesError as error:
            if settle:
                raise
            raise _HiddenLinesError("shows no lines that can be read along") from error
        enough = suffices(maps, biases[0])
        if not (settle or enough):
            raise _HiddenLinesError("shows lines that leave a case open")
        if not settle and prove and (contexts := too_many(maps, biases[0])):
            raise _HiddenLinesError(f"shows lines with {contexts:,} contexts, too many to prove")
        if not enough or begun not in (None, biases[0]):
            biases += [calibrate(maps, **chosen, extra=extra) for extra in range(1, attempts)]
    if enough and begun is not None and begun not in biases:
        before = Run.open(folder).config.calibration.model_dump(include=SELECTION)
        if before == chosen and begun == direct(maps):
            biases = [begun]  # it had come to that
    if begun in biases:
        continued(Run.open(folder).config, retraining, folder, retraining=True)
    elif begun is not None:
        check_training(retraining, folder, biases[0])
        set_aside(folder)
    first = next((i for i, bias in enumerate(biases) if bias == begun), 0)
    tries = [(attempt, bias, 1) for attempt, bias in enumerate(biases)][first:]
    sufficient = suffices(maps, biases[first])
    if sufficient:
        # Lines that tell every symbol are not too few: what a model lacks then is steps.
        tries = [(first, biases[first], times) for times in range(1, attempts + 1)]
    while True:
        attempt, bias, times = tries.pop(0)
        if times == 1:
            clock.observer.calibrated(bias, attempt)
            for found in unusual(maps, bias):
                clock.observer.noted(found)
        steps, same = times * retraining.training.max_steps, bias == begun
        longer = retraining if times == 1 else changed(retraining, "training", max_steps=steps)
        try:
            run = clock.train("retrain", longer, folder, bias=bias, resume=same, force=not same)
        except NotInterpolatedError as error:
            begun, best = bias, max(row.exact_match for row in read_metrics(error.run))
            if stuck and sufficient and best < _LEARNED:
                learned = f"tell every symbol, but at most {best:.0%} was learned with them"
                other = direct(maps) if settings.lines == "fewest" else None
                if other is not None and other != bias:
                    clock.observer.noted(
                        f"Its lines {learned}: others, that each query reads itself"
                    )
                    tries = [(0, other, times) for times in range(1, attempts + 1)]
                elif another:
                    set_aside(folder)
                    raise _HiddenLinesError(f"shows lines that {learned}") from error
            if not tries:
                raise
            continue
        return maps, bias, run
