"""Settings of methods that are classes: a table of the position scheme, and one of the bias."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from lengthwise.bias import BIASES, OfMethod
from lengthwise.errors import InputError, unknown
from lengthwise.methods import Bias, Method, Positions
from lengthwise.model.positions import POSITIONS
from lengthwise.settings.parameters import Chosen

# What the tables are called in the settings: as the setting of the model that chooses the class.
POSITION_TABLE, BIAS_TABLE = TABLES = "positions", "bias"

Kind = TypeVar("Kind", bound=Method)


def positions_of(name: str) -> type[Positions] | None:
    """The class of a position scheme; None for one that is none, or has none."""
    return POSITIONS[name].method if name in POSITIONS else None


def bias_of(name: str) -> type[Bias] | None:
    """The class of a bias, as `positions_of`."""
    found = BIASES.get(name)
    return found.method if isinstance(found, OfMethod) else None


def fill_table(table: str, name: str, kind: type[Method] | None, given: object) -> Chosen:
    """The settings of a method, with its own defaults for those that are not given.

    Args:
        table: what the table is called.
        name: of the method.
        kind: its class; None for one that has no settings there.
        given: names and values.

    Raises:
        InputError: for what is no table, a name that the method does not know, and a value that it refuses.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"{table} is a table of names and values, got {given!r}")
    if kind is None:
        for key in given:
            raise InputError(f"{table}.{key}: {name} has no settings in [{table}]")
        return Chosen()
    known = field_types(kind)
    values = {}
    for key, value in given.items():
        if key not in known:
            raise InputError(
                unknown(f"setting of {name} in [{table}]", str(key), known)
                if known
                else f"{table}.{key}: {name} has no settings"
            )
        values[key] = checked(f"{table}.{key}", known[key], value)
    return Chosen(make_method(kind, values, f"{table} of {name}").values(), values)


def make_method(kind: type[Kind], values: Mapping[str, Any], where: str) -> Kind:
    """A method with some settings.

    Raises:
        InputError: for values that its class refuses, and settings without a value.
    """
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise InputError(f"{where}: {missing[0]} has no default; give it a value")
    try:
        return kind(**values)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:  # a user's class may raise anything
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=256)
def field_types(kind: type[Method]) -> dict[str, Any]:
    """The type of each setting of a method.

    Raises:
        InputError: for annotations that can't be understood.
    """
    try:
        hints = get_type_hints(kind)
        return {field.name: hints[field.name] for field in fields(kind)}
    except (NameError, TypeError) as error:
        raise InputError(
            f"the settings of {kind.name} have types that are none: {error}"
        ) from error


def checked(name: str, kind: Any, value: Any) -> Any:
    """A value of a type; whole numbers will do for others, text does not do for numbers.

    Raises:
        InputError: for another.
    """
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        raise InputError(f"{name}: {message[0].lower()}{message[1:]}, got {value!r}") from error
