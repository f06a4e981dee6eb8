"""Progress on stderr: one bar for each stage in a terminal, elsewhere lines: one every few seconds and
one for each stage. Tables on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from lengthwise.arguments import as_flag, refuse
from lengthwise.bias import CalibratedBias
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.pipeline.stages import Observer, Stage
from lengthwise.progress.notebook import NAMES, LiveLine, in_notebook
from lengthwise.runs.metrics import Metrics
from lengthwise.settings.config import Config
from lengthwise.settings.methods import method_of, with_article

# Seconds between lines about a stage, where there is no bar.
_EVERY = 10.0

# Columns: more than any table has.
_UNBOUNDED = 10_000


class _Remaining(ProgressColumn):
    """Time left; `at most` while it is open when the model will interpolate."""

    def render(self, task: Task) -> Text:
        if task.finished:
            return Text(f"{task.elapsed or 0:.0f} s")
        if task.time_remaining is None:
            return Text("")
        minutes, seconds = divmod(int(task.time_remaining), 60)
        prefix = "at most " if task.fields.get("open_ended") else "ETA "
        return Text(f"{prefix}{minutes}:{seconds:02d}", style="dim")


class Display(Observer):
    """An observer of the pipeline that shows how far it is. Use it as a context manager.

    Args:
        scores: how many scores an evaluation will report.
    """

    def __init__(self, scores: int = 0) -> None:
        self.console = Console(file=sys.stderr)
        self.scores = scores
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.fields[facts]}"),
            _Remaining(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self.task: Task
        self.title, self.facts = "", ""
        self.cooling: int | None = None
        self.over = threading.Event()
        self.teller: threading.Thread | None = None

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self.progress.start()
        else:
            self.teller = threading.Thread(target=self._tell, daemon=True)
            self.teller.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        if self.teller is not None:
            self.teller.join()
        if self.console.is_terminal:
            self.progress.stop()

    def _tell(self) -> None:
        """Say every few seconds how far it is."""
        while not self.over.wait(_EVERY):
            if not self.title or self.progress.finished:
                continue
            task = self.task
            done = f"{task.completed:,.0f} of {task.total:,.0f}" if task.total else ""
            if self.stage in ("train", "retrain"):
                done = f"step {done}"
            elif self.stage != "evaluate":
                done = ""
            left = _Remaining().render(task).plain
            words = [f"{self.title}:", done, self.facts, left]
            with contextlib.suppress(OSError):  # nobody reads it any more
                print("  ".join(word for word in words if word), file=sys.stderr, flush=True)

    def begin(self, stage: Stage, config: Config) -> None:
        self.stage, self.config, self.cooling, self.facts = stage, config, None, ""
        total = {"calibrate": 1, "evaluate": self.scores or None, "prove": None}.get(
            stage, config.training.max_steps
        )
        name, title = NAMES[stage]
        name = name.format(method=method_of(config))
        self.progress.add_task(name, total=total, facts="", open_ended=True)
        self.task = self.progress.tasks[-1]
        self.title = title.format(method=with_article(method_of(config)))

    def trained(self, stage: Stage, metrics: Metrics) -> None:
        training = self.config.training
        if metrics.phase == "stable":
            self.cooling, total = None, training.max_steps
        else:
            self.cooling = self.cooling or metrics.step
            total = self.cooling + training.cooldown_steps
        if metrics.phase == "done":
            total = metrics.step
        self.facts = (
            f"{metrics.tokens_per_second / 1000:.0f}k tokens/s  "
            f"loss {metrics.validation_loss:.1e}  exact {metrics.exact_match:.1%}"
        )
        self._update(completed=metrics.step, total=total, open_ended=self.cooling is None)

    def calibrated(self, bias: CalibratedBias, attempt: int) -> None:
        tracks = len({line.track for line in bias.lines})
        again = "" if attempt == 0 else f", {attempt} more than those that passed"
        self.facts = f"{tracks} lines for {bias.heads} heads{again}"
        self._update(completed=1)
        if attempt:
            self.console.print(f"The lines were too few to interpolate; trying {self.facts}")

    def noted(self, what: str) -> None:
        self.console.print(what, markup=False, highlight=False, soft_wrap=True)

    def scored(self, score: Score) -> None:
        self.facts = f"{score.method} {score.suite} {score.size} digits: {score.accuracy:.1%}"
        self._update(advance=1, open_ended=False)

    def checked(self, contexts: int, total: int) -> None:
        self.facts = f"{contexts:,} of {total:,} local contexts"
        self._update(completed=contexts, total=total, open_ended=False)

    def end(self, stage: Stage, seconds: float) -> None:
        whole = self.task.total or self.task.completed
        self._update(completed=whole, total=whole)
        if not self.console.is_terminal:
            facts = f"  {self.facts}" if self.facts else ""
            print(f"{self.title}: {seconds:.1f} s{facts}", file=sys.stderr, flush=True)

    def _update(self, **changes) -> None:
        self.progress.update(self.task.id, facts=self.facts, **changes)


@contextlib.contextmanager
def observing(
    progress: bool | None,
    own: Observer | None = None,
    *,
    scores: int = 0,
    of: Literal["trained", "scored", "checked"] = "trained",
    on_progress: Callable[..., object] | None = None,
) -> Iterator[Observer]:
    """An observer for a call from Python.

    Args:
        progress: True shows one live line in a notebook, else what commands show, on stderr; None only the
            line in a notebook; False nothing. Of several processes the first shows it.
        own: the caller's, which takes the place of all that.
        scores: how many scores an evaluation will report.
        of, on_progress: a function of the caller's, which also does, and what it is told of.

    Raises:
        InputError: where `progress` is none of the three, and for what is no observer or no function.
    """
    wanted = None if progress is None else as_flag("progress", progress)
    if on_progress is not None:
        if not callable(on_progress):
            refuse("on_progress", "a function, such as print", on_progress)
        own = Observer()
        setattr(own, of, lambda *told: on_progress(*told[of == "trained" :]))
    if own is not None and not all(hasattr(own, name) for name in ("begin", "end")):
        refuse(
            "observer",
            "an observer, such as a subclass of lengthwise.pipeline.stages.Observer",
            own,
        )
    if own is not None:
        yield own
    elif wanted is False or os.environ.get("RANK", "0") != "0":
        yield Observer()
    elif in_notebook():
        line = LiveLine(scores)
        try:
            yield line
        finally:
            line.stop()
    elif wanted:
        with Display(scores) as display:
            yield display
    else:
        yield Observer()


def print_curve(curve: LengthCurve, file: TextIO | None = None) -> None:
    """Print exact match: a row for each length, a column for each method and suite.

    No cell is cut: what is no terminal gets the whole width, a terminal that is too narrow a list.
    """
    console = Console(file=file or sys.stdout, highlight=False)
    table = Table(title="Exact match by length", title_justify="left")
    table.add_column("digits", justify="right")
    table.add_column("problems", justify="right")
    columns = list(dict.fromkeys((curve.label(score), score.suite) for score in curve))
    for method, suite in columns:
        heading = method.replace(", ", "\n")
        table.add_column(f"{heading}\n{suite}", justify="right")
    table.add_column("digits/s", justify="right")
    cells = {(curve.label(s), s.suite, s.extent): s for s in curve}
    for extent, size in sorted({(score.extent, score.size) for score in curve}):
        row = [cells.get((*column, extent)) for column in columns]
        counts = " / ".join(dict.fromkeys(str(score.n) for score in row if score))
        known = [score for score in row if score]
        rate = sum(s.n * s.extent[0] for s in known) / max(sum(s.seconds for s in known), 1e-3)
        shares = [_cell(score) if score else "" for score in row]
        table.add_row(size, counts, *shares, f"{rate:,.0f}")
    needed = console.measure(table, options=console.options.update(max_width=_UNBOUNDED)).maximum
    if console.is_terminal and needed > console.width:
        _print_list(curve, file)
    else:
        console.width = max(console.width, needed)
        console.print(table)
    if not all(map(_held_out, curve)):
        print("* too few problems of this length to hold any out: some were trained on", file=file)


def _print_list(curve: LengthCurve, file: TextIO | None) -> None:
    """The same, one short line for each score."""
    for extent, size in sorted({(score.extent, score.size) for score in curve}):
        print(f"{size} digits", file=file)
        for score in curve:
            if score.extent == extent:
                print(f"  {score.method} {score.suite}: {_cell(score)} of {score.n}", file=file)


def _cell(score: Score) -> str:
    return f"{score.accuracy:.1%}" + ("" if _held_out(score) else "*")


def _held_out(score: Score) -> bool:
    """Whether none was trained on; what the hard suite of sheets holds is much the same for every seed."""
    return score.split == "test" or score.suite == "hard"
