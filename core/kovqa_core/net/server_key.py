"""Which of the user's keys a server of models gets: only one that is stored for its very host.

A key is stored for a host

- as `KOVQA_SERVER_KEY` (or `server.key` in kovqa's folder) together with `KOVQA_SERVER_HOST`, HOST or HOST:PORT;
  without `KOVQA_SERVER_HOST` it is for this machine alone (localhost, 127.0.0.0/8, ::1);
- as a file `server-keys/HOST` or `server-keys/HOST:PORT` in kovqa's folder;
- as `OPENAI_API_KEY` (or `openai.key`), which is for https://api.openai.com alone.

HOST is that of `--server`, whatever its case, Unicode form or last dot; without a PORT it means every port of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx2

from kovqa_core.errors import SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.net.api_keys import find_api_key, read_key_file
from kovqa_core.net.hosts import Origin, is_loopback, require_private_channel, url_origin
from kovqa_core.paths import kovqa_home

KEY_FOLDER = "server-keys"  # in kovqa's folder
_OPENAI = Origin("https", "api.openai.com", 443)


@dataclass(frozen=True)
class ServerKey:
    """What a server gets.

    Attributes:
        secret: the key; "" for none.
        note: a key that is there and is for another host, in words; "" if one is sent, or there is none.
    """

    secret: str = field(repr=False)
    note: str = ""


@dataclass(frozen=True)
class _KeyHost:
    """What a key is stored for.

    Attributes:
        port: None: every port of the host.
    """

    host: str
    port: int | None

    def is_of(self, origin: Origin) -> bool:
        return self.host == origin.host and self.port in (None, origin.port)


def find_server_key(url: str) -> ServerKey:
    """The key for a server.

    Args:
        url: of the server, as the user gave it.

    Raises:
        SettingsError: a key for this server would go over plain http to another machine; its key file can be read
            by others; a KOVQA_SERVER_HOST that names none. Never shows a key.
    """
    origin = url_origin(url)
    stored = list(_stored_keys(origin))
    for key in stored:
        if key.is_for_server:
            require_private_channel(url, message("net.key-named", "the key in {name}", name=key.name))
            return ServerKey(key.read())
    return ServerKey("", _unsent_note(stored[0].name, origin) if stored else "")


@dataclass(frozen=True)
class _StoredKey:
    """A key of the user's: where it is, whether it is for the server, and how it is read."""

    name: str
    is_for_server: bool
    read: Callable[[], str]


def _stored_keys(origin: Origin) -> Iterator[_StoredKey]:
    """All keys that are there; the first for the server counts, a key for another one is not even read."""
    setting = _host_setting()
    if name := _key_place("KOVQA_SERVER_KEY", "server.key"):
        is_own = setting.is_of(origin) if setting else is_loopback(origin.host)
        yield _StoredKey(name, is_own, partial(find_api_key, "server", "KOVQA_SERVER_KEY", "server.key"))
    if file := _host_key_file(origin):
        yield _StoredKey(f"{KEY_FOLDER}/{file.name}", True, partial(read_key_file, "server", file))
    if name := _key_place("OPENAI_API_KEY", "openai.key"):
        read = partial(find_api_key, "OpenAI", "OPENAI_API_KEY", "openai.key")
        yield _StoredKey(name, origin == _OPENAI, read)


def _key_place(variable: str, file: str) -> str:
    """Where a key is: the variable, else the file; "" if it is nowhere."""
    if os.environ.get(variable, "").strip():
        return variable
    return file if (kovqa_home() / file).is_file() else ""


def _host_setting() -> _KeyHost | None:
    text = os.environ.get("KOVQA_SERVER_HOST", "").strip()
    host = _parse_key_host(text) if text else None
    if text and host is None:
        raise SettingsError(
            message("net.server-host-malformed", "KOVQA_SERVER_HOST={text} does not name a host", text=text),
            message(
                "net.server-host-malformed.hint", "HOST or HOST:PORT, as in --server http://HOST:PORT/v1"
            ),
        )
    return host


def _host_key_file(origin: Origin) -> Path | None:
    """The key file of a server; one with its port before one without."""
    folder = kovqa_home() / KEY_FOLDER
    names = sorted(os.listdir(folder)) if folder.is_dir() else ()  # noqa: PTH208 - names, not paths
    hosts = {name: _parse_key_host(name) for name in names if not name.startswith(".")}
    fitting = [(host.port is None, name) for name, host in hosts.items() if host and host.is_of(origin)]
    return folder / min(fitting)[1] if fitting else None


def _parse_key_host(text: str) -> _KeyHost | None:
    """HOST, HOST:PORT or the address of a server; None for anything else."""
    address = text if "://" in text else f"https://{text}"
    try:
        parts = httpx2.URL(address)
        origin = url_origin(address)
    except (httpx2.InvalidURL, ValueError):
        return None
    is_plain = not parts.userinfo and not parts.query and not parts.fragment and "\\" not in text
    is_plain = is_plain and "%" not in origin.host  # what httpx2 made of a blank
    if not is_plain or not origin.host or ("://" not in text and parts.path != "/"):
        return None
    # `HOST:443` names its port, though httpx2 drops one that is the scheme's own.
    named_port = "://" in text or text.rpartition("]")[2].rpartition(":")[1] == ":"
    return _KeyHost(origin.host, origin.port if named_port else None)


def _unsent_note(name: str, origin: Origin) -> Message:
    if name in ("OPENAI_API_KEY", "openai.key"):
        return message(
            "net.openai-key-not-sent",
            "{name} is for api.openai.com and is not sent to {origin}; a key of this server: KOVQA_SERVER_KEY with "
            "KOVQA_SERVER_HOST={origin}",
            name=name, origin=origin,
        )  # fmt: skip
    return message(
        "net.server-key-not-sent",
        "{name} is not sent to {origin}, for which it is not stored; if it is for this server: "
        "export KOVQA_SERVER_HOST={origin}",
        name=name, origin=origin,
    )  # fmt: skip
