"""A decoder reads problem and answer in one attention: against one sequence with masks, written out."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lengthwise as lw
from lengthwise.bias import SITES, AttentionBias, CalibratedBias, Line, OpenKeys, Track
from lengthwise.calibration import SheetMaps, calibrate_sheets, load_maps
from lengthwise.calibration.evidence import SheetEvidence
from lengthwise.decoding.any_rows import AnyRows, Streams
from lengthwise.decoding.greedy import decode_with_cache, greedy_decode
from lengthwise.decoding.walks import decode_sequentially
from lengthwise.locality import cone_of_sheet
from lengthwise.model import plan_attention
from lengthwise.model.ahead import prepare
from lengthwise.model.positions import rotate
from lengthwise.model.transformer import Transformer
from lengthwise.proof.certificate import hashes
from lengthwise.runs.parts import make_bias, make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.tasks import WORKSHEETS

HEADS, LAYERS = 4, 3
LINES = ["a[c]", "b[c]", "a[c-1]", "b[c-1]", "answer[c-1]", "answer[c-2]", "+"]


def make(positions="none", norm="pre", **model):
    """Settings and an untrained decoder with weights that are far from nothing."""
    values = {"kind": "decoder", "layers": LAYERS, "positions": positions, "norm": norm, **model}
    config = make_config({"task": "addition", "model": values})
    torch.manual_seed(0)
    model = make_model(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.2 * torch.randn(weight.shape))
    return config, model


def problems(config, width=5, count=6):
    layout = config.layout(width)
    operands = np.random.default_rng(0).integers(0, 10, (count, 2, width)).astype(np.uint8)
    operands[:, :, -1] = 0
    return layout, *layout.batch(operands)


def by_hand(model: Transformer, bias, layout, source, target):
    """Logits of the answer's rows: one sequence, and a mask where the problem's tokens see themselves."""
    tokens = torch.cat([source, target[:, :-1]], dim=1)
    begin, count = source.shape[1], tokens.shape[1]
    x = model.source_embedding.weight[tokens]
    table = None
    if model.positions == "sinusoidal":
        x = x + model.scheme(torch.arange(count), model.width)
    if model.positions == "learned":
        x = x + model.source_positions.weight[:count]
    if model.positions == "rope":
        table = model.scheme(torch.arange(count), model.width // model.heads)
    for number, layer in enumerate(model.decoder):
        mask = torch.full((model.heads, count, count), float("-inf"))
        mask[:, range(begin), range(begin)] = 0
        parts = (bias.dense(site, number, layout, range(count - begin)) for site in SITES)
        mask[:, begin:, begin:], mask[:, begin:, :begin] = parts
        inner = layer.norm_self(x) if layer.norm == "pre" else x
        fused = layer.self_attention.query_key_value(inner).unflatten(-1, (3, model.heads, -1))
        query, key, value = fused.permute(2, 0, 3, 1, 4)
        if table is not None:
            query, key = rotate(query, table), rotate(key, table)
        opens = (mask > float("-inf")).any(dim=-1, keepdim=True)  # else nothing is read
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask.where(opens, 0.0)
        read = logits.softmax(dim=-1) * opens @ value
        x = x + layer.self_attention.out(read.transpose(1, 2).flatten(2))
        x = x if layer.norm == "pre" else layer.norm_self(x)
        inner = layer.norm_feed_forward(x) if layer.norm == "pre" else x
        x = x + layer.contract(torch.relu(layer.expand(inner)))
        x = x if layer.norm == "pre" else layer.norm_feed_forward(x)
    return model.to_logits(model.norm(x))[:, begin:]


def every_way(model, bias, layout, source, target):
    """Logits by each path, with rows that agree computed once and with all of them."""
    for path in ("dense", "lines", "auto"):
        if path == "lines" and not isinstance(bias, CalibratedBias):
            continue
        plan = plan_attention(bias, layout, LAYERS, path=path)
        for _ in range(2):  # a plan is kept, and serves again
            for keep in (False, True):
                yield model(source, target[:, :-1], plan, return_attention=keep)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned", "rope"])
@pytest.mark.parametrize("bias", ["causal", "alibi", "window"])
def test_a_decoder_is_one_sequence_with_a_mask(positions, norm, bias):
    config, model = make(positions, norm, bias=bias, alibi_cross="distance")
    given = (make_bias(config), *problems(config))
    wanted = by_hand(model, *given)
    for output in every_way(model, *given):
        torch.testing.assert_close(output.logits, wanted, atol=2e-5, rtol=1e-5)


line = st.builds(
    Line,
    st.sampled_from(LINES),
    st.integers(0, HEADS - 1),
    st.sampled_from([None, *range(LAYERS)]),
    st.sampled_from([0.0, 0.0, 1.0, -2.0]),
)


@settings(max_examples=40)
@given(st.lists(line, max_size=9), st.sampled_from(["none", "sinusoidal"]), st.integers(2, 30))
@torch.no_grad()
def test_any_lines_read_as_the_mask_says(lines, positions, width):
    """Heads that read nothing, one token, several of one kind, or of both."""
    config, model = make(positions)
    bias = CalibratedBias("addition", HEADS, lines)
    given = (bias, *problems(config, width, 3))
    wanted = by_hand(model, *given)
    for output in every_way(model, *given):
        torch.testing.assert_close(output.logits, wanted, atol=2e-5, rtol=1e-5)
        for layer in output.attention:
            both = torch.cat([layer["cross"], layer["self"]], dim=-1)
            assert ((both.sum(dim=-1) - 1).abs().minimum(both.sum(dim=-1)) < 1e-5).all()


@torch.no_grad()
@pytest.mark.parametrize("positions", ["none", "sinusoidal", "rope"])
@pytest.mark.parametrize("path", ["lines", "auto", "dense"])
def test_what_is_added_to_a_rows_own_token_counts_beside_the_problem(positions, path):
    """Every head reads its own row, which alone would need no score, and some a digit besides."""
    config, model = make(positions)
    values = [0.0, -2.0, 3.0, 1.0]
    lines = [Line("answer[c-1]", head, value=value) for head, value in enumerate(values)]
    lines += [Line("answer[c-1]", 1, value=-4.0), Line("a[c]", 0), Line("b[c]", 1, value=1.0)]
    for some in ([*lines, Line("a[c-1]", 2, layer=1)], lines[:4] + lines[5:]):
        bias = CalibratedBias("addition", HEADS, some)
        layout, source, target = given = problems(config, 12)
        wanted = by_hand(model, bias, *given)
        plan = plan_attention(bias, layout, LAYERS, path=path)
        found = model(source, target[:, :-1], plan).logits
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)
        if positions != "rope":
            streams = Streams(
                [layout] * len(source), [row.astype(np.uint8) for row in source.numpy()]
            )
            streams.written[:] = target[:, 1:].flatten().numpy()
            rows = np.arange(3, len(streams.written), 5)
            found = AnyRows(model, bias, streams).logits(rows)
            torch.testing.assert_close(found, wanted.flatten(0, 1)[rows], atol=2e-5, rtol=1e-5)


class Fading(AttentionBias):
    """A bias of one's own: the row's token, ever less from row to row, and the problem's first one."""

    heads = HEADS

    def dense(self, site, layer, layout, queries):
        found = torch.full((1, len(queries), layout.keys(site)), float("-inf"))
        rows = torch.arange(queries.start, queries.stop)
        found[0, rows - queries.start, rows if site == "self" else 0] = -rows / 3
        return found.expand(HEADS, -1, -1)

    def open_keys(self, site, layer, layout, queries):
        rows = torch.arange(queries.start, queries.stop)[None, :, None].expand(HEADS, -1, -1)
        return OpenKeys(rows if site == "self" else torch.zeros_like(rows), -rows / 3)


