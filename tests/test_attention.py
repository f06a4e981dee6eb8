"""Attention: both paths against a softmax over open keys as a loop, in values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import HEADS, LAYERS, biases
from lengthwise.bias import SITES, CalibratedBias, Causal, Line, MatrixTrack, Track
from lengthwise.engine.few_keys import attend_few
from lengthwise.model import plan_attention
from lengthwise.model.plans import DensePlan, LinesPlan, OwnPlan
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

CHANNELS = 5
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def slow_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """What each query reads, and the weights: a loop over queries, softmax over open keys alone."""
    read, weights = torch.zeros_like(query), query.new_zeros(*query.shape[:3], key.shape[2])
    for batch, head, row in torch.cartesian_prod(*map(torch.arange, query.shape[:3])).tolist():
        open_keys = bias[head, row].isfinite().nonzero()[:, 0]
        if len(open_keys) == 0:
            continue
        logits = key[batch, head, open_keys] @ query[batch, head, row] / CHANNELS**0.5
        shares = (logits + bias[head, row, open_keys]).exp()
        shares = shares / shares.sum()
        weights[batch, head, row, open_keys] = shares
        read[batch, head, row] = shares @ value[batch, head, open_keys]
    return read, weights


def random_inputs(
    layout: Layout, site: str, heads: int, rows: int | None = None, batch: int = 2
) -> list[Tensor]:
    """Query, key, value and the gradient of what is read; deterministic."""
    random = torch.Generator().manual_seed(layout.width)
    rows = layout.target_length if rows is None else rows
    shapes = (rows, layout.keys(site), layout.keys(site), rows)
    return [torch.randn(batch, heads, n, CHANNELS, generator=random) for n in shapes]


def attend(plan, inputs: list[Tensor]) -> list[Tensor]:
    """What is read and the gradients of query, key and value."""
    query, key, value = (x.clone().requires_grad_() for x in inputs[:3])
    read = plan.attend(query, key, value)
    read.backward(inputs[3])
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in (query, key, value)]
    return [read.detach(), *grads]


def slow_attend(bias: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """As `attend`, by the loop, in double precision."""
    query, key, value = (x.double().requires_grad_() for x in inputs[:3])
    read, _ = slow_attention(query, key, value, bias.double())
    if read.requires_grad:
        read.backward(inputs[3].double())
    results = [read.detach(), *(x.grad for x in (query, key, value))]
    zeros = [inputs[0], *inputs[:3]]
    return [
        torch.zeros_like(z) if r is None else r.float() for r, z in zip(results, zeros, strict=True)
    ]


@given(biases(everywhere=False), st.integers(1, 8), st.sampled_from(SITES), st.data())
def test_all_paths_are_the_loop_in_values_and_gradients(bias, width, site, data):
    """Any lines of any segment: verticals, ends that stick out, rows without a key; any batch."""
    layout = Layout(TASKS[bias.task](), width)
    layer = data.draw(st.integers(0, LAYERS - 1))
    inputs = random_inputs(layout, site, HEADS, batch=data.draw(st.integers(1, 3)))
    dense = bias.dense(site, layer, layout, range(width + 1))
    wanted = slow_attend(dense, inputs)
    lines = LinesPlan | OwnPlan
    kinds = {"dense": DensePlan, "lines": lines, "auto": lines | DensePlan}
    for path, kind in kinds.items():
        plan = plan_attention(bias, layout, LAYERS, path=path)[layer][site]
        assert isinstance(plan, kind)
        found = attend(plan, inputs)
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, want, **TOLERANCE)
        # Closed is closed, exactly: rows without a key, and keys that no row reads.
        read, by_query, by_key, by_value = found
        shut_rows, unread = dense.isinf().all(dim=2), dense.isinf().all(dim=1)
        assert (read[:, shut_rows] == 0).all()
        assert (by_query[:, shut_rows] == 0).all()
        assert (by_key[:, unread] == 0).all()
        assert (by_value[:, unread] == 0).all()


@given(biases(), st.integers(1, 8), st.sampled_from(SITES))
def test_the_dense_path_is_the_loop_for_every_bias(bias, width, site):
    layout = Layout(TASKS[bias.task](), width)
    inputs = random_inputs(layout, site, HEADS)
    plan = plan_attention(bias, layout, LAYERS, path="dense")[0][site]
    wanted = slow_attend(bias.dense(site, 0, layout, range(width + 1)), inputs)
    for got, want in zip(attend(plan, inputs), wanted, strict=True):
        torch.testing.assert_close(got, want, **TOLERANCE)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("width", [1, 6])
def test_the_vanilla_bias_is_the_loop(site, width):
    layout, bias = Layout(TASKS["addition"](), width), Causal(HEADS)
    inputs = random_inputs(layout, site, HEADS)
    plan = plan_attention(bias, layout, 1)[0][site]
    wanted = slow_attend(bias.dense(site, 0, layout, range(width + 1)), inputs)
    for got, want in zip(attend(plan, inputs), wanted, strict=True):
        torch.testing.assert_close(got, want, **TOLERANCE)


@given(biases(everywhere=False), st.integers(1, 8), st.sampled_from(SITES))
def test_weights_are_the_loop_and_reproduce_attend(bias, width, site):
    layout = Layout(TASKS[bias.task](), width)
    query, key, value, _ = random_inputs(layout, site, HEADS)
    dense = bias.dense(site, 0, layout, range(width + 1))
    _, wanted = slow_attention(query.double(), key.double(), value.double(), dense.double())
    is_open = dense.isfinite().any(dim=2).float().expand(2, -1, -1)
    for path in ("dense", "lines", "auto"):
        plan = plan_attention(bias, layout, LAYERS, path=path)[0][site]
        weights = plan.weights(query, key)
        torch.testing.assert_close(weights, wanted.float(), **TOLERANCE)
        torch.testing.assert_close(weights.sum(dim=3), is_open, **TOLERANCE)
        assert (weights[:, dense.isinf()] == 0).all()
        torch.testing.assert_close(weights @ value, plan.attend(query, key, value), **TOLERANCE)


@pytest.mark.parametrize("path", ["dense", "lines", "auto"])
def test_a_bias_without_lines_reads_zeros(path):
    bias, layout = CalibratedBias("addition", HEADS, []), Layout(TASKS["addition"](), 4)
    for site in SITES:
        plan = plan_attention(bias, layout, 1, path=path)[0][site]
        inputs = random_inputs(layout, site, HEADS)
        assert all((x == 0).all() for x in attend(plan, inputs))
        assert (plan.weights(*inputs[:2]) == 0).all()


@pytest.mark.parametrize("path", ["dense", "lines"])
def test_closed_keys_do_not_leak_however_large(path):
    # The keys and values behind a closed key may be anything finite; nothing of them comes through.
    bias = CalibratedBias("successor", 1, [Line("a[c]")])
    layout = Layout(TASKS["successor"](), 6)
    plan = plan_attention(bias, layout, 1, path=path)[0]["cross"]
    query, key, value, _ = random_inputs(layout, "cross", 1)
    before = plan.attend(query, key, value)
    key[:, :, 0], value[:, :, 0] = 1e4, 1e30  # read by row 5 alone
    after = plan.attend(query, key, value)
    assert torch.equal(before[:, :, :5], after[:, :, :5])
    assert (after[:, :, 5] == 1e30).all()


@given(biases(everywhere=False), st.integers(2, 8), st.data())
def test_a_plan_of_some_rows_is_a_slice_of_the_whole(bias, width, data):
    layout = Layout(TASKS[bias.task](), width)
    first = data.draw(st.integers(0, width))
    rows = range(first, data.draw(st.integers(first + 1, width + 1)))
    for site in SITES:
        query, key, value, _ = random_inputs(layout, site, HEADS)
        for path in ("dense", "lines"):
            whole = plan_attention(bias, layout, LAYERS, path=path)[1][site]
            part = plan_attention(bias, layout, LAYERS, queries=rows, path=path)[1][site]
            some, keys = slice(rows.start, rows.stop), rows.stop if site == "self" else None
            torch.testing.assert_close(
                part.attend(query[:, :, some], key[:, :, :keys], value[:, :, :keys]),
                whole.attend(query, key, value)[:, :, some],
                **TOLERANCE,
            )


def test_one_plan_per_layer_and_site():
    lines = [Line("a[c]", layer=0), Line(MatrixTrack("cross", "vertical", 0, "a"), layer=1)]
    bias, layout = CalibratedBias("successor", 1, lines), Layout(TASKS["successor"](), 3)
    plans = plan_attention(bias, layout, 3, path="lines")
    assert [set(plan) for plan in plans] == [{"self", "cross"}] * 3
    assert plans[0]["cross"].index[0, :3, 0].tolist() == [2, 1, 0]
    assert plans[1]["cross"].index[0, :3, 0].tolist() == [0, 0, 0]
    assert (plans[2]["cross"].index == plans[2]["cross"].keys).all()


def test_auto_takes_lines_where_they_pay():
    lines = [Line(Track.along("a", offset)) for offset in (0, -1)]
    bias = CalibratedBias("successor", 1, lines)
    short, long = (Layout(TASKS["successor"](), width) for width in (8, 200))
    assert isinstance(plan_attention(bias, short, 1)[0]["cross"], DensePlan)
    assert isinstance(plan_attention(bias, long, 1)[0]["cross"], LinesPlan)
    # Many keys among few are sooner scored than gathered.
    many = [Line(Track.along("a", offset)) for offset in range(-5, 5)]
    bias, longer = CalibratedBias("successor", 1, many), Layout(TASKS["successor"](), 400)
    assert isinstance(plan_attention(bias, long, 1)[0]["cross"], DensePlan)
    assert isinstance(plan_attention(bias, longer, 1)[0]["cross"], LinesPlan)
    # A bias that opens ever more keys has only the dense path.
    assert isinstance(plan_attention(Causal(1), long, 1)[0]["cross"], DensePlan)
    assert isinstance(plan_attention(Causal(1), long, 1)[0]["self"], DensePlan)


def test_vanilla_cross_attention_needs_no_bias():
    plan = plan_attention(Causal(1), Layout(TASKS["successor"](), 3), 1)[0]
    assert plan["cross"] == DensePlan(None, None)
    assert plan["self"].open_rows is None


@pytest.mark.parametrize(
    ("bias", "name", "where"),
    [
        (Causal(1), "Causal", "self-attention of layer 0"),
        (
            CalibratedBias(
                "successor", 1, [Line(MatrixTrack("cross", "everywhere", 0, "a"), layer=1)]
            ),
            "CalibratedBias",
            "cross-attention of layer 1",
        ),
    ],
)
def test_lines_are_refused_where_there_are_none(bias, name, where):
    text = (
        "^the lines path needs a bias that opens a bounded number of keys; "
        f"{name} does not, at {where}$"
    )
    with pytest.raises(ValueError, match=text):
        plan_attention(bias, Layout(TASKS["successor"](), 3), 2, path="lines")


@given(st.data(), st.integers(1, 60), st.sampled_from(SITES))
def test_one_line_to_a_head_is_copied_without_scores(data, width, site):
    """At most one key to a query: the weight is 1, so queries and keys must not matter, at any width."""
    tracks = {
        "self": [Track.along("answer", -back - 1) for back in range(4)],
        "cross": [Track.along(s, o) for s in "ab" for o in (-1, 0, 1)],
    }
    chosen = data.draw(st.lists(st.sampled_from(tracks[site]), min_size=HEADS, max_size=HEADS))
    bias = CalibratedBias("addition", HEADS, [Line(t, head) for head, t in enumerate(chosen)])
    layout = Layout(TASKS["addition"](), width)
    plan = plan_attention(bias, layout, 1)[0][site]
    assert not plan.scores
    inputs = random_inputs(layout, site, HEADS)
    wanted = slow_attend(bias.dense(site, 0, layout, range(width + 1)), inputs)
    inputs[0], inputs[1] = torch.full_like(inputs[0], torch.nan), inputs[2]
    found = attend(plan, inputs)
    torch.testing.assert_close(found[0], wanted[0], **TOLERANCE)
    torch.testing.assert_close(found[3], wanted[3], **TOLERANCE)


def test_every_plan_cuts_out_one_query():
    """With all keys, or without those after the query where none is open."""
    layout = Layout(TASKS["addition"](), 5)
    for site, one, more in (
        ("cross", Track.parse("a[c-1]"), Track.parse("+")),
        ("self", Track.parse("answer[c-2]"), Track.parse("answer[c-4]")),
    ):
        query, key, value, _ = random_inputs(layout, site, HEADS)
        each = [Line(one, head) for head in range(HEADS)]
        two = [*each, Line(more, 0)]
        for lines, path in ((each, "auto"), (each, "lines"), (two, "lines"), (two, "dense")):
            bias = CalibratedBias("addition", HEADS, lines)
            plan = plan_attention(bias, layout, 1, path=path)[0][site]
            whole = plan.attend(query, key, value)
            for row in range(layout.target_length):
                own, keys = slice(row, row + 1), row + 1 if site == "self" else None
                part = query[:, :, own], key[:, :, :keys], value[:, :, :keys]
                alone = plan.row(row, keys).attend(*part)
                torch.testing.assert_close(alone, whole[:, :, own], **TOLERANCE)


@given(biases(everywhere=False), st.integers(1, 8), st.sampled_from(SITES), st.integers(1, 3))
def test_reading_alone_is_reading_with_gradients(bias, width, site, batch):
    """Where no gradient is wanted a single problem is looked up in another way."""
    layout = Layout(TASKS[bias.task](), width)
    query, key, value, _ = random_inputs(layout, site, HEADS, batch=batch)
    plan = plan_attention(bias, layout, LAYERS, path="lines")[0][site]
    wanted = plan.attend(query.requires_grad_(), key, value).detach()
    with torch.inference_mode():
        torch.testing.assert_close(plan.attend(query, key, value), wanted, **TOLERANCE)


def test_where_each_row_reads_itself_nothing_is_looked_up():
    lines = [Line("answer[c-1]", head) for head in range(HEADS)]
    layout = Layout(TASKS["addition"](), 6)
    plan = plan_attention(CalibratedBias("addition", HEADS, lines), layout, 1, path="lines")
    own = plan[0]["self"]
    assert own == OwnPlan(HEADS)
    inputs = random_inputs(layout, "self", HEADS)
    bias = CalibratedBias("addition", HEADS, lines).dense("self", 0, layout, range(7))
    for got, want in zip(attend(own, inputs), slow_attend(bias, inputs), strict=True):
        torch.testing.assert_close(got, want, **TOLERANCE)
    query, key = inputs[:2]
    assert own.weights(query, key).equal(torch.eye(7).expand(2, HEADS, -1, -1))
    assert own.row(4) == own
    one_head_less = CalibratedBias("addition", HEADS, lines[1:])
    assert isinstance(plan_attention(one_head_less, layout, 1, path="lines")[0]["self"], LinesPlan)


def test_few_keys_with_a_bias_that_learns_are_few_keys():
    """One is a function of its own, the other torch's operations; mixed precision takes these, too."""
    random = torch.Generator().manual_seed(0)
    shapes = ((3, 2, 4, 5), (3, 2, 7, 5), (3, 2, 7, 5), (3, 2, 4, 5))
    inputs = [torch.randn(shape, generator=random) for shape in shapes]
    bias = torch.randn(2, 4, 7, generator=random)

    def found(bias):
        query, key, value = (x.clone().requires_grad_() for x in inputs[:3])
        read = attend_few(query, key, value, bias)
        return [read.detach(), *torch.autograd.grad(read, (query, key, value), inputs[3])]

    wanted = found(bias)
    assert all(
        torch.allclose(own, other, **TOLERANCE)
        for own, other in zip(found(bias.clone().requires_grad_()), wanted, strict=True)
    )
    with torch.no_grad():
        assert attend_few(*inputs[:3], bias).equal(wanted[0])
    with torch.autocast("cpu", torch.bfloat16):
        rough = found(bias)
    assert rough[0].dtype == torch.bfloat16
    assert all(
        torch.allclose(own.float(), other, atol=0.1)
        for own, other in zip(rough, wanted, strict=True)
    )
