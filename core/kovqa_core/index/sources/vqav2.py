"""VQAv2: the challenge's questions and annotations, ten annotators per question.

Layout: `v2_OpenEnded_mscoco_<part>_questions.json` and `v2_mscoco_<part>_annotations.json` in the
folder or in `vqa/` below it; images in `train2014/`, `val2014/`, `test2015/`. `test` and `test-dev` have no
annotations, and may be absent. (docs/sources/beit3.md, B24 to B26)

Answers keep their letters; in lower case they are in the challenge's normal form. Classes are counted over the
answer that most annotators gave, in training questions alone; the original counts validation too (`--as-upstream`).
"""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import (
    annotator_score,
    count_annotators,
    most_frequent_spellings,
    normalise_answer,
    normalise_vqav2,
    raw_annotations,
    tidy_vqav2,
)
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_records
from kovqa_core.data.json_values import JsonRecord
from kovqa_core.data.tables import cell_text, raw_text
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.index.join_questions import join_by_question
from kovqa_core.index.left_out import (
    ANNOTATION_MISSING,
    ANSWER_EMPTY,
    ID_MISSING,
    IMAGE_MISSING,
    IMAGE_NOT_NAMED,
    QUESTION_MISSING,
    LeftOutRows,
    row_of_image,
)
from kovqa_core.index.packed_root import missing_folder_hint
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import system_reason

SPLIT_METHOD = "as published"
MIN_ANSWER_COUNT = 9
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
VQAV2_PARTS = {"train2014": "train", "val2014": "val", "test2015": "test", "test-dev2015": "test-dev"}
# Few texts make up most of its 6.5 million answers.
cached_normal_form = functools.lru_cache(maxsize=1 << 18)(normalise_vqav2)
_cached_tidy_form = functools.lru_cache(maxsize=1 << 18)(tidy_vqav2)


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One shard per part (train2014, val2014, …).

    Raises:
        DataError: no training or validation files; later: one that is broken or lacks a key.
    """
    shards = []
    for part, split in VQAV2_PARTS.items():
        questions, annotations = vqav2_files(root, part)
        # Training and validation must be there, so a missing file is an error when it is read.
        if split in ("train", "val") or questions.is_file():
            size = sum(path.stat().st_size for path in (questions, annotations) if path.is_file())
            shards.append(
                DatasetShard(partial(_read_vqav2_rows, root, images, part), size, name=str(questions))
            )
    return shards


def vqav2_files(root: Path, part: str) -> tuple[Path, Path]:
    """The file of questions and that of annotations (which does not exist for a test part)."""
    folder = root / "vqa" if (root / "vqa").is_dir() else root
    questions = folder / f"v2_OpenEnded_mscoco_{part}_questions.json"
    return questions, folder / f"v2_mscoco_{part}_annotations.json"


def vqav2_image_path(part: str, image_id: int | str) -> str:
    """An image's path: train2014/COCO_train2014_000000000009.jpg; test-dev asks about test2015."""
    folder = part.replace("test-dev", "test")
    return f"{folder}/COCO_{folder}_{image_id:0>12}.jpg"


def present_images(images: Path, part: str) -> set[str]:
    """Paths of a part's images that exist. The folder is listed once, instead of a look-up per question.

    Raises:
        DataError: no such folder.
    """
    folder = images / part.replace("test-dev", "test")
    try:
        return {f"{folder.name}/{name}" for name in os.listdir(folder)}  # noqa: PTH208 - names, not paths
    except OSError as error:
        raise DataError(
            message(
                "index.cannot-list",
                "cannot read {folder}: {problem}",
                folder=folder,
                problem=system_reason(error),
            ),
            missing_folder_hint(folder) or message("index.cannot-list.hint", "check --images"),
        ) from None


