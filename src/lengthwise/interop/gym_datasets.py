"""The data sets of reasoning-gym that our tasks are; importing this needs reasoning-gym."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass, replace
from typing import Any, ClassVar

from reasoning_gym.coaching import BaseCurriculum, RangeAttributeDefinition
from reasoning_gym.factory import DATASETS, register_dataset
from reasoning_gym.factory import ProceduralDataset as Procedural

from lengthwise.api.problems import SPLITS, problems
from lengthwise.errors import InputError
from lengthwise.interop.questions import introduction
from lengthwise.problems.format import Format
from lengthwise.problems.items import Problems
from lengthwise.problems.sampling import generator
from lengthwise.problems.worked import Problem, worked
from lengthwise.tasks import ALL_TASKS, WORKSHEETS

# Digits along each axis, level by level.
LENGTHS = [2, 4, 6, 10, 20, 50, 100]
SIZES = [2, 3, 4, 6, 10, 20]

# Rows, by default, within which a process must end that may have no end.
_STEPS = 64

# Digits that problems of bits have at most, by default.
_BITS = 8

# Sizes that are tried for an item.
_SIZES_TRIED = 20


@dataclass
class GymConfig:
    """What every data set of ours takes.

    Attributes:
        seed, size: as of all their data sets.
        split: `train`, `validation` or `test`: no two share a problem.
        base: of the numbers; 0 is the task's own.
    """

    task: ClassVar[str]
    # Each axis: the field with the fewest digits along it, and with the most.
    axes: ClassVar[tuple[str, ...]]
    seed: int | None = None
    size: int = 500
    split: str = "train"
    base: int = 0

    def validate(self) -> None:
        """Refuse what can't be drawn, with their kind of error."""
        for axis in self.axes:
            low, high = self.range_of(axis)
            assert type(low) is int and type(high) is int and 1 <= low <= high, (  # noqa: PT018
                f"min_{axis} and max_{axis} are whole numbers from 1 up, the second no smaller; got {low} "
                f"and {high}"
            )
        assert self.size > 0, f"size is a number from 1 up, got {self.size}"
        assert self.split in SPLITS, f"split is one of {', '.join(SPLITS)}; got {self.split!r}"
        try:
            self.problems([1] * len(self.axes), 0)
        except InputError as error:
            raise AssertionError(str(error)) from error

    def range_of(self, axis: str) -> tuple[int, int]:
        """The fewest and the most digits along an axis."""
        return getattr(self, f"min_{axis}"), getattr(self, f"max_{axis}")

    def problems(self, digits: list[int], seed: int) -> Problems:
        """The problems of one size."""
        named = {name: getattr(self, name) for name in ALL_TASKS[self.task].parameters}
        given = named | ({"base": self.base} if self.base else {})
        # Of tasks with one axis both are of that many digits; rows may be the limit of a process.
        size: Any = digits[0]
        if self.axes != ("length",):
            size = digits[0], getattr(self, "steps", digits[-1])
        return problems(self.task, size, self.split, seed, count=self.size, set=given)