@torch.no_grad()
def test_what_is_added_may_differ_from_row_to_row():
    config, model = make()
    given = Fading(), *problems(config, 12)
    wanted = by_hand(model, *given)
    for path in ("dense", "lines", "auto"):
        plan = plan_attention(given[0], given[1], LAYERS, path=path)
        for keep in (False, True):
            found = model(given[2], given[3][:, :-1], plan, return_attention=keep).logits
            torch.testing.assert_close(found, wanted, atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("positions", ["none", "sinusoidal", "learned", "rope"])
@pytest.mark.parametrize("lines", [None, ["a[c]", "b[c-1]", "answer[c-2]", "answer[c-1]"]])
def test_every_way_of_decoding_writes_what_the_whole_sequence_says(positions, lines):
    config, model = make(positions)
    layout, source, target = problems(config, 12)
    bias = make_bias(config)
    if lines is not None:
        bias = CalibratedBias("addition", HEADS, map(Line, lines, range(HEADS)))
    written = target[:, :1]
    for _ in range(layout.target_length):
        rest = layout.target_length + 1 - written.shape[1]
        padded = torch.nn.functional.pad(written, (0, rest))
        logits = by_hand(model, bias, layout, source, padded)
        written = torch.cat([written, logits[:, written.shape[1] - 1].argmax(-1)[:, None]], dim=1)
    end = layout.vocabulary.end
    ended = ((written[:, 1:] == end).cumsum(dim=1) - (written[:, 1:] == end).int()) > 0
    wanted = written[:, 1:].masked_fill(ended, end)
    assert torch.equal(decode_with_cache(model, bias, layout, source), wanted)
    assert torch.equal(greedy_decode(model, bias, layout, source), wanted)
    if lines is not None and positions != "rope":
        sources = [row.astype(np.uint8) for row in source.numpy()]
        streams = Streams([layout] * len(source), sources)
        decode_sequentially(AnyRows(model, bias, streams), lambda done: None)
        assert np.array_equal(streams.written.reshape(wanted.shape), wanted.numpy())


def test_gradients_are_those_of_the_mask():
    config, model = make()
    lines = map(Line, ["a[c]", "b[c]", "answer[c-2]", "a[c-1]", "+"], [0, 1, 2, 3, 3])
    given = (CalibratedBias("addition", HEADS, lines), *problems(config))

    def gradients(logits):
        model.zero_grad()
        logits.square().sum().backward()
        return [weight.grad.clone() for weight in model.parameters()]

    wanted = gradients(by_hand(model, *given))
    for path in ("dense", "lines"):
        plan = plan_attention(given[0], given[1], LAYERS, path=path)
        found = gradients(model(given[2], given[3][:, :-1], plan).logits)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.trains
@pytest.mark.parametrize("lines", [None, ["a[c]", "b[c]", "answer[c-1]", "a[c-1]"]])
def test_plans_that_were_joined_ahead_are_part_of_one_graph(lines):
    """A compiled pass makes none of them anew: it neither breaks nor keeps what its next run overwrites."""
    config, model = make()
    layout, source, target = problems(config)
    bias = (
        make_bias(config)
        if lines is None
        else CalibratedBias("addition", HEADS, map(Line, lines, range(4)))
    )
    plan = plan_attention(bias, layout, LAYERS, path="dense" if lines is None else "lines")
    prepare(model, plan, source.shape[1], target.shape[1] - 1, "cpu")
    kept = [vars(sites["cross"])["joined"] for sites in plan]
    model.train()  # rows that read the same are not counted within a graph
    model.drops = True
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    found = compiled(source, target[:, :-1], plan).logits
    assert all(vars(sites["cross"])["joined"] is one for sites, one in zip(plan, kept, strict=True))
    torch.testing.assert_close(
        found, by_hand(model, bias, layout, source, target), atol=2e-5, rtol=1e-5
    )


def test_learned_positions_end_where_both_end():
    config, model = make("learned", max_positions=20)
    assert [width for width in range(2, 12) if model.reaches(config.layout(width))] == [
        *range(2, 7)
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"encoder_layers": 1}, "a decoder has no encoder"),
        ({"bias": "t5"}, "bias 't5' learns numbers for problem and answer apart"),
        ({"bias": "fire"}, "bias 'fire' learns numbers for problem and answer apart"),
        ({"positions": "cyclic"}, "position scheme 'cyclic' numbers problem and answer apart"),
        ({"positions": "abacus"}, "position scheme 'abacus' numbers problem and answer apart"),
        ({"kind": "encoder"}, "kind"),
    ],
)
def test_what_a_decoder_does_not_have_is_refused(values, message):
    with pytest.raises(InputError, match=message):
        make_config({"model": {"kind": "decoder", **values}})


