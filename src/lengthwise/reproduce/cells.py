"""What has to be measured: one cell for each task, row of a table, protocol and seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lengthwise.settings.config import Config, make_config
from lengthwise.settings.methods import METHODS
from lengthwise.tasks import TASKS

Protocol = Literal["short", "padded"]
PROTOCOLS: tuple[Protocol, ...] = ("short", "padded")
TARGETS = ("table1", "table3", "transfer", "figures")

# The paper's rows, by its own names, and the method of ours that each begins with. `abc` is calibrated
# by our policy, `abc_paper` by the paper's (Algorithm 1); `transfer` has its bias from another task.
ROWS: dict[str, str] = {
    "vanilla": "vanilla",
    "alibi": "alibi",
    "rope": "rope",
    "rpe": "shaw",
    "abc": "vanilla",
    "abc_paper": "vanilla",
    "window1": "window",
    "window1_cpi3": "window_cpi",
    "nope_window1": "nope_window",
    "classification": "vanilla",
    "transfer": "vanilla",
}
_COMPARED = ("vanilla", "alibi", "rope", "rpe")
_CALIBRATED = ("abc", "abc_paper")
_WINDOWS = ("window1", "window1_cpi3", "nope_window1")

# The rows of each table, and the digits that its columns stand for.
TABLES: dict[str, tuple[tuple[str, ...], tuple[int, ...]]] = {
    "table1": ((*_COMPARED, *_CALIBRATED), (6, 10, 20, 60)),
    "table3": ((*_WINDOWS, *_COMPARED, "classification"), (6, 10, 15, 20, 60)),
    "transfer": (("transfer",), (6, 10, 20, 60)),
}
TABLE_TASKS = ("successor", "addition", "nx1", "parity")

# Where the bias comes from, and the task that uses it: tasks whose sources have the same segments.
TRANSFERS: tuple[tuple[str, str], ...] = (
    ("successor", "decrement"),
    ("successor", "parity"),
    ("successor", "copy"),
    ("successor", "modular_sum"),
    ("parity", "successor"),
    ("addition", "subtraction"),
    ("subtraction", "addition"),
)


@dataclass(frozen=True)
class Cell:
    """One model that is trained and measured.

    Attributes:
        task: a task's name.
        row: a row of a table, a key of `ROWS`.
        protocol: `padded` in training to the width of the longest test problem, as in the paper, or
            `short`: padded only as far as the answers of the training problems need.
        seed: of weights and problems.
        source: the task that the bias was calibrated on, in the row `transfer`.
    """

    task: str
    row: str
    protocol: Protocol
    seed: int
    source: str | None = None

    @property
    def name(self) -> str:
        """The cell's folder."""
        origin = f"-from-{self.source}" if self.source else ""
        return f"{self.task}-{self.row}{origin}-{self.protocol}-seed{self.seed}"

    @property
    def needs(self) -> Cell | None:
        """The cell whose model or bias this one begins with."""
        if self.source:
            return Cell(self.source, "abc", self.protocol, self.seed)
        if self.row in _CALIBRATED:
            return Cell(self.task, "vanilla", self.protocol, self.seed)
        return None


@dataclass(frozen=True)
class Budget:
    """How much is spent on each cell.

    Attributes:
        seeds: the seeds of every cell.
        lengths: digits at which models are measured; the longest fixes the padded width.
        samples: problems of each length, where there are as many numbers of it.
        settings: assignments for every cell.
        padded: further assignments for the protocol `padded`.
        calibrated: further ones there for the vanilla models, which are calibrated. Of N x 1 none
            interpolates at a constant learning rate, however many steps it has.
        windows: further assignments for windows drawn by hand.
        tasks: further assignments for some tasks.
        seconds: about how long a `short` cell takes on one core, before any has been timed.
        padded_times: how many times as long a `padded` one takes.
    """

    seeds: tuple[int, ...]
    lengths: tuple[int, ...] = (6, 10, 15, 20, 60)
    samples: int = 10_000
    settings: tuple[str, ...] = ()
    padded: tuple[str, ...] = ()
    calibrated: tuple[str, ...] = ()
    windows: tuple[str, ...] = ()
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    seconds: float = 40.0
    padded_times: float = 5.0


