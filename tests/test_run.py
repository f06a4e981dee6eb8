"""Run folders: what they hold, what they refuse, and that nothing in them is half written."""

import functools
import json
import multiprocessing
import os
import re
import shutil
import stat
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lengthwise.bias import CalibratedBias, Line, MatrixTrack
from lengthwise.files import save_tensors, write_bytes, write_with
from lengthwise.runs.answer import Answer
from lengthwise.runs.columns import read_answer
from lengthwise.runs.folder import CONFIG, LOCK, VERSIONS, WEIGHTS, locked, prepare
from lengthwise.runs.parts import check_bias, make_device, make_model
from lengthwise.runs.run import Run
from lengthwise.runs.versions import versions
from lengthwise.settings.config import InputError, make_config


@pytest.fixture
def folder(tiny_abc, tmp_path):
    """A copy of the tiny pipeline's folder, to break."""
    return shutil.copytree(tiny_abc.path, tmp_path / "copy")


def test_an_abc_folder_holds_everything(tiny_abc):
    names = {str(p.relative_to(tiny_abc.path)) for p in tiny_abc.path.rglob("*") if p.is_file()}
    for method in ("vanilla", "calibrated"):
        for name in (
            "config.json",
            "versions.json",
            "metrics.jsonl",
            "model.safetensors",
            "checkpoint.pt",
        ):
            assert f"{method}/{name}" in names
    assert {"vanilla/maps.safetensors", "calibrated/bias.jsonl"} <= names
    assert {"results.csv", "results.json"} <= names
    assert not [name for name in names if name.endswith(".part")]
    versions = json.loads((tiny_abc.path / "vanilla" / "versions.json").read_text())
    assert {"lengthwise", "torch", "python", "numpy", "git_commit", "gpu"} <= set(versions)


def test_opening_an_abc_folder_opens_the_calibrated_run(tiny_abc):
    run = Run.open(tiny_abc.path)
    assert run.path == tiny_abc.path / "calibrated"
    assert run.bias == tiny_abc.bias
    assert run.method == "calibrated"
    assert Run.open(tiny_abc.path / "vanilla").method == "vanilla"


def test_saving_and_loading_is_exact(tiny_abc):
    saved = load_file(tiny_abc.calibrated.path / WEIGHTS)
    loaded = Run.open(tiny_abc.path).model.state_dict()
    assert saved.keys() == loaded.keys()
    assert all(saved[name].equal(loaded[name]) for name in saved)
    assert not Run.open(tiny_abc.path).model.training


def test_the_config_in_the_folder_is_the_resolved_one(tiny_abc, tiny_config):
    assert Run.open(tiny_abc.path / "vanilla").config == tiny_config
    assert Run.open(tiny_abc.path).config == tiny_config.for_retraining()
    assert Run.open(tiny_abc.path).config.model.positions == "none"


def test_solve_answers_as_a_person_writes(tiny_abc):
    run = tiny_abc.calibrated
    rng = np.random.default_rng(0)
    numbers = [0, 9, 199, 10**50 - 1, *(int(x) for x in rng.integers(0, 10**12, 20))]
    assert run.solve_many([str(n) for n in numbers]) == [str(n + 1) for n in numbers]
    assert run.solve("000199") == "200"
    assert run.solve(" 12 ") == "13"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "empty expression; successor takes expressions like '199'"),
        ("12a", "unexpected 'a' at position 3 of '12a'"),
        ("-5", "unexpected '-' at position 1 of '-5'"),
        ("1+1", r"unexpected '\+' at position 2"),
        ("٣", "unexpected"),
        ("1" * 10_000_001, "an operand has 10000001 digits; the limit is 10000000"),
    ],
)
def test_malformed_expressions_are_refused(tiny_abc, expression, message):
    with pytest.raises(InputError, match=message):
        tiny_abc.calibrated.solve(expression)


