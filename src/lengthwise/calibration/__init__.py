"""Attention maps to a calibrated bias: pure functions from `AttentionMaps` to `CalibratedBias`.

Two policies: `auto` is ours (auto.py), `paper` is Algorithm 1 of the paper (paper.py). Sheets have maps and
lines of their own kind (sheets.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from lengthwise.arguments import as_file
from lengthwise.bias import CalibratedBias
from lengthwise.calibration import auto
from lengthwise.calibration import maps as of_columns
from lengthwise.calibration.auto import Lines, NoLinesError, choose
from lengthwise.calibration.evidence import Evidence, gather_evidence
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.calibration.paper import KAPPA_CROSS, KAPPA_SELF, drop_off
from lengthwise.calibration.sheet_maps import SheetMaps
from lengthwise.calibration.sheets import calibrate_sheets, capture_sheets
from lengthwise.errors import InputError
from lengthwise.locality import NotApplicableError, cone_of_sheet
from lengthwise.locality.sheets import tell_apart
from lengthwise.runs.folder import MAPS, WEIGHTS
from lengthwise.runs.run import Run

Policy = Literal["auto", "paper"]
Maps = AttentionMaps | SheetMaps


def capture(run: Run) -> Maps:
    """A run's attention, and what its lines are worth: `capture` of maps.py, or of sheets.py.

    Raises:
        InputError: when no problem of the training length is trained on.
    """
    return capture_sheets(run) if run.config.is_sheet else of_columns.capture(run)


def load_maps(path: Path | str) -> Maps:
    """Read maps of either kind.

    Raises:
        InputError: when the file is missing or broken.
    """
    path = as_file("path", path, MAPS)
    return SheetMaps.load(path) if SheetMaps.holds(path) else AttentionMaps.load(path)


def kept_maps(run: Run) -> Maps | None:
    """The maps that lie beside a run's weights; None where none do, or those of another model.

    Raises:
        InputError: when the file is broken.
    """
    if not all((run.path / name).exists() for name in (MAPS, WEIGHTS)):
        return None
    maps = load_maps(run.path / MAPS)
    return maps if maps.model in ("", run.fingerprint) else None


def evidence_of(maps: Maps) -> list[Evidence]:
    """What spoke for each candidate line, the strongest first."""
    if isinstance(maps, SheetMaps):
        return [*maps.found, *maps.others]
    return gather_evidence(maps)


def suffices(maps: Maps, bias: CalibratedBias) -> bool:
    """Whether a query that reads these lines sees enough to know every symbol that it must write.

    Exactly, from the task's definition. Lines through whole matrices, which are those of the paper's
    policy, say nothing of columns: of them it is not known.
    """
    try:
        if isinstance(maps, SheetMaps):
            task = maps.format.task
            return tell_apart(task, cone_of_sheet(task, bias, maps.layers))
        return auto.contexts_of(maps, bias).suffice()
    except NotApplicableError:
        return False


def direct(maps: Maps) -> CalibratedBias | None:
    """Other lines, for a model that did not learn from those that `calibrate` chose: `choose_direct`.

    None where there are none, and of sheets.
    """
    return None if isinstance(maps, SheetMaps) else auto.choose_direct(maps)


def too_many(maps: Maps, bias: CalibratedBias) -> int:
    """How many contexts there are, at most, where that is more than a proof may have; else 0.

    Of tasks of one row; sheets are counted when they are proven.
    """
    if isinstance(maps, SheetMaps):
        return 0
    bound = auto.contexts_of(maps, bias).bound()
    return bound if bound > auto.BUDGET else 0


def calibrate(
    maps: Maps,
    *,
    policy: Policy = "auto",
    kappa_cross: float = KAPPA_CROSS,
    kappa_self: float = KAPPA_SELF,
    lines: Lines = "fewest",
    extra: int = 0,
) -> CalibratedBias:
    """Turn attention maps into a bias that is defined at every length.

    Args:
        maps: from `capture`.
        policy: `auto` or `paper`.
        kappa_cross, kappa_self: drop-off thresholds of the paper's policy.
        lines: `fewest` (`auto` only) drops the lines that pass but are to spare: those without which a row
            still sees enough to know every symbol that it must write, and sees less. Where all that pass
            don't suffice for that, the strongest joins them with which they do.
        extra: lines to select beyond those (`auto` only), for a retraining that found the lines too few;
            those that were to spare come first.

    Raises:
        NoLinesError: when `auto` finds no line at cross-attention.
    """
    if isinstance(maps, SheetMaps):
        if policy == "paper":
            raise InputError("the paper's policy reads whole matrices, which sheets have none of")
        return calibrate_sheets(maps, lines=lines, extra=extra)
    if policy == "paper":
        return drop_off(maps, {"cross": kappa_cross, "self": kappa_self})
    return choose(maps, lines, extra)


__all__ = [
    "KAPPA_CROSS",
    "KAPPA_SELF",
    "Evidence",
    "Lines",
    "Maps",
    "NoLinesError",
    "Policy",
    "SheetMaps",
    "calibrate",
    "capture",
    "evidence_of",
    "gather_evidence",
    "kept_maps",
    "load_maps",
    "suffices",
    "too_many",
]
