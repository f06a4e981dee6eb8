"""What a model makes of an expression."""

from __future__ import annotations

from dataclasses import dataclass

from lengthwise.errors import shorten


@dataclass(frozen=True, repr=False)
class Answer:
    """What a model made of an expression.

    Attributes:
        text: the answer as a person writes it; for parity, the bit. Where the model wrote something that is
            no number, or did not end it, a sentence that says so.
        work: what the model wrote, symbol by symbol, least significant digit first; for parity the
            scratchpad of running exclusive ors.
        complete: whether it is a number, and ended.
    """

    text: str
    work: str
    complete: bool = True

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        work = "" if self.complete else ", complete=False"
        return f"{type(self).__name__}({shorten(self.text)!r}, work={shorten(self.work)!r}{work})"

    @property
    def shown(self) -> str:
        """What the model wrote, for a reader."""
        return f"  written {self.work}, least significant digit first" if self.work else ""
