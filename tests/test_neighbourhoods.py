"""Sharing what contexts have in common: the same logits as the model's own forward pass, for less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import context_of
from lengthwise.bias import AttentionBias, CalibratedBias, Line, Track, Window
from lengthwise.engine import products as linear
from lengthwise.locality import Batch, Contexts, join
from lengthwise.model import Transformer, plan_attention
from lengthwise.model.distinct import number_rows
from lengthwise.problems.layout import Layout
from lengthwise.proof import prove, receptive_cone
from lengthwise.proof.checker import Checker
from lengthwise.proof.scope import receptive_reaches
from lengthwise.runs.parts import make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, make_config

HEADS = 2


def small(task: str, base: int, layers: int = 2, positions: str = "none", **data) -> Config:
    """Settings of a model that is quick to run."""
    model = {"width": 8, "heads": HEADS, "layers": layers, "feed_forward": 12, "period": 2}
    model["positions"] = positions
    return make_config({"task": task, "base": base, "model": model, "data": data})


def random_model(config: Config, seed: int) -> Transformer:
    """A model whose every parameter is random."""
    torch.manual_seed(seed)
    model = make_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def make_run(config: Config, bias: AttentionBias, seed: int) -> Run:
    """A run of a random model."""
    run = Run(Path("nowhere"), config, bias)
    run.__dict__["model"] = random_model(config, seed)
    return run


def by_forward(run: Run, layout: Layout, batch: Batch) -> Tensor:
    """The logits of a batch's row, from one dense pass over whole problems."""
    source, target = layout.batch(batch.operands)
    plan = plan_attention(run.bias, layout, run.config.model.layers, path="dense")
    with torch.inference_mode():
        logits = run.model(source, target[:, :-1], plan).logits
    return logits[:, batch.row]


def by_checker(run: Run, layout: Layout, batch: Batch, share: bool = True) -> Tensor:
    """The same, as the proof finds them."""
    return Checker(run).logits(
        run.model, *layout.batch(batch.operands), layout, batch.row, share=share
    )


@st.composite
def proper_lines(draw, operands: list[str], constants: list[str], layers: int) -> Line:
    """A line that the proof understands, at either site, in one layer or in all."""
    head = draw(st.integers(0, HEADS - 1))
    layer = draw(st.sampled_from([None, *range(layers)]))
    value = draw(st.sampled_from([0.0, 0.0, 1.5]))
    if draw(st.booleans()):
        offset = draw(st.integers(-2, 1))
        return Line(Track.along("answer", offset - 1), head, layer=layer, value=value)
    if constants and draw(st.booleans()):
        segment = draw(st.sampled_from(constants))
        return Line(Track(segment), head, layer=layer, value=value)
    segment, offset = draw(st.sampled_from(operands)), draw(st.integers(-1, 1))
    return Line(Track.along(segment, offset), head, layer=layer, value=value)


TASKS_WITH_BASES = [
    ("successor", 3),
    *(pytest.param(*one, marks=pytest.mark.slow) for one in (("addition", 2), ("nx1", 3))),
    ("subtraction", 2),
]


@pytest.mark.trains
@pytest.mark.parametrize(("task", "base"), TASKS_WITH_BASES)
@settings(max_examples=25)
@given(data=st.data())
def test_logits_are_those_of_the_forward_pass(task, base, data):
    """Every context of random biases, with several lines to a head, one to three layers deep."""
    layers = data.draw(st.integers(1, 3), label="layers")
    positions = data.draw(st.sampled_from(["none", "none", "cyclic", "sin_periodical"]))
    alignment = data.draw(st.sampled_from(["natural", "natural", "interleaved"]))
    order = data.draw(st.sampled_from(["normal", "normal", "reversed"]))
    config = small(task, base, layers, positions, alignment=alignment, input_order=order)
    places = config.layout()
    operands = [name for name, span in places.anchors("cross").items() if span.grows]
    operands = [name for name in operands if name != "columns"]
    constants = [name for name, span in places.anchors("cross").items() if not span.grows]
    one_line = proper_lines(operands, constants, layers)
    lines = data.draw(st.lists(one_line, max_size=5))
    bias = CalibratedBias(task, HEADS, lines)
    assert_alike(config, bias, data.draw(st.integers(0, 9), label="seed"))


WINDOWED = [("successor", 3, "natural"), ("addition", 2, "interleaved"), ("nx1", 3, "interleaved")]


@pytest.mark.trains
@pytest.mark.parametrize("sides", ["both", "left", "right"])
@pytest.mark.parametrize(("task", "base", "alignment"), WINDOWED)
@pytest.mark.parametrize(("window", "layers"), [(0, 2), (1, 2), (2, 1)])
def test_logits_through_windows_are_those_of_the_forward_pass(
    task, base, alignment, sides, window, layers
):
    """Contexts that see the symbols left of the columns too."""
    for positions in ("none", "cyclic"):
        config = small(task, base, layers, positions, alignment=alignment)
        assert_alike(config, Window(HEADS, window, sides), seed=0)


