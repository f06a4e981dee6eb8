"""Proof that a calibrated model is right at every length: see docs/proof.md."""

from lengthwise.proof.certificate import (
    Certificate,
    Counterexample,
    NotApplicable,
    hashes,
)
from lengthwise.proof.cone import Cone, NotApplicableError, receptive_cone
from lengthwise.proof.prover import BUDGET, Estimate, estimate, prove, verify
from lengthwise.proof.rule import rule_text, save_rule

__all__ = [
    "BUDGET",
    "Certificate",
    "Cone",
    "Counterexample",
    "Estimate",
    "NotApplicable",
    "NotApplicableError",
    "estimate",
    "hashes",
    "prove",
    "receptive_cone",
    "rule_text",
    "save_rule",
    "verify",
]
