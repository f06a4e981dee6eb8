"""Files of the paper's own repository: settings (.ini), biases (.t) and checkpoints, read safely.

docs/seed.md says what each option and file means here, and which command of ours does what theirs do.
"""

from lengthwise.seed_files.arithmetic import evaluate_arithmetic
from lengthwise.seed_files.checkpoint import convert_checkpoint
from lengthwise.seed_files.ini import SeedOptions, load_ini
from lengthwise.seed_files.tensors import load_matrices, read_bias, save_matrices

__all__ = [
    "SeedOptions",
    "convert_checkpoint",
    "evaluate_arithmetic",
    "load_ini",
    "load_matrices",
    "read_bias",
    "save_matrices",
]
