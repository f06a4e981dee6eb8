"""The attention maps of a person's own model, measured as those of ours are."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lengthwise.arguments import as_whole
from lengthwise.bias import CLOSED, AttentionBias, Causal, Track
from lengthwise.calibration.maps import AttentionMaps, Knockout, capture_problems, measure
from lengthwise.errors import InputError
from lengthwise.model.loop import Output
from lengthwise.own_models.adapter import Adapter, refuse_applied
from lengthwise.own_models.reading import Place, Reading
from lengthwise.own_models.tokens import SomeTokens, Tokens
from lengthwise.own_models.wrap import adapter_of
from lengthwise.problems.format import Format
from lengthwise.problems.layout import ANSWER
from lengthwise.problems.sampling import generator

_PROBLEMS = 512


def capture_own(
    model: nn.Module | Adapter,
    format: Format | str,
    *,
    length: int,
    width: int | None = None,
    tokens: SomeTokens = None,
    problems: int = _PROBLEMS,
    seed: int = 0,
) -> AttentionMaps:
    """Average what a model's heads read, and measure what each line is worth to it.

    The problems are drawn here, as numbers of `length` digits, and written in the model's tokens. Where
    problem and answer lie in one sequence, keys of the problem are the site `cross`, those of the answer
    `self`, and a line is closed to queries of the answer alone.

    Args:
        model: as it was trained, with its own positions.
        format: a task's name or file, or the format that the problems are written in.
        length: digits of the longest operand that it was trained on.
        width: digits that operands are padded to; by default what the answer needs.
        tokens: see `Tokens`.
        problems: how many are looked at.
        seed: of the problems.

    Raises:
        InputError: for a model whose attention can't be captured, and for problems that it can't read;
            for a task that is none, and for sheets.
    """
    format = format if isinstance(format, Format) else Format.of_task(format)
    if format.is_sheet:
        raise InputError(
            f"{format.name} is written on sheets; models of your own are captured on tasks of one row, "
            f"such as addition"
        )
    known = Tokens(format, tokens)
    adapter = adapter_of(model, known)
    refuse_applied(adapter.module)
    length = as_whole("length", length, 1)
    least = length + format.task.growth
    layout = format.at(least if width is None else as_whole("width", width, least))
    rng = generator(as_whole("seed", seed), "capture")
    operands = capture_problems(layout, rng, as_whole("problems", problems, 1), length, "any")
    device = next((p.device for p in adapter.module.parameters()), torch.device("cpu"))
    source, target = (known.of(one).to(device) for one in layout.batch(operands))

    def answer(bias: AttentionBias, attention: bool) -> Output:
        reading = Reading(bias, known, adapter.kind, adapter.heads, adapter.layers)
        return adapter.output(reading, source, target[:, :-1], attention)

    _check_obeys(adapter, known, source[:2], target[:2, :-1])
    causal = Causal(adapter.heads)
    return measure(answer, causal, format, layout, length, target[:, 1:])


def _check_obeys(adapter: Adapter, tokens: Tokens, source: Tensor, target: Tensor) -> None:
    """Refuse a model that takes a bias and does not add it: some keys of each site are closed to it.

    Raises:
        InputError: for it.
    """
    operand = next(segment.name for segment in tokens.format.task.segments if segment.grows)
    bias = Knockout(Causal(adapter.heads), Track.along(operand))
    bias = Knockout(bias, Track.along(ANSWER, -2))
    reading = Reading(bias, tokens, adapter.kind, adapter.heads, adapter.layers)
    adapter.output(reading, source, target, attention=True)
    reading.begin(source.shape[1])
    for (site, layer), weights in (reading.attention or {}).items():
        place: Place = "cross" if site == "cross" else "self"
        rows, keys = weights.shape[-2:]
        given = reading.at(place, layer, rows, keys)
        assert given is not None
        if bool((weights.cpu().float() * (given == CLOSED)).any()):
            raise InputError(
                f"layer {layer} of {type(adapter.module).__name__} attends to keys that the bias "
                f"closes: its attention does not add the bias (is it fused, or is_causal?)"
            )
