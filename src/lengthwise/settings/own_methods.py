"""Methods from outside: from a user's file, from an installed package, or a class or object in Python.

A method that was named once is known by its name as the package's own are, in this process. Nothing here is
asked of a run folder: who opens one names the method's file again.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from lengthwise import methods
from lengthwise.bias import BIASES, OfMethod
from lengthwise.errors import InputError, unknown
from lengthwise.methods.base import Need
from lengthwise.model.positions import POSITIONS, Scheme
from lengthwise.own_code import (
    check_class,
    from_file,
    from_packages,
    load_class,
    load_from_package,
    names_code,
    source_of,
)
from lengthwise.settings.method_tables import BIAS_TABLE, POSITION_TABLE, field_types
from lengthwise.settings.methods import METHODS, Method

# The entry points of installed packages.
GROUP = "lengthwise.methods"

SomeMethod = str | methods.Method | type[methods.Method]

_WHAT, _KINDS = "method", (methods.Method,)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

# Those from outside that this process knows, by their names.
_OWN: dict[str, type[methods.Method]] = {}


def chosen_method(given: object) -> list[str]:
    """The assignments that a method stands for, and from now on its name is known.

    Args:
        given: the name of a method of the package's or of an installed one's, `my_method.py` or
            `my_method.py:Class`, a class, or an object with settings.

    Raises:
        InputError: for a name that is none, and for what is no method, or can't be loaded.
    """
    if isinstance(given, methods.Method):
        return _assignments(type(given), given.values())
    if isinstance(given, type):
        check_class(given, _KINDS, _WHAT, given.__name__)
        return _assignments(given)
    if isinstance(given, Path):
        given = str(given)
    if not isinstance(given, str) or not given:
        raise InputError(
            f"method takes text, such as 'rope'; got {given!r}. A file such as 'my_method.py' will do, "
            f"too, and a class or an object of lengthwise.Method"
        )
    if names_code(given):
        return _assignments(load_class(given, _KINDS, _WHAT))
    if given in METHODS and given not in _OWN:
        return METHODS[given].assignments
    if know(given):
        return _assignments(_OWN[given])
    raise InputError(unknown("method", given, [*METHODS, *from_packages(GROUP)]))


def use_method(given: SomeMethod) -> str:
    """Know a method from outside by its name, so that runs that were trained with it can be opened.

    Args:
        given: as of `train`.

    Returns:
        The name.

    Raises:
        InputError: as `train`.
    """
    kind = given if isinstance(given, type) else type(given)
    if not issubclass(kind, methods.Method):
        if names_code(given):
            kind = load_class(str(given), _KINDS, _WHAT)
        else:
            chosen_method(given)
            return str(given)
    return _adopt(kind)


def own_name(given: object) -> str:
    """What a method is called, as messages say it."""
    kind = given if isinstance(given, type) else type(given)
    return (kind.name or kind.__name__) if issubclass(kind, methods.Method) else str(given)


def know(name: str) -> bool:
    """Whether a method from outside is known by this name, or an installed package declares it.

    Raises:
        InputError: for one that is declared and can't be imported.
    """
    if name in _OWN:
        return True
    point = from_packages(GROUP).get(name)
    if point is None or name in METHODS:
        return False
    kind = load_from_package(point, _KINDS, _WHAT)
    if _adopt(kind) != name:
        raise InputError(f"method {name!r} of {point.value} calls itself {kind.name!r}")
    return True


def _assignments(kind: type[methods.Method], values: Mapping[str, Any] = {}) -> list[str]:
    name = _adopt(kind)
    table = POSITION_TABLE if issubclass(kind, methods.Positions) else BIAS_TABLE
    settings = {**METHODS[name].settings, **{f"{table}.{key}": v for key, v in values.items()}}
    return [f"{key}={_text(value)}" for key, value in settings.items()]


def _text(value: Any) -> str:
    """A value as TOML reads it; JSON does, for texts, numbers and lists."""
    try:
        return json.dumps(value)
    except TypeError as error:
        raise InputError(
            f"settings of methods are texts, numbers and lists, got {value!r}"
        ) from error


def _adopt(kind: type[methods.Method]) -> str:
    """Know a class by its name.

    Raises:
        InputError: for one that is made wrongly.
    """
    check_class(kind, _KINDS, _WHAT, kind.__name__)
    name, place = kind.name or kind.__name__, f"method {kind.__name__}"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(f"{place}: a name is letters, digits, - and _, got {name!r}")
    if kind.__module__.startswith(("lengthwise.methods.", "lengthwise.bias.")):
        return name  # one of ours
    if name in {*METHODS, *POSITIONS, *BIASES} - _OWN.keys():
        raise InputError(f"{place}: {name!r} is a method of the package's; call yours otherwise")
    allowed = get_args(Need)
    if not isinstance(kind.needs, tuple) or not set(kind.needs) <= {*allowed}:
        raise InputError(
            f"{place}: needs is a tuple of {', '.join(map(repr, allowed))}, or of none of them, got "
            f"{kind.needs!r}"
        )
    kind.name = name
    _check_fields(kind, place)
    settings: dict[str, Any] = {}
    if issubclass(kind, methods.Positions):
        settings = {"model.positions": name, "model.bias": "causal"}
        POSITIONS[name] = Scheme("ids", method=kind)
    elif issubclass(kind, methods.Bias):
        settings = {"model.positions": "none", "model.bias": name}
        BIASES[name] = OfMethod(kind)
    _OWN[name] = kind
    METHODS[name] = Method(kind.paper or name, {**settings, **kind.settings})
    return name


def _check_fields(kind: type[methods.Method], place: str) -> None:
    """Refuse settings that were not made fields, for they would silently have no effect."""
    annotated = {
        key for key, value in inspect.get_annotations(kind).items() if "ClassVar" not in str(value)
    }
    missing = annotated - field_types(kind).keys()
    if missing:
        raise InputError(
            f"{place}: {', '.join(sorted(missing))} {'is' if len(missing) == 1 else 'are'} no setting yet; "
            f"write @dataclass(frozen=True) above the class"
        )


def forget(name: str) -> None:
    """Know a method from outside no longer."""
    for known in (_OWN, METHODS, POSITIONS, BIASES):
        known.pop(name, None)


def own_source(positions: str, bias: str, of_files: bool = False) -> str | None:
    """The code of the methods from outside among these; None where there is none, or none to be had.

    Args:
        positions, bias: their names.
        of_files: only of those whose file was named.
    """
    kinds = [_OWN[name] for name in dict.fromkeys((positions, bias)) if name in _OWN]
    kinds = [kind for kind in kinds if not of_files or from_file(kind)]
    sources = dict.fromkeys(source for source in map(source_of, kinds) if source)
    return "\n\n".join(sources) or None
