"""`profile.deterministic`: only kernels that give the same bits every time they are given the same numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

_NO_KERNEL = "does not have a deterministic implementation"  # torch's words


def use_deterministic_kernels() -> None:
    """Let this process use no other kernels. What CUDA's libraries read is set by `machine/gpu_environment.py`.

    Not as warnings only: then torch's memory-efficient attention keeps its faster kernel, whose sums differ.
    """
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    # Else every new tensor is filled, to find code that reads what it never wrote: a pass over memory each time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextlib.contextmanager
def deterministic_errors() -> Iterator[None]:
    """An operation without such a kernel, as an error that names it.

    Raises:
        SettingsError: there was one.
    """
    try:
        yield
    except RuntimeError as error:
        if _NO_KERNEL not in str(error):
            raise
        raise SettingsError(
            message(
                "train.not-deterministic",
                "profile.deterministic: an operation of this model has no such kernel ({problem})",
                problem=str(error).split(_NO_KERNEL)[0].strip(),
            ),
            message("train.not-deterministic.hint", "go on without: --set profile.deterministic=false"),
        ) from error
