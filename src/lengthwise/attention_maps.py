"""What a trained model reads: its attention maps, and what each line of them is worth to it.

The model returns its own attention weights; nothing is patched and no hook is left behind.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
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
    relative_index,
)
from lengthwise.config import InputError
from lengthwise.files import check_format, write_with
from lengthwise.folder import MAPS, WEIGHTS
from lengthwise.layout import Alignment, InputOrder, Layout
from lengthwise.model import plan_attention
from lengthwise.model.transformer import Output
from lengthwise.run import Run
from lengthwise.tasks import add_frame, make_task
from lengthwise.tasks.sampling import NoProblemsError, generator, suite_problems

FORMAT = "lengthwise-maps/1"

# A line is a candidate when it has a key on nearly all rows of real digits.
_COVERAGE = 0.8


@dataclass(frozen=True, eq=False)  # tensors don't compare to a truth value
class AttentionMaps:
    """How the heads of a model attend on average, over problems of the training length.

    Attributes:
        task: name of the task.
        base: its base.
        length: digits of the operands of these problems.
        width: digits that they were padded to.
        problems: number of problems averaged; half of them carry chains.
        weights: per site, float32 `[layer, head, query, key]`.
        exact_match: share of these problems that the model answers right.
        knockout: per candidate track, what it costs to close it to every head of every layer: the
            rise of the loss of a problem, nats, summed over its symbols.
        alignment, input_order, frame: how the operands lay in the source, as in the settings' `data` part.
        parameters: what defines the task besides its base.
        model: the fingerprint of the run whose attention it is; maps of version 0.1 do not say.
    """

    task: str
    base: int
    length: int
    width: int
    problems: int
    weights: dict[Site, Tensor]
    exact_match: float
    knockout: dict[Track, float]
    alignment: Alignment = "natural"
    input_order: InputOrder = "normal"
    parameters: dict[str, int | str] = field(default_factory=dict)
    frame: str = "none"
    model: str = ""

    @property
    def layout(self) -> Layout:
        """The layout of the problems."""
        task = make_task(self.task, self.base, **self.parameters)
        task = add_frame(task) if self.frame == "tokens" else task
        return Layout(task, self.width, self.alignment, self.input_order)

    def __repr__(self) -> str:
        layers, heads = self.weights["cross"].shape[:2]
        return (
            f"AttentionMaps({self.task}: {layers} layers of {heads} heads, mean of {self.problems} "
            f"problems of at most {self.length} digits)"
        )

    def plot(self, path: Path | str | None = None):
        """Draw a panel for each layer, site and head; write it to `path`, or return the figure."""
        from lengthwise.report.plots import attention_maps

        return attention_maps(self, path)

    def _repr_png_(self) -> bytes:
        return self.plot()._repr_png_()  # type: ignore[union-attr]  # no path was given

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; it appears whole or not at all.

        Raises:
            InputError: where `path` is no path, or a folder.
        """
        path = as_file("path", path, "maps.safetensors")
        about = {
            "format": FORMAT,
            "task": self.task,
            "base": self.base,
            "length": self.length,
            "width": self.width,
            "problems": self.problems,
            "exact_match": self.exact_match,
            "alignment": self.alignment,
            "input_order": self.input_order,
            "parameters": self.parameters,
            "frame": self.frame,
            "model": self.model,
            "knockout": [[asdict(track), cost] for track, cost in self.knockout.items()],
        }
        tensors = {site: weights.contiguous() for site, weights in self.weights.items()}
        metadata = {"about": json.dumps(about)}
        write_with(path, lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: Path | str) -> AttentionMaps:
        """Read maps.

        Raises:
            InputError: when the file is missing or broken.
        """
        path = as_file("path", path, "maps.safetensors")
        try:
            with safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["about"])
                check_format(about.pop("format", FORMAT), FORMAT)
                weights: dict[Site, Tensor] = {site: file.get_tensor(site) for site in SITES}
            knockout = {Track(**track): cost for track, cost in about.pop("knockout")}
            return cls(**about, weights=weights, knockout=knockout)
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
    if track.site == "self":
        return rows[(rows >= 1) & (rows + track.offset >= 0) & (rows <= length)]
    if track.direction == "vertical":
        return rows[:length]
    column = rows + track.offset
    return rows[(column >= 0) & (column < length)]


def candidates(layout: Layout, length: int) -> list[Track]:
    """The tracks that calibration considers: every one is bounded, and anchored to a segment.

    Cross-attention: anti-diagonals of operands (diagonals where the input is reversed), verticals of
    one-symbol segments. Self-attention: diagonals. A vertical on a segment that grows is none of them:
    the column that holds the start of an operand at one width holds another digit at the next. A track
    must meet a real digit in nearly all rows of a problem. A task whose rows have no columns has none.
    """
    if layout.task.writes is not None:
        return []
    found, anchors = [], layout.anchors("cross")
    for segment in layout.task.segments:
        if anchors[segment.name].grows:
            direction, offsets = layout.digit_direction, range(-length + 1, length)
            found += [Track("cross", segment.name, direction, offset) for offset in offsets]
        else:
            found.append(Track("cross", segment.name, "vertical"))
    found += [Track("self", "answer", "diagonal", -back) for back in range(length)]
    return [t for t in found if len(real_rows(t, layout, length)) >= _COVERAGE * length]


