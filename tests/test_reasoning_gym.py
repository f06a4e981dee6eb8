"""Our tasks as data sets of reasoning-gym, and theirs put to our models."""

import re
import sys
from pathlib import Path

import pytest

import lengthwise as lw
from lengthwise.interop import reasoning_gym as ours
from lengthwise.tasks import ALL_TASKS, WORKSHEETS

SAMPLES = Path(__file__).parent / "samples"


@pytest.fixture(scope="module")
def gym():
    theirs = pytest.importorskip("reasoning_gym")
    ours.register()
    return theirs


def test_every_task_is_registered_once(gym):
    names = ours.register()
    assert sorted(names) == sorted(f"lengthwise_{task}" for task in ALL_TASKS)
    assert ours.register() == names
    assert {*names} <= {*gym.factory.DATASETS}
    assert all(gym.factory.has_curriculum(name) for name in names)


@pytest.mark.trains
@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("task", ALL_TASKS)
def test_items_are_problems_of_ours(gym, task, split):
    data = gym.create_dataset(f"lengthwise_{task}", seed=4, size=4, split=split)
    items = list(data)
    assert len(items) == len(data) == 4
    assert (
        data[2]
        == items[2]
        == gym.create_dataset(f"lengthwise_{task}", seed=4, size=100, split=split)[2]
        | {"metadata": items[2]["metadata"]}
    )
    for item in items:
        about = item["metadata"]
        assert about["source_dataset"] == f"lengthwise_{task}"
        assert about["expression"] in item["question"]
        named = {name: about[name] for name in ALL_TASKS[task].parameters}
        worked = lw.problems(task, set={"base": about["base"], **named}).worked(about["expression"])
        assert worked.answer == item["answer"]
        assert [*worked.rows] == about["trace"]
        assert (about["sheet"] is not None) == (task in WORKSHEETS)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_only_the_exact_answer_scores(gym, task):
    data = gym.create_dataset(f"lengthwise_{task}", seed=1, size=1)
    (item,) = data
    assert data.score_answer(item["answer"], item) == 1.0
    assert data.score_answer(f" {item['answer']}\n", item) == 1.0
    for wrong in (f"0{item['answer']}", f"{item['answer']}0", f"it is {item['answer']}", "", None):
        assert data.score_answer(wrong, item) == 0.0


def test_bases_and_parameters_are_said(gym):
    data = gym.create_dataset("lengthwise_base_conversion", seed=1, size=1, base=16, to=3)
    asked, about = data[0]["question"], data[0]["metadata"]
    assert "in base 3 (all numbers are in base 16)" in asked
    number = int(about["expression"], 16)
    assert int(data[0]["answer"], 3) == number
    # The example is right, too: its own is of other bases.
    example = re.search(r"For example, (\w+) gives (\d+)\.", asked)
    assert int(example[1], 16) == int(example[2], 3)
    assert (
        "(right)_ -> _ left (carry)"
        in (gym.create_dataset("lengthwise_turing_machine", seed=1, size=1)[0]["question"])
    )


@pytest.mark.parametrize("task", ["addition", "multiplication", "sorting", "turing_machine"])
def test_the_curriculum_grows(gym, task):
    curriculum = gym.factory.create_curriculum(f"lengthwise_{task}")
    first = curriculum.generate_configuration({"seed": 0})
    for name in curriculum.attributes:
        curriculum.increment_attr_level(name)
        curriculum.increment_attr_level(name)
    later = curriculum.generate_configuration({"seed": 0})
    for axis in first.axes:
        assert first.range_of(axis)[1] < later.range_of(axis)[1]
    longest = [
        max(len(item["metadata"]["expression"]) for item in type_of(gym, task)(config=config))
        for config in (_short(first), _short(later))
    ]
    assert longest[0] < longest[1]


def _short(config):
    config.size = 5
    return config


def type_of(gym, task):
    return gym.factory.DATASETS[f"lengthwise_{task}"][0]


