"""Which settings of a LLaVA's `config.json` are honoured; what would change its answers and is not, is refused.

Source: docs/sources/llava.md, L14 to L16, L38 and L42.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kovqa_core.errors import ModelError, no_names
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import read_model_json
from kovqa_core.models.vlm.hf_types import VisionConfig
from kovqa_core.models.vlm.llava_folder import PROJECTOR_TYPES, LlavaFolder

_LLAMA_MODEL_TYPES = ("llama", "llava", "llava_llama")  # LLaVA's own names of a Llama with an image encoder
_CLIP_MODEL_TYPES = ("clip", "clip_vision_model")

# Key -> values that are honoured, the first one where the key is missing.
_HONOURED_VALUES: Mapping[str, tuple[object, ...]] = {
    "mm_projector_type": tuple(PROJECTOR_TYPES),
    "mm_vision_select_feature": ("patch", "cls_patch"),
    "mm_patch_merge_type": ("flat",),
    "image_aspect_ratio": ("square", "pad", None),  # None: as the original, square
    "mm_use_im_start_end": (False, True, None),
    "mm_use_im_patch_token": (True, False, None),
    "s2": (False, None),
}
# Keys of the training, or of what the weights and the image encoder's own files say.
_IGNORED_KEYS = {
    "mm_vision_tower", "mm_vision_select_layer", "mm_hidden_size", "mm_projector_lr", "mm_vision_tower_lr",
}  # fmt: skip
# OpenAI's published encoders: pixels of an image's side, and of a patch's.
_PUBLISHED_ENCODERS = {
    "clip-vit-base-patch32": (224, 32),
    "clip-vit-base-patch16": (224, 16),
    "clip-vit-large-patch14": (224, 14),
    "clip-vit-large-patch14-336": (336, 14),
}


def require_honoured_settings(source: LlavaFolder) -> None:
    """Refuse a configuration whose answers the converted network would not give.

    Raises:
        ModelError: a value, or a key of LLaVA's, that is not honoured.
    """
    config, file = source.config, source.path / "config.json"
    if config.get("model_type") not in _LLAMA_MODEL_TYPES:
        raise _unsupported(file, "model_type", config.get("model_type"), _LLAMA_MODEL_TYPES)
    for key, honoured in _HONOURED_VALUES.items():
        value = config.get(key, honoured[0])
        if value not in honoured:
            raise _unsupported(file, key, value, honoured)
    for key in sorted(config):
        is_unknown = key.startswith("mm_") and key not in _HONOURED_VALUES and key not in _IGNORED_KEYS
        if is_unknown and config[key] not in (None, False):
            raise _unsupported(file, key, config[key], (None,))


def require_llama(language: Path) -> None:
    """Refuse a language model of another architecture.

    Raises:
        ModelError: it is one.
        DataError: its configuration cannot be read.
    """
    model_type = read_model_json(language / "config.json").get("model_type")
    if model_type not in _LLAMA_MODEL_TYPES:
        raise _unsupported(language / "config.json", "model_type", model_type, _LLAMA_MODEL_TYPES)


def select_layer(source: LlavaFolder, num_layers: int) -> int:
    """`mm_vision_select_layer`, checked; negative, because transformers 5 takes 0 for none at all.

    Args:
        source: LLaVA's folder.
        num_layers: of the image encoder; with its embeddings it has one output more.

    Raises:
        ModelError: it is missing, or the encoder has no such layer.
    """
    layer = source.config.get("mm_vision_select_layer")
    if isinstance(layer, bool) or not isinstance(layer, int) or not -num_layers - 1 <= layer <= num_layers:
        raise ModelError(
            message(
                "vlm.select-layer",
                "{file}: mm_vision_select_layer={layer}, but its image encoder has layers {first} to {last}",
                file=source.path / "config.json",
                layer=layer,
                first=-num_layers - 1,
                last=num_layers,
            ),
            message("vlm.select-layer.hint", "give the image encoder it was trained with: --vision"),
        )
    return layer - num_layers - 1 if layer >= 0 else layer


def read_vision_config(vision: Path) -> Mapping[str, object]:
    """The vision section of a CLIP's `config.json`.

    Raises:
        ModelError: it is of another model.
        DataError: the file cannot be read.
    """
    config = read_model_json(vision / "config.json")
    if config.get("model_type") not in _CLIP_MODEL_TYPES:
        raise _unsupported(vision / "config.json", "model_type", config.get("model_type"), _CLIP_MODEL_TYPES)
    section = config.get("vision_config", config)
    if not isinstance(section, dict):
        raise _unsupported(vision / "config.json", "vision_config", section, ("an object",))
    return section


def require_matching_encoder(source: LlavaFolder, vision: Path, vision_config: VisionConfig) -> None:
    """Refuse another image encoder than the one LLaVA was trained with, as far as the configuration tells.

    Raises:
        ModelError: its sizes are others.
    """
    name = Path(str(source.config.get("mm_vision_tower") or "")).name
    expected: dict[str, object] = {"hidden_size": source.config.get("mm_hidden_size")}
    if name in _PUBLISHED_ENCODERS:
        expected["image_size"], expected["patch_size"] = _PUBLISHED_ENCODERS[name]
    for key, value in expected.items():
        found = getattr(vision_config, key)
        if value not in (None, found):
            raise ModelError(
                message(
                    "vlm.another-vision-encoder",
                    "{vision} is not the image encoder that {folder} was trained with: {key} is {found}, not {value}",
                    vision=vision,
                    folder=source.path,
                    key=key,
                    found=found,
                    value=value,
                ),
                message("vlm.another-vision-encoder.hint", "give {name}: --vision", name=name or "that one"),
            )


def _unsupported(file: Path, key: str, value: object, honoured: tuple[object, ...]) -> ModelError:
    return ModelError(
        message(
            "vlm.llava-setting-unsupported",
            "{file}: {key}={value} is not supported ({honoured})",
            file=file,
            key=key,
            value=value,
            honoured=", ".join(str(known) for known in honoured if known is not None) or no_names(),
        ),
        message(
            "vlm.llava-setting-unsupported.hint",
            "LLaVA v1 and 1.5 on a Llama can be imported; of later ones take the converted folder from the Hub "
            "(llava-hf)",
        ),
    )
