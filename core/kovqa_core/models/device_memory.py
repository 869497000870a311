"""Memory of the device a model is on: what is free, whether it ran out, and how it is handed back."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from traceback import clear_frames

import torch

from kovqa_core.process_limits import is_gpu_memory_error, is_memory_error

# What oneDNN says of memory, which may not recover.
_ONEDNN_TEXTS = ("could not create a primitive", "could not execute a primitive")


def out_of_memory_text(error: RuntimeError | MemoryError) -> str:
    """The first line of an error that says that memory ran out; empty: it says something else."""
    text = str(error)
    is_memory = is_gpu_memory_error(error) or is_memory_error(error)
    if not is_memory and not any(known in text for known in _ONEDNN_TEXTS):
        return ""
    return text.splitlines()[0][:200] if text else "MemoryError"


def forget_tensors(error: BaseException) -> None:
    """Let go of what the frames of an error hold: the next try needs the room of it."""
    clear_frames(error.__traceback__)


def release_memory(device: torch.device) -> None:
    """Hand free memory back to the system, so that the next try finds it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps it, and has this
        ctypes.CDLL(None).malloc_trim(0)


def free_memory(device: torch.device) -> float:
    """Bytes of a GPU that this process may still have: nobody's, and what torch keeps for it and does not use."""
    free, _ = torch.cuda.mem_get_info(device)
    return float(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
