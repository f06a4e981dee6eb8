"""Files of the paper's own repository: settings, biases and checkpoints, read safely and meant as there."""

import ast
import operator
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import random_batch
from lengthwise.api import settings, train
from lengthwise.bias import CalibratedBias, MatrixBias, MatrixTrack, Track, trace_lines
from lengthwise.model import plan_attention
from lengthwise.paper_repo import (
    convert_checkpoint,
    evaluate_arithmetic,
    find_lines,
    load_ini,
    load_matrices,
    read_bias,
    save_dense_bias,
    save_matrices,
)
from lengthwise.paper_repo.checkpoint import token_order
from lengthwise.paper_repo.ini import OPTIONS
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.settings.sections import DataSettings
from seed_helpers import REAL, TorchModel, make_ini, save_windows, windows

# --- arithmetic ---

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def oracle(text: str) -> Fraction:
    """The value by Python's own parser and exact fractions."""

    def value(node):
        if isinstance(node, ast.Constant):
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp):
            return OPERATORS[type(node.op)](value(node.operand))
        result = OPERATORS[type(node.op)](value(node.left), value(node.right))
        return Fraction(result)

    return value(ast.parse(text, mode="eval").body)


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.one_of(
        st.builds("{}{}{}".format, inner, st.sampled_from("+-*/"), inner),
        st.builds("{} // {}".format, inner, inner),
        st.builds("({})".format, inner),
        st.builds("-{}".format, inner),
        st.builds("({})**{}".format, inner, st.integers(0, 3)),
    ),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_arithmetic_is_that_of_python(text):
    try:
        wanted = oracle(text)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="divides by zero"):
            evaluate_arithmetic(text)
        return
    assert evaluate_arithmetic(text) == wanted


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1024*1024", 2**20),
        ("7/8", Fraction(7, 8)),
        (" 2 ** 20 ", 2**20),
        ("0.875", Fraction(7, 8)),
        ("-2**2", -4),
    ],
)
def test_arithmetic_of_settings(text, value):
    assert evaluate_arithmetic(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1+",
        "(1",
        "1)",
        "a",
        "__import__('os')",
        "1 2",
        "1e5",
        "9**9**9",
        "(" * 30 + "1",
        "1" * 201,
        "2**(1/2)",
        "1/0",
        "0**-1",
    ],
)
def test_what_is_no_arithmetic_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  # the messages differ; none is a traceback
        evaluate_arithmetic(text)


# --- settings ---

REAL_FILES = {
    "add_vanilla_len120.ini": ("addition", 61, 6, False),
    "add_vanilla_len120_ex2.ini": ("addition", 61, 6, True),
    "cnt_vanilla.ini": ("successor", 50, 3, False),
    "cnt_vanilla_ex.ini": ("successor", 200, 3, True),
}


@pytest.mark.skipif(not REAL.is_dir(), reason="their files are not on this machine")
@pytest.mark.parametrize("name", REAL_FILES)
def test_their_settings_files(name):
    task, width, layers, loads = REAL_FILES[name]
    config, options = settings(REAL / name), load_ini(REAL / name)
    assert (config.task, config.width, config.model.layers) == (task, width, layers)
    assert (config.model.width, config.model.heads, config.model.feed_forward) == (128, 8, 512)
    assert (config.model.dropout, config.training.batch_size, config.base) == (0.3, 512, 10)
    assert (config.model.norm, config.model.encoder_layers) == ("post", 0)
    assert options.epoch == 1792
    assert options.load_window == loads
    if loads:
        with pytest.raises(InputError, match="WINDOW_PATH: "):
            options.window_paths()


def test_every_option_is_read_and_means_what_it_means_there(tmp_path):
    ini = make_ini(
        tmp_path / "a.ini", "ADD", fixed_len="60+1", emb_size=64, layers=3, max_num="2**16"
    )
    config = settings(ini)
    assert (config.task, config.width, config.data.length, config.base) == ("addition", 30, 6, 10)
    assert config.data.frame == "tokens"
    assert (config.model.width, config.model.heads, config.model.layers) == (64, 4, 3)
    assert (config.model.positions, config.model.bias) == ("sinusoidal", "causal")
    assert (config.model.norm, config.model.embedding_scale) == ("post", "sqrt")
    assert (config.training.learning_rate, config.training.batch_size) == (1e-4, 64)
    assert config.evaluation.padding == "training"
    assert config.device == "cpu"
    assert load_ini(ini).epoch == 2**16 * 7 // 8 // 64


