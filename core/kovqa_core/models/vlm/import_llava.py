"""A folder of LLaVA's -> a plain Hugging Face folder, which is asked and trained like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.files import require_empty
from kovqa_core.models.vlm import convert_llava
from kovqa_core.settings.strict_yaml import SettingsDocument, StrictSettings, apply_overrides, build_settings


class LlavaImportSettings(StrictSettings):
    """What a folder of LLaVA's does not tell."""

    system: Literal["v1", "llava_v1"] = Field(
        "v1", description="the text before a chat: as trained, or as the original's scripts answer"
    )
    instruction: str = Field("none", description="after a question: auto, ko, en, none, or any text")
    max_new_tokens: int = Field(16, ge=1, description="tokens of an answer")
    seed: int = Field(0, description="of the projector and the row that a plain Vicuna lacks")


@dataclass(frozen=True)
class ImportedLlava:
    """What became of a folder.

    Attributes:
        kind: what it was, see `llava.detect`.
        settings: what recipe llava-v1 needs to be told to train it further.
    """

    kind: convert_llava.LlavaFolderType
    settings: list[str]


def import_llava_folder(
    path: Path, output: Path, base: str | None, vision: str | None, sets: Sequence[str] = ()
) -> ImportedLlava:
    """Write a folder of LLaVA's as one that transformers reads and every command takes for a model.

    Args:
        path: the folder: projector only, LoRA, merged, 1.5, or a plain Vicuna to begin with.
        output: what to write; must be empty or not exist.
        base: the language model it was trained on, a folder or an asset's name; for projector and LoRA.
        vision: its picture encoder, likewise; None: the one its configuration names, where assets are.
        sets: `model.a=b` texts, see `Chosen`.

    Raises:
        SettingsError: a folder that holds something; an option too many; an unknown setting.
        AssetError: base or vision are nowhere.
        ModelError: the folder cannot be read, or is in Hugging Face's layout already.
    """
    require_empty(output)
    source = convert_llava.detect_llava_folder(path)
    chosen = build_settings(
        LlavaImportSettings, apply_overrides(SettingsDocument({"model": {}}, {}), sets, "--set"), ("model",)
    )
    lacks_base = source.kind in ("projector", "lora")
    if lacks_base is (base is None) and source.kind != "hub":
        said = "does not hold its language model" if lacks_base else "holds its language model itself"
        raise SettingsError(f"{path} {said}", f"{'give' if lacks_base else 'leave away'} --base")
    language = find_asset(base, "language model") if base else None
    eyes = None if source.kind == "hub" else find_vision_tower(vision, source)
    answering = chosen.model_dump(include={"instruction", "max_new_tokens"})
    convert_llava.convert_llava_folder(path, output, language, eyes, chosen.system, chosen.seed, answering)
    return ImportedLlava(source.kind, [] if source.marks else ["model.tokens=[]", "model.frozen=[]"])


def find_vision_tower(named: str | None, source: convert_llava.LlavaFolder) -> Path:
    """The folder of the picture encoder: the one given, else the one that the configuration names.

    Raises:
        SettingsError: neither names one.
        AssetError: it is nowhere; says where to put it.
    """
    name = named or str(source.config.get("mm_vision_tower") or "")
    if not name:
        raise SettingsError(f"{source.path} does not name a picture encoder", "give --vision FOLDER, a CLIP")
    try:
        return find_asset(name, "picture encoder")
    except AssetError:
        return find_asset(Path(name).name, "picture encoder")
