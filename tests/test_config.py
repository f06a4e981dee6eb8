"""Settings: typed, unknown keys refused by name, with the nearest one offered."""

import re
from datetime import date
from pathlib import Path

import pytest
from pydantic import ValidationError

from lengthwise.settings.assignments import for_a_bias, refuse_idle, with_options
from lengthwise.settings.config import Config, InputError, flat_settings, make_config
from lengthwise.settings.files import load_config
from lengthwise.settings.sections import Settings
from lengthwise.tasks import TASKS

CONFIGS = Path(__file__).parent.parent / "configs"


def test_the_shipped_default_file_states_the_defaults():
    assert make_config(load_config(CONFIGS / "default.toml")) == Config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.name)
def test_every_shipped_file_is_valid(path):
    assert make_config(load_config(path)).task


def test_the_default_file_names_every_setting():
    def names(settings, prefix=""):
        for name in type(settings).model_fields:
            value = getattr(settings, name)
            if isinstance(value, Settings):
                yield from names(value, f"{prefix}{name}.")
            elif name == "parameters":
                yield from (key for task in TASKS.values() for key in task.parameters)
            else:
                yield name

    text = (CONFIGS / "default.toml").read_text()
    assert [name for name in names(Config()) if f"{name} =" not in text] == []


def test_assignments_change_nested_settings_and_keep_types():
    config = make_config(
        {"task": "addition"},
        [
            "model.width=128",
            "training.learning_rate = 1e-4",
            "evaluation.lengths=[6, 60]",
            "seed=3",
        ],
    )
    assert (config.model.width, config.training.learning_rate, config.seed) == (128, 1e-4, 3)
    assert config.evaluation.lengths == (6, 60)
    assert config.task == "addition"


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("task=adition", "unknown task 'adition'; did you mean 'addition'? known: addition, "),
        ("model.widht=3", "unknown setting in [model] 'widht'; did you mean 'width'?"),
        ("modle.width=3", "unknown setting 'modle'; did you mean 'model'?"),
        ("model.positions=sinusiodal", "did you mean 'sinusoidal'?"),
        ("retraining.positions=sinusiodal", "did you mean 'sinusoidal'?"),
        ("model.width=wide", "model.width: input should be a valid integer"),
        ("model.width=0", "model.width: input should be greater than or equal to 1, got 0"),
        ("data.length=0", "data.length: input should be greater than or equal to 1, got 0"),
        ("model.heads=3", "model: width must be even and a multiple of heads, got 64 and 3"),
        (
            "data.width=6",
            "data.width must be at least 7 for answers of successor at length 6, got 6",
        ),
        ("training.learning_rate=nan", "training.learning_rate: input should be"),
        ("seed=-1", "seed: input should be greater than or equal to 0, got -1"),
        ("base=37", "base: input should be less than or equal to 36, got 37"),
        ("device=tpu", "device: input should be 'auto', 'cpu' or 'cuda', got 'tpu'"),
        ("seed", "--set takes KEY=VALUE, got 'seed'"),
        ("=1", "--set takes KEY=VALUE, got '=1'"),
        ("data.length=true", "data: length can't be true"),
        ("task=[1]", "task: input should be a valid string"),
        ("seed=2024-01-01", "seed: input should be a valid integer"),
        ("evaluation.lengths=[]", "evaluation.lengths: tuple should have at least 1 item"),
        ("task=nxm", "task 'nxm' is called multiplication"),
        ("evaluation.suites=['hard']", "suites of successor are uniform and carry, not hard"),
        ("data.rows=3", "data.rows is of sheets; problems of successor have one row"),
        ("factor=3", "successor takes no factor; multiply_by does"),
        ("operands=3", "successor takes no operands; multi_addition does"),
        ("data.alignment=aligned", "data.alignment: input should be 'natural' or 'interleaved'"),
        ("data.input_order=back", "data.input_order: input should be 'normal' or 'reversed'"),
        ("data.widths=2", "data.widths: input should be 'fixed', 'varied' or 'rows', got 2"),
        ("data.distribution=uniform", "data.distribution: input should be 'lengths' or 'paper'"),
        ("evaluation.suites=[]", "evaluation.suites: tuple should have at least 1 item"),
    ],
)
def test_bad_settings_are_refused_in_one_line(assignment, message):
    with pytest.raises(InputError) as caught:
        make_config({}, [assignment])
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["task=multi_addition", "operands=6"], "from 2 to 5 in base 10, got 6"),
        (["task=multiply_by", "factor=1"], "factor of multiply_by must be from 2 to 1000, got 1"),
        (
            ["data.distribution=paper", "data.length=6"],
            "data.length must be 7 with the paper's distribution: operands below 2^20 have up to 7",
        ),
        (["data.distribution=paper", "base=2", "data.length=7"], "data.length must be 20"),
        (
            ["data.distribution=paper", "data.carry_fraction=0.3"],
            "data.carry_fraction must be 0 with the paper's distribution, whose operands are uniform",
        ),
        (["data.distribution=paper", "data.width=7"], "data.width must be at least 8"),
        (["data.distribution=paper", "base=0"], "base: input should be greater than or equal to 2"),
        (["retraining.positions=rope", "model.width=12"], "must be even, got 12 / 4"),
        (
            ["task=multiplication", "data.width=4"],
            "sheets of multiplication have data.columns and data.rows, no data.width",
        ),
        (
            ["task=multiplication", "data.frame=tokens"],
            "sheets of multiplication are written in one way: no alignment, order or frame",
        ),
        (
            ["task=multiplication", "evaluation.sizes=['20by3']"],
            "a size is written like 20x15, got '20by3'",
        ),
        (
            ["task=multiplication", "evaluation.suites=['carry']"],
            "suites of multiplication are uniform and hard, not carry",
        ),
        (["data.distribution=paper", "base=ten"], "base: input should be a valid integer"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(assignments, message):
    with pytest.raises(InputError) as caught:
        make_config({}, assignments)
    assert "\n" not in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("base", "length", "covered"), [(2, 20, 20), (10, 7, 6), (36, 4, 3)])
