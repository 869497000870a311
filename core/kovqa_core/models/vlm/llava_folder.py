"""LLaVA's own folders of 2023, recognised by what they hold: their names say nothing reliable.

Source: docs/sources/llava.md, L11, L18, L22 to L24.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kovqa_core.errors import ModelError
from kovqa_core.files import read_json
from kovqa_core.messages import message

LlavaFolderType = Literal["projector", "merged", "lora", "language", "hub"]

PATCH_TOKEN = "<im_patch>"
IMAGE_START_TOKEN = "<im_start>"
IMAGE_END_TOKEN = "<im_end>"
IMAGE_TOKEN = "<image>"

# What the published recipe (`--version v1 --mm_use_im_start_end`) makes of a Vicuna.
_PUBLISHED_SETTINGS = {
    "mm_use_im_patch_token": True,
    "mm_use_im_start_end": True,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "image_aspect_ratio": "square",
}


@dataclass(frozen=True)
class LlavaFolder:
    """A folder of LLaVA's, or of the language model it starts from.

    Attributes:
        path: where it lies.
        folder_type: see `detect_llava_folder`.
        config: its `config.json`.
    """

    path: Path
    folder_type: LlavaFolderType
    config: Mapping[str, object]

    @property
    def added_tokens(self) -> list[str]:
        """Tokens LLaVA added to the language model's, in the order of their ids."""
        tokens = [PATCH_TOKEN] if self.config.get("mm_use_im_patch_token") else []
        if self.config.get("mm_use_im_start_end"):
            tokens += [IMAGE_START_TOKEN, IMAGE_END_TOKEN]
        return tokens

    @property
    def image_token(self) -> str:
        """The token each image feature takes the place of.

        `<im_patch>` has a row in the text table and occurs in no prompt; where the folder lacks it, `<image>`
        is added for the purpose.
        """
        return PATCH_TOKEN if PATCH_TOKEN in self.added_tokens else IMAGE_TOKEN

    @property
    def has_mlp_projector(self) -> bool:
        """Is it LLaVA 1.5, whose projector has two layers?"""
        return "mlp2x" in str(self.config.get("mm_projector_type", "linear"))


def detect_llava_folder(path: Path) -> LlavaFolder:
    """What a folder holds.

    | folder_type | content |
    |---|---|
    | projector | `mm_projector.bin` beside the configuration |
    | lora | `adapter_config.json` and `non_lora_trainables.bin` |
    | merged | all weights, under LLaVA's names |
    | hub | all weights, under transformers' names: nothing to do |
    | language | a plain Llama, to start a training of LLaVA v1 from |

    Raises:
        ModelError: none of these.
    """
    config = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    if "mm_vision_tower" in config:  # model_type alone would not do: LLaVA's own folders say llava, too
        if (path / "adapter_config.json").is_file() and (path / "non_lora_trainables.bin").is_file():
            return LlavaFolder(path, "lora", config)
        if (path / "mm_projector.bin").is_file():
            return LlavaFolder(path, "projector", config)
        if find_weight_files(path):
            return LlavaFolder(path, "merged", config)
    if config.get("model_type") == "llava" and "text_config" in config:
        return LlavaFolder(path, "hub", config)
    if config.get("model_type") == "llama" and find_weight_files(path):
        return LlavaFolder(path, "language", {**config, **_PUBLISHED_SETTINGS})
    raise ModelError(
        message(
            "vlm.not-a-llava-folder",
            "{folder} is not a LLaVA folder: it holds no projector, no adapter and no LLaVA weights",
            folder=path,
        ),
        message(
            "vlm.not-a-llava-folder.hint",
            "give the folder that LLaVA's train.py wrote or the Hub has, with its config.json",
        ),
    )


def find_weight_files(folder: Path) -> list[Path]:
    """Files of a whole model's weights, in order; safetensors before pickles."""
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