@pytest.mark.parametrize(
    ("extra", "key", "value"),
    [
        ("ENCODING_TYPE = NoPE", "positions", "none"),
        ("ENCODING_TYPE = Sin_periodical", "positions", "sin_periodical"),
        ("ENCODING_TYPE = Log_periodical", "positions", "log_periodical"),
        ("MODEL_TYPE = ALiBi", "bias", "alibi"),
        ("ATTN_WINDOW = 2", "bias", "window"),
        ("ATTN_WINDOW = 2", "window", 2),
        ("ATTN_WINDOW = 2\nMODEL_TYPE = Windowed", "window_sides", "code"),
        ("DROP_OUT = 1/4", "dropout", 0.25),
        ("NUM_ENCODER_LAYERS = 6", "encoder_layers", 0),
        ("DEBUG_MODE = True", "bias", "causal"),
        ("NHEAD = 2", "heads", 2),
        ("ADD_DATA_MAX_LEN = 9", "heads", 4),
    ],
)
def test_options_of_the_model(tmp_path, extra, key, value):
    assert getattr(settings(make_ini(tmp_path / "a.ini", extra=extra)).model, key) == value


@pytest.mark.parametrize(
    ("mode", "task", "width"),
    [
        ("CNT", "successor", 8),
        ("ADD", "addition", 11),
        ("MULT", "nx1", 8),
        ("PARITY_RECURRENT", "parity", 20),
    ],
)
def test_modes(tmp_path, mode, task, width):
    changes = {"fixed_len": 20} if mode.startswith("PARITY") else {}
    config = settings(make_ini(tmp_path / "a.ini", mode, **changes))
    assert (config.task, config.width) == (task, width)
    assert config.base == (2 if task == "parity" else 10)


def test_numbers_to_count_fix_the_digits(tmp_path):
    assert settings(make_ini(tmp_path / "a.ini")).data.length == 7
    assert settings(make_ini(tmp_path / "b.ini", max_num="10**4")).data.length == 4


