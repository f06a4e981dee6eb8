"""lengthwise: small transformers that compute correctly at every length.

Names are loaded on first use, so that `import lengthwise` (and `lengthwise --help`) costs nothing.
"""

import sys
import warnings
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import lengthwise.problems  # noqa: F401  # it is made callable below
from lengthwise.version import __version__

if TYPE_CHECKING:
    from lengthwise.api import abc, train
    from lengthwise.api.analysis import apply, calibrate, capture, evaluate, prove
    from lengthwise.api.problems import problems
    from lengthwise.api.sweeping import sweep
    from lengthwise.bias import CalibratedBias
    from lengthwise.calibration.maps import AttentionMaps
    from lengthwise.evaluation.curve import LengthCurve
    from lengthwise.methods import Bias, Method, Positions
    from lengthwise.problems.format import Format
    from lengthwise.runs.run import Run
    from lengthwise.settings.config import Config, InputError
    from lengthwise.settings.own_methods import use_method
    from lengthwise.tasks import Field, Segment, Transducer, Worksheet

_HOMES = {
    "api": ("abc", "train"),
    "api.analysis": ("apply", "calibrate", "capture", "evaluate", "prove"),
    "api.sweeping": ("sweep",),
    "bias": ("CalibratedBias",),
    "calibration.maps": ("AttentionMaps",),
    "evaluation.curve": ("LengthCurve",),
    "methods": ("Bias", "Method", "Positions"),
    "problems.format": ("Format",),
    "runs.run": ("Run",),
    "settings.config": ("Config", "InputError"),
    "settings.own_methods": ("use_method",),
    "tasks": ("Field", "Segment", "Transducer", "Worksheet"),
}

__all__ = [
    "AttentionMaps",
    "Bias",
    "CalibratedBias",
    "Config",
    "Field",
    "Format",
    "InputError",
    "LengthCurve",
    "Method",
    "Positions",
    "Run",
    "Segment",
    "Transducer",
    "Worksheet",
    "__version__",
    "abc",
    "apply",
    "calibrate",
    "capture",
    "evaluate",
    "problems",
    "prove",
    "sweep",
    "train",
    "use_method",
]


def __getattr__(name: str) -> Any:
    home = next((module for module, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module 'lengthwise' has no attribute {name!r}")
    with warnings.catch_warnings():
        # A library below tells notebooks to install widgets, for bars that are never shown.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import_module("lengthwise.report.notebook")  # objects show themselves from now on
        import_module("lengthwise.interop.hub")  # and runs can be shared
        return getattr(import_module(f"lengthwise.{home}"), name)


class _Problems(ModuleType):
    """The folder `lengthwise.problems`, which is a function of that name, too.

    Importing a folder makes it an attribute of the package, so no function could have its name beside it.
    """

    def __call__(self, *given: Any, **named: Any) -> Any:
        return import_module("lengthwise.api.problems").problems(*given, **named)


sys.modules["lengthwise.problems"].__class__ = _Problems
