"""Greedy decoding with a cache, against a decoder without one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from helpers import HEADS, biases, make_untrained, random_batch
from lengthwise.bias import CalibratedBias, Causal, Line
from lengthwise.decoding.greedy import _CHUNK, greedy_decode
from lengthwise.model import Transformer, plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

CALIBRATED = CalibratedBias(
    "addition",
    HEADS,
    [
        Line("a[c]"),
        Line("b[c]", 1),
        Line("b[c-1]", 1, value=-0.5),
        Line("answer[c-1]"),
        Line("answer[c-2]", 2),
    ],
)


def decode_without_cache(
    model: Transformer, bias, layout: Layout, source: Tensor
) -> tuple[Tensor, float]:
    """Token by token through the whole model; also the least lead of a best token over the second.

    Rows not yet written hold a digit that decoding must not read.
    """
    rows, end = layout.target_length, layout.vocabulary.end
    plan = plan_attention(bias, layout, len(model.layers), path="dense")
    lead = float("inf")
    read = torch.full((len(source), rows + 1), 7)
    read[:, 0] = layout.vocabulary.start
    for row in range(rows):
        logits = model(source, read[:, :rows], plan).logits[:, row]
        best = logits.topk(2).values
        for problem in range(len(source)):
            over = row > 0 and bool((read[problem, 1 : row + 1] == end).any())
            read[problem, row + 1] = end if over else logits[problem].argmax()
            if not over:
                lead = min(lead, (best[problem, 0] - best[problem, 1]).item())
    return read[:, 1:], lead


def make_lively(task: str, end: float = -8.0, positions: str = "sinusoidal") -> Transformer:
    """An untrained model whose answers vary from row to row; `end` is added to the end token."""
    model = make_untrained(task, positions=positions)
    with torch.no_grad():
        for layer in model.layers:
            for attention in (layer.self_attention, layer.cross_attention):
                for name, parameter in attention.named_parameters():
                    if name.endswith("weight"):
                        parameter.mul_(2)
        model.to_logits.bias.zero_()[-1] = end
    return model


@torch.inference_mode()
def check(model, bias, width: int, paths, count: int = 4) -> Tensor:
    """Compare; returns what was written."""
    layout = Layout(TASKS["addition" if isinstance(bias, Causal) else bias.task](), width)
    source, _ = random_batch(layout, count, seed=width)
    wanted, lead = decode_without_cache(model, bias, layout, source)
    assert lead > 1e-4, "a tie that rounding may break either way; choose another seed"
    for path in paths:
        written = greedy_decode(model, bias, layout, source, path)
        assert written.shape == (count, width + 1)
        assert written.tolist() == wanted.tolist()
    return wanted


@pytest.mark.parametrize("width", range(1, 13))
def test_vanilla(width):
    written = check(make_lively("addition"), Causal(HEADS), width, ["auto", "dense"])
    # The answers differ from each other, and within each other: this is no constant.
    assert len({tuple(row) for row in written.tolist()}) > 1
    assert len(set(written.flatten().tolist())) > 1


@pytest.mark.parametrize("positions", ["none", "sinusoidal"])
@pytest.mark.parametrize("width", range(1, 13))
def test_calibrated_on_both_paths(width, positions):
    model = make_lively("addition", positions=positions)
    check(model, CALIBRATED, width, ["auto", "dense", "lines"])


@settings(max_examples=20)
@given(bias=biases(everywhere=False), width=st.integers(1, 6))
def test_any_bias_of_lines(bias, width):
    model = make_lively(bias.task)
    check(model, bias, width, ["dense", "lines"], count=2)


@pytest.mark.trains
@pytest.mark.parametrize("bias", [Causal(HEADS), CALIBRATED], ids=["vanilla", "calibrated"])
@pytest.mark.parametrize("width", [_CHUNK - 1, _CHUNK, 149])
def test_across_the_chunks_that_plans_are_laid_out_in(width, bias):
    paths = ["auto", "dense"] if isinstance(bias, Causal) else ["auto", "dense", "lines"]
    model = make_lively("addition")
    written = check(model, bias, width, paths, count=2)
    assert (written[:, -1] != 12).any(), "decoding should not have ended early"


def test_a_problem_that_has_ended_writes_the_end_token_on():
    layout = Layout(TASKS["addition"](), 64)
    written = check(make_lively("addition", end=0.0), Causal(HEADS), 64, ["auto"])
    is_end = written == layout.vocabulary.end
    # These answers end at different rows, all before the last; after that all is end tokens.
    first = is_end.int().argmax(dim=1)[is_end.any(dim=1)]
    assert len(set(first.tolist())) >= 3
    assert first.max() < 64
    assert torch.equal(is_end, is_end.int().cummax(dim=1).values.bool())


@pytest.mark.parametrize("width", [5, 2 * _CHUNK])
def test_when_all_have_ended_the_rest_is_end_tokens(width):
    # Decoding stops there; the shape stays.
    model = make_lively("addition", end=100.0)
    layout = Layout(TASKS["addition"](), width)
    source, _ = random_batch(layout, 3)
    written = greedy_decode(model, Causal(HEADS), layout, source)
    assert written.tolist() == [[layout.vocabulary.end] * (width + 1)] * 3


@pytest.mark.parametrize("bias", [Causal(HEADS), CALIBRATED], ids=["vanilla", "calibrated"])
def test_problems_of_a_batch_do_not_mix(bias):
    model = make_lively("addition")
    layout = Layout(TASKS["addition"](), 10)
    source, _ = random_batch(layout, 12)
    together = greedy_decode(model, bias, layout, source)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(greedy_decode(model, bias, layout, source[order]), together[order])
    for row in range(12):
        alone = greedy_decode(model, bias, layout, source[row : row + 1])
        assert torch.equal(alone[0], together[row])


def test_the_lines_path_is_refused_for_a_vanilla_model():
    layout = Layout(TASKS["addition"](), 3)
    source, _ = random_batch(layout, 1)
    with pytest.raises(ValueError, match="the lines path needs a bias that opens a bounded number"):
        greedy_decode(make_untrained("addition"), Causal(HEADS), layout, source, "lines")