BUDGETS: dict[str, Budget] = {
    # Every cell is exercised, none is a result: small models, base 3, three digits, loose criteria.
    "smoke": Budget(
        seeds=(0,),
        lengths=(3, 8),
        samples=50,
        settings=(
            *("data.length=3", "model.width=32", "model.feed_forward=64", "training.batch_size=32"),
            *("training.learning_rate=5e-3", "training.warmup_steps=20"),
            *("training.max_steps=600", "training.evaluate_every=50"),
            *("training.validation_problems=64", "calibration.problems=64"),
            *("retraining.max_steps=300", "retraining.cooldown_steps=20"),
            *("training.exact_match=0.9", "training.loss=0.5"),
            *("retraining.exact_match=0.9", "retraining.loss=0.5", "retraining.worst_loss=100"),
        ),
        tasks=dict.fromkeys(("parity", "parity_classification"), ("data.length=6",))
        | dict.fromkeys((name for name in TASKS if len(TASKS[name].bases) > 1), ("base=3",)),
        seconds=2.0,
        padded_times=1.5,
    ),
    # The default model. Those that interpolate do so within a third of these steps.
    "standard": Budget(
        seeds=(0, 1, 2),
        settings=("training.max_steps=6000",),
        padded=("training.batch_size=32", "training.max_steps=5000", "retraining.max_steps=3000"),
        calibrated=(
            "training.max_steps=20000",
            "training.exact_match=0.98",
            "training.cooldown_steps=500",
        ),
        # Nothing tells a window's keys apart but what they hold: addition is sure after some 8000.
        windows=("training.max_steps=15000",),
    ),
    # The paper's model size and batch; for a GPU.
    "full": Budget(
        seeds=(0, 1, 2, 3, 4),
        settings=(
            *("model.width=128", "model.heads=8", "model.layers=6", "model.feed_forward=512"),
            *("model.dropout=0.3", "model.norm=post", "model.embedding_scale=sqrt"),
            *("training.batch_size=512", "training.learning_rate=1e-4"),
            *("training.max_steps=200000", "training.evaluate_every=500"),
            "retraining.max_steps=50000",
        ),
        seconds=3600.0,
        padded_times=3.0,
    ),
}


def cells_of(target: str, budget: Budget) -> list[Cell]:
    """The cells that a target needs: those of the protocol `short` first, seed by seed.

    Every cell stands after the one that it `needs`.
    """
    found: dict[Cell, None] = {}
    for protocol in PROTOCOLS:
        for seed in budget.seeds:
            for cell in _cells(target, protocol, seed):
                chain = [cell]
                while chain[-1].needs is not None:
                    chain.append(chain[-1].needs)
                found |= dict.fromkeys(reversed(chain))
    return list(found)


def _cells(target: str, protocol: Protocol, seed: int) -> Iterator[Cell]:
    tables = ("table1", "table3") if target == "figures" else (target,)
    for table in tables:
        for row in TABLES[table][0]:
            if row == "transfer":
                if protocol == "short":
                    yield from (Cell(t, row, protocol, seed, source) for source, t in TRANSFERS)
            elif row == "classification":
                if protocol == "short":
                    yield Cell("parity_classification", row, protocol, seed)
            else:
                yield from (Cell(task, row, protocol, seed) for task in TABLE_TASKS)


def config_of(cell: Cell, budget: Budget) -> Config:
    """The settings of a cell's first training."""
    # No model is asked at a width below that of its training, which is none that it knows.
    assignments = [*METHODS[ROWS[cell.row]].assignments, "evaluation.padding=training"]
    if cell.row in _WINDOWS:
        # They train until they are sure, as calibrated models do: a few errors in a thousand rows are none
        # at six digits and many at sixty.
        wanted = ("cooldown_steps", "exact_match", "loss", "worst_loss")
        sure = Config().retraining.model_dump(include=set(wanted))
        assignments += [f"training.{key}={value}" for key, value in sure.items()]
    assignments += [*budget.settings, *budget.tasks.get(cell.task, ()), f"seed={cell.seed}"]
    if cell.protocol == "padded":
        width = max(budget.lengths) + TASKS[cell.task].growth
        assignments += [f"data.width={width}", *budget.padded]
        if cell.row in ("vanilla", *_CALIBRATED):
            assignments += budget.calibrated
        if cell.row == "rpe":
            # Else the keys of a column of padded operands are past the farthest distance.
            assignments.append(f"model.shaw_distance={2 * width + 1}")
    if cell.row in _WINDOWS:
        assignments += budget.windows
    if cell.row == "abc_paper":
        # The paper's code retrains the model that it calibrated, positions and all.
        assignments += ["calibration.policy=paper", "retraining.positions=sinusoidal"]
    return make_config({"task": cell.task}, assignments)
