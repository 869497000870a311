"""kovqa index: raw data set -> index folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from kovqa_core.errors import SettingsError

from kovqa_cli import options

SOURCE_NAMES = "aihub, aihub101, nia, dacon, vqav2, coco, kvqa, table (any CSV, TSV, JSON lines or JSON)"


def index(
    source: Annotated[
        str | None,
        typer.Argument(help=f"Data set: {SOURCE_NAMES}.", autocompletion=options.complete_source),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder of the raw data; table: the file.", envvar="KOVQA_ROOT"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Index folder. [default: data/SOURCE, as upstream data/SOURCE-upstream]"
        ),
    ] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of the pictures.")] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            "--min-count",
            min=1,
            help="Times a training answer must occur to become a class. "
            "[default: 5, or 1 below 10,000 rows; vqav2: 9, nia: 1]",
        ),
    ] = None,
    answers: Annotated[
        str | None,
        typer.Option(
            "--answers",
            help="How many answers become classes, the most frequent; or a file of them, answers.txt or "
            "answer2label.txt. [default: all that --min-count lets through]",
            metavar="N|FILE",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(
            "--column",
            help="table: which column is our id, image, question, answer, split, kind or caption. Repeatable.",
            metavar="OURS=THEIRS",
        ),
    ] = None,
    language: Annotated[str, typer.Option("--language", help="nia: ko or en.")] = "ko",
    check: Annotated[bool, typer.Option("--check", help="Read only; write nothing.")] = False,
    number: Annotated[
        int | None,
        typer.Option(
            "--show", min=1, help="Show so many examples of each split of the index -o.", metavar="N"
        ),
    ] = None,
    as_upstream: Annotated[
        bool,
        typer.Option(
            "--as-upstream", help="Write the original project's files: aihub, nia, vqav2, coco, dacon."
        ),
    ] = False,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="SentencePiece model, for --as-upstream.")
    ] = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Turn a raw data set into an index that training reads; or look at one: --show 3 -o INDEX."""
    if number is not None:
        _show_examples(output or Path("data") / _require_source(source), number, images, json)
    elif as_upstream:
        folder = output or Path("data") / f"{_require_source(source)}-upstream"
        _write_upstream(_require_source(source), _require_root(root), images, folder, tokenizer, json, quiet)
    else:
        from kovqa_core.index.build import build_index
        from kovqa_core.index.shards import SourceOptions

        from kovqa_cli.output import console, progress

        name, place = _require_source(source), _require_root(root)
        said = SourceOptions(dict(map(_parse_column_pair, column or ())), language)
        folder = output or Path("data") / name
        with progress.count_status("rows read", quiet or json) as told:
            kept = None if check else folder
            report = build_index(
                name, place, images, kept, min_count, told, said, _parse_answer_classes(answers)
            )
        console.print_index_report(report, folder, check, json, quiet)


def _show_examples(folder: Path, number: int, images: Path | None, json: bool) -> None:
    from kovqa_core.index.preview import preview_index

    from kovqa_cli.output import console

    console.print_examples(preview_index(folder, number, images), json)


def _write_upstream(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path,
    tokenizer: Path | None,
    json: bool,
    quiet: bool,
) -> None:
    from kovqa_core.index.build import build_upstream_files

    from kovqa_cli.output import console, progress

    encode = None
    if tokenizer:
        from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer

        encode = load_xlmr_tokenizer(tokenizer).encode
    with progress.count_status("texts encoded", quiet or json) as told:
        sizes = build_upstream_files(source, root, images, folder, encode, told)
    console.print_written_folder(folder, sizes, json, quiet)


def _require_source(source: str | None) -> str:
    if source is None:
        raise SettingsError("which data set?", f"kovqa index SOURCE --root DIR, SOURCE one of {SOURCE_NAMES}")
    return source


def _require_root(root: Path | None) -> Path:
    if root is None:
        raise SettingsError("where is the raw data?", "say so: --root DIR")
    return root


def _parse_answer_classes(text: str | None) -> int | list[str] | None:
    """How many classes, or which."""
    if text is None:
        return None
    if not text.isdecimal():
        from kovqa_core.data.answers import read_answers

        return read_answers(Path(text))
    if int(text) == 0:
        raise SettingsError("--answers 0: no class at all", "say how many, or name a file of them")
    return int(text)


def _parse_column_pair(text: str) -> tuple[str, str]:
    ours, mark, theirs = text.partition("=")
    if not (ours and mark and theirs):
        raise SettingsError(f"--column {text}: expected OURS=THEIRS", "for example --column question=질문")
    return ours, theirs