def test_models_of_the_first_kind_are_named_as_before(tmp_path):
    """Files of weights and certificates written before there were kinds stay what they are."""
    values = make_config({}).model.identity()
    assert "kind" not in values
    assert values.keys() == make_config({}).model.model_dump().keys() - {"kind"}
    assert make_config({"model": {"kind": "decoder"}}).model.identity()["kind"] == "decoder"


@pytest.mark.parametrize("task", sorted(WORKSHEETS))
def test_a_head_of_a_decoder_reads_one_line_of_a_sheet(task):
    """However many there are, while a first layer has room for those of the sheet."""
    config = make_config({"task": task, "model": {"kind": "decoder"}})
    heads, layers = config.model.heads, config.model.layers
    nears = config.make_task().nears
    tracks = [track for track in map(str, nears) if track not in ("last", "before")]
    evidence = [
        SheetEvidence(Track.parse(track), 0.5, 9.0 - place, (0.5, 0.2, 0.3, 0.1))
        for place, track in enumerate(tracks)
    ]
    maps = SheetMaps(
        *(config.format, config.layout().size, 8, 1.0, tuple(evidence), ()),
        {str(item.track): torch.ones(1, layers, heads) for item in evidence},
        joint=True,
    )
    bias = calibrate_sheets(maps, lines="all")
    assert set(map(str, cone_of_sheet(config.make_task(), bias, layers))) == set(tracks)
    places = [(line.head, line.layer) for line in bias.lines]
    assert sorted(places) == [(head, layer) for head in range(heads) for layer in range(layers)]


