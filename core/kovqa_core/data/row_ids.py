"""Ids that repeat: one rule for the rows of an index, a table to answer, and predictions.

Data sets that number their questions per image have one id under many images, and joining rows by it would
mix them up. So of the rows of one table or split that share an id,

* those that also share image and question are one row: the first stays, the others are duplicates;
* of all others the id is qualified by the image, also the first one's: `동물/1.jpg#7`;
* where one image has several questions of that id, a number follows, in their order: `동물/1.jpg#7#2`.

A qualified id depends on neither the order of the images nor on how the data was divided for reading.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from kovqa_core.data.example import Example
from kovqa_core.files import to_nfc
from kovqa_core.messages.readable_name import readable_name

if TYPE_CHECKING:
    import numpy as np  # at run time only where ids repeat

ID_MARK = "#"  # between an image and an id


def qualified_id(id: str, image: str, number: int = 0) -> str:
    """An id that its image tells from others.

    Args:
        id: as the data has it.
        image: the image's path.
        number: 1, 2, … of several questions that have this id under this image; 0: it is the only one.
    """
    # Readable: an id is written everywhere, and a path need not be UTF-8.
    return f"{to_nfc(readable_name(image))}{ID_MARK}{id}{f'{ID_MARK}{number}' if number else ''}"


def unqualified_id(id: str, image: str) -> str:
    """The id that the data has for a row of this image; a number behind it stays."""
    return id.removeprefix(f"{to_nfc(readable_name(image))}{ID_MARK}")


class TableRow(NamedTuple):
    """What tells one row of a table from another; a named tuple, for predictions have millions.

    Attributes:
        id: as the table has it.
        image: the image's path; "" where the table does not say.
        question: all that is asked; "" where the table does not say.
    """

    id: str
    image: str
    question: str

    @classmethod
    def of_example(cls, example: Example) -> TableRow:
        """What tells an example from another: its choices and its context are asked too."""
        question = "\0".join((example.question, example.context, *example.choices))
        return cls(example.id, example.image, question)


@dataclass(frozen=True)
class RowIdentity:
    """Hashes by which rows are compared, 64 bits each.

    Of n rows, n² / 2^65 pairs share one by chance: one in a million for ten million rows.

    Attributes:
        id: of the id.
        image: of id and image.
        question: of id, image and question.
    """

    id: int
    image: int
    question: int


def row_identity(row: TableRow) -> RowIdentity:
    """What a row is compared by."""
    # NFC: an image's path has the Unicode form of its disk.
    texts = (row.id, to_nfc(row.image), to_nfc(row.question))
    # A text's length in front of it: "ab" and "c" are not "a" and "bc". Names of files may hold half characters.
    joined = [f"{len(text)}:{text}".encode("utf-8", "surrogatepass") for text in texts]
    return RowIdentity(*(_hash64(b"".join(joined[: n + 1])) for n in range(3)))


def _hash64(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


@dataclass(frozen=True)
class RepeatedIds:
    """What becomes of rows whose ids may repeat.

    Attributes:
        first: number of the first row with the same id, image and question; its own where there is none [rows].
        is_qualified: the id needs its image [rows].
        number: that follows the qualified id, 0 where none does [rows].
    """

    first: np.ndarray
    is_qualified: np.ndarray
    number: np.ndarray

    @property
    def is_duplicate(self) -> np.ndarray:
        """Whether an earlier row is the same [rows]."""
        import numpy as np

        return self.first != np.arange(len(self.first))


def resolve_repeated_ids(identities: np.ndarray) -> RepeatedIds:
    """What becomes of the rows of one table or split.

    Args:
        identities: the three hashes of each row, in the rows' order, uint64 [rows, 3].
    """
    import numpy as np

    rows = np.arange(len(identities))
    _, first, group = np.unique(identities[:, 2], return_index=True, return_inverse=True)
    first = first[group]
    kept = rows[first == rows]
    is_qualified, number = np.zeros(len(rows), bool), np.zeros(len(rows), np.uint32)
    is_qualified[kept] = _group_sizes(identities[kept, 0]) > 1
    numbered = kept[(_group_sizes(identities[kept, 1]) > 1)]
    # Stable: within an image the rows keep their order, and their places in it are their numbers.
    by_image = numbered[np.argsort(identities[numbered, 1], kind="stable")]
    keys = identities[by_image, 1]
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]]) if len(keys) else np.zeros(0, int)
    number[by_image] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.r_[starts, len(keys)])) + 1
    return RepeatedIds(first, is_qualified, number)


def _group_sizes(keys: np.ndarray) -> np.ndarray:
    """How many rows have each row's key [rows]."""
    import numpy as np

    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    return sizes[group]


def unique_row_ids(rows: Sequence[TableRow]) -> list[str | None]:
    """The id of every row of a table that fits into memory; None where the row is a duplicate of an earlier one."""
    if len({row.id for row in rows}) == len(rows):
        return [row.id for row in rows]
    import numpy as np

    identities = [row_identity(row) for row in rows]
    resolved = resolve_repeated_ids(
        np.array([(each.id, each.image, each.question) for each in identities], np.uint64)
    )
    return [
        None if duplicate else qualified_id(row.id, row.image, number) if qualified else row.id
        for row, duplicate, qualified, number in zip(
            rows, resolved.is_duplicate, resolved.is_qualified, resolved.number.tolist(), strict=True
        )
    ]
