"""The parts that settings name: the model, its bias, the device and how it computes; made, and checked."""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

from lengthwise.bias import BIASES, SITES, AttentionBias, CalibratedBias, MatrixBias
from lengthwise.decoding.ways import check_ways
from lengthwise.model import Transformer
from lengthwise.problems.layout import Layout
from lengthwise.problems.sheets import Seen
from lengthwise.problems.tokens import axes_of
from lengthwise.settings.config import Config, InputError
from lengthwise.tasks.near import LAST


def make_model(config: Config) -> Transformer:
    """The untrained model of some settings; torch's random generator decides its weights."""
    task, tokens = config.make_task(), len(config.layout().vocabulary)
    # A calibrated bias takes the place of the settings' one (`Config.for_retraining` sees to that).
    learned = getattr(make_bias(config), "learned", None)
    of_the_bias = {"bias", *(key for bias in BIASES.values() for key in bias.settings)}
    settings = config.model.model_dump(exclude=of_the_bias)
    return Transformer(
        tokens, **settings, learned=learned, ids=config.position_method, axes=axes_of(task)
    )


def make_bias(config: Config) -> AttentionBias:
    """The bias that some settings name.

    Raises:
        InputError: for one that does not fit the model.
    """
    method = config.bias_method
    if method is None:
        return BIASES[config.model.bias](config.model)
    try:
        return method.bias(config.model.heads)
    except ValueError as error:
        raise InputError(str(error)) from error


def make_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one.

    Raises:
        InputError: when `cuda` is asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' was asked for, but torch sees no GPU; use 'cpu' or 'auto'")
    use_gpu = name == "cuda" or (name == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


class _Unfilled(TorchFunctionMode):
    """Tensors keep whatever they hold where a module would draw its first weights."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def shapes_alone() -> Iterator[None]:
    """Models that are made in it have no numbers, and take no memory.

    Nothing is drawn: for tensors without numbers torch would load its compiler for that, a second of every
    process that opens a run.
    """
    with torch.device("meta"), _Unfilled():
        yield


def in_precision(name: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Matrix products in a setting's type; nothing changes for float32."""
    if name == "float32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def compiled(model: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    """The model, compiled for training; on a GPU its passes become CUDA graphs, launched at once.

    Raises:
        InputError: where there is no compiler.
    """
    if not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise InputError(
            "training.execution 'compiled' needs a C++ compiler: install g++, or take 'eager'"
        )
    # What matrices are multiplied in is the setting `precision`'s to say, not torch's to recommend.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return cast(torch.nn.Module, torch.compile(model, mode=mode))


def check_reach(model: Transformer, layout: Layout) -> None:
    """Refuse problems that are longer than learned positions reach (`InputError`)."""
    lengths = layout.source_length, layout.target_length
    if not model.reaches(layout) and model.ids is not None:
        raise InputError(
            f"{layout} has more places than the {model.ids.method} of this model have ids: "
            f"{model.ids.method.size} (settings in [positions])"
        )
    if not model.reaches(layout):
        raise InputError(
            f"problems padded to {layout.width} digits have {max(lengths)} tokens; learned positions of "
            "this model end earlier (model.max_positions)"
        )


def fitted(
    bias: CalibratedBias | MatrixBias | None, config: Config
) -> CalibratedBias | MatrixBias | None:
    """A bias of lines, stated for the problems of some settings; one of another task as it is."""
    if isinstance(bias, CalibratedBias) and bias.task == config.task:
        return bias.bound(config.format)
    return bias


def check_new(config: Config, bias: CalibratedBias | MatrixBias | None) -> None:
    """Refuse a bias that does not fit, and ways of computing that it does not allow (`InputError`)."""
    if bias is not None:
        check_bias(bias, config)
    check_ways(bias or make_bias(config), config)


def check_bias(bias: CalibratedBias | MatrixBias, config: Config) -> None:
    """Refuse a bias that does not fit the model.

    Raises:
        InputError: for another task, another number of heads, unknown layers or segments, or matrices that
            are smaller than the training width.
    """
    if bias.task != config.task:
        raise InputError(
            f"the bias was calibrated for {bias.task}, but the task is {config.task}; `lengthwise convert "
            f"BIAS --task {config.task} --out FILE` makes one for it, where the two are laid out alike"
        )
    if bias.heads != config.model.heads:
        raise InputError(f"the bias has {bias.heads} heads, but the model has {config.model.heads}")
    if isinstance(bias, MatrixBias):
        if bias.layers not in (None, config.model.layers):
            raise InputError(
                f"the bias has matrices for {bias.layers} layers, the model {config.model.layers}"
            )
        if config.width > bias.width:
            raise InputError(
                f"the bias is of matrices for operands padded to {bias.width} digits, but data.width is "
                f"{config.width}; `lengthwise convert` turns them into lines"
            )
        return
    for line in bias.lines:
        if line.layer is not None and not 0 <= line.layer < config.model.layers:
            raise InputError(
                f"the bias names layer {line.layer}, but the model has {config.model.layers}"
            )
    if config.is_sheet and (config.model.positions != "none" or config.model.encoder_layers):
        raise InputError(
            f"lines of sheets lead to tokens wherever they lie: with a calibrated bias a model of "
            f"{config.task} takes model.positions none and no encoder, got {config.model.positions!r} and "
            f"model.encoder_layers={config.model.encoder_layers}"
        )
    layout = config.layout()
    places = Seen(layout.task, (LAST,), np.zeros((1, 0), np.uint8)) if config.is_sheet else layout
    for layer in range(config.model.layers):
        for site in SITES:
            bias.at(site, layer, places)