@pytest.mark.trains
def test_a_decoder_goes_through_the_whole_method(tiny_config, tmp_path, call):
    """Trained, looked at, calibrated, retrained, proven; kept and opened again."""
    values = json.loads(tiny_config.model_dump_json())
    values["model"]["kind"] = "decoder"
    config = make_config(values)
    result = lw.abc(config, out=tmp_path / "abc", prove=True)
    run = Run.open(tmp_path / "abc" / "calibrated")
    assert run.model.joint
    maps = load_maps(tmp_path / "abc" / "vanilla" / "maps.safetensors")
    assert maps.joint
    weights = torch.cat([maps.weights["cross"], maps.weights["self"]], dim=-1)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]))
    heads = [[line.head for line in run.bias.lines if line.layer in (None, n)] for n in (0, 1)]
    assert all(len(own) == len(set(own)) for own in heads)  # a head reads one token
    assert result.proof is not None
    assert result.proof.proven
    assert "target_embedding.weight" not in run.model.state_dict()
    assert hashes(run)["model"] != hashes(Run(run.path, tiny_config, run.bias))["model"]
    assert call("verify", run.path / "certificate.json", run.path)[0] == 0


def test_the_lines_of_a_run_are_drawn_before_it_is_trained(tmp_path, call):
    config = make_config({"task": "addition", "model": {"kind": "decoder", "positions": "none"}})
    lines = [Line(Track.parse("a[c]"), 0), Line(Track.parse("answer[c-1]"), 1)]
    Run.create(tmp_path / "run", config, CalibratedBias(config.format, config.model.heads, lines))
    code, out, err = call("explain", tmp_path / "run", "--plot", tmp_path / "lines.png")
    assert code == 0, err
    assert "head 0 reads a[c]" in out
    assert (tmp_path / "lines.png").stat().st_size > 1000
