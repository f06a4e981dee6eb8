"""What people pass to functions: each form that would do does, every other is refused in a sentence."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lengthwise as lw
from lengthwise import arguments
from lengthwise.calibration.maps import AttentionMaps
from lengthwise.proof import Certificate
from lengthwise.settings.config import flat_settings, make_config

NO_NUMBERS = [None, 6.0, -1, "6", True, [], {}, [[6]], object(), np.float64(6), np.array(["6"])]
NO_PATHS = [None, 5, "", b"a", "a\0b", [], ["a"], object()]


@pytest.mark.parametrize(
    "many",
    [
        (3, 6),
        [3, np.int64(6)],
        {6, 3},
        range(3, 7, 3),
        np.array([3, 6]),
        np.array([3, 6], np.uint8),
        torch.tensor([3, 6]),
        (number for number in (3, 6)),
        {3: "", 6: ""}.keys(),
    ],
)
def test_numbers_may_come_in_any_collection(many):
    found = arguments.as_wholes("lengths", many)
    assert found == [3, 6]
    assert {type(number) for number in found} == {int}


@pytest.mark.parametrize("one", [6, np.int32(6), np.array(6), torch.tensor(6)])
def test_one_number_is_as_good_as_many(one):
    assert arguments.as_wholes("lengths", one) == [6]
    assert arguments.as_whole("samples", one) == 6


@pytest.mark.parametrize("given", NO_NUMBERS)
def test_what_is_no_number_is_refused(given):
    for convert, least in ((arguments.as_whole, 0), (arguments.as_wholes, 1)):
        with pytest.raises(
            lw.InputError, match=rf"lengths takes .* from {least} up, such as .*; got "
        ):
            convert("lengths", given)


def test_an_endless_range_is_not_listed():
    with pytest.raises(lw.InputError, match="lengths takes at most 10,000 values at once"):
        arguments.as_wholes("lengths", range(1, 10**12))


def test_what_was_given_is_shown_in_short():
    with pytest.raises(lw.InputError) as error:
        arguments.as_wholes("lengths", "9" * 1000)
    assert len(str(error.value)) < 160


@pytest.mark.parametrize("given", ["no", "", None, 2, 0.0, [True]])
def test_only_truth_values_are_flags(given):
    assert arguments.as_flag("force", np.bool_(True)) is True
    with pytest.raises(lw.InputError, match="force takes True or False; got "):
        arguments.as_flag("force", given)


@pytest.mark.parametrize("given", [None, "1", True, -0.5, float("nan"), float("inf"), [1.0]])
def test_numbers_are_finite(given):
    assert arguments.as_number("kappa_self", np.float32(0.5)) == 0.5
    with pytest.raises(lw.InputError, match="kappa_self takes a number from 0 up; got "):
        arguments.as_number("kappa_self", given)


@pytest.mark.parametrize("given", NO_PATHS)
def test_what_is_no_path_is_refused(given):
    with pytest.raises(lw.InputError, match="out takes a path, such as 'runs/a'; got "):
        arguments.as_path("out", given, "runs/a")


def test_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arguments.as_path("out", "~/a", "x") == tmp_path / "a"
    assert arguments.as_path("out", SimpleNamespace(path=Path("a")), "x") == Path("a")
    with pytest.raises(lw.InputError, match=r"path takes a file, such as '.*x.png'; .* is a "):
        arguments.as_file("path", tmp_path, "x.png")
    (tmp_path / "file").touch()
    with pytest.raises(lw.InputError, match=r"out takes a folder, such as .*file is a file"):
        arguments.as_folder("out", tmp_path / "file")


SETTINGS = {
    "seed": st.integers(0, 99),
    "device": st.sampled_from(["cpu", "auto"]),
    "training.max_steps": st.integers(1, 10**6),
    "training.learning_rate": st.floats(1e-8, 1.0),
    "training.initial": st.text(min_size=1).filter(lambda text: text.isprintable()),
    "evaluation.lengths": st.lists(st.integers(1, 99), min_size=1).map(tuple),
}


@pytest.mark.trains
@given(st.fixed_dictionaries({}, optional=SETTINGS))
def test_a_dictionary_sets_what_it_says(wanted):
    nested: dict = {}
    for key, value in wanted.items():
        *parts, last = key.split(".")
        place = nested
        for part in parts:
            place = place.setdefault(part, {})
        place[last] = value
    for form in (wanted, nested):
        found = flat_settings(
            make_config({"task": "addition"}, arguments.as_assignments("set", form))
        )
        for key, value in wanted.items():
            assert found[key] == (list(value) if isinstance(value, tuple) else value)


def test_numpy_numbers_set_as_well():
    given = {
        "seed": np.int64(3),
        "evaluation.lengths": np.array([6, 60]),
        "training.loss": 1e-05,
        "a": True,
    }
    assert arguments.as_assignments("set", given) == [
        "seed=3",
        "evaluation.lengths=[6, 60]",
        "training.loss=1e-05",
        "a=true",
    ]


@pytest.mark.parametrize(
    ("assigned", "wanted"),
    [
        ("lengths=60", (60,)),
        ("lengths=6, 60", (6, 60)),
        ("suites=carry", ("carry",)),
        ("suites=uniform,carry", ("uniform", "carry")),
        ("sizes=20x3", ("20x3",)),
        ("sizes=20x3,4", ("20x3", "4x4")),
    ],
)
def test_of_settings_that_take_several_one_will_do(assigned, wanted):
    name, _, _ = assigned.partition("=")
    values = {"task": "multiplication" if name == "sizes" else "addition"}
    found = make_config(values, [f"evaluation.{assigned}"])
    assert getattr(found.evaluation, name) == wanted
    assert found == make_config({**values, "evaluation": {name: wanted}})


@pytest.mark.parametrize(
    ("given", "written", "message"),
    [
        (None, {}, "task takes its name, such as 'addition', its class or its file; got None"),
        (3, {}, "got 3"),
        (Path("/"), {}, "got PosixPath"),
        ("settings.toml", {}, "got 'settings.toml'"),
        ("addtion", {}, "did you mean 'addition'"),
        ("addition", {"base": 99}, "base"),
        ("addition", {"base": "x"}, "base must be a whole number, got 'x'"),
        ("addition", {"alignment": "middle"}, "not 'middle'"),
        (
            "multi_addition",
            {"operands": 4},
            r"unknown argument 'operands'.*parameters=\{'operands': 4\}",
        ),
        (
            "multi_addition",
            {"parameters": {"operands": "many"}},
            "operands of multi_addition can't be",
        ),
    ],
)
def test_a_format_that_can_not_be_is_refused_in_a_sentence(given, written, message):
    with pytest.raises(lw.InputError, match=message):
        lw.Format.of_task(given, **written)


@pytest.mark.parametrize("width", ["x", None, (3, 4), 0, -1, 2.0, True])
@pytest.mark.parametrize("task", ["addition", "multiplication"])
def test_widths_are_whole_numbers_of_any_type(task, width):
    found = lw.Format.of_task(task)
    assert repr(found.at(np.int64(6))) == repr(found.at(6))
    with pytest.raises(lw.InputError, match="width takes a whole number from 1 up"):
        found.at(width)


@pytest.mark.parametrize("none", [(), [], {}, None])
def test_nothing_sets_nothing(none):
    assert arguments.as_assignments("set", none) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, "set takes text, such as 'training.max_steps=5', or several; got 5"),
        ([5], r"set takes text, .*; got \[5\]"),
        ({5: 5}, r"set takes settings by their names, .*; got \{5: 5\}"),
        ({"seed": None}, "seed takes a number, a text, True or False, or a list of them; got None"),
    ],
)
def test_other_settings_are_refused(given, message):
    with pytest.raises(lw.InputError, match=message):
        arguments.as_assignments("set", given)


# --- the public functions ---


@pytest.fixture
def forms(tiny_abc):
    """What may be passed for the calibrated run."""
    path = tiny_abc.path
    return [tiny_abc, tiny_abc.calibrated, path, str(path), path / "calibrated"]


def test_every_function_takes_a_run_or_its_path(tiny_abc, forms):
    for form in forms:
        curve = lw.evaluate(form, np.int64(9), samples=np.int64(4), suites="carry", seed=np.int8(3))
        assert [(s.length, s.n, s.suite, s.method) for s in curve] == [
            (9, 4, "carry", "calibrated")
        ]
        assert lw.prove(form).proven
        assert lw.Run.open(form).path == tiny_abc.calibrated.path


def test_attention_is_that_of_the_vanilla_model(tiny_abc):
    vanilla = tiny_abc.vanilla
    maps = lw.capture(vanilla)
    for form in (tiny_abc, vanilla.path, str(tiny_abc.path)):
        assert lw.capture(form).exact_match == maps.exact_match
        assert lw.calibrate(form) == tiny_abc.bias
    assert lw.calibrate(vanilla) == lw.calibrate(str(vanilla.path / "maps.safetensors"))


def test_a_bias_may_be_named_by_what_was_trained_with_it(tiny_abc, tiny_config, tmp_path):
    once = {"training.max_steps": 1, "retraining.max_steps": 1, "training.until": "max_steps"}
    for number, form in enumerate([tiny_abc, tiny_abc.calibrated, str(tiny_abc.path)]):
        run = lw.train(tiny_config, bias=form, out=str(tmp_path / str(number)), set=once)
        assert run.bias == tiny_abc.bias
    with pytest.raises(lw.InputError, match=r"vanilla has none; lw.calibrate"):
        lw.train(tiny_config, bias=tiny_abc.vanilla, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_saved_is_loaded_by_path_or_text(tiny_abc, tmp_path):
    for kind, thing in ((str, tiny_abc.bias), (Path, tiny_abc.bias), (str, tiny_abc.proof)):
        thing.save(kind(tmp_path / "file"))
        assert type(thing).load(kind(tmp_path / "file")) == thing
    tiny_abc.maps.save(str(tmp_path / "maps"))
    assert AttentionMaps.load(str(tmp_path / "maps")).knockout == tiny_abc.maps.knockout
    tiny_abc.curve.save(str(tmp_path / "results"))
    tiny_abc.curve.add_to(str(tmp_path / "results"))
    for name in ("results", "results/results.json"):
        assert lw.LengthCurve.load(str(tmp_path / name)).scores == tiny_abc.curve.scores
    assert lw.LengthCurve.load(tiny_abc).scores == tiny_abc.curve.scores
    assert tiny_abc.curve.plot(str(tmp_path / "a.png")) == tmp_path / "a.png"


def test_where_nothing_can_be_saved(tiny_abc, tmp_path):
    things = [tiny_abc.bias, tiny_abc.maps, tiny_abc.proof]
    for save in [thing.save for thing in things] + [tiny_abc.curve.plot, tiny_abc.maps.plot]:
        with pytest.raises(lw.InputError, match=r"path takes a file, .* is a folder"):
            save(tmp_path)
        with pytest.raises(lw.InputError, match=r"path takes a path, such as .*; got 5"):
            save(5)
    with pytest.raises(lw.InputError, match=r"got the name of a file, '.*curve.csv'"):
        tiny_abc.curve.save(tmp_path / "curve.csv")
    for load in (lw.CalibratedBias.load, AttentionMaps.load, Certificate.load):
        with pytest.raises(lw.InputError, match=r"can't read .*nothing"):
            load(tmp_path / "nothing")
        with pytest.raises(lw.InputError, match=r"path takes a file, such as .* is a folder"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda run: lw.evaluate(5),
            "run takes a run, or its folder, such as 'runs/addition'; got 5",
        ),
        (lambda run: lw.prove(None), "run takes a run, or its folder, .*; got None"),
        (lambda run: lw.capture([run]), r"run takes a run, or its folder, .*; got \[Run"),
        (lambda run: lw.calibrate(None), "maps takes what lw.capture returns, .*; got None"),
        (
            lambda run: lw.calibrate(run, policy="atuo"),
            "unknown policy 'atuo'; did you mean 'auto'",
        ),
        (lambda run: lw.calibrate(run, lines=3), "lines takes one of 'fewest', 'all'; got 3"),
        (lambda run: lw.calibrate(run, extra=-1), "extra takes a whole number from 0 up"),
        (lambda run: lw.evaluate(run, "60"), "lengths takes whole numbers .*; got '60'"),
        (lambda run: lw.evaluate(run, [[6]]), r"lengths takes whole numbers .*; got \[\[6\]\]"),
        (lambda run: lw.evaluate(run, 6, samples=1.5), "samples takes a whole number .*; got 1.5"),
        (lambda run: lw.evaluate(run, 6, suites=6), "suites takes text, .*; got 6"),
        (
            lambda run: lw.evaluate(run, 6, suites=[]),
            "suites takes at least one of 'uniform', 'carry'",
        ),
        (lambda run: lw.evaluate(run, 6, progress="no"), "progress takes True or False; got 'no'"),
        (
            lambda run: lw.evaluate(run, 6, samples=10**30),
            "samples must be at most 10000000, got 1000",
        ),
        (lambda run: lw.evaluate(run, 6, on_progress=1), "on_progress takes a function, .*; got 1"),
        (lambda run: lw.prove(run, keep="."), "keep takes a file, such as .*; . is a folder"),
        (lambda run: lw.train("copy", on_progress=1), "on_progress takes a function, .*; got 1"),
        (lambda run: lw.abc("copy", observer=1), "observer takes an observer, .*; got 1"),
        (lambda run: lw.LengthCurve([1]), r"scores takes a list of `Score`, .*; got \[1\]"),
        (lambda run: lw.prove(run, budget="1"), "budget takes a whole number .*; got '1'"),
        (lambda run: lw.train(None), "task takes a task's name, .*; got None"),
        (lambda run: lw.train(""), "task takes a task's name, .*; got ''"),
        (lambda run: lw.train("copy", length=4.5), "length takes a whole number .*; got 4.5"),
        (lambda run: lw.train("copy", seed="0"), "seed takes a whole number .*; got '0'"),
        (lambda run: lw.train("copy", method=3), "method takes text, such as 'rope'; got 3"),
        (
            lambda run: lw.train("copy", until=3),
            "until takes one of 'interpolated', 'proven'; got 3",
        ),
        (
            lambda run: lw.train("copy", until="prove"),
            "unknown until 'prove'; did you mean 'proven'",
        ),
        (lambda run: lw.train("copy", force="no"), "force takes True or False; got 'no'"),
        (lambda run: lw.train("copy", out=3), "out takes a path, .*; got 3"),
        (lambda run: lw.train("copy", bias=3), "bias takes what lw.calibrate returns, .*; got 3"),
        (
            lambda run: lw.train("copy", set={"seed": [None]}),
            "seed takes a number, a text, .*; got None",
        ),
        (lambda run: lw.abc("copy", lengths=0), "lengths takes whole numbers from 1 up, .*; got 0"),
        (lambda run: lw.abc("copy", prove="yes"), "prove takes True or False; got 'yes'"),
        (lambda run: run.solve(99), "expression takes text, such as '199'; got 99"),
        (lambda run: run.solve(["9"]), r"expression takes text, .*; got \['9'\]"),
        (lambda run: run.solve_many([9]), r"expressions takes text, such as '199', .*; got \[9\]"),
        (lambda run: lw.Run.open(None), "path takes a path, such as 'runs/addition'; got None"),
        (lambda run: lw.LengthCurve.load(3), "folder takes a path, .*; got 3"),
    ],
)
def test_what_cant_be_used_is_one_clear_sentence(tiny_abc, tmp_path, monkeypatch, call, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(lw.InputError, match=message):
        call(tiny_abc.calibrated)
    assert list(tmp_path.iterdir()) == []


def test_one_expression_is_as_good_as_many(tiny_abc):
    run = tiny_abc.calibrated
    assert run.solve_many("99") == run.solve_many(np.array(["99"])) == ["100"]


def test_calibrate_takes_the_settings_of_a_run(tiny_abc):
    """Where a run is given, what was set of it counts; maps alone say nothing of that."""
    run = lw.Run.open(tiny_abc.path / "vanilla", set=["calibration.policy=paper"])
    assert {line.track.segment for line in lw.calibrate(run).lines} == {"whole"}
    assert lw.calibrate(run, policy="auto") == lw.calibrate(lw.capture(run)) == tiny_abc.bias
