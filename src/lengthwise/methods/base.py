"""What a method is: a frozen dataclass, whose fields are its settings.

```python
@dataclass(frozen=True)
class Digits(Positions):
    name, paper, needs = "digits", "ours", ("coordinates",)
    size: int = 200

    def ids(self, tokens, drawn):
        return torch.where(tokens.known["c"], tokens.coordinates["c"] + 2, 0)[None]
```
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from lengthwise.problems.tokens import Extent, Tokens

if TYPE_CHECKING:
    from lengthwise.bias.base import AttentionBias

Encoding = Literal["learned", "sinusoidal", "rope"]
Need = Literal["segments", "coordinates", "lengths"]


@dataclass(frozen=True)
class Method:
    """A method with settings of its own. By itself a data format: the settings that it stands for.

    A wrong value raises `ValueError` in `__post_init__`, as any dataclass would; its message is shown.

    Attributes:
        name: what it is called: the value of `model.positions` or `model.bias`, and of `--method`.
        paper: where it comes from.
        arxiv: the number there, where there is one.
        needs: what of the problems it asks for, of `segments`, `coordinates` and `lengths`: a note for
            who reads it, all of them being told in any case.
        settings: what else it sets, by dotted names, such as `{"data.input_order": "reversed"}`.
    """

    name: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    arxiv: ClassVar[str] = ""
    needs: ClassVar[tuple[Need, ...]] = ()
    settings: ClassVar[Mapping[str, Any]] = {}

    def values(self) -> dict[str, Any]:
        """The settings by their names."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def positive(self, *names: str) -> None:
        """Refuse what is below 1.

        Raises:
            ValueError: for the first that is.
        """
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Positions(Method, ABC):
    """A position scheme: it numbers tokens, and says how a number becomes a vector.

    Ids of one axis are a *level*; of each level a token has one id, and one vector, and these are added to
    its embedding. Source and target share them, as they are one sequence to the papers.

    Attributes:
        encoding: `learned`: a table of `size` vectors for each level; `sinusoidal`: sines and cosines of
            the id; `rope`: queries and keys are turned by the id, of the first level alone.
        size: ids are from 0 to size - 1. A class has it as a field, or as a property.
    """

    encoding: ClassVar[Encoding] = "learned"

    if TYPE_CHECKING:

        @property
        def size(self) -> int: ...

    def levels(self, axes: tuple[str, ...]) -> int:
        """How many ids a token has, where problems have these axes."""
        return 1

    def draw(self, rng: np.random.Generator, problems: int, extent: Extent) -> Tensor:
        """What a training batch draws, int64 `[problem, number]`, or `[1, number]` for all problems alike.

        Args:
            rng: the generator of this step, which alone may be asked.
            problems: in the batch.
            extent: how far they reach.
        """
        return self.fixed(extent)

    def fixed(self, extent: Extent) -> Tensor:
        """What stands in its place when a model is evaluated or answers, int64 `[1, number]`."""
        return torch.zeros(1, 1, dtype=torch.int64)

    @abstractmethod
    def ids(self, tokens: Tokens, drawn: Tensor) -> Tensor:
        """The ids of tokens, int64 `[level, problem, position]`; of one problem where all have the same.

        The id of a token must follow from it, its place and what stands before.

        Args:
            tokens: those of the source, or those that the rows of the target read.
            drawn: by `draw`, or `fixed`, on the device of the tokens.
        """

    def reaches(self, extent: Extent) -> bool:
        """Whether all tokens of such problems have ids; a model is wrong, by definition, where not."""
        return True

    def __str__(self) -> str:
        return f"{self.name} positions"


@dataclass(frozen=True)
class Bias(Method, ABC):
    """What is added to attention logits, for any number of heads."""

    @abstractmethod
    def bias(self, heads: int) -> AttentionBias:
        """The bias of a model; what of it is learned the model holds (`LearnedModules`)."""
