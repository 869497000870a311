"""Where weights are cut up: a second body of the model, that takes whole weights for a while.

Families answer and save a whole model and know nothing of pieces. Their hooks, gathered one layer at
a time, would make every forward pass something all processes must do together, and they have
different numbers of batches to answer.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from kovqa_core.errors import SettingsError


def make_full_parameter_copy(model: nn.Module) -> nn.Module:
    """The same model without weights of its own, made before the model's are cut.

    Raises:
        SettingsError: weights in 4 or 8 bits, which cannot be cut.
    """
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise SettingsError(
                f"{name} is quantized: weights like this cannot be cut up among processes",
                "use --set profile.strategy=ddp",
            )
        memo[id(parameter)] = nn.Parameter(_empty_on_meta(parameter), parameter.requires_grad)
    return copy.deepcopy(model, memo | {id(buffer): buffer for buffer in model.buffers()})


@contextlib.contextmanager
def summon_full_params(
    twin: nn.Module, model: nn.Module, wholes: Iterable[tuple[str, Tensor]], everywhere: bool, first: bool
) -> Iterator[nn.Module | None]:
    """The twin with whole weights and the model's buffers; None where it is not wanted.

    Args:
        twin: of the model.
        model: what is cut up.
        wholes: names of parameters and whole weights; putting one together takes all processes.
        everywhere: on every process's device; or on the first process alone, on its CPU.
        first: is this the first process?
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in wholes:
        if everywhere or first:
            weights[name] = tensor if everywhere else tensor.cpu()
    if not weights:
        yield None
        return
    named = {id(p): name for name, p in model.named_parameters()}
    every = dict(model.named_parameters(remove_duplicate=False))  # a weight two modules share has two names
    whole = {name: weights[named[id(p)]] for name, p in every.items()}
    empty = {name: _empty_on_meta(tensor) for name, tensor in whole.items()}
    for name, buffer in model.named_buffers():
        module, _, own = name.rpartition(".")
        twin.get_submodule(module)._buffers[own] = buffer
    twin.load_state_dict(whole, strict=False, assign=True)
    try:
        yield twin
    finally:
        twin.load_state_dict(empty, strict=False, assign=True)


def _empty_on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)
