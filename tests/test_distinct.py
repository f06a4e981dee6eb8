"""Rows that agree, computed once: against the dense path, and counted one by one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from helpers import DIRECTIONS, HEADS, LAYERS, SEGMENTS, make_untrained, random_batch
from lengthwise.bias import SITES, WHOLE, CalibratedBias, Line, MatrixTrack, Track
from lengthwise.engine import products as linear
from lengthwise.model import plan_attention
from lengthwise.model.distinct import number_rows
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


@st.composite
def open_biases(draw, most: int) -> CalibratedBias:
    """Up to so many lines to a head, site and layer: any direction, on or off the matrix, of value 0."""
    task = draw(st.sampled_from(sorted(SEGMENTS)))
    lines = []
    for site in SITES:
        own = ("answer",) if site == "self" else SEGMENTS[task]
        for layer in draw(st.sampled_from([(None,), range(LAYERS)])):
            for head in range(HEADS):
                for _ in range(draw(st.integers(0, most))):
                    segment = draw(st.sampled_from((*own, WHOLE)))
                    direction = draw(st.sampled_from(DIRECTIONS[:3]))
                    track = MatrixTrack(site, direction, draw(st.integers(-3, 3)), segment)
                    lines.append(Line(track, head, layer))
    return CalibratedBias(task, HEADS, lines)


def own_row(head: int) -> Line:
    return Line("answer[c-1]", head)


def logits_and_gradients(model, bias, layout, tokens, path):
    """What a batch gives on one path, and the gradient of every weight (zero where there is none)."""
    source, target = tokens
    plan = plan_attention(bias, layout, LAYERS, path=path)
    model.zero_grad()
    logits = model(source, target[:, :-1], plan).logits
    F.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten()).backward()
    gradients = {
        name: torch.zeros_like(weight) if weight.grad is None else weight.grad
        for name, weight in model.named_parameters()
    }
    return logits.detach(), gradients


def rows_computed(model, layout, bias, tokens, **options) -> list[int]:
    """How many rows each layer's feed-forward part is given."""
    counts, hooks = [], []
    for layer in model.layers:

        def count(module, inputs):
            counts.append(inputs[0].flatten(0, -2).shape[0])

        hooks.append(layer.expand.register_forward_pre_hook(count))
    source, target = tokens
    model(source, target[:, :-1], plan_attention(bias, layout, LAYERS), **options)
    for hook in hooks:
        hook.remove()
    return counts


@given(
    st.integers(1, 3).flatmap(open_biases),
    st.integers(1, 7),
    st.integers(1, 30),
    st.sampled_from(["auto", "lines"]),
    st.sampled_from(["none", "cyclic"]),
    st.sampled_from(["pre", "post"]),
    st.booleans(),
)
def test_values_and_gradients_are_those_of_the_dense_path(
    bias, width, batch, path, positions, norm, filled_up
):
    layout = Layout(TASKS[bias.task](), width)
    model = make_untrained(bias.task, positions=positions)
    for layer in model.decoder:
        layer.norm = norm
    tokens = random_batch(layout, batch)
    with pytest.MonkeyPatch.context() as patch:
        if filled_up:  # as in large batches: rows that nobody reads, and products by oneDNN
            patch.setattr(linear, "LARGE", 0)
            patch.setattr(linear, "FILLED", 1)
        found, gradients = logits_and_gradients(model, bias, layout, tokens, path)
    wanted, wanted_gradients = logits_and_gradients(model, bias, layout, tokens, "dense")
    torch.testing.assert_close(found, wanted, **TOLERANCE)
    torch.testing.assert_close(gradients, wanted_gradients, **TOLERANCE)