def test_an_answer_that_is_none_is_no_number_in_disguise(tiny_abc):
    layout = tiny_abc.calibrated.layout(2)
    end = layout.vocabulary.end
    read = functools.partial(read_answer, tiny_abc.calibrated.task, layout)
    assert read(np.array([1, 2, 0, end])) == Answer("21", "120", complete=True)
    for tokens, written in (([1, end, end, end], "1$$$"), ([1, 2, 0, 3], "1203")):
        answer = read(np.array(tokens))
        assert (answer.work, answer.complete) == (written, False)
        assert answer.text == (
            "no answer: 3 digits and an end ($) were due, least significant digit first, but the model "
            f"wrote {written}"
        )


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_that_is_no_run_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"is not a run: it (has no config\.json|does not exist)"):
        Run.open(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\0\0\0\0\0\0\0{}      "])
def test_broken_weights_are_refused(folder, content):
    (folder / "calibrated" / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors does not hold this run's weights"):
        _ = Run.open(folder).model


def test_truncated_weights_are_refused(folder):
    path = folder / "calibrated" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="does not hold this run's weights"):
        _ = Run.open(folder).model


def test_weights_of_another_size_are_refused(folder):
    path = folder / "calibrated" / CONFIG
    path.write_text(path.read_text().replace('"feed_forward": 64', '"feed_forward": 32'))
    wanted = r"weights that were trained with model\.feed_forward 64, but this run has 32"
    with pytest.raises(InputError, match=wanted):
        _ = Run.open(folder).model


def test_missing_weights_say_how_to_go_on(folder):
    (folder / "calibrated" / WEIGHTS).unlink()
    wanted = (
        f"no trained model yet; finish it with `lengthwise abc successor --out {folder} --resume"
    )
    with pytest.raises(InputError, match=re.escape(wanted)):
        _ = Run.open(folder).model
    alone = shutil.copytree(folder / "vanilla", folder.parent / "alone")
    (alone / WEIGHTS).unlink()
    wanted = f"finish it with `lengthwise train {alone / CONFIG} --out {alone} --resume`"
    with pytest.raises(InputError, match=re.escape(wanted)):
        _ = Run.open(alone).model


def test_a_run_without_its_bias_is_refused(folder):
    """Of a calibrated run someone copied the two files that many tools ask for."""
    part = folder.parent / "part"
    part.mkdir()
    for name in (CONFIG, WEIGHTS):
        shutil.copy(folder / "calibrated" / name, part)
    with pytest.raises(InputError, match=r"lacks bias\.jsonl, which its model was trained with"):
        Run.open(part)


def test_a_run_with_another_bias_than_its_own_is_refused(folder):
    other = Run.open(folder).bias
    other = CalibratedBias(other.task, other.heads, other.lines[:-1])
    other.save(folder / "calibrated" / "bias.jsonl")
    with pytest.raises(InputError, match=r"bias\.jsonl is not the file that its model was trained"):
        Run.open(folder)
    other.save(folder / "vanilla" / "bias.jsonl")
    with pytest.raises(
        InputError, match=r"bias\.jsonl is not of this run, which was trained without"
    ):
        Run.open(folder / "vanilla")


def test_weights_of_another_run_are_refused(folder):
    """Of the same size, so that nothing but what they say of themselves tells."""
    shutil.copy(folder / "vanilla" / WEIGHTS, folder / "calibrated" / WEIGHTS)
    with pytest.raises(
        InputError, match=r"weights that were trained with bias .*, but this run has"
    ):
        _ = Run.open(folder).model


def test_runs_that_do_not_say_what_they_consist_of_still_open(folder):
    """As version 0.1 wrote them."""
    path = folder / "calibrated"
    values = json.loads((path / CONFIG).read_text())
    assert set(values.pop("files")) == {"bias.jsonl"}
    (path / CONFIG).write_text(json.dumps(values))
    save_file(load_file(path / WEIGHTS), path / WEIGHTS)
    assert Run.open(folder).solve("99") == "100"


@pytest.mark.parametrize("content", ["", "{", '{"task": "successor", "colour": 1}', "[]"])
def test_a_broken_config_is_refused(folder, content):
    (folder / "calibrated" / CONFIG).write_text(content)
    with pytest.raises(InputError):
        Run.open(folder)


@pytest.mark.parametrize("content", ["", "{", '{"format": "other"}'])
def test_a_broken_bias_is_refused(folder, content):
    (folder / "calibrated" / "bias.jsonl").write_text(content)
    with pytest.raises(InputError, match=r"bias\.jsonl is not a calibrated bias: "):
        Run.open(folder)


LINE = Line("a[c]")


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (
            CalibratedBias("addition", 4, [LINE]),
            "calibrated for addition, but the task is successor",
        ),
        (CalibratedBias("successor", 8, [LINE]), "the bias has 8 heads, but the model has 4"),
        (
            CalibratedBias(
                "successor", 4, [Line(MatrixTrack("cross", "diagonal", 0, "a"), layer=7)]
            ),
            "names layer 7, but the model has 2",
        ),
        (
            CalibratedBias("successor", 4, [Line(MatrixTrack("cross", "diagonal", 0, "b"))]),
            "reads segment 'b', which successor does not have",
        ),
    ],
)
def test_a_bias_that_does_not_fit_is_refused(bias, message):
    with pytest.raises(InputError, match=message):
        check_bias(bias, make_config({"task": "successor"}))


