"""kovqa index: raw data set -> index folder."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.messages import message, shell_quote

from kovqa_cli import options


def index(
    *,
    source: options.SourceArgument = None,
    root: options.RawDataOption = None,
    output: options.IndexOption = None,
    images: options.RawImagesOption = None,
    min_count: options.MinCountOption = None,
    answers: options.AnswerClassesOption = None,
    column: options.ColumnOption = None,
    language: options.LanguageOption = "ko",
    allow_left_out: options.AllowLeftOutOption = False,
    allow_outside: options.AllowOutsideTableOption = False,
    check: options.IndexCheckOption = False,
    check_images: options.CheckImagesOption = False,
    per_split: options.ShowExamplesOption = None,
    as_upstream: options.IndexUpstreamOption = False,
    tokenizer: options.UpstreamTokenizerOption = None,
    json: options.JsonOption = False,
    quiet: options.QuietOption = False,
) -> None:
    """Turn a raw data set into an index that training reads.

    With --show 3 -o INDEX, look at examples of an index instead.
    """
    if check_images and (per_split is not None or as_upstream):
        raise SettingsError(
            message("index.images-not-checked", "--check-images goes with neither --show nor --as-upstream"),
            message("index.images-not-checked.hint", "write an index, or only --check the data set"),
        )
    if per_split is not None:
        _show_examples(output or Path("data") / _require_source(source), per_split, images, as_json=json)
        return
    source = _require_source(source, root)
    root = _require_root(root, source)
    if as_upstream:
        folder = output or Path("data") / f"{source}-upstream"
        _write_upstream_files(source, root, images, folder, tokenizer, as_json=json, quiet=quiet)
        return
    from kovqa_core.index.build import build_index
    from kovqa_core.index.shards import SourceOptions
    from kovqa_core.index.sources import DATA_SOURCES
    from kovqa_core.plugins import clash_warnings

    from kovqa_cli.output.console import print_warnings
    from kovqa_cli.output.index import print_checked_data_set, print_index_report
    from kovqa_cli.output.progress import show_progress

    print_warnings(clash_warnings("source", DATA_SOURCES.keys() & {source}))
    folder = output or Path("data") / source
    source_options = SourceOptions(options.parse_columns(column), language, allow_outside=allow_outside)
    classes = _parse_answer_classes(answers)
    with show_progress(quiet or json) as on_progress:
        report = build_index(
            source, root, images, None if check else folder,
            min_count=min_count, options=source_options, classes=classes, allow_left_out=allow_left_out,
            check_images=check_images, on_progress=on_progress,
        )  # fmt: skip
    if check:
        print_checked_data_set(report, as_json=json, quiet=quiet)
    else:
        print_index_report(report, folder, as_json=json, quiet=quiet)


def _show_examples(folder: Path, per_split: int, images: Path | None, *, as_json: bool) -> None:
    from kovqa_core.index.preview import preview_index

    from kovqa_cli.output.index import print_examples

    print_examples(preview_index(folder, per_split, images), as_json=as_json)


def _write_upstream_files(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path,
    tokenizer: Path | None,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    from kovqa_core.index.build import build_upstream_files

    from kovqa_cli.output.index import print_upstream_files
    from kovqa_cli.output.progress import show_progress

    encode = None
    if tokenizer:
        from kovqa_core.models.xlmr_tokenizer import load_xlmr_tokenizer

        encode = load_xlmr_tokenizer(tokenizer).encode
    with show_progress(quiet or as_json) as on_progress:
        sizes = build_upstream_files(source, root, images, folder, encode, on_progress=on_progress)
    print_upstream_files(folder, sizes, as_json=as_json, quiet=quiet)


def _require_source(source: str | None, root: Path | None = None) -> str:
    if source is None and root is not None and root.is_file():
        raise SettingsError(
            message("index.which-source", "which data set?"),
            message(
                "index.which-source-of-file.hint", "for a table of one's own: kovqa index table --root {file}",
                file=shell_quote(root),
            ),
        )  # fmt: skip
    if source is None:
        from kovqa_core.index.sources import source_names

        raise SettingsError(
            message("index.which-source", "which data set?"),
            message(
                "index.which-source.hint",
                "kovqa index SOURCE --root DIR, SOURCE one of {sources}",
                sources=", ".join(source_names()),
            ),
        )
    return source


def _require_root(root: Path | None, source: str) -> Path:
    if root is None and Path(source).is_file():
        raise SettingsError(
            message("index.file-for-source", "{file} is a file; first comes the kind of data set", file=source),
            message(
                "index.file-for-source.hint", "for a table of one's own: kovqa index table --root {file} -o {index}",
                file=shell_quote(source), index=shell_quote(f"{Path(source).stem}-index"),
            ),
        )  # fmt: skip
    if root is None and source == "table":
        raise SettingsError(
            message("index.which-table", "which table?"),
            message("index.which-table.hint", "name its file: kovqa index table --root FILE"),
        )
    if root is None:
        raise SettingsError(
            message("index.which-root", "where is the raw data?"),
            message("index.which-root.hint", "name its folder: --root DIR"),
        )
    return root


def _parse_answer_classes(text: str | None) -> int | list[str] | None:
    """How many classes, or which."""
    if text is None:
        return None
    if not text.isdecimal():
        from kovqa_core.index.class_list import read_class_list

        return read_class_list(Path(text))
    if int(text) == 0:
        raise SettingsError(
            message("index.no-class", "--answers 0: no class at all"),
            message("index.no-class.hint", "give their number, or a file that lists them"),
        )
    return int(text)
