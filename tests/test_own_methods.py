"""Methods of a user's own: from a file, a package, a class or an object; and what is said of bad ones."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import lengthwise as lw
from lengthwise import api
from lengthwise.bias import BIASES
from lengthwise.methods import Coupling
from lengthwise.model import POSITIONS
from lengthwise.problems.tokens import source_tokens, target_tokens
from lengthwise.runs.run import Run
from lengthwise.settings import own_methods
from lengthwise.settings.config import InputError
from lengthwise.settings.methods import METHODS
from lengthwise.settings.own_methods import chosen_method

DIGITS = '''
from dataclasses import dataclass
from typing import ClassVar

import torch

import lengthwise as lw


@dataclass(frozen=True)
class Digits(lw.Positions):
    """The column of every digit, as it is."""

    name: ClassVar[str] = "digits"
    paper: ClassVar[str] = "ours"
    needs = ("coordinates",)

    size: int = 40

    def __post_init__(self):
        if self.size < 2:
            raise ValueError(f"size must be at least 2, got {self.size}")

    def ids(self, tokens, drawn):
        return torch.where(tokens.known["c"], tokens.coordinates["c"] + 2, 0)[None]
'''
HALVES = '''
from dataclasses import dataclass

import torch

import lengthwise as lw
from lengthwise.bias import Causal


class Fading(Causal):
    def __init__(self, heads, rate):
        super().__init__(heads)
        self.rate = rate

    def dense(self, site, layer, layout, queries):
        found = super().dense(site, layer, layout, queries)
        return found - self.rate * torch.arange(found.shape[-1]).flip(0)


@dataclass(frozen=True)
class Halves(lw.Bias):
    """Later keys count more."""

    rate: float = 0.5

    def bias(self, heads):
        return Fading(heads, self.rate)
'''
FORMAT = """
import lengthwise as lw

class Turned(lw.Method):
    name = "turned"
    settings = {"data.input_order": "reversed", "model.positions": "rope"}
