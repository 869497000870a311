"""Which model a folder holds, told by its bytes: a folder that is renamed or copied holds the same one.

Checkpoints of several gigabytes are not read whole. Of each tensor both ends count: training changes every tensor
that it trains, and two runs, or two steps of one, nowhere leave the same numbers.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import ModelError
from kovqa_core.messages import message
from kovqa_core.messages.system_reasons import system_reason

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_SUFFIXES = (*_WEIGHTS, ".json", ".txt", ".model", ".jinja", ".py")
_ELSEWHERE = ("kovqa.json",)  # has the score, which comes later
_WHOLE_BYTES = 1 << 20  # files up to this size are read whole
_SAMPLE_BYTES = 4096
_SAMPLES = 1024  # of a large file of which nothing is known


def digest_model(folder: Path) -> str:
    """SHA-256 of the names, sizes and bytes (of large files: samples) of what makes a folder's model.

    Args:
        folder: step folder or Hugging Face folder; its `trainer/` and hidden files do not count.

    Raises:
        ModelError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        is_part = path.suffix in _SUFFIXES and path.name not in _ELSEWHERE
        if not is_part or parts[0] == "trainer" or any(part.startswith(".") for part in parts):
            continue
        if path.is_file():
            digest.update(f"{'/'.join(parts)}\0{path.stat().st_size}\0".encode())
            for block in _read_blocks(path):
                digest.update(block)
    return digest.hexdigest()


def _read_blocks(path: Path) -> Iterator[bytes]:
    try:
        yield from _sample_blocks(path, path.stat().st_size)
    except OSError as error:
        raise ModelError(
            message(
                "answer.unreadable-model",
                "cannot read {path}: {reason}",
                path=path,
                reason=system_reason(error),
            ),
            message("answer.unreadable-model.hint", "check its permissions, or copy the folder again"),
        ) from None


def _sample_blocks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as stream:
        if size <= _WHOLE_BYTES:
            yield stream.read()
            return
        starts = _tensor_ends(stream, size) if path.suffix == ".safetensors" else []
        for start in starts or range(0, size, max(1, size // _SAMPLES)):
            stream.seek(start)
            yield stream.read(_SAMPLE_BYTES)


def _tensor_ends(stream: BinaryIO, size: int) -> list[int]:
    """Where to read a safetensors file: its header's beginning, and both ends of every tensor; empty: it is none."""
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > size:
        return []
    try:
        header = parse_json(stream.read(length))
        offsets = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return []
    begin = 8 + length
    ends = {max(first, last - _SAMPLE_BYTES) for first, last in offsets} | {first for first, _ in offsets}
    return [0, *(begin + start for start in sorted(ends))]