class GymDataset(Procedural):
    """Problems of one task: an expression is asked, its work is the trace."""

    registered: ClassVar[str]

    def __init__(self, config: GymConfig) -> None:
        super().__init__(config=config, seed=config.seed, size=config.size)
        of = config.problems([3] * len(config.axes), 0).format
        self._introduction = introduction(of, _example(of, config))

    @property
    def category(self) -> str:
        return "lengthwise"

    def __getitem__(self, idx: int) -> dict[str, Any]:
        config: GymConfig = self.config
        if not 0 <= idx < self.size:
            raise IndexError(f"item {idx} of {self.size}")
        ranges = [config.range_of(axis) for axis in config.axes]
        rng = generator(self.seed, "sizes", idx)
        for again in reversed(range(_SIZES_TRIED)):
            drawn = config.problems(
                [int(rng.integers(low, high + 1)) for low, high in ranges], self.seed
            )
            try:
                problem = drawn[idx]
                break
            except InputError:  # of the smallest sizes a split may hold none
                if not again:
                    raise
        asked = f"What does {problem.expression} give? Answer with that alone."
        return {
            "question": f"{self._introduction} {asked}",
            "answer": problem.answer,
            "metadata": {
                "source_dataset": self.registered,
                "source_index": idx,
                "expression": problem.expression,
                "trace": list(problem.rows),
                "sheet": None if problem.sheet is None else str(problem.sheet),
                "base": drawn.format.base,
                **dict(drawn.format.parameters),
                **{"split": config.split, "size_drawn": str(problem.size)},
                "difficulty": dict(zip(config.axes, ranges, strict=True)),
            },
        }

    def score_answer(self, answer: str | None, entry: dict[str, Any]) -> float:
        """1 for exactly the answer, white space around it apart; else 0."""
        return float(isinstance(answer, str) and answer.strip() == entry["answer"])


def _example(of: Format, config: GymConfig) -> Problem:
    """An example, with an answer that is right for the base and the parameters."""
    try:
        return worked(of, of.task.example[0])
    except InputError:  # it is in another base
        return replace(config, split="train").problems([4] * len(config.axes), 0)[0]


def register_all(prefix: str) -> list[str]:
    """Register every task; those that are there already stay."""
    names = []
    for task in sorted(ALL_TASKS):
        name = prefix + task
        if name not in DATASETS:
            dataset, config = _kinds(task)
            dataset.registered = name
            curriculum: Any = _curriculum(task, config)  # their annotation means an instance
            register_dataset(name, dataset, config, curriculum)
        names.append(name)
    return names


def _kinds(task: str) -> tuple[type[GymDataset], type[GymConfig]]:
    """The data set of a task, and its settings.

    These are the fewest and most digits along each axis, its parameters, and of tasks that may have no end
    the rows within which they must.
    """
    kind = ALL_TASKS[task]
    axes, small = ("length",), LENGTHS[1]
    if task in WORKSHEETS:
        sheet = WORKSHEETS[task]()
        along = {sheet.axis(segment.name).by_column for segment in sheet.operands}
        axes = tuple(name for name, own in (("columns", True), ("rows", False)) if own in along)
        small = SIZES[1]
    # Of bits there are few small problems, and a split may hold none of them.
    most = _BITS if kind.bases[0] == 2 else small
    named = [(f"{end}_{axis}", int, n) for axis in axes for end, n in (("min", 2), ("max", most))]
    named += [(key, type(value), value) for key, value in kind.parameters.items()]
    named += [("steps", int, _STEPS)] if getattr(kind, "endless", False) else []
    title = "".join(word.title() for word in task.split("_"))
    config = make_dataclass(
        f"{title}Config",
        named,
        bases=(GymConfig,),
        namespace={"task": task, "axes": axes, "__module__": __name__},
    )
    return type(f"{title}Dataset", (GymDataset,), {"__module__": __name__}), config


def _curriculum(task: str, config: type[GymConfig]) -> type[BaseCurriculum]:
    """From small problems to large ones, along each axis by itself."""
    levels = SIZES if task in WORKSHEETS else LENGTHS

    def begin(self: BaseCurriculum) -> None:
        BaseCurriculum.__init__(self, name=type(self).__name__, config_cls=config)
        attributes: list[Any] = [  # each; their annotation means a tuple
            RangeAttributeDefinition(
                name=axis,
                levels=list(levels),
                description=f"Digits along {axis}"
                if axis != "length"
                else "Digits of the operands",
                lower_field_name=f"min_{axis}",
                upper_field_name=f"max_{axis}",
            )
            for axis in config.axes
        ]
        self._define_attributes(*attributes)

    name = config.__name__.replace("Config", "Curriculum")
    return type(name, (BaseCurriculum,), {"__init__": begin, "__module__": __name__})
