"""What `kovqa download` shows: terms of use, the table of assets, where they are."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import join_messages, message

from kovqa_cli.output.console import (
    ask_yes_no,
    is_somebody_there,
    print_json,
    print_note,
    print_outcome,
    print_result,
    print_text,
    shell_path,
    short_path,
)
from kovqa_cli.output.table import Column, print_table

if TYPE_CHECKING:
    from kovqa_core.download.hub import HubListing
    from kovqa_core.download.table import Asset


def confirm_terms(terms: str) -> bool:
    """Show terms of use; ask for agreement where somebody can answer."""
    if not is_somebody_there():
        return False
    print_note(terms)
    return ask_yes_no(message("cli.accept-terms", "Do you accept these terms?"))


def print_fetched_assets(
    fetched: Sequence[tuple[str, Sequence[Path]]], *, as_json: bool, quiet: bool
) -> None:
    """Where fetched assets are, name and paths of each, and what is typed next with some of them."""
    assets = [{"name": name, "paths": [str(path) for path in paths]} for name, paths in fetched]
    lines = [short_path(path) for _, paths in fetched for path in paths]
    notes = [note for _, paths in fetched for path in paths for note in _import_commands(path)]
    names = {name for name, _ in fetched}
    notes += [note for name, paths in fetched for note in _benchmark_commands(name, paths[0], names)]
    print_outcome(lines, {"assets": assets}, notes, as_json=as_json, quiet=quiet)


def _import_commands(path: Path) -> list[str]:
    """What makes a model of a BEiT-3 that answers or captions already."""
    task = path.stem.rpartition("_")[2]
    if not path.name.startswith("beit3_") or task not in ("vqa", "captioning", "nocaps"):
        return []
    command = message(
        "cli.import-next",
        "next: kovqa import {file} {labels}--tokenizer beit3.spm -o MODEL",
        file=shell_path(path),
        labels="--labels answer2label.txt " if task == "vqa" else "",
    )
    if task != "vqa":
        return [command]
    labels = message(
        "cli.import-labels",
        "answer2label.txt, its answers in order, is written by: "
        "kovqa index vqav2 --root DIR --as-upstream --tokenizer beit3.spm",
    )
    return [command, labels]


def _benchmark_commands(name: str, path: Path, fetched: Collection[str]) -> list[str]:
    """What reads a benchmark, and before it what fetches its images, where they come apart."""
    from kovqa_core.data.benchmark_sets import BENCHMARK_SETS
    from kovqa_core.download.find_asset import asset_names

    sets = [
        each.name for each in BENCHMARK_SETS.values() if name in (each.name, f"hf:datasets/{each.repository}")
    ]
    folder = path if path.is_dir() else path.parent
    commands: list[str] = []
    for each in sets:
        images = f"{each}-images"
        if images in asset_names() and images not in fetched and not (folder / images).is_dir():
            commands.append(message("cli.images-next", "next: kovqa download {images}", images=images))
        root = shell_path(folder)
        commands.append(
            message("cli.index-next", "next: kovqa index {name} --root {root}", name=each, root=root)
        )
    return commands


def print_assets(
    assets: Sequence[Asset], output: Path | None, *, in_full: bool, as_json: bool, quiet: bool
) -> None:
    """The table of assets, or all about some of them."""
    from kovqa_core.download.fetch import asset_state

    listings = {asset.name: _read_hub_listing(asset) for asset in assets if asset.by_id}
    if as_json:
        entries = [
            {
                **asset.model_dump(mode="json"),
                "state": asset_state(asset, output),
                **_listing_fields(listings.get(asset.name)),
            }
            for asset in assets
        ]
        sources = {asset.source: asset.source_of().model_dump(mode="json") for asset in assets}
        print_json({"assets": entries, "sources": sources})
    elif quiet:
        print_result(*(asset.name for asset in assets))
    elif in_full:
        for asset in assets:
            _print_asset_details(asset, output, listings.get(asset.name))
    else:
        _print_asset_table(assets, output)


def _read_hub_listing(asset: Asset) -> HubListing:
    from kovqa_core.download.hub import hub_listing

    return hub_listing(asset)


def _listing_fields(listing: HubListing | None) -> dict[str, object]:
    if listing is None:
        return {}
    files = {name: remote.size for name, remote in listing.files.items()}
    return {
        "commit": listing.commit, "size": listing.size, "file_sizes": files,
        "left_aside": list(listing.left_aside), "licence": listing.licence,
    }  # fmt: skip


def _print_asset_table(assets: Sequence[Asset], output: Path | None) -> None:
    from kovqa_core.download.fetch import asset_state

    rows, source_before = [], ""
    for asset in assets:
        source = asset.source_of()
        terms: list[str] = [source.shown_licence, source.shown_who]
        if asset.source == source_before:  # a licence of many lines once, not in each of its rows
            terms = [message("cli.as-above", "as above"), ""]
        rows.append(
            [
                asset.name,
                _format_asset_size(asset),
                asset.shown_title,
                *terms,
                _state_cell(asset_state(asset, output)),
            ]
        )
        source_before = asset.source
    columns: list[Column] = [
        (message("cli.column-name", "name"), "left"),
        (message("cli.column-size", "size"), "right"),
        (message("cli.column-title", "title"), "text"),
        (message("cli.column-licence", "licence"), "text", 1),
        (message("cli.column-who", "who may use it"), "text", 2),
        (message("cli.column-here", "here"), "left"),
    ]
    print_table(columns, rows)


def _print_asset_details(asset: Asset, output: Path | None, listing: HubListing | None) -> None:
    from kovqa_core.download.fetch import asset_folder, asset_state, manual_instructions

    source = asset.source_of()
    files: str = ", ".join(file.name for file in asset.files) or asset.repo
    if listing:
        files = join_messages(": ", [listing.summary(asset.repo), ", ".join(listing.files)])
    lines = [
        message("cli.asset-title", "title: {title}", title=asset.title),
        message("cli.asset-korean-title", "제목: {title}", title=asset.ko),
        message("cli.asset-source", "source: {source}, {page}", source=source.title, page=asset.page),
        message("cli.asset-licence", "licence: {licence}", licence=source.shown_licence),
        message("cli.asset-who", "who may use it: {who}", who=source.shown_who),
        message("cli.asset-size", "size: {size}", size=_format_asset_size(asset, listing)),
        message(
            "cli.asset-files",
            "files: {files}",
            files=files or message("cli.asset-see-source", "see the source"),
        ),
        message("cli.asset-folder", "goes to: {folder}", folder=asset_folder(asset, output)),
        message(
            "cli.asset-state",
            "here: {state}",
            state=_state_cell(asset_state(asset, output)) or message("cli.asset-not-here", "no"),
        ),
        message("cli.asset-by-hand", "by hand: {instructions}", instructions=manual_instructions(asset)),
    ]
    print_text(asset.name, *(join_messages("", ["  ", line]) for line in lines))


def _state_cell(state: str) -> str:
    """How much of an asset is here: `asset_state`, which programs read in English."""
    if state == "here":
        return message("download.state-here", "here")
    size, found, _ = state.partition(" so far")
    if found:
        return message("download.state-so-far", "{size} so far", size=size)
    done, found, files = state.partition(" of ")
    return message("download.state-some", "{done} of {files}", done=done, files=files) if found else state


def _format_asset_size(asset: Asset, listing: HubListing | None = None) -> str:
    from kovqa_core.download.checks import format_bytes

    if listing:
        return format_bytes(listing.size)

    if asset.size:
        return format_bytes(asset.size)
    return f"~{format_bytes(asset.about)}" if asset.about else "?"
