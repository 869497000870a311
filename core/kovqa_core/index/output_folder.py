"""The folder that an index is written into, and replaces as a whole."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.reader import SPLIT_NAMES
from kovqa_core.index.report import EMBEDDED_IMAGES_FOLDER, REPORT_FILE, read_report
from kovqa_core.messages import message

_MAX_NAMED_FILES = 5  # in a message


def require_index_folder(folder: Path) -> None:
    """See that an output folder can be replaced: nothing but an index is.

    Raises:
        SettingsError: it holds something else.
    """
    if not folder.exists():
        return
    hint = message("index.output-taken.hint", "choose another folder with -o")
    if not folder.is_dir():
        raise SettingsError(message("index.output-is-file", "{folder} is a file", folder=folder), hint)
    names = {path.name for path in folder.iterdir()}
    if names and REPORT_FILE not in names:
        raise SettingsError(
            message("index.output-not-an-index", "{folder} holds files that are not an index", folder=folder),
            hint,
        )
    # The folder is replaced as a whole: a run or answers that were put beside the index would go with it.
    foreign = names - _index_files() - ({EMBEDDED_IMAGES_FOLDER} if _has_own_images(folder) else set())
    if foreign := {name for name in foreign if not name.startswith(".")}:
        raise SettingsError(
            message(
                "index.output-with-others",
                "{folder} holds an index and also {names}, which would be lost",
                folder=folder,
                names=", ".join(sorted(foreign)[:_MAX_NAMED_FILES]),
            ),
            hint,
        )


def _has_own_images(folder: Path) -> bool:
    """Did the images in an index come with its raw data? Those of the user would be lost with the index."""
    try:
        return read_report(folder).image_folder == EMBEDDED_IMAGES_FOLDER
    except DataError:
        return False


def _index_files() -> set[str]:
    """Names of the files of an index."""
    splits = {f"{split}{suffix}" for split in SPLIT_NAMES for suffix in (".jsonl", ".offsets")}
    return {REPORT_FILE, "answers.txt", *splits}
