"""Low-rank updates that begin as a part of the base's weights, and updates that are merged into them.

PiSSA and OLoRA take the product of their first factors out of each weight: W becomes W - s B₀ A₀, and the updates begin
as B₀ A₀, so that nothing has changed. A checkpoint keeps A₀ and -B₀ behind A and B, as one update of twice the rank:
onto the base as it was published that is what was learned, for peft and everybody else; and kovqa goes on with its
training from the same residual, without a singular value decomposition, whose last bits differ between machines.
Source: arXiv 2404.02948; peft 0.21.2, `LoraLayer.pissa_init` and `olora_init`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message
from kovqa_core.models.vlm.hf_libraries import peft
from kovqa_core.models.vlm.hf_types import HfNetwork

_ADAPTER = "default"  # peft's name of the only one
_ATTRIBUTE = (
    "initial_updates"  # of a network: B₀ and A₀ by name, on the CPU; no buffers, for no device reads them
)


def lora_layers(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """Name and layer of each linear layer with a low-rank update; the name that it has in peft's files."""
    for name, module in net.named_modules():
        if isinstance(module, peft.tuners.lora.LoraLayer) and _ADAPTER in module.lora_A:
            yield name, module


def initial_updates(net: nn.Module) -> Mapping[str, Tensor]:
    """What was taken out of the base's weights; empty: nothing."""
    found: Mapping[str, Tensor] = getattr(net, _ATTRIBUTE, {})
    return found


@torch.no_grad()
def begin_with_base(net: nn.Module, init: str) -> None:
    """Let updates begin as a part of the base's weights, which is taken out of them.

    By peft's own functions, but after it has made the updates: in the making it rounds them to the base's 16 bits, when
    the residual is made already, and the network is another one from the start.

    Args:
        net: with new updates.
        init: peft's name of the part.

    Raises:
        SettingsError: an update is of experts.
    """
    factors = {}
    for name, layer in lora_layers(net):
        if _is_of_experts(layer):
            raise SettingsError(
                message(
                    "vlm.experts-begin-with-nothing",
                    "init_lora_weights={init} takes its beginning out of linear layers, and {layer} holds experts",
                    init=init,
                    layer=name,
                ),
                message(
                    "vlm.experts-begin-with-nothing.hint",
                    "leave it out, or name other layers: --set model.lora.targets=[q_proj, v_proj]",
                ),
            )
        if init == "olora":
            layer.olora_init(_ADAPTER)
        else:
            layer.pissa_init(_ADAPTER, init)
        for factor in ("lora_A", "lora_B"):
            weight = getattr(layer, factor)[_ADAPTER].weight
            factors[f"{name}.{factor}.weight"] = weight.detach().cpu().clone()
    setattr(net, _ATTRIBUTE, factors)


def join_initial_updates(tensors: Mapping[str, Tensor], initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of an adapter as one of twice the rank: s (B A - B₀ A₀), an update of the base as it was published."""
    return {
        name: torch.cat([tensor, initial[name]] if "lora_A" in name else [tensor, -initial[name]], _dim(name))
        if name in initial
        else tensor
        for name, tensor in tensors.items()
    }


def joined_settings(settings: Mapping[str, Any]) -> dict[str, object]:
    """What peft's configuration says of it: the same factor s at twice the rank."""
    alpha = settings["lora_alpha"] * (math.sqrt(2) if settings["use_rslora"] else 2)
    return {"r": 2 * settings["r"], "lora_alpha": alpha, "init_lora_weights": True}


def split_initial_updates(
    tensors: Mapping[str, Tensor], net: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What `join_initial_updates` joined; an adapter of the network's own rank stays whole, and has no second part."""
    learned, initial = dict(tensors), {}
    for name, layer in lora_layers(net):
        for factor in ("lora_A", "lora_B"):
            key, dim = f"{name}.{factor}.weight", _dim(factor)
            tensor, rank = tensors[key], layer.r[_ADAPTER]
            if tensor.shape[dim] == 2 * rank:
                first, second = tensor.split(rank, dim)
                learned[key], initial[key] = first, second if dim == 0 else -second
    return learned, initial


def _dim(name: str) -> int:
    """Which side of a factor is the rank: A is [r, in], B [out, r]."""
    return 0 if "lora_A" in name else 1


@torch.no_grad()
def take_out_updates(net: nn.Module, factors: Mapping[str, Tensor]) -> None:
    """Take initial updates out of the weights of a base as it was published.

    Args:
        net: with updates in place.
        factors: as of `initial_updates`.

    Raises:
        SettingsError: a base in 4 bits, out of which nothing can be taken.
    """
    for name, layer in lora_layers(net):
        weight = layer.get_base_layer().weight
        if not weight.is_floating_point():
            raise SettingsError(
                message(
                    "vlm.base-in-four-bits",
                    "what this model began with was taken out of its base's weights, which cannot be done in 4 bits",
                ),
                message(
                    "vlm.base-in-four-bits.hint",
                    "merge it first (kovqa export) and load that with --load 4bit, or leave out --load",
                ),
            )
        first, second = (
            factors[f"{name}.{factor}.weight"].to(weight.device) for factor in ("lora_A", "lora_B")
        )
        # In peft's order of operations, which is what the first training rounded.
        residual = weight.data.float() - layer.scaling[_ADAPTER] * second @ first
        weight.data = residual.to(weight.dtype)
    setattr(net, _ATTRIBUTE, dict(factors))


@torch.no_grad()
def take_quantised_weights(net: nn.Module, quantised: nn.Module) -> None:
    """Give a network the weights of the same one in 4 bits, as it computes with them.

    Args:
        net: in 16 bits, tuned in the same way.
        quantised: by bitsandbytes.
    """
    for name, module in quantised.named_modules():
        if type(module).__name__ == "Linear4bit" and not isinstance(module, peft.tuners.lora.LoraLayer):
            target = net.get_submodule(name)
            weight = peft.utils.integrations.dequantize_module_weight(module)
            target.weight.data = weight.to(target.weight.dtype)


def updated_weight(layer: Any) -> nn.Parameter:
    """The weight that a layer's update is added to; experts hold theirs under names of their own."""
    weight: nn.Parameter = layer.get_param() if _is_of_experts(layer) else layer.get_base_layer().weight
    return weight


def _is_of_experts(layer: object) -> bool:
    return isinstance(layer, peft.tuners.lora.layer.ParamWrapper)


@torch.no_grad()
def merge_updates(net: HfNetwork) -> tuple[HfNetwork, float]:
    """A plain network again: updates are added to the weights in fp32, and the sums rounded once.

    peft adds them in the weights' own type, which rounds an update before it is added, and the sum again.

    Returns:
        The network, and the largest rounding of a weight; 0 where weights are in fp32, or nothing was merged.
    """
    if not isinstance(net, peft.PeftModel):
        return net, 0.0
    largest = 0.0
    for _, layer in lora_layers(net):
        weight = updated_weight(layer)
        dtype = weight.dtype
        weight.data = weight.data.float()
        layer.merge()
        exact = weight.data
        weight.data = exact.to(dtype)
        largest = max(largest, float((exact - weight.data.float()).abs().max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that these are merged already
        return net.merge_and_unload(), largest  # what is left: rows of the text table
