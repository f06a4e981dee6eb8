"""What calibration and `apply` need of a model, whoever wrote it: one adapter for each kind of
library."""

from __future__ import annotations

import contextlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lengthwise.errors import InputError, shorten
from lengthwise.model.loop import Output
from lengthwise.own_models.reading import Kind, Reading

SomePositions = Literal["on", "off"] | nn.Module | Sequence[nn.Module]
Undo = Callable[[], object]

# Says, on a module, that a bias is applied to it.
MARK = "_lengthwise_applied"


class Hook:
    """A function of ours on a person's module.

    A deep copy of the module keeps it, sharing what it knows. It runs as it is under torch.compile, and
    is never pickled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = torch.compiler.disable(function)

    def __call__(self, *given: Any) -> Any:
        return self._function(*given)

    def __deepcopy__(self, memo: object) -> Hook:
        return self

    def __reduce__(self) -> Any:
        raise InputError(
            "a model can't be pickled while a bias is applied to it; remove the bias first, or save "
            "its state_dict(), which holds nothing of it"
        )


def before_pass(module: nn.Module, function: Callable[..., Any]) -> Undo:
    """Call `function(module, args, kwargs)` before each pass of a module."""
    return module.register_forward_pre_hook(Hook(function), with_kwargs=True).remove


def after_pass(module: nn.Module, function: Callable[..., Any]) -> Undo:
    """Call `function(module, args, output)` after each pass of a module."""
    return module.register_forward_hook(Hook(function)).remove


class Adapter(ABC):
    """A model as lengthwise sees it.

    Attributes:
        module: the model.
        kind: `decoder` for problem and answer in one sequence.
        layers, heads: of it; of its decoder, where it has an encoder.
    """

    module: nn.Module
    kind: Kind
    layers: int
    heads: int

    @abstractmethod
    def attach(self, reading: Reading) -> list[Undo]:
        """Give every pass of the model what it may read; what is returned takes each change back.

        Where `reading.attention` is a dictionary, passes put their weights there, by site and layer.
        """

    @abstractmethod
    def without_positions(self) -> list[Undo]:
        """Switch positions off; what is returned takes each change back.

        Raises:
            InputError: where it isn't known how.
        """

    @abstractmethod
    def logits(self, source: Tensor, target: Tensor) -> Tensor:
        """Of each token of the target `[problem, row]`, after a problem `[problem, token]`."""

    def output(self, reading: Reading, source: Tensor, target: Tensor, attention: bool) -> Output:
        """What the model returns under a bias, the true answers being given.

        Raises:
            InputError: where it does not say what it attends to.
        """
        reading.attention = {} if attention else None
        undo = self.attach(reading)
        try:
            with quiet(self.module), readable(self.module, source.shape[1]):
                logits = self.logits(source, target)
        finally:
            take_back(undo)
        self._check_logits(logits, target)
        if not attention:
            return Output(logits.float(), [])
        rows, keys = target.shape[1], source.shape[1]
        return Output(logits.float(), self._sites(reading, rows, keys))

    def _check_logits(self, logits: Any, target: Tensor) -> None:
        rows, most = list(target.shape), int(target.max())
        if not isinstance(logits, Tensor):
            found = type(logits).__name__
        elif list(logits.shape[:-1]) != rows or logits.shape[-1] <= most:
            found = f"a tensor of shape {list(logits.shape)}"
        else:
            return
        raise InputError(
            f"{type(self.module).__name__} must return logits [problem, token, id], here {rows} and more "
            f"than {most} ids; got {found}"
        )

    def called(self, source: Tensor, target: Tensor) -> Any:
        """What the model returns for the target, asked by ids alone: one sequence, or source and target.

        Raises:
            InputError: for a model that is called otherwise.
        """
        apart = self.kind == "encoder-decoder"
        ids = (source, target) if apart else (torch.cat([source, target], dim=1),)
        try:
            inspect.signature(self.module.forward).bind(*ids)
        except TypeError as error:
            name = type(self.module).__name__
            way = "model(source, target)" if apart else "model(ids)"
            raise InputError(
                f"{name} is taken for a model of kind {self.kind}, which is called {way}; its forward "
                f"does not take that: {error}"
            ) from error
        found = self.module(*ids)
        return found if apart or not isinstance(found, Tensor) else found[:, source.shape[1] :]

    def _sites(self, reading: Reading, rows: int, keys: int) -> list[dict[str, Tensor]]:
        found = []
        for layer in range(self.layers):
            if self.kind == "decoder":
                whole = self._weights(reading, "self", layer, keys + rows, keys + rows)
                part = whole[:, :, keys:]
                cross, own = part[..., :keys], part[..., keys:]
            else:
                cross = self._weights(reading, "cross", layer, rows, keys)
                own = self._weights(reading, "self", layer, rows, rows)
            found.append({"cross": cross, "self": own})
        return found

    def _weights(self, reading: Reading, site: str, layer: int, rows: int, keys: int) -> Tensor:
        assert reading.attention is not None
        name = type(self.module).__name__
        weights = reading.attention.get((site, layer))
        if weights is None:
            raise InputError(
                f"the attention of {name} can't be captured: layer {layer} told no weights (is it fused?)"
            )
        if tuple(weights.shape[1:]) != (self.heads, rows, keys):
            raise InputError(
                f"{name} returned attention of shape {tuple(weights.shape)}; it must be "
                f"[problem, {self.heads} heads, {rows} queries, {keys} keys]"
            )
        return weights.detach().float()


def refuse_applied(module: nn.Module) -> None:
    """Refuse a model that has a bias (`InputError`)."""
    if MARK in vars(module):
        raise InputError(f"{type(module).__name__} has a bias already; remove it first")


def take_back(undo: list[Undo]) -> None:
    """Undo changes, the last first."""
    while undo:
        undo.pop()()


@contextlib.contextmanager
def readable(module: nn.Module, tokens: int) -> Iterator[None]:
    """What fails in a model that is asked a problem of so many tokens is said in a sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (IndexError, RuntimeError) as error:
        raise InputError(
            f"{type(module).__name__} can't read problems of {tokens} tokens "
            f"({shorten(str(error))}): an id past its vocabulary, or past the end of its table of "
            f"positions?"
        ) from error


