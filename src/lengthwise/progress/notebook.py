"""Progress in a notebook: one line below the cell, which is updated in place.

It is drawn through IPython, where that is what runs the cell; nothing here imports it elsewhere. No widgets
are needed. What a front end does with the line is its own affair: a failure never reaches the training.
"""

from __future__ import annotations

import contextlib
import sys
import time
from importlib import import_module
from typing import Any

from lengthwise.bias import CalibratedBias
from lengthwise.evaluation.curve import Score
from lengthwise.pipeline.stages import Observer, Stage
from lengthwise.runs.metrics import Metrics
from lengthwise.settings.config import Config
from lengthwise.settings.methods import method_of

# What a stage is called: on a line that fits 80 columns with its facts and the time left, and by itself.
NAMES = {
    "train": ("Train {method}", "Train {method} model"),
    "calibrate": ("Calibrate", "Calibrate its attention"),
    "retrain": ("Retrain", "Retrain with the bias"),
    "evaluate": ("Evaluate", "Evaluate at each length"),
    "prove": ("Prove", "Prove every local context"),
}

# Seconds between two updates: a person sees no more, and each is a message to the browser.
_EVERY = 0.2


def in_notebook() -> bool:
    """Whether IPython runs this code for a front end that shows more than text: a kernel, no terminal."""
    with contextlib.suppress(Exception):
        shell = sys.modules["IPython"].get_ipython()
        return getattr(shell, "kernel", None) is not None
    return False


class LiveLine(Observer):
    """An observer of the pipeline that keeps one line up to date.

    Args:
        scores: how many scores an evaluation will report.
    """

    def __init__(self, scores: int = 0) -> None:
        self.scores, self.scored_so_far = scores, 0
        self.done: list[str] = []
        self.name, self.facts = "", ""
        self.most = 0
        self.shown = float("-inf")
        self.handle: Any = None
        self.broken = False

    def begin(self, stage: Stage, config: Config) -> None:
        self.name = NAMES[stage][0].format(method=method_of(config))
        self.facts, self.most, self.scored_so_far = "...", config.training.max_steps, 0
        self._show()

    def trained(self, stage: Stage, metrics: Metrics) -> None:
        self.facts = (
            f"step {metrics.step:,} of at most {self.most:,}, loss {metrics.validation_loss:.1e}, exact "
            f"match {metrics.exact_match:.1%}"
        )
        if metrics.phase == "done":
            self.facts = f"{metrics.step:,} steps, exact match {metrics.exact_match:.1%}"
        self._show()

    def calibrated(self, bias: CalibratedBias, attempt: int) -> None:
        tracks = len({line.track for line in bias.lines})
        self.facts = f"{tracks} lines for {bias.heads} heads"
        self._show()

    def noted(self, what: str) -> None:
        self.facts = what
        self._show()

    def checked(self, contexts: int, total: int) -> None:
        self.facts = f"{contexts:,} of {total:,} local contexts"
        self._show()

    def scored(self, score: Score) -> None:
        self.scored_so_far += 1
        of = f" of {self.scores}" if self.scores else ""
        self.facts = (
            f"{self.scored_so_far}{of}: {score.method}, {score.suite}, {score.length:,} digits: "
            f"{score.accuracy:.1%}"
        )
        self._show()

    def end(self, stage: Stage, seconds: float) -> None:
        if stage == "evaluate":
            self.facts = f"{self.scored_so_far} scores"
        facts = f" ({self.facts})" if self.facts not in ("", "...") else ""
        self.done.append(f"{self.name} {seconds:.1f} s{facts}")
        self.name = self.facts = ""
        self._show(now=True)

    def stop(self) -> None:
        """Say that what was under way did not come to its end."""
        if self.name:
            self.facts = f"stopped at {self.facts}" if self.facts != "..." else "stopped"
            self._show(now=True)

    def text(self) -> str:
        """The line: what is done, and what is under way. Only the last stage tells its facts."""
        parts = [part.partition(" (")[0] for part in self.done]
        if self.name:
            parts.append(f"{self.name}: {self.facts}")
        elif self.done:
            parts[-1] = self.done[-1]
        return " · ".join(parts)

    def _show(self, now: bool = False) -> None:
        """Bring the line up to date, unless that was just done."""
        if self.broken or (not now and time.monotonic() - self.shown < _EVERY):
            return
        self.shown = time.monotonic()
        try:
            line = {"text/plain": self.text()}
            if self.handle is None:
                display = import_module("IPython.display").display
                self.handle = display(line, raw=True, display_id=True)
                self.broken = self.handle is None
            else:
                self.handle.update(line, raw=True)
        except Exception:  # whatever a front end raises
            self.broken = True
