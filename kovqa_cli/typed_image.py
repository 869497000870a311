"""An image as people name it: a file, an address (fetched once they agree), or `-` for standard input."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kovqa_core.errors import DataError, SettingsError
from kovqa_core.messages import message, shell_quote

MAX_BYTES = 64 << 20
_ADDRESS = re.compile(r"(https?):/+(.+)")  # a Path has one slash less


@contextlib.contextmanager
def named_image(image: Path) -> Iterator[Path]:
    """The file of an image that was named; what is fetched or read from standard input goes in the end.

    Args:
        image: a path, an address, or `-`.

    Raises:
        DataError: standard input holds nothing, or too much.
        SettingsError: an address, and nobody is there to agree, or does not.
        AssetError: it cannot be fetched.
    """
    address = _ADDRESS.fullmatch(str(image))
    if str(image) != "-" and address is None:
        yield image
        return
    with tempfile.TemporaryDirectory(prefix="kovqa-image-") as folder:
        if address is None:
            path, content = Path(folder) / "stdin", _read_stdin()
        else:
            url = f"{address[1]}://{address[2]}"
            name = re.sub(r"[?#].*", "", url).rpartition("/")[2]
            path, content = Path(folder) / (re.sub(r"[^\w.-]", "_", name)[:80] or "image"), _fetch(url)
        path.write_bytes(content)
        yield path


def _read_stdin() -> bytes:
    content = sys.stdin.buffer.read(MAX_BYTES + 1)
    if not content:
        raise DataError(
            message("cli.empty-stdin", "-i -: standard input is empty"),
            message("cli.empty-stdin.hint", "pipe an image: cat x.png | kovqa predict -i - --question '…'"),
        )
    if len(content) > MAX_BYTES:
        raise DataError(
            message("cli.large-stdin", "-i -: standard input has more than {limit:,} bytes", limit=MAX_BYTES),
            message("cli.large-stdin.hint", "save the image, and name the file"),
        )
    return content


def _fetch(url: str) -> bytes:
    """The image at an address; it is asked for only if a person at the terminal agrees."""
    from kovqa_core.net.request import RemoteFile, read_document, redact_url

    from kovqa_cli.output.console import ask_yes_no, is_somebody_there

    question = message("cli.fetch-image", "Fetch {url} from the internet?", url=redact_url(url))
    if not is_somebody_there():
        raise SettingsError(
            message("cli.image-not-fetched", "{url} is not fetched without asking, and nobody is there to ask",
                    url=redact_url(url)),
            message("cli.image-not-fetched.hint", "fetch it first: curl -LO {url}", url=shell_quote(redact_url(url))),
        )  # fmt: skip
    if not ask_yes_no(question):
        raise SettingsError(message("cli.image-refused", "{url} was not fetched", url=redact_url(url)))
    return read_document(RemoteFile(url), max_bytes=MAX_BYTES)
