"""Splitting a data set by image: the same on any machine, in any order, in any process."""

from __future__ import annotations

import hashlib

from kovqa_core.files import to_nfc


def hash_fraction(salt: str, image: str) -> float:
    """An image's fixed place in 0…1: the first 64 bits of SHA-256 of "salt/image"."""
    # JSON may hold half a surrogate pair, which UTF-8 has no bytes for.
    name = f"{salt}/{to_nfc(image)}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(name).digest()[:8]) / 2**64


def assign_split(salt: str, image: str, fractions: dict[str, float]) -> str:
    """The split of an image, so that all questions about it are in one split.

    Args:
        salt: keeps data sets apart whose images have the same names.
        image: the image's name.
        fractions: split -> fraction of the images, 1 in all.
    """
    remaining = hash_fraction(salt, image)
    for split, fraction in fractions.items():
        remaining -= fraction
        if remaining < 0:
            return split
    return next(reversed(fractions))  # where fractions add up to a little less than 1
