"""One computation on several processes of this machine: what asks them, and what they run."""

from lengthwise.workers.pool import Workers, environment

__all__ = ["Workers", "environment"]