"""

SMALL = [
    *("model.width=12", "model.heads=3", "model.feed_forward=20", "device=cpu", "data.length=3"),
    *("training.exact_match=0", "training.loss=100", "training.evaluate_every=3"),
    *("training.batch_size=16", "training.validation_problems=16"),
]


@pytest.fixture(autouse=True)
def forgotten():
    """What a test names is not known to the next one."""
    yield
    for name in list(own_methods._OWN):
        own_methods.forget(name)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(DIGITS)
    return path


def test_a_file_trains_and_is_kept_beside_the_weights(file, tmp_path):
    out = tmp_path / "run"
    run = lw.train("addition", method=str(file), out=out, set=[*SMALL, "positions.size=30"])
    assert run.method == "digits"
    config = json.loads((out / "config.json").read_text())
    assert (config["model"]["positions"], config["positions"]) == ("digits", {"size": 30})
    assert run.model.ids.tables[0].weight.shape == (30, 12)
    assert (out / "method.py").read_text() == DIGITS
    assert len(config["files"]["method.py"]) == 64
    # Opened elsewhere, its code is not run: the file is asked for.
    own_methods.forget("digits")
    with pytest.raises(
        InputError, match=r"digits, a method of somebody's own, .* --method my_method"
    ):
        Run.open(out)
    assert "digits" not in POSITIONS
    assert lw.use_method(str(out / "method.py")) == "digits"
    assert Run.open(out).solve("12+3") == run.solve("12+3")
    # Another one than it was trained with is noticed.
    file.write_text(DIGITS.replace("+ 2", "+ 1"))
    with pytest.raises(
        InputError, match=r"whose file has changed since; take the one it was trained"
    ):
        Run.open(out, method=str(file))
    assert Run.open(out, method=str(out / "method.py")).method == "digits"
    (out / "method.py").write_text(DIGITS + "\n")
    with pytest.raises(
        InputError, match=r"method.py is not the file that its model was trained with"
    ):
        Run.open(out)


def test_a_class_and_an_object_hold_their_settings(file, tmp_path):
    kind = own_methods.load_class(str(file), (lw.Method,), "method")
    assert chosen_method(kind) == ['model.positions="digits"', 'model.bias="causal"']
    run = lw.train("addition", method=kind(size=20), out=tmp_path / "run", set=SMALL)
    assert run.config.positions == {"size": 20}
    own = lw.train("addition", method=Coupling(max_position=9), out=tmp_path / "b", set=SMALL)
    assert (own.method, own.config.positions["max_position"]) == ("coupling", 9)
    assert not (tmp_path / "b" / "method.py").exists()


def test_a_resumed_training_needs_the_file_and_goes_on(file, tmp_path):
    out = tmp_path / "run"
    lw.train("addition", method=str(file), out=out, set=SMALL)
    again = lw.train("addition", method=str(file), out=out, resume=True)
    assert again.method == "digits"
    with pytest.raises(InputError, match=r"was begun with model.positions=digits"):
        lw.train("addition", method="rope", out=out, resume=True)


def test_a_bias_and_a_format_of_a_users_own(tmp_path):
    (tmp_path / "halves.py").write_text(HALVES)
    run = lw.train(
        "addition",
        method=f"{tmp_path}/halves.py:Halves",
        out=tmp_path / "run",
        set=[*SMALL, "bias.rate=2"],
    )
    assert (run.method, run.config.bias) == ("Halves", {"rate": 2.0})
    dense = run.bias.dense("cross", 0, run.layout(2), range(2))
    assert dense[0, 0, -3:].tolist() == [-4.0, -2.0, 0.0]
    (tmp_path / "turned.py").write_text(FORMAT)
    config = api.settings("addition", method=tmp_path / "turned.py")
    assert (config.data.input_order, config.model.positions) == ("reversed", "rope")


def test_an_installed_package_declares_methods(file, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    points = {
        "digits": metadata.EntryPoint("digits", "mine:Digits", own_methods.GROUP),
        "broken": metadata.EntryPoint("broken", "no_such_module_here:Digits", own_methods.GROUP),
        "numbers": metadata.EntryPoint("numbers", "mine:Digits", own_methods.GROUP),
    }
    monkeypatch.setattr(own_methods, "from_packages", lambda group: points)
    run = lw.train("addition", method="digits", out=tmp_path / "run", set=SMALL)
    own_methods.forget("digits")
    # A person installed it: it may be loaded.
    assert Run.open(tmp_path / "run").solve("1+2") == run.solve("1+2")
    with pytest.raises(
        InputError, match=r"method 'broken' of the package .* can't be imported: Mod"
    ):
        chosen_method("broken")
    with pytest.raises(InputError, match="calls itself 'digits'"):
        chosen_method("numbers")
    with pytest.raises(InputError, match="unknown method 'digit'; did you mean 'digits'"):
        chosen_method("digit")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class Digits(\n", "mine.py, line 1: "),
        (
            DIGITS.replace("lw.Positions", "object"),
            "mine.py defines no method: a class that inherits",
        ),
        (
            DIGITS.replace("def ids", "def id"),
            "mine.py:Digits lacks ids, which every method defines",
        ),
        (DIGITS.replace('"digits"', '"rope"'), "'rope' is a method of the package's; call yours"),
        (
            DIGITS.replace('"digits"', '"my digits"'),
            "a name is letters, digits, - and _, got 'my dig",
        ),
        (
            DIGITS.replace('("coordinates",)', '("colour",)'),
            "needs is a tuple of 'segments', 'coordinates', 'lengths', or of none of them, got",
        ),
        (DIGITS.replace('("coordinates",)', '"lengths"'), "needs is a tuple of 'segments', "),
        (
            DIGITS.replace("@dataclass(frozen=True)\n", ""),
            "method Digits: size is no setting yet; write @dataclass(frozen=True) above the class",
        ),
        (
            DIGITS.replace("(frozen=True)", ""),
            "mine.py, line 10: TypeError: cannot inherit non-frozen",
        ),
        (
            DIGITS.replace("size: int = 40", "size: int = 1"),
            "positions of digits: size must be at le",
        ),
        (DIGITS.replace("size: int = 40", "size: int"), "positions of digits: size has no default"),
        (
            DIGITS.replace("= 40", "= 3"),
            "ids of digits positions are from 0 to 2; got some from 0 to 5",
        ),
        (
            DIGITS.replace("[None]", ""),
            "ids of digits positions are int64 [level, problem, position]",
        ),
    ],
)
def test_bad_methods_are_refused_in_one_sentence(text, message, file, tmp_path):
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        lw.train("addition", method=str(file), out=tmp_path / "run", set=SMALL)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["1.5", "true", "x", "[1]"])
def test_values_of_another_type_are_refused(value, file):
    with pytest.raises(InputError, match=r"positions.size: input should be a valid integer, got"):
        api.settings("addition", [f"positions.size={value}"], method=str(file))


def test_what_is_no_method_is_refused(file):
    for given in (3, int, ["rope"], lambda: 3):
        with pytest.raises(InputError, match="method"):
            chosen_method(given)
    with pytest.raises(InputError, match=r"can't read nowhere.py: No such file"):
        chosen_method("nowhere.py")
    with pytest.raises(InputError, match="unknown class 'Digit'; did you mean 'Digits'"):
        chosen_method(f"{file}:Digit")


def command(*arguments: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "lengthwise", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.trains
def test_commands_take_the_file(file, tmp_path):
    out, small = tmp_path / "run", [part for text in SMALL for part in ("--set", text)]
    done = command("train", "addition", "--method", file, "--out", out, *small)
    assert done.returncode == 0, done.stderr
    asked = command("solve", out, "12+3")
    assert asked.returncode == 2
    assert asked.stderr.count("\n") == 1
    assert "--method my_method.py" in asked.stderr
    named = command("solve", out, "12+3", "--method", file)
    assert named.returncode in (0, 1)
    scores = command("evaluate", out, "--lengths", "3", "--samples", "4", "--method", file)
    assert scores.returncode == 0, scores.stderr
    file.write_text(DIGITS.replace("return torch.where", "return 1 / 0 + torch.where"))
    broken = command("train", "addition", "--method", file, "--out", tmp_path / "b", *small)
    assert broken.returncode == 2
    assert f"{file}, line 25: ZeroDivisionError: division by zero" in broken.stderr
    assert "Traceback" not in broken.stderr


def test_the_packages_own_registries_are_left_as_they_were(file):
    before = [dict(known) for known in (METHODS, POSITIONS, BIASES)]
    lw.use_method(str(file))
    own_methods.forget("digits")
    assert [dict(known) for known in (METHODS, POSITIONS, BIASES)] == before


def test_every_class_of_ours_says_what_it_is():
    kinds = [scheme.method for scheme in POSITIONS.values() if scheme.method]
    kinds += [bias.method for bias in BIASES.values() if hasattr(bias, "method")]
    assert len(kinds) == 7
    for kind in kinds:
        assert issubclass(kind, lw.Method)
        assert kind.name in METHODS
        assert kind.paper
        assert all(len(number) == 10 for number in kind.arxiv.split(", "))
        assert set(kind.needs) <= {"segments", "coordinates", "lengths"}


def test_the_example_of_the_page_is_a_method(tmp_path):
    """docs/method.md, "Your own method"."""
    page = (Path(__file__).parent.parent / "docs" / "method.md").read_text("utf-8")
    (text,) = re.findall(r"^```python\n(# my_method.py\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    path = tmp_path / "my_method.py"
    path.write_text(text)
    run = lw.train(
        "addition", method=path, out=tmp_path / "run", set=[*SMALL, "positions.max_start=30"]
    )
    assert run.config.positions == {"size": 100, "max_start": 30}
    layout, method = run.layout(3, "answer"), run.config.position_method
    tokens = (
        source_tokens(layout),
        target_tokens(layout, layout.batch(np.zeros((1, 2, 4), int))[1][:, :-1]),
    )
    source, target = (method.ids(one, method.fixed(one.extent))[:, 0].tolist() for one in tokens)
    assert source == [[5, 4, 3, 2, 0, 5, 4, 3, 2], [1, 1, 1, 1, 2, 3, 3, 3, 3]]
    assert target == [[1, 2, 3, 4, 5], [5, 6, 6, 6, 6]]
    assert lw.evaluate(run, 20, samples=2).scores
    with pytest.raises(InputError, match="max_start must be from 1 to size - 1, got 100"):
        api.settings("addition", ["positions.max_start=100"], method=path)
