"""Parameters of tasks: one table of the settings, filled from what the task says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import ClassVar

import pytest

from lengthwise.api import settings
from lengthwise.proof.certificate import hashes
from lengthwise.runs.metrics import read_metrics
from lengthwise.runs.parts import make_bias
from lengthwise.runs.run import Run
from lengthwise.runs.weights import describe
from lengthwise.settings.config import Config, InputError, flat_settings, make_config, overlaid
from lengthwise.settings.files import load_config
from lengthwise.tasks import TASKS, Successor, make_task
from lengthwise.training.resuming import continued
from lengthwise.training.trainer import train_run

# The settings of a run that was written when parameters were fields: what it was, as far as not by default.
WRITTEN_BEFORE = """{
  "task": "multi_addition", "base": 5, "operands": 4, "factor": null, "seed": 0, "device": "auto",
  "attention": "auto", "decode": "auto",
  "data": {"length": 6, "width": null, "alignment": "natural", "input_order": "normal", "widths": "fixed",
    "distribution": "lengths", "frame": "none", "carry_fraction": 0.3, "drill": []},
  "model": {"width": 64, "heads": 8, "layers": 1, "feed_forward": 256, "dropout": 0.0},
  "files": {}
}"""


class Machine(Successor):
    """A successor whose start state and digits a text and two numbers might define."""

    name = "machine"
    parameters: ClassVar = {"machine": "carry", "states_more": 1, "seed": 2}

    def __init__(
        self, base: int | None = None, machine: str = "", states_more: int = 1, seed: int = 2
    ) -> None:
        super().__init__(base)
        self.machine, self.states_more, self.seed = machine, states_more, seed
        if machine == "refused":
            raise ValueError("no machine is called 'refused'")


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`machine` is a task, as one of a user's own."""
    make_task.cache_clear()
    monkeypatch.setitem(TASKS, "machine", Machine)
    yield
    make_task.cache_clear()


def test_they_are_filled_and_reach_the_task():
    assert make_config({"task": "multi_addition"}).parameters == {"operands": 3}
    assert make_config({"task": "multiply_by", "factor": 9}).make_task().states == 9
    assert Config(task="multiply_by").parameters == {"factor": 7}
    assert Config().parameters == {}
    assert make_config({"task": "machine"}).parameters == Machine.parameters
    task = make_config({"task": "machine"}, ["machine=a b", "parameters.states_more=4"]).make_task()
    assert isinstance(task, Machine)
    assert (task.machine, task.states_more, task.seed) == ("a b", 4, 2)


@pytest.mark.parametrize(
    ("values", "assignments"),
    [
        ({}, ["operands=4"]),
        ({}, ["parameters.operands=4"]),
        ({}, ["parameters={operands=4}"]),
        ({"operands": 4}, []),
        ({"operands": 4, "factor": None}, []),
        ({"parameters": {"operands": 4}}, []),
        ({"operands": 4, "parameters": {"operands": 4}}, []),
        ({"operands": 5}, ["parameters.operands=4"]),
        ({"parameters": {"operands": 5}}, ["operands=4"]),
        ({"parameters": {"operands": None}}, ["operands=5", "operands=4"]),
    ],
)
def test_every_way_to_give_one_means_the_same(values, assignments):
    config = make_config({"task": "multi_addition", **values}, assignments)
    assert config == Config(task="multi_addition", parameters={"operands": 4}, model=config.model)
    assert config.parameters == {"operands": 4}
    assert flat_settings(config)["parameters.operands"] == 4
    written = config.model_dump(mode="json")
    assert written["parameters"] == {"operands": 4}
    assert not written.keys() & {"operands", "factor"}
    assert make_config(written) == config


