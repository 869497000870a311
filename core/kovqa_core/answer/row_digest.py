"""What an answer is given to: told from another by a few bytes, so that rows may come and go around it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kovqa_core.data.example import Example
from kovqa_core.data.image_source import image_bytes_count
from kovqa_core.errors import DataError


def digest_row(example: Example, image_folder: Path) -> str:
    """What an answer is given to: a row's id, texts and image, in 64 bits.

    The image counts by its path and its size in bytes. Not by its time, which a copy of the data set changes;
    not by its bytes, all of which would be read for nothing in most cases. So another image of the same name
    and size goes unnoticed.
    """
    try:
        size = image_bytes_count(image_folder / example.image)
    except (OSError, ValueError, DataError):
        size = -1
    asked = (example.id, example.image, size, example.question, example.context, [*example.choices])
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
