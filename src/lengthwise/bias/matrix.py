"""A bias of fixed matrices, such as the paper's code saves: defined up to the size that they have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from itertools import accumulate, product
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lengthwise.arguments import as_file
from lengthwise.bias.base import CLOSED, SITES, Causal, OpenKeys, Site, causal
from lengthwise.errors import InputError
from lengthwise.files import check_format, save_tensors
from lengthwise.problems.format import Format, OfFormat
from lengthwise.problems.layout import Layout
from lengthwise.tasks import FRAME, TASKS, Transducer

FORMAT = "lengthwise-matrices/1"

# The paper's code writes this where a key is to be closed. It and all below it close a key here.
CLOSED_THERE = -1e6

# Up to this many open keys to a query, lists of them beat matrices.
_FEW_SLOTS = 4


class MatrixBias(OfFormat):
    """Matrices `[head, query, key]` for self- and cross-attention, laid over any layout that they hold.

    Row i is the row that writes the digit of significance i. The keys of `cross` are those of a source
    whose operands have the matrices' own width, perhaps framed by a start and an end token; the
    digit of significance j of an operand is laid onto the digit of that significance, so that a narrower
    problem finds its lines where a wider one has them, and keys that a layout lacks are dropped.
    Self-attention is always causal, whatever the matrices say (the paper's code drops the mask where it
    loads a bias). A row without an open key reads nothing (there, every key is as closed as every
    other, and such a row reads them all).

    Args:
        format: of the problems; of a task's name, as by default. Its frame is that of the matrices.
        matrices: per site float32 `[layer, head, query, key]`, one layer standing for all; numbers of
            at most -1e6 close a key. A site that is left out is that of a vanilla model.

    Attributes:
        heads: attention heads.
        width: digits that the operands of the largest problem are padded to.
        spans: where each segment of the source lies in the keys of `cross`: start and stop.

    Raises:
        ValueError: for shapes or numbers that can't be, in one sentence.
    """

    def __init__(self, format: Format | str, matrices: Mapping[Site, Tensor]) -> None:
        if not matrices:
            raise ValueError("a bias of matrices has at least one of them")
        self.matrices: dict[Site, Tensor] = {
            site: _checked(site, matrices[site]) for site in SITES if site in matrices
        }
        shapes = [matrix.shape for matrix in self.matrices.values()]
        if len({shape[1:3] for shape in shapes}) > 1:
            own, cross = (tuple(shape[1:]) for shape in shapes)
            raise ValueError(
                f"matrices of self {own} and cross {cross} differ in heads or rows; they are no pair"
            )
        self.heads, rows = shapes[0][1], shapes[0][2]
        self.width = rows - 1
        self.spans: dict[str, tuple[int, int]] = {}
        self.format = replace(Format.of(format), frame="none", alignment="natural")
        if "cross" in self.matrices:
            keys = self.matrices["cross"].shape[-1]
            self.spans = find_spans(self.format.task, self.width, keys)
            self.format = replace(self.format, frame="tokens" if FRAME[0] in self.spans else "none")

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, MatrixBias)
            and self.format == other.format
            and self.matrices.keys() == other.matrices.keys()
            and all(torch.equal(m, other.matrices[site]) for site, m in self.matrices.items())
        )

    __hash__ = None  # type: ignore[assignment]  # compared by value, never a key

    @property
    def framed(self) -> bool:
        """Whether the keys of `cross` begin with a start token and end with an end token."""
        return self.format.frame == "tokens"

    @property
    def layers(self) -> int | None:
        """The decoder layers that have matrices of their own, or None where all share one."""
        most = max(len(matrix) for matrix in self.matrices.values())
        return None if most == 1 else most

    def keys(self, site: Site, layout: Layout) -> Tensor:
        """For each key of a layout the key of the matrices, int64 `[key]`; -1 where they have none.

        Raises:
            ValueError: when the layout is wider than the matrices.
        """
        if layout.width > self.width:
            raise ValueError(
                f"the matrices hold operands padded to {self.width} digits, but {layout.width} were "
                f"asked for; `lengthwise convert` turns them into lines, which are defined at every width"
            )
        if site == "self":
            return torch.arange(layout.target_length)
        keys = torch.full((layout.source_length,), -1)
        anchors = layout.anchors(site)
        for name, (start, stop) in self.spans.items():
            if name in anchors:
                span = anchors[name]
                columns = torch.arange(min(stop - start, layout.width) if span.grows else 1)
                places, _ = layout.find(name, [columns] if span.grows else [])
                # Matrices for a reversed source are reversed, too.
                keys[places] = stop - 1 - columns if span.backwards else start + columns
        return keys

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        """See `AttentionBias.dense`.

        Raises:
            ValueError: when the layout is wider than the matrices, or the layer has none.
        """
        keys = self.keys(site, layout)
        if site not in self.matrices:
            return Causal(self.heads).dense(site, layer, layout, queries)
        matrices = self.matrices[site]
        if len(matrices) > 1 and layer >= len(matrices):
            raise ValueError(f"the bias has matrices for {len(matrices)} layers, none for {layer}")
        matrix = matrices[layer if len(matrices) > 1 else 0][:, queries.start : queries.stop]
        bias = matrix[:, :, keys.clamp(min=0)].masked_fill(keys < 0, CLOSED)
        return bias + causal(len(keys), queries) if site == "self" else bias

    def open_keys(self, site: Site, layer: int, layout: Layout, queries: range) -> OpenKeys | None:
        """See `AttentionBias.open_keys`; None where some row has more than a few open keys."""
        dense = self.dense(site, layer, layout, queries)
        slots = max(1, int((dense > CLOSED).sum(dim=-1).max()))
        if slots > min(_FEW_SLOTS, dense.shape[-1]):
            return None
        value, index = dense.topk(slots, dim=-1)
        return OpenKeys(index.masked_fill(value == CLOSED, 0), value)

    def __str__(self) -> str:
        sizes = {site: tuple(matrix.shape[1:]) for site, matrix in self.matrices.items()}
        named = ", ".join(f"{site} {size}" for site, size in sizes.items())
        longest = self.width - self.format.task.growth
        text = (
            f"Matrices for {self.task}: {named}, {self.heads} heads; operands padded to {self.width} "
            f"digits, so problems of at most {longest}"
        )
        if not self.spans:
            return text
        where = "; ".join(
            f"{name} is key {start}" if stop == start + 1 else f"{name} keys {start} to {stop - 1}"
            for name, (start, stop) in self.spans.items()
        )
        frame = (
            "\n  The source is framed by a start and an end token: a key here is one less in a source "
            "without frame (data.frame = 'none')"
        )
        return f"{text}\n  Keys of cross: {where}{frame if self.framed else ''}"

    def __repr__(self) -> str:
        return f"MatrixBias({self.task}: {self.heads} heads, at most {self.width} digits)"

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; it appears whole or not at all.

        Raises:
            InputError: where `path` is no path, or a folder.
        """
        path = as_file("path", path, "bias.safetensors")
        about = {"format": FORMAT, "task": json.dumps(self.format.to_dict())}
        save_tensors(path, self.matrices, about)

    @classmethod
    def load(cls, path: Path | str, task: str | None = None) -> MatrixBias:
        """Read matrices: a file that `save` wrote, or dense matrices `cross.0`, `self.0`, ...

        Args:
            task: the task's name, for files that do not say it.

        Raises:
            InputError: when it can't be read.
            ValueError: in one sentence, when the file holds something else.
        """
        path = as_file("path", path, "bias.safetensors")
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if str(about.get("format")).startswith("lengthwise-"):
                check_format(about["format"], FORMAT)
        except OSError as error:
            raise InputError(f"can't read bias {path}: {error.strerror or error}") from error
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} does not hold matrices: {error}") from error
        said = about.get("task", task) or ""
        if not said.startswith("{") and said not in TASKS:
            raise ValueError(f"{path} does not say the task that it is for; name it with --task")
        try:
            format = Format.read(json.loads(said) if said.startswith("{") else said)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} does not hold matrices: {error}") from error
        found: dict[Site, Tensor] = {}
        for site in SITES:
            layers = sorted(
                (int(name.split(".")[1]), name)
                for name in tensors
                if name.startswith(f"{site}.") and name.split(".")[1].isdecimal()
            )
            if about.get("format") == FORMAT and site in tensors:
                found[site] = tensors[site]
            elif layers and [layer for layer, _ in layers] == list(range(len(layers))):
                stacked = torch.stack([tensors[name] for _, name in layers])
                same = bool((stacked == stacked[:1]).all())
                found[site] = stacked[:1] if same else stacked
        if not found:
            raise ValueError(
                f"{path} does not hold matrices: its tensors are {json.dumps(sorted(tensors))[:80]}"
            )
        return cls(format, found)