@pytest.mark.parametrize(
    ("mode", "extra", "message"),
    [
        ("CNT", "BASE = 37", "BASE: from 2 to 36, got 37"),
        (
            "CNT",
            "split_ratio = 3/4",
            "split_ratio: 7/8 of the problems are trained on here, got 3/4",
        ),
        ("CNT", "HALF = 2", "HALF: the answer has FIXED_LEN // 1 digits in mode CNT, got 2"),
        ("ADD", "HALF = 1", "HALF: the answer has FIXED_LEN // 2 digits in mode ADD, got 1"),
        ("ADD", "INCLUDE_OPS = False", "INCLUDE_OPS: problems of ADD hold an operator"),
        ("ADD", "BASE = 2", "BASE: problems of ADD are decimal there"),
        ("MULT", "REVERSE_INPUT = True", "REVERSE_INPUT: "),
        ("CNT", "MODE = CTN", "MODE: unknown value 'CTN'; did you mean 'CNT'?"),
        (
            "CNT",
            "ENCODING_TYPE = Sinusoid",
            "ENCODING_TYPE: unknown value 'Sinusoid'; did you mean 'Sinusoidal'",
        ),
        ("CNT", "MODEL_TYPE = alibi", "MODEL_TYPE: unknown value 'alibi'; did you mean 'ALiBi'?"),
        ("CNT", "MODEL_TYPE = Windowed", "MODEL_TYPE: a windowed model needs ATTN_WINDOW"),
        ("CNT", "MODEL_TYPE = ALiBi\nATTN_WINDOW = 1", "MODEL_TYPE: with ALiBi neither"),
        ("CNT", "ATTN_WINDOW = -2", "ATTN_WINDOW: "),
        (
            "CNT",
            "LOAD_WINDOW = True\nATTN_WINDOW = 1",
            "ATTN_WINDOW: with LOAD_WINDOW it has no effect",
        ),
        (
            "CNT",
            "FREEZE_EMBEDDING = True",
            "FREEZE_EMBEDDING: it is of use only with LOAD_PRETRAINED",
        ),
        ("CNT", "LOAD_PRETRAINED = True", "LOAD_PRETRAINED: name the run to start from"),
        ("CNT", "DEVICE = cuda:1", "DEVICE: cuda or cpu; CUDA_VISIBLE_DEVICES"),
        ("CNT", "EOS = ^", "SOS: SOS, EOS and PAD must differ"),
        ("CNT", "PAD = ab", "PAD: one character, got 'ab'"),
        ("CNT", "MAX_NUM = open('x')", "MAX_NUM: \"open('x')\" is not arithmetic"),
        ("CNT", "FIXED_LEN = 7/2", "FIXED_LEN: 7/2 is no whole number"),
        ("CNT", "FIXED_LEN = 1", "FIXED_LEN: at least 2, got 1"),
        ("CNT", "FIXED_LEN = 7", "FIXED_LEN: answers have up to 8 digits, it leaves room for 7"),
        ("ADD", "FIXED_LEN = 13", "FIXED_LEN: answers have up to 7 digits, it leaves room for 6"),
        ("CNT", "BATCH_SIZE = 0", "BATCH_SIZE: at least 1, got 0"),
        ("CNT", "REVERSE_INPUT = maybe", "REVERSE_INPUT: 'maybe' is neither True nor False"),
        (
            "CNT",
            "ATTN_WIDNOW = 1",
            "unknown option 'ATTN_WIDNOW' in [Model]; did you mean 'ATTN_WINDOW'?",
        ),
        ("CNT", "NUM_ENCODER_LAYERS = -1", "NUM_ENCODER_LAYERS: it is a number of layers"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path, mode, extra, message):
    with pytest.raises(InputError) as error:
        settings(make_ini(tmp_path / "a.ini", mode, extra=extra))
    assert message in str(error.value)


def test_broken_files_are_refused(tmp_path):
    ini = make_ini(tmp_path / "a.ini")
    for text, message in [
        (ini.read_text().replace("BATCH_SIZE = 64\n", ""), "[Data] lacks BATCH_SIZE"),
        (
            ini.read_text().replace("[Device]", "[Devise]"),
            "unknown section [Devise]; did you mean 'Device'?",
        ),
        ("SOS = ^", "is not a settings file"),
        (ini.read_text() + "\n[Data]\n", "is not a settings file"),
    ]:
        (tmp_path / "b.ini").write_text(text)
        with pytest.raises(InputError) as error:
            settings(tmp_path / "b.ini")
        assert message in str(error.value)
    with pytest.raises(InputError, match="can't read"):
        settings(tmp_path / "none.ini")


def test_assignments_and_epochs_change_the_file(tmp_path):
    ini = make_ini(tmp_path / "a.ini", max_num=512, batch_size=64)
    config = settings(ini, ["model.layers=1"], epochs=3)
    assert config.model.layers == 1
    assert (config.training.max_steps, config.training.until) == (21, "max_steps")
    assert config.training.keep_checkpoints_every == config.training.evaluate_every == 7
    with pytest.raises(InputError, match=r"epochs are those of an \.ini file"):
        settings("addition", epochs=3)
    with pytest.raises(InputError, match="epochs takes a whole number from 1 up"):
        settings(ini, epochs=0)


def test_reversed_input_is_honoured_where_layouts_have_it(tmp_path):
    ini = make_ini(tmp_path / "a.ini", extra="REVERSE_INPUT = True")
    if "input_order" in DataSettings.model_fields:
        assert settings(ini).model_dump()["data"]["input_order"] == "reversed"
    else:
        with pytest.raises(InputError, match="REVERSE_INPUT: this version has no setting"):
            settings(ini)


def test_the_documentation_names_every_option():
    from pathlib import Path

    text = (Path(__file__).parents[1] / "docs" / "seed.md").read_text()
    names = [name for options in OPTIONS.values() for name in options]
    assert [name for name in names if f"`{name}`" not in text] == []


# --- biases ---


def pairs(tmp_path):
    """The look-alikes, and the real pair where it is."""
    yield save_windows(tmp_path)
    if REAL.is_dir():
        yield REAL / "windowCross_120_5.t", REAL / "windowSelf_120_5.t"


def test_the_pair_is_lines_and_says_which_head_reads_which_operand(tmp_path):
    for pair in pairs(tmp_path):
        bias = load_matrices(pair)
        assert (bias.task, bias.heads, bias.width, bias.framed) == ("addition", 8, 61, True)
        traced = trace_lines(bias)
        assert traced.exact
        lines = traced.lines.lines
        assert traced.lines.local
        reads = {name: {ln.head for ln in lines if ln.track == Track.along(name)} for name in "ab"}
        assert reads == {"a": {4, 6, 7}, "b": {0, 1, 3, 4, 5}}
        back = {(ln.head, ln.track.offset) for ln in lines if ln.site == "self"}
        assert back == {(h, -1) for h in range(8) if h != 1} | {(1, -2), (5, -2), (6, -2)}
        # At the edges the drawn lines run out of their segments; nothing else is left over.
        assert {(row, key) for r in traced.rest for row, key in r.cells} == {
            (0, 124),
            (61, 62),
            (61, 0),
        }
        text = "\n".join(traced.describe_rest())
        assert "row 61 at key 62 ('+')" in text
        assert "row 0 at key 124 ('$')" in text


@pytest.mark.skipif(not REAL.is_dir(), reason="their files are not on this machine")
def test_the_single_self_bias_has_transparent_heads():
    bias = load_matrices([REAL / "windowSelf120.t"], "addition")
    traced = trace_lines(bias)
    assert traced.exact
    everything = {
        ln.head for ln in traced.lines.lines if ln.track == MatrixTrack("self", "everywhere")
    }
    assert everything == {3, 4, 5, 6}
    # Their mask lets these heads see the answer that is still to be written; ours is causal.
    layout = make_config({"task": "addition", "data": {"width": 61}})
    dense = bias.dense("self", 0, layout_of(layout), range(62))
    assert bool((dense[3].triu(1)[dense[3].triu(1) != 0] == float("-inf")).all())


def layout_of(config):
    from lengthwise.problems.layout import Layout

    return Layout(config.make_task(), config.width)


def test_lines_and_tensors_become_each_other(tmp_path):
    bias = load_matrices(save_windows(tmp_path))
    found, notes = find_lines(bias)
    found.save(tmp_path / "lines.jsonl")
    assert len(notes) == 4
    lines = read_bias([tmp_path / "lines.jsonl"])
    assert lines == trace_lines(bias).lines
    own, cross = save_matrices(lines, tmp_path / "back.t", 61)
    assert (own.name, cross.name) == ("backSelf.t", "backCross.t")
    there_cross, there_own = windows()
    assert torch.equal(torch.load(own, weights_only=True), there_own)
    back, inner = torch.load(cross, weights_only=True), slice(1, 61)
    assert torch.equal(back[:, inner], there_cross[:, inner])
    again = load_matrices([cross, own])
    assert trace_lines(again).lines == lines
    assert trace_lines(again).rest == ()


def test_matrices_and_safetensors_become_each_other(tmp_path):
    bias = load_matrices(save_windows(tmp_path))
    save_dense_bias(bias, tmp_path / "a.safetensors")
    assert read_bias([tmp_path / "a.safetensors"]) == bias
    written = save_matrices(bias, tmp_path / "b.t")
    assert load_matrices(written) == bias
    lines = trace_lines(bias).lines
    save_dense_bias(lines, tmp_path / "c.safetensors", 61)
    unframed = read_bias([tmp_path / "c.safetensors"])
    assert isinstance(unframed, MatrixBias)
    assert not unframed.framed
    assert trace_lines(unframed).lines == lines


class Trap:
    def __reduce__(self):
        return (print, ("run",))


def test_only_tensors_are_read(tmp_path, capsys):
    path = tmp_path / "trap.t"
    torch.save(Trap(), path)
    with pytest.raises(InputError, match="nothing else is read"):
        load_matrices([path])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.zeros(3, 4), r"holds a tensor \[3, 4\]; a bias is one tensor"),
        (torch.zeros(2, 5, 11, dtype=torch.int64), "floating-point numbers, got torch.int64"),
        (
            torch.zeros(2, 5, 12),
            "hold answers of 4 digits; a source of addition then has 8, 9, 10, 11 keys, not 12",
        ),
        (torch.full((2, 5, 11), float("nan")), "got nan or more"),
        (torch.zeros(0, 5, 11), "at least two queries"),
        ({"model_state_dict": {}}, "a checkpoint"),
        ({"x": 1}, "holds a dict"),
    ],
)
def test_tensors_that_are_no_bias_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "x.t")
    with pytest.raises(InputError, match=message):
        load_matrices([tmp_path / "x.t"], "addition")


