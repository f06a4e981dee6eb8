"""The paper's tables and figures, measured again: `lengthwise reproduce`."""

from lengthwise.reproduce.cells import BUDGETS, TARGETS, Budget, Cell, cells_of
from lengthwise.reproduce.figures import draw_figures
from lengthwise.reproduce.runner import Remaining, measure, remaining
from lengthwise.reproduce.tables import write_tables

__all__ = [
    "BUDGETS",
    "TARGETS",
    "Budget",
    "Cell",
    "Remaining",
    "cells_of",
    "draw_figures",
    "measure",
    "remaining",
    "write_tables",
]
