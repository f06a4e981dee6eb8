"""The methods that are compared: each a name, a paper, and the settings that select it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lengthwise.settings.config import Config, flat_settings

CUSTOM = "custom"


@dataclass(frozen=True)
class Method:
    """A method of the comparison.

    Attributes:
        paper: where it comes from.
        settings: dotted names and values; what they leave out is no part of the method.
    """

    paper: str
    settings: dict[str, Any]

    @property
    def assignments(self) -> list[str]:
        """The settings as `--set` takes them."""
        return [f"{key}={value}" for key, value in self.settings.items()]


def _model(positions: str, bias: str = "causal", **others: Any) -> dict[str, Any]:
    return {
        f"model.{key}": v for key, v in {"positions": positions, "bias": bias, **others}.items()
    }


_ABS = "Duan, Shi, Xu 2023, Attention Bias Scaffolding"
# The columns that the paper's code opens, the one being written and the one before; its text names both
# sides, which a small model hardly learns (docs/log.md).
_WINDOW = {"bias": "window", "window": 1, "window_sides": "right"}
# As the paper's code has it for windows: operands aligned, and a start and an end token around the source,
# without which nothing tells the first and last rows of a window where they are (docs/log.md).
_ALIGNED = {"data.alignment": "interleaved", "data.frame": "tokens"}

METHODS: dict[str, Method] = {
    "vanilla": Method("Vaswani et al. 2017", _model("sinusoidal")),
    "nope": Method("Kazemnejad et al. 2023", _model("none")),
    "learned": Method("Gehring et al. 2017", _model("learned")),
    "rope": Method("Su et al. 2021", _model("rope")),
    # As the paper's code has it: on top of sinusoidal positions, which tell cross-attention where keys are.
    "alibi": Method("Press et al. 2022", _model("sinusoidal", "alibi", alibi_cross="none")),
    "alibi_cross": Method("Press et al. 2022", _model("none", "alibi", alibi_cross="distance")),
    "t5": Method("Raffel et al. 2020", _model("none", "t5")),
    "shaw": Method("Shaw et al. 2018", _model("none", "shaw")),
    "window": Method(_ABS, _model("sinusoidal", **_WINDOW) | _ALIGNED),
    "window_cpi": Method(_ABS, _model("cyclic", **_WINDOW, period=3) | _ALIGNED),
    "nope_window": Method(_ABS, _model("none", **_WINDOW) | _ALIGNED),
    "cyclic": Method(f"{_ABS}: Cyclic Position Indexing alone", _model("cyclic", period=3)),
    "coupling": Method("Cho et al. 2024", _model("coupling")),
    "abacus": Method("McLeish et al. 2024", _model("abacus")),
    "randomized": Method("Ruoss et al. 2023", _model("randomized")),
    "fire": Method("Li et al. 2023", _model("none", "fire")),
    "kerple_log": Method("Chi et al. 2022", _model("none", "kerple_log")),
    "kerple_power": Method("Chi et al. 2022", _model("none", "kerple_power")),
    "hard_alibi": Method("Jelassi et al. 2024", _model("none", "hard_alibi")),
    "sin_periodical": Method("the code of Duan, Shi, Xu 2023", _model("sin_periodical")),
    "log_periodical": Method("the code of Duan, Shi, Xu 2023", _model("log_periodical")),
}


def method_of(config: Config) -> str:
    """The name of the method that some settings select, or `custom`."""
    chosen = flat_settings(config).items()
    return next(
        (name for name, method in METHODS.items() if method.settings.items() <= chosen), CUSTOM
    )


def with_article(name: str) -> str:
    """`a rope`, `an alibi`."""
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
