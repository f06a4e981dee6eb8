"""A calibrated bias in a person's own model: until it is removed, or for good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from lengthwise.arguments import refuse
from lengthwise.bias import CalibratedBias
from lengthwise.errors import InputError
from lengthwise.own_models.adapter import (
    MARK,
    Adapter,
    SomePositions,
    Undo,
    refuse_applied,
    silence,
    take_back,
)
from lengthwise.own_models.reading import Reading
from lengthwise.own_models.tokens import SomeTokens, Tokens
from lengthwise.own_models.wrap import adapter_of


class Applied:
    """A bias in a model, from the call on; as a context manager until its end, else until `remove`.

    Attributes:
        model: the model.
        bias: the bias.
    """

    def __init__(self, model: nn.Module, bias: CalibratedBias, undo: list[Undo]) -> None:
        self.model, self.bias, self._undo = model, bias, undo

    def __repr__(self) -> str:
        state = "in" if self._undo else "no longer in"
        return f"Applied({self.bias!r} {state} {type(self.model).__name__})"

    def remove(self) -> None:
        """Make the model what it was before."""
        take_back(self._undo)

    def __enter__(self) -> Applied:
        if not self._undo:
            raise InputError(
                f"the bias was removed from {type(self.model).__name__}; apply it again with lw.apply"
            )
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()


def apply_bias(
    model: nn.Module | Adapter,
    bias: CalibratedBias,
    *,
    tokens: SomeTokens = None,
    positions: SomePositions = "off",
) -> Applied:
    """Let a model read along the lines of a bias and nothing else, whatever the size of a problem.

    Every pass counts, those of a training and of the library's own `generate`. Weights stay as they
    are: a model that was trained without the bias must be trained with it. Problems of one batch are
    padded to one width. A deep copy of the model is under the bias, too, for good.

    Args:
        model: a model that `capture` takes, trained or fresh.
        bias: from `calibrate`.
        tokens: as for `capture`.
        positions: `off`; modules whose output is then zero; or `on` for a model that has none.

    Returns:
        What takes it back: `with apply(...)`, or its `remove`.

    Raises:
        InputError: for a bias that does not fit, a model that can't take one, or has one already.
    """
    if not isinstance(bias, CalibratedBias):
        refuse("bias", "a calibrated bias, such as lw.calibrate returns", bias)
    if bias.format.is_sheet:
        raise InputError(
            f"the bias is of {bias.task}, which is written on sheets; lines of one row fit"
        )
    known = Tokens(bias.format, tokens)
    adapter = adapter_of(model, known)
    module = adapter.module
    refuse_applied(module)
    if bias.layers is not None and bias.layers > adapter.layers:
        raise InputError(
            f"the bias names layer {bias.layers - 1}, but the model has {adapter.layers} layers, from 0 on"
        )
    reading = Reading(bias, known, adapter.kind, adapter.heads, adapter.layers)
    undo: list[Undo] = []
    # What can't take a bias says so before it says how it makes positions.
    take_back(adapter.attach(reading))
    try:
        undo += _positions(adapter, positions)
        undo += adapter.attach(reading)
    except BaseException:
        take_back(undo)
        raise
    vars(module)[MARK] = True
    return Applied(module, bias, [*undo, lambda: vars(module).pop(MARK, None)])


def _positions(adapter: Adapter, positions: SomePositions) -> list[Undo]:
    if positions == "on":
        return []
    if positions == "off":
        return adapter.without_positions()
    modules = [positions] if isinstance(positions, nn.Module) else positions
    if not isinstance(modules, Sequence) or not all(isinstance(m, nn.Module) for m in modules):
        refuse("positions", "'off', 'on', or the module that makes them", positions)
    name = type(adapter.module).__name__
    parts = set(adapter.module.modules())
    for one in modules:
        if one not in parts:
            raise InputError(f"positions names a {type(one).__name__} that is no part of {name}")
        if one is adapter.module:
            raise InputError(
                f"positions names all of {name}; name the part of it that makes positions alone"
            )
    return silence(modules)  # type: ignore[arg-type]
