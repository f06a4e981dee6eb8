"""Arithmetic that people write into settings, such as `1024*1024` and `7/8`: parsed, never run as code."""

from __future__ import annotations

import re
from fractions import Fraction

_TOKEN = re.compile(r"\s*(?:(\d+\.?\d*|\.\d+)|(\*\*|//|[-+*/()]))")

# More than any setting needs; they keep a hostile file from costing time or memory.
_LONGEST, _DEEPEST, _MOST_BITS = 200, 20, 4096


def evaluate_arithmetic(text: str) -> Fraction:
    """The exact value of an expression of numbers, `+ - * / // **` and parentheses, as Python reads it.

    Raises:
        ValueError: in one sentence, for anything else, and for values past 4096 bits.
    """
    return _Parser(text).value()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.place, self.depth = text.strip(), 0, 0
        if len(self.text) > _LONGEST:
            raise ValueError(f"an expression has at most {_LONGEST} characters")
        self.tokens: list[str] = []
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                raise self._wrong()
            self.tokens.append(match[1] or match[2])
            position = match.end()

    def value(self) -> Fraction:
        result = self._sum()
        if self.place != len(self.tokens):
            raise self._wrong()
        return result

    def _wrong(self) -> ValueError:
        shown = self.text if len(self.text) <= 40 else f"{self.text[:37]}..."
        return ValueError(f"{shown!r} is not arithmetic such as 1024*1024 or 7/8")

    def _next(self, *wanted: str) -> str | None:
        """Take the next token if it is one of these."""
        if self.place < len(self.tokens) and self.tokens[self.place] in wanted:
            self.place += 1
            return self.tokens[self.place - 1]
        return None

    def _sum(self) -> Fraction:
        total = self._product()
        while operator := self._next("+", "-"):
            term = self._product()
            total = _bounded(total + term if operator == "+" else total - term)
        return total

    def _product(self) -> Fraction:
        total = self._signed()
        while operator := self._next("*", "/", "//"):
            factor = self._signed()
            if operator != "*" and not factor:
                raise ValueError(f"{self.text!r} divides by zero")
            if operator == "//":
                total = Fraction(total // factor)
            else:
                total = _bounded(total * factor if operator == "*" else total / factor)
        return total

    def _signed(self) -> Fraction:
        """A power, or one with a sign before it, which binds less: -2**2 is -4."""
        self.depth += 1
        if self.depth > _DEEPEST:
            raise ValueError(f"{self.text[:40]!r} is nested too deeply")
        sign = self._next("+", "-")
        result = self._power() if sign is None else self._signed()
        self.depth -= 1
        return -result if sign == "-" else result

    def _power(self) -> Fraction:
        base = self._atom()
        if not self._next("**"):
            return base
        exponent = self._signed()
        if exponent.denominator != 1:
            raise ValueError(f"{self.text!r} has a power that is no whole number")
        size = max(base.numerator.bit_length(), base.denominator.bit_length())
        if abs(exponent) * size > _MOST_BITS:
            raise ValueError(f"{self.text!r} is too large")
        if exponent < 0 and not base:
            raise ValueError(f"{self.text!r} divides by zero")
        return base ** int(exponent)

    def _atom(self) -> Fraction:
        if self._next("("):
            result = self._sum()
            if not self._next(")"):
                raise self._wrong()
            return result
        if self.place >= len(self.tokens) or self.tokens[self.place][0] not in "0123456789.":
            raise self._wrong()
        self.place += 1
        return Fraction(self.tokens[self.place - 1])


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > _MOST_BITS:
        raise ValueError("an expression is too large")
    return value
