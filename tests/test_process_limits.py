"""Limits of memory, open files and processes end with 4 and one line that names the limit."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, MachineError, SettingsError
from kovqa_core.files import read_text
from kovqa_core.process_limits import find_limit

from tests.conftest import Small, clean_env, command


class OutOfMemoryError(RuntimeError):
    """As torch names that of a GPU."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "enough memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "enough memory"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), "enough memory"),
        (RuntimeError("std::bad_alloc"), "enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "enough memory"),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), "GPU has not enough memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"), "GPU has not"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), "GPU has not"),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), "GPU has not"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "GPU has not enough memory"),
        (RuntimeError("NCCL error: unhandled cuda error\nLast error:\nCuda failure 2 'out of memory'"), "GPU has not"),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "ulimit -n"),
        (OSError(errno.ENFILE, "Too many open files in system"), "open on this machine"),
        (RuntimeError("can't start new thread"), "no process or thread more"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "no process or thread more"),
    ],
)  # fmt: skip
def test_a_limit_is_named(error: Exception, words: str) -> None:
    found = find_limit(error)
    assert isinstance(found, MachineError)
    assert words in found.message
    assert found.hint
    assert len(str(found.message).splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("odd"), OSError(errno.ENOENT, "No such file"), SettingsError("unknown key"), MachineError("no GPU"),
     BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable", "lock")],
)  # fmt: skip
def test_other_errors_are_no_limit(error: Exception) -> None:
    assert find_limit(error) is None


def test_an_error_that_came_of_a_limit_is_the_limit(tmp_path: Path) -> None:
    """An unreadable file is the user's; one for which no descriptor was left is not."""
    (tmp_path / "a.txt").write_text("가")
    _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        with pytest.raises(OSError) as raised:
            read_text(tmp_path / "a.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    found = find_limit(raised.value)
    assert found is not None
    assert f"{tmp_path / 'a.txt'}" in found.message
    assert "ulimit -n" in found.message
    with pytest.raises(DataError) as missing:
        read_text(tmp_path / "b.txt")
    assert find_limit(missing.value) is None


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (lambda: resource.setrlimit(resource.RLIMIT_AS, (60 << 20, 60 << 20)), "(ulimit -v)"),
        (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6)), "ulimit -n"),
    ],
)  # fmt: skip
def test_a_whole_command_ends_with_4(
    small: Small, tmp_path: Path, limit: Callable[[], None], words: str
) -> None:
    done = subprocess.run(
        command(["index", "aihub", "--root", small.root, "-o", tmp_path / "i"]), text=True, env=clean_env(),
        capture_output=True, timeout=60, preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "i" / "index.json").exists()
