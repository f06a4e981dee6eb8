"""The command line: thin. Results go to stdout, everything else to stderr."""

from lengthwise.cli.entry import main

__all__ = ["main"]
