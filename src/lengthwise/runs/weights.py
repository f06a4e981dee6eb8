"""The weights of a run: kept with what they are of, and refused where they are of something else."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file

from lengthwise.bias import AttentionBias, CalibratedBias
from lengthwise.files import from_json, reason, save_tensors, sha256
from lengthwise.model import Transformer
from lengthwise.runs.folder import CONFIG
from lengthwise.runs.parts import make_model, shapes_alone
from lengthwise.settings.config import Config, InputError
from lengthwise.settings.method_tables import TABLES

# What weights say of the model that they are of, among the metadata of their file.
_MODEL = "lengthwise"


def save_weights(path: Path, model: Transformer, config: Config, bias: AttentionBias) -> None:
    """Write the weights of a model, and which settings and bias they are of."""
    save_tensors(path, model.state_dict(), {_MODEL: describe(config, bias)})


def describe(config: Config, bias: AttentionBias) -> str:
    """What the weights are of no use without: settings of model and task, and the bias, as JSON."""
    laid = ("alignment", "input_order", "frame")
    values = {"task": config.task, "base": config.base, **config.parameters}
    values |= {f"data.{key}": getattr(config.data, key) for key in laid}
    values |= {f"model.{key}": value for key, value in config.model.identity().items()}
    for table in TABLES:
        values |= {f"{table}.{key}": value for key, value in getattr(config, table).items()}
    return json.dumps({**values, "bias": sha256(bias_text(bias).encode())[:16]})


def bias_text(bias: AttentionBias) -> str:
    """What tells a bias from others: its lines as their file has them, or its words."""
    return bias.to_json_lines() if isinstance(bias, CalibratedBias) else str(bias)


def load_weights(model: Transformer, path: Path) -> None:
    """Give a model the weights of a file.

    Raises:
        InputError: when it does not hold weights of such a model.
    """
    with _readable(path):
        weights = load_file(path)
    _compare({name: list(tensor.shape) for name, tensor in weights.items()}, model, path)
    model.load_state_dict(weights)


def check_shapes(path: Path, config: Config) -> None:
    """Refuse weights of another size before a model of the settings' size takes memory.

    Raises:
        InputError: for those.
    """
    with _readable(path), safe_open(path, "pt") as file:
        names = [*file.keys()]
        shapes = {name: file.get_slice(name).get_shape() for name in names}
    layers = config.model.layers + config.model.encoder_layers
    if layers > len(names):
        raise InputError(
            f"{path} does not hold this run's weights: it has {len(names)} tensors, the model of "
            f"{path.with_name(CONFIG)} {layers} layers"
        )
    try:
        with shapes_alone():
            model = make_model(config)
    except (OverflowError, RuntimeError) as error:
        raise InputError(
            f"{path.with_name(CONFIG)} describes no model that could be made: {reason(error)}"
        ) from error
    _compare(shapes, model, path)


def check_described(path: Path, config: Config, bias: AttentionBias) -> None:
    """Refuse weights that say themselves to be of other settings, or of another bias (`InputError`)."""
    with _readable(path), safe_open(path, "pt") as file:
        about = file.metadata() or {}
    try:
        said = dict(from_json(about.get(_MODEL, "{}")))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} does not say what its weights are of: {error}") from error
    here = json.loads(describe(config, bias))
    for key in sorted(said.keys() & here.keys()):
        if said[key] != here[key]:
            raise InputError(
                f"{path} holds weights that were trained with {key} {said[key]}, but this run has "
                f"{here[key]}"
            )


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What fails in reading weights is said in a sentence."""
    try:
        yield
    except Exception as error:  # safetensors and the system raise many kinds
        raise InputError(f"{path} does not hold this run's weights: {reason(error)}") from error


def _compare(shapes: dict[str, list[int]], model: Transformer, path: Path) -> None:
    """Refuse weights that are not those of a model.

    Raises:
        InputError: for the first that differs.
    """
    wanted = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    for name in dict.fromkeys([*wanted, *shapes]):
        if shapes.get(name) != wanted.get(name):
            raise InputError(
                f"{path} does not hold this run's weights: of {name} it has {shapes.get(name, 'none')}, "
                f"the model of {path.with_name(CONFIG)} {wanted.get(name, 'none')}"
            )
