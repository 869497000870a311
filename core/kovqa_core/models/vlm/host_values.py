"""What transformers reads from tensors as Python values is read on the CPU, where a batch came from.

Whoever reads a number from a GPU waits for all kernels queued before it. transformers reads token ids to find
positions and to count placeholders, and sizes of images to lay out their patches: about fifty times in a forward pass
of Qwen3-VL (docs/surprises.md). All of that is known on the CPU, so its own functions are given the copies that are
still there, and what they return is sent to the GPU without waiting. On a CPU the copies are the tensors themselves:
the same functions, the same numbers.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from kovqa_core.models.vlm.hf_types import HfNetwork

# Modeling modules of transformers whose vision towers take what `_patch_layout` works out.
_LAID_OUT_TOWERS = frozenset((
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "exaone4_5",
))  # fmt: skip
# Decoders whose one mask is the causal one over what is no padding, and which take it as it is.
_CAUSAL_DECODERS = frozenset(
    ("LlamaModel", "Qwen2Model", "Qwen3Model", "Qwen2VLTextModel", "Qwen2_5_VLTextModel", "Qwen3VLTextModel",
     "HyperCLOVAXModel")
)  # fmt: skip
# Networks that read the sizes of images one by one, to cut them into tiles.
_TILING_NETWORKS = frozenset(("LlavaNextModel", "LlavaOnevisionModel"))
_TILE_SIZES = ("image_sizes", "batch_num_images")


class HostValues:
    """A network whose Python code reads tensors of the CPU while it works on a batch.

    Args:
        net: a network of transformers, or peft's wrapping of one; three of its methods are called through this.

    Attributes:
        is_causal: is the causal mask the only one of the decoder?
        masks_padding: do rows of training get a mask, where such a decoder would do without?
        host_names: ends of names of what the network is to get as tensors of the CPU: sizes of images.
    """

    def __init__(self, net: HfNetwork) -> None:
        self.host_names: tuple[str, ...] = ()
        self.masks_padding = True
        self.is_causal = self._has_deepstack = False
        self._tokens: Mapping[str, Tensor] = {}  # of the batch at work, on the CPU; empty: none
        self._image_positions: Tensor | None = None  # of its image tokens in [B · N], on the device
        for module in list(net.modules()):
            self._take_over(module)

    def _take_over(self, module: nn.Module) -> None:
        kind = type(module)
        for name, call in (
            ("get_rope_index", self._call_on_host),
            ("get_placeholder_mask", self._call_on_host),
            ("_deepstack_process", self._add_image_features),
        ):
            if callable(getattr(kind, name, None)):
                self._has_deepstack |= name == "_deepstack_process"
                setattr(module, name, partial(call, getattr(module, name)))
        if kind.__name__ in _CAUSAL_DECODERS:
            self.is_causal = _attends_causally(getattr(module, "config", None))
        if kind.__name__ in _TILING_NETWORKS:
            self.host_names += _TILE_SIZES
        takes_layout = _LAID_OUT_TOWERS.issuperset(kind.__module__.split(".")[-2:-1])
        if takes_layout and "grid_thw" in inspect.signature(kind.forward).parameters:
            self._hand_layout_to(module)

    def _hand_layout_to(self, tower: Any) -> None:
        if tower.config._attn_implementation in ("sdpa", "eager"):  # others read on the GPU
            self.host_names += ("_grid_thw",)
            modeling = sys.modules[type(tower).__module__]
            tower.register_forward_pre_hook(partial(_hand_over_layout, modeling), with_kwargs=True)

    @contextlib.contextmanager
    def of(self, tokens: Mapping[str, Tensor]) -> Iterator[None]:
        """While the network works on these tensors; outside, its methods are as transformers wrote them.

        Args:
            tokens: of the CPU: input_ids, attention_mask, … [B, N], by the names of the network's arguments.
        """
        self._tokens = tokens
        try:
            yield
        finally:
            self._tokens, self._image_positions = {}, None

    def keep_on_host(self, tensors: Mapping[str, Tensor], host: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors of the device, but for sizes of images that are read one by one.

        Args:
            tensors: on the device.
            host: the same on the CPU.
        """
        return {name: host[name] if name.endswith(self.host_names) else t for name, t in tensors.items()}

    def training_inputs(self, tensors: Mapping[str, Tensor], host: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The arguments of a forward pass over rows padded on the right: `keep_on_host`, and a mask not to be read."""
        inputs = self.keep_on_host(tensors, host)
        mask = host.get("attention_mask")
        if mask is None:
            return inputs
        if bool(mask.all()) or (self.is_causal and not self.masks_padding):
            # Without padding that is what a network makes of it, after reading it. And no token sees padding on its
            # right, so that a decoder with the causal mask alone needs no other.
            del inputs["attention_mask"]
        elif self.is_causal:
            length = mask.shape[1]
            causal = torch.ones(
                length, length, dtype=torch.bool, device=tensors["attention_mask"].device
            ).tril()
            inputs["attention_mask"] = (
                causal & tensors["attention_mask"].bool()[:, None, None, :]
            )  # [B, 1, N, N]
        return inputs

    def _call_on_host(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a method returns, called with the CPU's copies of tokens, sent to where the tokens are."""
        bound = self._bind_on_host(method, *args, **kwargs)
        if bound is None:
            return method(*args, **kwargs)
        device = inspect.signature(method).bind(*args, **kwargs).arguments["input_ids"].device
        result = method(*bound.args, **bound.kwargs)
        if method.__name__ == "get_placeholder_mask" and self._has_deepstack:
            image_mask = result[0] if isinstance(result, tuple) else result  # [B, N, 1]
            positions = image_mask[..., 0].flatten().nonzero()[:, 0]
            self._image_positions = send_without_waiting(positions, device)
        return tree_map(partial(send_without_waiting, device=device), result)

    def _bind_on_host(
        self, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> inspect.BoundArguments | None:
        """A method's arguments with tensors of the CPU for those of the batch; None: they are not of this batch."""
        bound = inspect.signature(method).bind(*args, **kwargs)
        ids, host_ids = bound.arguments.get("input_ids"), self._tokens.get("input_ids")
        if ids is None or host_ids is None or ids.shape != host_ids.shape:
            return None
        for name, value in bound.arguments.items():
            if not isinstance(value, Tensor) or name in ("image_features", "video_features"):
                continue  # of features only the number is asked for
            if name == "inputs_embeds":  # and of these the shape: nothing is held for them
                bound.arguments[name] = torch.empty(1, dtype=value.dtype).expand(value.shape)
            elif name in self._tokens:  # of the same ids, so of the same batch; a mask that was made 2D again
                bound.arguments[name] = self._tokens[name]
            elif value.device.type != "cpu":
                return None
        return bound

    def _add_image_features(
        self, method: Callable[..., Tensor], hidden: Tensor, mask: Tensor, features: Tensor
    ) -> Tensor:
        """Add features [P, D] to the states [B, N, D] of the image tokens: by their positions, a mask would be read."""
        positions = self._image_positions
        if positions is None or len(positions) != len(features):
            return method(hidden, mask, features)
        states = hidden.flatten(0, 1)
        return states.index_add(0, positions, features.to(states.device, states.dtype)).view_as(hidden)


def send_without_waiting(value: Any, device: torch.device) -> Any:
    """A tensor of the CPU on a device; other values as they are."""
    if not isinstance(value, Tensor) or value.device == device:
        return value
    # Only page-locked memory is copied while the CPU goes on.
    return (value.pin_memory() if device.type == "cuda" else value).to(device, non_blocking=True)


def _attends_causally(config: Any) -> bool:
    """Is the causal mask the only one of a decoder, and given as bools?"""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and getattr(config, "_attn_implementation", None) == "sdpa"


def _hand_over_layout(
    modeling: Any, tower: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Give a vision tower what it would work out of the images' sizes: transformers' own functions, on the CPU.

    Args:
        modeling: the tower's module of transformers; the names it imports say what the tower works out.
        tower: the tower.
        args: of its forward pass.
        kwargs: of its forward pass.
    """
    grid = kwargs["grid_thw"] if "grid_thw" in kwargs else args[1]
    patches: Tensor = kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]
    if grid.device.type != "cpu":
        return args, kwargs
    layout: dict[str, Tensor] = {}
    if hasattr(modeling, "get_vision_position_ids"):
        layout["position_ids"] = modeling.get_vision_position_ids(grid, tower.spatial_merge_size)
    if hasattr(modeling, "get_vision_interpolation_indices_and_weights"):
        layout["interp_indices"], layout["interp_weights"] = (
            modeling.get_vision_interpolation_indices_and_weights(
                grid, num_grid_per_side=tower.num_grid_per_side, mode=tower.interpolation_mode,
                align_corners=tower.interpolation_align_corners, spatial_merge_size=tower.spatial_merge_size,
            )
        )  # fmt: skip
    borders: dict[str, Tensor] = {}  # read by Python, as lengths of sequences
    if hasattr(modeling, "get_vision_window_index"):
        layout["window_index"], borders["cu_window_seqlens"] = modeling.get_vision_window_index(
            grid, spatial_merge_size=tower.spatial_merge_size, window_size=tower.window_size, patch_size=tower.patch_size
        )  # fmt: skip
    sent = {name: send_without_waiting(value, patches.device) for name, value in layout.items()}
    return args, {**kwargs, **sent, **borders}