def iter_annotated_questions(
    root: Path,
    part: str,
    on_unused: Callable[[JsonRecord], object] = lambda annotation: None,
    *,
    as_text: bool = False,
) -> Iterator[tuple[JsonRecord, JsonRecord]]:
    """Every question with its annotation, with {} where it has none; `on_unused` gets annotations without a question."""
    questions_file, annotations_file = vqav2_files(root, part)
    annotations: Iterator[JsonRecord] = iter(())
    if not part.startswith("test"):
        texts = ("question_id", "multiple_choice_answer", "answer_type", "image_id")
        annotations = iter_json_records(
            annotations_file, "annotations", (*texts[:2], "answers"), texts, as_text=as_text
        )
    keys = ("question_id", "image_id", "question")
    questions = iter_json_records(questions_file, "questions", keys, keys, as_text=as_text)
    yield from join_by_question(questions, annotations, on_unused)


def _read_vqav2_rows(root: Path, images: Path, part: str, left_out: LeftOutRows) -> SplitExamples:
    present = present_images(images, part)
    is_test = part.startswith("test")

    def leave_out_annotation(row: JsonRecord) -> None:
        id, image_id = cell_text(row["question_id"]), cell_text(row.get("image_id"))
        left_out.add(QUESTION_MISSING, row_of_image(id, image_id, vqav2_files(root, part)[0]))

    for row, annotation in iter_annotated_questions(root, part, leave_out_annotation, as_text=True):
        id, question = cell_text(row["question_id"]), cell_text(row["question"]).strip()
        image_id = cell_text(row["image_id"])
        image = vqav2_image_path(part, image_id)
        try:
            annotations = [raw_text(answer["answer"]) for answer in annotation.get("answers", ())]
            answers = _soft_answers(annotation, annotations) if annotation else {}
        except (KeyError, TypeError):
            raise DataError(
                message(
                    "index.incomplete-vqav2-row",
                    "{file}: question {id} lacks answers[].answer, or has a list in place of a text",
                    file=vqav2_files(root, part)[1], id=id,
                )
            ) from None  # fmt: skip
        if not id:
            left_out.add(ID_MISSING, f"{vqav2_files(root, part)[0]}: {question}")
        elif not question:
            left_out.add(QUESTION_MISSING, f"id {id}")
        # An answer that the normal form empties ("a", "the") is no class, but the official program scores it.
        elif not answers and not is_test and (VQAV2_PARTS[part] == "train" or not any(annotations)):
            reason = ANSWER_EMPTY if annotation else ANNOTATION_MISSING
            left_out.add(reason, row_of_image(id, image_id))
        elif not image_id:  # it would be the file of image 0
            left_out.add(IMAGE_NOT_NAMED, f"id {id}")
        elif image not in present:
            left_out.add(IMAGE_MISSING, f"id {id}: {image}")
        else:
            question_type = cell_text(annotation.get("answer_type"))
            yield (
                VQAV2_PARTS[part],
                Example(
                    id, image, question, answers, question_type, annotations=raw_annotations(annotations)
                ),
            )


def _soft_answers(annotation: JsonRecord, annotations: Sequence[str]) -> dict[str, float]:
    """Answers with their soft scores, the one that most annotators gave first.

    Args:
        annotation: a question's.
        annotations: what its annotators wrote, letter by letter.
    """
    # The official most frequent answer first, also where a tie would be broken otherwise: classes are counted by it.
    first = cached_normal_form(cell_text(annotation["multiple_choice_answer"]))
    annotators = count_annotators(annotations)
    # By different text, not by annotator: of ten, several wrote the same.
    counts: dict[str, int] = {}
    tidy_counts: dict[str, int] = {}
    for text, n in Counter(annotations).items():
        composed = to_nfc(text)
        form, tidy = cached_normal_form(composed), _cached_tidy_form(composed)
        counts[form] = counts.get(form, 0) + n
        tidy_counts[tidy] = tidy_counts.get(tidy, 0) + n
    # The published annotations are in lower case: mostly there is nothing to choose.
    spellings = most_frequent_spellings(Counter(tidy_counts)) if tidy_counts != counts else {}
    ordered = dict.fromkeys([first, *sorted(counts, key=counts.__getitem__, reverse=True)])
    # An answer that the normal form empties ("a", "the") is none; nor is a first one that no annotator gave.
    return {
        spellings.get(normalise_answer(answer), answer) if spellings else answer: annotator_score(
            counts[answer], annotators
        )
        for answer in ordered
        if answer and answer in counts
    }