def test_it_can_go_on_without_end(gym):
    from reasoning_gym.dataset import ReseedingDataset

    data = gym.create_dataset("lengthwise_addition", seed=1, size=3)
    endless = iter(ReseedingDataset(data, chunk_size=3))
    asked = [next(endless)["question"] for _ in range(9)]
    assert len({*asked}) > 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "dev"}, "split is one of train, validation, test; got 'dev'"),
        ({"min_length": 4, "max_length": 2}, "min_length and max_length are whole numbers"),
        ({"base": 99}, "base"),
        ({"size": 0}, "size is a number from 1 up"),
    ],
)
def test_bad_settings_are_their_kind_of_error(gym, options, said):
    with pytest.raises(AssertionError, match=said):
        gym.create_dataset("lengthwise_addition", **options)


def test_theirs_are_put_to_a_proven_model(gym):
    score = ours.evaluate(SAMPLES / "multiplication", "products", seed=0, size=20, max_digits=12)
    assert (score.asked, score.left_out, score.right, score.score) == (20, 0, 20, 1.0)
    assert score.low < 1 == score.high
    assert str(score).startswith("products: 20 of 20 right (95 % interval 83.9% to 100.0%)")
    # What is no multiplication of two numbers is left out, and counted.
    mixed = gym.create_dataset(
        *("basic_arithmetic",), seed=0, size=40, min_terms=2, max_terms=3, allow_parentheses=False
    )
    score = ours.evaluate(SAMPLES / "multiplication", mixed)
    products = [
        item for item in mixed if re.fullmatch(r"\d+ \* \d+", item["metadata"]["expression"])
    ]
    assert (score.asked, score.right) == (len(products), len(products))
    assert 0 < score.asked == 40 - score.left_out


def test_items_and_answers_may_be_read_by_functions(gym):
    """Theirs are lists of numbers, half of them from the largest down; ours lists of keys of one digit."""

    def keys(item):
        about = item["metadata"]
        rising = about["direction"] == "ascending"
        return ",".join(key[0] for key in about["original_numbers"]) if rising else None

    options = {"seed": 0, "size": 12, "min_decimals": 0, "max_decimals": 0}
    options |= {"min_value": 0, "max_value": 9}
    data = gym.create_dataset("number_sorting", **options)
    rising = [item for item in data if item["metadata"]["direction"] == "ascending"]
    score = ours.evaluate(
        *(SAMPLES / "sorting", data),
        expression=keys,
        answer=lambda text: str([f"{key}.0" for key in text.split(",")]),
    )
    assert 0 < score.asked == score.right == len(rising) == 12 - score.left_out
    # In another form none is right, and mistakes are kept to be looked at.
    score = ours.evaluate(SAMPLES / "sorting", data, expression=keys, answer=lambda _: "none")
    assert (score.right, len(score.mistakes)) == (0, len(rising))
    assert score.mistakes[0] == (rising[0]["question"], "none", rising[0]["answer"])


@pytest.mark.parametrize(
    ("dataset", "options", "said"),
    [
        ("product", {}, "reasoning-gym makes no 'product'"),
        ("products", {"digits": 3}, "unexpected keyword argument 'digits'"),
        ("products", {"min_terms": 3, "max_terms": 2}, "max_terms must be >= min_terms"),
        ("leg_counting", {"size": 2}, "no item of leg_counting is a problem of multiplication"),
    ],
)
def test_what_can_not_be_put_to_it(gym, dataset, options, said):
    with pytest.raises(lw.InputError, match=said):
        ours.evaluate(SAMPLES / "multiplication", dataset, **options)


def test_other_bases_are_not_read_as_decimal(gym):
    with pytest.raises(lw.InputError, match="their numbers are decimal, the model's in base 2"):
        ours.evaluate(SAMPLES / "turing_machine", "products")


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    said = re.escape("this needs reasoning-gym: pip install 'lengthwise[reasoning-gym]'")
    with pytest.raises(lw.InputError, match=said):
        ours.register()
    with pytest.raises(lw.InputError, match=said):
        ours.evaluate(SAMPLES / "multiplication", "products")
