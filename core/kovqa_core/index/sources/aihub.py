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
from collections.abc import Iterator, Mapping, Sequence
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
from kovqa_core.index.find_image import FoundImage, find_image
from kovqa_core.index.folder_names import PUBLISHER_SPLITS, other_splits, publisher_split
from kovqa_core.index.left_out import ANSWER_EMPTY, ID_MISSING, QUESTION_MISSING, LeftOutRows
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
    folders = label_folders(root)
    categories = tuple(dict.fromkeys(to_nfc(folder.parent.name) for folder in folders))
    return [
        DatasetShard(
            partial(_read_level_folder, folder, images, publisher_split(folder, root), categories),
            _label_bytes(folder),
        )
        for folder in folders
    ]


def label_folders(root: Path) -> list[Path]:
    """The level folders, training before validation, then by category, then 상, 중, 하.

    Raises:
        DataError: there are none, or one whose split no folder's name says.
    """
    folders = [root / below for below, files in walk_folders(root) if "annotation.json" in files]
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
    found = _find_images(folder, images, (question_type, published, to_nfc(folder.name)[:1]), others)
    keys, question_keys = ("question_id", "image_id", "multiple_choice_answer"), ("question_id", "question")
    for row, question in _join_questions(
        iter_json_records(folder / "annotation.json", "annotations", keys, keys, as_text=True),
        iter_json_records(
            folder / "question.json", "questions", question_keys, (*question_keys, "image_id"), as_text=True
        ),
    ):
        id, image_id = cell_text(row["question_id"]), cell_text(row["image_id"])
        image = found.get(image_id) or FoundImage(None, image_id)
        answer = single_answer_labels(cell_text(row["multiple_choice_answer"]))
        if not id:
            left_out.add(ID_MISSING, f"{folder / 'annotation.json'}: {question or image_id}")
        elif not question:
            left_out.add(QUESTION_MISSING, f"id {id}: {folder / 'question.json'}")
        elif not answer:
            left_out.add(ANSWER_EMPTY, f"id {id}: {folder / 'annotation.json'}")
        elif image.path is None:
            left_out.add(image.reason, f"id {id}: {image.problem or image_id}")
        else:
            split = aihub_split(image_id, published)
            yield split, Example(id, image.path, question, answer, question_type)


def _find_images(
    folder: Path, images: Path, own_folders: tuple[str, ...], other_folders: tuple[str, ...]
) -> dict[str, FoundImage]:
    """Image id -> the image."""
    keys = ("image_id", "image")
    return {
        cell_text(row["image_id"]): find_image(images, cell_text(row["image"]), own_folders, other_folders)
        for row in iter_json_records(folder / "images.json", "images", keys, keys, as_text=True)
    }


def _join_questions(
    annotations: Iterator[JsonRecord], questions: Iterator[JsonRecord]
) -> Iterator[tuple[JsonRecord, str]]:
    """Every annotation with its question, "" when it has none.

    The two files mostly have the same order, so that few questions wait in memory for their annotation. They meet by
    id and image, for data that number their questions per image have one id many times.
    """
    waiting: dict[tuple[str, str], str] = {}
    for row in annotations:
        id = cell_text(row["question_id"])
        key, key_without_image = (id, cell_text(row["image_id"])), (id, "")
        # Only as far as this annotation needs: both files pass by once, row beside row.
        while key not in waiting and key_without_image not in waiting:
            if (question := next(questions, None)) is None:
                break
            place = cell_text(question["question_id"]), cell_text(question.get("image_id"))
            waiting[place] = cell_text(question["question"]).strip()
        yield row, waiting.pop(key if key in waiting else key_without_image, "")


@functools.lru_cache(maxsize=1 << 16)  # few answers make up most rows
def single_answer_labels(text: str) -> dict[str, float]:
    """The answer of the only annotator as soft labels; the result is shared, not to be changed."""
    return soft_labels([text])
