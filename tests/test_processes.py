"""One training on several processes: one of them lost, and gone on with on another number of them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lengthwise.runs.folder import WEIGHTS
from lengthwise.runs.run import Run
from lengthwise.settings.config import make_config
from lengthwise.training.trainer import NotInterpolatedError, train_run

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
# Which starts several processes only so; the device is our setting.
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2")
ACCELERATE = (*ACCELERATE, "--num_machines", "1", "--main_process_port", "0")
ACCELERATE = (*ACCELERATE, "--mixed_precision", "no", "--dynamo_backend", "no", "-m")

SETTINGS = {
    "task": "addition",
    "device": "cpu",
    "data": {"length": 3},
    "model": {"width": 16, "heads": 2, "layers": 1, "feed_forward": 32},
    "training": {"batch_size": 32, "evaluate_every": 20, "validation_problems": 64},
}


def settings(path, **training):
    """A small training as a settings file."""
    values = {**SETTINGS, "training": {**SETTINGS["training"], **training}}
    path.write_text(make_config(values).model_dump_json())
    return path


def start(launcher, *arguments, program="lengthwise"):
    """A command of ours, as two gloo processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", *launcher, str(program), *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def alone(file, path, **options):
    """The same training on this process."""
    config = make_config(json.loads(file.read_text()))
    with pytest.raises(NotInterpolatedError) as raised:
        train_run(config, path, **options)
    return raised.value.run


def rows(run):
    return [(row.step, row.loss, row.validation_loss) for row in map(_Row, run.metrics())]


class _Row:
    def __init__(self, values):
        vars(self).update(values)


def close(first, second):
    """Whether two trainings were the same, but for rounding."""
    assert [row[0] for row in rows(first)] == [row[0] for row in rows(second)]
    for one, other in zip(rows(first), rows(second), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    weights = load_file(first.path / WEIGHTS), load_file(second.path / WEIGHTS)
    for name in weights[0]:
        # Adam divides by the gradient's size, so where that is near zero rounding shows.
        torch.testing.assert_close(weights[0][name], weights[1][name], atol=2e-3, rtol=0)


@pytest.mark.trains
def test_a_batch_in_parts_trains_the_same(tmp_path):
    whole = alone(settings(tmp_path / "one.json", max_steps=60), tmp_path / "one")
    parts = settings(tmp_path / "four.json", max_steps=60, accumulate=4)
    close(alone(parts, tmp_path / "four"), whole)


@pytest.mark.slow
@pytest.mark.parametrize("first", [1, 2])
def test_another_number_of_processes_goes_on_with_the_same_problems(tmp_path, first):
    """From two processes to one and from one to two; the latter between two rows of metrics."""
    whole = settings(tmp_path / "whole.json", max_steps=80, checkpoint_every=50)
    undisturbed, path = alone(whole, tmp_path / "whole"), tmp_path / "run"
    if first == 2:
        cut = settings(tmp_path / "cut.json", max_steps=40)
        start(TORCHRUN, "train", cut, "--out", path).communicate(timeout=120)
        assert [row[0] for row in rows(Run.open(path))] == [20, 40]
        alone(whole, path, resume=True)
    else:

        def stop(metrics):
            if metrics.step == 60:
                raise KeyboardInterrupt

        config = make_config(json.loads(whole.read_text()))
        with pytest.raises(KeyboardInterrupt):
            train_run(config, path, on_progress=stop)
        assert torch.load(path / "checkpoint.pt", weights_only=True)["step"] == 50
        _, err = start(TORCHRUN, "train", whole, "--out", path, "--resume").communicate(timeout=120)
        assert "did not interpolate within 80 steps" in err
    close(Run.open(path), undisturbed)


@pytest.mark.slow
def test_processes_without_memory_to_share_train_to_the_same_bits(tmp_path):
    """Two that send each other their gradients."""
    file = settings(tmp_path / "settings.json", max_steps=40)
    apart = tmp_path / "apart.py"
    apart.write_text(
        "from pathlib import Path\n"
        "from lengthwise.cli.entry import main\n"
        "from lengthwise.training import shared_memory\n"
        "shared_memory._MEMORY = Path('/dev/null/nowhere')\n"
        "main()\n"
    )
    start(TORCHRUN, "train", file, "--out", tmp_path / "one").communicate(timeout=120)
    start(TORCHRUN[:-1], "train", file, "--out", tmp_path / "two", program=apart).communicate(
        timeout=120
    )
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    for name in first:
        assert torch.equal(first[name], second[name]), name
    close(Run.open(tmp_path / "two"), alone(file, tmp_path / "alone"))


@pytest.mark.slow
def test_three_processes_train_as_one(tmp_path):
    """Where there are fewer cores, they send each other their gradients."""
    file = settings(tmp_path / "settings.json", max_steps=40, batch_size=48, accumulate=2)
    three = (*TORCHRUN[:3], "3", "-m")
    _, err = start(three, "train", file, "--out", tmp_path / "three").communicate(timeout=120)
    assert "did not interpolate within 40 steps" in err, err
    close(Run.open(tmp_path / "three"), alone(file, tmp_path / "alone"))


@pytest.mark.slow
def test_accelerate_launch_trains_as_torchrun_does(tmp_path):
    file = settings(tmp_path / "settings.json", max_steps=40)
    for name, launcher in (("one", TORCHRUN), ("two", ACCELERATE)):
        _, err = start(launcher, "train", file, "--out", tmp_path / name).communicate(timeout=120)
        assert "did not interpolate within 40 steps" in err, err
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    for name in first:
        assert torch.equal(first[name], second[name]), name
    alone(file, tmp_path / "alone")
    other = load_file(tmp_path / "alone" / WEIGHTS)
    assert not all(torch.equal(first[name], other[name]) for name in first)  # they were two


@pytest.mark.slow
def test_a_killed_process_ends_the_others_with_one_line_and_a_good_checkpoint(tmp_path):
    """Two gloo processes, each killed at three moments of a training; it ends in the same bits."""
    steps, rng, path = 2000, random.Random(0), tmp_path / "run"
    file = settings(tmp_path / "settings.json", max_steps=steps, checkpoint_every=7)
    start(TORCHRUN, "train", file, "--out", tmp_path / "whole").communicate(timeout=120)
    for kill in range(6):
        before = stamp(path)
        process = start(TORCHRUN, "train", file, "--out", path, "--resume")
        until = time.monotonic() + 60
        while stamp(path) == before and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process_of(process.pid, kill % 2), signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        said = [line for line in err.splitlines() if line.startswith("lengthwise: ")]
        assert said == [
            f"lengthwise: one of the 2 processes that train {path} has gone, and the others end, too (its "
            f"last checkpoint is whole); --resume goes on, on as many processes or on others"
        ], err
        assert not (path / WEIGHTS).exists()
        assert 0 < torch.load(path / "checkpoint.pt", weights_only=True)["step"] < steps
    _, err = start(TORCHRUN, "train", file, "--out", path, "--resume").communicate(timeout=120)
    assert f"did not interpolate within {steps} steps" in err
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "run"))
    for name in first:
        assert torch.equal(first[name], second[name]), name


def stamp(run):
    """What changes with every checkpoint of a run."""
    file = run / "checkpoint.pt"
    return file.stat().st_mtime_ns if file.exists() else None


def process_of(launcher, rank):
    """The process of a rank that a launcher started (Linux)."""
    for process in Path("/proc").iterdir():
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == launcher and f"RANK={rank}".encode() in variables:
            return int(process.name)
    raise AssertionError(f"no process of rank {rank}")
