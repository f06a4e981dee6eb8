"""One computation on several processes of this machine: what asks them, and what they run."""

from lengthwise.workers.child import Child
from lengthwise.workers.pool import Workers, environment

__all__ = ["Child", "Workers", "environment"]
