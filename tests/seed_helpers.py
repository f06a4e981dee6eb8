"""Look-alikes of the files of the paper's own repository, and where the real ones lie on some machines."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

REAL = Path(__file__).parents[2] / "shared" / "data" / "attention-bias-calibration"
if not REAL.is_dir():
    REAL = Path(__file__).parents[1] / "shared" / "data" / "attention-bias-calibration"

CLOSED = -1e6

# Which operands each cross head reads, with what value, and how far back each self head reads.
CROSS_HEADS = (
    {"b": 3.0},
    {"b": 4.0},
    {},
    {"b": 3.1},
    {"a": 1.7, "b": 1.0},
    {"b": 4.0},
    {"a": 3.7},
    {"a": 2.8},
)
SELF_HEADS = (
    {0: 3.9},
    {1: 3.8},
    {0: 2.9},
    {0: 4.0},
    {0: 3.5},
    {0: 2.5, 1: 3.4},
    {0: 2.4, 1: 2.5},
    {0: 3.7},
)

INI = """[Vocabulary]
SOS = ^
# Start of a sequence
EOS = $
PAD = @
FIXED_LEN = {fixed_len} # a comment
# We pad to this length
BASE = 10
INCLUDE_OPS = True

[Data]
MAX_NUM = {max_num} # another
split_ratio = 7/8
BATCH_SIZE = {batch_size}
REVERSE_INPUT = False

[Model]
MODE = {mode}
LOAD_PRETRAINED = False
EMB_SIZE = {emb_size}
NHEAD = {nhead}
FFN_HID_DIM = 64
NUM_ENCODER_LAYERS = 3
NUM_DECODER_LAYERS = {layers}
DROP_OUT = 0.0
ATTN_WINDOW = -1
DEBUG_MODE = False
HALF = {half}
MODEL_TYPE = Vanilla
LOAD_WINDOW = False
WINDOW_PATH = None #a path
WINDOW_SELF_PATH = None #a path

[Device]
DEVICE = cpu
"""


def make_ini(path: Path, mode: str = "CNT", extra: str = "", **changes) -> Path:
    """Write a settings file like theirs; `extra` replaces lines by name: `"BASE = 3\\nPAD = x"`."""
    values = {
        "fixed_len": 23 if mode == "ADD" else 8,
        "max_num": "1024*1024",
        "batch_size": 64,
        "emb_size": 32,
        "nhead": 4,
        "layers": 2,
        "half": 2 if mode == "ADD" else 1,
        **changes,
    }
    lines = INI.format(mode=mode, **values).splitlines()
    for line in extra.splitlines():
        name = line.split("=")[0].strip()
        kept = [old for old in lines if old.split("=")[0].strip() != name]
        if len(kept) == len(lines):
            kept.insert(kept.index("[Model]") + 1, line)
        else:
            kept.insert(
                next(i for i, old in enumerate(lines) if old.split("=")[0].strip() == name), line
            )
        lines = kept
    path.write_text("\n".join(lines) + "\n")
    return path


def windows(width: int = 61) -> tuple[Tensor, Tensor]:
    """Cross and self tensors with the lines of the `*_120_5` pair, drawn through the whole matrix.

    As there, row 0 may also read the end token, the lines run on through '+' and '^' in the last row, and
    the row before which nothing lies is closed altogether.
    """
    rows, keys = width + 1, 2 * width + 3
    cross = torch.full((8, rows, keys), CLOSED)
    own = torch.full((8, rows, rows), CLOSED)
    for head in range(8):
        for row in range(rows):
            for name, value in CROSS_HEADS[head].items():
                cross[head, row, (keys - 2 if name == "b" else width) - row] = value
            for back, value in SELF_HEADS[head].items():
                if row >= back:
                    own[head, row, row - back] = value
        cross[head, 0, -1] = 0.0
    return cross, own


def save_windows(folder: Path, width: int = 61) -> tuple[Path, Path]:
    """Write look-alikes of the pair of files."""
    cross, own = folder / "windowCross.t", folder / "windowSelf.t"
    for path, tensor in zip((cross, own), windows(width), strict=True):
        torch.save(tensor, path)
    return cross, own


class Passed(nn.Module):
    """An encoder that gives back what it gets."""

    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        return src


class TorchModel(nn.Module):
    """A model of `torch.nn.Transformer` with the identity for an encoder, its parts named as there."""

    def __init__(self, tokens: int, *, width=32, heads=4, layers=2, feed_forward=64) -> None:
        super().__init__()
        self.transformer = nn.Transformer(
            width, heads, 1, layers, feed_forward, dropout=0.0, custom_encoder=Passed()
        )
        self.generator = nn.Linear(width, tokens)
        self.tok_emb = nn.Module()
        self.tok_emb.embedding = nn.Embedding(tokens, width)
        self.positional_encoding = nn.Module()
        angles = torch.arange(500)[:, None] * torch.exp(
            torch.arange(0, width, 2) * (-math.log(10000) / width)
        )
        table = torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)
        self.positional_encoding.register_buffer("pos_embedding", table[:, None])
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    def forward(self, source: Tensor, target: Tensor, cross: Tensor | None = None) -> Tensor:
        """Logits `[problem, row, token]` of tokens in their numbering; `cross` is added to all heads."""

        def embed(tokens: Tensor) -> Tensor:
            tokens = tokens.T
            embedded = self.tok_emb.embedding(tokens) * math.sqrt(
                self.tok_emb.embedding.embedding_dim
            )
            return embedded + self.positional_encoding.pos_embedding[: len(tokens)]

        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        out = self.transformer(embed(source), embed(target), tgt_mask=causal, memory_mask=cross)
        return self.generator(out).transpose(0, 1)
