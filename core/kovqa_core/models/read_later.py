"""Results of a GPU, read without stopping it: copied as soon as they are there, waited for once, when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def read_later(*tensors: Tensor) -> Callable[[], list[list[Any]]]:
    """Values of tensors as lists, read at the call of what is returned: one wait for all of them.

    On a GPU the copies stand in its queue behind what makes the values, and before all that is put there afterwards:
    `tolist` would wait for that, too. Elsewhere there is nothing to wait for.
    """
    is_cuda = tensors[0].device.type == "cuda"
    # Into page-locked memory, which torch takes for such a copy by itself. Only CUDA says when it is done.
    copies = [tensor.to("cpu", non_blocking=is_cuda) for tensor in tensors]
    copied = torch.cuda.Event() if is_cuda else None
    if copied is not None:
        copied.record()

    def read() -> list[list[Any]]:
        if copied is not None:
            copied.synchronize()
        return [copy.tolist() for copy in copies]

    return read
