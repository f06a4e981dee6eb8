"""What people pass for a run, its attention maps or a bias: the thing itself, its folder, or its file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lengthwise.arguments import as_path, refuse
from lengthwise.bias import CalibratedBias, MatrixBias
from lengthwise.calibration import Maps, SheetMaps, capture, load_maps
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.pipeline.outcome import Outcome
from lengthwise.problems.sizes import Size
from lengthwise.runs.folder import CALIBRATED, CONFIG, VANILLA
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError
from lengthwise.settings.sections import CalibrationSettings

SomeSize = str | int | Size | tuple[int, int]
SomeSizes = SomeSize | Iterable[SomeSize]
SomeRun = Run | Outcome | Path | str


def as_sizes(name: str, given: SomeSizes) -> list[Size]:
    """One or several sizes of sheets: `"20x15"`, `(20, 15)`, or 20 for 20 x 20.

    Raises:
        InputError: for what is none.
    """
    wanted = "sizes such as '20x15', (20, 15) or ['20x20', '1000x3']"
    pair = isinstance(given, tuple) and len(given) == 2 and all(type(n) is int for n in given)
    many = [given] if pair or isinstance(given, str | int | Size) else given
    found = []
    try:
        for one in many:  # type: ignore[union-attr]
            text = "x".join(map(str, one)) if isinstance(one, tuple) else str(one)
            found.append(Size.parse(text))
    except (TypeError, ValueError):
        refuse(name, wanted, given)
    if not found:
        refuse(name, wanted, given)
    return found


def as_run(run: SomeRun, of_abc: str = CALIBRATED) -> Run:
    """A run, from itself or its folder; of what `abc` made the calibrated one, or the vanilla one."""
    if isinstance(run, Outcome):
        return getattr(run, of_abc)
    if isinstance(run, Run):
        return run
    if not isinstance(run, str | os.PathLike):
        refuse("run", "a run, or its folder, such as 'runs/addition'", run)
    path = as_path("run", run, "runs/addition")
    return Run.open(path / of_abc if (path / of_abc / CONFIG).exists() else path)


def as_maps(maps: Maps | SomeRun) -> tuple[Maps, CalibrationSettings]:
    """Attention maps, from themselves, their file, or a run, whose attention is captured.

    Returns:
        The maps, and how they are to become a bias, as far as nothing else is said: as the run's settings
        say, where there is a run.

    Raises:
        InputError: for anything else.
    """
    if isinstance(maps, AttentionMaps | SheetMaps):
        return maps, CalibrationSettings()
    if isinstance(maps, Outcome):
        return maps.maps, maps.vanilla.config.calibration
    if isinstance(maps, str | os.PathLike) and as_path("maps", maps, "maps.safetensors").is_file():
        return load_maps(maps), CalibrationSettings()
    if not isinstance(maps, str | os.PathLike | Run):
        refuse("maps", "what lw.capture returns, its file, or a run, such as 'runs/addition'", maps)
    run = as_run(maps, VANILLA)
    return capture(run), run.config.calibration


def as_bias(bias: object) -> CalibratedBias | MatrixBias | Path | None:
    """A bias, or the file of one; that of a run where a run is given, or its folder.

    Raises:
        InputError: for anything else, and for a run without such a bias.
    """
    if bias is None or isinstance(bias, CalibratedBias | MatrixBias):
        return bias
    if isinstance(bias, str | os.PathLike):
        path = as_path("bias", bias, "bias.jsonl")
        if not path.is_dir():
            return path
        bias = Run.open(path)
    if isinstance(bias, Run | Outcome):
        if isinstance(bias.bias, CalibratedBias | MatrixBias):
            return bias.bias
        raise InputError(
            f"bias takes a calibrated bias; {bias.path} has none; "
            f"lw.calibrate({str(bias.path)!r}) or `lengthwise calibrate {bias.path} --out FILE` finds one"
        )
    refuse("bias", "what lw.calibrate returns, its file, or a run that was trained with one", bias)
