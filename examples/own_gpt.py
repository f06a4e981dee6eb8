"""A GPT of your own, in plain torch: right at five digits, then at two hundred.

    python examples/own_gpt.py            # three to five minutes on one core

The model, its data, its training and its decoding know nothing of lengthwise. All that it offers is that
`forward` takes a bias, may leave positions out, and returns its attention. The three lines that are ours
are in `main`.
"""

from __future__ import annotations

import argparse
import math
import random
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lengthwise as lw

PLUS, EQUALS, END = 10, 11, 12
IDS = {**{str(digit): digit for digit in range(10)}, "+": PLUS, "^": EQUALS, "$": END}


class Block(nn.Module):
    """Attention and a feed-forward part, norms first, as in GPT-2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        split = [
            t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for t in self.qkv(self.norm1(x)).chunk(3, -1)
        ]
        query, key, value = split  # [problem, head, token, channel]
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        weights = (scores + bias).softmax(-1)
        x = x + self.out((weights @ value).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x)), weights


class GPT(nn.Module):
    """A decoder over one sequence, with learned absolute positions."""

    def __init__(
        self, width: int = 64, heads: int = 4, layers: int = 2, longest: int = 1024
    ) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(len(IDS), width), nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, len(IDS), bias=False)
        for weights in self.parameters():
            if weights.dim() > 1:
                nn.init.normal_(weights, std=0.02)

    def forward(self, ids, bias=None, positions=True, return_attention=False):
        length, maps = ids.shape[1], []
        x = self.wte(ids)
        if positions:
            x = x + self.wpe(torch.arange(length))
        causal = torch.full((length, length), -math.inf).triu(1)
        for layer, block in enumerate(self.blocks):
            x, weights = block(x, causal if bias is None else bias[layer])
            maps.append(weights)
        logits = self.head(self.norm(x))
        return (logits, maps) if return_attention else logits


def problems(count: int, shortest: int, longest: int) -> Tensor:
    """`012+034=640$`: operands padded to one width, the answer written from its least significant digit."""
    width, column = longest + 1, torch.arange(longest + 1)
    lengths = torch.randint(shortest, longest + 1, (2, count, 1))
    a, b = digits = torch.randint(10, (2, count, width))
    chains = (torch.rand(count, 1) < 0.25) & (column > 0)
    digits[1] = torch.where(chains, 9 - a, b)  # a carry goes all the way, or nowhere
    digits[column >= lengths] = 0
    digits[(column == lengths - 1) & (digits == 0) & (lengths > 1)] = 1
    carry, answer = torch.zeros(count, dtype=torch.int64), []
    for total in (a + b).unbind(1):
        answer.append((total + carry) % 10)
        carry = (total + carry) // 10
    plus, equals, end = (torch.full((count, 1), one) for one in (PLUS, EQUALS, END))
    return torch.cat([a.flip(1), plus, b.flip(1), equals, torch.stack(answer, 1), end], 1)


def answers(ids: Tensor) -> slice:
    """Where the answers lie, and the tokens that write them one before."""
    width = (ids.shape[1] - 3) // 3
    return slice(2 * width + 1, 3 * width + 2)


def train(model: GPT, steps: int, longest: int = 5, batch: int = 128, rate: float = 3e-3) -> GPT:
    """Plain training on at most five digits; the loss counts the answers alone."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(
            1, (step + 1) / 100, 2 * (steps - step) / steps
        )
        ids = problems(batch, 1, longest)
        rows = answers(ids)
        loss = F.cross_entropy(
            model(ids[:, :-1])[:, rows].flatten(0, 1), ids[:, 1:][:, rows].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


@torch.no_grad()
def generate(model: GPT, a: int, b: int) -> int:
    """Greedy decoding, one token after the other."""
    width = max(len(str(a)), len(str(b))) + 1
    text = [*map(int, str(a).zfill(width)), PLUS, *map(int, str(b).zfill(width)), EQUALS]
    written: list[int] = []
    while len(written) < 2 * width:
        token = int(model(torch.tensor([text + written]))[0, -1].argmax())
        if token == END:
            break
        written.append(token)
    return int("".join(map(str, reversed(written))) or "0")


@torch.no_grad()
def table(title: str, model: GPT, lengths: list[int], count: int) -> list[int]:
    """Problems answered right, by length. Where each next token is right after the true ones before, greedy
    decoding writes just these; so one pass decides."""
    print(f"\n{title}\n| digits | right |\n|---|---|")
    found = []
    for length in lengths:
        right = 0
        for ids in problems(count, length, length).split(25):
            rows = answers(ids)
            likeliest = model(ids[:, :-1])[:, rows].argmax(-1)
            right += int((likeliest == ids[:, 1:][:, rows]).all(1).sum())
        print(f"| {length} | {right} of {count} |", flush=True)
        found.append(right)
    return found


def main(seed: int, steps: int, resteps: int, count: int) -> dict[str, list[int]]:
    torch.manual_seed(seed)
    began, lengths = time.perf_counter(), [5, 10, 20, 60, 200]
    model = train(GPT(), steps)
    before = table("As it was trained, on at most 5 digits:", model, lengths, count)

    maps = lw.capture(model, "addition", length=5, tokens=IDS)
    bias = lw.calibrate(maps)
    print(f"\n{bias.explain()}")
    with lw.apply(model := GPT(), bias, tokens=IDS):
        train(model, resteps)  # the same training again
        after = table("Trained with the bias, on at most 5 digits:", model, lengths, count)
        draw = random.Random(seed)
        a, b = (draw.randrange(10**199, 10**200) for _ in "ab")
        verdict = "right" if generate(model, a, b) == a + b else "wrong"
        print(f"\ngreedy decoding of {a} + {b}: {verdict}")
    print(f"{time.perf_counter() - began:.0f} s")
    return {"before": before, "after": after}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, value in {"seed": 0, "steps": 1500, "resteps": 1000, "count": 200}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    main(**vars(parser.parse_args()))
