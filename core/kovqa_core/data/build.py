"""`kovqa index`: choose the data set's reader, write its index."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from kovqa_core.data.pieces import Options
from kovqa_core.data.sources import SOURCES
from kovqa_core.data.writing import Progress, write_index
from kovqa_core.errors import DataError, unknown


def build_index(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path | None,
    min_count: int | None = None,
    progress: Progress | None = None,
    options: Options | None = None,
) -> dict[str, Any]:
    """Write the index of a raw data set; the report that stands in its `index.json`.

    Args:
        source: name of the data set.
        root: folder of the raw data.
        images: folder of the pictures; None: where the data set keeps them.
        folder: index folder; None: only check, keep nothing.
        min_count: see `write_index`.
        progress: see `write_index`.
        options: what else the user said about the data set.
    """
    if source not in SOURCES:
        raise unknown("data set", source, SOURCES)
    if not root.is_dir():
        raise DataError(f"no folder {root}", "check --root")
    module = importlib.import_module(SOURCES[source])
    pictures = (images or module.pictures(root)).resolve()
    if not pictures.is_dir():
        raise DataError(f"no folder {pictures}", "check --images")
    pieces = module.pieces(root.resolve(), pictures, options or Options())
    if min_count is None:
        min_count = getattr(module, "MIN_COUNT", None)
    if folder is not None:
        return write_index(pieces, source, root.resolve(), pictures, folder, min_count, progress)
    with tempfile.TemporaryDirectory() as scratch:
        return write_index(
            pieces, source, root.resolve(), pictures, Path(scratch) / "index", min_count, progress
        )
