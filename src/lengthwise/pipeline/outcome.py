"""What the method made, and what may be said of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lengthwise.bias import CalibratedBias
from lengthwise.calibration import Maps
from lengthwise.evaluation.curve import LengthCurve, Score
from lengthwise.proof import Certificate, Counterexample, NotApplicable
from lengthwise.runs.run import Run

Proof = Certificate | Counterexample | NotApplicable


@dataclass(frozen=True)
class Outcome:
    """What the pipeline made.

    Attributes:
        path: the folder that holds it all.
        vanilla, calibrated: the two runs.
        maps: the vanilla model's attention.
        bias: the calibrated bias.
        curve: exact match of both.
        proof: a certificate, a counterexample, or why neither; None where none was asked for.
        seconds: of each stage, in this call (a resumed stage took longer in all).
    """

    path: Path
    vanilla: Run
    calibrated: Run
    maps: Maps
    bias: CalibratedBias
    curve: LengthCurve
    proof: Proof | None
    seconds: dict[str, float]

    def __repr__(self) -> str:
        proven = "proven" if self.proof is not None and self.proof.proven else "not proven"
        return f"Outcome({str(self.path)!r}: {self.calibrated.config.task}, {proven})"

    @property
    def right(self) -> bool:
        """Whether the calibrated model is proven, or no proof speaks about it and it made no mistake."""
        if isinstance(self.proof, Counterexample):
            return False
        return (self.proof is not None and self.proof.proven) or not self._mistakes

    @property
    def _measured(self) -> list[Score]:
        return [score for score in self.curve if score.model == self.calibrated.fingerprint]

    @property
    def _mistakes(self) -> int:
        return sum(score.n - score.correct for score in self._measured)

    @property
    def verdict(self) -> str:
        """What may be said of the calibrated model, in a sentence."""
        n = sum(score.n for score in self._measured)
        on = f"{n:,} problems of up to {max(self._measured, key=lambda s: s.extent).size} digits"
        seen = (
            f"it is wrong on {self._mistakes:,} of {on}"
            if self._mistakes
            else f"it is right on all {on}"
        )
        if isinstance(self.proof, Certificate):
            return f"Proven: {self.proof.claim}; measured, {seen}."
        if isinstance(self.proof, Counterexample):
            if not self.proof.problem:
                return (
                    f"Not proven: no problem is known that the model gets wrong, but "
                    f"{self.proof.failing:,} of {self.proof.contexts:,} local contexts fail; measured, "
                    f"{seen}."
                )
            how = "is wrong on" if self.proof.wrong else "is not sure of"
            return f"Not proven: the model {how} {self.proof.problem}; measured, {seen}."
        why = "no proof was asked for" if self.proof is None else self.proof.reason
        return f"Not proven, but measured: {seen} ({why})."
