"""Models that people already have: what they read is captured, and a bias applied to them.

One file for each way that a model takes a bias: plain.py (our protocol), torch_nn.py, hugging_face.py,
x_transformers.py. tokens.py are its ids, reading.py the bias as its attention takes it, adapter.py
what is asked of any model.
"""

from lengthwise.own_models.adapter import Adapter
from lengthwise.own_models.apply import Applied, apply_bias
from lengthwise.own_models.capture import capture_own
from lengthwise.own_models.plain import OwnModel

__all__ = ["Adapter", "Applied", "OwnModel", "apply_bias", "capture_own"]
