"""A user's key for a service: from the environment, or from a file that nobody else can read."""

from __future__ import annotations

import os
import stat

from kovqa_core.errors import SettingsError
from kovqa_core.files import read_text
from kovqa_core.paths import kovqa_home


def read_api_key(service: str, variable: str, file: str, ask: str) -> str:
    """A key, which must never be shown, logged, or passed on as an argument.

    Args:
        service: its name, for people.
        variable: of the environment.
        file: in the user's kovqa folder, mode 0600.
        ask: where a key can be had.

    Raises:
        SettingsError: there is none, others can read it, or it cannot be a key. Never shows it.
    """
    secret = find_api_key(service, variable, file)
    if not secret:
        raise SettingsError(
            f"{service} needs your API key",
            f"ask for one at {ask}, then export {variable}=…, or write it to {kovqa_home() / file} (chmod 600)",
        )
    return secret


def find_api_key(service: str, variable: str, file: str) -> str:
    """The same where a key may be there or not: "" if it is not."""
    secret, place = os.environ.get(variable, "").strip(), variable
    path = kovqa_home() / file
    if not secret and path.is_file():
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SettingsError(
                f"others can read {path}, which holds your {service} key", f"chmod 600 {path}"
            )
        secret, place = read_text(path).strip(), str(path)
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise SettingsError(
            f"{place} holds no {service} key", "copy the key alone: letters, digits and dashes"
        )
    return secret
