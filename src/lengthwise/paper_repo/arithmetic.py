"""Arithmetic that people write into settings, such as `1024*1024` and `7/8`: parsed, never run as code."""

from __future__ import annotations

import ast
import operator
import re
from fractions import Fraction

from lengthwise.errors import shorten

_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
}

# More than any setting needs; they keep a hostile file from costing time or memory.
_LONGEST, _MOST_BITS = 200, 4096


def evaluate_arithmetic(text: str) -> Fraction:
    """The exact value of an expression of numbers, `+ - * / // **` and parentheses, as Python reads it.

    Zeros before a number count for nothing.

    Raises:
        ValueError: in one sentence, for anything else, and for values past 4096 bits.
    """
    if len(text.strip()) > _LONGEST:
        raise ValueError(f"an expression has at most {_LONGEST} characters")
    plain = re.sub(r"(?<![\d.])0+(?=\d)", "", " ".join(text.split()))
    shown = repr(shorten(text.strip(), 40))
    try:
        # Python's grammar has more: names, 1e5, 1_000.
        if re.search(r"[^0-9.()+*/ -]", plain):
            raise SyntaxError
        return _value(ast.parse(plain, mode="eval").body, plain, shown)
    except SyntaxError as error:
        raise ValueError(f"{shown} is not arithmetic such as 1024*1024 or 7/8") from error
    except ZeroDivisionError as error:
        raise ValueError(f"{shown} divides by zero") from error


def _value(node: ast.expr, text: str, shown: str) -> Fraction:
    """The value of a part of the text."""
    if isinstance(node, ast.Constant):
        return Fraction(text[node.col_offset : node.end_col_offset])
    if isinstance(node, ast.UnaryOp):
        value = _value(node.operand, text, shown)
        return -value if isinstance(node.op, ast.USub) else value
    if not isinstance(node, ast.BinOp):
        raise SyntaxError
    left, right = _value(node.left, text, shown), _value(node.right, text, shown)
    if isinstance(node.op, ast.Pow):
        if right.denominator != 1:
            raise ValueError(f"{shown} has a power that is no whole number")
        if abs(right) * _bits(left) > _MOST_BITS:
            raise ValueError(f"{shown} is too large")
    value = Fraction(_OPERATORS[type(node.op)](left, right))
    if _bits(value) > _MOST_BITS:
        raise ValueError(f"{shown} is too large")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())
