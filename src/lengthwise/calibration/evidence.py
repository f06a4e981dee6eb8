"""What speaks for a line: how much attention it gets, and what closing it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from lengthwise.bias import Site, Track
from lengthwise.calibration.maps import AttentionMaps, real_rows

# docs/log.md, 2026-11-24, "What tells a line from noise", has the measurements behind these.
_SUPPORT: dict[Site, float] = {"cross": 0.03, "self": 0.5}
_BOTH = 0.08

# On sheets: nats a problem that closing a line costs a model that reads along it, and attention that shows
# it beyond a uniform head's.
NEEDED, SHOWN = 0.05, 0.03

# On sheets: what a line must cost at least that is tried where the needed ones do not tell every symbol.
HINT = 0.005


@dataclass(frozen=True)
class Evidence:
    """What speaks for a track.

    Attributes:
        track: the track.
        support: attention beyond that of a uniform head, in the weakest row of real digits, of the
            head that reads it best; 1 means all attention, 0 none beyond uniform.
        need: rise of the loss of a problem, nats, when the track is closed to the model.
        preference: attention along the track per head, the best layer's, mean over rows; `[head]`.
        shared: as support, but in each row of the head that reads it best there: heads may take turns.
    """

    track: Track
    support: float
    need: float
    preference: tuple[float, ...]
    shared: float = 0.0

    @property
    def strength(self) -> float:
        """At least 1 where the track is selected: support is past its threshold, and so is the
        geometric mean of support and need."""
        return self._strength(self.support)

    @property
    def turns(self) -> float:
        """At least 1 where the track would be selected if what heads read by turns were one head's."""
        return self._strength(self.shared)

    def _strength(self, support: float) -> float:
        both = math.sqrt(max(support, 0.0) * max(self.need, 0.0))
        return min(support / _SUPPORT[self.track.site], both / _BOTH)


@dataclass(frozen=True)
class SheetEvidence(Evidence):
    """What speaks for a track on sheets: need is measured where no line runs that was found before it."""

    @property
    def strength(self) -> float:
        """At least 1 where the track is needed, and attention shows it."""
        return min(self.support / SHOWN, self.need / NEEDED)


def gather_evidence(maps: AttentionMaps) -> list[Evidence]:
    """Support and knockout of every candidate track, the strongest first."""
    layout, found = maps.layout, []
    for track, need in maps.knockout.items():
        rows = real_rows(track, layout, maps.length)
        keys, _ = track.keys(layout, rows)
        attention = maps.weights[track.site][:, :, rows, keys]  # [layer, head, row]
        written, source = rows + 1.0, torch.tensor(float(layout.source_length))
        open_keys = written if track.site == "self" else source
        if maps.joint:
            open_keys = written + source
        beyond = (attention - 1 / open_keys) / (1 - 1 / open_keys)
        found.append(
            Evidence(
                track=track,
                support=beyond.amin(dim=-1).max().item(),
                need=need,
                preference=tuple(attention.mean(dim=-1).amax(dim=0).tolist()),
                shared=beyond.amax(dim=(0, 1)).amin().item(),
            )
        )
    return sorted(found, key=lambda evidence: -evidence.strength)
