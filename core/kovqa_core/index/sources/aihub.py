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
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
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
from kovqa_core.index.find_image import FoundImage, find_image, one_image_of, row_with_problem
from kovqa_core.index.folder_names import (
    PUBLISHER_SPLITS,
    folder_word,
    other_splits,
    publisher_split,
    split_of_name,
)
from kovqa_core.index.join_questions import join_by_question
from kovqa_core.index.left_out import (
    ANNOTATION_MISSING,
    ANSWER_EMPTY,
    ID_MISSING,
    QUESTION_MISSING,
    LeftOutRows,
    row_of_image,
)
from kovqa_core.index.packed_root import collect_archives, packed_notes
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import Message, message

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
    found = find_level_folders(root, archives)
    folders = found.whole
    categories = tuple(dict.fromkeys(to_nfc(folder.parent.name) for folder in folders))
    shards = [
        DatasetShard(
            partial(_read_level_folder, folder, images, publisher_split(folder, root), categories),
            _label_bytes(folder),
            name=str(folder),
        )
        for folder in folders
    ]
    shards += [
        DatasetShard(partial(_count_unannotated, folder), name=str(folder), missing=missing)
        for folder, missing in found.incomplete
        if not folder.is_relative_to(images) or images == root
    ]
    notes = (*packed_notes(root, archives), *missing_split_notes(root, folders))
    return [replace(shards[0], notes=notes), *shards[1:]]


def missing_split_notes(root: Path, folders: Sequence[Path]) -> tuple[Message, ...]:
    """What to say where all folders of labels are of one split of the publisher.

    Args:
        root: of the raw data.
        folders: of labels.
    """
    published = {publisher_split(folder, root) for folder in folders}
    return tuple(
        message(
            "index.no-published-split", "warning: no folder below {root} says that its labels are {split} data",
            root=root, split={"train": "training", "val": "validation"}[split],
        )
        for split in ("train", "val")
        if split not in published
    )  # fmt: skip


@dataclass(frozen=True)
class LevelFolders:
    """The folders of labels below a root.

    Attributes:
        whole: training before validation, then by category, then 상, 중, 하.
        incomplete: those without an annotation.json though other labels are there, or that are empty beside others
            that are not; and what they lack.
    """

    whole: list[Path]
    incomplete: list[tuple[Path, str]]


def label_folders(root: Path) -> list[Path]:
    """The level folders of a tree that is whole.

    Raises:
        DataError: as of `find_level_folders`; or a folder is not whole.
    """
    found = find_level_folders(root, [])
    for folder, missing in found.incomplete:
        if not folder.is_relative_to(root / "images"):
            raise DataError(
                message("index.half-unpacked", "{folder}: {missing}", folder=folder, missing=missing),
                message(
                    "index.half-unpacked.hint",
                    "unpack it again; without --as-upstream, its rows can be left out",
                ),
            )
    return found.whole


def find_level_folders(root: Path, archives: list[str]) -> LevelFolders:
    """The folders of labels below a root.

    Args:
        root: of the raw data.
        archives: gets the paths of archives that lie among them.

    Raises:
        DataError: there are none, or one whose split no folder's name says.
    """
    whole, half, with_files, without_files = list[Path](), list[Path](), list[str](), list[str]()
    for below, files in collect_archives(walk_folders(root), archives):
        (with_files if files or not below else without_files).append(below)  # the root is no part of the data
        if "annotation.json" in files:
            whole.append(root / below)
        elif "question.json" in files or "images.json" in files:
            half.append(root / below)
    if not whole:
        raise DataError(
            message("index.no-aihub-labels", "no annotation.json below {root}", root=root),
            message(
                "index.no-aihub-labels.hint",
                "unpack AI-Hub's label archives there (set 101: kovqa index aihub101)",
            ),
        )
    no_annotations = message("index.no-annotation-file", "no annotation.json")
    no_files = message("index.empty-folder", "empty")
    empty = (
        root / below
        for below in without_files
        if not any(path.startswith(f"{below}/") for path in with_files)
    )
    categories = {to_nfc(folder.parent.name) for folder in whole}
    incomplete = [(folder, str(no_annotations)) for folder in half]
    incomplete += [(folder, str(no_files)) for folder in empty if _stands_for_labels(folder, categories)]
    return LevelFolders(sorted(whole, key=partial(_level_sort_key, root)), incomplete)


def _stands_for_labels(folder: Path, categories: Collection[str]) -> bool:
    """Does an empty folder have a name that folders of labels have: of a level, a category or a split?"""
    name = to_nfc(folder.name)
    if any(re.match(r"\[?원천|[TV]S\d*[_.]", to_nfc(part)) for part in folder.parts):  # of images
        return False
    is_category = folder_word(name) in set(map(folder_word, categories))
    return is_category or split_of_name(name) is not None or re.match("[상중하]_", name) is not None


def _count_unannotated(folder: Path, left_out: LeftOutRows) -> SplitExamples:
    """No rows: those that the questions of a folder without annotations would be are left out, or else its images."""
    if (questions := folder / "question.json").is_file():
        for row in iter_json_records(
            questions, "questions", ("question_id",), ("question_id",), as_text=True
        ):
            left_out.add(ANNOTATION_MISSING, f"id {cell_text(row['question_id'])}: {questions}")
    elif (images := folder / "images.json").is_file():
        for row in iter_json_records(images, "images", ("image_id",), ("image_id",), as_text=True):
            left_out.add(
                ANNOTATION_MISSING,
                message(
                    "index.image-in-file",
                    "image {image}: {file}",
                    image=cell_text(row["image_id"]),
                    file=images,
                ),
            )
    yield from ()


def _label_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.json") if path.is_file())


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
        left_out.add(ANNOTATION_MISSING, row_of_image(id, image_id, questions_file))

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
            left_out.add(QUESTION_MISSING, row_of_image(id, image_id, questions_file))
        elif not answer:
            left_out.add(ANSWER_EMPTY, f"id {id}: {folder / 'annotation.json'}")
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(f"id {id}", image, image_id))
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
