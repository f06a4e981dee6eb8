"""Answering problems of any lengths, side by side: by their lines alone where the bias allows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from lengthwise.bias import AttentionBias, is_local
from lengthwise.decoding.any_rows import Streams
from lengthwise.decoding.greedy import decode_streams, decode_with_cache
from lengthwise.model import POSITIONS, Transformer
from lengthwise.problems.layout import Layout
from lengthwise.settings.config import Config, InputError

# Rows and source tokens, of all problems of a batch, whose keys and values a cache may hold.
_CACHED = 400_000

# Digits that decoding side by side may hold; more problems wait.
_DIGITS = 4_000_000


def follows_lines(config: Config, bias: AttentionBias) -> bool:
    """Whether memory and time follow the open keys: the bias has lines alone, and so has the path."""
    model, paths = config.model, ("auto", "lines")
    # As `Transformer.pointwise`; the model itself need not be made to ask.
    pointwise = not model.encoder_layers and POSITIONS[model.positions].kind not in (
        "rotate",
        "ids",
    )
    return config.attention in paths and pointwise and is_local(bias)


def check_ways(bias: AttentionBias, config: Config) -> None:
    """Refuse ways of computing that a bias does not allow.

    Raises:
        InputError: for `lines` or `parallel` where a row may read ever more keys.
    """
    for name, way in (("attention", "lines"), ("decode", "parallel")):
        if getattr(config, name) == way and not follows_lines(config, bias):
            raise InputError(
                f"{name} {way!r} needs a calibrated bias of lines and attention 'auto' or 'lines', those "
                f"of the answer a fixed way back (answer[c-1]); this is a {type(bias).__name__} bias with "
                f"attention {config.attention!r}; use {name} 'auto'"
            )


def decode_problems(
    model: Transformer,
    bias: AttentionBias,
    config: Config,
    layouts: list[Layout],
    source: Callable[[int], np.ndarray],
    *,
    device: torch.device,
    on_progress: Callable[[int, int], object],
) -> Iterator[tuple[int, np.ndarray]]:
    """Decode problems greedily, in batches.

    Args:
        model, bias, config: the run's; `attention` and `decode` choose the way.
        layouts: the layout of each problem.
        source: gives the source tokens of a problem by its number, uint8.
        device: where the model is.
        on_progress: called with the symbols written, and how many there will be.

    Yields:
        The number of a problem, and the tokens written, batch by batch.
    """
    local = follows_lines(config, bias)
    symbols = sum(layout.target_length for layout in layouts)
    before = 0
    for chosen in _batches(layouts, local):
        own = [layouts[i] for i in chosen]
        sources = [source(i) for i in chosen]
        if local:
            streams = Streams(own, sources)
            decode_streams(
                model,
                bias,  # type: ignore[arg-type]  # one of lines
                streams,
                config.decode,
                device=device,
                on_progress=lambda done, before=before: on_progress(before + done, symbols),
            )
            written = np.split(streams.written, streams.first[1:-1])
        else:
            batch = torch.from_numpy(np.stack(sources).astype(np.int64)).to(device)
            found = decode_with_cache(model, bias, own[0], batch, config.attention)
            written = found.cpu().numpy()
        before += sum(layout.target_length for layout in own)
        on_progress(before, symbols)
        yield from zip(chosen, written, strict=True)


def _batches(layouts: list[Layout], local: bool) -> Iterator[list[int]]:
    """Which problems go together: by lines neighbours, with a cache those of one width."""
    order = list(range(len(layouts)))
    if not local:
        order.sort(key=lambda i: layouts[i].width)
    batch, held = [], 0
    for i in order:
        size = layouts[i].target_length + layouts[i].source_length
        alike = local or not batch or layouts[i].width == layouts[batch[0]].width
        if batch and (held + size > (_DIGITS if local else _CACHED) or not alike):
            yield batch
            batch, held = [], 0
        batch.append(i)
        held += size
    if batch:
        yield batch
