"""Copies of a run's tensors in host memory, from which a thread writes a checkpoint while training goes on."""

from __future__ import annotations

import torch
from torch import Tensor

from kovqa_core.machine.hardware import available_memory

# Of the memory that is free so much may go into copies: torch rounds page-locked memory up to a power of two, and
# the rest is for loader processes and for pages that the disk has not taken yet.
_MOST_OF_FREE = 0.5


class HostCopies:
    """Buffers that take a run's tensors at one moment, the same from save to save.

    Page-locked for a GPU, so that copies are queued like any kernel: what is launched later may change the
    tensors, and who reads the copies calls `wait` first.

    Args:
        device: where the tensors are.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers: dict[str, Tensor] = {}
        self._copied = torch.cuda.Event() if device.type == "cuda" else None

    def copy(self, name: str, tensor: Tensor) -> Tensor:
        """A contiguous copy of a tensor; the buffer of this name, which the next save writes over.

        Raises:
            RuntimeError: there is no memory for it (torch's own error, of the first save only).
        """
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
            buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._copied is not None)
            self._buffers[name] = buffer
        return buffer.copy_(tensor.detach(), non_blocking=True)

    def mark_complete(self) -> None:
        """Everything of this moment is queued."""
        if self._copied is not None:
            self._copied.record(torch.cuda.current_stream(self._device))

    def wait(self) -> None:
        """Wait, in whichever thread, until the copies of this moment are there."""
        if self._copied is not None:
            self._copied.synchronize()


def have_host_memory(size: int) -> bool:
    """May copies of so many bytes be made? No where the system does not say what is free."""
    free = available_memory()
    if free is None or size > _MOST_OF_FREE * free:
        return False
    try:
        torch.empty(size, dtype=torch.uint8)  # address space alone, which a limit of the process may refuse
    except RuntimeError:
        return False
    return True
