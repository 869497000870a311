"""What `kovqa download` shows: terms of use, the table of assets, where they are."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from kovqa_cli.output.console import print_json, print_note, print_result, print_table, short_path

if TYPE_CHECKING:
    from kovqa_core.download.table import Asset


def confirm_terms(terms: str) -> bool:
    """Show terms of use; ask for agreement where somebody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()) or os.environ.get("CI", "") not in ("", "false"):
        return False
    print_note(terms)
    return typer.confirm("Do you accept these terms?", err=True)


def print_fetched_assets(found: Sequence[tuple[str, Sequence[Path]]], as_json: bool) -> None:
    """Where fetched assets are."""
    if as_json:
        print_json({"assets": [{"name": name, "paths": [str(p) for p in paths]} for name, paths in found]})
        return
    for _, paths in found:
        for path in paths:
            print_result(short_path(path))


def print_assets(
    found: Sequence[Asset], output: Path | None, in_full: bool, as_json: bool, quiet: bool
) -> None:
    """The table of assets, or all about some of them."""
    from kovqa_core.download.fetch import asset_state

    if as_json:
        rows = [{**asset.model_dump(mode="json"), "state": asset_state(asset, output)} for asset in found]
        sources = {asset.source: asset.source_of().model_dump(mode="json") for asset in found}
        print_json({"assets": rows, "sources": sources})
    elif quiet:
        print_result("\n".join(asset.name for asset in found))
    elif in_full:
        for asset in found:
            _print_asset_details(asset, output)
    else:
        _print_asset_table(found, output)


def _print_asset_table(found: Sequence[Asset], output: Path | None) -> None:
    from kovqa_core.download.fetch import asset_state

    rows, before = [], ""
    for asset in found:
        source = asset.source_of()
        terms = ["as above", ""] if asset.source == before else [source.licence, source.who]
        rows.append([asset.name, _format_asset_size(asset), asset.title, *terms, asset_state(asset, output)])
        before = asset.source
    texts = [(heading, "text") for heading in ("what", "licence", "who may use it")]
    print_table([("name", "left"), ("size", "right"), *texts, ("here", "left")], rows)


def _print_asset_details(asset: Asset, output: Path | None) -> None:
    from kovqa_core.download.fetch import asset_folder, asset_state, manual_instructions

    source = asset.source_of()
    facts = {
        "title": asset.title, "제목": asset.ko, "source": f"{source.title}, {asset.page}",
        "licence": source.licence, "who": source.who, "size": _format_asset_size(asset),
        "files": ", ".join(file.name for file in asset.files) or asset.repo or "see the source",
        "goes to": str(asset_folder(asset, output)), "here": asset_state(asset, output) or "no",
        "by hand": manual_instructions(asset),
    }  # fmt: skip
    print_result("\n".join([asset.name, *(f"  {name}: {text}" for name, text in facts.items())]))


def _format_asset_size(asset: Asset) -> str:
    from kovqa_core.download.checks import format_bytes

    return format_bytes(asset.size) if asset.size else f"~{format_bytes(asset.about)}" if asset.about else "?"
