"""What a trained model reads: its attention maps, and what each line of them is worth to it.

The model returns its own attention weights; nothing is patched and no hook is left behind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lengthwise.arguments import as_file
from lengthwise.bias import (
    CLOSED,
    SITES,
    AttentionBias,
    OpenKeys,
    Site,
    SomeSite,
    Track,
    encoder_bias,
    in_coordinates,
    read_track,
    relative_index,
    track_row,
)
from lengthwise.errors import NoProblemsError
from lengthwise.files import check_format, from_json, save_tensors
from lengthwise.model import plan_attention
from lengthwise.model.loop import Output
from lengthwise.problems.format import Format, OfFormat
from lengthwise.problems.layout import ANSWER, Layout
from lengthwise.problems.sampling import Split, generator, suite_problems
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError

FORMAT, EARLIER = "lengthwise-maps/2", "lengthwise-maps/1"

# A line is a candidate when it has a key on nearly all rows of real digits.
_COVERAGE = 0.8


@dataclass(frozen=True, eq=False)  # tensors don't compare to a truth value
class AttentionMaps(OfFormat):
    """How the heads of a model attend on average, over problems of the training length.

    Attributes:
        format: of these problems.
        length: digits of the operands of these problems.
        width: digits that they were padded to.
        problems: number of problems averaged; half of them carry chains.
        weights: per site, float32 `[layer, head, query, key]`.
        exact_match: share of these problems that the model answers right.
        knockout: per candidate track, what it costs to close it to every head of every layer: the
            rise of the loss of a problem, nats, summed over its symbols.
        model: the fingerprint of the run whose attention it is; maps of version 0.1 do not say.
        joint: whether problem and answer are read in one attention, whose weights are then parted.
    """

    format: Format
    length: int
    width: int
    problems: int
    weights: dict[Site, Tensor]
    exact_match: float
    knockout: dict[Track, float]
    model: str = ""
    joint: bool = False

    @property
    def layout(self) -> Layout:
        """The layout of the problems."""
        return self.format.at(self.width)

    def __repr__(self) -> str:
        layers, heads = self.weights["cross"].shape[:2]
        return (
            f"AttentionMaps({self.task}: {layers} layers of {heads} heads, mean of {self.problems} "
            f"problems of at most {self.length} digits)"
        )

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; it appears whole or not at all.

        Raises:
            InputError: where `path` is no path, or a folder.
        """
        path = as_file("path", path, "maps.safetensors")
        names = ("length", "width", "problems", "exact_match", "model", "joint")
        about = {
            "format": FORMAT,
            "task": self.format.to_dict(),
            **{name: getattr(self, name) for name in names},
            "knockout": [[track_row(track), cost] for track, cost in self.knockout.items()],
        }
        save_tensors(path, self.weights, {"about": json.dumps(about)})

    @classmethod
    def load(cls, path: Path | str) -> AttentionMaps:
        """Read maps.

        Raises:
            InputError: when the file is missing or broken.
        """
        path = as_file("path", path, "maps.safetensors")
        with reading(path):
            with safe_open(path, "pt") as file:
                about = from_json(file.metadata()["about"])
                if (found := about.pop("format", EARLIER)) == EARLIER:
                    names = {"base", "parameters", "alignment", "input_order", "frame"}
                    others = {name: about.pop(name) for name in names & about.keys()}
                    about["task"] = {"name": about["task"], **others}
                else:
                    check_format(found, FORMAT)
                weights: dict[Site, Tensor] = {site: file.get_tensor(site) for site in SITES}
            format = Format.read(about.pop("task"))
            places = format.at(about["width"])
            # Candidates are all in coordinates.
            knockout: Any = {
                in_coordinates(read_track(track), places): cost
                for track, cost in about.pop("knockout")
            }
            return cls(format, **about, weights=weights, knockout=knockout)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While a file of maps is read: what goes wrong is said in one sentence.

    Raises:
        InputError: for it.
    """
    try:
        yield
    except OSError as error:
        raise InputError(f"can't read attention maps {path}: {error}") from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} does not hold attention maps: {error}") from error


def real_rows(track: Track, layout: Layout, length: int) -> Tensor:
    """The rows in which a track meets a real digit rather than padding, int64 `[row]`.

    At `self` the first row is left out: it has one key, which gets all attention whatever the model
    learned. The row of the end token writes no digit.
    """
    rows = torch.arange(layout.target_length - 1)
    if track.offset is None:
        return rows[:length]
    column = rows + track.offset
    if track.site == "self":
        # Column -1 is the start token.
        return rows[(rows >= 1) & (column >= -1) & (rows <= length)]
    return rows[(column >= 0) & (column < length)]


def candidates(layout: Layout, length: int) -> list[Track]:
    """The tracks that calibration considers: every one is bounded, and stated in coordinates.

    They are columns of operands as far from the one being written as the problem is long, symbols, and what
    was written before. A track must meet a real digit in nearly all rows of a problem. A task whose rows
    have no columns has none.
    """
    if layout.task.writes is not None:
        return []
    found, anchors = [], layout.anchors("cross")
    for segment in layout.task.segments:
        if anchors[segment.name].grows:
            found += [Track.along(segment.name, k) for k in range(-length + 1, length)]
        else:
            found.append(Track(segment.name))
    found += [Track.along(ANSWER, -back) for back in range(1, length + 1)]
    return [t for t in found if len(real_rows(t, layout, length)) >= _COVERAGE * length]


class Knockout:
    """Another bias with one track closed to every head of every layer."""

    def __init__(self, bias: AttentionBias, track: Track) -> None:
        self.heads, self.bias, self.track = bias.heads, bias, track

    def dense(self, site: Site, layer: int, layout: Layout, queries: range) -> Tensor:
        bias = self.bias.dense(site, layer, layout, queries)
        if site != self.track.site:
            return bias
        query = torch.arange(queries.start, queries.stop)
        keys, inside = self.track.keys(layout, query)
        closed = torch.zeros(bias.shape[1:], dtype=torch.bool)
        closed[torch.arange(len(queries))[inside], keys[inside]] = True
        return bias.masked_fill(closed, CLOSED)

    def open_keys(self, site: Site, layer: int, layout: Layout, queries: range) -> OpenKeys | None:
        return None

    def relative(self, site: SomeSite, layout: Layout, queries: range) -> Tensor | None:
        return relative_index(self.bias, site, layout, queries)

    def encoder(self, layout: Layout) -> Tensor | None:
        return encoder_bias(self.bias, layout)


@torch.inference_mode()
def average_attention(run: Run, length: int) -> dict[Site, Tensor]:
    """A run's attention, averaged over 64 uniform problems of a length, longer than it was trained on too.

    Returns:
        Per site, float32 `[layer, head, query, key]`, the true answers being given.
    """
    layout = run.layout(length)
    operands = suite_problems(
        run.task,
        generator(run.config.seed, "capture", length),
        64,
        suite="uniform",
        length=length,
        width=layout.width,
        split="any",
    )
    source, target = (tokens.to(run.device) for tokens in layout.batch(operands))
    return _mean_weights(_answer(run, run.bias, layout, source, target, return_attention=True))


def _answer(
    run: Run,
    bias: AttentionBias,
    layout: Layout,
    source: Tensor,
    target: Tensor,
    return_attention: bool = False,
) -> Output:
    """What a run's model returns under some bias, the true answers being given."""
    layers, encoder = run.config.model.layers, run.model.encodes
    plan = plan_attention(bias, layout, layers, path="dense", device=run.device, encoder=encoder)
    return run.model(source, target[:, :-1], plan, return_attention)


