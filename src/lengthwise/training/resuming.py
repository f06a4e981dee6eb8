"""Going on with a training that was begun: with which settings, and whether anything is left to do."""

from __future__ import annotations

import re
from pathlib import Path

from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.errors import shorten
from lengthwise.runs.folder import (
    BIAS,
    CHECKPOINT,
    CONFIG,
    MATRICES_FILE,
    WEIGHTS,
    consists_of,
    save_config,
)
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.run import Run
from lengthwise.settings.config import RETRAINED, Config, InputError, flat_settings, overlaid

# What may differ when a training goes on: none of it changes the steps that are done, or the next one (by
# more than rounding).
_FREE = re.compile(
    r"(device|attention|decode|(evaluation|calibration|retraining)\..*|"
    r"training\.(accumulate|max_steps|checkpoint_every|keep_checkpoints(_every)?))"
)


def reopen(path: Path, config: Config, bias: CalibratedBias | MatrixBias | None) -> Run:
    """A run that was begun, with the settings with which it goes on: steps that are done stay done.

    Raises:
        InputError: for settings or a bias with which it can't.
    """
    run = Run.open(path)
    if bias is not None and run.bias != bias:
        has_one = isinstance(run.bias, CalibratedBias | MatrixBias)
        own = "with the bias in its own folder" if has_one else "without a calibrated bias"
        raise InputError(
            f"{path} was begun {own}; --resume can't go on with another: leave that out, or name another "
            f"folder with --out"
        )
    after = continued(run.config, config, path)
    rows = read_metrics(run)
    if rows and rows[-1].step > after.training.max_steps:
        # The settings in the folder must be able to have trained what is there.
        after = changed(after, "training", max_steps=rows[-1].step)
    return Run(path, after, run.bias)


def continued(before: Config, config: Config, path: Path, *, retraining: bool = False) -> Config:
    """The settings of a run, changed by those that are set now.

    Args:
        before, config: the settings of the run, and those of now.
        path: the folder of the run.
        retraining: they come of `Config.for_retraining`, so a person set them by their names there.

    Raises:
        InputError: when one of them would have changed what was trained so far.
    """
    after = overlaid(before, config)
    old, new = flat_settings(before), flat_settings(after)
    for key, value in old.items():
        if new.get(key) != value and not _FREE.fullmatch(key):
            name = RETRAINED.get(key, key) if retraining else key
            raise InputError(
                f"{path} was begun with {name}={shorten(str(value))}; --resume can't go on with "
                f"{name}={shorten(str(new.get(key)))}: leave that out, or name another folder with --out"
            )
    return after


def changed(config: Config, part: str, **values: object) -> Config:
    """The settings with other values in one part, which are not checked."""
    return config.model_copy(update={part: getattr(config, part).model_copy(update=values)})


def save_settings(run: Run) -> None:
    """Write the settings, where they are others than those in the folder."""
    if Run.open(run.path).config != run.config:
        parts = consists_of(run.path / CONFIG)
        if parts is None:  # version 0.1 did not say
            parts = [name for name in (BIAS, MATRICES_FILE) if (run.path / name).exists()]
        save_config(run.path, run.config, parts)


def is_finished(run: Run) -> bool:
    """Whether nothing is left to do: there is a model, and it met its criterion or had all its steps.

    Raises:
        InputError: when steps are left to do, and the folder lacks the checkpoint that they begin with.
    """
    if not (run.path / WEIGHTS).exists():
        return False
    rows, settings = read_metrics(run), run.config.training
    if not rows:
        return True
    asked_for_steps = settings.until == "max_steps"
    done = rows[-1].step >= settings.max_steps or (rows[-1].phase == "done" and not asked_for_steps)
    if not done and not (run.path / CHECKPOINT).exists():
        raise InputError(
            f"{run.path} lacks {CHECKPOINT}, without which no training goes on past step {rows[-1].step}; "
            f"copy it from where the run was made, or begin anew with another --out"
        )
    return done
