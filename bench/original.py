"""The original BEiT-3 VQA model, as the peer to compare with.

The encoder is torchscale's own (PyPI `torchscale==0.2.0`, what the published fine-tuning code
pins); around it stand the pooler and the classifier of that code. `make bench` installs
torchscale without its pins, because fairscale no longer builds: the two functions it takes from
there (activation checkpointing, sharding) and the one from timm (stochastic depth) are off in
every configuration used here, so placeholders stand in for them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from kovqa_core.models.beit3.config import Config
from kovqa_core.models.beit3.net import EPS, VqaNet
from kovqa_core.models.beit3.weights import original_names
from torch import Tensor, nn

_UNUSED = {"fairscale.nn": ("checkpoint_wrapper", "wrap"), "timm.models.layers": ("drop_path",)}


def _never(*_: object, **__: object) -> None:
    raise NotImplementedError("a placeholder: the benchmark uses neither fairscale nor timm")


def _placeholders() -> None:
    """Modules that torchscale imports and that nothing here calls."""
    for path, names in _UNUSED.items():
        parts = path.split(".")
        for end in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:end]), ModuleType(".".join(parts[:end])))
        for name in names:
            setattr(sys.modules[path], name, _never)


def _encoder(config: Config) -> nn.Module:
    """torchscale's BEiT-3 with the settings of VQA fine-tuning."""
    _placeholders()
    try:
        from torchscale.architecture.config import EncoderConfig
        from torchscale.model.BEiT3 import BEiT3
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: the comparison needs torchscale; pip install --no-deps torchscale==0.2.0")

    size = config.sizes
    return BEiT3(
        EncoderConfig(
            img_size=config.image,
            patch_size=config.patch,
            vocab_size=config.vocab,
            multiway=True,
            layernorm_embedding=False,
            normalize_output=False,
            no_output_layer=True,
            drop_path_rate=0.0,
            encoder_embed_dim=size.embed_dim,
            encoder_attention_heads=size.num_heads,
            encoder_ffn_embed_dim=size.ffn_dim,
            encoder_layers=size.num_layers,
            layernorm_eps=EPS,
        )
    )


class Pooler(nn.Module):
    """tanh of a linear layer over the normalised class token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, EPS)
        self.dense = nn.Linear(width, width)
        self.activation = nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, D]."""
        return self.activation(self.dense(self.norm(x[:, 0])))


class OriginalVqa(nn.Module):
    """Encoder, pooler and classifier, under the names of the published weight files."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, classes = config.sizes.embed_dim, config.classes
        if classes is None:
            raise ValueError("config.classes must be set")
        self.beit3 = _encoder(config)
        self.pooler = Pooler(width)
        self.head = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.LayerNorm(2 * width, EPS),
            nn.GELU(),
            nn.Linear(2 * width, classes),
        )

    def forward(self, image: Tensor, tokens: Tensor, padding: Tensor) -> Tensor:
        """Logits [B, C]; text is padded to its full length, as the published code does."""
        seen: dict[str, Any] = self.beit3(
            textual_tokens=tokens, visual_tokens=image, text_padding_position=padding
        )
        return self.head(self.pooler(seen["encoder_out"]))


def original_like(net: VqaNet, config: Config) -> OriginalVqa:
    """The original model with the weights of one of ours.

    Raises:
        RuntimeError: a weight of one has no counterpart in the other.
    """
    original = OriginalVqa(config)
    shapes = {name: value.shape for name, value in original.named_parameters()}
    state: dict[str, Tensor] = {}
    for own, parameter in net.named_parameters():
        names = original_names(own)
        parts = parameter.detach().chunk(len(names))
        state.update({n: part.reshape(shapes[n]) for n, part in zip(names, parts, strict=True)})
    original.load_state_dict(state, strict=True)
    return original


@torch.no_grad()
def difference(original: nn.Module, ours: nn.Module, theirs: tuple[Any, ...], own: tuple[Any, ...]) -> float:
    """Largest absolute difference of the two models' logits."""
    return float((original(*theirs) - ours(*own)).abs().max())
