"""A user's key for a service: from the environment, or from a file that nobody else can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.files import read_text
from kovqa_core.messages import message
from kovqa_core.paths import kovqa_home
from kovqa_core.system_support import HAS_FILE_OWNERS


def read_api_key(service: str, variable: str, file: str, key_page: str) -> str:
    """A key, which must never be shown, logged, or passed on as an argument.

    Args:
        service: its name, for people.
        variable: of the environment.
        file: in the user's kovqa folder, mode 0600.
        key_page: where a key can be had.

    Raises:
        SettingsError: there is none, others can read it, or it cannot be a key. Never shows it.
    """
    secret = find_api_key(service, variable, file)
    if not secret:
        raise SettingsError(
            message("net.key-missing", "{service} needs your API key", service=service),
            message(
                "net.key-missing.hint",
                "ask for one at {page}, then export {variable}=…, or write it to {path} (chmod 600)",
                page=key_page,
                variable=variable,
                path=kovqa_home() / file,
            ),
        )
    return secret


def find_api_key(service: str, variable: str, file: str) -> str:
    """The same where a key is optional: "" if there is none."""
    secret = os.environ.get(variable, "").strip()
    path = kovqa_home() / file
    if secret or not path.is_file():
        return _require_header_text(service, variable, secret)
    return read_key_file(service, path)


def read_key_file(service: str, path: Path) -> str:
    """The key in a file that nobody else may read.

    Raises:
        SettingsError: others can read it, or it cannot hold a key. Never shows it.
    """
    # Any right of group or others, as ssh refuses a key that others can read.
    if HAS_FILE_OWNERS and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise SettingsError(
            message(
                "net.key-readable-by-others",
                "others can read {path}, which holds your {service} key",
                path=path,
                service=service,
            ),
            message("net.key-readable-by-others.hint", "chmod 600 {path}", path=path),
        )
    return _require_header_text(service, str(path), read_text(path).strip())


def _require_header_text(service: str, place: str, secret: str) -> str:
    # A key goes into a header: anything but printable ASCII would be refused there, with the key in the error.
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SettingsError(
            message("net.key-malformed", "{place} holds no {service} key", place=place, service=service),
            message("net.key-malformed.hint", "copy the key alone: letters, digits and dashes"),
        )
    return secret
