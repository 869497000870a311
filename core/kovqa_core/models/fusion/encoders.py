"""The two encoders: any XLM-R-like one of transformers, any of timm, from folders or from nothing.

Shapes: B batch, T tokens, N regions of a picture, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.models.torchvision_compat import load_torchvision

_PRETRAINING_HEADS = ("lm_head.", "classifier.", "cls.", "qa_outputs.")  # of pretraining, not of the encoder


def build_question_encoder(config: dict[str, Any], pooled: bool) -> nn.Module:
    """An encoder of questions, its values not yet meant.

    Args:
        config: its whole configuration.
        pooled: with the layer that makes one vector of a question.

    Raises:
        SettingsError: of a kind transformers does not know, or one that only reads pictures.
    """
    load_torchvision()
    from transformers import AutoConfig, AutoModel

    try:
        settings = AutoConfig.for_model(**config)
        options = {} if pooled else {"add_pooling_layer": False}
        net: nn.Module = AutoModel.from_config(settings, trust_remote_code=False, **options)
    except (ValueError, KeyError, TypeError) as error:
        raise SettingsError(
            f"no question encoder {config.get('model_type')!r}: {str(error).splitlines()[0]}",
            "use one like XLM-RoBERTa (model_type xlm-roberta, roberta, bert)",
        ) from None
    return net


def build_image_encoder(config: dict[str, Any], width: int | None) -> nn.Module:
    """An encoder of pictures, its values not yet meant.

    Args:
        config: `architecture` and other arguments of `timm.create_model`.
        width: of one vector a picture; None: a grid of regions, as wide as the encoder is.

    Raises:
        SettingsError: an architecture timm does not know, or arguments it refuses.
    """
    load_torchvision()
    import timm

    arguments = {k: v for k, v in config.items() if k != "architecture"}
    shape: dict[str, Any] = {"num_classes": 0, "global_pool": ""} if width is None else {"num_classes": width}
    try:
        net: nn.Module = timm.create_model(config["architecture"], pretrained=False, **{**arguments, **shape})
    except (RuntimeError, TypeError, AssertionError) as error:
        raise SettingsError(
            f"no picture encoder {config['architecture']!r}: {str(error).splitlines()[0]}",
            "see the names of timm: python -c 'import timm; print(timm.list_models())'",
        ) from None
    return net


def flatten_regions(features: Tensor, channels: int) -> Tensor:
    """A grid of features as [B, N, C]: from a CNN's [B, C, h, w], or one with channels last."""
    if features.ndim == 3:
        return features
    if features.shape[1] == channels:
        return features.flatten(2).transpose(1, 2)
    return features.flatten(1, 2)


def load_encoder_weights(net: nn.Module, folder: Path) -> list[str]:
    """Copy published weights into an encoder; names of parameters that the file lacks.

    Heads of pretraining, and a classifier of another width, stay away.

    Args:
        net: the encoder.
        folder: with `model.safetensors` or `pytorch_model.bin`.

    Raises:
        ModelError: no weights, unreadable, or of other sizes.
    """
    found = _read_encoder_weights(folder)
    prefix = f"{getattr(net, 'base_model_prefix', '')}."  # a file with heads has "roberta." before the encoder's names
    found = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    own = net.state_dict()
    head = _classifier_prefixes(net)
    wrong = [
        f"{name} is {list(found[name].shape)}, wanted {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in found and found[name].shape != tensor.shape and not name.startswith(head)
    ]
    if wrong:
        raise ModelError(f"{folder} does not fit: {'; '.join(wrong[:3])}", "change its *_config back")
    fitting = {n: t for n, t in found.items() if n in own and own[n].shape == t.shape}
    lacking = [n for n, _ in net.named_parameters() if n not in fitting]
    strange = [n for n in lacking if not n.startswith((*head, "pooler."))]
    if strange:
        raise ModelError(f"{folder} lacks {', '.join(strange[:3])}", "is it the folder of another model?")
    net.load_state_dict(fitting, strict=False)
    return lacking


def _classifier_prefixes(net: nn.Module) -> tuple[str, ...]:
    """First words of the names of a timm model's classifier."""
    names = getattr(net, "default_cfg", {}).get("classifier", ())
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names or ()))


def _read_encoder_weights(folder: Path) -> dict[str, Tensor]:
    safe, old = folder / "model.safetensors", folder / "pytorch_model.bin"
    try:
        if safe.is_file():
            found = load_file(safe)
        elif old.is_file():
            found = torch.load(old, map_location="cpu", weights_only=True)
        else:
            raise ModelError(f"no model.safetensors in {folder}", "fetch the folder again")
    except ModelError:
        raise
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise ModelError(
            f"weights of {folder} cannot be read ({str(error).splitlines()[0]})", "fetch it again"
        ) from None
    return {n: t for n, t in found.items() if not n.startswith(_PRETRAINING_HEADS)}
