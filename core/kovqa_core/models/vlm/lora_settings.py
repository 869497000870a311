"""Size and kind of low-rank updates, by peft's names. Imports nothing heavy."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from kovqa_core.messages import message
from kovqa_core.settings.strict_yaml import StrictSettings

# peft's others need data (eva, corda, lora_ga), settings of their own (loftq) or freeze a half of each update (mica).
_INITS = ("gaussian", "orthogonal", "olora", "pissa")
_INIT_PATTERN = re.compile(rf"{'|'.join(_INITS)}|pissa_niter_[1-9]\d?")


class LoraSettings(StrictSettings):
    """Size and kind of the low-rank updates."""

    rank: int = Field(16, ge=1, description="rank of the updates, and so their size", examples=[64])
    alpha: float = Field(
        32.0, gt=0, description="scale of the updates: they count times alpha / rank", examples=[16]
    )
    dropout: float = Field(0.05, ge=0, lt=1, description="dropout before the updates", examples=[0.0])
    targets: tuple[str, ...] = Field(
        (),
        description="ends of module names, such as q_proj; empty: every linear layer of the component",
        examples=[["q_proj", "v_proj"]],
    )
    use_dora: bool = Field(
        False, description="DoRA: the length of each row of a weight learns apart from its direction"
    )
    use_rslora: bool = Field(False, description="rsLoRA: updates times alpha / sqrt(rank), not alpha / rank")
    init_lora_weights: bool | str = Field(
        True,
        description=f"what updates begin with: true (zero), {', '.join(_INITS)}, or pissa_niter_N (pissa by N quick "
        "iterations)",
        examples=["pissa_niter_4"],
    )

    @field_validator("init_lora_weights")
    @classmethod
    def _known_init(cls, value: bool | str) -> bool | str:
        if value is not True and not (isinstance(value, str) and _INIT_PATTERN.fullmatch(value)):
            raise ValueError(
                message(
                    "vlm.unknown-init", "known: true, {names}, pissa_niter_N (N from 1 to 99)",
                    names=", ".join(_INITS),
                )
            )  # fmt: skip
        return value

    @property
    def changes_base(self) -> bool:
        """Do the updates begin as a part of the base's weights, which is taken out of them?"""
        return str(self.init_lora_weights).startswith(("pissa", "olora"))

    @property
    def scale(self) -> tuple[object, ...]:
        """What the numbers of an adapter mean nothing without."""
        return (self.rank, self.alpha, self.use_dora, self.use_rslora)
