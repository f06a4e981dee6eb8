"""Files of the paper's own repository: settings (.ini), biases (.t) and checkpoints, read safely.

docs/seed.md says what each option and file means here, and which command of ours does what theirs do.
"""

from lengthwise.paper_repo.arithmetic import evaluate_arithmetic
from lengthwise.paper_repo.checkpoint import convert_checkpoint, convert_run
from lengthwise.paper_repo.ini import SeedOptions, load_ini
from lengthwise.paper_repo.tensors import (
    find_lines,
    load_matrices,
    read_bias,
    save_dense_bias,
    save_matrices,
)

__all__ = [
    "SeedOptions",
    "convert_checkpoint",
    "convert_run",
    "evaluate_arithmetic",
    "find_lines",
    "load_ini",
    "load_matrices",
    "read_bias",
    "save_dense_bias",
    "save_matrices",
]
