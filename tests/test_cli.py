"""The command line: results on stdout, one clear line for bad input, the right exit code."""

import contextlib
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from lengthwise.cli import commands, demo
from lengthwise.runs.folder import locked
from lengthwise.version import __version__

COMMANDS = [command.name for command in commands.app.registered_commands]


def test_version(call):
    assert call("--version") == (0, f"lengthwise {__version__}\n", "")


def test_without_a_command_help_is_shown(call):
    code, out, err = call()
    assert code == 0
    assert "solve" in out + err


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(call, command):
    code, out, _ = call(command, "--help")
    assert code == 0
    assert f"Example: lengthwise {command}" in " ".join(out.split())


@pytest.mark.trains
def test_train_takes_a_method(call, tmp_path, tiny_file):
    trivial = ["--set", "training.exact_match=0", "--set", "training.loss=100"]
    out = tmp_path / "run"
    code, _, err = call("train", tiny_file, "--method", "alibi", "--out", out, *trivial)
    assert code == 0
    assert "Train an alibi model" in err
    assert "is alibi: every head sees the whole problem" in call("explain", out)[1]
    measured = json.loads(call("evaluate", out, "--lengths", "4", "--samples", "3", "--json")[1])
    assert {row["method"] for row in measured} == {"alibi"}
    assert call("report", out)[0] == 0
    assert "alibi" in (out / "report.html").read_text()


def test_train_refuses_what_is_no_method(call, tmp_path):
    code, out, err = call("train", "addition", "--method", "rotary", "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err.startswith("lengthwise: unknown method 'rotary'; ")
    assert "vanilla" in err
    code, _, err = call("train", "addition", "--method", "rope", "--bias", tmp_path / "b.jsonl")
    assert code == 2
    assert "leave the method 'rope' out" in err


def test_help_does_not_load_torch():
    code = "import sys, lengthwise.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.trains
def test_abc_then_everything_else_on_its_folder(call, tiny_file, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    code, out, err = call("abc", tiny_file, "--out", folder, "--lengths", "4,50", "--json")
    assert code == 0
    result = json.loads(out)
    assert result["folder"] == str(folder)
    right = [r for r in result["results"] if r["method"] == "calibrated" and r["length"] == 50]
    assert [r["correct"] for r in right] == [r["n"] for r in right] == [100, 100]
    stages = ["Train a vanilla", "Calibrate", "Retrain", "Evaluate"]
    assert [err.find(stage) for stage in stages] == sorted(err.find(stage) for stage in stages)
    page = (folder / "report.html").read_text()
    assert "successor" in page
    assert sorted(p.suffix for p in (folder / "plots").iterdir()) == [".png"] * 4

    assert call("solve", folder, "99999", "0") == (0, "100000\n1\n", "")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"9\r\n99\n999")))
    assert call("solve", folder, "-") == (0, "10\n100\n1000\n", "")
    code, out, _ = call("solve", folder, "99", "--json")
    assert json.loads(out) == [{"expression": "99", "answer": "100"}]

    code, out, _ = call("solve", folder, "99", "0", "--show-work")
    assert out == (
        "100\n  written 001, least significant digit first\n"
        "1\n  written 10, least significant digit first\n"
    )
    work = json.loads(call("solve", folder, "99", "--show-work", "--json")[1])
    assert work == [{"expression": "99", "answer": "100", "work": "001"}]

    code, out, _ = call("explain", folder)
    assert "the digit of a in the column being written" in out
    code, out, _ = call("explain", folder / "vanilla")
    assert "every head sees the whole problem" in out
    assert json.loads(call("explain", folder, "--json")[1])[0]["heads"] == 4
    explained = json.loads(call("explain", folder / "vanilla", "--json")[1])
    assert (explained["vanilla"], explained["method"]) == (True, "vanilla")

    bias = tmp_path / "bias.jsonl"
    code, out, _ = call("calibrate", folder, "--out", bias, "--to-length", "30")
    assert code == 0
    assert bias.read_text() == (folder / "calibrated" / "bias.jsonl").read_text()
    assert call("explain", bias)[1] == out
    from safetensors.torch import load_file

    dense = load_file(tmp_path / "bias.safetensors")
    assert dense["cross.1"].shape == (4, 32, 31)
    paper = json.loads(call("calibrate", folder, "--out", bias, "--policy", "paper", "--json")[1])
    assert {line["segment"] for line in paper[1:]} == {"whole"}

    code, out, _ = call("evaluate", folder, "--lengths", "70", "--suite", "carry", "--json")
    (score,) = json.loads(out)
    assert (score["length"], score["suite"], score["correct"]) == (70, "carry", 100)
    assert "100.0%" in call("evaluate", folder, "--lengths", "20", "--samples", "50")[1]
    # Measurements add up; only the very same one replaces itself.
    assert call("evaluate", folder, "--lengths", "20", "--samples", "60")[0] == 0
    assert call("evaluate", folder, "--lengths", "20", "--samples", "60")[0] == 0
    rows = json.loads((folder / "results.json").read_text())
    measured = [(r["length"], r["suite"], r["n"]) for r in rows if r["method"] == "calibrated"]
    assert measured.count((20, "carry", 60)) == measured.count((70, "carry", 100)) == 1
    assert measured.count((20, "carry", 50)) == 1

    code, out, _ = call("report", folder, "--out", tmp_path / "page.html")
    assert (code, out) == (0, f"{tmp_path / 'page.html'}\n")
    code, out, _ = call("report", folder, "--out", tmp_path / "page.html", "--json")
    assert json.loads(out) == {"report": str(tmp_path / "page.html")}
    code, out, err = call("evaluate", folder, "--lengths", "9", "--set", "model.width=64")
    assert (code, "weights that were trained with model.width 32" in err) == (2, True)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    arguments = ("--seed", "5", "--set", "calibration.problems=64")
    assert call("calibrate", folder, "--out", bias, *arguments)[0] == 0
    assert call("report", folder, "--out", tmp_path / "page.html")[0] == 0
    # What goes elsewhere leaves the run's own folder alone.
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before

    code, _, err = call("abc", tiny_file, "--out", folder)
    assert (code, "--resume continues it, --force starts over" in err) == (2, True)


