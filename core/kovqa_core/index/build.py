"""`kovqa index`: choose the data set's reader, write its index, or the original project's files."""

from __future__ import annotations

import importlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from kovqa_core.errors import DataError, SettingsError, unknown
from kovqa_core.files import require_empty, write_folder
from kovqa_core.index.shards import Options
from kovqa_core.index.sources import SOURCES
from kovqa_core.index.upstream import UPSTREAM, Encode
from kovqa_core.index.writer import Progress, Wanted, write_index
from kovqa_core.output_lock import output_lock


def build_index(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path | None,
    min_count: int | None = None,
    progress: Progress | None = None,
    options: Options | None = None,
    wanted: Wanted | None = None,
) -> dict[str, Any]:
    """Write the index of a raw data set; the report that stands in its `index.json`.

    Args:
        source: name of the data set.
        root: folder of the raw data (`table`: the file).
        images: folder of the pictures; None: where the data set keeps them.
        folder: index folder; None: only check, keep nothing.
        min_count: see `write_index`.
        progress: see `write_index`.
        options: what else the user said about the data set.
        wanted: see `write_index`.

    Raises:
        SettingsError: no such data set, an option it has no use for, another process writes `folder`.
        DataError: raw data that cannot be read, or holds no usable row.
    """
    if source not in SOURCES:
        raise unknown("data set", source, SOURCES)
    module = importlib.import_module(SOURCES[source])
    pictures = _pictures(module.pictures, root, images)
    options = options or Options()
    about = {**_heard(source, module, options), "divided": getattr(module, "DIVIDED", "as published")}
    if hasattr(module, "GROUPS"):
        about["groups"] = module.GROUPS
    pieces = module.pieces(root.resolve(), pictures, options)
    if min_count is None:
        min_count = getattr(module, "MIN_COUNT", None)
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch) / "index"
        with output_lock(place):
            return write_index(
                pieces, source, root.resolve(), pictures, place, min_count, progress, about, wanted
            )


def build_upstream(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path,
    encode: Encode | None = None,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write the index files the original project would have written; bytes by file name.

    Args:
        source: name of a data set that an original project has files of.
        root: folder of the raw data.
        images: folder of the pictures; None: where the data set keeps them.
        folder: where the files appear, all or none; must be empty or not exist.
        encode: ids of a text, without `<s>` and `</s>`; not needed where the files hold texts.
        progress: called with the number of texts encoded so far; the share is not known.

    Raises:
        SettingsError: no such data set, no tokenizer, a folder that holds something or that another
            process writes.
        DataError: raw data that cannot be read.
    """
    if source not in UPSTREAM:
        raise unknown("original of data set", source, UPSTREAM)
    module = importlib.import_module(UPSTREAM[source])
    if module.NEEDS_TOKENIZER and encode is None:
        raise SettingsError(
            f"the original files of {source} hold token ids", "name it: --tokenizer FILE.model"
        )
    pictures = _pictures(importlib.import_module(SOURCES[source]).pictures, root, images)
    told = _telling(encode, progress) if encode and progress else encode
    with output_lock(folder):
        require_empty(folder)
        write_folder(folder, lambda part: module.write(root.resolve(), pictures, part, told))
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _telling(encode: Encode, progress: Progress) -> Encode:
    """`encode` that tells of every thousandth text."""
    number = itertools.count(1)

    def told(text: str) -> list[int]:
        if (n := next(number)) % 1000 == 0:
            progress(n, 0.0)
        return encode(text)

    return told


def _heard(source: str, module: ModuleType, options: Options) -> dict[str, Any]:
    """The options a data set listens to; an error for one it has no use for."""
    listens = getattr(module, "OPTIONS", ())
    for name, value in vars(options).items():
        if name not in listens and value != getattr(Options(), name):
            raise SettingsError(f"{source} has no use for {name} {value}", "kovqa index --help")
    return {name: getattr(options, name) for name in listens}


def _pictures(default: Callable[[Path], Path], root: Path, images: Path | None) -> Path:
    if not root.exists():
        raise DataError(f"no folder or file {root}", "check --root")
    pictures = (images or default(root)).resolve()
    if not pictures.is_dir():
        raise DataError(f"no folder {pictures}", "check --images")
    return pictures
