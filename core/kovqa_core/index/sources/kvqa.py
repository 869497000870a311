"""KVQA (SK Telecom and Testworks): images taken by blind people, a question each, ten answers.

Layout: `kvqa_annotations.json`, a list of `{image, question, answers[]{answer}, answerable,
answer_type}`; images anywhere below `images/` (or the folder itself), as the archives unpack. The
publisher has no splits: 80 % train, 10 % val, 10 % test by image, with a fixed hash.
(docs/sources/datasets.md, D28)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import raw_annotations, soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_list
from kovqa_core.data.tables import cell_text, raw_text
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_image, row_with_problem
from kovqa_core.index.hash_split import assign_split
from kovqa_core.index.left_out import ANSWER_EMPTY, QUESTION_MISSING, LeftOutRows
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import message

SPLIT_METHOD = "by picture, SHA-256 of 'kvqa/<image>': 80 % train, 10 % val, 10 % test"
MIN_ANSWER_COUNT = None
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
_KVQA_FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    return root / "images" if (root / "images").is_dir() else root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The whole file; reading it raises DataError when it is missing, broken or lacks a key."""
    file = root / "kvqa_annotations.json"
    return [
        DatasetShard(
            partial(_read_kvqa_file, file, images),
            file.stat().st_size if file.is_file() else 0,
            name=str(file),
        )
    ]


def _read_kvqa_file(file: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    for number, (line, row) in enumerate(iter_json_list(file, as_text=True), 1):
        try:
            name, question = cell_text(row["image"]), cell_text(row["question"]).strip()
            annotations = [raw_text(answer["answer"]) for answer in row["answers"]]
            answers = soft_labels(annotations)
            # JSON has it as 0 or 1, or as true or false; unanswerable questions keep their answers, as a type of their own.
            is_answerable = cell_text(row.get("answerable")) not in ("0", "false")
            question_type = cell_text(row.get("answer_type")) if is_answerable else "unanswerable"
            # One question an image, so its name is an id too (docs/sources/datasets.md, D28).
            id = cell_text(row.get("question_id")) or name
        except (KeyError, TypeError, AttributeError):
            raise DataError(
                message(
                    "index.incomplete-kvqa-row",
                    "{file}:{line}: record {number} lacks image, question or answers[].answer, or one is a list",
                    file=file, line=line, number=number,
                ),
                message("index.incomplete-kvqa-row.hint", "mend or remove it"),
            ) from None  # fmt: skip
        image = find_image(images, name)
        if not question:
            left_out.add(QUESTION_MISSING, f"{file}:{line}: {name}")
        elif not answers:
            left_out.add(ANSWER_EMPTY, f"{file}:{line}: {name}")
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(f"{file}:{line}", image))
        else:
            split = assign_split("kvqa", name, _KVQA_FRACTIONS)
            kept = raw_annotations(annotations)
            yield split, Example(id, image.path, question, answers, question_type, annotations=kept)
