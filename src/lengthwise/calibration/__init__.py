"""Attention maps to a calibrated bias: pure functions from `AttentionMaps` to `CalibratedBias`.

Two policies: `auto` is ours (auto.py), `paper` is Algorithm 1 of the paper (paper.py).
"""

from __future__ import annotations

from typing import Literal

from lengthwise.bias import CalibratedBias
from lengthwise.calibration.auto import Lines, NoLinesError, choose, suffices
from lengthwise.calibration.evidence import Evidence, gather_evidence
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.calibration.paper import KAPPA_CROSS, KAPPA_SELF, drop_off

Policy = Literal["auto", "paper"]


def calibrate(
    maps: AttentionMaps,
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
    if policy == "paper":
        return drop_off(maps, {"cross": kappa_cross, "self": kappa_self})
    return choose(maps, lines, extra)


__all__ = [
    "KAPPA_CROSS",
    "KAPPA_SELF",
    "Evidence",
    "Lines",
    "NoLinesError",
    "Policy",
    "calibrate",
    "gather_evidence",
    "suffices",
]
