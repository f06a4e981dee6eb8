"""Methods as classes: position schemes, biases and data formats whose fields are their settings.

One file a method. A scheme has its line in `lengthwise.model.positions.POSITIONS`, a bias in
`lengthwise.bias.BIASES`; both have one in `lengthwise.settings.methods.METHODS`.
"""

from lengthwise.methods.abacus import Abacus
from lengthwise.methods.base import Bias, Encoding, Method, Positions
from lengthwise.methods.coupling import Coupling
from lengthwise.methods.randomized import Randomized

__all__ = ["Abacus", "Bias", "Coupling", "Encoding", "Method", "Positions", "Randomized"]
