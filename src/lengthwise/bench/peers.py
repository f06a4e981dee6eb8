"""The same-sized models of Hugging Face and x-transformers: a training step, and decoding with their
caches.

Theirs are GPT-2 and a `Decoder` with learned positions, over problem and answer in one sequence, as
people train them: causal, through their fused attention, without a bias. Ours is the calibrated model.
Width, heads, layers and feed-forward part are equal; weights are random, since speed does not depend
on them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lengthwise.bench.decode import decoders
from lengthwise.bench.models import bench_config, random_problems
from lengthwise.bench.results import Bench, alternate, ratios
from lengthwise.bench.train import Pair
from lengthwise.errors import InputError
from lengthwise.problems.layout import Layout
from lengthwise.settings.config import Config

# Modules, and the extras that bring them.
_LIBRARIES = {"transformers": "transformers", "x_transformers": "x-transformers"}


def installed() -> bool:
    """Whether both libraries are there."""
    return all(find_spec(name) is not None for name in _LIBRARIES)


def library(name: str) -> Any:
    """A library, imported.

    Raises:
        InputError: where it is not installed: what to install.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what one of them says of torch on the way
            return import_module(name)
    except ImportError as error:
        raise InputError(
            f"bench peers needs {name}, which is not installed: pip install "
            f"'lengthwise[{_LIBRARIES[name]}]'"
        ) from error


def hugging_face(config: Config, tokens: int, longest: int) -> nn.Module:
    """GPT-2 of the size of our model."""
    hf, own = library("transformers"), config.model
    drop = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=tokens,
            n_positions=longest,
            n_embd=own.width,
            n_layer=own.layers,
            n_head=own.heads,
            n_inner=own.feed_forward,
            bos_token_id=None,
            eos_token_id=None,
            **drop,
        )
    )


def x_transformers(config: Config, tokens: int, longest: int) -> nn.Module:
    """A decoder of x-transformers of the size of our model."""
    xt, own = library("x_transformers"), config.model
    layers = xt.Decoder(
        dim=own.width,
        depth=own.layers,
        heads=own.heads,
        attn_dim_head=own.width // own.heads,
        attn_flash=True,
        ff_mult=own.feed_forward / own.width,
    )
    net = xt.TransformerWrapper(num_tokens=tokens, max_seq_len=longest, attn_layers=layers)
    return xt.AutoregressiveWrapper(net)


PEERS: dict[str, Callable[[Config, int, int], nn.Module]] = {
    "transformers": hugging_face,
    "x-transformers": x_transformers,
}


def logits_of(model: nn.Module, ids: Tensor) -> Tensor:
    """Of one sequence of ids, `[problem, token, id]`."""
    if hasattr(model, "net"):
        return model.net(ids)  # type: ignore[operator]
    return model(input_ids=ids, use_cache=False).logits


def stepping(model: nn.Module, optimizer: torch.optim.Optimizer, pair: Pair, steps: int) -> None:
    """Training steps of a peer, on the problems of ours; the loss counts the answers alone."""
    for _ in range(steps):
        batch = pair.trainer.batches.train(pair.step)
        pair.step += 1
        ahead, wanted = batch.source.shape[1], batch.target[:, 1:]
        logits = logits_of(model, torch.cat([batch.source, batch.target[:, :-1]], dim=1))[:, ahead:]
        loss = F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.inference_mode()
def decoding(model: nn.Module, layout: Layout, source: Tensor) -> Tensor:
    """Greedy decoding by the library's own `generate` with its cache, `[problem, row]`: every row is
    written."""
    start = torch.full((len(source), 1), layout.vocabulary.start)
    prompt, rows = torch.cat([source, start], dim=1), layout.target_length
    if hasattr(model, "net"):
        return model.generate(prompt, rows, temperature=0.0, cache_kv=True)  # type: ignore[operator]
    written = model.generate(  # type: ignore[operator]
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=rows,
        do_sample=False,
        use_cache=True,
    )
    return written[:, prompt.shape[1] :]


def run(
    bench: Bench,
    *,
    lengths: Iterable[int] = (20, 60, 200),
    steps: int = 20,
    batch: int = 16,
) -> None:
    """A training step of the second training, and tokens per second of decoding at each length.

    Args:
        bench: the benchmark; its repeats are blocks of each side.
        lengths: digits of the operands.
        steps: optimizer steps in a block.
        batch: problems decoded at once.
    """
    config = bench_config("addition", calibrated=True)
    bench.say("a training step")
    pair, layout = Pair(config, calibrated=True), config.layout()
    longest = layout.source_length + layout.target_length
    works: dict[str, Callable[[], object]] = {"lengthwise": partial(pair.ours, steps)}
    for name, make in PEERS.items():
        torch.manual_seed(config.seed)
        model = make(config, len(layout.vocabulary), longest).train()
        rate = config.training.learning_rate
        optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), fused=True)
        works[name] = partial(stepping, model, optimizer, pair, steps)
    note = f"batch {config.training.batch_size}, blocks of {steps} steps in turn"
    _add(bench, "a training step", works, 1000 / steps, "ms", note)
    for length in lengths:
        bench.say(f"decoding {length} digits")
        layout, ours = decoders(length, batch, baseline=False)
        source = layout.source(random_problems(layout, length, count=batch))
        works = {f"lengthwise, {path}": work for path, work in ours.items()}
        for name, make in PEERS.items():
            longest = layout.source_length + 1 + layout.target_length
            model = make(config, len(layout.vocabulary), longest).eval()
            works[name] = partial(decoding, model, layout, source)
        note = f"{batch} problems, {layout.target_length} tokens each, caches on"
        _add(bench, f"decoding {length} digits", works, 1.0, "s", note)


def _add(
    bench: Bench,
    case: str,
    works: dict[str, Callable[[], object]],
    scale: float,
    unit: str,
    note: str,
) -> None:
    """Time works in turn; keep the medians, and how many times as long as ours, the faster, each peer
    takes."""
    times = dict(zip(works, alternate(works.values(), bench.repeats), strict=True))
    for name, own in times.items():
        bench.add(f"{case}, {name}", (scale * spent for spent in own), unit, note)
    ours = [min(each) for each in zip(*(times[n] for n in works if n not in PEERS), strict=True)]
    for name in PEERS:
        bench.add(f"{case}: {name} to ours", ratios(times[name], ours), "x", "median of turns")
