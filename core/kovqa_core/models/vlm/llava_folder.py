"""LLaVA's own folders of 2023, recognised by what they hold: their names say nothing reliable.

Source: docs/sources/llava.md, L11, L18, L22 to L24, L38 and L40.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.models.closed_folder import read_model_json

LlavaFolderType = Literal["projector", "merged", "lora", "language", "hub"]

PATCH_TOKEN = "<im_patch>"
IMAGE_START_TOKEN = "<im_start>"
IMAGE_END_TOKEN = "<im_end>"
IMAGE_TOKEN = "<image>"

PROJECTOR_FILE = "mm_projector.bin"
ADAPTER_CONFIG_FILE, NON_LORA_FILE = "adapter_config.json", "non_lora_trainables.bin"

# What the published recipe (`--version v1 --mm_use_im_start_end`) makes of a Vicuna.
_PUBLISHED_SETTINGS = {
    "mm_use_im_patch_token": True,
    "mm_use_im_start_end": True,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_aspect_ratio": "square",
}
# `mm_projector_type` -> number of linear layers. The original makes any N of mlpNx_gelu; transformers' class has two.
PROJECTOR_TYPES = {"linear": 1, "mlp1x_gelu": 1, "mlp2x_gelu": 2}


@dataclass(frozen=True)
class LlavaFolder:
    """A folder of LLaVA's, or of the language model it starts from.

    Attributes:
        path: where it lies.
        folder_type: see `detect_llava_folder`.
        config: its `config.json`.
        projector_file: the projector's weights, for "projector".
        unread_files: weights in it that are not read, because others hold the same.
    """

    path: Path
    folder_type: LlavaFolderType
    config: Mapping[str, object]
    projector_file: Path | None = None
    unread_files: tuple[Path, ...] = ()

    @property
    def added_tokens(self) -> list[str]:
        """Tokens LLaVA added to the language model's, in the order of their ids."""
        tokens = (
            [PATCH_TOKEN] if self.config.get("mm_use_im_patch_token", True) else []
        )  # as the original reads it
        if self.has_image_frame:
            tokens += [IMAGE_START_TOKEN, IMAGE_END_TOKEN]
        return tokens

    @property
    def has_image_frame(self) -> bool:
        """Does an image stand between `<im_start>` and `<im_end>`?"""
        return bool(self.config.get("mm_use_im_start_end"))

    @property
    def image_token(self) -> str:
        """The token each image feature takes the place of.

        `<im_patch>` has a row in the text table and occurs in no prompt; where the folder lacks it, `<image>`
        is added for the purpose.
        """
        return PATCH_TOKEN if PATCH_TOKEN in self.added_tokens else IMAGE_TOKEN

    @property
    def new_tokens(self) -> list[str]:
        """Tokens beside the language model's own, in the order of their ids: LLaVA's, and `<image>` where needed."""
        return self.added_tokens + ([] if self.image_token == PATCH_TOKEN else [IMAGE_TOKEN])

    @property
    def projector_layers(self) -> int:
        """Linear layers of the projector: one in LLaVA v1, two in 1.5."""
        return PROJECTOR_TYPES[str(self.config.get("mm_projector_type", "linear"))]