def test_the_papers_numbers_fix_the_length(base, length, covered):
    config = make_config({"task": "addition", "base": base, "data": {"distribution": "paper"}})
    assert (config.data.length, config.covered_length) == (length, covered)
    assert (config.width, config.data.carry_fraction) == (length + 1, 0)
    assert make_config(config.model_dump(mode="json")) == config


def test_a_task_has_defaults_of_its_own():
    own = TASKS["multi_addition"].settings["model"]
    config = make_config({"task": "multi_addition"})
    assert {name: getattr(config.model, name) for name in own} == own
    assert config.model.width == Config().model.width
    # What is given counts.
    config = make_config({"task": "multi_addition", "model": {"layers": 3}}, ["model.heads=2"])
    assert (config.model.layers, config.model.heads) == (3, 2)
    assert make_config({"task": "addition"}).model == Config().model


def test_an_assignment_below_a_value_is_refused():
    with pytest.raises(InputError, match="'seed' holds a value, not settings"):
        make_config({"seed": 1}, ["seed.x=1"])


@pytest.mark.parametrize("values", [[], "addition", {"seed": date(2024, 1, 1)}, {"data": []}])
def test_values_of_other_kinds_are_refused(values):
    with pytest.raises(InputError):
        make_config(values)


def test_settings_are_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        Config().seed = 3


def test_width_is_just_enough_for_every_answer():
    assert make_config({"task": "addition"}).width == 7
    assert make_config({"data": {"width": 12}}).width == 12


def test_retraining_changes_what_it_names_and_nothing_else():
    config = make_config({}, ["retraining.max_steps=7", "training.batch_size=32"])
    changed = config.for_retraining()
    assert (changed.training.max_steps, changed.training.batch_size) == (7, 32)
    assert changed.model.positions == "none"
    assert changed.data == config.data
    assert Config.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize(
    ("content", "message"),
    [("task = ", "is not a settings file"), ("\x00", "is not a settings file")],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path, content, message):
    path = tmp_path / "bad.toml"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_config(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"can't read .*missing\.toml: No such file"):
        load_config(tmp_path / "missing.toml")


@pytest.mark.parametrize(
    ("assignments", "wanted"),
    [
        (["training.max_steps=2"], {"training.max_steps": 2}),
        (["model.positions=rope"], {"model.positions": "rope", "training.max_steps": 6000}),
        (
            ["training.loss=0.5", "retraining.max_steps=3"],
            {"training.loss": 0.5, "training.max_steps": 3},
        ),
        (["training.exact_match=0.5", "retraining.exact_match=0.5"], {"training.exact_match": 0.5}),
    ],
)
def test_what_is_set_counts_for_a_training_with_a_bias(assignments, wanted):
    """Whatever the `retraining` part says by default, or in a file."""
    for values in ({}, {"retraining": {"max_steps": 6000, "positions": "none"}}):
        config = make_config(*for_a_bias(values, assignments)).for_retraining()
        flat = flat_settings(config)
        assert {key: flat[key] for key in wanted} == wanted


def test_a_file_that_sets_the_first_training_alone_means_the_second_too():
    values = {"training": {"max_steps": 5, "loss": 0.5}, "retraining": {"loss": 0.1}}
    config = make_config(*for_a_bias(values, [])).for_retraining()
    assert (config.training.max_steps, config.training.loss) == (5, 0.1)
    assert values == {"training": {"max_steps": 5, "loss": 0.5}, "retraining": {"loss": 0.1}}


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match=r"training\.loss=1 and retraining\.loss=2 contradict"):
        for_a_bias({}, ["training.loss=1", "retraining.loss=2"])
    with pytest.raises(InputError, match=r"model\.bias=alibi can't be set beside a bias"):
        for_a_bias({}, ["model.bias=alibi"])
    with pytest.raises(InputError, match=r"length 4 and data\.length=5 contradict each other"):
        with_options(["data.length=5"], data__length=4)
    assert with_options(["data.length=4"], data__length=4, seed=None) == ["data.length=4"] * 2


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (
            ["model.window=2"],
            "model.window counts only with model.bias=window; here that is 'causal'",
        ),
        (["model.period=2"], "model.period counts only with model.positions=cyclic"),
        (
            ["calibration.kappa_self=1"],
            "calibration.kappa_self counts only with calibration.policy=paper",
        ),
    ],
)
def test_a_setting_that_would_change_nothing_is_refused(assignments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        refuse_idle(make_config({}, assignments), assignments)
    others = [
        *assignments,
        "model.bias=window",
        "model.positions=cyclic",
        "calibration.policy=paper",
    ]
    refuse_idle(make_config({}, others), others)


@pytest.mark.parametrize(("base", "length"), [(2, 14), (3, 9), (4, 7), (5, 6), (10, 6), (36, 6)])
def test_small_bases_train_on_more_digits(base, length):
    """So that there are ten thousand numbers; fewer are learned by heart."""
    assert make_config({"task": "addition", "base": base}).data.length == length
    assert max(base**length, 10**6) >= 10_000 > base ** (length - 1) or length == 6
    assert make_config({"task": "addition", "base": base, "data": {"length": 3}}).data.length == 3
