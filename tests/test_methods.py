"""Every method of the registry: one row here, and every property is tested of every row."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import random_batch
from lengthwise import api
from lengthwise.api import analysis
from lengthwise.bias import BIASES, SITES, CalibratedBias, Line, Window
from lengthwise.calibration.maps import capture
from lengthwise.decoding.greedy import cut, greedy_decode
from lengthwise.evaluation.exact_match import exact_matches
from lengthwise.model import POSITIONS, plan_attention
from lengthwise.model.ahead import prepare
from lengthwise.problems.layout import Layout
from lengthwise.problems.sampling import generator, suite_problems
from lengthwise.proof import NotApplicableError, receptive_cone
from lengthwise.runs.parts import make_bias, make_model
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, InputError, make_config
from lengthwise.settings.methods import CUSTOM, METHODS, Method, method_of
from lengthwise.tasks import TASKS, Transducer

HEADS, LAYERS = 3, 2
SMALL = [
    "task=addition",
    f"model.heads={HEADS}",
    f"model.layers={LAYERS}",
    "model.width=12",
    "model.feed_forward=20",
    "device=cpu",
]

# Name to settings: each method as it is, and combinations that reach other code.
ROWS: dict[str, list[str]] = {name: method.assignments for name, method in METHODS.items()} | {
    "window 0": ["model.bias=window", "model.window=0"],
    "window 2, left": ["model.bias=window", "model.window=2", "model.window_sides=left"],
    "window 3, right": ["model.bias=window", "model.window=3", "model.window_sides=right"],
    "few buckets": ["model.bias=t5", "model.t5_buckets=4", "model.t5_distance=3"],
    "short distances": ["model.bias=shaw", "model.shaw_distance=2"],
    "rope and alibi": ["model.bias=alibi", "model.positions=rope"],
    "cyclic 5": ["model.positions=cyclic", "model.period=5"],
    "encoder": ["model.encoder_layers=2"],
    "encoder, rope": ["model.encoder_layers=1", "model.positions=rope"],
    "encoder, t5": ["model.encoder_layers=2", "model.bias=t5", "model.norm=post"],
    "encoder, shaw": ["model.encoder_layers=2", "model.bias=shaw", "model.positions=none"],
    "encoder, alibi": ["model.encoder_layers=1", "model.bias=alibi", "model.positions=none"],
    "encoder, coupling": ["model.encoder_layers=1", "model.positions=coupling"],
    "encoder, fire": ["model.encoder_layers=1", "model.bias=fire", "model.positions=none"],
    "encoder, randomized rope": [
        *("model.encoder_layers=1", "model.positions=randomized", "positions.under=rope"),
    ],
    "encoder, window": ["model.encoder_layers=1", "model.bias=window", "model.norm=post"],
    "post-norm, scaled": ["model.norm=post", "model.embedding_scale=sqrt"],
}
every_row = pytest.mark.parametrize("name", ROWS)
every_method = pytest.mark.parametrize("name", METHODS)
# Dense and short, dense and past the width where the fused kernel takes over, and more than one chunk.
widths = pytest.mark.parametrize("width", [1, 5, 66])


def config_of(name: str) -> Config:
    return make_config({}, [*SMALL, *ROWS[name]])


def make_parts(name: str, width: int, count: int = 3):
    """A model whose parameters are all random, in evaluation mode, with its bias, layout and a batch."""
    config = config_of(name)
    torch.manual_seed(0)
    model = make_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    layout = Layout(config.make_task(), width)
    source, target = random_batch(layout, count)
    return model, make_bias(config), layout, source, target[:, :-1]


def run_model(model, bias, layout, source, target, path="auto", **options):
    plan = plan_attention(bias, layout, LAYERS, path=path, encoder=model.encodes)
    return model(source, target, plan, **options)


def test_every_scheme_and_bias_has_a_row():
    configs = [config_of(name) for name in ROWS]
    assert {config.model.positions for config in configs} == set(POSITIONS)
    assert {config.model.bias for config in configs} == set(BIASES)


@pytest.mark.trains
@every_row
@widths
def test_later_tokens_never_change_earlier_logits(name, width):
    model, bias, layout, source, target = make_parts(name, width)
    before = run_model(model, bias, layout, source, target).logits
    assert before.isfinite().all()
    row = width // 2
    changed = target.clone()
    changed[:, row + 1 :] = (changed[:, row + 1 :] + 1) % 10
    after = run_model(model, bias, layout, source, changed).logits
    torch.testing.assert_close(after[:, : row + 1], before[:, : row + 1], atol=1e-6, rtol=0)
    # The row that reads the first changed token sees it.
    assert (after[:, row + 1 :] - before[:, row + 1 :])[:, :1].abs().max() > 1e-3


LINES = [Line(track, head) for head in range(HEADS) for track in ("a[c]", "b[c-1]", "answer[c-1]")]


@pytest.mark.trains
@pytest.mark.parametrize("name", [*METHODS, "encoder, rope", "lines"])
def test_a_compiled_pass_keeps_nothing(name):
    """What a CUDA graph computes is overwritten by its next run: what is kept was worked out before."""
    model, bias, layout, source, target = make_parts("nope" if name == "lines" else name, 5)
    path = "auto"
    if name == "lines":
        bias, path = CalibratedBias("addition", HEADS, LINES), "lines"
    wanted = run_model(model, bias, layout, source, target, path).logits
    plan = plan_attention(bias, layout, LAYERS, path=path, encoder=model.encodes)
    model.train()
    model.drops = True  # as on a GPU, rows that read the same are not counted
    model._position_cache = None
    prepare(model, plan, source.shape[1], target.shape[1], "cpu")

    def kept() -> list[object]:
        plans = [one for sites in plan for one in sites.values()]
        return [model._position_cache, *(value for one in plans for value in vars(one).values())]

    before = kept()
    torch._dynamo.reset()
    found = torch.compile(model, backend="eager")(source, target, plan).logits
    assert [id(value) for value in kept()] == [id(value) for value in before]
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.trains
@every_row
@widths
@pytest.mark.parametrize("count", [3, 20])
@torch.inference_mode()
def test_decoding_steps_are_the_forward_pass(name, width, count):
    model, bias, layout, source, target = make_parts(name, width, count)
    plan = plan_attention(bias, layout, LAYERS, encoder=model.encodes)
    whole = model(source, target, plan).logits
    view = model.begin(source, layout.target_length, plan)
    for row in range(layout.target_length):
        logits = model.step(target[:, row], row, view, [cut(sites, row) for sites in plan])
        torch.testing.assert_close(logits, whole[:, row], atol=1e-4, rtol=1e-4)


@pytest.mark.trains
@every_row
@pytest.mark.parametrize("width", [6, 70])
@torch.inference_mode()
def test_greedy_decoding_writes_the_likeliest_tokens(name, width):
    model, bias, layout, source, _ = make_parts(name, width, 2)
    model.to_logits.bias[-1] = -20  # no answer ends early
    written = greedy_decode(model, bias, layout, source)
    read = torch.cat([torch.full((2, 1), layout.vocabulary.start), written[:, :-1]], dim=1)
    logits = run_model(model, bias, layout, source, read).logits
    best = logits.topk(2).values
    sure = best[..., 0] - best[..., 1] > 1e-3  # rounding may break a tie either way
    assert sure.float().mean() > 0.9
    assert torch.equal(logits.argmax(dim=-1)[sure], written[sure])


@pytest.mark.trains
@every_row
@widths
def test_closed_keys_have_no_weight_and_open_ones_all(name, width):
    model, bias, layout, source, target = make_parts(name, width)
    plain = run_model(model, bias, layout, source, target)
    output = run_model(model, bias, layout, source, target, return_attention=True)
    torch.testing.assert_close(output.logits, plain.logits, atol=1e-5, rtol=1e-5)
    for layer, sites in enumerate(output.attention):
        for site, weights in sites.items():
            dense = bias.dense(site, layer, layout, range(layout.target_length))
            assert dense.shape == (HEADS, layout.target_length, layout.keys(site))
            assert weights.isfinite().all()
            assert (weights[:, dense.isinf()] == 0).all()
            is_open = dense.isfinite().any(dim=2).float().expand(len(source), -1, -1)
            torch.testing.assert_close(weights.sum(dim=3), is_open, atol=1e-5, rtol=0)


@every_row
@pytest.mark.parametrize("width", [5, 66])
@torch.inference_mode()
def test_the_first_rows_alone_are_the_same(name, width):
    """As evaluation reads them: a plan of some rows has their keys alone."""
    model, bias, layout, source, target = make_parts(name, width)
    whole = run_model(model, bias, layout, source, target).logits
    stop = width // 2
    plan = plan_attention(bias, layout, LAYERS, queries=range(stop), encoder=model.encodes)
    part = model(source, target[:, :stop], plan).logits
    torch.testing.assert_close(part, whole[:, :stop], atol=1e-5, rtol=1e-5)


@pytest.mark.trains
@every_row
@pytest.mark.parametrize("width", [5, 66])
def test_every_parameter_learns(name, width):
    model, bias, layout, source, target = make_parts(name, width, 20)
    model.train()
    logits = run_model(model, bias, layout, source, target).logits
    (logits * torch.randn_like(logits)).sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is None:
            # Where at most one key is open attention copies, and needs no queries.
            assert name == "window 0"
            assert "query" in key or "norm_cross" in key
            continue
        assert parameter.grad.isfinite().all(), key
        # A softmax does not feel what is added to all keys alike.
        is_key = "query_key_value.bias" in key or "key_value.bias" in key
        assert parameter.grad.any() or is_key, key


@pytest.mark.trains
@every_method
def test_a_trained_run_is_what_it_was_when_opened_again(name, tmp_path):
    trivial = ["training.exact_match=0", "training.loss=100", "training.evaluate_every=3"]
    small = [*SMALL, "data.length=3", "training.batch_size=16", *trivial]
    run = api.train("addition", method=name, out=tmp_path / "run", set=small)
    again = Run.open(tmp_path / "run")
    assert (run.method, again.method) == (name, name)
    assert type(again.bias) is type(make_bias(config_of(name)))
    layout = again.layout(4)
    source, _ = random_batch(layout, 4)
    written = greedy_decode(again.model, again.bias, layout, source)
    assert torch.equal(written, greedy_decode(run.model, run.bias, layout, source))
    curve = analysis.evaluate(again, [3, 70], samples=5)
    assert [score.method for score in curve] == [name] * 4
    assert len(again.solve("12+3")) > 0


@pytest.mark.trains
@pytest.mark.parametrize(
    "name", ["t5", "shaw", "alibi", "rope", "window", "encoder, t5", "coupling", "fire"]
)
def test_attention_is_captured(name, tmp_path):
    run = Run.create(tmp_path, config_of(name), None)
    torch.manual_seed(0)
    run.save_model(make_model(run.config))
    maps = capture(run)
    for site in SITES:
        assert maps.weights[site].shape[:2] == (LAYERS, HEADS)
        assert maps.weights[site].isfinite().all()
    # Something that is closed to all heads costs something, or nothing, but never NaN.
    assert np.isfinite(list(maps.knockout.values())).all()


# --- the registry ---


def test_settings_select_one_method():
    for name in METHODS:
        assert method_of(config_of(name)) == name
    assert method_of(Config()) == "vanilla"
    for name in ("window 0", "cyclic 5", "window 2, left", "rope and alibi"):
        assert method_of(config_of(name)) == CUSTOM


def test_every_method_names_a_paper_and_its_positions_and_bias():
    for method in METHODS.values():
        assert isinstance(method, Method)
        assert method.paper
        assert {"model.positions", "model.bias"} <= set(method.settings)


def test_an_unknown_method_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="unknown method 'alibbi'; did you mean 'alibi'"):
        api.train("addition", method="alibbi")
    with pytest.raises(InputError, match="unknown method 'rop'; did you mean 'rope'"):
        api.train("addition", method="rop")


def test_a_method_changes_a_file_and_assignments_change_a_method():
    config = api.settings({"task": "copy"}["task"], ["model.window=4"], method="window")
    assert (config.model.bias, config.model.window) == ("window", 4)
    again = api.settings(config, method="rope")
    assert (again.model.bias, again.model.positions) == ("causal", "rope")


def test_a_bias_and_a_method_exclude_each_other(tmp_path):
    with pytest.raises(InputError, match="leave the method 'rope' out"):
        api.train("addition", bias=tmp_path / "bias.jsonl", method="rope")


def test_retraining_puts_the_calibrated_bias_in_the_place_of_the_first():
    retraining = config_of("t5").for_retraining()
    assert (retraining.model.bias, retraining.model.positions) == ("causal", "none")
    assert "tables" not in " ".join(make_model(retraining).state_dict())


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["model.bias=alibbi"], "unknown bias 'alibbi'; did you mean 'alibi'?"),
        (["model.positions=rop"], "unknown position scheme 'rop'; did you mean 'rope'?"),
        (["model.positions=rope", "model.width=12", "model.heads=4"], "must be even, got 12 / 4"),
        (["model.t5_buckets=5"], "t5_buckets must be even"),
        (["model.t5_distance=16"], "t5_buckets must be even and less than twice t5_distance"),
        (["model.window=-1"], "model.window: input should be greater than or equal to 0"),
        (["model.period=0"], "model.period: input should be greater than or equal to 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(assignments: list[str], message: str):
    with pytest.raises(InputError) as caught:
        make_config({}, assignments)
    assert message in str(caught.value)


@every_row
def test_the_proof_says_why_it_does_not_apply(name):
    config = config_of(name)
    if name in ("window_cpi", "nope_window"):
        assert receptive_cone(config, make_bias(config)).reads
        return
    with pytest.raises(NotApplicableError) as caught:
        receptive_cone(config, make_bias(config))
    assert len(str(caught.value)) > 40
    if config.model.positions == "none":
        reason = "an encoder" if config.model.encoder_layers else "bias|a window"
        assert any(part in str(caught.value) for part in reason.split("|"))


# --- positions ---


def repeated(name: str, count: int, period: int) -> bool:
    table = POSITIONS[name](torch.arange(count), 8)
    different = len({tuple(row.tolist()) for row in table[:period]}) == period
    return different and torch.equal(table[period:], table[:-period])


def test_periodic_positions_repeat():
    assert repeated("cyclic", 20, 3)
    assert repeated("sin_periodical", 20, 3)
    assert repeated("log_periodical", 20, 7)
    wide = POSITIONS["cyclic"].with_period(5)(torch.arange(20), 8)
    assert torch.equal(wide, POSITIONS["sinusoidal"](torch.arange(20) % 5, 8))
    # The seed's schemes have periods of their own.
    assert POSITIONS["sin_periodical"].with_period(5) == POSITIONS["sin_periodical"]
    channels = POSITIONS["log_periodical"](torch.tensor([0, 6, 7, 13]), 4)
    torch.testing.assert_close(channels[:, 0], torch.tensor([0.0, 7.0, 0.0, 7.0]).clamp(1).log())
    assert (channels == channels[:, :1]).all()


@pytest.mark.parametrize(
    "name", ["sinusoidal", "cyclic", "log_periodical", "learned", "window_cpi"]
)
@pytest.mark.parametrize("scale", ["none", "sqrt"])
@torch.inference_mode()
def test_looking_pairs_up_is_embedding_every_token(name, scale):
    """A large batch is embedded by a table of pairs of token and position, a small one directly."""
    config = make_config({}, [*SMALL, *METHODS.get(name, METHODS["vanilla"]).assignments])
    model = make_model(make_config(config.model_dump(), [f"model.embedding_scale={scale}"])).eval()
    tokens = torch.randint(0, 13, (300, 9), generator=torch.Generator().manual_seed(0))
    for first in (0, 4):
        many = model._embed(model.target_embedding, tokens, first)
        assert many.index is not None
        few = model._embed(model.target_embedding, tokens[:1], first)
        assert few.index is None
        torch.testing.assert_close(many.apply(lambda x: x)[:1], few.table, atol=1e-6, rtol=0)
    if model.scheme.period:
        assert len(many.table) == model.scheme.period * 13


@torch.inference_mode()
def test_cyclic_positions_of_the_source_are_counted_from_its_end():
    """So that the digit of a column has the same index at every width; the seed's are not."""
    tokens = torch.zeros(1, 11, dtype=torch.int64)
    same = {}
    for name in ("cyclic", "sin_periodical"):
        model = make_model(config_of(name))
        wide, narrow = (
            model._embed(model.source_embedding, tokens[:, :n]).table[0, -3:] for n in (11, 7)
        )
        same[name] = torch.equal(wide, narrow)
        target = model._embed(model.target_embedding, tokens).table[0]
        assert torch.equal(target[:3], target[3:6])
        wanted = model.target_embedding.weight[0] + POSITIONS["sinusoidal"](torch.arange(3), 12)
        torch.testing.assert_close(target[:3], wanted)
    assert same == {"cyclic": True, "sin_periodical": False}


