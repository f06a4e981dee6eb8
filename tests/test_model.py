"""The model: against torch.nn's own layers, and what follows from its bias."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from helpers import HEADS, LAYERS, biases, make_untrained, random_batch
from lengthwise.bias import SITES, CalibratedBias, Causal, Line, MatrixTrack
from lengthwise.model import POSITIONS, Transformer, plan_attention
from lengthwise.problems.layout import Layout
from lengthwise.tasks import TASKS

TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def run(model: Transformer, bias, layout: Layout, source: Tensor, target: Tensor, **options):
    """Output for the rows of a layout; the last target token is not read."""
    plan = plan_attention(bias, layout, len(model.layers), path=options.pop("path", "auto"))
    return model(source, target[:, : layout.target_length], plan, **options)


# --- positions ---


@pytest.mark.parametrize("width", [2, 6, 64])
def test_sinusoidal_positions_are_the_formula(width):
    table = POSITIONS["sinusoidal"](torch.arange(1001), width)
    assert table.shape == (1001, width)
    assert table.dtype == torch.float32
    for position in (0, 1, 2, 3, 10, 99, 1000):
        for channel in range(width):
            angle = position / 10000 ** (channel // 2 * 2 / width)
            wanted = math.cos(angle) if channel % 2 else math.sin(angle)
            # float32 angles are off by up to 1e-7 of themselves.
            assert table[position, channel].item() == pytest.approx(wanted, abs=1e-6 + 2e-7 * angle)


def test_positions_depend_on_the_position_alone():
    positions = torch.tensor([5, 0, 300])
    table = POSITIONS["sinusoidal"](torch.arange(301), 8)
    assert torch.equal(POSITIONS["sinusoidal"](positions, 8), table[positions])


def test_no_positions_are_zeros():
    assert POSITIONS["none"](torch.arange(4), 6).tolist() == torch.zeros(4, 6).tolist()


# --- torch.nn as the oracle ---


def torch_layers(model: Transformer) -> list[nn.TransformerDecoderLayer]:
    """torch's own pre-norm decoder layers with the model's weights."""
    made = []
    for ours in model.layers:
        theirs = nn.TransformerDecoderLayer(
            model.width,
            model.heads,
            ours.expand.out_features,
            dropout=0.0,
            batch_first=True,
            norm_first=True,
        )
        own, cross = ours.self_attention, ours.cross_attention
        pairs = [
            (theirs.self_attn.in_proj_weight, own.query_key_value.weight),
            (theirs.self_attn.in_proj_bias, own.query_key_value.bias),
            (
                theirs.multihead_attn.in_proj_weight,
                torch.cat([cross.query.weight, cross.key_value.weight]),
            ),
            (
                theirs.multihead_attn.in_proj_bias,
                torch.cat([cross.query.bias, cross.key_value.bias]),
            ),
        ]
        modules = [
            (theirs.self_attn.out_proj, own.out),
            (theirs.multihead_attn.out_proj, cross.out),
            (theirs.linear1, ours.expand),
            (theirs.linear2, ours.contract),
            (theirs.norm1, ours.norm_self),
            (theirs.norm2, ours.norm_cross),
            (theirs.norm3, ours.norm_feed_forward),
        ]
        for to, of in modules:
            pairs += [(to.weight, of.weight), (to.bias, of.bias)]
        with torch.no_grad():
            for to, of in pairs:
                to.copy_(of)
        made.append(theirs)
    return made


def formula_positions(count: int, width: int) -> Tensor:
    table = torch.zeros(count, width, dtype=torch.float64)
    for position in range(count):
        for channel in range(width):
            angle = position / 10000 ** (channel // 2 * 2 / width)
            table[position, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return table.float()


def torch_logits(model, bias, layout: Layout, source: Tensor, target: Tensor) -> Tensor:
    """The same model from torch's pieces; gradients stay on, so that no fast path is taken."""
    target = target[:, : layout.target_length]
    memory = model.source_embedding.weight[source]
    x = model.target_embedding.weight[target]
    if model.positions == "sinusoidal":
        memory = memory + formula_positions(source.shape[1], model.width)
        x = x + formula_positions(target.shape[1], model.width)
    for index, layer in enumerate(torch_layers(model)):
        own, cross = (
            bias.dense(site, index, layout, range(layout.target_length)).repeat(len(source), 1, 1)
            for site in SITES
        )
        x = layer(x, memory, tgt_mask=own, memory_mask=cross)
    x = nn.functional.layer_norm(x, x.shape[-1:], model.norm.weight, model.norm.bias)
    return x @ model.to_logits.weight.T + model.to_logits.bias