def detect_llava_folder(path: Path, *, has_base: bool = False) -> LlavaFolder:
    """What a folder holds.

    | folder_type | content |
    |---|---|
    | projector | `mm_projector.bin` beside the configuration, or `../mm_projector/NAME.bin` |
    | lora | `adapter_config.json` and `non_lora_trainables.bin` |
    | merged | all weights, under LLaVA's names |
    | hub | all weights, under transformers' names: nothing to do |
    | language | a plain Llama, to start a training of LLaVA v1 from |

    Args:
        path: the folder, or the projector's file in or beside it.
        has_base: the language model lies elsewhere: of all weights and a projector's, the latter count.

    Raises:
        ModelError: none of these, or several.
    """
    folder, projector_file = _folder_and_projector(path)
    config = read_model_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if "mm_vision_tower" in config:  # model_type alone would not do: LLaVA's own folders say llava, too
        weight_files = find_weight_files(folder)
        if _has_adapter(folder, weight_files):
            unread = (projector_file,) if projector_file else ()
            return LlavaFolder(folder, "lora", config, unread_files=unread)
        if projector_file and (has_base or path != folder or not weight_files):
            return LlavaFolder(folder, "projector", config, projector_file)
        if weight_files:
            unread = (projector_file,) if projector_file else ()
            return LlavaFolder(folder, "merged", config, unread_files=unread)
    if config.get("model_type") == "llava" and "text_config" in config:
        return LlavaFolder(folder, "hub", config)
    if config.get("model_type") == "llama" and find_weight_files(folder):
        return LlavaFolder(folder, "language", {**config, **_PUBLISHED_SETTINGS})
    raise ModelError(
        message(
            "vlm.not-a-llava-folder",
            "{folder} is not a LLaVA folder: it holds no projector, no adapter and no LLaVA weights",
            folder=folder,
        ),
        message(
            "vlm.not-a-llava-folder.hint",
            "give the folder that LLaVA's train.py wrote or the Hub has, with its config.json",
        ),
    )


def is_projector_file(path: Path) -> bool:
    """Is it a projector's file of LLaVA's, with its configuration where LLaVA puts it?"""
    folder, projector_file = path.parent, path
    if path.name != PROJECTOR_FILE:
        folder, projector_file = path.parent.parent / path.stem, _file_beside(path.parent.parent / path.stem)
    return path.is_file() and path == projector_file and (folder / "config.json").is_file()


def find_weight_files(folder: Path) -> list[Path]:
    """Files of a whole model's weights, in order; safetensors before pickles."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _file_beside(folder: Path) -> Path:
    """Where the original puts the projector of an output folder `checkpoint-N` (docs/sources/llava.md, L22)."""
    return folder.parent / "mm_projector" / f"{folder.name}.bin"


def _folder_and_projector(path: Path) -> tuple[Path, Path | None]:
    """The folder with the configuration, and the projector's file if there is one.

    Raises:
        ModelError: there are two, of which the one inside is the older (docs/sources/llava.md, L22).
    """
    if is_projector_file(path):
        return (path.parent if path.name == PROJECTOR_FILE else path.parent.parent / path.stem), path
    inside, beside = path / PROJECTOR_FILE, _file_beside(path.resolve())
    found = [file for file in (inside, beside) if file.is_file()]
    if len(found) == 2:
        raise ModelError(
            message(
                "vlm.two-projectors",
                "{folder} has two projectors: {inside} and {beside}",
                folder=path,
                inside=inside,
                beside=beside,
            ),
            message(
                "vlm.two-projectors.hint",
                "give the file itself instead of the folder; LLaVA writes the second at the end of a training",
            ),
        )
    return path, found[0] if found else None


def _has_adapter(folder: Path, weight_files: list[Path]) -> bool:
    """Is it a LoRA adapter?

    Raises:
        ModelError: it is half of one, or there are whole weights beside it.
    """
    files = [folder / ADAPTER_CONFIG_FILE, folder / NON_LORA_FILE]
    missing = [file.name for file in files if not file.is_file()]
    parts = [*files, *folder.glob("adapter_model.*")]
    if not any(file.is_file() for file in parts):
        return False
    if missing:
        raise ModelError(
            message(
                "vlm.incomplete-adapter",
                "{folder} holds a part of a LoRA adapter, without {missing}",
                folder=folder,
                missing=", ".join(missing),
            ),
            message("vlm.incomplete-adapter.hint", "fetch the whole folder again"),
        )
    if weight_files:
        raise ModelError(
            message(
                "vlm.adapter-and-weights",
                "{folder} holds a LoRA adapter and whole weights ({file}): it is not clear which count",
                folder=folder,
                file=weight_files[0].name,
            ),
            message("vlm.adapter-and-weights.hint", "put the one that does not count into another folder"),
        )
    return True
