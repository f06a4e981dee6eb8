"""What a person sets, `--set KEY=VALUE`: beside options, for a bias, and where it would change nothing."""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Iterable
from typing import Any

from lengthwise.arguments import as_assignments
from lengthwise.bias import BIASES
from lengthwise.errors import InputError
from lengthwise.settings.config import RETRAINED, Config, flat_settings
from lengthwise.settings.parameters import as_value


def with_options(assignments: Any, **options: Any) -> list[str]:
    """Assignments, with those of options that have a setting of their own; None is an option not given.

    Args:
        assignments: such as `data.length=6`, or whatever else `as_assignments` takes.
        options: by the setting's name, with `__` for its dots.

    Raises:
        InputError: when an option and an assignment say two things about one setting.
    """
    assignments = as_assignments("set", assignments)
    chosen = _texts(assignments)
    given = {name.replace("__", "."): v for name, v in options.items() if v is not None}
    for key, value in given.items():
        if key in chosen and as_value(chosen[key]) != as_value(str(value)):
            option = key.rpartition(".")[2]
            raise InputError(
                f"{option} {value} and {key}={chosen[key]} contradict each other; give one of them"
            )
    return [*(f"{key}={value}" for key, value in given.items()), *assignments]


def for_a_bias(
    values: dict[str, Any], assignments: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """Settings of a training with a calibrated bias, which `Config.for_retraining` makes.

    There the `retraining` part counts. What was set of the first training alone is meant for this one, too.

    Raises:
        InputError: when an assignment has no place, or two contradict each other.
    """
    values, assignments = copy.deepcopy(values), list(assignments)
    chosen = _texts(assignments)
    if "model.bias" in chosen:
        raise InputError(
            f"model.bias={chosen['model.bias']} can't be set beside a bias that is given: that one counts"
        )
    for first, second in RETRAINED.items():
        part, _, name = first.partition(".")
        if first in chosen and second not in chosen:
            assignments.append(f"{second}={chosen[first]}")
        elif first in chosen and as_value(chosen[first]) != as_value(chosen[second]):
            raise InputError(
                f"{first}={chosen[first]} and {second}={chosen[second]} contradict each other; with a "
                f"calibrated bias {second} counts"
            )
        given, own = values.get(part), values.setdefault("retraining", {})
        if isinstance(given, dict) and isinstance(own, dict) and name in given:
            own.setdefault(name, given[name])
    return values, assignments


def refuse_second(assignments: Iterable[str]) -> None:
    """Refuse what is assigned to the second training, where the first is all there is.

    Raises:
        InputError: for the first such assignment.
    """
    for key in _texts(assignments):
        if key.startswith("retraining."):
            raise InputError(
                f"{key} counts only with a calibrated bias, which this training has not; "
                f"`lengthwise abc` trains twice"
            )


# Settings that count only with some value of another one.
_COUNTS_WITH = {
    "model.period": ("model.positions", "cyclic"),
    "model.max_positions": ("model.positions", "learned"),
    **{f"model.{key}": ("model.bias", name) for name, b in BIASES.items() for key in b.settings},
    "calibration.kappa_cross": ("calibration.policy", "paper"),
    "calibration.kappa_self": ("calibration.policy", "paper"),
}


def refuse_idle(config: Config, assignments: Iterable[str]) -> None:
    """Refuse assignments that would change nothing.

    Raises:
        InputError: for the first of them, with what it depends on.
    """
    values = flat_settings(config)
    for key in _texts(assignments):
        if key in _COUNTS_WITH:
            name, wanted = _COUNTS_WITH[key]
            # Positions are those of the first training, or of the second.
            if wanted not in (values[name], values[RETRAINED.get(name, name)]):
                raise InputError(
                    f"{key} counts only with {name}={wanted}; here that is {values[name]!r}"
                )


def refuse_uncounted(assignments: Iterable[str], counting: Iterable[str], when: str) -> None:
    """Refuse assignments to settings that change nothing in some use of a trained model.

    Args:
        assignments: as `make_config` has found them to be good.
        counting: the settings that count, or patterns of such, as `evaluation.*`.
        when: the use, as the message is to say it.

    Raises:
        InputError: for the first of them, with those that count.
    """
    for key in _texts(assignments):
        if not any(fnmatch.fnmatchcase(key, pattern) for pattern in counting):
            raise InputError(
                f"{key} does not count when {when}; what does: {', '.join(sorted(counting))}"
            )


def _texts(assignments: Iterable[str]) -> dict[str, str]:
    """What each setting is assigned, last, as text."""
    parted = (each.partition("=") for each in assignments)
    return {key.strip(): text.strip() for key, _, text in parted}