@pytest.mark.parametrize("positions", ["none", "sinusoidal"])
@pytest.mark.parametrize("width", [1, 5])
@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_vanilla_model_is_torchs(task, width, positions):
    model, layout = make_untrained(task, positions=positions), Layout(TASKS[task](), width)
    source, target = random_batch(layout, 4)
    bias = Causal(HEADS)
    logits = run(model, bias, layout, source, target).logits
    assert logits.shape == (4, layout.target_length, len(layout.vocabulary))
    torch.testing.assert_close(
        logits, torch_logits(model, bias, layout, source, target), **TOLERANCE
    )


@settings(max_examples=30)
@given(biases(everywhere=False), st.integers(1, 8), st.sampled_from(("none", "sinusoidal")))
def test_a_calibrated_model_is_torchs_on_both_paths(bias, width, positions):
    model, layout = make_untrained(bias.task, 1, positions), Layout(TASKS[bias.task](), width)
    source, target = random_batch(layout, 2)
    wanted = torch_logits(model, bias, layout, source, target)
    for path in ("dense", "lines"):
        logits = run(model, bias, layout, source, target, path=path).logits
        torch.testing.assert_close(logits, wanted, **TOLERANCE)


def test_gradients_are_torchs():
    bias = CalibratedBias(
        "addition",
        HEADS,
        [
            Line("a[c]"),
            Line("b[c-1]", value=-1.0),
            Line("+", 1),
            Line("answer[c-3]", 2),
        ],
    )
    model, layout = make_untrained("addition"), Layout(TASKS["addition"](), 5)
    source, target = random_batch(layout, 3)

    def gradients(logits: Tensor) -> list[Tensor]:
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), target[:, 1:].flatten())
        return list(torch.autograd.grad(loss, [model.source_embedding.weight, model.norm.weight]))

    # torch's copies are leaves of their own, so what flows back to the embeddings is compared.
    wanted = gradients(torch_logits(model, bias, layout, source, target))
    for path in ("dense", "lines"):
        found = gradients(run(model, bias, layout, source, target, path=path).logits)
        for got, want in zip(found, wanted, strict=True):
            assert want.abs().max() > 1e-4
            torch.testing.assert_close(got, want, **TOLERANCE)


# --- attention that is returned ---


@settings(max_examples=20)
@given(st.none() | biases(everywhere=False), st.integers(1, 6))
def test_returned_attention_is_consistent(bias, width):
    task = bias.task if bias else "addition"
    bias = bias or Causal(HEADS)
    model, layout = make_untrained(task), Layout(TASKS[task](), width)
    source, target = random_batch(layout, 2)
    plain = run(model, bias, layout, source, target)
    assert plain.attention == []
    paths = ["dense"] if isinstance(bias, Causal) else ["dense", "lines"]
    outputs = [
        run(model, bias, layout, source, target, path=p, return_attention=True) for p in paths
    ]
    for output in outputs:
        torch.testing.assert_close(output.logits, plain.logits, **TOLERANCE)
        assert [set(layer) for layer in output.attention] == [set(SITES)] * LAYERS
        for layer, sites in enumerate(output.attention):
            for site, weights in sites.items():
                dense = bias.dense(site, layer, layout, range(width + 1))
                assert weights.shape == (2, *dense.shape)
                assert (weights >= 0).all()
                assert (weights[:, dense.isinf()] == 0).all()
                is_open = dense.isfinite().any(dim=2).float().expand(2, -1, -1)
                torch.testing.assert_close(weights.sum(dim=3), is_open, **TOLERANCE)
                torch.testing.assert_close(weights, outputs[0].attention[layer][site], **TOLERANCE)