def test_train_then_train_with_the_bias(call, tiny_abc, tiny_file, tmp_path):
    code, out, err = call("train", tiny_file, "--out", tmp_path / "base", "--json")
    result = json.loads(out)
    assert (code, result["phase"], result["folder"]) == (0, "done", str(tmp_path / "base"))
    assert "Train a vanilla model" in err
    bias = tiny_abc.calibrated.path / "bias.jsonl"
    code, out, _ = call("train", tiny_file, "--bias", bias, "--out", tmp_path / "tuned")
    assert code == 0
    assert "Interpolates after" in out
    assert call("solve", tmp_path / "tuned", "9" * 40)[1] == f"1{'0' * 40}\n"
    code, out, _ = call("train", tiny_file, "--out", tmp_path / "base", "--resume")
    assert (code, "Interpolates after" in out) == (0, True)


def test_a_training_that_does_not_interpolate_exits_with_1(call, tiny_file, tmp_path):
    code, out, err = call(
        "train", tiny_file, "--out", tmp_path / "run", "--set", "training.max_steps=10"
    )
    assert (code, out) == (1, "")
    assert "did not interpolate within 10 steps" in err


def test_a_model_that_learned_nothing_cannot_be_calibrated(call, tiny_file, tmp_path):
    call("train", tiny_file, "--out", tmp_path / "run", "--set", "training.max_steps=1")
    code, _, err = call("calibrate", tmp_path / "run", "--out", tmp_path / "bias")
    assert code == 1
    assert "no head of the successor model reads along a line" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["trian", "addition"],
            "unknown command 'trian'; did you mean 'train'? known: abc, bench,",
        ),
        (["abc"], "Missing argument 'TASK|FILE'"),
        (["abc", "adition"], "unknown task 'adition'; did you mean 'addition'?"),
        (["abc", "addition", "--set", "model.widht=1"], "did you mean 'width'?"),
        (
            ["abc", "addition", "--length", "0"],
            "length takes a whole number from 1 up, such as 6; got 0",
        ),
        (["abc", "addition", "--lengths", "6,x"], "--lengths takes whole numbers from 1 up"),
        (["abc", "addition", "--lengths", "6,0"], "--lengths takes whole numbers from 1 up"),
        (["abc", "addition", "--seed", "x"], "Invalid value for '--seed'"),
        (["abc", "addition", "--no-such-option"], "No such option: --no-such-option"),
        (["abc", "addition", "--device", "tpu"], "device: input should be 'auto', 'cpu' or 'cuda'"),
        (["train", "missing.toml"], "can't read missing.toml: No such file or directory"),
        (["train", "addition", "--bias", "missing"], "can't read bias missing: No such file"),
        (["train", "nxm"], "task 'nxm' is called multiplication"),
        (["abc", "multiplication", "--sizes", "20by3"], "--sizes: a size is written like 20x15"),
        (["abc", "addition", "--sizes", "20x3"], "sizes are of sheets; problems of addition have"),
        (["solve", "{abc}", "12++3"], "unexpected '+' at position 3 of '12++3'"),
        (["solve", "{abc}", "12x"], "unexpected 'x' at position 3"),
        (["solve", "{abc}", ""], "empty expression; successor takes expressions like '199'"),
        (["solve", "{abc}", "--", "-5"], "unexpected '-' at position 1 of '-5'"),
        (
            ["solve", "{abc}/vanilla", "1" * 300000],
            "an operand has 300000 digits; the limit is 200000",
        ),
        (["solve", "nowhere", "1"], "nowhere is not a run: it does not exist"),
        (["solve", "{tmp}", "1"], "is not a run: it has no config.json"),
        (["explain", "{tmp}"], "is not a run: it has no config.json"),
        (["explain", "{tmp}/text"], "text is not a calibrated bias: line 1 is not JSON"),
        (["evaluate", "{abc}", "--lengths", "0"], "--lengths takes whole numbers from 1 up"),
        (["evaluate", "{abc}", "--lengths", "1" + "0" * 5000], "--lengths takes whole numbers"),
        (
            ["evaluate", "{abc}", "--lengths", "10000001"],
            "lengths must be at most 10000000, got 10000001",
        ),
        (
            ["evaluate", "{abc}", "--seed", "-1"],
            "seed takes a whole number from 0 up, such as 6; got -1",
        ),
        (["solve", "{abc}", "1", "--device", "tpu"], "device: input should be 'auto', 'cpu' or"),
        (["train", "{tmp}/date.toml", "--out", "{tmp}/r"], "seed: input should be a valid integer"),
        (
            ["calibrate", "{abc}", "--out", "{tmp}"],
            "path takes a file, such as '{tmp}/bias.jsonl'; {tmp} is a folder",
        ),
        (
            ["calibrate", "{abc}", "--out", "{tmp}/b", "--to-length", "20000"],
            "dense matrices for 20001 columns take",
        ),
        (
            ["calibrate", "{abc}", "--out", "{tmp}/b.safetensors", "--to-length", "9"],
            "b.safetensors is where the dense matrices would go",
        ),
        (
            ["evaluate", "{abc}", "--suite", "hard"],
            "suites of successor are uniform and carry, not hard",
        ),
        (
            ["evaluate", "{abc}", "--samples", "0"],
            "samples takes a whole number from 1 up, such as 6; got 0",
        ),
        (["calibrate", "{abc}", "--out", "{tmp}/b", "--policy", "best"], "unknown policy 'best'"),
        (["calibrate", "{abc}"], "Missing option '--out'"),
        (
            ["train", "addition", "--out", "{tmp}/new", "--set", "retraining.max_steps=5"],
            "retraining.max_steps counts only with a calibrated bias",
        ),
        (["report", "{tmp}"], "is not a run"),
        (["bench", "trane"], "unknown benchmark 'trane'; did you mean 'train'?"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(call, tiny_abc, tmp_path, arguments, message):
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "date.toml").write_text("seed = 2024-01-01\n")
    places = {"{abc}": str(tiny_abc.path), "{tmp}": str(tmp_path)}
    for name, path in places.items():
        arguments = [argument.replace(name, path) for argument in arguments]
        message = message.replace(name, path)
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("lengthwise: ")
    assert err.count("\n") == 1


