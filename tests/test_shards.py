"""A batch in shards: the gradients of the whole, the same bits every time, and when it stays whole."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from helpers import random_batch
from lengthwise.bench.models import hand_bias
from lengthwise.engine.flat_weights import FlatWeights
from lengthwise.model import plan_attention
from lengthwise.runs.folder import WEIGHTS
from lengthwise.runs.parts import make_bias, make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.settings.methods import METHODS
from lengthwise.training.halves import (
    FEW_ROWS,
    FEW_SHARED_ROWS,
    PER_THREAD,
    Shards,
    _workers,
    accumulated,
    backward,
    choose_shards,
    shard_threads,
)
from lengthwise.training.trainer import Trainer, train_run


class Case:
    """A small addition model of a method, or with a bias made by hand, and what its loss needs."""

    def __init__(self, name="calibrated", *settings, problems=8):
        sizes = ["data.length=4", "model.width=16", "model.heads=4", "model.feed_forward=32"]
        method = ["model.positions=none"]
        if name != "calibrated":
            method = METHODS[name].assignments
        self.config = make_config({"task": "addition"}, sizes + method + list(settings))
        self.layout = self.config.layout()
        torch.manual_seed(0)
        self.model = make_model(self.config)
        bias = hand_bias("addition", 4) if name == "calibrated" else make_bias(self.config)
        self.plan = plan_attention(bias, self.layout, self.config.model.layers)
        self.batch = random_batch(self.layout, problems)
        self.weights = FlatWeights(self.model.parameters())

    def loss(self, source, target):
        logits = self.model(source, target[:, :-1], self.plan).logits
        return F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())

    def found(self, shards):
        """The loss and the gradient of all weights."""
        loss = backward(self.loss, self.batch, self.weights, shards)
        assert not loss.requires_grad
        assert all(part.grad is None for part in self.weights.parts)
        return loss, self.weights.whole.grad

    def chosen(self, problems, rows):
        return choose_shards(self.model, self.plan, problems, rows)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("name", ["calibrated", *METHODS])
def test_shards_have_the_gradients_of_the_batch(name):
    case = Case(name)
    value = case.loss(*case.batch)
    parts = torch.autograd.grad(value, case.weights.parts, materialize_grads=True)
    wanted = value.detach(), case.weights.gather(parts)
    for shards in (None, Shards(1, 1), Shards(2, 1), Shards(4, 1)):
        torch.testing.assert_close(case.found(shards), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shards", [None, Shards(2, 1)])
def test_parts_one_after_the_other_have_the_gradients_of_the_batch(shards):
    case = Case("learned")
    loss, grad = case.found(None)
    for count in (1, 2, 4):
        found = accumulated(case.loss, case.batch, case.weights, shards, count)
        torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(case.weights.whole.grad, grad, rtol=1e-5, atol=1e-6)


def test_weights_that_only_one_shard_uses_get_its_gradient():
    weights = FlatWeights(nn.Parameter(torch.zeros(2)) for _ in range(3))

    def loss(which):
        return (weights.parts[int(which[0])] * torch.tensor([2.0, 6.0])).sum()

    assert backward(loss, (torch.tensor([0, 1]),), weights, Shards(2, 1)) == 0
    assert weights.whole.grad.tolist() == [1, 3, 1, 3, 0, 0]


def test_what_changes_all_weights_changes_each():
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = FlatWeights(model.parameters())
    assert weights.whole.shape == (3 * 2 + 2 + 2 + 2,)
    assert all(before[name].equal(value) for name, value in model.state_dict().items())
    with torch.no_grad():
        weights.whole.add_(1)
    assert all((before[name] + 1).equal(value) for name, value in model.state_dict().items())
    model.load_state_dict(before)  # and the other way round
    assert weights.whole.equal(torch.cat([value.flatten() for value in before.values()]))


def test_the_same_shards_give_the_same_bits():
    case = Case("vanilla", problems=64)
    first = case.found(Shards(2, 1))
    for _ in range(20):
        assert all(map(torch.equal, case.found(Shards(2, 1)), first))


def test_what_a_shard_raises_is_raised():
    weights = FlatWeights([nn.Parameter(torch.ones(1))])
    fails = 0.0

    def loss(x):
        if x[0] == fails:
            raise ValueError(f"shard {fails:.0f}")
        return (weights.parts[0] * x).sum()

    for fails in (0.0, 1.0):
        with pytest.raises(ValueError, match=f"shard {fails:.0f}"):
            backward(loss, (torch.arange(2.0),), weights, Shards(2, 1))


def test_threads_keep_their_number(two_threads):
    _workers.cache_clear()  # earlier tests began theirs on one thread
    Case().found(Shards(2, 1))
    assert _workers(os.getpid(), Shards(2, 1)).submit(torch.get_num_threads).result() == 1
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2
    with contextlib.suppress(ValueError), shard_threads(Shards(2, 1)):
        assert torch.get_num_threads() == 1
        raise ValueError
    assert torch.get_num_threads() == 2
    with shard_threads(None):
        assert torch.get_num_threads() == 2


class TestChoice:
    """A thread to a shard, as far as there are threads, problems and rows."""

    @pytest.fixture(autouse=True)
    def threads(self, monkeypatch):
        self.available = 2
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.available)

    def test_two_shards_where_there_are_rows_enough(self):
        case = Case("vanilla")
        assert case.chosen(FEW_ROWS, 1) == Shards(2, 1)
        assert case.chosen(FEW_ROWS - 2, 1) == Shards(1, 1)
        assert case.chosen(FEW_ROWS + 1, 1) is None  # an odd number has no halves

    def test_rows_that_are_shared_must_be_more(self):
        assert Case().chosen(FEW_SHARED_ROWS, 1) == Shards(2, 1)
        assert Case().chosen(FEW_SHARED_ROWS - 2, 1) == Shards(1, 1)

    def test_large_models_take_all_threads(self):
        case, self.available = Case("vanilla"), 8
        weights = case.model.decoder[0].expand.weight.numel()
        rows = 2 * PER_THREAD // weights
        assert case.chosen(rows, 1) == Shards(2, 1)
        assert case.chosen(3 * rows, 1) == Shards(2, 3)
        assert case.chosen(99 * rows, 1) == Shards(2, 4)
        assert case.chosen(99 * rows + 1, 1) is None

    def test_nothing_to_share(self):
        self.available = 1
        assert Case("vanilla").chosen(1024, 8) is None

    def test_dropout_draws_in_one_order(self):
        assert Case("vanilla", "model.dropout=0.1").chosen(1024, 8) is None

    def test_other_devices_have_no_shards(self):
        case = Case("vanilla")
        case.model.to("meta")
        assert case.chosen(1024, 8) is None


@pytest.mark.trains
def test_a_training_repeats_to_the_same_bits_and_resumes(two_threads, tmp_path):
    sizes = ["data.length=3", "model.width=16", "model.heads=2", "training.batch_size=64"]
    pace = ["max_steps=20", "until=max_steps", "evaluate_every=10", "checkpoint_every=5"]
    config = make_config(
        {"task": "successor", "device": "cpu"}, sizes + [f"training.{one}" for one in pace]
    )

    def stop(metrics):
        raise RuntimeError("stopped")

    whole, again = (train_run(config, tmp_path / name) for name in ("whole", "again"))
    with pytest.raises(RuntimeError, match="stopped"):
        train_run(config, tmp_path / "resumed", on_progress=stop)
    resumed = train_run(config, tmp_path / "resumed", resume=True)
    weights = [(run.path / WEIGHTS).read_bytes() for run in (whole, again, resumed)]
    assert weights[0] == weights[1] == weights[2]


def test_other_ways_of_training_have_no_shards(two_threads):
    def chosen(*settings):
        config = make_config({"task": "successor"}, list(settings))
        run = Run(Path("none"), config, make_bias(config))
        return Trainer(config, run, Accelerator(cpu=True)).shards

    assert chosen() == Shards(2, 1)
    # Threads share what autocast has converted, or not: sums would differ from run to run.
    assert chosen("training.precision=bfloat16") is None
