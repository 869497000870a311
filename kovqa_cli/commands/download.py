"""kovqa download: asset -> verified files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError

from kovqa_cli import options


def _parse_file_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise SettingsError(f"--files {text}: expected numbers like 1,2,3") from None


def download(
    assets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, or files they hold; NAME@DATE or NAME@REVISION for a certain version.",
            autocompletion=options.complete_asset,
        ),
    ] = None,
    listed: Annotated[
        bool, typer.Option("--list", help="Show what there is, or all about the assets named.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder. [default: assets/ in KOVQA_HOME]")
    ] = None,
    given: Annotated[
        Path | None,
        typer.Option("--from", help="Take this file, fetched by hand: check, place and unpack it."),
    ] = None,
    files: Annotated[
        str, typer.Option("--files", help="AI-Hub: file numbers, like 1,2,3. [default: all]")
    ] = "",
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="Accept the source's terms of use, shown on stderr.")
    ] = False,
    allow_hash_mismatch: Annotated[
        bool, typer.Option("--allow-hash-mismatch", help="Take a file that is not the published one.")
    ] = False,
    keep_archive: Annotated[
        bool,
        typer.Option(
            "--keep-archive", help="Do not remove archives after unpacking them (AI-Hub's always stay)."
        ),
    ] = False,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Fetch data sets, weights and tokenizers: resumed, checked, unpacked. Ctrl-C loses nothing."""
    from kovqa_core.download import fetch, licence, table

    from kovqa_cli.output import console, progress
    from kovqa_cli.output import download as output_download

    if listed:
        chosen = [table.find_asset_entry(name) for name in assets or []]
        output_download.print_assets(
            chosen or list(table.load_assets().values()), output, bool(chosen), json, quiet
        )
        return
    if not assets:
        raise SettingsError("no asset named", "list them: kovqa download --list")
    chosen = [table.find_asset_entry(name) for name in assets]
    if given and len(chosen) > 1:
        raise SettingsError("--from is for one asset", f"kovqa download {assets[0]} --from {given}")
    wishes = fetch.FetchOptions(output, _parse_file_numbers(files), allow_hash_mismatch, keep_archive)
    for asset in chosen:
        licence.require_licence(asset.source_of(), accept_licence, output_download.confirm_terms)
    brought: list[tuple[str, list[Path]]] = []
    try:
        with progress.transfer_bar(quiet or json) as told:
            for asset in chosen:
                paths = (
                    fetch.adopt_local_file(asset, given, wishes, told)
                    if given
                    else fetch.fetch_asset(asset, wishes, told)
                )
                brought.append((asset.name, paths))
    except KeyboardInterrupt:
        console.print_note("stopped; what came so far is kept → run the same command again")
        raise
    finally:
        if brought:
            output_download.print_fetched_assets(brought, json)
