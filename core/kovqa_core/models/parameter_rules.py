"""What the optimizer asks about a model's parameters: rates by layer, weight decay, phases."""

from __future__ import annotations

from typing import Protocol


class ParameterRules(Protocol):
    """What the optimizer asks about parameters, by their names."""

    @property
    def head_layer_id(self) -> int:
        """Layer id of the head, the highest; 0 is the stem."""

    def layer_id(self, name: str) -> int:
        """Layer of a parameter, for layer-wise learning rates: 0 … `head_layer_id`."""

    def is_head_parameter(self, name: str) -> bool:
        """Does the head's learning rate factor apply?"""

    def no_weight_decay(self, name: str) -> bool:
        """Is this matrix free of weight decay? Vectors and biases are, without being asked about."""

    def is_text_parameter(self, name: str) -> bool:
        """Does this learn in the phase that begins with the text side alone?"""
