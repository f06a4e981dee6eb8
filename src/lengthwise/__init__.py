"""lengthwise: small transformers that compute correctly at every length.

Names are loaded on first use, so that `import lengthwise` (and `lengthwise --help`) costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lengthwise.version import __version__

if TYPE_CHECKING:
    from lengthwise.api import abc, evaluate, train
    from lengthwise.attention_maps import AttentionMaps, capture
    from lengthwise.bias import CalibratedBias
    from lengthwise.calibration import calibrate
    from lengthwise.config import Config, InputError
    from lengthwise.evaluation import LengthCurve
    from lengthwise.proof import prove
    from lengthwise.run import Run

_HOMES = {
    "AttentionMaps": "attention_maps",
    "CalibratedBias": "bias",
    "Config": "config",
    "InputError": "config",
    "LengthCurve": "evaluation",
    "Run": "run",
    "abc": "api",
    "calibrate": "calibration",
    "capture": "attention_maps",
    "evaluate": "api",
    "prove": "proof",
    "train": "api",
}

__all__ = [
    "AttentionMaps",
    "CalibratedBias",
    "Config",
    "InputError",
    "LengthCurve",
    "Run",
    "__version__",
    "abc",
    "calibrate",
    "capture",
    "evaluate",
    "prove",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lengthwise' has no attribute {name!r}")
    return getattr(import_module(f"lengthwise.{_HOMES[name]}"), name)
