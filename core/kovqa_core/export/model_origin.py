"""What a model was made of: base models with their licences, and the data it was trained on, as far as they are known."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from kovqa_core.data.benchmark_sets import BENCHMARK_SETS
from kovqa_core.download.find_asset import asset_holding_file
from kovqa_core.download.hub_copies import (
    find_hub_copy,
    hub_identity,
    hub_name_of_path,
    parse_hub_name,
)
from kovqa_core.download.table import Asset, load_assets
from kovqa_core.errors import AssetError, KovqaError
from kovqa_core.files import read_bytes, read_json, read_text
from kovqa_core.index.report import IndexReport, read_report
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.runs.folder import is_huggingface_folder
from kovqa_core.runs.manifest import learned_fingerprint
from kovqa_core.settings import run

# Data sets of AI-Hub, under whatever name: its terms hold for what is made of them, too.
_AIHUB_SOURCES = ("aihub", "aihub101", "nia", "bok-vqa")
# What a card says of them, by which an export that is exported again is known.
AIHUB_LIMIT = "It was trained on data of AI-Hub"
NON_COMMERCIAL_LIMIT = "A model it is based on is not for commercial use"
_NON_COMMERCIAL = re.compile(r"(?<![a-z])nc(?![a-z])|non-?commercial|research", re.IGNORECASE)


@dataclass(frozen=True)
class BaseModel:
    """A model that another one began with.

    Attributes:
        name: OWNER/NAME@COMMIT of one of the hub's; else its folder, file or asset.
        repository: OWNER/NAME of the hub; "": nobody knows.
        licence: the hub's name of it (`apache-2.0`), of its own card; "": it has none here.
        terms: in words, of kovqa's table of assets.
        is_gated: does its card ask people to agree first?
    """

    name: str
    repository: str = ""
    licence: str = ""
    terms: str = ""
    is_gated: bool = False

    @property
    def is_non_commercial(self) -> bool:
        """Does its licence say so?"""
        return bool(_NON_COMMERCIAL.search(f"{self.licence} {self.terms}"))


@dataclass(frozen=True)
class ModelOrigin:
    """Base models, the run, and the index it was trained on, where they are still there.

    Attributes:
        of_aihub: does the card of the export that it was made of say that AI-Hub's data were learned from?
    """

    bases: tuple[BaseModel, ...]
    run: run.Run | None
    index: IndexReport | None
    of_aihub: bool = False

    @property
    def is_of_aihub(self) -> bool:
        """Was it trained on data of AI-Hub?"""
        return self.of_aihub or (self.index is not None and self.index.source in _AIHUB_SOURCES)

    @property
    def dataset_repositories(self) -> list[str]:
        """OWNER/NAME of the data on the hub; of a user's own none."""
        repository = hub_repository(self.index.source) if self.index else ""
        return [repository] if repository else []


def hub_repository(source: str) -> str:
    """OWNER/NAME of a source's data on the hub; "" of any that is not there."""
    known = BENCHMARK_SETS.get(source)
    return known.repository if known and parse_hub_name(known.repository) else ""


def find_model_origin(step: Path, info: CheckpointInfo) -> ModelOrigin:
    """What is known of a checkpoint folder's origin; nothing is guessed, and nothing fetched."""
    made_by = _run_of(step)
    if made_by is None and is_our_card(step / "README.md"):
        return ModelOrigin(_exported_base(step), None, None, AIHUB_LIMIT in read_text(step / "README.md"))
    return ModelOrigin(tuple(_base_models(step, info, made_by)), made_by, _index_of(step, made_by))


def is_our_card(card: Path) -> bool:
    """Did an export of kovqa write this README.md?"""
    return card.is_file() and b"library_name: kovqa" in read_bytes(card)


def _exported_base(step: Path) -> tuple[BaseModel, ...]:
    """An export that is exported again: what its own card says holds for what is made of it."""
    base = _described(str(step), step)
    if NON_COMMERCIAL_LIMIT in read_text(step / "README.md"):
        base = replace(base, terms="non-commercial")
    is_named = base.licence or base.terms or base.repository or is_huggingface_folder(step)
    return (base,) if is_named else ()


def _run_of(step: Path) -> run.Run | None:
    file = step.parent / run.RUN_FILE
    try:
        return run.read_run(file) if file.is_file() else None
    except KovqaError:
        return None


def _index_of(step: Path, made_by: run.Run | None) -> IndexReport | None:
    """The report of the index; None where it is gone, or another one was written there since."""
    folder = Path(made_by.recipe.data.index) if made_by and made_by.recipe.data.index else None
    if made_by is None or folder is None or not (folder / "index.json").is_file():
        return None
    index_answers, model_answers = folder / "answers.txt", step / "answers.txt"
    if model_answers.is_file() and (
        not index_answers.is_file() or index_answers.read_bytes() != model_answers.read_bytes()
    ):
        return None
    try:
        report, learned = read_report(folder), learned_fingerprint(made_by)
    except KovqaError:
        return None
    return report if learned in (None, report.counts.fingerprint) else None


def _base_models(step: Path, info: CheckpointInfo, made_by: run.Run | None) -> list[BaseModel]:
    if is_huggingface_folder(step):
        return [_described(str(step), step)]
    if info.family == "vlm":
        name = read_json(step / "config.json").get("base") if (step / "config.json").is_file() else None
        return [_described(str(name), Path(str(name)))] if name else []
    names = (made_by.recipe.model if made_by else {}) or {}
    keys = ("question", "picture") if info.family == "fusion" else ("weights",)
    if names.get("random_init"):
        return []
    return [_described(str(names[key]), Path(str(names[key]))) for key in keys if names.get(key)]


def _described(name: str, folder: Path) -> BaseModel:
    """What the base's own card says, else kovqa's table of assets."""
    named = hub_name_of_path(name) or parse_hub_name(name)
    if named and not folder.exists():
        with contextlib.suppress(AssetError):  # another revision, or half of it
            copy = find_hub_copy(named)
            folder = copy.folder if copy else folder
        identity = hub_identity(folder) or str(named)
    else:
        identity = hub_identity(folder) if folder.is_dir() else ""
    repository, mark, commit = identity.partition("@")
    asset = _asset_of(folder.name)
    if asset is not None and not repository:
        repository = asset.repo
    licence, is_gated = _card_licence(folder / "README.md")
    terms = asset.source_of().licence if asset is not None else ""
    return BaseModel(f"{repository}{mark}{commit[:12]}" or folder.name, repository, licence, terms, is_gated)


def _asset_of(name: str) -> Asset | None:
    assets = load_assets()
    asset = assets.get(name) or assets.get(asset_holding_file(name) or "")
    return asset if asset is None or not asset.dataset else None


def _card_licence(card: Path) -> tuple[str, bool]:
    """Licence of a model card, and whether it asks people to agree; "" where there is no card, or it says nothing."""
    if not card.is_file():
        return "", False
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(card).data.to_dict()
    except Exception:  # whatever its YAML is: it says nothing then
        return "", False
    licence = data.get("license")
    if licence == "other":
        licence = data.get("license_name")
    is_gated = any(str(key).startswith("extra_gated") for key in data)
    # Our own cards and the hub say `unknown` where nobody stated one.
    return licence if isinstance(licence, str) and licence != "unknown" else "", is_gated
