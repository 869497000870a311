"""The logits of a fusion model by kovqa, and by the module that is exported beside it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kovqa_core.data.example import Example
from kovqa_core.models.export_check import one_example_batch
from kovqa_core.models.fusion.vqa import FusionProcessor, fusion_logits

MODULE_NAME = "fusion_model.py"
CHECK_CODE = """\
from fusion_model import FusionModel

model = None

def logits(row, image, device):
    global model
    model = model or FusionModel(".", device)
    return model.logits([row["text"]], model.pixels(image)[None])[0]
"""


def example_row(processor: FusionProcessor, example: Example) -> dict[str, object]:
    """The question."""
    return {"text": example.question}


@torch.inference_mode()
def own_logits(model: Any, processor: FusionProcessor, example: Example) -> Tensor:
    """[C]."""
    batch = one_example_batch(processor, example).to(next(model.parameters()).device)
    return fusion_logits(model.net, batch)[0]
