"""A LLaVA folder -> a plain Hugging Face folder, which is answered with and trained like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from kovqa_core.data.question_prompts import DEFAULT_MAX_NEW_TOKENS
from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.models.checkpoint_info import has_checkpoint_info
from kovqa_core.models.config import ImageLoading
from kovqa_core.models.vlm.convert_llava import ConversionSettings, convert_llava_folder
from kovqa_core.models.vlm.llava_folder import LlavaFolder, LlavaFolderType, detect_llava_folder
from kovqa_core.models.vlm.llava_processor import PromptStyle
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.settings.overrides import apply_overrides
from kovqa_core.settings.strict_yaml import SettingsDocument, StrictSettings, build_settings
from kovqa_core.whole_folder import require_new_folder


class LlavaImportSettings(StrictSettings):
    """What a LLaVA folder does not say."""

    system: PromptStyle | None = Field(
        None,
        description="the prompt: v1 (as LLaVA trains on Vicuna), llava_v1 (as its scripts answer), llava_llama_2",
    )
    instruction: str = Field("none", description="after a question: auto, ko, en, none, or any text")
    max_new_tokens: int = Field(DEFAULT_MAX_NEW_TOKENS, ge=1, description="tokens of an answer")
    image_loading: ImageLoading = Field("as_shown", description="as_stored: as LLaVA itself reads images")
    seed: int = Field(0, description="of the projector and the row that a plain Vicuna lacks")


@dataclass(frozen=True)
class ImportedLlava:
    """What an imported folder was.

    Attributes:
        folder_type: see `detect_llava_folder`.
        settings: `--set` texts that recipe llava-v1 needs to train it further.
        unread_files: weights in the folder that were not read, because others hold the same.
        named_encoder: the image encoder it was trained with, where the one given has another name.
    """

    folder_type: LlavaFolderType
    settings: list[str]
    unread_files: list[str]
    named_encoder: str | None = None


def import_llava_folder(
    path: Path,
    output: Path,
    base: str | None,
    vision: str | None,
    overrides: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> ImportedLlava:
    """Write a LLaVA folder as one that transformers reads and every command takes for a model.

    Args:
        path: the folder: projector only, LoRA, merged, 1.5, or a plain Vicuna to start from; or a projector's file.
        output: what to write; see `write_new_folder`.
        base: the language model it was trained on, a folder or an asset's name; for projector and LoRA.
        vision: its vision encoder, likewise; None: the one its configuration names, where assets are.
        overrides: `model.a=b` texts, see `LlavaImportSettings`.
        on_progress: called with notes.

    Raises:
        SettingsError: the output is not empty; an option too many or missing; an unknown setting.
        AssetError: base or vision cannot be found.
        ModelError: the folder cannot be read whole, is not supported, or is in Hugging Face's layout already.
    """
    require_new_folder(output, has_checkpoint_info)
    source = detect_llava_folder(path, has_base=base is not None)
    document = apply_overrides(SettingsDocument({"model": {}}, {}), overrides, "--set")
    settings = build_settings(LlavaImportSettings, document, ("model",))
    _check_base_option(source, base)
    language_folder = _find_language_model(base) if base else None
    vision_folder = None if source.folder_type == "hub" else find_vision_encoder(vision, source)
    conversion = ConversionSettings(
        settings.system,
        settings.seed,
        settings.model_dump(include={"instruction", "max_new_tokens", "image_loading"}),
    )
    convert_llava_folder(path, output, language_folder, vision_folder, conversion, on_progress)
    named = Path(str(source.config.get("mm_vision_tower") or "")).name
    return ImportedLlava(
        source.folder_type,
        _training_settings(source),
        [str(file) for file in source.unread_files],
        named if named and vision_folder and named != vision_folder.resolve().name else None,
    )


def _training_settings(source: LlavaFolder) -> list[str]:
    """What recipe llava-v1, made for LLaVA v1 with its frame of two tokens, must do otherwise here."""
    tokens = [] if source.has_image_frame else ["model.tokens=[]"]
    # Of one layer the second is an identity, which must stay so; of two both learn.
    return tokens + ([] if source.projector_layers == 1 else ["model.frozen=[]"])


def _find_language_model(name: str) -> Path:
    return find_asset(
        name, message("vlm.language-model-not-found", "language model {name} not found", name=name)
    )


def _check_base_option(source: LlavaFolder, base: str | None) -> None:
    """Refuse a language model that would not be used, and the lack of one that is needed."""
    needs_base = source.folder_type in ("projector", "lora")
    if needs_base and base is None:
        raise SettingsError(
            message("vlm.base-missing", "{folder} does not hold its language model", folder=source.path),
            message("vlm.base-missing.hint", "give the Vicuna it was trained on: --base"),
        )
    if not needs_base and base is not None and source.folder_type != "hub":
        raise SettingsError(
            message("vlm.base-not-needed", "{folder} holds its language model itself", folder=source.path),
            message("vlm.base-not-needed.hint", "leave out --base"),
        )


def find_vision_encoder(requested: str | None, source: LlavaFolder) -> Path:
    """The folder of the vision encoder: the one requested, else the one that the configuration names.

    Raises:
        SettingsError: neither names one.
        AssetError: it cannot be found; says where to put it.
    """
    name = requested or str(source.config.get("mm_vision_tower") or "")
    if not name:
        raise SettingsError(
            message(
                "vlm.vision-encoder-unnamed", "{folder} does not name a vision encoder", folder=source.path
            ),
            message("vlm.vision-encoder-unnamed.hint", "give the folder of a CLIP: --vision DIR"),
        )
    try:
        return find_asset(name, _vision_encoder_not_found(name))
    except AssetError:
        # Configurations name a place on the Hub or on the trainer's disk: its last component counts.
        short_name = Path(name).name
        return find_asset(short_name, _vision_encoder_not_found(short_name))


def _vision_encoder_not_found(name: str) -> Message:
    return message("vlm.vision-encoder-not-found", "vision encoder {name} not found", name=name)
