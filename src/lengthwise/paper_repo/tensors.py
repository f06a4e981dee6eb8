"""Bias tensors (`.t`) of the paper's code: read as numbers only, checked, and written back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lengthwise.bias import CLOSED, SITES, CalibratedBias, MatrixBias, Site, trace_lines
from lengthwise.bias.dense import check_dense
from lengthwise.bias.matrix import CLOSED_THERE
from lengthwise.errors import unknown
from lengthwise.files import write_with
from lengthwise.settings.config import InputError
from lengthwise.tasks import TASKS

TENSORS = (".t", ".pt", ".pth")

# Where shapes fit several tasks, the one that the paper's code calibrated is meant.
_LIKELY = ("addition", "successor", "nx1")


def load_tensors(path: Path) -> object:
    """What a file written by `torch.save` holds, if that is tensors and plain values.

    Raises:
        InputError: when it can't be read, or holds anything that would have to be run.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of pickles that it then refuses
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    except Exception as error:  # unpickling raises many kinds
        raise InputError(
            f"{path} is not a file of tensors and plain values that torch wrote; nothing else is read"
        ) from error


def load_matrices(paths: Sequence[Path], task: str | None = None) -> MatrixBias:
    """One or two bias files of the paper's code: a square matrix is that of self-attention.

    Args:
        paths: `.t` files, each one tensor `[head, query, key]`.
        task: the task's name; by default the first whose source has so many keys.

    Raises:
        InputError: when a file holds something else, or the matrices fit neither the task nor each other.
    """
    if task is not None and task not in TASKS:
        raise InputError(unknown("task", task, TASKS))
    matrices: dict[Site, Tensor] = {}
    for path in paths:
        tensor = load_tensors(path)
        if not isinstance(tensor, Tensor) or tensor.ndim != 3:
            what = f"a {type(tensor).__name__}"
            if isinstance(tensor, Tensor):
                what = f"a tensor {list(tensor.shape)}"
            elif isinstance(tensor, dict) and "model_state_dict" in tensor:
                what = "a checkpoint (convert it with --config FILE.ini)"
            raise InputError(f"{path} holds {what}; a bias is one tensor [head, query, key]")
        site: Site = "self" if tensor.shape[1] == tensor.shape[2] else "cross"
        if site in matrices:
            raise InputError(f"{paths[0]} and {path} are both biases of {site}-attention")
        matrices[site] = tensor
    names = " and ".join(str(path) for path in paths)
    reasons = []
    for name in [task] if task else [*_LIKELY, *(t for t in TASKS if t not in _LIKELY)]:
        try:
            return MatrixBias(name, matrices)
        except ValueError as error:
            reasons.append(f"{names}: {error}")
    raise InputError(reasons[0])


def read_bias(paths: Sequence[Path], task: str | None = None) -> CalibratedBias | MatrixBias:
    """A bias from its file or pair of files: lines (`.jsonl`), matrices (`.safetensors`), `.t` tensors.

    Raises:
        InputError: when the files are none, or do not go together.
    """
    if all(path.suffix in TENSORS for path in paths):
        return load_matrices(paths, task)
    if len(paths) > 1:
        names = " and ".join(str(path) for path in paths)
        raise InputError(f"only .t files come in pairs, got {names}")
    if paths[0].suffix != ".safetensors":
        return CalibratedBias.load(paths[0])
    try:
        return MatrixBias.load(paths[0], task)
    except ValueError as error:
        raise InputError(str(error)) from error


def find_lines(bias: CalibratedBias | MatrixBias) -> tuple[CalibratedBias, list[str]]:
    """A bias as lines, which are defined at every width.

    Returns:
        The lines, and sentences on what they leave out: cells in the first and last row.

    Raises:
        InputError: when matrices are not lines; the message names the head.
    """
    if isinstance(bias, CalibratedBias):
        # Written anew, in the format of this version.
        return CalibratedBias(bias.format, bias.heads, bias.lines), []
    traced = trace_lines(bias)
    if not traced.exact:
        worst = next(rest for rest in traced.rest if not rest.edge)
        cells = [cell for cell in worst.cells if 0 < cell[0] < bias.width]
        raise InputError(
            f"head {worst.head} of {worst.site}-attention is not lines: {len(cells)} cells lie off them, "
            f"the first in row {cells[0][0]} at key {cells[0][1]}"
        )
    return traced.lines, traced.describe_rest()


def save_dense_bias(
    bias: CalibratedBias | MatrixBias, path: Path, width: int | None = None
) -> Path:
    """Write a bias as matrices (`.safetensors`) for one width; of lines one operand after the other.

    Raises:
        InputError: for lines without a width, matrices with another, or too large ones.
    """
    width = _width(bias, width)
    if isinstance(bias, MatrixBias):
        if width != bias.width:
            raise InputError(
                f"the matrices hold width {bias.width}, not {width}; make lines of them"
            )
    else:
        # As matrices are laid over any layout: one operand after the other.
        layout = replace(bias.format, alignment="natural").at(width)
        layers = bias.layers or 1
        check_dense(bias.heads * layers, layout)
        rows = range(layout.target_length)
        dense: dict[Site, Tensor] = {
            site: torch.stack([bias.dense(site, layer, layout, rows) for layer in range(layers)])
            for site in SITES
        }
        bias = MatrixBias(bias.format, dense)
    bias.save(path)
    return path


def _width(bias: CalibratedBias | MatrixBias, width: int | None) -> int:
    """The width to write a bias at; matrices have one of their own."""
    if width is None and isinstance(bias, MatrixBias):
        return bias.width
    if width is None:
        raise InputError("lines fit every width; say for which with --width")
    if isinstance(bias, CalibratedBias) and bias.format.is_sheet:
        raise InputError("lines of sheets lead elsewhere in each sheet; they are no matrices")
    return width


def save_matrices(
    bias: CalibratedBias | MatrixBias, path: Path, width: int | None = None
) -> list[Path]:
    """Write a bias as the paper's code saves it: one tensor for each site, -1e6 where a key is closed.

    The source is framed by start and end token, as there. `windows.t` becomes `windowsCross.t` and
    `windowsSelf.t`.

    Args:
        bias: lines, or matrices.
        path: where to.
        width: digits that operands are padded to; matrices have one of their own.

    Returns:
        The files written.

    Raises:
        InputError: when layers read different lines, for there all layers share a tensor, or when the
            tensors would be too large.
    """
    if bias.layers is not None:
        raise InputError(
            "the layers of this bias differ; a .t file has one tensor for all of them (write .safetensors)"
        )
    format = replace(bias.format, frame="tokens", alignment="natural")
    layout = format.at(_width(bias, width))
    rows = range(layout.target_length)
    check_dense(bias.heads, layout)
    written = []
    for site in SITES:
        try:
            dense = bias.dense(site, 0, layout, rows)
        except ValueError as error:
            raise InputError(str(error)) from error
        dense = dense.masked_fill(dense == CLOSED, CLOSED_THERE)
        target = path.with_name(f"{path.stem}{site.capitalize()}{path.suffix}")
        write_with(target, lambda temporary, tensor=dense: torch.save(tensor, temporary))
        written.append(target)
    return written