def test_every_file_that_gives_one_means_the_same(tmp_path):
    texts = {
        "top.toml": 'task = "multi_addition"\noperands = 4\n',
        "table.toml": 'task = "multi_addition"\n[parameters]\noperands = 4\n',
        "old.json": '{"task": "multi_addition", "operands": 4, "factor": null}',
        "new.json": '{"task": "multi_addition", "parameters": {"operands": 4}}',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    found = [settings(tmp_path / name) for name in texts]
    assert found == [make_config({"task": "multi_addition"}, ["operands=4"])] * 4
    assert len({hash(config) for config in found}) == 1


@pytest.mark.parametrize(
    ("values", "assignments", "message"),
    [
        (
            {"operands": 4, "parameters": {"operands": 5}},
            [],
            "operands=4 and parameters.operands=5 contradict each other; give one of them",
        ),
        ({}, ["parameters.operands=4", "operands=5"], "parameters.operands=4 and operands=5 contr"),
        ({"parameters": {"operads": 4}}, [], "[parameters] 'operads'; did you mean 'operands'?"),
        ({}, ["operads=4"], "unknown setting 'operads'; did you mean 'operands'?"),
        ({}, ["parameters.factor=4"], "multi_addition takes no factor; multiply_by does"),
        ({"task": "copy"}, ["parameters.x=4"], "unknown setting in [parameters] 'x'"),
        ({"parameters": 3}, [], "parameters is a table of names and values, got 3"),
        ({}, ["operands=0"], "operands of multi_addition takes a whole number from 1 up"),
        ({}, ["operands=true"], "operands of multi_addition takes a whole number from 1 up"),
        ({}, ["operands=3.0"], "operands of multi_addition takes a whole number from 1 up"),
        ({"task": "machine"}, ["machine=3"], "machine of machine takes text, such as 'carry'; got"),
        ({"task": "machine"}, ["machine=refused"], "no machine is called 'refused'"),
    ],
)
def test_what_can_not_be_one_is_refused(values, assignments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make_config({"task": "multi_addition", **values}, assignments)


def test_a_file_with_two_values_of_one_is_named(tmp_path):
    path = tmp_path / "twice.toml"
    path.write_text('task = "multi_addition"\noperands = 4\n[parameters]\noperands = 5\n')
    with pytest.raises(InputError, match=r"twice\.toml: operands=4 and parameters\.operands=5"):
        load_config(path)


def test_a_settings_name_is_never_taken_for_one():
    config = make_config({"task": "machine"}, ["seed=5", "parameters.seed=6"])
    assert (config.seed, config.parameters["seed"]) == (5, 6)


def test_a_text_may_be_that_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "settings").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "settings" / "counter.txt").write_text("beside the settings: a/b\n")
    (tmp_path / "here" / "counter.txt").write_text("in the working folder")
    path = tmp_path / "settings" / "machine.toml"
    path.write_text('task = "machine"\n[parameters]\nmachine = "counter.txt"\n')
    config = settings(path)
    assert config.parameters["machine"] == "beside the settings: a/b\n"
    told = settings(path, ["machine=./counter.txt"])
    assert told.parameters["machine"] == "in the working folder"
    # The settings hold the text; whatever it looks like, nothing is read again.
    (tmp_path / "config.json").write_text(json.dumps({**told.model_dump(), "files": {}}))
    (tmp_path / "in the working folder").write_text("another")
    assert settings(tmp_path / "config.json") == told
    (tmp_path / "settings" / "a.b").write_text("a.b")
    assert settings(path, {"machine": tmp_path / "settings" / "a.b"}).parameters["machine"] == "a.b"
    monkeypatch.chdir(tmp_path / "settings")
    (tmp_path / "settings" / "a.b").write_text("changed")
    kept = make_config({"task": "machine", "parameters": {"machine": "a.b"}})
    assert kept.parameters["machine"] == "a.b"
    assert settings(kept) == kept


@pytest.mark.parametrize("text", ["counter", "no/such.txt", "x" * 5000 + ".y", "a/b\n" * 3])
def test_a_text_that_names_no_file_is_the_text(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "counter").write_text("a name without a suffix is no path")
    config = settings("machine", {"machine": text})
    assert config.parameters["machine"] == text


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "machine.bin").write_bytes(b"\xff\xfe\0")
    with pytest.raises(InputError, match=r"parameters\.machine: .*machine\.bin: it is not UTF-8"):
        settings("machine", {"machine": tmp_path / "machine.bin"})


