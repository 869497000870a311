"""Files that come from elsewhere: weights and tokenizers, found by path or by name."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import AssetError
from kovqa_core.paths import home


def find_asset(name: str, what: str, published: str = "") -> Path:
    """The file of a path, or of a name in `assets/` here or in the user's kovqa folder.

    Args:
        name: path or bare file name.
        what: what it is, for the error.
        published: address of the folder it is published in, if it is.

    Raises:
        AssetError: it is nowhere; says where to put it and where to fetch it.
    """
    places = [Path(name).expanduser(), Path("assets") / name, home() / "assets" / name]
    for place in places:
        if place.exists():
            return place
    fetch = f"fetch {published}{Path(name).name} and put it" if published else "put it"
    raise AssetError(
        f"{what} {name} not found", f"{fetch} into assets/ or {home() / 'assets'}, or give a path"
    )