@contextlib.contextmanager
def quiet(module: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, without gradients; then each part in the mode that it was in."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def silence(modules: Sequence[nn.Module], spread: bool = False) -> list[Undo]:
    """Modules that make positions give zeros, those of rotary ones the angle 0.

    Places that they are asked for become 0, and a table is not looked up, so that it never ends.

    Args:
        modules: those.
        spread: a table gives one row `[1, 1, channel]` for all places, for models that add it.
    """

    def first(
        module: nn.Module, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        return tuple(map(_at_zero, args)), {name: _at_zero(one) for name, one in kwargs.items()}

    def still(module: nn.Module, args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            cosine, sine = output
            return torch.ones_like(cosine), torch.zeros_like(sine)
        return torch.zeros_like(output)

    undo: list[Undo] = []
    for module in modules:
        if isinstance(module, nn.Embedding):
            # Some make the places themselves, so that they would go past the end of the table.
            own = type(module).forward is nn.Embedding.forward
            vars(module)["forward"] = partial(_zeros if own and not spread else _zero, module)
            undo.append(partial(vars(module).pop, "forward"))
            continue
        undo += [before_pass(module, first), after_pass(module, still)]
    return undo


def _zeros(table: nn.Embedding, places: Tensor, *others: Any, **named: Any) -> Tensor:
    """In the place of a table's rows for `[token]`, or `[problem, token]`."""
    return table.weight.new_zeros(*places.shape[:2], table.embedding_dim)


def _zero(table: nn.Embedding, *given: Any, **named: Any) -> Tensor:
    """In the place of the rows of a table that may be asked by masks, or by shapes."""
    return table.weight.new_zeros(1, 1, table.embedding_dim)


def _at_zero(given: Any) -> Any:
    """A number, or whole numbers, all 0; anything else as it is."""
    if isinstance(given, Tensor) and not given.is_floating_point():
        return torch.zeros_like(given)
    return 0 if type(given) is int else given