def test_going_on_changes_only_what_is_set(tmp_path):
    before = make_config({"task": "machine"}, ["states_more=4"])
    after = make_config({"task": "machine"}, ["machine=other"])
    assert overlaid(before, after).parameters == {"machine": "other", "states_more": 4, "seed": 2}
    assert settings(after).model_dump(exclude_unset=True)["parameters"] == {"machine": "other"}
    assert "parameters" not in make_config({"task": "machine"}).model_fields_set
    with pytest.raises(InputError, match=r"begun with parameters\.machine=carry; --resume can't"):
        continued(before, after, tmp_path)
    assert continued(before, make_config({"task": "machine"}), tmp_path) == before
    with pytest.raises(InputError, match=r"begun with task=machine; .* with task=addition"):
        continued(before, make_config({"task": "addition"}), tmp_path)


def test_a_run_of_before_is_the_same_run(tmp_path):
    """Its hashes, its fingerprint and what its weights say were computed by the version that wrote it."""
    (tmp_path / "config.json").write_text(WRITTEN_BEFORE)
    config = settings(tmp_path / "config.json")
    assert config == make_config({"task": "multi_addition"}, ["base=5", "operands=4"])
    assert continued(config, make_config({"task": "multi_addition"}, ["operands=4"]), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    run = Run(tmp_path, config, make_bias(config))
    assert run.fingerprint == "3817556e92afe35b"
    assert hashes(run)["model"] == (
        "ad933d218c7b30f80a3d2e38620b06b65aab00176a8625a3341c5f8a92fbc2a0"
    )
    described = describe(run.config, run.bias)
    assert described.startswith('{"task": "multi_addition", "base": 5, "operands": 4, "data.align')
    other = make_config({"task": "multiply_by"})
    assert hashes(Run(tmp_path, other, make_bias(other)))["model"] == (
        "1456d4b678b1d75b01b43d9835223a42bcac415628b4335b28130c150158c2df"
    )


@pytest.mark.trains
def test_a_training_of_before_goes_on(tmp_path):
    few = {
        "task": "multi_addition",
        "base": 2,
        "operands": 2,
        "device": "cpu",
        "data": {"length": 4},
        "model": {"width": 16, "heads": 2, "feed_forward": 16},
        "training": {"until": "max_steps", "max_steps": 2, "validation_problems": 8},
    }
    train_run(make_config(few), tmp_path / "run")
    file = tmp_path / "run" / "config.json"
    values = json.loads(file.read_text())
    written = {"task": values.pop("task"), "factor": None, **values.pop("parameters"), **values}
    file.write_text(json.dumps(written))
    now = make_config({"task": "multi_addition"}, ["operands=2", "training.max_steps=3"])
    run = train_run(now, tmp_path / "run", resume=True)
    assert [row.step for row in read_metrics(run)][-1] == 3
    kept = json.loads(file.read_text())
    assert (kept["parameters"], kept.get("operands")) == ({"operands": 2}, None)
    with pytest.raises(
        InputError, match=r"begun with parameters\.operands=2; --resume can't go on"
    ):
        train_run(make_config(few, ["operands=3"]), tmp_path / "run", resume=True)


def test_settings_show_those_that_were_set():
    shown = make_config({"task": "multi_addition"}, ["operands=4"])._repr_html_()
    assert "parameters.operands" in shown
    assert "parameters" not in make_config({"task": "multi_addition"})._repr_html_()


@pytest.mark.parametrize("turned", [False, True])
def test_a_table_and_a_name_that_say_two_things_contradict(turned):
    said = ["operands=4", "parameters={operands=3}"]
    with pytest.raises(InputError, match="contradict each other"):
        make_config({"task": "multi_addition"}, said[::-1] if turned else said)
    same = make_config({"task": "multi_addition"}, ["operands=4", "parameters={operands=4}"])
    assert same.parameters["operands"] == 4
