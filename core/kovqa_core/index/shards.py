"""What a raw data set is read in: shards that yield rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.index.left_out import LeftOutRows

SplitExamples = Iterator[tuple[str, Example]]  # (split, example)


@dataclass(frozen=True)
class DatasetShard:
    """A shard of a raw data set, which can be read beside the others in a process of its own.

    Attributes:
        read: yields the shard's rows and notes those left out. It is pickled, so it must be a function of
            a module or a `functools.partial` of one.
        size: bytes to read; with little to read, one process is faster than several.
        read_images: instead of `read`, where the images lie in the data themselves: it also gets the folder
            to write them into, which the examples' image paths start from.
        notes: what was found about the data that people should know.
        name: the file or folder that it is; "" of what people do not know by name.
        missing: what its folder lacks, of which its rows could be made ("no annotation.json"); "" of a whole one.
    """

    read: Callable[[LeftOutRows], SplitExamples]
    size: int = 0
    read_images: Callable[[LeftOutRows, Path], SplitExamples] | None = None
    notes: tuple[str, ...] = ()
    name: str = ""
    missing: str = ""


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about a raw data set besides where it is.

    Attributes:
        columns: our name of a column -> the table's (`table`).
        language: "ko" or "en", where the data set has both (`nia`).
        allow_outside: may images be named with `..`, and lie anywhere (`table`)?
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    language: str = "ko"
    allow_outside: bool = field(default=False, kw_only=True)