def test_pairs_must_fit(tmp_path):
    cross, own = save_windows(tmp_path)
    with pytest.raises(InputError, match="both biases of self-attention"):
        load_matrices([own, own])
    torch.save(torch.zeros(8, 5, 5), tmp_path / "small.t")
    with pytest.raises(InputError, match="differ in heads or rows; they are no pair"):
        load_matrices([cross, tmp_path / "small.t"])
    with pytest.raises(InputError, match="unknown task 'adition'; did you mean"):
        load_matrices([cross], "adition")
    with pytest.raises(InputError, match=r"only \.t files come in pairs"):
        read_bias([cross, tmp_path / "a.jsonl"])
    with pytest.raises(InputError, match="can't read"):
        read_bias([tmp_path / "none.t"])
    with pytest.raises(InputError, match="can't read"):
        read_bias([tmp_path / "none.safetensors"])


def test_what_is_no_line_is_refused(tmp_path):
    cross, _ = windows()
    cross[3, 20, 5] = 1.0
    torch.save(cross, tmp_path / "c.t")
    bias = load_matrices([tmp_path / "c.t"])
    with pytest.raises(
        InputError, match=r"head 3 of cross-attention is not lines: .* in row 20 at key 5"
    ):
        find_lines(bias)


@pytest.mark.trains
def test_a_model_trains_with_the_pair_and_opens_again(tmp_path, tiny_values):
    cross, own = save_windows(tmp_path, 11)
    tiny_values |= {"task": "addition", "data": {"length": 2, "width": 11, "frame": "tokens"}}
    tiny_values["model"]["heads"] = 8
    tiny_values["training"] |= {"max_steps": 4, "until": "max_steps", "evaluate_every": 2}
    tiny_values["retraining"] |= {"max_steps": 4}
    run = train(make_config(tiny_values), bias=cross, self_bias=own, out=tmp_path / "run")
    opened = Run.open(run.path)
    assert opened.bias == load_matrices([cross, own])
    assert opened.method == "matrices"
    assert opened.layout(3).width == 11
    with pytest.raises(InputError, match="operands of at most 10 digits, got 11"):
        opened.layout(11)
    assert isinstance(opened.solve("12+3"), str)
    again = train(
        make_config(tiny_values), bias=cross, self_bias=own, out=tmp_path / "run", resume=True
    )
    assert again.bias == run.bias