class Knockout:
    """Another bias with one track closed to every head of every layer."""

    def __init__(self, bias: AttentionBias, track: Track) -> None:
        self.heads, self.bias, self.track = bias.heads, bias, track

    def dense(self, site: Site, layer: int, layout: Layout, rows: range) -> Tensor:
        bias = self.bias.dense(site, layer, layout, rows)
        if site != self.track.site:
            return bias
        queries = torch.arange(rows.start, rows.stop)
        keys, inside = self.track.keys(layout.anchors(site)[self.track.segment], queries)
        closed = torch.zeros(bias.shape[1:], dtype=torch.bool)
        closed[torch.arange(len(rows))[inside], keys[inside]] = True
        return bias.masked_fill(closed, CLOSED)

    def open_keys(self, site: Site, layer: int, layout: Layout, rows: range) -> OpenKeys | None:
        return None

    def relative(self, site: SomeSite, layout: Layout, rows: range) -> Tensor | None:
        return relative_index(self.bias, site, layout, rows)

    def encoder(self, layout: Layout) -> Tensor | None:
        return encoder_bias(self.bias, layout)


@torch.inference_mode()
def average_attention(run: Run, length: int, problems: int = 64) -> dict[Site, Tensor]:
    """A run's attention, averaged over uniform problems of any length, longer than it was trained on too.

    Returns:
        Per site, float32 `[layer, head, query, key]`, the true answers being given.
    """
    layout = run.layout(length)
    operands = suite_problems(
        run.task,
        generator(run.config.seed, "capture", length),
        problems,
        suite="uniform",
        length=length,
        width=layout.width,
        split="any",
    )
    source, target = (tokens.to(run.device) for tokens in layout.batch(operands))
    plan = plan_attention(
        *(run.bias, layout, run.config.model.layers),
        path="dense",
        device=run.device,
        encoder=run.model.encodes,
    )
    output = run.model(source, target[:, :-1], plan, return_attention=True)
    return _mean_weights(output)


def _mean_weights(output: Output) -> dict[Site, Tensor]:
    """The mean over problems of what a model returned, per site `[layer, head, query, key]`."""
    return {
        site: torch.stack([layer[site].mean(dim=0) for layer in output.attention]).cpu()
        for site in SITES
    }


@torch.inference_mode()
def capture(run: Run) -> AttentionMaps:
    """Average a run's attention over problems of its training length, and knock its lines out.

    The problems come from the training split (paper, section 5: a random subset of the training data;
    there the answers are decoded, here given, which is the same wherever the model is right). Half are
    uniform and half carry chains. The knockouts are ours: attention shows what a head looks at, a
    knockout whether it matters.

    Returns:
        The maps.

    Raises:
        InputError: when no problem of the training length is trained on.
    """
    config, model = run.config, run.model
    length, layout = config.covered_length, config.layout(task=run.task)
    rng = generator(config.seed, "capture")
    half = (config.calibration.problems + 1) // 2
    try:
        operands = [
            suite_problems(
                run.task, rng, half, suite=suite, length=length, width=layout.width, split="train"
            )
            for suite in ("uniform", "carry")
        ]
    except NoProblemsError as error:
        raise InputError(f"{error}; data.length must be more than {length}") from error
    source, target = (tokens.to(run.device) for tokens in layout.batch(np.concatenate(operands)))

    def plan(bias: AttentionBias) -> list:
        layers = config.model.layers
        return plan_attention(
            bias, layout, layers, path="dense", device=run.device, encoder=model.encodes
        )

    def answers(bias: AttentionBias) -> tuple[float, float]:
        """Mean loss of a problem, and share of problems answered right."""
        logits = model(source, target[:, :-1], plan(bias)).logits
        losses = F.cross_entropy(logits.transpose(1, 2), target[:, 1:], reduction="none")
        right = (logits.argmax(dim=-1) == target[:, 1:]).all(dim=1)
        return losses.sum(dim=1).mean().item(), right.float().mean().item()

    output = model(source, target[:, :-1], plan(run.bias), return_attention=True)
    weights = _mean_weights(output)
    loss, exact_match = answers(run.bias)
    knockout = {
        track: answers(Knockout(run.bias, track))[0] - loss for track in candidates(layout, length)
    }
    return AttentionMaps(
        task=config.task,
        base=config.base,
        length=length,
        width=layout.width,
        problems=len(source),
        weights=weights,
        exact_match=exact_match,
        knockout=knockout,
        alignment=config.data.alignment,
        input_order=config.data.input_order,
        parameters=config.parameters,
        frame=config.data.frame,
        model=run.fingerprint,
    )


def kept_maps(run: Run) -> AttentionMaps | None:
    """The maps that lie beside a run's weights; None where none do, or those of another model.

    Raises:
        InputError: when the file is broken.
    """
    if not all((run.path / name).exists() for name in (MAPS, WEIGHTS)):
        return None
    maps = AttentionMaps.load(run.path / MAPS)
    return maps if maps.model in ("", run.fingerprint) else None