def test_problems_past_learned_positions_count_as_wrong(tmp_path):
    config = make_config({}, [*SMALL, *METHODS["learned"].assignments, "model.max_positions=20"])
    run = Run.create(tmp_path, config, None)
    run.save_model(make_model(config))
    for length, reaches in ((8, True), (9, False), (50, False)):
        layout = run.layout(length)
        assert (max(layout.source_length, layout.target_length) <= 20) == reaches
        problems = suite_problems(
            *(run.task, generator(0, "test"), 4),
            suite="uniform",
            length=length,
            width=layout.width,
            split="test",
        )
        right, worst = exact_matches(run, layout, problems)
        assert right.shape == (4,)
        assert (worst == 1e6) != reaches
        if not reaches:
            assert not right.any()
            with pytest.raises(InputError, match=r"learned positions of .* \(model.max_pos"):
                run.solve("1" * length + "+1")
    assert run.solve("12345678+1")
    with pytest.raises(ValueError, match="learned positions end at 20 tokens"):
        greedy_decode(run.model, run.bias, run.layout(9), torch.zeros(1, 21, dtype=torch.int64))


def test_training_past_learned_positions_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"have 15 tokens; .* \(model.max_positions\)"):
        api.train(
            "addition", method="learned", out=tmp_path, set=["model.max_positions=14", *SMALL]
        )