def _mean_weights(output: Output) -> dict[Site, Tensor]:
    """The mean over problems of what a model returned, per site `[layer, head, query, key]`."""
    return {
        site: torch.stack([layer[site].mean(dim=0) for layer in output.attention]).cpu()
        for site in SITES
    }


def capture_problems(
    layout: Layout, rng: np.random.Generator, problems: int, length: int, split: Split
) -> np.ndarray:
    """Problems of exactly one length to look at attention with: half uniform, half with carry chains.

    Raises:
        NoProblemsError: when the split holds none of that length.
    """
    half = (problems + 1) // 2
    drawn = [
        suite_problems(
            layout.task, rng, half, suite=suite, length=length, width=layout.width, split=split
        )
        for suite in ("uniform", "carry")
    ]
    return np.concatenate(drawn)


@torch.inference_mode()
def capture(run: Run) -> AttentionMaps:
    """Average a run's attention over problems of its training length, and knock its lines out.

    The problems come from the training split (paper, section 5: a random subset of the training data;
    there the answers are decoded, here given, which is the same wherever the model is right). Half are
    uniform and half carry chains. The knockouts are ours: attention shows what a head looks at, a
    knockout whether it matters.

    Raises:
        InputError: when no problem of the training length is trained on.
    """
    config = run.config
    length, layout = config.covered_length, config.layout()
    try:
        operands = capture_problems(
            layout, generator(config.seed, "capture"), config.calibration.problems, length, "train"
        )
    except NoProblemsError as error:
        raise InputError(f"{error}; data.length must be more than {length}") from error
    source, target = (tokens.to(run.device) for tokens in layout.batch(operands))

    def answer(bias: AttentionBias, return_attention: bool) -> Output:
        return _answer(run, bias, layout, source, target, return_attention)

    return measure(
        *(answer, run.bias, config.format, layout, length, target[:, 1:]),
        model=run.fingerprint,
        joint=run.model.joint,
    )


def judge(output: Output, wanted: Tensor) -> tuple[float, float]:
    """Mean loss of a problem `[problem, row]`, and share of problems answered right."""
    losses = F.cross_entropy(output.logits.transpose(1, 2), wanted, reduction="none")
    right = ((output.logits.argmax(dim=-1) == wanted) | (wanted < 0)).all(dim=1)
    return losses.sum(dim=1).mean().item(), right.float().mean().item()


# What maps ask of any model: its output under a bias on some problems, the true answers being given.
Answer = Callable[[AttentionBias, bool], Output]


@torch.inference_mode()
def measure(
    answer: Answer,
    bias: AttentionBias,
    format: Format,
    layout: Layout,
    length: int,
    wanted: Tensor,
    *,
    model: str = "",
    joint: bool = False,
) -> AttentionMaps:
    """Average attention, and knock every candidate line out.

    Args:
        answer: the output of a model on the problems, under a bias; with attention where that is asked for.
        bias: the one that it was trained with.
        length: digits of their operands.
        wanted: what the model should write, `[problem, row]`.
        model: its fingerprint.
        joint: as of `AttentionMaps`.
    """
    weights = _mean_weights(answer(bias, True))
    loss, exact_match = judge(answer(bias, False), wanted)
    knockout = {
        track: judge(answer(Knockout(bias, track), False), wanted)[0] - loss
        for track in candidates(layout, length)
    }
    return AttentionMaps(
        format=format,
        length=length,
        width=layout.width,
        problems=len(wanted),
        weights=weights,
        exact_match=exact_match,
        knockout=knockout,
        model=model,
        joint=joint,
    )
