"""Images by address, from hosts that the server's user has named; else a client could look into our network by us."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Collection
from functools import partial

import httpx2

from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.messages import message
from kovqa_core.net.hosts import Origin, url_origin
from kovqa_core.net.request import RemoteFile, network_errors, new_http_client, redact_url
from kovqa_core.serve.ask_requests import FetchImage, refuse_address
from kovqa_core.web.http_errors import RefusedRequest

_SECONDS = 20.0  # for the whole image


def require_host_names(hosts: Collection[str]) -> None:
    """See that hosts are named as an address would name them.

    Raises:
        SettingsError: one is an address, or has a port, and would never be found.
    """
    for host in hosts:
        if not re.fullmatch(r"[a-zA-Z0-9_.-]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]+", host):
            raise SettingsError(
                message("serve.bad-url-host", "--allow-url {host} is not the name of a host", host=host),
                message("serve.bad-url-host.hint", "write the name alone: images.example.com"),
            )


def image_fetcher(hosts: Collection[str], max_bytes: int) -> FetchImage:
    """How a server fetches images.

    Args:
        hosts: names or addresses that may be asked; none: it fetches nothing.
        max_bytes: of an image.
    """
    if not hosts:
        return refuse_address
    allowed = frozenset(host.lower().removesuffix(".") for host in hosts)

    async def fetch(url: str) -> bytes:
        try:
            async with asyncio.timeout(_SECONDS):
                return await asyncio.to_thread(partial(_fetch_image, url, allowed, max_bytes))
        except TimeoutError:
            raise RefusedRequest(
                400, message("serve.slow-image", "{url}: no image in time", url=redact_url(url))
            ) from None
        except AssetError as error:
            text = message("serve.image-not-fetched", "{problem}", problem=error.message)
            raise RefusedRequest(400, text) from None

    return fetch


def _fetch_image(url: str, allowed: Collection[str], max_bytes: int) -> bytes:
    try:
        origin = url_origin(url)
    except (httpx2.InvalidURL, ValueError):
        raise RefusedRequest(400, message("serve.not-an-address", "image is not an address")) from None
    if origin.host not in allowed:
        raise RefusedRequest(
            400,
            message("serve.host-not-allowed", "no images are fetched from {host} here", host=origin.host),
        )
    address = _resolve(origin)
    # The very address that was looked at: asked again, the name could have another one. The certificate is the name's.
    target = httpx2.URL(url).copy_with(host=address)
    host = str(origin)
    body = b""
    with network_errors(RemoteFile(url)), new_http_client(_SECONDS, direct=True) as client:
        request = client.build_request(
            "GET", target, headers={"Host": host}, extensions={"sni_hostname": origin.host}
        )
        response = client.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code != 200:
                raise RefusedRequest(
                    400,
                    message(
                        "serve.image-refused", "{url}: {status}",
                        url=redact_url(url), status=response.status_code,
                    ),
                )  # fmt: skip
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > max_bytes:
                    raise RefusedRequest(
                        413,
                        message(
                            "serve.image-too-large", "{url}: larger than {size:,} bytes",
                            url=redact_url(url), size=max_bytes,
                        ),
                    )  # fmt: skip
        finally:
            response.close()
    return body


def _resolve(origin: Origin) -> str:
    """The address of an allowed host; a name must lead out of this network, unless the address itself is allowed.

    Raises:
        RefusedRequest: it has none, or one of this machine or its network.
    """
    try:
        return str(ipaddress.ip_address(origin.host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses or not all(ipaddress.ip_address(address).is_global for address in addresses):
        raise RefusedRequest(
            400, message("serve.host-not-public", "{host} has no public address", host=origin.host)
        )
    return addresses[0]
