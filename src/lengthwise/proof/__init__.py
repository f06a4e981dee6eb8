"""Proof that a calibrated model is right at every length: see docs/proof.md."""

from lengthwise.locality import Cone, NotApplicableError
from lengthwise.proof.certificate import Certificate, Counterexample, NotApplicable, hashes
from lengthwise.proof.prover import BUDGET, Estimate, estimate, prove, verify
from lengthwise.proof.rule import rule_text, save_rule
from lengthwise.proof.scope import receptive_cone

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
