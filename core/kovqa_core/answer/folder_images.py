"""The images of a folder as rows to caption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Example
from kovqa_core.data.folder_walk import walk_files
from kovqa_core.data.image_formats import IMAGE_FORMATS, IMAGE_SUFFIXES, find_image_format
from kovqa_core.errors import DataError
from kovqa_core.files import to_nfc
from kovqa_core.messages import message
from kovqa_core.messages.readable_name import readable_name


def rows_from_images(folder: Path, on_passed_over: Callable[[str], object]) -> list[QuestionRow]:
    """Every image below a folder, in sorted order; its path there is its id.

    What a file holds decides, not its name; one that only its name calls an image is a row too, which cannot be
    read then.

    Args:
        folder: of the images; links in it are followed once.
        on_passed_over: called with the path of every other file, but for those that systems leave in folders.

    Raises:
        DataError: there is none, or two would have one id.
    """
    images: dict[str, str] = {}  # id -> path
    passed_over = 0
    for path in sorted(walk_files(folder), key=lambda path: path.split("/")):
        is_named = path.lower().endswith(IMAGE_SUFFIXES)
        if not is_named and find_image_format(folder / path) is None:
            on_passed_over(readable_name(path))
            passed_over += 1
            continue
        # Names need not be UTF-8, ids must be; on some disks two names differ by their Unicode form alone.
        id = to_nfc(readable_name(path))
        if id in images:
            raise DataError(
                message(
                    "answer.two-images-of-one-name",
                    "{folder}: two images are called {id}",
                    folder=folder,
                    id=id,
                ),
                message("answer.two-images-of-one-name.hint", "rename one of them: ids must differ"),
            )
        images[id] = path
    if not images:
        raise DataError(
            message(
                "answer.no-images", "no image in {folder} ({files:,} other files)",
                folder=folder, files=passed_over,
            ),
            message(
                "answer.no-images.hint", "images are {formats}; tables are named themselves",
                formats=", ".join(IMAGE_FORMATS),
            ),
        )  # fmt: skip
    return [QuestionRow(Example(id, path, ""), "", {}) for id, path in images.items()]
