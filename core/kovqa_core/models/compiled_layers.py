"""torch.compile for the layers of a model: one compiled form for all of them, and few forms in a run.

A compiled form ("graph") is made at the first call whose tensors fit none before, and takes seconds to a
minute. So that a run has few, and a resumed run the same ones:

* layers share their code, and torch.compile their graph: weights are arguments;
* a size that changes from batch to batch (text length, rows) is marked before the first call,
  and all others are fixed: torch's own way, to notice at the second size, would depend on what came first;
* no argument is a tensor in one batch and None in the next;
* beyond RECOMPILE_LIMIT graphs of one function training ends: torch would go on without any, in silence.

What compiles is imported in functions: torch's compiler takes a second to load, which answering on a CPU saves.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sysconfig
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from kovqa_core.errors import MachineError
from kovqa_core.messages import Message, message

RECOMPILE_LIMIT = 16  # graphs of one function; torch's own is 8
WantedCompile = Literal["auto"] | bool


def choose_compile(wanted: WantedCompile, device: torch.device, strategy: str) -> tuple[bool, Message | None]:
    """Does a model train compiled, and what a person should know about that.

    Args:
        wanted: `profile.compile`; "auto": on a GPU, where it can.
        device: the model's.
        strategy: of the profile.

    Returns:
        Where "auto" leaves it out on a GPU, why; else None.

    Raises:
        MachineError: it is wanted, and this machine cannot.
    """
    if wanted is False or (wanted == "auto" and device.type != "cuda"):
        return False, None
    if strategy == "zero3":  # `settings.strategy` refuses it where it is wanted
        problem: Message | None = message("models.zero3-not-compiled", "strategy zero3 cannot")
    else:
        problem = missing_for_compile(device)
    if problem is None:
        return True, None
    if wanted is True:
        raise MachineError(
            message(
                "models.cannot-compile",
                "profile.compile: this machine cannot compile: {problem}",
                problem=problem,
            ),
            message("models.cannot-compile.hint", "install it, or use --set profile.compile=false"),
        )
    return False, message(
        "models.not-compiled",
        "the layers are not compiled, which makes training slower: {problem} (profile.compile: auto)",
        problem=problem,
    )


def missing_for_compile(device: torch.device) -> Message | None:
    """What torch.compile needs for a device and does not find; None: nothing."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return message("models.no-triton", "Triton is not installed")
        # Triton compiles a little C for each kernel that it starts (triton/runtime/build.py).
        if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
            return message("models.no-c-compiler", "no C compiler (gcc or clang; variable CC names another)")
        headers = Path(sysconfig.get_paths(scheme="posix_prefix")["include"])
        if not (headers / "Python.h").is_file():
            return message(
                "models.no-python-headers", "no Python.h in {folder} (package python3-dev)", folder=headers
            )
        return _missing_on_gpu(device)
    if device.type == "cpu" and not (os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")):
        return message(
            "models.no-cpp-compiler", "no C++ compiler (g++ or clang++; variable CXX names another)"
        )
    return None


def _missing_on_gpu(device: torch.device) -> Message | None:
    """What a kernel compiled as a trial, and run, says; None: it runs."""
    try:
        with torch.no_grad():
            torch.compile(_trial_kernel)(torch.ones(64, 64, device=device))
    except (
        Exception
    ) as error:  # whatever a compiler, a driver or a cache folder that cannot be written raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return message("models.trial-kernel-failed", "a trial failed: {problem}", problem=lines[0])
    finally:
        torch._dynamo.reset()
    return None


def _trial_kernel(x: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x) + 1


def compile_methods(module: nn.Module, *names: str, fullgraph: bool = True, dynamic: bool = False) -> None:
    """Compile methods of a module in place: neither parameters nor modules get other names.

    Args:
        module: one layer of many; all get the same graphs.
        names: of its methods; "forward": hooks around it (FSDP's) stay as they are.
        fullgraph: an operation that cannot be compiled is an error; else it cuts the graph in two.
        dynamic: all sizes of activations may change; else those alone that `mark_varying` marks.
    """
    import torch._dynamo.config as config

    # torch's own limit is for one piece of code, which all layers of a model share.
    config.recompile_limit = max(RECOMPILE_LIMIT, config.recompile_limit)
    config.fail_on_recompile_limit_hit = True
    for name in names:
        compiled = torch.compile(getattr(module, name), fullgraph=fullgraph, dynamic=dynamic)
        setattr(module, name, compiled)


@dataclass
class CompileTimes:
    """Graphs that torch.compile has made since `watch_compiling`.

    Attributes:
        graphs: how many.
        seconds: that this took; of a backward pass compiled later too.
    """

    graphs: int = 0
    seconds: float = 0.0
    _said: int = 0

    def note(self) -> Message | None:
        """What was compiled, where that has not been said yet."""
        if self.graphs == self._said:
            return None
        self._said = self.graphs
        return message(
            "models.compiled-layers",
            "torch.compile: {graphs} compiled forms of the layers so far, made in {seconds:.0f} s",
            graphs=self.graphs,
            seconds=self.seconds,
        )


def watch_compiling(on_compile: Callable[[], object]) -> CompileTimes:
    """Count from now on what is compiled; `on_compile` is called as each compilation begins and ends."""
    from torch._dynamo.callback import callback_handler

    times, began, graphs_before = CompileTimes(), [0.0], _count_graphs()

    # torch 2.7 calls them without arguments.
    def start(*_: object) -> None:
        began[0] = time.monotonic()
        on_compile()

    def end(*_: object) -> None:
        times.seconds += time.monotonic() - began[0]
        times.graphs = _count_graphs() - graphs_before
        on_compile()

    callback_handler.register_start_callback(start)
    callback_handler.register_end_callback(end)
    return times


def _count_graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def mark_varying(tensor: Tensor, dim: int) -> None:
    """Say that a size, at least 2, changes from call to call, before a compiled method gets the tensor.

    No `hint_override`: what inductor concludes from a hint becomes a guard, which fails at once where the size
    that comes is another (torch 2.13: "Guard failed on the same frame it was created").
    """
    torch._dynamo.mark_dynamic(tensor, dim)


def eager_layers(*, compiled: bool) -> AbstractContextManager[object]:
    """Layers that were compiled for training run as they were written: answers come in sizes of their own.

    Args:
        compiled: were any? torch's compiler takes seconds to be imported.
    """
    return torch.compiler.set_stance("force_eager") if compiled else contextlib.nullcontext()