def _try_to_lock(path, queue):
    try:
        with locked(path):
            queue.put("held")
    except InputError as error:
        queue.put(str(error))


@pytest.mark.trains
def test_a_second_process_writing_the_same_run_is_refused(tmp_path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with locked(tmp_path):
        process = context.Process(target=_try_to_lock, args=(tmp_path, queue))
        process.start()
        answer = queue.get(timeout=60)
        process.join()
    assert answer == f"another process is writing {tmp_path}"
    with locked(tmp_path):
        pass  # released


def test_an_existing_run_is_never_overwritten_unasked(folder):
    before = sorted(p.name for p in folder.iterdir())
    with pytest.raises(InputError, match="exists; --resume continues it, --force starts over"):
        prepare(folder, resume=False, force=False, pipeline=True)
    prepare(folder, resume=True, force=False, pipeline=True)
    assert sorted(p.name for p in folder.iterdir()) == before
    prepare(folder, resume=False, force=True)
    # By the note of versions the folder is still known as ours, whatever happens next.
    left = [p for p in folder.rglob("*") if p.is_file() and p.name != LOCK]
    assert left == [folder / "vanilla" / VERSIONS]
    prepare(folder, resume=False, force=True, pipeline=True)


def test_force_deletes_what_the_package_wrote_and_nothing_else(folder):
    """Whatever a person keeps inside a run, at any depth, and what a link points to, stays."""
    ours = [folder / "results.json", folder / "plots" / "length.png", folder / "vanilla-1"]
    theirs = {"NOTES.md", "figures/a.png", "vanilla/NOTES.md", "plots/mine.png", "calibrated/x/y"}
    for path in (*ours[:2], *(folder / name for name in theirs)):
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    kept = folder / "calibrated" / "checkpoints" / "step-5"
    shutil.copytree(folder / "vanilla", kept)
    outside = shutil.copytree(folder / "vanilla", folder.parent / "outside")
    (folder / "calibrated-1").symlink_to(outside)
    prepare(folder, resume=False, force=True)
    files = {p for p in folder.rglob("*") if p.is_file() and p.name not in (LOCK, VERSIONS)}
    assert files == {folder / name for name in theirs} | {kept / "NOTES.md"}
    assert (outside / WEIGHTS).exists()


@pytest.mark.parametrize("name", ["thesis.tex", "config.json", "vanilla"])
@pytest.mark.parametrize(
    "flags", [{"force": True, "resume": False}, {"force": False, "resume": True}]
)
def test_a_folder_with_other_things_is_never_emptied_or_added_to(tmp_path, name, flags):
    """Other programs keep a config.json too."""
    (tmp_path / name).write_text("years of work")
    with pytest.raises(InputError, match="exists and is not a run; choose another folder"):
        prepare(tmp_path, **flags)
    assert (tmp_path / name).read_text() == "years of work"


@pytest.mark.parametrize("content", ["{}", '{"task": "translation"}', '{"task": "copy", "lr": 1}'])
def test_a_config_that_is_none_of_ours_makes_no_run(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match="exists and is not a run; choose another folder"):
        prepare(tmp_path, resume=False, force=True)
    assert (tmp_path / "config.json").read_text() == content


@pytest.mark.parametrize("names", [["bias.jsonl"], ["bias.jsonl", "versions.json", ".x.part"]])
def test_a_run_that_was_killed_before_its_settings_can_go_on(tmp_path, names):
    for name in names:
        (tmp_path / name).touch()
    prepare(tmp_path, resume=True, force=False)
    prepare(tmp_path, resume=False, force=True)
    assert not (tmp_path / "bias.jsonl").exists()


@pytest.mark.parametrize("content", [b"\xff\n", b"{\n"])
def test_broken_metrics_are_refused(folder, content):
    run = Run.open(folder)
    (run.path / "metrics.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=r"metrics\.jsonl holds a broken row"):
        run.metrics()


def test_a_run_opens_on_another_device_than_it_was_trained_on(folder):
    path = folder / "calibrated" / CONFIG
    path.write_text(path.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    assert Run.open(folder).config.device == "cuda"
    run = Run.open(folder, device="cpu")
    assert run.solve("99") == "100"
    with pytest.raises(InputError, match="device: input should be 'auto', 'cpu' or 'cuda'"):
        Run.open(folder, device="tpu")


def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail(temporary):
        temporary.write_bytes(b"half of the n")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_with(path, fail)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_written_files_have_the_permissions_that_others_get(tmp_path):
    write_bytes(tmp_path / "ours", b"")
    save_tensors(tmp_path / "tensors", {"one": torch.zeros(1)})
    (tmp_path / "theirs").touch()
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert make_device("auto").type == "cpu"
    with pytest.raises(InputError, match="torch sees no GPU; use 'cpu' or 'auto'"):
        make_device("cuda")


def test_versions_do_without_git(monkeypatch):
    monkeypatch.setattr(os, "environ", {**os.environ, "PATH": ""})
    found = versions()
    assert (found["git_commit"], found["git_changed"]) == (None, None)


def test_the_work_of_parity_is_its_scratchpad(tmp_path, monkeypatch):
    config = make_config({"task": "parity"})
    run = Run.create(tmp_path / "run", config, None)
    run.model = SimpleNamespace(reaches=lambda *lengths: True)

    def truth(model, bias, layout, source, path):
        digits = source.flip(1)[:, None].numpy().astype("uint8")
        return layout.target(run.task.answer(digits))[:, 1:]

    monkeypatch.setattr("lengthwise.decoding.ways.decode_with_cache", truth)
    # A model that learned one width is asked at that.
    assert run.answers(["0110", "111"]) == [
        Answer("0", "010".ljust(16, "0")),
        Answer("1", "1011".ljust(16, "1")),
    ]
    run = Run.create(
        tmp_path / "two", make_config({"task": "parity"}, ["data.widths=varied"]), None
    )
    run.model = SimpleNamespace(reaches=lambda *lengths: True)
    assert run.answers(["0110", "111"]) == [Answer("0", "010"), Answer("1", "101")]
    assert run.solve_many(["0110", "111"]) == ["0", "1"]


@pytest.mark.trains
def test_a_run_is_opened_without_torchs_compiler(tmp_path):
    """It takes a second to load, of every worker and of every question to a model."""
    config = make_config({"task": "successor", "device": "cpu"}, ["model.embedding_scale=sqrt"])
    run = Run.create(tmp_path / "run", config, None)
    run.save_model(make_model(config))
    code = "import sys, lengthwise as lw; lw.Run.open(sys.argv[1]).model; print(*sys.modules)"
    command = [sys.executable, "-c", code, str(run.path)]
    loaded = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded
