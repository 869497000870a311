"""Dacon competition 236118: `train.csv` and `test.csv` with `ID, image_id, question[, answer]`.

Images are in `image/train` and `image/test`; some copies of the data set have `images/` or neither. The
competition's page says png, but the files are .jpg, so any suffix is looked for. `train/` and `test/` may hold
equal names: the folder belongs to the name. Questions and answers are
English. A tenth of the training images becomes `val`; `test` has no answers, and its ids must be those of
`sample_submission.csv`, where that is beside it. (docs/sources/llava.md, L2 and L3)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.data.tables import cell_text, read_table
from kovqa_core.errors import DataError, list_ids
from kovqa_core.index.find_image import find_image, row_with_problem
from kovqa_core.index.hash_split import assign_split
from kovqa_core.index.left_out import ANSWER_EMPTY, ID_OR_QUESTION_MISSING, LeftOutRows
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.messages import message

SPLIT_METHOD = "train.csv by picture, SHA-256 of 'dacon/<image_id>': 90 % train, 10 % val; test.csv is test"
MIN_ANSWER_COUNT = None
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS: Mapping[str, Sequence[str]] = {}
_UNPACK_HINT = message("index.unpack-dacon.hint", "unpack open.zip again")
_DACON_FRACTIONS = {"train": 0.9, "val": 0.1}


def find_image_folder(root: Path) -> Path:
    """The folder of the images, unless the user names another."""
    folders = (root / "image", root / "images", root)
    return next((folder for folder in folders if (folder / "train").is_dir()), folders[0])


def dataset_shards(root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
    """One shard per table; reading one raises DataError with file and line."""
    files = [root / "train.csv", root / "test.csv"]
    return [
        DatasetShard(
            partial(_read_dacon_csv, file, images),
            file.stat().st_size if file.is_file() else 0,
            name=str(file),
        )
        for file in files
    ]


def _read_dacon_csv(file: Path, images: Path, left_out: LeftOutRows) -> SplitExamples:
    is_test = file.stem == "test"
    columns = ("ID", "image_id", "question") if is_test else ("ID", "image_id", "question", "answer")
    seen: dict[str, None] = {}  # in the file's order
    for line, row in read_table(file, {name: (name,) for name in columns}, _UNPACK_HINT):
        id, name, question = (cell_text(row[column]).strip() for column in columns[:3])
        if id:
            seen[id] = None
        image = find_image(images, f"{file.stem}/{name}" if name else "")
        answers = {} if is_test else soft_labels([cell_text(row["answer"])])
        if not id or not question:
            left_out.add(ID_OR_QUESTION_MISSING, f"{file}:{line}")
        elif not answers and not is_test:
            left_out.add(ANSWER_EMPTY, f"{file}:{line}: id {id}")
        elif image.path is None:
            left_out.add(image.reason, row_with_problem(f"{file}:{line}: id {id}", image, f"{file.stem}/"))
        else:
            yield (
                "test" if is_test else assign_split("dacon", name, _DACON_FRACTIONS),
                Example(id, image.path, question, answers),
            )
    sample = file.with_name("sample_submission.csv")
    if is_test and sample.is_file():
        _compare_with_sample(seen, file, sample)


def _compare_with_sample(tested: Iterable[str], file: Path, sample: Path) -> None:
    """See that the sample asks for the ids of the test: else no prediction could be submitted."""
    sample_ids = dict.fromkeys(
        cell_text(row["ID"]).strip() for _, row in read_table(sample, {"ID": ("ID",)}, _UNPACK_HINT)
    )
    test_ids = dict.fromkeys(tested)
    hint = message(
        "index.sample-differs.hint",
        "{unpack}, or move {sample} away to index without it",
        unpack=_UNPACK_HINT,
        sample=sample.name,
    )
    if ids := [id for id in sample_ids if id not in test_ids]:
        raise DataError(
            message(
                "index.sample-asks-more",
                "{sample} asks for what {file} lacks: {ids}",
                sample=sample,
                file=file.name,
                ids=list_ids(ids),
            ),
            hint,
        )
    if ids := [id for id in test_ids if id not in sample_ids]:
        raise DataError(
            message(
                "index.sample-asks-less",
                "{file} holds what {sample} does not ask for: {ids}",
                file=file,
                sample=sample.name,
                ids=list_ids(ids),
            ),
            hint,
        )
