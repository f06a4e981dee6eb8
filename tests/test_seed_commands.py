"""The table of docs/seed.md: for each command of the paper's repository, ours, on a tiny settings file."""

import json

import pytest
import torch

from lengthwise.bias import CalibratedBias, Line, MatrixBias, Track
from lengthwise.cli import entry
from lengthwise.problems.format import Format
from lengthwise.runs.run import Run
from seed_helpers import REAL, TorchModel, make_ini, save_windows

pytestmark = pytest.mark.trains


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`train.py CONFIG EPOCHS`: three epochs of ten steps."""
    folder = tmp_path_factory.mktemp("trained")
    ini = make_ini(
        folder / "config.ini", "CNT", max_num="10**3", batch_size="7*10+10+7", fixed_len=5, layers=1
    )
    set_ = ["--set", "training.validation_problems=64"]
    assert entry.run(["train", str(ini), "--epochs", "3", "--out", str(folder / "run"), *set_]) == 0
    return ini, folder / "run"


def test_training_keeps_the_model_and_the_losses_of_every_epoch(trained):
    _, run = trained
    rows = Run.open(run).metrics()
    assert [row["step"] for row in rows] == [10, 20, 30]
    assert all(row["loss"] > 0 and row["validation_loss"] > 0 for row in rows)
    folders = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert folders == ["step-10", "step-20", "step-30"]
    last = Run.open(run / "checkpoints" / "step-30").model.state_dict()
    first = Run.open(run / "checkpoints" / "step-10").model.state_dict()
    end = Run.open(run).model.state_dict()
    assert all(torch.equal(last[name], end[name]) for name in end)
    assert not torch.equal(first["to_logits.weight"], end["to_logits.weight"])


def test_an_interrupted_training_keeps_the_same_epochs(trained, tmp_path, call):
    ini, run = trained
    out = tmp_path / "run"
    few = ["--set", "training.validation_problems=64", "--out", out]
    assert call("train", ini, "--epochs", 3, *few)[0] == 0
    (out / "model.safetensors").unlink()
    (out / "checkpoint.pt").unlink()
    assert call("train", ini, "--epochs", 3, "--resume", *few)[0] == 0
    ours, theirs = Run.open(out).model.state_dict(), Run.open(run).model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_calibrating_writes_biases_and_pictures(trained, tmp_path, call):
    _, run = trained
    code, out, _ = call(
        "calibrate",
        run,
        "--policy",
        "paper",
        "--out",
        tmp_path / "bias.jsonl",
        "--set",
        "calibration.problems=16",
    )
    assert code == 0
    assert "heads" in out
    code, out, _ = call(
        "convert", tmp_path / "bias.jsonl", "--width", 9, "--out", tmp_path / "window.t"
    )
    assert code == 0
    shapes = {
        name: list(torch.load(tmp_path / name, weights_only=True).shape)
        for name in ("windowCross.t", "windowSelf.t")
    }
    assert shapes == {"windowCross.t": [4, 10, 11], "windowSelf.t": [4, 10, 10]}
    assert call("explain", tmp_path / "bias.jsonl", "--plot", tmp_path / "bias.png")[0] == 0
    code, out, err = call("explain", run, "--plot", tmp_path / "attention.png")
    assert code == 0, err
    assert (tmp_path / "bias.png").stat().st_size > 1000
    assert (tmp_path / "attention.png").stat().st_size > 1000


def test_evaluating_draws_accuracy_and_wrong_digits(trained, tmp_path, call):
    _, run = trained
    code, out, err = call(
        *("evaluate", run, "--lengths", "1-12", "--samples", 5, "--suite", "uniform"),
        *(
            "--plot",
            tmp_path / "accuracy.png",
            "--wrong-positions",
            tmp_path / "errors.png",
            "--json",
        ),
    )
    assert code == 0, err
    assert [row["length"] for row in json.loads(out)] == list(range(1, 13))
    # As there, short numbers are padded to FIXED_LEN.
    assert [row["width"] for row in json.loads(out)] == [5] * 4 + list(range(6, 14))
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    assert (tmp_path / "errors.png").stat().st_size > 1000
    code, _, err = call(
        "evaluate", run, "--lengths", "3", "--samples", 5, "--wrong-positions", tmp_path / "e.csv"
    )
    assert code == 0, err
    assert (tmp_path / "e.csv").read_text().startswith("length,suite,row,writes,wrong,n\n")


@pytest.mark.parametrize("option", ["--plot", "--wrong-positions"])
def test_a_picture_of_no_known_format_is_refused_before_anything_is_measured(
    option, trained, tmp_path, call, monkeypatch
):
    from lengthwise.api import analysis

    monkeypatch.setattr(analysis, "evaluate", lambda *args, **kwargs: pytest.fail("measured"))
    code, out, err = call("evaluate", trained[1], "--lengths", "3", option, tmp_path / "a.doc")
    assert (code, out) == (2, "")
    assert "a.doc: pictures end in" in err


def test_numbers_from_one_to_another(trained, call):
    _, run = trained
    code, out, _ = call("evaluate", run, "--from", "10*10", "--to", "10*10 + 19")
    assert code == 0
    assert " of 20 right (" in out
    assert "from 100 to 119" in out
    code, out, _ = call("evaluate", run, "--from", 0, "--to", "ceil", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["n"] == result["correct"] + 1
    for arguments, message in [
        (("--from", "x", "--to", 3), "--from: 'x' is not arithmetic"),
        (("--from", "1/2", "--to", 3), "--from takes a whole number from 0 up, got 1/2"),
        (("--from", 0, "--to", 3, "--lengths", "6"), "leave the other options out"),
        (
            (
                "--from",
                5,
            ),
            "--from 5 needs --to",
        ),
    ]:
        code, _, err = call("evaluate", run, *arguments)
        assert code == 2
        assert message in err


@pytest.mark.parametrize("lengths", ["3-1", "1-", "-3", "1-2-3", "0-4", "1-99999", "a-b"])
def test_ranges_of_lengths_are_checked(trained, call, lengths):
    code, _, err = call("evaluate", trained[1], f"--lengths={lengths}")
    assert code == 2
    assert err.startswith("lengthwise: --lengths takes ")


def test_a_checkpoint_becomes_a_run(trained, tmp_path, call):
    ini, _ = trained
    torch.manual_seed(0)
    model = TorchModel(17, layers=1)
    torch.save(
        {"model_state_dict": model.state_dict(), "epoch": 1, "loss": 1.0}, tmp_path / "a.ckpt"
    )
    out, given = tmp_path / "run", ("convert", tmp_path / "a.ckpt", "--config", ini, "--out")
    code, text, err = call(*given, out, "--set", "model.kind=decoder")
    assert (code, text) == (2, "")
    assert "a.ckpt holds a model with cross-attention" in err
    code, text, err = call(*given, out)
    assert code == 0, err
    assert text.strip() == str(out)
    assert call("evaluate", out, "--lengths", "3,5", "--samples", 5)[0] == 0
    code, text, err = call("solve", out, "123")  # untrained, it may end nothing
    assert (code, text, err.startswith("lengthwise: no answer")) == (1, "\n", True)
    assert call("explain", out)[0] == 0
    code, _, err = call(
        "calibrate",
        out,
        "--policy",
        "paper",
        "--out",
        tmp_path / "b.jsonl",
        "--set",
        "calibration.problems=8",
    )
    assert code == 0, err
    code, _, err = call("convert", tmp_path / "a.ckpt", "--config", ini, "--out", out)
    assert code == 2
    assert "exists; --force starts over and deletes that run, another --out keeps it" in err
    assert call("convert", tmp_path / "a.ckpt", "--config", ini, "--out", out, "--force")[0] == 0


def test_retraining_with_the_biases_that_a_file_names(tmp_path, call):
    cross, own = save_windows(tmp_path, 11)
    lines = (
        f"LOAD_WINDOW = True\nWINDOW_PATH = {cross.name}\nWINDOW_SELF_PATH = {own.name}\nNHEAD = 8"
    )
    ini = make_ini(tmp_path / "a.ini", "ADD", max_num=100, batch_size=16, layers=1, extra=lines)
    few = ["--set", "training.validation_problems=16"]
    code, _, err = call("train", ini, "--epochs", 1, "--out", tmp_path / "run", *few)
    assert code == 0, err
    run = Run.open(tmp_path / "run")
    assert run.method == "matrices"
    assert run.config.model.positions == "sinusoidal"
    code, text, _ = call("explain", tmp_path / "run", "--plot", tmp_path / "heads.png")
    assert code == 0
    assert "heads 0, 1, 3, 5 read" not in text  # their values differ, so each has a line of its own
    assert "head 0 reads b[c], the digit of b in the column being written (+3.00)" in text
    assert (tmp_path / "heads.png").stat().st_size > 1000
    assert call("evaluate", tmp_path / "run", "--lengths", "3,10", "--samples", 3)[0] == 0
    code, _, err = call("evaluate", tmp_path / "run", "--lengths", "11", "--samples", 3)
    assert code == 2
    assert "fixed matrices for operands of at most 10 digits, got 11; `lengthwise convert`" in err
    code, text, err = call("convert", tmp_path / "run", "--out", tmp_path / "lines")
    assert code == 0, err
    assert call("evaluate", tmp_path / "lines", "--lengths", "11", "--samples", 3)[0] == 0
    code, _, err = call("abc", ini, "--out", tmp_path / "abc")
    assert code == 2
    assert "LOAD_WINDOW: abc calibrates a bias of its own; use train" in err
    # Named files take the place of those in the settings.
    other = ["--bias", cross, "--self-bias", own]
    assert call("train", ini, "--epochs", 1, *other, "--out", tmp_path / "named", *few)[0] == 0


def test_a_pair_of_tensors_is_explained_and_converted(tmp_path, call):
    pair = save_windows(tmp_path)
    if REAL.is_dir():
        pair = (REAL / "windowCross_120_5.t", REAL / "windowSelf_120_5.t")
    code, text, _ = call("explain", *pair)
    assert code == 0
    assert "a keys 1 to 61; + is key 62; b keys 63 to 123; $ is key 124" in text
    assert "Every head is lines" in text
    assert "head 2 reads nothing" in text
    assert "head 6 reads a[c], the digit of a in the column being written" in text
    code, text, _ = call("explain", *pair, "--json")
    assert json.loads(text)["exact"] is True
    out = tmp_path / "bias.jsonl"
    code, text, err = call("convert", *pair, "--task", "addition", "--out", out, "--json")
    assert code == 0, err
    assert json.loads(text)["written"] == [str(out)]
    assert call("explain", out)[0] == 0
    assert call("convert", out, "--width", 61, "--out", tmp_path / "b.safetensors")[0] == 0
    assert call("explain", tmp_path / "b.safetensors")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("{cross}", "--out", "x.png"),
            "a bias becomes a .jsonl, .safetensors or .t file, got x.png",
        ),
        (("{cross}", "--out", "x.jsonl", "--set", "seed=1"), "name its .ini with --config"),
        (("none.t", "--out", "x.jsonl"), "can't read none.t"),
    ],
)
def test_what_cannot_be_converted(tmp_path, call, arguments, message):
    cross, _ = save_windows(tmp_path, 5)
    code, _, err = call("convert", *(text.format(cross=cross) for text in arguments))
    assert code == 2
    assert message in err


def test_lines_need_a_width_to_become_matrices(tmp_path, call):
    cross, own = save_windows(tmp_path, 11)
    assert call("convert", cross, own, "--out", tmp_path / "l.jsonl")[0] == 0
    for name in ("a.t", "a.safetensors"):
        code, _, err = call("convert", tmp_path / "l.jsonl", "--out", tmp_path / name)
        assert code == 2
        assert "say for which with --width" in err


def test_explaining_what_is_not_there(tmp_path, call, trained):
    code, _, err = call("explain", tmp_path / "none")
    assert code == 2
    assert "none does not exist" in err


def test_a_run_without_lines_is_drawn_by_its_attention(tmp_path, call, trained):
    kept = trained[1] / "checkpoints" / "step-10"
    before = sorted(kept.iterdir())
    assert call("explain", kept, "--plot", tmp_path / "a.png")[0] == 0
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert sorted(kept.iterdir()) == before


def test_lines_become_those_of_a_task_that_is_laid_out_alike(tmp_path, call):
    lines = [Line(Track.along("a", offset), -offset) for offset in (0, -1)]
    given, out = tmp_path / "successor.jsonl", tmp_path / "parity.jsonl"
    CalibratedBias("successor", 2, lines).save(given)
    assert call("convert", given, "--task", "parity", "--out", out)[0] == 0
    assert CalibratedBias.load(out) == CalibratedBias("parity", 2, lines)
    code, _, message = call("convert", given, "--task", "addition", "--out", out)
    assert code == 2
    assert "laid out otherwise" in message
    code, _, message = call("convert", given, "--task", "parety", "--out", out)
    assert code == 2
    assert "did you mean 'parity'?" in message


def test_a_bias_knows_the_parameters_of_its_task(tmp_path, call):
    """Four operands are drawn, and laid out as matrices, as four."""
    given, path = tmp_path / "four.jsonl", tmp_path / "four.safetensors"
    four = Format("multi_addition", 5, {"operands": 4})
    CalibratedBias(four, 2, [Line("d[c]"), Line("a[c-1]", 1)]).save(given)
    assert call("explain", given, "--plot", tmp_path / "four.png")[0] == 0
    assert call("convert", given, "--width", 5, "--out", path)[0] == 0
    matrices = MatrixBias.load(path)
    assert matrices.format == four
    assert matrices.matrices["cross"].shape == (1, 2, 6, 4 * 5 + 3)
    code, out, _ = call("explain", path, "--plot", tmp_path / "again.png")
    assert code == 0
    assert "head 0 reads d[c], the digit of d in the column being written" in out


@pytest.mark.parametrize("alignment", ["natural", "interleaved"])
@pytest.mark.parametrize("order", ["normal", "reversed"])
@pytest.mark.parametrize("frame", ["none", "tokens"])
def test_lines_that_become_matrices_read_the_same_in_every_layout(
    tmp_path, call, alignment, order, frame
):
    format = Format("addition", 10, {}, alignment, order, frame)
    lines = [Line(text, head) for head, text in enumerate(("a[c]", "b[c-1]", "answer[c-1]"))]
    bias, given, path = (
        CalibratedBias(format, 3, lines),
        tmp_path / "a.jsonl",
        tmp_path / "a.safetensors",
    )
    bias.save(given)
    assert call("convert", given, "--width", 8, "--out", path)[0] == 0
    matrices = MatrixBias.load(path)
    for layout in (format.at(8), format.at(6)):
        for site in ("self", "cross"):
            every = range(layout.target_length)
            wanted = bias.dense(site, 0, layout, every)
            assert matrices.dense(site, 0, layout, every).equal(wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a[r]", "a query of addition has the coordinates c, no r"),
        ("sheet[r,c]", "reads segment 'sheet', which addition does not have"),
        ("+[c]", "a token of + in addition is named like +"),
    ],
)
def test_lines_that_a_task_does_not_have_are_not_explained(tmp_path, call, text, message):
    given = tmp_path / "odd.jsonl"
    CalibratedBias("addition", 1, [Line(text)]).save(given)
    code, _, error = call("explain", given)
    assert code == 2
    assert message in error


def test_explain_takes_a_task_only_where_it_means_something(tmp_path, call, trained):
    given = tmp_path / "successor.jsonl"
    CalibratedBias("successor", 1, [Line("a[c]")]).save(given)
    assert "Calibrated bias for parity" in call("explain", given, "--task", "parity")[1]
    assert call("explain", given, "--task", "nosuch")[0] == 2
    assert call("explain", trained[1], "--task", "parity")[0] == 2
