"""Faults of the machine amid a training: one clear error; the last good state comes to the same bits."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest
import torch

from lengthwise import files
from lengthwise.runs import folder as folders
from lengthwise.runs.folder import CHECKPOINT, LOCK, WEIGHTS, locked
from lengthwise.settings.config import make_config
from lengthwise.training.trainer import NotInterpolatedError, Trainer, train_run

_VALUES = {
    "task": "successor",
    "data": {"length": 3},
    "model": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32},
    "training": {
        **{"batch_size": 16, "max_steps": 40, "evaluate_every": 20, "checkpoint_every": 10},
        **{"validation_problems": 32, "exact_match": 1.0, "loss": 1e-6},
    },
}
CONFIG = make_config(_VALUES)


def finish(path):
    """Train to the end; the weights."""
    with pytest.raises(NotInterpolatedError):
        train_run(CONFIG, path, resume=True)
    return (path / WEIGHTS).read_bytes()


def at_step(monkeypatch, step, do):
    """Do something before a step."""
    real = Trainer.one_step

    def one_step(self):
        if self.step == step:
            do()
        real(self)

    monkeypatch.setattr(Trainer, "one_step", one_step)


@pytest.mark.trains
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES]
)
def test_a_disk_that_fails_at_a_checkpoint_leaves_the_one_before(tmp_path, monkeypatch, number):
    wanted = finish(tmp_path / "whole")
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        real = os.fsync

        def fail(descriptor):
            raise OSError(number, os.strerror(number))

        at_step(patch, 25, lambda: patch.setattr(files.os, "fsync", fail))
        with pytest.raises(OSError, match=os.strerror(number)) as error:
            train_run(CONFIG, path)
        assert str(path / CHECKPOINT) in str(error.value)
        assert files.os.fsync is not real
    assert torch.load(path / CHECKPOINT, weights_only=True)["step"] == 20
    assert not [*path.glob("*.part")]
    assert finish(path) == wanted


def test_a_folder_that_moves_amid_a_training_is_told_and_goes_on_there(tmp_path, monkeypatch):
    wanted = finish(tmp_path / "whole")
    path, new = tmp_path / "run", tmp_path / "moved"
    with monkeypatch.context() as patch:
        at_step(patch, 25, lambda: path.rename(new))
        with pytest.raises(OSError, match="is no longer there") as error:
            train_run(CONFIG, path)
    assert str(path) in str(error.value)
    assert not path.exists()
    assert finish(new) == wanted


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, monkeypatch):
    wanted = finish(tmp_path / "whole")
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 10**9)
    path = tmp_path / "run"
    at_step(monkeypatch, 25, lambda: os.utime(path / CHECKPOINT, (0, 0)))
    assert finish(path) == wanted


@pytest.mark.trains
def test_a_lock_of_a_process_that_died_is_nobodys(tmp_path):
    code = (
        "import os, pathlib, sys; from lengthwise.runs.folder import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert (tmp_path / "run" / LOCK).exists()
    with locked(tmp_path / "run"):
        pass


def test_a_lock_file_that_came_from_another_machine_holds_nobody(tmp_path):
    (tmp_path / LOCK).write_text("12345@elsewhere\n")
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text() == "12345@elsewhere\n"


def test_without_locks_a_training_comes_to_the_same(tmp_path, monkeypatch):
    wanted = finish(tmp_path / "whole")

    def fail(descriptor, blocking):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folders, "lock_descriptor", fail)
    assert finish(tmp_path / "run") == wanted