def test_a_bias_of_another_task_is_refused(call, tiny_abc, tmp_path):
    bias = tiny_abc.calibrated.path / "bias.jsonl"
    code, _, err = call("train", "addition", "--bias", bias, "--out", tmp_path / "run")
    assert code == 2
    assert "the bias was calibrated for successor, but the task is addition" in err


def test_a_bias_with_other_heads_is_refused(call, tiny_abc, tmp_path):
    bias = tiny_abc.calibrated.path / "bias.jsonl"
    code, _, err = call(
        *("train", "successor", "--bias", bias, "--out", tmp_path / "run"),
        *("--set", "model.heads=8"),
    )
    assert (code, "the bias has 4 heads, but the model has 8" in err) == (2, True)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_line(call, tiny_file, tmp_path, monkeypatch):
    from lengthwise import files

    real = files.os.fsync

    def full(number):
        with open("/dev/full", "wb", buffering=0) as device:
            device.write(b"x")
        real(number)

    monkeypatch.setattr(files.os, "fsync", full)
    code, out, err = call("train", tiny_file, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert err.startswith(f"lengthwise: No space left on device {tmp_path / 'run'}")
    assert (err.count("\n"), ".part" in err) == (1, False)
    assert not (tmp_path / "run").exists()  # nothing could be written


def test_a_killed_abc_resumes_to_the_same_answer(tiny_abc, tiny_file, tmp_path):
    """A real process, a real SIGKILL in the first training, then --resume."""
    command = [sys.executable, "-m", "lengthwise", "abc", str(tiny_file)]
    command += ["--out", str(tmp_path / "run"), "--lengths", "30"]
    command += ["--set", "training.checkpoint_every=50"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    checkpoint = tmp_path / "run" / "vanilla" / "checkpoint.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = subprocess.run(
        [*command, "--resume"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours = (tmp_path / "run" / "calibrated" / "model.safetensors").read_bytes()
    assert ours == (tiny_abc.path / "calibrated" / "model.safetensors").read_bytes()


@pytest.mark.trains
def test_ctrl_c_is_one_line_and_resumes(tiny_file, tmp_path):
    command = [sys.executable, "-m", "lengthwise", "train", str(tiny_file)]
    command += ["--out", str(tmp_path / "run"), "--set", "training.exact_match=1.0"]
    command += ["--set", "training.loss=1e-9", "--set", "training.max_steps=100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2
    *progress, last = err.splitlines()
    assert last == "lengthwise: interrupted; what was finished is kept, and --resume continues it"
    assert all(line.startswith("Train") for line in progress)  # where it takes long
    assert (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.trains
def test_the_demo_shows_what_it_promises(call, tmp_path, monkeypatch, tiny_config):
    from lengthwise.api import task_settings

    monkeypatch.setattr(task_settings, "settings", lambda *args, **kwargs: tiny_config)
    folder = tmp_path / "demo"
    monkeypatch.setattr(demo, "DEMO_FOLDER", folder)
    for _ in range(2):  # it is safe to run again
        code, out, _ = call("demo", "--out", folder)
        assert code == 0
    assert "Exact match by length" in out
    assert "the digit of a in the column being written" in out
    expected = int(demo.DEMO_EXPRESSION) + 1
    assert f"{expected}  (right)" in out
    assert f"Report: {folder / 'report.html'}" in out
    assert out.splitlines()[-1] == (
        "Trained on at most 4 digits. Proven: greedy decoding answers every successor problem in base 10 "
        "right, at every length; measured, it is right on all 600 problems of up to 100 digits."
    )


def test_the_demo_never_replaces_a_run_unasked(call, tiny_abc):
    code, _, err = call("demo", "--out", tiny_abc.path)
    wanted = "--force deletes the run in it and starts over, another --out keeps it"
    assert (code, wanted in err) == (2, True)


def test_a_measurement_is_shown_before_it_is_saved(call, tiny_abc, tmp_path):
    """In a folder that another process holds the results can't be written, but are not lost."""
    from lengthwise.runs.folder import locked

    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    with locked(folder):
        code, out, err = call("evaluate", folder, "--lengths", "5", "--samples", "10", "--json")
    assert (code, "another process is writing" in err) == (2, True)
    assert {row["length"] for row in json.loads(out)} == {5}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("can't allocate memory: ..."),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
@pytest.mark.parametrize(
    ("words", "advice"),
    [(["solve", "run", "1"], "shorter or fewer"), (["train", "copy"], "training.batch_size")],
)
def test_too_little_memory_is_one_line_that_fits_the_command(
    call, monkeypatch, tmp_path, error, words, advice
):
    from lengthwise.runs.run import Run
    from lengthwise.training import trainer as training

    def fail(*arguments, **options):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Run, "open", fail)
    monkeypatch.setattr(training, "make_accelerator", fail)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    assert err.startswith("lengthwise: not enough memory")


WEAK = (
    *("--set", "retraining.exact_match=0.5", "--set", "retraining.loss=1.5"),
    *("--set", "retraining.worst_loss=100", "--set", "retraining.cooldown_steps=0"),
    *("--set", "training.evaluate_every=10", "--set", "calibration.attempts=1"),
)


def test_abc_says_what_it_reached_and_ends_with_it(call, tiny_abc, tiny_file, tmp_path):
    """The exit code is that of the claim: a model that is measured right, but not proven, is no success."""
    folder = shutil.copytree(tiny_abc.path, tmp_path / "good")
    again = ("--out", folder, "--resume", "--lengths", "5")
    code, out, _ = call("abc", tiny_file, *again)
    assert (code, out.splitlines()[-1][:30]) == (0, "Proven: greedy decoding answer")
    code, out, _ = call("abc", tiny_file, *again, "--no-prove", "--json")
    said = json.loads(out)
    assert (code, said["right"], "proof" in said) == (0, True, False)
    assert said["verdict"].startswith("Not proven, but measured: it is right on all")

    code, out, err = call("abc", tiny_file, "--out", tmp_path / "weak", "--no-prove", *WEAK)
    assert code == 1, err
    assert "it is wrong on" in out.splitlines()[-1]
    code, out, _ = call("abc", tiny_file, "--out", tmp_path / "weak", "--resume", *WEAK)
    assert (code, out.splitlines()[-1][:32]) == (1, "Not proven: the model is wrong o")


def test_abc_where_no_proof_applies_is_judged_by_what_was_measured(
    call, tiny_abc, tiny_file, tmp_path, monkeypatch
):
    from lengthwise.pipeline import until_proven
    from lengthwise.proof import NotApplicableError

    def refuse(*arguments, **options):
        raise NotApplicableError("there are too many contexts")

    monkeypatch.setattr(until_proven, "prove_run", refuse)
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    again = ("abc", tiny_file, "--out", folder, "--resume", "--lengths", "5")
    code, out, _ = call(*again)
    assert (code, out.rstrip()[-30:]) == (0, "(there are too many contexts).")
    assert call(*again, "--prove")[0] == 2


def test_the_estimate_writes_nothing(call, tiny_file, tmp_path):
    code, out, _ = call("abc", tiny_file, "--estimate", "--out", tmp_path / "run")
    assert code == 0
    assert "at most 3,000 steps" in out
    assert "232 local contexts" in out
    assert out.splitlines()[-1].startswith("At most ")
    values = json.loads(call("abc", tiny_file, "--estimate", "--json")[1])
    assert (values["contexts"], values["retrain_steps"], values["problems"]) == (232, 2000, 1200)
    assert not (tmp_path / "run").exists()
    code, _, err = call("abc", "parity_classification", "--estimate")
    assert (code, "is not local" in err) == (2, True)


def test_a_training_that_was_asked_for_steps_says_what_it_reached(call, tiny_file, tmp_path):
    steps = ("--set", "training.until=max_steps", "--set", "training.max_steps=4")
    code, out, _ = call("train", tiny_file, "--out", tmp_path / "run", *steps)
    assert code == 0
    assert out.startswith("Does not interpolate: trained for 4 steps")


def test_lines_of_a_model_that_knows_nothing_come_with_a_warning(call, tiny_file, tmp_path):
    steps = ("--set", "training.until=max_steps", "--set", "training.max_steps=4")
    call("train", tiny_file, "--out", tmp_path / "run", *steps)
    _, _, err = call("calibrate", tmp_path / "run", "--out", tmp_path / "bias.jsonl")
    assert "of its training problems right; the lines of a model that does not interpolate" in err


def test_calibration_takes_the_settings_of_the_run(call, tiny_abc, tmp_path):
    from lengthwise.bias import CalibratedBias

    def segments(*arguments):
        code, _, err = call("calibrate", tiny_abc.path, "--out", tmp_path / "b.jsonl", *arguments)
        assert code == 0, err
        return {line.track.segment for line in CalibratedBias.load(tmp_path / "b.jsonl").lines}

    assert segments() == {"a", "answer"}
    assert segments("--set", "calibration.policy=paper") == {"whole"}
    arguments = ("--policy", "auto", "--set", "calibration.policy=paper")
    code, _, err = call("calibrate", tiny_abc.path, "--out", tmp_path / "b.jsonl", *arguments)
    assert (code, "policy auto and calibration.policy=paper contradict" in err) == (2, True)
    code, _, err = call("calibrate", tiny_abc.path, "--out", tmp_path / "b", "--kappa-self", "2")
    assert (code, "calibration.kappa_self counts only with" in err) == (2, True)


def test_what_is_measured_of_a_part_is_kept_with_the_whole(call, tiny_abc, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    before = json.loads((folder / "results.json").read_text())
    assert call("evaluate", folder / "vanilla", "--lengths", "3", "--samples", "9")[0] == 0
    rows = json.loads((folder / "results.json").read_text())
    assert rows[: len(before)] == before
    monkeypatch.chdir(folder / "calibrated")
    assert call("evaluate", ".", "--lengths", "5", "--samples", "9")[0] == 0
    assert len(json.loads((folder / "results.json").read_text())) == len(rows) + 2
    assert not (folder / "calibrated" / "results.json").exists()
    assert [(r["length"], r["n"]) for r in rows[len(before) :]] == [(3, 9)] * 4
    assert not (folder / "vanilla" / "results.json").exists()
    assert call("report", folder / "vanilla", "--out", tmp_path / "page.html")[0] == 0
    assert "vanilla, padded as trained" in (tmp_path / "page.html").read_text()


def test_a_run_that_is_only_to_be_read_is_proven(call, tiny_abc, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    (folder / "calibrated" / "certificate.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr("lengthwise.runs.folder.can_write", lambda folder: False)
    code, out, err = call("prove", folder)
    assert (code, out[:7]) == (0, "Proven:")
    assert "can't be written to, so the certificate is not kept; --out FILE writes it" in err
    assert call("prove", folder, "--out", tmp_path / "c.json")[0] == 0
    assert call("verify", tmp_path / "c.json", folder)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.fixture
def stopped_at_8(monkeypatch):
    """An evaluation is interrupted after it measured 8 digits."""
    from lengthwise.progress import display

    def stop(self, score):
        if score.length == 8:
            raise KeyboardInterrupt

    monkeypatch.setattr(display.Display, "scored", stop)


@pytest.mark.usefixtures("stopped_at_8")
@pytest.mark.parametrize("why", ["held", "read only", "full"])
def test_an_interrupted_evaluation_that_can_not_be_kept_says_both(
    call, tiny_abc, tmp_path, monkeypatch, why
):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    before = (folder / "results.json").read_bytes()
    wanted = {
        "held": f"what was measured is not kept: another process is writing {folder}",
        "read only": f"{folder} can't be written to, so these results are not kept there",
        "full": "what was measured is not kept: [Errno 28] No space left on device",
    }
    if why == "read only":
        monkeypatch.setattr("lengthwise.runs.folder.can_write", lambda folder: False)
    if why == "full":

        def fail(path, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        monkeypatch.setattr("lengthwise.evaluation.curve.write_text", fail)
    with locked(folder) if why == "held" else contextlib.nullcontext():
        code, _, err = call("evaluate", folder, "--lengths", "7,8", "--samples", "5")
    assert code == 2
    assert wanted[why] in err
    assert err.splitlines()[-1].startswith("lengthwise: interrupted; ")
    assert (folder / "results.json").read_bytes() == before


def test_a_report_of_a_run_that_is_only_to_be_read_says_where_it_could_go(
    call, tiny_abc, tmp_path, monkeypatch
):
    monkeypatch.setattr("lengthwise.runs.folder.can_write", lambda folder: False)
    code, out, err = call("report", tiny_abc.path)
    assert (code, out) == (2, "")
    assert f"can't write {tiny_abc.path / 'report.html'}: " in err
    assert "--out FILE writes the report elsewhere" in err
    assert call("report", tiny_abc.path, "--out", tmp_path / "page.html")[0] == 0


@pytest.mark.usefixtures("stopped_at_8")
def test_an_interrupted_evaluation_keeps_what_it_measured(call, tiny_abc, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    before = json.loads((folder / "results.json").read_text())
    code, _, err = call(
        "evaluate", folder, "--lengths", "7,8,9", "--samples", "5", "--suite", "carry"
    )
    assert (code, "interrupted; what was measured to the end is kept" in err) == (2, True)
    rows = json.loads((folder / "results.json").read_text())
    assert rows[: len(before)] == before
    assert [(r["length"], r["n"]) for r in rows[len(before) :]] == [(7, 5), (8, 5)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--set", "training.max_steps=3"], "training.max_steps does not count when a"),
        (["evaluate", "--set", "data.widths=varied"], "data.widths does not count when a run is"),
        (
            ["evaluate", "--set", "seed=7"],
            "seed does not count when a run is evaluated; what does: ",
        ),
        (
            ["evaluate", "--lengths", "4", "--set", "evaluation.lengths=[5]"],
            "lengths [4] and evaluation.lengths=[5] contradict each other",
        ),
        (
            ["evaluate", "--suite", "carry", "--set", 'evaluation.suites=["uniform"]'],
            "contradict each other",
        ),
        (
            ["evaluate", "--samples", "4", "--set", "evaluation.long_samples=5"],
            "--samples 4 counts at every length; leave it or evaluation.long_samples out",
        ),
        (
            ["evaluate", "--from", "0", "--to", "5", "--set", "evaluation.samples=5"],
            "evaluation.samples does not count when numbers of a range are asked",
        ),
        (
            ["calibrate", "--out", "b.jsonl", "--set", "training.max_steps=3"],
            "training.max_steps does not count when attention is captured",
        ),
        (
            ["calibrate", "--out", "b.jsonl", "--set", "calibration.attempts=5"],
            "calibration.attempts does not count when attention is captured",
        ),
    ],
)
def test_settings_that_change_nothing_are_refused(
    call, tiny_abc, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    before = (tiny_abc.path / "results.json").read_bytes()
    code, out, err = call(arguments[0], tiny_abc.path, *arguments[1:])
    assert (code, out) == (2, "")
    assert message in err
    assert (tiny_abc.path / "results.json").read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_evaluate_asks_what_the_settings_say(call, tiny_abc, tmp_path):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    chosen = ["evaluation.lengths=[5]", 'evaluation.suites=["carry"]', "evaluation.samples=7"]
    assignments = [word for each in chosen for word in ("--set", each)]
    rows = json.loads(call("evaluate", folder, *assignments, "--json")[1])
    assert [(row["length"], row["suite"], row["n"]) for row in rows] == [(5, "carry", 7)]
    # Saying it twice is no contradiction.
    assert call("evaluate", folder, *assignments, "--lengths", "5", "--suite", "carry")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["calibrate", "{run}", "--out", "{run}/vanilla/config.json"], "config.json"),
        # A bias beside a model is taken for the one that it was trained with.
        (["calibrate", "{run}", "--out", "{run}/vanilla/bias.jsonl"], "bias.jsonl"),
        (
            ["calibrate", "{run}", "--out", "{run}/calibrated/model.jsonl", "--to-length", "5"],
            "model.safetensors",
        ),
        (["convert", "{run}/calibrated/bias.jsonl", "--out", "{run}/vanilla/bias.jsonl"], "bias"),
        (["evaluate", "{run}", "--wrong-positions", "{run}/results.csv"], "results.csv"),
        (["prove", "{run}", "--out", "{run}/calibrated/config.json"], "config.json"),
        (["report", "{run}", "--out", "{run}/results.json"], "results.json"),
    ],
)
def test_no_output_takes_the_place_of_a_file_of_a_run(call, tiny_abc, arguments, name):
    before = {path: path.read_bytes() for path in tiny_abc.path.rglob("*") if path.is_file()}
    code, out, err = call(*(word.format(run=tiny_abc.path) for word in arguments))
    assert (code, out) == (2, "")
    assert name in err
    assert "is the name of a file that the run in" in err
    after = {path: path.read_bytes() for path in tiny_abc.path.rglob("*") if path.is_file()}
    assert after == before


def test_convert_refuses_options_that_change_nothing(call, tiny_abc, tmp_path):
    bias = tiny_abc.path / "calibrated" / "bias.jsonl"
    for arguments, message in (
        ((bias, "--width", "9", "--out", tmp_path / "b.jsonl"), "--width is of matrices"),
        ((tiny_abc.path, "--task", "copy", "--out", tmp_path / "r"), "--task is of a bias"),
        ((tiny_abc.path, "--set", "seed=1", "--out", tmp_path / "r"), "leave --set out"),
    ):
        code, out, err = call("convert", *arguments)
        assert (code, out, message in err) == (2, "", True)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--estimate", "--resume"], "from nothing to the proof; leave --resume out"),
        (["--estimate", "--no-prove"], "from nothing to the proof; leave --no-prove out"),
        (
            ["--estimate", "--lengths", "5", "--set", "evaluation.lengths=[6]"],
            "lengths [5] and evaluation.lengths=[6] contradict each other",
        ),
        (["--resume", "--force"], "--resume continues what is there, --force starts over"),
    ],
)
def test_options_of_abc_that_contradict_each_other(call, tiny_file, tmp_path, arguments, message):
    code, out, err = call("abc", tiny_file, "--out", tmp_path / "run", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_only_to_be_read_is_measured(call, tiny_abc, tmp_path, monkeypatch):
    folder = shutil.copytree(tiny_abc.path, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    monkeypatch.setattr("lengthwise.runs.folder.can_write", lambda folder: False)
    picture = tmp_path / "curve.png"
    arguments = ("--lengths", "5", "--samples", "3", "--json", "--plot", picture)
    code, out, err = call("evaluate", folder, *arguments)
    assert (code, len(json.loads(out))) == (0, 2)
    assert "can't be written to, so these results are not kept there" in err
    assert picture.exists()
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
