"""kovqa download: asset -> verified files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from kovqa_core.errors import SettingsError
from kovqa_core.messages import message, shell_quote

from kovqa_cli import completion, options

if TYPE_CHECKING:
    from kovqa_core.download.fetch import FetchOptions
    from kovqa_core.download.table import Asset


def _parse_file_numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(",") if number.strip())
    except ValueError:
        raise SettingsError(
            message("cli.files-not-numbers", "--files {text}: expected numbers like 1,2,3", text=text)
        ) from None


def download(
    assets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names, or files they hold; hf:OWNER/NAME is any model of the Hugging Face hub, "
            "hf:datasets/OWNER/NAME a data set. NAME@DATE or NAME@REVISION for a certain version.",
            metavar="NAME",
            autocompletion=completion.complete_asset,
        ),
    ] = None,
    *,
    listed: Annotated[
        bool,
        typer.Option(
            "--list", help="List all assets, or show the named ones in full (of hf: ids, files and size)."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder to write to. [default: assets/ in KOVQA_HOME]", metavar="DIR"
        ),
    ] = None,
    local_file: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take this file, or the files of this folder, fetched by hand: check, place and unpack them. "
            "Without NAME: unpack an archive, or every archive of a folder.",
            metavar="FILE",
        ),
    ] = None,
    files: Annotated[
        str,
        typer.Option(
            "--files",
            help="AI-Hub: file numbers, like 1,2,3; the hub: names, like '*.gguf,config.json'. "
            "[default: all; of the hub's models, config, tokenizer and safetensors]",
            metavar="N,N",
        ),
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
    """Fetch data sets, weights and tokenizers."""
    from kovqa_core.download import licence, table
    from kovqa_core.download.fetch import FetchOptions

    from kovqa_cli.output import download as output_download

    if local_file and not assets and not listed:
        _unpack_archives(local_file, output, json=json, quiet=quiet)
        return
    chosen = [table.find_asset_entry(name) for name in assets or []]
    chosen, files = _choose_hub_files(chosen, files)
    if listed:
        entries = chosen or list(table.load_assets().values())
        output_download.print_assets(entries, output, in_full=bool(chosen), as_json=json, quiet=quiet)
        return
    if not chosen:
        raise SettingsError(
            message("cli.no-asset", "no asset named"),
            message("cli.no-asset.hint", "list them: kovqa download --list"),
        )
    if local_file and len(chosen) > 1:
        raise SettingsError(
            message("cli.from-several", "--from is for one asset"),
            message(
                "cli.from-several.hint",
                "kovqa download {asset} --from {file}",
                asset=chosen[0].name,
                file=shell_quote(local_file),
            ),
        )
    fetch_options = FetchOptions(output, _parse_file_numbers(files), allow_hash_mismatch, keep_archive)
    for asset in chosen:
        licence.require_licence(
            asset.source_of(), accepted=accept_licence, confirm=output_download.confirm_terms
        )
    _fetch_assets(chosen, local_file, fetch_options, json=json, quiet=quiet)


def _choose_hub_files(assets: list[Asset], files: str) -> tuple[list[Asset], str]:
    """Assets of the hub with the names or patterns of `--files`, which then is used up."""
    if not files or not assets or not all(asset.repo for asset in assets):
        return assets, files
    only = tuple(name.strip() for name in files.split(",") if name.strip())
    return [asset.model_copy(update={"only": only}) for asset in assets], ""


def _unpack_archives(source: Path, output: Path | None, *, json: bool, quiet: bool) -> None:
    from kovqa_core.download.unpack_local import unpack_local_archives

    from kovqa_cli.output import download as output_download
    from kovqa_cli.output import progress

    with progress.show_progress(quiet or json, announce=True) as on_progress:
        folders = unpack_local_archives(source, output, on_progress)
    output_download.print_fetched_assets([(source.name, folders)], as_json=json, quiet=quiet)


def _fetch_assets(
    assets: list[Asset], local_file: Path | None, fetch_options: FetchOptions, *, json: bool, quiet: bool
) -> None:
    """Fetch one after the other; those that are complete are named also when a later one fails."""
    from kovqa_core.download.fetch import fetch_asset
    from kovqa_core.download.local_file import adopt_local_file
    from kovqa_core.download.local_folder import adopt_local_folder

    from kovqa_cli.output import console, progress
    from kovqa_cli.output import download as output_download

    fetched: list[tuple[str, list[Path]]] = []
    try:
        with progress.show_progress(quiet or json, announce=True) as on_progress:
            for asset in assets:
                if local_file and local_file.is_dir():
                    paths = adopt_local_folder(asset, local_file, fetch_options, on_progress)
                elif local_file:
                    paths = adopt_local_file(asset, local_file, fetch_options, on_progress)
                else:
                    paths = fetch_asset(asset, fetch_options, on_progress)
                fetched.append((asset.name, paths))
    except KeyboardInterrupt:
        console.print_note(
            message("cli.download-stopped", "stopped; what has arrived is kept → run the same command again")
        )
        raise
    finally:
        if fetched:
            output_download.print_fetched_assets(fetched, as_json=json, quiet=quiet)
