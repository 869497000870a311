"""Which host a request goes to, exactly as the HTTP client understands the address; and whether others can listen."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import httpx2

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Origin:
    """Where an address leads: two addresses with one origin are answered by the same service.

    Attributes:
        scheme: "http" or "https", or another one that no request is made with.
        host: lower case, punycode, without a dot at its end.
        port: the scheme's own where the address names none; None: nobody knows.
    """

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port in (None, _DEFAULT_PORTS.get(self.scheme)) else f"{host}:{self.port}"


def url_origin(url: str) -> Origin:
    """Where an address leads.

    Raises:
        httpx2.InvalidURL, ValueError: it is none.
    """
    # httpx2's own reading, because httpx2 connects: `http://a\\@b` is host a for some readers and b for others.
    parts = httpx2.URL(url)
    return Origin(
        parts.scheme,
        _plain_host(parts.raw_host.decode("ascii")),
        parts.port if parts.port is not None else _DEFAULT_PORTS.get(parts.scheme),
    )


def _plain_host(host: str) -> str:
    # One dot at the end is DNS's way to write the same name; two are no name.
    return host.lower().removesuffix(".")


def is_loopback(host: str) -> bool:
    """Is it this machine itself, by a name or number that means nothing else: localhost, 127.0.0.0/8, ::1?"""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a name; or 127.1 and 2130706433, which only some readers take for an address
        return False
    return address.is_loopback and not (address.version == 6 and address.ipv4_mapped)


def require_private_channel(url: str, secret: str) -> None:
    """See that a secret travels by https, or does not leave this machine.

    Args:
        url: where it would go.
        secret: what it is, for people: "your AI-Hub key".

    Raises:
        SettingsError: others could read it on its way.
        httpx2.InvalidURL, ValueError: no address.
    """
    origin = url_origin(url)
    if origin.scheme == "http" and not is_loopback(origin.host):
        raise SettingsError(
            message(
                "net.secret-over-http",
                "{secret} is not sent to {origin} over plain http, where others can read it",
                secret=secret, origin=origin,
            ),
            message(
                "net.secret-over-http.hint",
                "use an https address; or a tunnel: ssh -L PORT:localhost:PORT HOST, and then http://localhost:PORT",
            ),
        )  # fmt: skip
