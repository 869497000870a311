"""Limits of a process that an error comes from: memory, open files, processes. They are this machine's, exit code 4.

Libraries have errors of their own for them: numpy a MemoryError, torch a RuntimeError that names its allocator,
the dynamic linker an ImportError, glibc's threads "can't start new thread".
"""

from __future__ import annotations

import errno
import mmap
import re
from collections.abc import Iterator

from kovqa_core import cgroup
from kovqa_core.errors import KovqaError, MachineError
from kovqa_core.messages import Message, message
from kovqa_core.soft_limit import soft_limit

_MEMORY_TEXT = re.compile(
    "bad_alloc|annot allocate memory|an't allocate memory|not enough memory|failed to map segment|"
    "nable to allocate|cannot create shared object|cannot enable executable stack|cannot apply additional memory"
)
# What CUDA and its libraries say of a GPU's memory. cuBLAS cannot begin where nothing is left for its workspace, and
# names neither memory nor the way to it; so do NCCL and cuDNN, which take theirs beside torch.
_GPU_MEMORY_TEXT = re.compile(
    "CUDA out of memory|CUDA error: out of memory|CUDA driver error: out of memory|CUBLAS_STATUS_ALLOC_FAILED|"
    "CUDNN_STATUS_ALLOC_FAILED|CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED|CUBLAS_STATUS_NOT_INITIALIZED|"
    "CUSOLVER_STATUS_ALLOC_FAILED|Cuda failure 2 |Cuda failure 'out of memory'|HIP out of memory|"
    "MPS backend out of memory"
)
_MAX_CHAIN = 20  # errors that led to one another


def find_limit(error: BaseException) -> MachineError | None:
    """The limit that an error, or what led to it, comes from; None where it is none, or names one already.

    Args:
        error: what a command ends with; also one that says "cannot read FILE" and came of an OSError.
    """
    if isinstance(error, MachineError):
        return None
    for each in error_chain(error):
        if isinstance(each, KovqaError):
            continue
        if found := _limit_of(each):
            # The error that a person would have seen says where it happened.
            place = error.message if isinstance(error, KovqaError) else _first_line(each)
            text, hint = found
            return MachineError(
                message("process_limits.reached", "{limit} ({place})", limit=text, place=place), hint
            )
    return None


def is_memory_error(error: BaseException) -> bool:
    """Does an error say that memory could not be had?"""
    number = error.errno if isinstance(error, OSError) else None
    return isinstance(error, MemoryError) or number == errno.ENOMEM or bool(_MEMORY_TEXT.search(str(error)))


def is_gpu_memory_error(error: BaseException) -> bool:
    """Does an error, or what led to it, say that a GPU's memory is used up? Torch's, CUDA's, cuBLAS's, cuDNN's, NCCL's."""
    return any(_says_gpu_memory(each) for each in error_chain(error))


def _says_gpu_memory(error: BaseException) -> bool:
    return type(error).__name__ == "OutOfMemoryError" or (
        isinstance(error, RuntimeError) and bool(_GPU_MEMORY_TEXT.search(str(error)))
    )


def has_memory(size: int) -> bool:
    """May this process have so many bytes more?"""
    try:
        mmap.mmap(-1, size).close()  # room is reserved; no page of it is touched
    except (OSError, MemoryError, OverflowError, ValueError):
        return False
    return True


def error_chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    current: BaseException | None = error
    for _ in range(_MAX_CHAIN):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def _limit_of(error: BaseException) -> tuple[Message, Message] | None:
    """What is used up, and what to do, by the kind of an error."""
    number = error.errno if isinstance(error, OSError) else None
    text = str(error)
    if _says_gpu_memory(error):
        return _gpu_memory()
    if is_memory_error(error):
        return _memory()
    if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
        return _open_files(everywhere=number == errno.ENFILE)
    if "can't start new thread" in text or (
        number == errno.EAGAIN and isinstance(error, OSError) and error.filename is None
    ):
        return _memory() if soft_limit("RLIMIT_AS") else _processes()
    return None


def _memory() -> tuple[Message, Message]:
    limit, name = soft_limit("RLIMIT_AS"), "ulimit -v"
    if limit is None:
        limit, name = soft_limit("RLIMIT_DATA"), "ulimit -d"
    hint = message("process_limits.memory.hint", "raise the limit, or take a smaller batch or model")
    if limit is not None:
        text = message(
            "process_limits.memory", "not enough memory: this process may have {limit:,} MB ({name})",
            limit=limit // 2**20, name=name,
        )  # fmt: skip
        return text, hint
    group = cgroup.memory_limit()
    if group is not None:
        text = message(
            "process_limits.memory-of-group",
            "not enough memory: this container or job may have {limit:,} MB", limit=group // 2**20,
        )  # fmt: skip
        return text, hint
    return message("process_limits.memory-of-machine", "this machine has not enough memory"), message(
        "process_limits.memory-of-machine.hint", "end other programs, or take a smaller batch or model"
    )


def _gpu_memory() -> tuple[Message, Message]:
    return message("process_limits.gpu-memory", "the GPU has not enough memory"), message(
        "process_limits.gpu-memory.hint",
        "take a smaller batch or model, or another GPU: nvidia-smi shows who else uses it",
    )


def _open_files(*, everywhere: bool) -> tuple[Message, Message]:
    if everywhere:
        return message("process_limits.open-files-of-machine", "too many files are open on this machine"), message(
            "process_limits.open-files-of-machine.hint", "end other programs, or raise fs.file-max"
        )  # fmt: skip
    text = message(
        "process_limits.open-files",
        "more files are open than a process may have here: {limit:,} (ulimit -n)",
        limit=soft_limit("RLIMIT_NOFILE") or 0,
    )
    return text, message("process_limits.open-files.hint", "raise the limit: ulimit -n 65536")


def _processes() -> tuple[Message, Message]:
    limit = soft_limit("RLIMIT_NPROC")
    hint = message(
        "process_limits.processes.hint",
        "raise the limit, or that of the container or job (pids.max), or end other programs",
    )
    if limit is None:
        return message(
            "process_limits.processes-of-machine", "no process or thread more can be started"
        ), hint
    text = message(
        "process_limits.processes",
        "no process or thread more can be started: a user may have {limit:,} (ulimit -u)",
        limit=limit,
    )
    return text, hint


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
