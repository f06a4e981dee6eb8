"""Small models as people write them, with random weights: for the tests of `lengthwise.own_models`."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import lengthwise as lw
from lengthwise.bias import CalibratedBias, Line
from lengthwise.calibration.maps import capture_problems
from lengthwise.own_models.tokens import Tokens
from lengthwise.problems.sampling import generator, suite_problems

ADDITION = lw.Format("addition")
ROOT = Path(__file__).parent.parent

# Ids as other people number them: the end is 2, digits begin at 3.
IDS = {**{str(digit): digit + 3 for digit in range(10)}, "+": 13, "^": 14, "$": 2}
WIDTH, HEADS, LAYERS, SIZE = 16, 4, 2, 18


def lines_of_addition(heads: int = HEADS) -> CalibratedBias:
    """What calibration finds: a digit of two columns and its own token."""
    reads = ("a[c]", "b[c]", "a[c-1]", "b[c-1]")
    lines = [Line(reads[head % 4], head) for head in range(heads)]
    return CalibratedBias(
        "addition", heads, lines + [Line("answer[c-1]", head) for head in range(heads)]
    )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x, memory, bias):
        split = [
            layer(of).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer, of in ((self.query, x), (self.key, memory), (self.value, memory))
        ]
        query, key, value = split
        weights = (query @ key.transpose(-2, -1) / math.sqrt(WIDTH / HEADS) + bias).softmax(-1)
        return x + (weights @ value).transpose(1, 2).flatten(2), weights


def causal(length: int) -> torch.Tensor:
    return torch.full((length, length), -math.inf).triu(1)


class PlainGPT(nn.Module):
    """The protocol, in one sequence."""

    def __init__(self, longest: int = 40) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(SIZE, WIDTH), nn.Embedding(longest, WIDTH)
        self.blocks = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, SIZE)

    def forward(self, ids, bias=None, positions=True, return_attention=False):
        length, maps = ids.shape[1], []
        x = self.wte(ids) + (self.wpe(torch.arange(length)) if positions else 0)
        for layer, block in enumerate(self.blocks):
            x, weights = block(x, x, causal(length) if bias is None else bias[layer])
            maps.append(weights)
        return (self.head(x), maps) if return_attention else self.head(x)


class PlainPair(nn.Module):
    """The protocol, with source and target."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(SIZE, WIDTH), nn.Embedding(40, WIDTH)
        self.own = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.cross = nn.ModuleList(Attention() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, SIZE)

    def forward(self, source, target, bias=None, positions=True, return_attention=False):
        maps = []
        memory, x = (
            self.wte(t) + (self.wpe(torch.arange(t.shape[1])) if positions else 0)
            for t in (source, target)
        )
        for layer in range(LAYERS):
            given = {"self": causal(target.shape[1]), "cross": torch.zeros(1, 1)}
            given = given if bias is None else bias[layer]
            x, own = self.own[layer](x, x, given["self"])
            x, cross = self.cross[layer](x, memory, given["cross"])
            maps.append({"self": own, "cross": cross})
        return (self.head(x), maps) if return_attention else self.head(x)


class Positions(nn.Module):
    """A table of learned positions, added."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, WIDTH)

    def forward(self, x):
        return x + self.table(torch.arange(x.shape[1]))


class TorchPair(nn.Module):
    """`nn.Transformer` between embeddings and a head; it says that its mask is causal."""

    def __init__(self, batch_first: bool = True, **options) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(SIZE, WIDTH), nn.Embedding(40, WIDTH)
        self.body = nn.Transformer(
            WIDTH, HEADS, 1, LAYERS, 32, dropout=0.0, batch_first=batch_first, **options
        )
        self.head, self.batch_first = nn.Linear(WIDTH, SIZE), batch_first

    def embed(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        return x if self.batch_first else x.transpose(0, 1)

    def forward(self, source, target):
        mask = causal(target.shape[1])
        x = self.body(self.embed(source), self.embed(target), tgt_mask=mask, tgt_is_causal=True)
        return self.head(x if self.batch_first else x.transpose(0, 1))


class TorchGPT(nn.Module):
    """`nn.TransformerEncoder` under a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(SIZE, WIDTH), nn.Embedding(40, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, dropout=0.0, batch_first=True)
        self.body, self.head = nn.TransformerEncoder(layer, LAYERS), nn.Linear(WIDTH, SIZE)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        return self.head(self.body(x, mask=causal(ids.shape[1]), is_causal=True))


def drawn(width, count=3, tokens=IDS):
    """Ids of problems of `width` - 1 digits: sources and what the model reads of the answers."""
    layout, known = ADDITION.at(width), Tokens(ADDITION, tokens)
    operands = suite_problems(
        layout.task,
        generator(0, "test"),
        count,
        suite="uniform",
        length=width - 1,
        width=width,
        split="any",
    )
    source, target = layout.batch(operands)
    return known.of(source), known.of(target)


def seeded(make):
    torch.manual_seed(0)
    return make().eval()


def state_of(model):
    """All that hooks, marks and overridden methods could change."""
    return [
        (name, dict(part._forward_hooks), dict(part._forward_pre_hooks), "forward" in vars(part))
        for name, part in model.named_modules()
    ] + [sorted(vars(model))]


def batch(length=4, count=8):
    """Ids of the problems that capture looks at, and what is read of their answers."""
    layout = ADDITION.at(length + 1)
    operands = capture_problems(layout, generator(0, "capture"), count, length, "any")
    source, target = (Tokens(ADDITION, IDS).of(one) for one in layout.batch(operands))
    return source, target[:, :-1]


def settled(width, kind, bias=None):
    """Of a bias as its lines say: every mask, made from `dense` and words, not from `Reading`."""
    bias, layout = bias or lines_of_addition(), ADDITION.at(width)
    rows = range(layout.target_length)
    cross = bias.dense("cross", 0, layout, rows)
    cross[..., width].masked_fill_((cross == -math.inf).all(-1), 0)
    own = bias.dense("self", 0, layout, rows)
    source = layout.source_length
    alone = torch.full((source, source), -math.inf).fill_diagonal_(0)
    if kind == "pair":
        return {"cross": cross, "self": own, "encoder": alone.expand(HEADS, -1, -1)}
    whole = torch.full((HEADS, source + len(rows), source + len(rows)), -math.inf)
    whole[:, :source, :source] = alone
    whole[:, source:, :source] = cross
    return whole


def changed(model):
    """Names of modules that something of ours is left in."""
    return [
        name
        for name, part in model.named_modules()
        if any("lengthwise" in repr(hook) for hook in part._forward_pre_hooks.values())
        or any("lengthwise" in repr(hook) for hook in part._forward_hooks.values())
        or "forward" in vars(part)
        or any(key.startswith("_lengthwise") for key in vars(part))
    ]


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(SIZE, SIZE)

    def forward(self, ids):
        x = self.wte(ids)[:, None]
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)[:, 0]


def expected_in_one_sequence(width, queries):
    """A slow loop over text: which keys each head of `lines_of_addition` may read."""
    plus, start = width, 2 * width + 1
    found = torch.zeros(HEADS, queries, queries, dtype=torch.bool)
    for query in range(queries):
        for head in range(HEADS):
            column = query - start - (head >= 2)
            if query < start:
                key = query
            elif 0 <= column < width:
                key = width - 1 - column + (width + 1) * (head % 2)
            else:
                key = plus
            found[head, query, key] = True
    return found