# --- windows ---


def interleaved(task: Transducer, width: int) -> Layout:
    """Two keys to a column, as in `+ a_n b_n ... a_1 b_1`."""
    return Layout(task, width, "interleaved")


def open_cells(bias: Window, site: str, layout: Layout) -> list[list[int]]:
    dense = bias.dense(site, 0, layout, range(layout.target_length))
    assert (dense == dense[:1]).all()
    return [row.isfinite().nonzero()[:, 0].tolist() for row in dense[0]]


def test_the_window_at_self_attention_looks_back():
    layout = Layout(TASKS["successor"](), 4)
    cells = open_cells(Window(2, 1), "self", layout)
    assert cells == [[0], [0, 1], [1, 2], [2, 3], [3, 4]]
    assert open_cells(Window(2, 0), "self", layout) == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize(
    ("sides", "cells"),
    [
        # Keys of a 4-digit source; row 0 writes the last digit, row 4 the end token.
        ("both", [[2, 3], [1, 2, 3], [0, 1, 2], [0, 1], [0]]),
        ("left", [[2, 3], [1, 2], [0, 1], [0], []]),
        ("right", [[3], [2, 3], [1, 2], [0, 1], [0]]),
    ],
)
def test_the_window_at_cross_attention_follows_the_column(sides, cells):
    layout = Layout(TASKS["successor"](), 4)
    assert open_cells(Window(2, 1, sides), "cross", layout) == cells