# --- checkpoints ---


def make_checkpoint(path, ini, *, wrapped=False, **sizes):
    torch.manual_seed(3)
    options = load_ini(ini)
    model = TorchModel(len(options.tokens), **sizes).eval()
    prefix = "module." if wrapped else ""
    state = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters()).state_dict()
    torch.save(
        {"epoch": 4, "model_state_dict": state, "optimizer_state_dict": optimizer, "loss": 0.1},
        path,
    )
    return model


@pytest.mark.trains
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("mode", ["CNT", "ADD", "MULT"])
def test_a_converted_checkpoint_computes_the_same_logits(tmp_path, mode, wrapped):
    ini = make_ini(tmp_path / "a.ini", mode)
    model = make_checkpoint(tmp_path / "a.ckpt", ini, wrapped=wrapped)
    run = convert_checkpoint(tmp_path / "a.ckpt", load_ini(ini), tmp_path / "run")
    opened = Run.open(run.path)
    layout = opened.layout(4)
    assert layout.width == load_ini(ini).width
    source, target = random_batch(layout, 16)
    order = token_order(load_ini(ini), run.config)
    # The numbers of tokens there are those of their sorted characters.
    characters = "".join(load_ini(ini).tokens)
    assert [characters[i].lower() for i in order] == list(layout.vocabulary.characters)
    with torch.inference_mode():
        wanted = model(order[source], order[target[:, :-1]])[..., order]
        plan = plan_attention(opened.bias, layout, 2)
        got = opened.model(source, target[:, :-1], plan).logits
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_a_converted_checkpoint_solves_as_their_model_does(tmp_path):
    ini = make_ini(tmp_path / "a.ini", fixed_len=5, max_num="10**4")
    model = make_checkpoint(tmp_path / "a.ckpt", ini)
    options = load_ini(ini)
    run = convert_checkpoint(tmp_path / "a.ckpt", options, tmp_path / "run")
    order = token_order(options, run.config)
    tokens = torch.tensor([[options.tokens.index(c) for c in "^00123$"]])
    written = [options.tokens.index("^")]
    with torch.inference_mode():
        for _ in range(6):
            logits = model(tokens, torch.tensor([written]))[0, -1]
            written.append(int(order[logits[order].argmax()]))
            if options.tokens[written[-1]] == "$":
                break
    text = "".join(options.tokens[token] for token in written[1:]).ljust(6, "$")[:6]
    layout = run.layout(3)
    # A random model writes anything; ours shows it as the number that it reads as, or says it is none.
    (answer,) = run.answers(["123"])
    assert answer.complete == (text[5] == "$" and text[:5].isdecimal())
    assert answer.work == (text[:5] if answer.complete else text)
    assert answer.text == (text[:5][::-1].lstrip("0") or "0") or not answer.complete
    assert layout.width == 5


