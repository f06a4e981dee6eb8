"""A sweep on stderr: in a terminal a live table of what runs and how long it will take, elsewhere lines."""

from __future__ import annotations

import contextlib
import sys
import time

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from lengthwise.forecast import duration
from lengthwise.sweeps.jobs import Ended
from lengthwise.sweeps.loop import State

# Rows of the table; of more that run, the longest are shown.
_ROWS = 16

# Seconds between two pictures of the table; between two lines about the whole; and where nothing ends.
_REFRESH, _STANDING, _EVERY = 0.25, 5.0, 30.0


class CellsDisplay:
    """Watches a sweep and shows it. Use it as a context manager; `watch` is what the loop calls.

    Args:
        show: False for silence.
    """

    def __init__(self, show: bool = True) -> None:
        self.show = show
        self.console = Console(file=sys.stderr)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.last = 0.0

    def __enter__(self) -> CellsDisplay:
        if self.show and self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.live.is_started:
            self.live.stop()

    def watch(self, ended: Ended | None, state: State) -> None:
        """Show how far it is; say what ended."""
        if not self.show:
            return
        if ended is not None:
            self.say(told(ended, state))
        pause = _STANDING if ended is not None else _EVERY
        if self.live.is_started:
            pause = _REFRESH
        # How long it will take is a look at all that is left.
        if time.monotonic() - self.last < pause and state.running:
            return
        self.last = time.monotonic()
        if self.live.is_started:
            self.live.update(Group(table(state), Text(standing(state))), refresh=True)
        else:
            self.say(standing(state))

    def say(self, words: str) -> None:
        """A line that stays."""
        if self.live.is_started:
            self.console.print(words, markup=False, highlight=False)
            return
        with contextlib.suppress(OSError):  # nobody reads it any more
            print(words, file=sys.stderr, flush=True)


def told(ended: Ended, state: State) -> str:
    """What became of a cell, in a line."""
    if ended.lost and ended.name not in state.failed:
        return f"{ended.name}: {ended.error}; another goes on with it"
    if ended.error is not None:
        return f"{ended.name}: failed: {ended.error}"
    return f"{ended.name}: done in {duration(ended.seconds)}"


def standing(state: State) -> str:
    """How far a sweep is, in a line."""
    left = len(state.jobs) - len(state.done) - len(state.failed)
    words = f"{len(state.done):,} of {len(state.jobs):,} done"
    words += f", {len(state.failed):,} failed" * bool(state.failed)
    words += f", {len(state.running):,} running"
    seconds = state.seconds_left()
    if left and seconds is not None:
        words += f", about {duration(seconds)} left"
    return words


def table(state: State) -> Table:
    """What runs: cell, time, and how far it is."""
    shown = Table(box=None, pad_edge=False)
    shown.add_column("running", overflow="fold")
    shown.add_column("for", justify="right")
    shown.add_column("")
    now = time.monotonic()
    oldest = sorted(state.running.items(), key=lambda item: item[1])
    for name, began in oldest[:_ROWS]:
        shown.add_row(Text(name), duration(now - began), Text(state.said.get(name, "")))
    if len(oldest) > _ROWS:
        shown.add_row(f"and {len(oldest) - _ROWS} more", "", "")
    return shown