def test_the_window_steps_by_columns_of_interleaved_operands():
    layout = interleaved(TASKS["addition"](), 3)  # + a b a b a b, keys 0 to 6
    cells = open_cells(Window(2, 1), "cross", layout)
    assert cells == [[3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4], [0, 1, 2]]
    assert open_cells(Window(2, 0), "cross", layout) == [[5, 6], [3, 4], [1, 2], [0]]
    far = Window(2, 1).encoder(layout)
    assert far[0, 3].isfinite().tolist() == [False, True, True, True, True, True, False]


@pytest.mark.parametrize("width", [3, 60])
@pytest.mark.parametrize("sides", ["both", "left", "right"])
@pytest.mark.parametrize("kind", [Layout, interleaved])
@torch.inference_mode()
def test_windows_have_a_lines_path(kind, sides, width):
    model, _, _, _, _ = make_parts("nope_window", width)
    layout, bias = kind(TASKS["addition"](), width), Window(HEADS, 2, sides)
    source, target = random_batch(layout, 3)
    dense, lines = (
        run_model(model, bias, layout, source, target[:, :-1], path=path).logits
        for path in ("dense", "lines")
    )
    torch.testing.assert_close(lines, dense, atol=1e-5, rtol=1e-5)


def test_a_bias_that_opens_ever_more_keys_has_none():
    for name in ("alibi", "t5", "shaw"):
        with pytest.raises(ValueError, match="the lines path needs a bias"):
            plan_attention(make_bias(config_of(name)), Layout(TASKS["copy"](), 3), 1, path="lines")


def test_biases_say_what_they_do():
    words = {name: str(make_bias(config_of(name))) for name in METHODS}
    assert all(text.startswith("every head sees") for text in words.values())
    assert len({words[name] for name in ("vanilla", "alibi", "alibi_cross", "t5", "window")}) == 5


def test_the_papers_model_trains(tmp_path):
    config = api.settings(
        api.settings("configs/paper.toml"),
        ["training.batch_size=4", "training.validation_problems=4", "training.evaluate_every=1"],
    )
    run = api.train(
        config, out=tmp_path / "run", set=["training.exact_match=0", "training.loss=100"]
    )
    assert (len(run.model.layers), run.model.width, run.model.heads) == (6, 128, 8)
    assert run.method == "vanilla"