def test_a_window_of_the_settings_is_kept_with_the_checkpoint(tmp_path):
    cross, own = save_windows(tmp_path, 11)
    lines = (
        f"LOAD_WINDOW = True\nWINDOW_PATH = {cross.name}\nWINDOW_SELF_PATH = {own.name}\nNHEAD = 8"
    )
    ini = make_ini(tmp_path / "a.ini", "ADD", extra=lines)
    make_checkpoint(tmp_path / "a.ckpt", ini, heads=8)
    run = convert_checkpoint(tmp_path / "a.ckpt", load_ini(ini), tmp_path / "run")
    assert Run.open(run.path).bias == load_matrices([cross, own])


def change(state, name, tensor):
    return {**state, name: tensor}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "linear1.bias" not in k},
            "lacks transformer.decoder.layers.0.linear1.bias",
        ),
        (
            lambda s: change(s, "transformer.encoder.layers.0.linear1.bias", torch.zeros(2)),
            "has encoder weights",
        ),
        (lambda s: change(s, "other.weight", torch.zeros(2)), "has other.weight, which a model of"),
        (
            lambda s: change(s, "generator.weight", torch.zeros(3, 32)),
            "but BASE and INCLUDE_OPS of",
        ),
        (
            lambda s: change(s, "positional_encoding.pos_embedding", torch.zeros(99, 1, 32)),
            "not those of ENCODING_TYPE",
        ),
        (lambda s: change(s, "transformer.decoder.norm.bias", torch.zeros(7)), "does not fit"),
        (lambda s: change(s, "other", 3), "holds no model_state_dict of tensors"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path, edit, message):
    ini = make_ini(tmp_path / "a.ini")
    make_checkpoint(tmp_path / "a.ckpt", ini)
    content = torch.load(tmp_path / "a.ckpt", weights_only=True)
    torch.save(
        {**content, "model_state_dict": edit(content["model_state_dict"])}, tmp_path / "b.ckpt"
    )
    with pytest.raises(InputError, match=message):
        convert_checkpoint(tmp_path / "b.ckpt", load_ini(ini), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_whole_models_and_other_files_are_refused(tmp_path):
    ini = make_ini(tmp_path / "a.ini")
    torch.save(TorchModel(17), tmp_path / "full-model.pt")
    with pytest.raises(InputError, match="nothing else is read"):
        convert_checkpoint(tmp_path / "full-model.pt", load_ini(ini), tmp_path / "run")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(InputError, match="nothing else is read"):
        convert_checkpoint(tmp_path / "text.ckpt", load_ini(ini), tmp_path / "run")


def test_a_run_may_start_from_a_converted_checkpoint_with_its_embedding_frozen(tmp_path):
    ini = make_ini(
        tmp_path / "a.ini",
        max_num=128,
        batch_size=16,
        extra="LOAD_PRETRAINED = True\nFREEZE_EMBEDDING = True",
    )
    make_checkpoint(tmp_path / "a.ckpt", ini)
    base = convert_checkpoint(tmp_path / "a.ckpt", load_ini(ini), tmp_path / "base")
    start = base.model.state_dict()
    run = train(ini, epochs=1, set=[f"training.initial={base.path}"], out=tmp_path / "run")
    end = run.model.state_dict()
    assert torch.equal(end["source_embedding.weight"], start["source_embedding.weight"])
    assert torch.equal(end["target_embedding.weight"], start["target_embedding.weight"])
    moved = (end["to_logits.weight"] - start["to_logits.weight"]).abs().max().item()
    assert 0 < moved < 0.01  # seven steps of 1e-4 away from where it started
    assert not isinstance(run.bias, CalibratedBias)
