"""Dividing a data set by picture: the same on any machine, in any order, in any process."""

from __future__ import annotations

import hashlib

from kovqa_core.files import to_nfc


def hash_fraction(salt: str, image: str) -> float:
    """A picture's fixed place in 0…1: the first 64 bits of SHA-256 of "salt/image"."""
    name = f"{salt}/{to_nfc(image)}".encode("utf-8", "surrogatepass")  # JSON may hold half a character
    return int.from_bytes(hashlib.sha256(name).digest()[:8]) / 2**64


def assign_split(salt: str, image: str, shares: dict[str, float]) -> str:
    """The split a picture falls into, so that all its questions fall on one side.

    Args:
        salt: keeps data sets apart that name their pictures alike.
        image: the picture's name.
        shares: split -> share of the pictures, 1 in all.
    """
    at = hash_fraction(salt, image)
    for split, share in shares.items():
        at -= share
        if at < 0:
            return split
    return next(reversed(shares))
