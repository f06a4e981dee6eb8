"""matplotlib, loaded whatever the environment says about it.

Pictures need none of its backends for windows, so one that is misnamed, or not there, must not matter;
nor must a matplotlibrc that can't be read. The other modules of this package import matplotlib freely:
`lengthwise.report` imports this one first.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def _without(name: str, instead: str | None = None) -> Iterator[None]:
    """Leave a variable out of the environment for a while, or give it another value."""
    before = os.environ.pop(name, None)
    if instead is not None:
        os.environ[name] = instead
    try:
        yield
    finally:
        os.environ.pop(name, None)
        if before is not None:
            os.environ[name] = before


def load_matplotlib() -> None:
    """Import matplotlib; a backend that the environment names well stays the choice for other plots."""
    if "matplotlib" in sys.modules:
        return
    with _without("MPLBACKEND"):
        try:
            import matplotlib
        except (OSError, ValueError):
            for part in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
                del sys.modules[part]
            with _without("MATPLOTLIBRC", os.devnull):
                import matplotlib
    chosen = os.environ.get("MPLBACKEND")
    if chosen:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen


load_matplotlib()