def test_returned_attention_is_torchs():
    model, layout = make_untrained("addition"), Layout(TASKS["addition"](), 4)
    source, target = random_batch(layout, 3)
    output = run(model, Causal(HEADS), layout, source, target, return_attention=True)
    x = model.target_embedding.weight[target[:, :5]] + formula_positions(5, model.width)
    memory = model.source_embedding.weight[source] + formula_positions(9, model.width)
    later = torch.ones(5, 5).triu(1).bool()
    for layer, ours in zip(torch_layers(model), output.attention, strict=True):
        normed = layer.norm1(x)
        read, weights = layer.self_attn(
            normed, normed, normed, attn_mask=later, average_attn_weights=False
        )
        torch.testing.assert_close(ours["self"], weights, **TOLERANCE)
        x = x + read
        read, weights = layer.multihead_attn(
            layer.norm2(x), memory, memory, average_attn_weights=False
        )
        torch.testing.assert_close(ours["cross"], weights, **TOLERANCE)
        x = x + read
        x = x + layer.linear2(layer.linear1(layer.norm3(x)).relu())


# --- what follows from the bias ---


@settings(max_examples=30)
@given(st.none() | biases(), st.integers(1, 8), st.data())
def test_later_tokens_never_change_earlier_logits(bias, width, data):
    task = bias.task if bias else "addition"
    model, layout = make_untrained(task), Layout(TASKS[task](), width)
    source, target = random_batch(layout, 2)
    row = data.draw(st.integers(0, width))
    before = run(model, bias or Causal(HEADS), layout, source, target).logits
    changed = target.clone()
    changed[:, row + 1 :] = (changed[:, row + 1 :] + 1) % len(layout.vocabulary)
    after = run(model, bias or Causal(HEADS), layout, source, changed).logits
    torch.testing.assert_close(after[:, : row + 1], before[:, : row + 1], atol=1e-6, rtol=0)
    if bias is None and row < width:
        # The row that reads the first changed token sees it.
        assert (after[:, row + 1] - before[:, row + 1]).abs().max() > 1e-3


def reach(bias: CalibratedBias, layout: Layout) -> list[set[int]]:
    """The source positions that each row's logits may depend on, by following open keys."""
    rows = range(layout.target_length)
    seen = [set() for _ in rows]
    for layer in range(LAYERS):
        own, cross = (bias.dense(s, layer, layout, rows).isfinite().any(dim=0) for s in SITES)
        through = [seen[row].union(*(seen[k] for k in rows if own[row, k])) for row in rows]
        seen = [through[row] | set(cross[row].nonzero()[:, 0].tolist()) for row in rows]
    return seen


@pytest.mark.parametrize("path", ["dense", "lines"])
@settings(max_examples=40)
@given(bias=biases(everywhere=False, most=5), width=st.integers(2, 7), data=st.data())
def test_logits_depend_on_the_receptive_cone_alone(path, bias, width, data):
    model = make_untrained(bias.task, positions="none")
    layout = Layout(TASKS[bias.task](), width)
    source, target = random_batch(layout, 2)
    row = data.draw(st.integers(0, width))
    cone = reach(bias, layout)[row]
    outside = [key for key in range(layout.source_length) if key not in cone]
    before = run(model, bias, layout, source, target, path=path).logits
    changed = source.clone()
    changed[:, outside] = (changed[:, outside] + 3) % 10
    after = run(model, bias, layout, changed, target, path=path).logits
    torch.testing.assert_close(after[:, row], before[:, row], atol=1e-6, rtol=0)
    for key in cone:
        changed = source.clone()
        changed[:, key] = (changed[:, key] + 3) % 10
        after = run(model, bias, layout, changed, target, path=path).logits
        assert (after[:, row] - before[:, row]).abs().max() > 1e-6