@given(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=12), st.booleans())
def test_rows_have_one_number_exactly_when_they_agree(rows, large):
    """Also where the product of the parts' sizes is past int64."""
    most = 2**40 if large else 3
    parts = [(torch.tensor([column]) * (most // 3), most) for column in zip(*rows, strict=True)]
    numbers = number_rows(parts)
    index = numbers.index[0].tolist()
    for one, number in zip(rows, index, strict=True):
        assert [row == one for row in rows] == [other == number for other in index]
        assert rows[numbers.example[number]] == one
    assert len(numbers.example) == len(set(rows))


def test_the_rows_computed_are_the_contexts_that_occur():
    """Every row its own, the column being written and the one before: counted by a loop."""
    layout = Layout(TASKS["successor"](), 5)
    offsets = (0, -1, 0)
    lines = [Line(Track.along("a", o), h) for h, o in enumerate(offsets)]
    bias = CalibratedBias("successor", HEADS, [*map(own_row, range(HEADS)), *lines])
    source, target = tokens = random_batch(layout, 40)
    contexts = set()
    for problem in range(40):
        digits = [None, *source[problem].flip(0).tolist(), None]
        for row in range(layout.target_length):
            contexts.add((int(target[problem, row]), digits[row + 1], digits[row]))
    assert len(contexts) < 40 * layout.target_length
    model = make_untrained("successor", positions="none")
    assert rows_computed(model, layout, bias, tokens) == [len(contexts)] * LAYERS


def test_later_layers_tell_more_rows_apart():
    """A row that copies the one before sees one row further in every layer."""
    layout = Layout(TASKS["successor"](), 8)
    before = [Line("answer[c-2]", h) for h in range(HEADS)]
    now = [Line("a[c]", h) for h in range(HEADS)]
    bias = CalibratedBias("successor", HEADS, [*before, *now])
    source, target = tokens = random_batch(layout, 60)
    seen: list[set] = [set(), set()]
    for problem in range(60):
        digits = [*source[problem].flip(0).tolist(), None]
        read = target[problem].tolist()
        for row in range(layout.target_length):
            for depth, contexts in enumerate(seen, start=1):
                past = [(read[r], digits[r]) for r in range(max(row - depth, 0), row)]
                # In the first layer the row before has not read the source yet.
                past = [tuple(past[:depth]) if depth > 1 else (read[row - 1] if row else None,)]
                contexts.add((read[row], digits[row], *past))
    first, second = rows_computed(
        make_untrained("successor", positions="none"), layout, bias, tokens
    )
    assert first == len(seen[0])
    assert first < second


@given(st.integers(1, 2).flatmap(open_biases), st.integers(2, 6), st.data())
def test_the_first_rows_alone_are_what_they_are_among_all(bias, width, data):
    """A plan of some rows has their keys alone; asked for the last row, no other is computed in vain."""
    layout = Layout(TASKS[bias.task](), width)
    row = data.draw(st.integers(0, width))
    lines = [
        line for line in bias.lines if line.site == "cross" or line.track.direction == "diagonal"
    ]
    bias = CalibratedBias(bias.task, HEADS, lines)
    model = make_untrained(bias.task, positions="none")
    source, target = random_batch(layout, 20)
    whole = model(source, target[:, :-1], plan_attention(bias, layout, LAYERS)).logits
    plan = plan_attention(bias, layout, LAYERS, queries=range(row + 1))
    assert all(layer["self"].reads is not None for layer in plan)
    found = model(source, target[:, : row + 1], plan).logits
    torch.testing.assert_close(found, whole[:, : row + 1], **TOLERANCE)
    last = data.draw(st.integers(1, row + 1))
    found = model(source, target[:, : row + 1], plan, last=last).logits
    torch.testing.assert_close(found, whole[:, row + 1 - last : row + 1], **TOLERANCE)


@pytest.mark.parametrize("case", ["attention", "dropout", "positions"])
def test_where_rows_may_differ_all_are_computed(case):
    """The weights are asked for; dropout draws for each; sinusoidal positions tell all rows apart."""
    layout = Layout(TASKS["successor"](), 5)
    now = [Line("a[c]", h) for h in range(HEADS)]
    bias = CalibratedBias("successor", HEADS, [*map(own_row, range(HEADS)), *now])
    model = make_untrained("successor", positions="sinusoidal" if case == "positions" else "none")
    model.drops = case == "dropout"
    model.train(case == "dropout")
    options = {"return_attention": case == "attention"}
    tokens = random_batch(layout, 20)
    assert rows_computed(model, layout, bias, tokens, **options) == [20 * 6] * LAYERS
