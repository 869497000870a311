"""Where weights are sharded: a second module of the same shape, that takes full weights for a while.

Families answer and save a full model and know nothing of shards. The shards' hooks, gathered one layer
at a time, would make every forward pass collective, and processes have different numbers of batches to
answer: one of them would wait for ever.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.models.family import FamilyModel


def make_full_parameter_copy(model: FamilyModel) -> FamilyModel:
    """The same model with parameters on `meta`, which take no memory; made before the model is sharded.

    Raises:
        SettingsError: weights in 4 or 8 bits, which cannot be sharded.
    """
    # deepcopy looks up what it has copied by id: entries made beforehand put empty parameters in the
    # place of real ones, and leave the buffers shared, so that nothing large is ever copied.
    memo: dict[int, object] = {}
    for name, parameter in model.named_parameters():
        if not parameter.is_floating_point():
            raise SettingsError(
                message(
                    "train.quantized-weights",
                    "{name} is quantized: weights like this cannot be sharded among processes",
                    name=name,
                ),
                message("train.quantized-weights.hint", "use --set profile.strategy=ddp"),
            )
        memo[id(parameter)] = nn.Parameter(_empty_on_meta(parameter), parameter.requires_grad)
    memo |= {id(buffer): buffer for buffer in model.buffers()}
    # A function that stands in a method's place may hold the module it came from, which nobody can copy.
    memo |= {id(module): module for module in list(sys.modules.values())}
    return copy.deepcopy(model, memo)


@contextlib.contextmanager
def summon_full_params(
    full_copy: FamilyModel,
    model: FamilyModel,
    full_tensors: Iterable[tuple[str, Tensor]],
    *,
    everywhere: bool,
    is_main_process: bool,
) -> Iterator[FamilyModel | None]:
    """The copy with full weights and the model's buffers; None on processes that are to have none.

    Args:
        full_copy: made by `make_full_parameter_copy`.
        model: the sharded one.
        full_tensors: names of parameters and full tensors; making one is collective, so that all
            processes go through all of them, also those that keep none.
        everywhere: on every process's device; else on the first process alone, on its CPU.
        is_main_process: is this the first process?
    """
    weights: dict[str, Tensor] = {}
    for name, tensor in full_tensors:
        if everywhere or is_main_process:
            weights[name] = tensor if everywhere else tensor.cpu()
    if not weights:
        yield None
        return
    assign_full_params(full_copy, model, weights, dict(model.named_buffers()))
    try:
        yield full_copy
    finally:  # frees the full weights
        empty = {name: _empty_on_meta(tensor) for name, tensor in weights.items()}
        assign_full_params(full_copy, model, empty, {})


def assign_full_params(
    full_copy: FamilyModel, model: FamilyModel, weights: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
) -> None:
    """Put tensors into the copy, themselves: nothing is copied.

    Args:
        full_copy: made by `make_full_parameter_copy`.
        model: the one that it was made of.
        weights: full, by the names of the model's parameters.
        buffers: by name; others stay.
    """
    # named_parameters() lists a tied weight once, load_state_dict wants it under both of its names.
    names_by_id = {id(p): name for name, p in model.named_parameters()}
    all_names = dict(model.named_parameters(remove_duplicate=False))
    state = {name: weights[names_by_id[id(p)]] for name, p in all_names.items()}
    for name, buffer in buffers.items():
        module_name, _, buffer_name = name.rpartition(".")
        full_copy.get_submodule(module_name)._buffers[buffer_name] = buffer
    full_copy.load_state_dict(state, strict=False, assign=True)


def copy_without_weights(model: FamilyModel) -> FamilyModel | None:
    """The copy that checkpoints are saved from; None: it has quantized weights, or code that cannot be copied."""
    if not all(parameter.is_floating_point() for parameter in model.parameters()):
        return None
    try:
        return make_full_parameter_copy(model)
    except (
        Exception
    ):  # a model's own code may hold anything; training stands still for its checkpoints, as is said
        return None


def _empty_on_meta(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, device="meta", requires_grad=False)