ANCHORED = [
    Line("a[c]"),
    Line("b[c-1]", 1),
    Line("b[c]", 2),
    Line("+", 2, value=-0.5),
    Line("answer[c-1]"),
    Line("answer[c-2]", 1),
]


def logits_when_padded(bias: CalibratedBias, extra: int, path: str) -> tuple[Tensor, Tensor]:
    """Logits of the same problems at width 6, and padded by `extra` more zeros."""
    model, found = make_untrained("addition", positions="none"), []
    narrow = Layout(TASKS["addition"](), 6)
    operands = torch.randint(0, 10, (4, 2, 6), generator=torch.Generator().manual_seed(0)).byte()
    for width in (6, 6 + extra):
        layout = Layout(TASKS["addition"](), width)
        wide = nn.functional.pad(operands, (0, width - 6)).numpy()
        source, target = layout.batch(wide)
        found.append(run(model, bias, layout, source, target, path=path).logits)
    return found[0][:, : narrow.width], found[1][:, : narrow.width]


@pytest.mark.parametrize("path", ["dense", "lines"])
@pytest.mark.parametrize("extra", [1, 5, 100])
def test_padding_a_problem_keeps_its_logits(extra, path):
    before, after = logits_when_padded(CalibratedBias("addition", HEADS, ANCHORED), extra, path)
    torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


def test_a_line_anchored_to_the_whole_source_does_not_keep_them():
    # The digit of `a`, from the right edge of the whole: true at width 6 alone (the paper's rule).
    whole = [Line(MatrixTrack("cross", "anti-diagonal", 7)), *ANCHORED[1:]]
    same = logits_when_padded(CalibratedBias("addition", HEADS, whole), 0, "dense")
    anchored = logits_when_padded(CalibratedBias("addition", HEADS, ANCHORED), 0, "dense")
    torch.testing.assert_close(same, anchored, **TOLERANCE)
    before, after = logits_when_padded(CalibratedBias("addition", HEADS, whole), 1, "dense")
    assert (after - before).abs().max() > 0.1


# --- the rest ---


def test_positions_are_cached_without_a_trace():
    model = make_untrained("successor")
    logits = []
    for width in (3, 20, 3, 7, 3):
        layout = Layout(TASKS["successor"](), width)
        source, target = random_batch(layout, 2)
        with torch.inference_mode():
            logits.append(run(model, Causal(HEADS), layout, source, target).logits)
    assert torch.equal(logits[0], logits[2])
    assert torch.equal(logits[0], logits[4])
    # A table that inference mode made serves training too.
    layout = Layout(TASKS["successor"](), 3)
    source, target = random_batch(layout, 2)
    trained = run(model, Causal(HEADS), layout, source, target).logits
    assert torch.equal(trained.detach(), logits[0])
    trained.sum().backward()
    assert model.source_embedding.weight.grad.abs().sum() > 0


def test_dropout_acts_in_training_alone():
    torch.manual_seed(0)
    model = Transformer(13, width=12, heads=3, layers=1, feed_forward=8, dropout=0.5)
    layout = Layout(TASKS["addition"](), 3)
    source, target = random_batch(layout, 2)

    def logits() -> Tensor:
        return run(model, Causal(3), layout, source, target).logits

    assert not torch.equal(logits(), logits())
    model.eval()
    assert torch.equal(logits(), logits())


def test_problems_of_a_batch_do_not_mix():
    model, layout = make_untrained("addition"), Layout(TASKS["addition"](), 4)
    source, target = random_batch(layout, 5)
    together = run(model, Causal(HEADS), layout, source, target).logits
    for row in range(5):
        alone = run(model, Causal(HEADS), layout, source[row : row + 1], target[row : row + 1])
        torch.testing.assert_close(alone.logits[0], together[row], **TOLERANCE)


def test_a_plan_with_too_few_layers_is_refused():
    model, layout = make_untrained("addition"), Layout(TASKS["addition"](), 2)
    source, target = random_batch(layout, 1)
    with pytest.raises(ValueError, match="shorter"):
        model(source, target[:, :-1], plan_attention(Causal(HEADS), layout, 1))