def _checked(site: Site, matrix: Tensor) -> Tensor:
    """A matrix with closed keys at `-inf`."""
    if matrix.ndim == 3:
        matrix = matrix[None]
    if matrix.ndim != 4 or 0 in matrix.shape or matrix.shape[2] < 2:
        raise ValueError(
            f"{site} matrices are [head, query, key] with at least two queries, got {list(matrix.shape)}"
        )
    if not matrix.is_floating_point():
        raise ValueError(f"{site} matrices hold floating-point numbers, got {matrix.dtype}")
    if site == "self" and matrix.shape[2] != matrix.shape[3]:
        raise ValueError(f"self matrices are square, got {list(matrix.shape[1:])}")
    matrix = matrix.detach().to("cpu", torch.float32)
    matrix = matrix.masked_fill(matrix <= CLOSED_THERE, CLOSED)
    if bool(matrix.isnan().any()) or bool((matrix >= -CLOSED_THERE).any()):
        raise ValueError(f"{site} matrices hold numbers below 1e6, got nan or more")
    return matrix


def find_spans(task: Transducer, width: int, keys: int) -> dict[str, tuple[int, int]]:
    """Where the segments of a source lie, given how many keys it has and the width of its answer.

    A source may be framed by a start and an end token, and its first operand may be narrower than the
    answer by what the paper's code leaves off it: 1 in a sum of even length, 2 in a product.

    Raises:
        ValueError: when no such source has that many keys.
    """
    sizes = {s.name: width if s.grows else 1 for s in task.segments if s.name not in FRAME}
    growing = [segment.name for segment in task.segments if segment.grows]
    narrower = [0] if len(sizes) == 1 else [0, 1] if len(growing) > 1 else [0, 2]
    possible = set()
    for framed, less in product((True, False), narrower):
        own = sizes | dict.fromkeys(growing[:1], width - less)
        if framed:
            own = {FRAME[0]: 1, **own, FRAME[1]: 1}
        stops = list(accumulate(own.values()))
        if stops[-1] == keys and min(own.values()) > 0:
            return {name: (stop - own[name], stop) for name, stop in zip(own, stops, strict=True)}
        possible.add(stops[-1])
    known = ", ".join(map(str, sorted(possible)))
    raise ValueError(
        f"cross matrices of {width + 1} rows hold answers of {width} digits; a source of {task.name} then "
        f"has {known} keys, not {keys}"
    )
