"""Greedy decoding: exact, by whichever way is fastest; all of them write the same tokens.

Models whose bias consists of lines are decoded by these alone (`any_rows.py`), in parallel or sequentially;
others row by row, with a cache of all keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lengthwise.bias import AttentionBias, CalibratedBias, is_local
from lengthwise.decoding.any_rows import AnyRows, Streams
from lengthwise.decoding.lookup import decode_by_lookup, make_table
from lengthwise.decoding.parallel import decode_in_parallel
from lengthwise.decoding.walks import MANY, decode_sequentially
from lengthwise.model.attention import Path, plan_attention
from lengthwise.model.plans import LayerPlan
from lengthwise.model.transformer import Transformer
from lengthwise.problems.layout import Layout
from lengthwise.problems.sheets import SheetLayout

Decode = Literal["auto", "parallel", "sequential"]

# Rows whose plan is laid out at once: few enough to be small, many enough to be cheap.
_CHUNK = 64


def greedy_decode(
    model: Transformer,
    bias: AttentionBias,
    layout: Layout,
    source: Tensor,
    path: Path = "auto",
    decode: Decode = "auto",
) -> Tensor:
    """Write the answers: each row takes the likeliest token after those written before it.

    Decoding runs for the rows of the layout, as many as a right answer and its end token need; a
    problem that has written the end token writes it again in every later row.

    Args:
        model: the model, in evaluation mode.
        bias: the bias it was trained with.
        layout: the task at one width.
        source: tokens `[problem, source position]`.
        path: the attention path; `dense` takes the cache, for any bias.
        decode: `parallel` or `sequential` where the bias consists of lines; `auto` chooses.

    Returns:
        Tokens `[problem, width + 1]`, the end token last when all went well.

    Raises:
        ValueError: when `parallel` is asked for and the bias or the path does not allow it.
    """
    local = model.pointwise and path in ("auto", "lines")
    if local and is_local(bias):
        streams = Streams([layout] * len(source), list(source.cpu().numpy().astype(np.uint8)))
        decode_streams(model, bias, streams, decode, device=source.device)
        written = streams.written.reshape(len(source), -1).astype(np.int64)
        return torch.from_numpy(written).to(source.device)
    if decode == "parallel":
        raise ValueError(
            f"parallel decoding needs a bias that consists of lines, and attention 'auto' or 'lines'; "
            f"{type(bias).__name__} with attention {path!r} allows sequential decoding alone"
        )
    return decode_with_cache(model, bias, layout, source, path)


@torch.inference_mode()
def decode_streams(
    model: Transformer,
    bias: CalibratedBias,
    streams: Streams,
    decode: Decode = "auto",
    *,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int], object] = lambda rows: None,
) -> None:
    """Answer problems of any widths, into `streams.written`.

    Args:
        model: the model, in evaluation mode.
        bias: the bias it was trained with; one of lines alone (`is_local`).
        decode: as in `greedy_decode`.
        device: where the model is.
        on_progress: called with the number of rows that are done.
    """
    any_rows = AnyRows(model, bias, streams, device)
    if decode == "parallel":
        decode_in_parallel(any_rows, on_progress, walks=False)
    elif decode == "sequential":
        decode_sequentially(any_rows, on_progress)
    elif len(streams) < MANY:
        decode_in_parallel(any_rows, on_progress)
    else:
        # Side by side until few are left; these go on in parallel.
        table = make_table(any_rows)
        if table is not None:
            left = decode_by_lookup(table, on_progress, MANY)
        else:
            left = decode_sequentially(any_rows, on_progress, MANY)
        if len(left):
            decode_in_parallel(any_rows, on_progress, begun=left)


@torch.inference_mode()
def decode_with_cache(
    model: Transformer,
    bias: AttentionBias,
    layout: Layout | SheetLayout,
    source: Tensor,
    path: Path = "auto",
) -> Tensor:
    """As `greedy_decode`, row by row, with the keys and values of all rows before: for any bias."""
    rows, layers = layout.target_length, len(model.layers)
    end = layout.vocabulary.end
    tokens = torch.full((len(source),), layout.vocabulary.start, device=source.device)
    ended = torch.zeros_like(tokens, dtype=torch.bool)
    written = torch.full((len(source), rows), end, device=source.device)
    view = None
    for first in range(0, rows, _CHUNK):
        chunk = range(first, min(first + _CHUNK, rows))
        plan = plan_attention(
            *(bias, layout, layers),
            queries=chunk,
            path=path,
            device=source.device,
            encoder=view is None and model.encodes,
        )
        view = model.begin(source, rows, plan) if view is None else view
        for row in chunk:
            logits = model.step(tokens, row, view, [cut(sites, row, first) for sites in plan])
            tokens = logits.argmax(dim=-1).masked_fill(ended, end)
            written[:, row] = tokens
            ended = tokens == end
        if bool(ended.all()):
            break
    return written


def cut(plan: LayerPlan, row: int, first: int = 0) -> LayerPlan:
    """The plan of one row, of a plan of rows from `first` on; its keys at self-attention end with it."""
    own, cross = plan["self"], plan["cross"]
    return {"self": own.row(row - first, row + 1), "cross": cross.row(row - first)}