def assert_alike(config: Config, bias: AttentionBias, seed: int) -> None:
    """Logits found with sharing, without, and by the forward pass over whole problems."""
    run = make_run(config, bias, seed)
    for count, batch in enumerate(Contexts(config.make_task(), receptive_cone(config, bias))):
        if count > 60:
            break
        batch = Batch(batch.operands[:200], batch.row)
        layout = config.layout(batch.width)
        wanted = by_forward(run, layout, batch)
        for share in (True, False):
            found = by_checker(run, layout, batch, share)
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_problems_of_long_periods_take_the_paths_of_wide_ones():
    """Where the period is long, a context of the first row may stand in a wide problem."""
    config = small("successor", 2, positions="cyclic").model_copy()
    config = config.model_copy(update={"model": config.model.model_copy(update={"period": 300})})
    lines = [Line("a[c]", head) for head in range(HEADS)]
    lines += [Line("answer[c-1]", head) for head in range(HEADS)]
    run = make_run(config, CalibratedBias("successor", HEADS, lines), 0)
    batch, layout = Batch(np.zeros((3, 1, 299), np.uint8), 0), config.layout(299)
    found, wanted = by_checker(run, layout, batch), by_forward(run, layout, batch)
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def looking_back(task: str = "addition") -> CalibratedBias:
    """Both digits of the column, and the row before: each context is three rows deep."""
    lines = [
        Line("a[c]"),
        Line("b[c]", 1),
        Line("answer[c-2]"),
    ]
    return CalibratedBias(task, HEADS, lines)


def looking_run(base: int, seed: int = 0) -> Run:
    return make_run(small("addition", base), looking_back(), seed)


def rows_computed(run: Run, batch: Batch) -> list[int]:
    """How many rows each layer's feed-forward part is given."""
    layout, rows = run.config.layout(batch.width), []

    def count(_, inputs):
        rows.append(inputs[0].flatten(0, -2).shape[0])

    hooks = [layer.expand.register_forward_pre_hook(count) for layer in run.model.decoder]
    by_checker(run, layout, batch)
    for hook in hooks:
        hook.remove()
    return rows


def test_each_neighbourhood_of_a_batch_is_evaluated_once(monkeypatch):
    """In the first layer those of the row and of the one before; in the last the row's. By a loop."""
    monkeypatch.setattr(linear, "FILLED", 10**9)  # no more rows than differ
    run = looking_run(3)
    whole = receptive_cone(run.config, run.bias)
    first = join(receptive_reaches(run.config, run.bias)[:1])
    saved = []
    for batch in Contexts(run.task, whole):

        def seen(cone, *rows, batch=batch):
            found = {
                context_of(run.task, cone, one, row)[:3]
                for one in batch.operands
                for row in rows
                if row >= 0
            }
            return len(found)

        evaluated = rows_computed(run, batch)
        assert evaluated == [seen(first, batch.row - 1, batch.row), seen(whole, batch.row)]
        saved.append((evaluated[0], len(batch.operands)))
    largest = max(saved, key=lambda pair: pair[1])
    assert largest[0] < largest[1] / 5


def test_sharing_finds_what_each_context_alone_does():
    run = looking_run(3)
    checkers = [Checker(run, share=share) for share in (True, False)]
    for checker in checkers:
        for batch in Contexts(run.task, receptive_cone(run.config, run.bias)):
            checker.check(batch)
    shared, alone = checkers
    assert shared.contexts == alone.contexts
    assert shared.failing == alone.failing > 0
    assert shared.margin == pytest.approx(alone.margin, abs=1e-4)
    assert shared.shortest is not None
    assert alone.shortest is not None
    assert shared.shortest[0].tolist() == alone.shortest[0].tolist()


@pytest.mark.trains
@pytest.mark.parametrize("seed", range(3))
def test_broken_models_are_refuted_alike(seed, monkeypatch):
    monkeypatch.setattr("lengthwise.proof.prover.hashes", lambda run: {})
    run = looking_run(2, seed)
    shared, alone = prove(run), prove(run, share=False)
    for name in ("problem", "row", "expected", "given", "contexts", "failing", "drill"):
        assert getattr(shared, name) == getattr(alone, name)
    assert shared.margin == pytest.approx(alone.margin, abs=1e-4)


def test_a_wrong_number_of_one_row_is_seen_as_rounding(monkeypatch):
    """What is shared is measured against rows computed one by one, like everything else."""
    run = looking_run(2)
    checker = Checker(run)
    batches = list(Contexts(run.task, receptive_cone(run.config, run.bias)))
    for batch in batches:
        checker.check(batch)
    assert checker.rounding < 1e-4

    def wrong(parts):
        numbers = number_rows(parts)
        return replace(numbers, example=numbers.example.roll(1))

    monkeypatch.setattr("lengthwise.model.distinct.number_rows", wrong)
    checker.check(batches[-1])
    assert checker.rounding > 1e-2
