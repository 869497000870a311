"""What was named in the place of an index or one of its files, and what to name or type."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import DataError, did_you_mean, with_near_files
from kovqa_core.index.report import REPORT_FILE
from kovqa_core.messages import message, shell_quote

_TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet")


def no_index_error(folder: Path) -> DataError:
    """The error for a path that is not an index folder."""
    problem = message("index.not-found", "no index in {folder}", folder=folder)
    if folder.is_file() and (folder.parent / REPORT_FILE).is_file():
        return DataError(
            message(
                "index.file-of-an-index",
                "{file} is a file of an index, and its folder is wanted",
                file=folder,
            ),
            message("index.file-of-an-index.hint", "name {folder}", folder=shell_quote(folder.parent)),
        )
    if folder.is_file():
        if folder.suffix.lower() not in _TABLE_SUFFIXES:
            return DataError(
                message("index.not-a-folder", "{path} is a file; an index is a folder", path=folder),
                message("index.not-a-folder.hint", "write one first: kovqa index SOURCE --root DIR -o INDEX"),
            )
        return DataError(
            message("index.table-for-index", "{path} is a table; an index is a folder made of it", path=folder),
            message(
                "index.table-for-index.hint", "make one: kovqa index table --root {path} -o {index}",
                path=shell_quote(folder), index=shell_quote(f"{folder.stem}-index"),
            ),
        )  # fmt: skip
    near = [] if folder.exists() else [str(each.parent) for each in folder.parent.glob(f"*/{REPORT_FILE}")]
    return DataError(
        did_you_mean(problem, sorted(near)[:3]) if near else problem,
        message(
            "index.not-found.hint",
            "write it first: kovqa index SOURCE --root DIR -o {folder}",
            folder=shell_quote(folder),
        ),
    )


def no_split_file_error(path: Path) -> DataError:
    """The error for a path that is not a split's file."""
    if path.is_dir():
        files = [path / f"{name}.jsonl" for name in ("test", "val", "train")]
        there = [str(file) for file in files if file.is_file() and file.stat().st_size]
        if there:
            return DataError(
                message("index.folder-for-split", "{folder} is a whole index, and one of its files is wanted", folder=path),
                message("index.folder-for-split.hint", "name {file}", file=shell_quote(there[0])),
            )  # fmt: skip
    problem = message("index.no-split-file", "no index file {file}", file=path)
    return DataError(
        problem if path.exists() else with_near_files(problem, path),
        message("index.no-split-file.hint", "write the index first: kovqa index SOURCE --root DIR"),
    )
