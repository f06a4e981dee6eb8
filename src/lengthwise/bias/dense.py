"""Lines written as the matrices that they are at one width, for whoever wants those."""

from __future__ import annotations

from pathlib import Path

from lengthwise.bias.base import SITES
from lengthwise.bias.lines import CalibratedBias
from lengthwise.errors import InputError
from lengthwise.files import save_tensors
from lengthwise.problems.layout import Layout

# Bytes of dense matrices that are written; more are of no use to anyone who can compute them.
DENSE_LIMIT = 4 << 30


def save_dense(path: Path, bias: CalibratedBias, layout: Layout, layers: int) -> None:
    """Write a bias as matrices `[head, query, key]`, safetensors named `cross.0`, `self.0`, ...

    Raises:
        InputError: when they would take more than `DENSE_LIMIT` bytes.
    """
    rows = range(layout.target_length)
    check_dense(layers * bias.heads, layout)
    save_tensors(
        path,
        {
            f"{site}.{layer}": bias.dense(site, layer, layout, rows)
            for site in SITES
            for layer in range(layers)
        },
    )


def check_dense(heads: int, layout: Layout) -> None:
    """Refuse to lay out a bias of so many heads, of all layers, as matrices that nobody could use.

    Raises:
        InputError: when they would take more than `DENSE_LIMIT` bytes.
    """
    size = 4 * heads * layout.target_length * sum(layout.keys(site) for site in SITES)
    if size > DENSE_LIMIT:
        raise InputError(
            f"dense matrices for {layout.width} columns take {size / 2**30:.1f} GiB; the limit is "
            f"{DENSE_LIMIT >> 30} GiB. The bias itself is right at every length"
        )
