"""The original projects' index files: their names, rows and mistakes, to compare with them.

A module of this folder writes the files of one data set: it offers what `UpstreamWriter` says and has a line
in `UPSTREAM_WRITERS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from kovqa_core.index.upstream import aihub, coco, dacon, nia, vqav2
from kovqa_core.index.upstream.rows import EncodeText


class UpstreamWriter(Protocol):
    """A module that writes an original project's files of a data set."""

    @property
    def NEEDS_TOKENIZER(self) -> bool:
        """Whether the files hold token ids; without, `encode` is never called."""

    def write_upstream_files(self, root: Path, images: Path, folder: Path, encode: EncodeText) -> None:
        """Write the files into a folder that exists.

        Args:
            root: folder of the raw data.
            images: image folder.
            folder: where the files go.
            encode: token ids of a text, without `<s>` and `</s>`.

        Raises:
            DataError: raw data that cannot be read.
        """


UPSTREAM_WRITERS: dict[str, UpstreamWriter] = {
    "aihub": aihub,
    "vqav2": vqav2,
    "coco": coco,
    "nia": nia,
    "dacon": dacon,
}
