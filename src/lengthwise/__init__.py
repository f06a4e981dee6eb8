"""lengthwise: small transformers that compute correctly at every length.

Names are loaded on first use, so that `import lengthwise` (and `lengthwise --help`) costs nothing.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lengthwise.version import __version__

if TYPE_CHECKING:
    from lengthwise.api import abc, train
    from lengthwise.api.analysis import apply, calibrate, capture, evaluate, prove
    from lengthwise.bias import CalibratedBias
    from lengthwise.calibration.maps import AttentionMaps
    from lengthwise.evaluation.curve import LengthCurve
    from lengthwise.problems.format import Format
    from lengthwise.runs.run import Run
    from lengthwise.settings.config import Config, InputError

_HOMES = {
    "AttentionMaps": "calibration.maps",
    "CalibratedBias": "bias",
    "Config": "settings.config",
    "Format": "problems.format",
    "InputError": "settings.config",
    "LengthCurve": "evaluation.curve",
    "Run": "runs.run",
    "abc": "api",
    "apply": "api.analysis",
    "calibrate": "api.analysis",
    "capture": "api.analysis",
    "evaluate": "api.analysis",
    "prove": "api.analysis",
    "train": "api",
}

__all__ = [
    "AttentionMaps",
    "CalibratedBias",
    "Config",
    "Format",
    "InputError",
    "LengthCurve",
    "Run",
    "__version__",
    "abc",
    "apply",
    "calibrate",
    "capture",
    "evaluate",
    "prove",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lengthwise' has no attribute {name!r}")
    with warnings.catch_warnings():
        # A library below tells notebooks to install widgets, for bars that are never shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import_module("lengthwise.report.notebook")  # objects show themselves from now on
        return getattr(import_module(f"lengthwise.{_HOMES[name]}"), name)
