"""Files from strangers: refused fast, in bounded memory, and nothing in them is run."""

from __future__ import annotations

import json
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from lengthwise.cli import entry
from lengthwise.files import MOST_SETTINGS, from_json, from_toml, read_bytes, read_text
from lengthwise.paper_repo.tensors import load_tensors
from lengthwise.runs.folder import CONFIG, METHOD_CODE, WEIGHTS
from lengthwise.runs.run import Run
from lengthwise.settings.config import InputError, make_config
from lengthwise.settings.files import load_config
from lengthwise.sweeps.grid import load_plan
from lengthwise.tasks.given import settings_of
from lengthwise.tasks.kept import SOURCE, TASK

SAMPLE = Path(__file__).parent / "samples" / "sorting"


@pytest.fixture
def folder(tmp_path):
    """A run of somebody else's."""
    return shutil.copytree(SAMPLE, tmp_path / "run")


def change(folder, **others):
    values = json.loads((folder / CONFIG).read_text())
    for key, value in others.items():
        part, _, name = key.partition("__")
        if name:
            values[part][name] = value
        else:
            values[part] = value
    (folder / CONFIG).write_text(json.dumps(values))


class Trap:
    """What makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["bias.t", "model.ckpt", "weights.pt", "weights.pth"])
@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_dressed_as_tensors_is_refused_and_not_run(tmp_path, name, legacy):
    path = tmp_path / name
    torch.save(
        {"model_state_dict": Trap(tmp_path / "sprung")},
        path,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(InputError, match="nothing else is read"):
        load_tensors(path)
    assert entry.run(["convert", str(path), "--out", str(tmp_path / "bias.jsonl")]) == 2
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_torch_says_of_pickles_that_are_refused_is_not_said(tmp_path):
    path = tmp_path / "bias.t"
    path.write_bytes(pickle.dumps({"a": print}, protocol=4))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        with pytest.raises(InputError, match="nothing else is read"):
            load_tensors(path)
    assert said == []


def test_a_pickle_dressed_as_weights_is_refused_and_not_run(folder, tmp_path):
    torch.save({"a": Trap(tmp_path / "sprung")}, folder / WEIGHTS)
    with pytest.raises(InputError, match="does not hold this run's weights"):
        Run.open(folder)
    assert not (tmp_path / "sprung").exists()


def lying(header, length=None, data=b""):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(text) if length is None else length) + text + data


@pytest.mark.parametrize(
    "content",
    [
        lying({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, length=2**63),
        lying({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, length=10**8),
        lying({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        lying({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}, data=b"0" * 8),
        lying({"a": {"dtype": "F32", "shape": [2**33] * 2, "data_offsets": [0, 0]}}),
        lying({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}, data=b"0" * 8),
        lying({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, data=b"0" * 8),
        lying({"__metadata__": {"lengthwise": "[" * 5000}}),
        lying({"__metadata__": {"lengthwise": "3"}}),
        lying(b"[" * 100_000),
    ],
    ids=["2^63", "10^8", "4-TiB", "beyond", "overflow", "negative", "backwards", "deep", "3", "nested"],
)  # fmt: skip
def test_a_header_that_lies_is_refused(folder, content):
    (folder / WEIGHTS).write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors does not"):
        _ = Run.open(folder).model


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("model__width", 2**40), ("model__layers", 10**12), ("model__encoder_layers", 10**12)),
        *(("model__feed_forward", 10**15), ("model__layers", 1000)),
        ("files", {"../../../etc/passwd": "0"}),
        ("files", {"/dev/zero": "0"}),
        ("files", {"bias.jsonl": 3}),
        ("files", ["bias.jsonl"]),
        ("task", "../../evil"),
        ("model__positions", "os.system"),
    ],
)  # fmt: skip
def test_settings_of_a_stranger_are_refused_before_they_take_memory(folder, setting, value):
    # Without what the weights say of themselves, their shapes must do.
    from safetensors.torch import load_file, save_file

    save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
    change(folder, **{setting: value})
    with pytest.raises(InputError) as error:
        _ = Run.open(folder).model
    assert "\n" not in str(error.value)


# --- bombs ---

DEEP = 100_000


@pytest.mark.parametrize("text", ["[" * DEEP, '{"a":' * DEEP, "[" * 70 + "]" * 70])
def test_json_that_is_nested_deeply_is_refused(text):
    with pytest.raises(ValueError, match="nested more than 64 levels deep"):
        from_json(text)
    assert from_json("[" * 60 + "]" * 60)


@pytest.mark.parametrize(
    "text",
    [
        *("a = " + "[" * DEEP, "a = " + "{a=" * DEEP, "[" + "a." * DEEP + "a]", "a." * DEEP + "a = 1"),
        *("[[" + '"a" . ' * DEEP + "a]]", "a = " + "[" * 70 + "]" * 70, ".".join("a" * 70) + " = 1"),
    ],
)  # fmt: skip
def test_toml_that_is_nested_deeply_is_refused(text):
    with pytest.raises(ValueError, match="nested more than 64 levels deep"):
        from_toml(text)


READERS = [
    ("config.json", load_config),
    ("settings.toml", load_config),
    ("sweep.toml", load_plan),
]


@pytest.mark.parametrize(("name", "read"), READERS)
def test_a_gigabyte_of_settings_is_refused_unread(tmp_path, monkeypatch, name, read):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 30)  # takes no room on the disk
    with pytest.raises(InputError, match=f"more than {MOST_SETTINGS >> 20} MiB"):
        read(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="there is no such device")
def test_a_file_without_an_end_is_read_no_further(tmp_path):
    (tmp_path / "settings.toml").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="more than 8 MiB"):
        load_config(tmp_path / "settings.toml")
    with pytest.raises(ValueError, match="more than 1 MiB"):
        read_bytes("/dev/zero", 1 << 20)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_a_pipe_in_a_run_is_not_waited_for(folder):
    (folder / CONFIG).unlink()
    os.mkfifo(folder / CONFIG)
    with pytest.raises(InputError, match="is a pipe, not a file"):
        Run.open(folder)


@pytest.mark.slow
def test_bombs_end_in_bounded_memory(tmp_path):
    """A command with 3 GiB to live in, of which torch takes one, meets them all."""
    bombs = {
        "deep.toml": "seed = " + "[" * 5_000_000,
        "keys.toml": "a." * 4_000_000 + "a = 1",
        "flat.toml": "x = [" + "[]," * 200_000 + "]",
        "deep.json": "[" * 8_000_000,
        "flat.json": "[" + "{}," * 2_000_000 + "{}]",
    }
    for name, text in bombs.items():
        (tmp_path / name).write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "lengthwise", "train", name, "--out", "run"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (3 << 30, 3 << 30)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), (name, done.stderr[-500:])
        assert name in done.stderr or "table" in done.stderr
    assert not (tmp_path / "run").exists()


# --- code, paths and names ---


def test_code_in_a_run_folder_is_never_run(folder, tmp_path):
    trap = f"import os; os.mkdir({str(tmp_path / 'sprung')!r})\n"
    for name in (METHOD_CODE, SOURCE, "conftest.py", "__init__.py", "sitecustomize.py"):
        (folder / name).write_text(trap)
    (folder / TASK).write_text(
        json.dumps({"name": "mine", "class": "Mine", "rule": "", "source": "0"})
    )
    assert Run.open(folder).solve("3,1,2") == "1,2,3"
    for name in ("task", "model__positions", "model__bias"):
        changed = shutil.copytree(folder, tmp_path / f"changed-{name}")
        change(changed, **{name: "mine"})
        with pytest.raises(InputError, match="mine"):
            Run.open(changed)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    "where", ["/etc/passwd", "../../../../etc/passwd", "/dev/zero", "/dev/stdin"]
)
def test_problems_of_a_stranger_may_lie_elsewhere_but_say_nothing_of_it(tmp_path, where):
    values = {"name": "mine", "file": where, "digest": "0" * 16, "base": 10, "segments": ["a"]}
    values |= {"growth": 0, "length": 3, "lengths": [1, 2], "example": ["1", "1"]}
    (tmp_path / TASK).write_text(json.dumps({"name": "mine", "rule": "0", "problems": values}))
    (tmp_path / CONFIG).write_text(json.dumps({"task": "mine"}))
    with pytest.raises(InputError) as error:
        Run.open(tmp_path)
    assert "root:" not in str(error.value)


def test_a_lock_that_leads_elsewhere_makes_no_file_there(folder, tmp_path):
    from lengthwise.runs.folder import LOCK, locked

    (folder / LOCK).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="is a link"), locked(folder):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_terminal_is_not_commanded_by_a_file(tmp_path, capfd):
    path = tmp_path / "evil\x1b]0;owned\x07.toml"
    path.write_text('task = "\\u001b[2Jaddition"')
    assert entry.run(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    err = capfd.readouterr().err
    assert "\x1b" not in err
    assert err.count("\n") == 1


TABLE = """name = "t"
digits = "01"
segments = ["a"]
growth = {growth}
example = ["1", "1"]
transitions.s = {{ 0 = "0 s", 1 = "1 s" }}
"""


@pytest.mark.parametrize("growth", ["1000000000000", "true", "-1", '"x"', "1e9"])
def test_a_table_that_grows_without_end_is_refused(tmp_path, growth):
    path = tmp_path / "t.toml"
    path.write_text(TABLE.format(growth=growth))
    with pytest.raises(InputError, match="growth"):
        settings_of(path)
    assert make_config({}).task not in ("t",)
    assert "growth" in read_text(path)
