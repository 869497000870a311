"""timm and transformers import torchvision, whose wheel does not always fit the installed torch."""

from __future__ import annotations

import sys
from functools import cache

import torch


@cache
def load_torchvision() -> None:
    """Import torchvision, also where its compiled operators do not fit this torch.

    Beside a torch for CPUs there is often torchvision's wheel for CUDA: its operators do not load, and
    its import fails at the names of two of them. Once these are declared the rest loads; nothing here
    calls an operator of object detection.

    Raises:
        RuntimeError: torchvision fails for another reason.
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        # What the failed import left behind would be taken for the module.
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            )
        import torchvision  # noqa: F401
