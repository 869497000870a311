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
from kovqa_core.data.json_stream import listed
from kovqa_core.data.tables import text
from kovqa_core.errors import DataError
from kovqa_core.index.find_image import find_picture
from kovqa_core.index.hash_split import divide
from kovqa_core.index.shards import LeftOut, Options, Piece, Rows

DIVIDED = "by picture, SHA-256 of 'kvqa/<image>': 80 % train, 10 % val, 10 % test"
_SHARES = {"train": 0.8, "val": 0.1, "test": 0.1}


def pictures(root: Path) -> Path:
    """Where the pictures lie when nothing else is said."""
    return root / "images" if (root / "images").is_dir() else root


def pieces(root: Path, images: Path, options: Options) -> list[Piece]:
    """The whole file; reading it raises DataError when it is missing, broken or lacks a key."""
    file = root / "kvqa_annotations.json"
    return [Piece(partial(_read, file, images), file.stat().st_size if file.is_file() else 0)]


def _read(file: Path, images: Path, left_out: LeftOut) -> Rows:
    for line, row in listed(file):
        try:
            name, question = text(row["image"]), text(row["question"]).strip()
            answers = soft_labels(text(answer["answer"]) for answer in row["answers"])
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{file}:{line}: lacks image, question or answers[].answer") from None
        kind = (
            text(row.get("answer_type"))
            if text(row.get("answerable")) not in ("0", "false")
            else "unanswerable"
        )
        image = find_picture(images, name)
        if not question:
            left_out.add("question missing", f"{file}:{line}: {name}")
        elif not answers:
            left_out.add("answer empty", f"{file}:{line}: {name}")
        elif image is None:
            left_out.add("picture missing", f"{file}:{line}: {name}")
        else:
            id = text(row.get("question_id")) or name
            yield divide("kvqa", name, _SHARES), Example(id, image, question, answers, kind)
