"""Shared settings and fixtures.

Fixtures, from cheap to dear:

- `call`: runs a command; gives its exit code, stdout and stderr.
- `tiny_values`: nested settings (a fresh dict) of a successor model that trains in 2 to 5 seconds.
- `tiny_config`: the same as a frozen `Config`; change it with `make_config(tiny_values, [...])`.
- `tiny_file`: the same as a settings file.
- `tiny_abc` (session): the whole method on `tiny_config`, once for the whole test run; an `Outcome`
  whose folder lives until the end. Read it, copy it (`shutil.copytree(tiny_abc.path, ...)`), but
  never write into it.
- `multiplication` (session): the proven run that tests/samples/multiplication keeps, in a folder that lives
  until the end. Read only, too.
- `binary` (session): a `Run` of addition in base 2, its bias by hand, trained in seconds and proven. Read
  only, too.
"""

from __future__ import annotations

import copy
import itertools
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from lengthwise.bias import CalibratedBias, Line, Track
from lengthwise.cli import entry
from lengthwise.pipeline import run_abc
from lengthwise.pipeline.outcome import Outcome
from lengthwise.runs.run import Run
from lengthwise.settings.config import Config, make_config
from lengthwise.training.trainer import train_run

# Deterministic, without deadlines: a slow machine must not turn a property into a failure.
settings.register_profile(
    "lengthwise",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("fast", settings.get_profile("lengthwise"), max_examples=10)
settings.load_profile("lengthwise")

# One thread: the models are tiny, and sums then have one order.
torch.set_num_threads(1)

# Fixtures that train models, for the whole test run or for a file.
_TRAINING = {"tiny_abc", "binary", "measured", "proven"}


@pytest.hookimpl(tryfirst=True)  # before tests are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark `trains` whatever needs models that a fixture trains."""
    for item in items:
        if _TRAINING.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("trains")


_TINY: dict[str, Any] = {
    "task": "successor",
    "seed": 1,
    "device": "cpu",
    "data": {"length": 4},
    "model": {"width": 32, "heads": 4, "layers": 2, "feed_forward": 64},
    "training": {
        "batch_size": 64,
        "learning_rate": 5e-3,
        "warmup_steps": 20,
        "evaluate_every": 50,
        "validation_problems": 256,
        "max_steps": 3000,
    },
    "retraining": {"cooldown_steps": 100, "max_steps": 2000},
    "calibration": {"problems": 128},
    "evaluation": {"lengths": [4, 30, 100], "samples": 100, "long_samples": 100},
}


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command; returns exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = entry.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def tiny_values() -> dict[str, Any]:
    """Nested settings of a successor model that trains in a few seconds; yours to change."""
    return copy.deepcopy(_TINY)


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Settings of a successor model that trains in a few seconds."""
    return make_config(_TINY)


@pytest.fixture(scope="session")
def tiny_abc(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Outcome:
    """The whole method on `tiny_config`: trained, calibrated, retrained, evaluated. Read only."""
    return run_abc(tiny_config, tmp_path_factory.mktemp("abc") / "run")


@pytest.fixture
def tiny_file(tiny_config: Config, tmp_path: Path) -> Path:
    """`tiny_config` as a settings file."""
    path = tmp_path / "tiny.json"
    path.write_text(tiny_config.model_dump_json())
    return path


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Addition in base 2, calibrated by hand; trains in seconds."""
    config = make_config(
        {
            "task": "addition",
            "base": 2,
            "data": {"length": 5},
            "model": {"width": 32, "heads": 4, "layers": 2, "feed_forward": 64},
            "training": {
                "batch_size": 64,
                "learning_rate": 5e-3,
                "warmup_steps": 20,
                "evaluate_every": 50,
                "validation_problems": 64,
            },
            "retraining": {"cooldown_steps": 100},
        }
    )
    lines = [
        Line(Track.along(segment, offset), head)
        for head, (segment, offset) in enumerate(itertools.product("ab", (0, -1)))
    ]
    lines += [Line("answer[c-1]", head) for head in range(4)]
    path = tmp_path_factory.mktemp("binary") / "run"
    return train_run(config.for_retraining(), path, bias=CalibratedBias("addition", 4, lines))


@pytest.fixture(scope="session")
def multiplication(tmp_path_factory) -> Run:
    """A small model of multiplication, proven.

    Made by `lengthwise abc multiplication --set model.width=48 --set model.feed_forward=192`.
    """
    folder = tmp_path_factory.mktemp("sheets") / "multiplication"
    shutil.copytree(Path(__file__).parent / "samples" / "multiplication", folder)
    return Run.open(folder)
