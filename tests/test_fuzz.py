"""Inputs that nobody would write: refused in one line, or taken for what they say. See fuzz_helpers.py."""

from __future__ import annotations

import random

import pytest

from fuzz_helpers import CORPUS, KINDS, inputs, try_one
from lengthwise.cli import entry
from lengthwise.training.trainer import Trainer

# Inputs of all kinds: in the tests of every day, and in those that take longer.
FEW, MANY = 3_000, 100_000


def fuzz(name, count, folder):
    kind, taken = KINDS[name], 0
    for number, data in enumerate(inputs(kind, name, count)):
        try:
            taken += try_one(kind, data, folder)
        except Exception as error:
            raise AssertionError(
                f"{name}, input {number}: {type(error).__name__}: {error}; it is {data[:500]!r}"
            ) from error
    return taken


@pytest.mark.parametrize("name", KINDS)
def test_good_inputs_are_taken(name, tmp_path):
    for data in KINDS[name].seeds:
        assert try_one(KINDS[name], data, tmp_path), data


@pytest.mark.parametrize("name", KINDS)
def test_changed_inputs_are_refused_or_right(name, tmp_path):
    fuzz(name, round(FEW * KINDS[name].share), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_changed_inputs_are_refused_or_right(name, tmp_path):
    fuzz(name, round(MANY * KINDS[name].share), tmp_path)


def test_the_corpus_is_of_kinds_that_there_are():
    assert {path.name for path in CORPUS.iterdir()} <= set(KINDS)
    assert sum(kind.share for kind in KINDS.values()) >= 1


# --- command lines ---

_LINES = [
    ["train", "none.toml", "--seed", "1", "--set", "training.max_steps=3", "--out", "run"],
    ["train", "addition", "--bias", "none.jsonl", "--set", "seed=3", "--lengths", "6,60"],
    ["abc", "none.ini", "--length", "4", "--set", "model.width=32", "--no-prove", "--force"],
    ["calibrate", "none", "--out", "bias.jsonl", "--json"],
    ["evaluate", "none", "--lengths", "1-60", "--samples", "10", "--seed", "0", "--json"],
    ["evaluate", "none", "--from", "0", "--to", "100", "--sizes", "3x3"],
    ["prove", "none", "--json"],
    ["verify", "none", "certificate.json"],
    ["report", "none", "--out", "page.html"],
    ["solve", "none", "12+3", "--show-work", "--json"],
    ["solve", "none", "--file", "none.txt"],
    ["explain", "none.jsonl"],
    ["convert", "a.t", "b.t", "--task", "addition", "--out", "bias.jsonl"],
    ["convert", "a.ckpt", "--config", "a.ini", "--out", "run"],
    ["config", "addition", "--json"],
    ["check-task", "none.toml"],
    ["sweep", "none.toml", "--out", "sweep", "--workers", "2", "--dry-run"],
    ["bench", "nothing"],
    ["--version"],
]
_WORDS = [
    *("--help", "--", "-", "", "-5", "--set", "--seed", "--json", "--out", "--device", "--resume"),
    *(
        "--force",
        "none",
        "seed=" + "1" * 5000,
        "a=" + "[" * 500,
        "=",
        "1e999",
        "\udcd4",
        "x" * 3000,
    ),
    *("seed=1\nbase=2", "../../x", "/dev/null", "model.bias=\udcd4", "--lengths=0", "--samples=-1"),
    *("--lengths", "1-99999999999", "٣", "--set=a.b.c.d=1", "--attention", "cuda", "\x1b[31m"),
    "--set=positions.\udcd4=1",
]


def _changed_line(rng):
    line = [*rng.choice(_LINES)]
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(line) + 1)
        new = [rng.choice(_WORDS) if rng.random() < 0.7 else rng.choice(rng.choice(_LINES))]
        line[place : place + rng.randint(0, 1)] = new if rng.random() < 0.8 else []
    return line


def _fuzz_lines(count, capfd):
    rng, codes = random.Random("fuzz lines"), set()
    for _ in range(count):
        line = _changed_line(rng)
        if line[:1] in (["demo"], ["reproduce"], ["export"]):
            continue
        code = entry.run(line)
        out, err = capfd.readouterr()
        codes.add(code)
        assert code in (0, 1, 2), line
        assert "Traceback" not in out + err, line
        if code == 2 and err.strip():
            assert err.splitlines()[-1].startswith("lengthwise: "), (line, err)
            assert "\x1b" not in err
    assert codes >= {0, 2}


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A folder to work in, where nothing is trained."""

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Trainer, "train", stop)
    monkeypatch.setattr("sys.stdin", None)


@pytest.mark.trains
def test_command_lines_end_in_one_line(elsewhere, capfd):
    _fuzz_lines(100, capfd)


@pytest.mark.slow
def test_many_command_lines_end_in_one_line(elsewhere, capfd):
    _fuzz_lines(800, capfd)
