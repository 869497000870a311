"""Why the system refused a file or an address: its own words, which are English, as messages."""

from __future__ import annotations

import re

from kovqa_core.messages import message

_NUMBER = re.compile(r"\[Errno -?\d+\] ")


def system_reason(error: OSError) -> str:
    """What the system says of an error; a message where it is one of the common ones."""
    return in_known_words(error.strerror or str(error))


def in_known_words(text: str) -> str:
    """A message in place of what the system says, where it is one of the common ones, with its number or without.

    Args:
        text: "[Errno -2] Name or service not known", as a library passes it on.
    """
    reasons = (
        message("system.no-such-file", "No such file or directory"),
        message("system.permission-denied", "Permission denied"),
        message("system.not-permitted", "Operation not permitted"),
        message("system.is-folder", "Is a directory"),
        message("system.no-folder", "Not a directory"),
        message("system.exists", "File exists"),
        message("system.folder-not-empty", "Directory not empty"),
        message("system.read-only", "Read-only file system"),
        message("system.name-too-long", "File name too long"),
        message("system.disk-full", "No space left on device"),
        message("system.quota", "Disk quota exceeded"),
        message("system.too-many-files", "Too many open files"),
        message("system.too-many-links", "Too many levels of symbolic links"),
        message("system.busy", "Device or resource busy"),
        message("system.text-busy", "Text file busy"),
        message("system.read-error", "Input/output error"),
        message("system.stale-file", "Stale file handle"),
        message("system.not-executable", "Exec format error"),
        message("system.no-device", "No such device or address"),
        message("system.no-memory", "Cannot allocate memory"),
        message("system.address-in-use", "Address already in use"),
        message("system.no-address", "Cannot assign requested address"),
        message("system.refused", "Connection refused"),
        message("system.reset", "Connection reset by peer"),
        message("system.timed-out", "Connection timed out"),
        message("system.no-route", "No route to host"),
        message("system.no-network", "Network is unreachable"),
        message("system.unknown-host", "Name or service not known"),
        message("system.unknown-host-now", "Temporary failure in name resolution"),
        message("system.no-host-address", "No address associated with hostname"),
    )
    said = _NUMBER.sub("", text)
    return next((reason for reason in reasons if reason == said), text)
