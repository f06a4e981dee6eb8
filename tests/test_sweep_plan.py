"""What a sweep consists of: cells from a file, their names and settings, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthwise.cli.entry import run as run_cli
from lengthwise.settings.config import InputError, flat_settings, make_config
from lengthwise.settings.methods import METHODS
from lengthwise.sweeps.grid import load_plan, make_plan, name_of

SHIPPED = sorted((Path(__file__).parents[1] / "configs" / "sweeps").glob("*.toml"))


def plan_of(tmp_path: Path, text: str):
    path = tmp_path / "sweep.toml"
    path.write_text(text)
    return load_plan(path)


def test_every_combination_is_a_cell_with_its_own_settings(tmp_path):
    plan = plan_of(
        tmp_path,
        """
        [grid]
        "model.width" = [32, 64]
        seed = [0, 3]
        method = ["rope", "alibi"]
        task = ["successor", "copy"]
        [settings]
        "training.max_steps" = 50
        [settings.evaluation]
        lengths = [4, 9]
        """,
    )
    # The oracle: loops, and what `make_config` makes of the same assignments.
    wanted = {}
    tasks, methods = ("successor", "copy"), ("rope", "alibi")
    for task, method, seed, width in itertools.product(tasks, methods, (0, 3), (32, 64)):
        own = [f"seed={seed}", f"model.width={width}", "training.max_steps=50"]
        own += ["evaluation.lengths=[4, 9]", *METHODS[method].assignments]
        name = f"task={task},method={method},seed={seed},model.width={width}"
        wanted[name] = make_config({"task": task}, own)
    assert {cell.name: cell.config for cell in plan.cells} == wanted
    assert all(make_config(cell.given) == cell.config for cell in plan.cells)
    assert len({cell.hash for cell in plan.cells}) == len(wanted)


def test_a_nested_table_means_the_same_as_dotted_keys(tmp_path):
    dotted = plan_of(tmp_path, '[grid]\n"model.width" = [32]\n"model.layers" = [1, 2]\n')
    nested = plan_of(tmp_path, "[grid.model]\nwidth = [32]\nlayers = [1, 2]\n")
    assert dotted.cells == nested.cells


def test_a_case_takes_the_place_of_the_lists_that_it_sets():
    tables = {
        "grid": {"seed": [0, 1], "model.width": [32, 64]},
        "case": [{"name": "plain"}, {"name": "deep", "model": {"layers": 4, "width": 48}}],
        "settings": {"model.layers": 1},
    }
    found = [(c.axes, c.config.model.layers, c.config.model.width) for c in make_plan(tables).cells]
    plain = [
        ({"case": "plain", "seed": seed, "model.width": width}, 1, width)
        for seed, width in itertools.product((0, 1), (32, 64))
    ]
    deep = [({"case": "deep", "seed": s, "model.width": 48}, 4, 48) for s in (0, 1)]
    assert found == plain + deep


def test_cases_need_no_grid():
    cells = make_plan({"case": [{"name": "a"}, {"name": "b", "seed": 1}]}).cells
    assert [(cell.name, cell.config.seed) for cell in cells] == [("case=a", 0), ("case=b", 1)]


def test_names_stay_the_same_when_the_sweep_grows():
    small = make_plan({"grid": {"seed": [1], "task": ["copy"]}})
    large = make_plan({"grid": {"task": ["successor", "copy"], "seed": [0, 1]}})
    own = small.cells[0]
    assert own in large.cells
    assert own.name == "task=copy,seed=1"


def test_what_set_how_a_model_is_computed_is_the_same_cell():
    first, second = (
        make_plan({"grid": {"seed": [0]}, "settings": {"device": device}}).cells[0]
        for device in ("cpu", "auto")
    )
    assert first.config != second.config
    assert first.hash == second.hash


VALUES = st.one_of(st.integers(), st.text(max_size=90), st.booleans(), st.lists(st.integers()))


@given(st.lists(st.tuples(VALUES, VALUES), min_size=2, max_size=6, unique_by=repr))
def test_names_are_those_of_folders_and_differ(points):
    names = [name_of({"case": one, "model.x": other}) for one, other in points]
    for name in names:
        assert 0 < len(name.encode()) <= 120
        assert not set(name) & set('/\\:*?"<>| \n\0')
        assert name.startswith("case=")
    # Values that print alike but differ in kind are told apart where cells are compared.
    texts = {f"{_text(one)},{_text(other)}" for one, other in points}
    assert len(set(names)) >= len(texts)


def _text(value: object) -> str:
    if isinstance(value, list):
        return "+".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


REFUSED = {
    "": "a sweep needs a [grid] with a list",
    "[grid]\n": "a sweep needs a [grid] with a list",
    "[grid]\nseed = []": "[grid] seed is empty",
    "[grid]\nseed = 3": "[grid] seed takes a list of values, such as [0, 1]; got 3",
    "[grid]\ntask = 'copy'": "[grid] task takes a list of values",
    "[grid]\nseed = [0, 1, 0]": "[grid] seed has 0 twice",
    "[grid]\nseed = [-1]": "cell seed=-1: seed takes a whole number from 0 up",
    "[grid]\ntask = ['adition']": "unknown task 'adition'; did you mean 'addition'?",
    "[grid]\nmethod = ['rop']": "unknown method 'rop'; did you mean 'rope'?",
    "[grid]\nseed = [0]\n[settings]\n'model.widht' = 3": "did you mean 'width'?",
    "[grid]\n'model.widht' = [3]": "unknown setting in [model] 'widht'",
    "[grid]\nseed = [0]\n[setings]\n": "unknown table 'setings'; did you mean 'settings'?",
    "[grid]\nseed = [0]\n[settings]\nseed = 1": "'seed' is in [grid] and in [settings]",
    "[[case]]\nseed = 1": "[[case]] 1 has no name",
    "[[case]]\nname = 'a'\n[[case]]\nname = 'a'\nseed = 1": "two cases are named 'a'",
    "[[case]]\nname = 'a'\n[[case]]\nname = 'b'": "case=a and case=b have the same settings",
    "case = 3": "[[case]] takes tables, each with a name; got 3",
    "[grid]\ncase = ['a']": "[grid] can't have 'case'",
    "[grid]\n'model.width' = [0]": "model.width",
    "[grid]\n'model.period' = [2, 3]": "model.period",
    "[grid]\nmethod = ['abc']\ntask = ['reverse']": "unknown task 'reverse'",
    "prove = 1\n[grid]\nseed = [0]": "prove takes True or False",
    "grid = ": "is not a file of a sweep",
    "[grid]\na = [1, 2]\n": "unknown setting 'a'",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items())
def test_what_is_wrong_is_said_in_one_line_before_anything_runs(text, message, tmp_path, capsys):
    file, out = tmp_path / "sweep.toml", tmp_path / "out"
    file.write_text(text)
    assert run_cli(["sweep", str(file), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(file) in err
    assert message in err
    assert not out.exists()


def test_a_sweep_that_nobody_could_watch_is_refused():
    lists = {f"training.{key}": list(range(1, 1001)) for key in ("batch_size", "max_steps")}
    with pytest.raises(InputError, match=r"at most 1,000,000 cells, this one 3,000,000"):
        make_plan({"grid": {**lists, "seed": [0, 1, 2]}})


def test_a_task_that_the_method_can_t_serve_is_refused_at_once():
    with pytest.raises(InputError, match="parity_classification is not local"):
        make_plan({"grid": {"task": ["parity_classification"], "method": ["abc"]}})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_sweeps_can_be_planned(path):
    cells = load_plan(path).cells
    assert len(cells) > 1
    assert "seed" in flat_settings(cells[0].config)
