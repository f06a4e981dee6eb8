"""The ids that a person's model has for the characters of our problems, and how wide its problems are."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lengthwise.arguments import refuse
from lengthwise.errors import InputError
from lengthwise.own_code import told
from lengthwise.problems.format import Format
from lengthwise.problems.layout import START

SomeTokens = Mapping[str, int] | Callable[[str], object] | None


class Tokens:
    """Ids for characters: the digits of the base, the task's symbols, `^` before an answer and `$`
    behind it.

    Args:
        given: an id for each character, or a function from a character to its id, such as a tokenizer's
            `convert_tokens_to_ids`; by default the order of our own vocabulary.

    Attributes:
        ids: of each token of our vocabulary, int64 `[token]`.
        start: the id that stands before an answer (in one sequence with its problem, people often
            write =).

    Raises:
        InputError: for a character without an id, or two digits with the same.
    """

    def __init__(self, format: Format, given: SomeTokens = None) -> None:
        self.format = format
        vocabulary = format.at(1).vocabulary
        characters = vocabulary.characters
        if given is None:
            found = list(range(len(characters)))
        elif isinstance(given, Mapping):
            missing = [one for one in characters if one not in given]
            if missing:
                raise InputError(
                    f"tokens names no id for {', '.join(map(repr, missing))}; {format.name} is "
                    f"written with {' '.join(characters)} (^ stands before an answer, $ behind it)"
                )
            found = [_one(one, given[one]) for one in characters]
        elif callable(given):
            found = [_one(one, _asked(given, one)) for one in characters]
        else:
            refuse("tokens", "an id for each character, such as {'0': 15, '^': 2}", given)
        # Lengths of problems whose ids were looked at.
        self._seen: set[int] = set()
        # Of a framed source one start token is part of the problem.
        self._frames = sum(segment.text == START for segment in format.task.segments)
        self._ids = dict(zip(characters, found, strict=True))
        self._ends = characters[vocabulary.start], characters[vocabulary.end]
        self._tell_apart([one for one in characters if one not in self._ends])
        self._tell_apart([*characters[: format.base], self._ends[1]])
        if self._frames:
            self.check_one_sequence()
        self.ids = torch.tensor(found)
        self.start = found[vocabulary.start]

    def _tell_apart(self, characters: Sequence[str]) -> None:
        seen: dict[int, str] = {}
        for one in characters:
            other = seen.setdefault(self._ids[one], one)
            if other != one and ({one, other} != set(self._ends) or self._frames):
                raise InputError(
                    f"tokens gives {other!r} and {one!r} the same id, {self._ids[one]}; each needs one of "
                    f"its own (a tokenizer gives its unknown token for what it lacks)"
                )

    def check_one_sequence(self) -> None:
        """Refuse ids by which a problem can't be told from its answer; `^` and `$` may be one.

        Raises:
            InputError: for them.
        """
        self._tell_apart([*self._ids])

    def of(self, tokens: Tensor) -> Tensor:
        """The ids of tokens of our layout, of the same shape."""
        return self.ids.to(tokens.device)[tokens]

    def width(self, source_length: int) -> int:
        """The digits that operands of a problem of so many tokens are padded to.

        Raises:
            InputError: where no width has so many.
        """
        one, two = (self.format.at(width).source_length for width in (1, 2))
        width, rest = divmod(source_length - one, two - one)
        if rest or width < 0:
            lengths = ", ".join(str(one + k * (two - one)) for k in range(3))
            raise InputError(
                f"a problem of {source_length} tokens is none of {self.format.name}, whose operands are "
                f"padded to one width: they have {lengths}, ... tokens"
            )
        return width + 1

    def source_length(self, ids: Tensor) -> int:
        """The tokens of the problem, where problem and answer lie in one sequence `[problem, token]`.

        Raises:
            InputError: where a problem has no start token behind it, or problems differ.
        """
        ends = (ids == self.start).cumsum(dim=1) > self._frames
        if not bool(ends[:, -1].all()):
            raise InputError(
                f"a sequence lacks the token that ends the problem and starts the answer, id "
                f"{self.start}; tokens={{'^': ID, ...}} says which it is"
            )
        lengths = ends.int().argmax(dim=1)
        if bool((lengths != lengths[0]).any()):
            raise InputError(
                "the problems of one batch must be padded to one width; they have from "
                f"{int(lengths.min())} to {int(lengths.max())} tokens"
            )
        length = int(lengths[0])
        if length not in self._seen:
            self._check_known(ids[:, :length])
            self._seen.add(length)
        return length

    def _check_known(self, problems: Tensor) -> None:
        strange = ~torch.isin(problems, self.ids.to(problems.device))
        if bool(strange.any()):
            raise InputError(
                f"problems of {self.format.name} have no token of id {int(problems[strange][0])}; are "
                f"they of another task, or tokens= left out?"
            )


def _asked(tokens: Callable[[str], object], character: str) -> object:
    try:
        return tokens(character)
    except Exception as error:  # a person's function
        raise InputError(f"tokens gives no id for {character!r}: {told(error)}") from error


def _one(character: str, given: object) -> int:
    """An id, also from a list of one as tokenizers give it."""
    if isinstance(given, list | tuple) and len(given) == 1:
        given = given[0]
    try:
        return operator.index(given)  # type: ignore[arg-type]
    except TypeError:
        raise InputError(
            f"tokens must give {character!r} one id, a whole number; got {given!r}"
        ) from None
