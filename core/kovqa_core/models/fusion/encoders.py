"""The two encoders: any XLM-R-like one of transformers, any of timm, from folders or from nothing.

Shapes (models/family.py): B batch, P regions of an image, D width of an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kovqa_core.errors import ModelError, SettingsError, first_names
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.models.closed_folder import error_reason, hub_offline, require_no_way_out
from kovqa_core.models.fusion.config import EncoderSettings
from kovqa_core.models.fusion.encoder_files import read_encoder_files
from kovqa_core.models.library_errors import library_errors
from kovqa_core.models.torchvision_compat import load_torchvision

# Prefixes of what is not the encoder's own.
_PRETRAINING_HEADS = ("lm_head.", "classifier.", "cls.", "qa_outputs.")
# Of timm.create_model: files and repositories that it would open, and weights that it would fetch.
_FOREIGN_ARGUMENTS = frozenset(
    ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "file")
)
_RUNNING_STATISTICS = ("running_mean", "running_var")
# Buffers that no answer depends on; files of old versions lack them.
_COUNTERS = ("num_batches_tracked", "position_ids", "token_type_ids")


def build_question_encoder(config: EncoderSettings, *, pooled: bool) -> nn.Module:
    """An encoder of questions with random weights.

    Args:
        config: its complete configuration.
        pooled: with the layer that makes one vector of a question.

    Raises:
        SettingsError: of a type that transformers does not know, or one that only reads images.
    """
    load_torchvision()
    from transformers import AutoConfig, AutoModel

    def no_encoder(reason: str) -> SettingsError:
        return SettingsError(
            message(
                "fusion.no-question-encoder", "no question encoder {model_type!r}: {error}",
                model_type=config.get("model_type"), error=reason,
            ),
            message(
                "fusion.no-question-encoder.hint",
                "use one like XLM-RoBERTa (model_type xlm-roberta, roberta, bert)",
            ),
        )  # fmt: skip

    with hub_offline(), library_errors(no_encoder):
        require_no_way_out(Path("question_config"), config)
        settings = AutoConfig.for_model(**config)
        options = {} if pooled else {"add_pooling_layer": False}
        net: nn.Module = AutoModel.from_config(settings, trust_remote_code=False, **options)
    return net


def build_image_encoder(config: EncoderSettings, width: int | None) -> nn.Module:
    """An encoder of images with random weights.

    Args:
        config: `architecture` and other arguments of `timm.create_model`.
        width: of one vector an image; None: a grid of regions, as wide as the encoder is.

    Raises:
        SettingsError: an architecture that timm does not know, or arguments that it refuses.
    """
    load_torchvision()
    import timm

    architecture = config.get("architecture")
    foreign = sorted(_FOREIGN_ARGUMENTS & config.keys())
    # is_model, because create_model also takes names of the Hub and of folders, and opens them.
    if foreign or not isinstance(architecture, str) or not timm.is_model(architecture):
        raise _no_image_encoder_error(
            architecture,
            message("fusion.foreign-argument", "{name} would read other files", name=foreign[0])
            if foreign
            else message("fusion.unknown-architecture", "timm has no architecture of this name"),
        )
    arguments = {k: v for k, v in config.items() if k != "architecture"}
    # timm's way to leave out pool and classifier; with a width, the classifier is the projection to D.
    shape: EncoderSettings = (
        {"num_classes": 0, "global_pool": ""} if width is None else {"num_classes": width}
    )
    try:
        net: nn.Module = timm.create_model(architecture, pretrained=False, **{**arguments, **shape})
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of whatever kind the architecture's own code raises at a wrong argument
        raise _no_image_encoder_error(architecture, error_reason(error)) from None
    return net


def _no_image_encoder_error(architecture: object, reason: str) -> SettingsError:
    return SettingsError(
        message(
            "fusion.no-image-encoder",
            "no image encoder {architecture!r}: {error}",
            architecture=architecture,
            error=reason,
        ),
        message(
            "fusion.no-image-encoder.hint",
            "the names that timm knows: python -c 'import timm; print(timm.list_models())'",
        ),
    )


def flatten_regions(features: Tensor, channels: int) -> Tensor:
    """A grid of features as [B, P, channels].

    Args:
        features: a CNN's [B, channels, h, w], a grid with channels last, or [B, P, channels] already.
        channels: which dimension they are.
    """
    if features.ndim == 3:
        return features
    if features.shape[1] == channels:
        return features.flatten(2).transpose(1, 2)
    return features.flatten(1, 2)


@dataclass(frozen=True)
class EncoderReport:
    """What became of an encoder's published weights.

    Attributes:
        newly_initialised: parameters that the files lack: a pooler, or a classifier of our width.
        unused: names in the files that the encoder has no place for.
    """

    newly_initialised: list[str]
    unused: list[str]


def load_encoder_weights(net: nn.Module, folder: Path) -> EncoderReport:
    """Copy published weights into an encoder.

    Heads of pretraining, and a classifier of another width, are left out.

    Args:
        net: the encoder.
        folder: with weights as `read_encoder_files` finds them.

    Raises:
        ModelError: no weights, unreadable, incomplete, or of other shapes.
    """
    own = net.state_dict()
    prefix = f"{getattr(net, 'base_model_prefix', '')}."  # a file with heads has "roberta." before the encoder's names
    files = read_encoder_files(folder)
    published = {_current_name(name.removeprefix(prefix), own): tensor for name, tensor in files.items()}
    head = _classifier_prefixes(net)
    wrong_shapes = [
        shape_problem(name, list(published[name].shape), list(tensor.shape))
        for name, tensor in own.items()
        if name in published and published[name].shape != tensor.shape and not name.startswith(head)
    ]
    if wrong_shapes:
        raise ModelError(
            message(
                "fusion.encoder-does-not-fit",
                "{folder} does not fit: {shapes}",
                folder=folder,
                shapes=join_messages("; ", wrong_shapes[:3]),
            ),
            message("fusion.encoder-does-not-fit.hint", "change its *_config back"),
        )
    fitting = {n: t for n, t in published.items() if n in own and own[n].shape == t.shape}
    # Buffers count too: running statistics are learned, and an encoder without them sees nothing.
    missing = [n for n in own if n not in fitting and not n.endswith(_COUNTERS)]
    # A classifier of our width and a pooler may begin anew; anything else missing is another architecture.
    unexpected = [n for n in missing if not n.startswith((*head, "pooler."))]
    if unexpected:
        raise _incomplete_encoder_error(folder, unexpected, list(published))
    net.load_state_dict(fitting, strict=False)
    unused = [n for n in published if n not in own and not n.startswith(_PRETRAINING_HEADS)]
    return EncoderReport(missing, unused)


def shape_problem(name: str, stored: list[int] | None, expected: list[int] | None) -> Message:
    """That a weight has another shape than ours; None: there, or here, it is absent."""
    absent = message("fusion.absent-tensor", "absent")
    return message(
        "fusion.other-shape", "{name} is {stored}, wanted {expected}",
        name=name, stored=stored or absent, expected=expected or absent,
    )  # fmt: skip


def _current_name(name: str, own: Mapping[str, Tensor]) -> str:
    """Today's name of a weight: TensorFlow called those of a LayerNorm gamma and beta, and so does bert-base."""
    if name in own:
        return name
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _incomplete_encoder_error(folder: Path, missing: list[str], names: list[str]) -> ModelError:
    problem = message(
        "fusion.encoder-lacks-weights",
        "{folder} lacks {names}",
        folder=folder,
        names=first_names(missing, 3),
    )
    if all(name.endswith(_RUNNING_STATISTICS) for name in missing):
        return ModelError(
            problem,
            message(
                "fusion.encoder-lacks-statistics.hint",
                "its parameters are all there: it was saved without buffers; save all of model.state_dict()",
            ),
        )
    return ModelError(
        problem,
        message(
            "fusion.encoder-lacks-weights.hint",
            "is it the folder of another model? Its files have {names}",
            names=", ".join(names[:3]),
        ),
    )


def _classifier_prefixes(net: nn.Module) -> tuple[str, ...]:
    """Prefixes of a timm model's classifier: one name, several, or none."""
    names = getattr(net, "default_cfg", {}).get("classifier", ())
    return tuple(f"{name}." for name in ([names] if isinstance(names, str) else names or ()))
