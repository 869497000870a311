"""AI-Hub data set 104, 시각정보 기반 질의응답: one answer per question, three levels per category.

Layout, below any folders: `…train…/<category>/<level>_train_<category>/` and
`…valid…/<category>/<level>_validate_<category>/`, level 상, 중 or 하, each with

* `annotation.json`  `{"annotations": [{question_id, image_id, multiple_choice_answer, …}]}`
* `images.json`      `{"images": [{image_id, image (file name), …}]}`
* `question.json`    `{"questions": [{question_id, image_id, question, …}]}`

The publisher's training data is `train`. Its validation data is halved into `val` and `test` by image, with
a hash, so that all questions about an image are in one split, on any machine; test data, if there is any, is
`test`. Names of folders above the root say nothing. Images of one name lie in folders of their categories and
splits. Registered users in Korea download it from AI-Hub; it may not be passed on.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.folder_walk import walk_folders
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.find_image import FoundImage, find_image, one_image_of
from kovqa_core.index.folder_names import PUBLISHER_SPLITS, other_splits, publisher_split
from kovqa_core.index.join_questions import join_by_question
from kovqa_core.index.left_out import (
    ANNOTATION_MISSING,
    ANSWER_EMPTY,
    ID_MISSING,
    QUESTION_MISSING,
    LeftOutRows,
)
from kovqa_core.index.packed_root import collect_archives, packed_notes
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import message

SPLIT_METHOD = "the publisher's validation part by picture, SHA-256 of 'val/<image_id>': half val, half test"
MIN_ANSWER_COUNT = None
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
_LEVEL_ORDER = "상중하"


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root / "images" if (root / "images").is_dir() else root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One shard per level folder, sorted by split, category and level.

    Raises:
        DataError: no label files, or none that says whether it is training or validation data; later: one
            that is broken or lacks a key.
    """
    archives: list[str] = []
    folders = label_folders(root, archives)
    categories = tuple(dict.fromkeys(to_nfc(folder.parent.name) for folder in folders))
    shards = [
        DatasetShard(
            partial(_read_level_folder, folder, images, publisher_split(folder, root), categories),
            _label_bytes(folder),
        )
        for folder in folders
    ]
    return [replace(shards[0], notes=packed_notes(root, archives)), *shards[1:]]


def label_folders(root: Path, archives: list[str] | None = None) -> list[Path]:
    """The level folders, training before validation, then by category, then 상, 중, 하.

    Args:
        root: of the raw data.
        archives: gets the paths of archives that lie among them.

    Raises:
        DataError: there are none, or one whose split no folder's name says.
    """
    walk = collect_archives(walk_folders(root), [] if archives is None else archives)
    folders = [root / below for below, files in walk if "annotation.json" in files]
    if not folders:
        raise DataError(
            message("index.no-aihub-labels", "no annotation.json below {root}", root=root),
            message(
                "index.no-aihub-labels.hint",
                "unpack AI-Hub's label archives there (set 101: kovqa index aihub101)",
            ),
        )
    return sorted(folders, key=partial(_level_sort_key, root))


def _label_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.json"))


def _level_sort_key(root: Path, folder: Path) -> tuple[int, str, int, str]:
    # NFC: archives unpacked on a Mac have names in NFD, whose first letter is not 상 but ㅅ.
    name = to_nfc(folder.name)
    level = _LEVEL_ORDER.find(name[:1])
    return (
        PUBLISHER_SPLITS.index(publisher_split(folder, root)),
        to_nfc(folder.parent.name),
        level if level >= 0 else len(_LEVEL_ORDER),
        name,
    )


def aihub_split(image_id: str, published: str) -> str:
    """The split of an image: the publisher's validation data is halved by a hash of the image's id."""
    if published != "val":
        return published
    # The first byte of the hash: half of its 256 values. Never change it: indexes in use would get other splits.
    return "val" if hashlib.sha256(f"val/{image_id}".encode()).digest()[0] < 128 else "test"


def _read_level_folder(
    folder: Path, images: Path, published: str, categories: Sequence[str], left_out: LeftOutRows
) -> SplitExamples:
    """The rows of one level folder, in the order of its annotations.

    Args:
        folder: of one category and level.
        images: the image folder.
        published: the publisher's split.
        categories: of the whole data set: images in folders of others are not this folder's.
        left_out: gets the rows left out.
    """
    question_type = to_nfc(folder.parent.name)
    others = (*(name for name in categories if name != question_type), *other_splits(published))
    # The images of one folder fit into memory; its questions are only passed by.
    found = _find_images(folder, images, _own_folders(folder, published), others)
    keys, question_keys = ("question_id", "image_id", "multiple_choice_answer"), ("question_id", "question")
    questions_file = folder / "question.json"

    def leave_out_question(row: JsonRecord) -> None:
        id, image_id = cell_text(row["question_id"]), cell_text(row.get("image_id"))
        left_out.add(ANNOTATION_MISSING, f"id {id}: of image {image_id} in {questions_file}")

    for row, partner in join_by_question(
        iter_json_records(folder / "annotation.json", "annotations", keys, keys, as_text=True),
        iter_json_records(
            questions_file, "questions", question_keys, (*question_keys, "image_id"), as_text=True
        ),
        leave_out_question,
    ):
        question = cell_text(partner.get("question")).strip()
        id, image_id = cell_text(row["question_id"]), cell_text(row["image_id"])
        image = found.get(image_id) or FoundImage(None, image_id)
        answer = single_answer_labels(cell_text(row["multiple_choice_answer"]))
        if not id:
            left_out.add(ID_MISSING, f"{folder / 'annotation.json'}: {question or image_id}")
        elif not question:
            left_out.add(QUESTION_MISSING, f"id {id}: of image {image_id} in {questions_file}")
        elif not answer:
            left_out.add(ANSWER_EMPTY, f"id {id}: {folder / 'annotation.json'}")
        elif image.path is None:
            left_out.add(image.reason, f"id {id}: {image.problem or image_id}")
        else:
            split = aihub_split(image_id, published)
            yield split, Example(id, image.path, question, answer, question_type)


def _own_folders(folder: Path, published: str) -> tuple[str, ...]:
    """Names of image folders that are a level folder's own: category, split, level, its own name (상_train_동물)."""
    name = to_nfc(folder.name)
    return to_nfc(folder.parent.name), published, name[:1], name


def _find_images(
    folder: Path, images: Path, own_folders: tuple[str, ...], other_folders: tuple[str, ...]
) -> dict[str, FoundImage]:
    """Image id -> the image."""
    keys = ("image_id", "image")
    found: dict[str, FoundImage] = {}
    for row in iter_json_records(folder / "images.json", "images", keys, keys, as_text=True):
        id, name = cell_text(row["image_id"]), cell_text(row["image"])
        image = find_image(images, name, own_folders, other_folders)
        found[id] = image if id not in found else one_image_of(id, found[id], image)
    return found


@functools.lru_cache(maxsize=1 << 16)  # few answers make up most rows
def single_answer_labels(text: str) -> dict[str, float]:
    """The answer of the only annotator as soft labels; the result is shared, not to be changed."""
    return soft_labels([text])
