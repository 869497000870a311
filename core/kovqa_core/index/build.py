"""`kovqa index`: choose the data set's reader, write its index, or the original project's files."""

from __future__ import annotations

import importlib
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from kovqa_core.errors import DataError, SettingsError, unknown_name_error
from kovqa_core.files import require_empty, write_folder
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import SOURCE_MODULES
from kovqa_core.index.upstream import UPSTREAM_MODULES, EncodeText
from kovqa_core.index.writer import ClassSelection, IndexProgress, write_index
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock


def build_index(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path | None,
    min_count: int | None = None,
    progress: IndexProgress | None = None,
    options: SourceOptions | None = None,
    wanted: ClassSelection | None = None,
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
    if source not in SOURCE_MODULES:
        raise unknown_name_error(
            message("index.unknown-source", "unknown data set '{source}'", source=source),
            source,
            SOURCE_MODULES,
        )
    module = importlib.import_module(SOURCE_MODULES[source])
    pictures = _resolve_image_folder(module.find_image_folder, root, images)
    options = options or SourceOptions()
    about = {
        **_accepted_options(source, module, options),
        "divided": getattr(module, "SPLIT_METHOD", "as published"),
    }
    if hasattr(module, "QUESTION_TYPE_GROUPS"):
        about["groups"] = module.QUESTION_TYPE_GROUPS
    pieces = module.dataset_shards(root.resolve(), pictures, options)
    if min_count is None:
        min_count = getattr(module, "MIN_ANSWER_COUNT", None)
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch) / "index"
        with output_lock(place):
            return write_index(
                pieces, source, root.resolve(), pictures, place, min_count, progress, about, wanted
            )


def build_upstream_files(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path,
    encode: EncodeText | None = None,
    progress: IndexProgress | None = None,
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
    if source not in UPSTREAM_MODULES:
        raise unknown_name_error(
            message(
                "index.unknown-upstream", "no original files are known of data set '{source}'", source=source
            ),
            source,
            UPSTREAM_MODULES,
        )
    module = importlib.import_module(UPSTREAM_MODULES[source])
    if module.NEEDS_TOKENIZER and encode is None:
        raise SettingsError(
            f"the original files of {source} hold token ids", "name it: --tokenizer FILE.model"
        )
    pictures = _resolve_image_folder(
        importlib.import_module(SOURCE_MODULES[source]).find_image_folder, root, images
    )
    told = _encode_with_progress(encode, progress) if encode and progress else encode
    with output_lock(folder):
        require_empty(folder)
        write_folder(folder, lambda part: module.write_upstream_files(root.resolve(), pictures, part, told))
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _encode_with_progress(encode: EncodeText, progress: IndexProgress) -> EncodeText:
    """`encode` that tells of every thousandth text."""
    number = itertools.count(1)

    def told(text: str) -> list[int]:
        if (n := next(number)) % 1000 == 0:
            progress(n, 0.0)
        return encode(text)

    return told


def _accepted_options(source: str, module: ModuleType, options: SourceOptions) -> dict[str, Any]:
    """The options a data set listens to; an error for one it has no use for."""
    listens = getattr(module, "ACCEPTED_OPTIONS", ())
    for name, value in vars(options).items():
        if name not in listens and value != getattr(SourceOptions(), name):
            raise SettingsError(f"{source} has no use for {name} {value}", "kovqa index --help")
    return {name: getattr(options, name) for name in listens}


def _resolve_image_folder(default: Callable[[Path], Path], root: Path, images: Path | None) -> Path:
    if not root.exists():
        raise DataError(f"no folder or file {root}", "check --root")
    pictures = (images or default(root)).resolve()
    if not pictures.is_dir():
        raise DataError(f"no folder {pictures}", "check --images")
    return pictures
