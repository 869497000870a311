"""KVQA (SK Telecom and Testworks): pictures taken by blind people, a question each, ten answers.

Layout: `kvqa_annotations.json`, a list of `{image, question, answers[]{answer}, answerable,
answer_type}`; pictures anywhere below `images/` (or the folder itself), as the archives unpack.
The publisher divides nothing: 80 % train, 10 % val, 10 % test by picture, with a fixed hash.
(docs/sources/datasets.md, D28)
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.json_stream import iter_json_list
from kovqa_core.data.tables import cell_text
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_image
from kovqa_core.index.hash_split import assign_split
from kovqa_core.index.shards import DatasetShard, LeftOutRows, SourceOptions, SplitExamples

SPLIT_METHOD = "by picture, SHA-256 of 'kvqa/<image>': 80 % train, 10 % val, 10 % test"
_KVQA_FRACTIONS = {"train": 0.8, "val": 0.1, "test": 0.1}


def find_image_folder(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root / "images" if (root / "images").is_dir() else root


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """The whole file; reading it raises DataError when it is missing, broken or lacks a key."""
    file = root / "kvqa_annotations.json"
    return [
        DatasetShard(partial(_read_kvqa_file, file, images), file.stat().st_size if file.is_file() else 0)
    ]


def _read_kvqa_file(file: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    for line, row in iter_json_list(file):
        try:
            name, question = cell_text(row["image"]), cell_text(row["question"]).strip()
            answers = soft_labels(cell_text(answer["answer"]) for answer in row["answers"])
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{file}:{line}: lacks image, question or answers[].answer") from None
        kind = (
            cell_text(row.get("answer_type"))
            if cell_text(row.get("answerable")) not in ("0", "false")
            else "unanswerable"
        )
        image = find_image(images, name)
        if not question:
            left_out.add("question missing", f"{file}:{line}: {name}")
        elif not answers:
            left_out.add("answer empty", f"{file}:{line}: {name}")
        elif image is None:
            left_out.add("picture missing", f"{file}:{line}: {name}")
        else:
            id = cell_text(row.get("question_id")) or name
            yield assign_split("kvqa", name, _KVQA_FRACTIONS), Example(id, image, question, answers, kind)
