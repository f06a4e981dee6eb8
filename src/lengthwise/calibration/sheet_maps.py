"""Attention maps of sheets: what the heads of a model read near the cells that they write."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from lengthwise.arguments import as_file
from lengthwise.bias import Track
from lengthwise.calibration.evidence import SheetEvidence
from lengthwise.calibration.maps import reading
from lengthwise.files import check_format, from_json, save_tensors
from lengthwise.problems.format import Format, OfFormat
from lengthwise.problems.sheets import SheetLayout
from lengthwise.problems.sizes import Size

FORMAT = "lengthwise-sheet-maps/1"

# Before the names of tensors that hold attention along a track.
_WEIGHTS = "weights "


@dataclass(frozen=True, eq=False)  # tensors don't compare to a truth value
class SheetMaps(OfFormat):
    """How the heads of a model read near the cells that they write.

    Attributes:
        format: of the problems.
        size: of the problems.
        problems: how many were averaged.
        exact_match: share of them that the model answers right.
        found: lines that the model needs, in the order in which they were found; the need of each is
            measured after those before it.
        others: the other candidates, their needs measured after all that were found.
        weights: of each track `[kind of query, layer, head]`: attention along it, averaged.
        model: the fingerprint of the run.
        joint: as of `AttentionMaps`.
    """

    format: Format
    size: Size
    problems: int
    exact_match: float
    found: tuple[SheetEvidence, ...]
    others: tuple[SheetEvidence, ...]
    weights: dict[str, Tensor]
    model: str = ""
    joint: bool = False

    @property
    def layout(self) -> SheetLayout:
        """The layout of the problems."""
        return self.format.at(self.size)

    @property
    def layers(self) -> int:
        """Of the model."""
        return next(iter(self.weights.values())).shape[1]

    @property
    def heads(self) -> int:
        """Of the model."""
        return next(iter(self.weights.values())).shape[2]

    def __repr__(self) -> str:
        return (
            f"SheetMaps({self.task}: {self.layers} layers of {self.heads} heads, mean of {self.problems} "
            f"problems of {self.size})"
        )

    def save(self, path: Path | str) -> None:
        """Write one safetensors file; it appears whole or not at all."""
        path = as_file("path", path, "maps.safetensors")
        about = {
            "format": FORMAT,
            "task": self.format.to_dict(),
            "size": str(self.size),
            **{name: getattr(self, name) for name in ("problems", "exact_match", "model", "joint")},
            "found": [_row(item) for item in self.found],
            "others": [_row(item) for item in self.others],
        }
        tensors = {f"{_WEIGHTS}{name}": value for name, value in self.weights.items()}
        save_tensors(path, tensors, {"about": json.dumps(about)})

    @staticmethod
    def holds(path: Path) -> bool:
        """Whether a file says that it holds such maps."""
        try:
            with safe_open(path, "pt") as file:
                return from_json(file.metadata()["about"]).get("format") == FORMAT
        except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError):
            return False  # what is wrong with it, whoever reads it says

    @classmethod
    def load(cls, path: Path | str) -> SheetMaps:
        """Read maps.

        Raises:
            InputError: when the file is missing or broken.
        """
        path = as_file("path", path, "maps.safetensors")
        with reading(path), safe_open(path, "pt") as file:
            about = from_json(file.metadata()["about"])
            check_format(about.pop("format", None), FORMAT)
            names = [name for name in file.keys() if name.startswith(_WEIGHTS)]  # noqa: SIM118
            weights = {name.removeprefix(_WEIGHTS): file.get_tensor(name) for name in names}
            found, others = (tuple(map(_item, about.pop(name))) for name in ("found", "others"))
            format, size = Format.read(about.pop("task")), Size.parse(about.pop("size"))
            return cls(format, size, **about, found=found, others=others, weights=weights)


def _row(item: SheetEvidence) -> dict[str, Any]:
    return {**asdict(item), "track": str(item.track)}


def _item(row: dict[str, Any]) -> SheetEvidence:
    return SheetEvidence(
        Track.parse(row["track"]),
        float(row["support"]),
        float(row["need"]),
        tuple(row["preference"]),
    )
