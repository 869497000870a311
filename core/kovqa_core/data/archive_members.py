"""What members of archives are called, and how much they may hold: what downloads and tables share.

Source: docs/sources/datasets.md, D4.
"""

from __future__ import annotations

from kovqa_core.errors import DataError

MAX_COMPRESSION_RATIO = 250  # label JSON packs 10 to 40 times; a bomb 1,000 times and more
RATIO_FREE_BYTES = 16 << 20  # below it no ratio is checked: a blank image packs 1,000 times, and harms nobody


class ArchiveDamaged(DataError):
    """The bytes are not those of a whole archive: fetching them again may mend it."""


def decode_member_name(raw: bytes) -> str:
    """A name stored without saying how: UTF-8, else CP949 (Korean Windows), else the zip format's CP437."""
    # UTF-8 first: Korean text in CP949 is hardly ever valid UTF-8, while CP949 accepts much that is UTF-8.
    for encoding in ("utf-8", "cp949"):
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437")
