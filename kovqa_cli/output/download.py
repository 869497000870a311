"""What `kovqa download` shows: terms of use, the table of assets, where they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kovqa_cli.output.console import document, note, out, short, table

if TYPE_CHECKING:
    from kovqa_core.download.table import Asset


def agree(terms: str) -> bool:
    """Show terms of use; ask for agreement where somebody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or os.environ.get("CI", "") not in ("", "false"):
        return False
    note(terms)
    return typer.confirm("Do you accept these terms?", err=True)


def brought(found: Sequence[tuple[str, Sequence[Path]]], as_json: bool) -> None:
    """Where fetched assets are."""
    if as_json:
        document({"assets": [{"name": name, "paths": [str(p) for p in paths]} for name, paths in found]})
        return
    for _, paths in found:
        for path in paths:
            out(short(path))


def assets(found: Sequence[Asset], output: Path | None, in_full: bool, as_json: bool, quiet: bool) -> None:
    """The table of assets, or all about some of them."""
    from kovqa_core.download.fetch import state

    if as_json:
        rows = [{**asset.model_dump(mode="json"), "state": state(asset, output)} for asset in found]
        sources = {asset.source: asset.source_of().model_dump(mode="json") for asset in found}
        document({"assets": rows, "sources": sources})
    elif quiet:
        out("\n".join(asset.name for asset in found))
    elif in_full:
        for asset in found:
            _about(asset, output)
    else:
        _table(found, output)


def _table(found: Sequence[Asset], output: Path | None) -> None:
    from kovqa_core.download.fetch import state

    rows, before = [], ""
    for asset in found:
        source = asset.source_of()
        terms = ["as above", ""] if asset.source == before else [source.licence, source.who]
        rows.append([asset.name, _size(asset), asset.title, *terms, state(asset, output)])
        before = asset.source
    texts = [(heading, "text") for heading in ("what", "licence", "who may use it")]
    table([("name", "left"), ("size", "right"), *texts, ("here", "left")], rows)


def _about(asset: Asset, output: Path | None) -> None:
    from kovqa_core.download.fetch import by_hand, folder_of, state

    source = asset.source_of()
    facts = {
        "title": asset.title, "제목": asset.ko, "source": f"{source.title}, {asset.page}",
        "licence": source.licence, "who": source.who, "size": _size(asset),
        "files": ", ".join(file.name for file in asset.files) or asset.repo or "see the source",
        "goes to": str(folder_of(asset, output)), "here": state(asset, output) or "no",
        "by hand": by_hand(asset),
    }  # fmt: skip
    out("\n".join([asset.name, *(f"  {name}: {text}" for name, text in facts.items())]))


def _size(asset: Asset) -> str:
    from kovqa_core.download.checks import amount

    return amount(asset.size) if asset.size else f"~{amount(asset.about)}" if asset.about else "?"
