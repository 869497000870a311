"""Whatever a library raises at what it is given, as one error of ours that names it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from kovqa_core.errors import KovqaError
from kovqa_core.models.closed_folder import error_reason


@contextlib.contextmanager
def library_errors(make_error: Callable[[str], KovqaError]) -> Iterator[None]:
    """Errors of libraries, which raise another one for each kind of damage, become one of ours.

    Ours pass, and so does a lack of memory, which is nobody's damage.

    Args:
        make_error: from the reason that the library gives, in one line.

    Raises:
        KovqaError: the one that was made.
    """
    try:
        yield
    except (KovqaError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise make_error(error_reason(error)) from None
