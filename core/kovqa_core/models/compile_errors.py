"""Errors of torch.compile: what a person is told of them, and how a run goes on without it. Loads no torch."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import MachineError
from kovqa_core.messages import message, shell_quote
from kovqa_core.messages.one_line import cut_value
from kovqa_core.process_limits import error_chain

# Modules whose own errors come of compiling. Triton's come at a kernel's first call: more shared memory than there is.
_COMPILER_MODULES = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
_LONGEST_REASON = 200  # characters; a C++ compiler prints 100,000


def find_compile_error(error: BaseException, folder: Path) -> MachineError | None:
    """The error of a compiler that training ended with; None where it is none.

    Args:
        error: what training ended with.
        folder: of the run.
    """
    current = next(filter(_is_of_compiler, error_chain(error)), None)
    if current is None:
        return None
    lines = [line.strip() for line in str(current).splitlines() if line.strip()]
    reason = cut_value(lines[0], _LONGEST_REASON) if lines else type(current).__name__
    return MachineError(
        message("models.compile-failed", "the layers could not be compiled: {reason}", reason=reason),
        message(
            "models.compile-failed.hint",
            "train without: kovqa train --resume -o {folder} --set profile.compile=false; all of it: {log}",
            folder=shell_quote(folder),
            log=folder / "logs",
        ),
    )


def _is_of_compiler(error: BaseException) -> bool:
    module = type(error).__module__
    return any(module == name or module.startswith(f"{name}.") for name in _COMPILER_MODULES)
