"""`kovqa index`: choose the data set, write its index, or the original project's files."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from kovqa_core.errors import DataError, SettingsError, unknown_name_error, with_near_files
from kovqa_core.files import real_path
from kovqa_core.index.find_image import clear_listings
from kovqa_core.index.packed_root import missing_folder_hint, require_unpacked
from kovqa_core.index.report import EMBEDDED_IMAGES_FOLDER, DatasetOrigin, IndexReport, OptionValue
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import DataSource, find_source
from kovqa_core.index.upstream import UPSTREAM_WRITERS, UpstreamWriter
from kovqa_core.index.upstream.rows import EncodeText
from kovqa_core.index.writer import ClassSelection, write_index
from kovqa_core.messages import message, shell_quote
from kovqa_core.output_lock import output_lock, scratch_folder
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.whole_folder import require_new_folder, write_new_folder

_UPSTREAM_SUFFIXES = (".json", ".jsonl", ".csv", ".txt")
_PROGRESS_TEXTS = 1000  # texts between two reports of progress


def build_index(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path | None,
    *,
    min_count: int | None = None,
    options: SourceOptions | None = None,
    classes: ClassSelection | None = None,
    allow_left_out: bool = True,
    check_images: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> IndexReport:
    """Write the index of a raw data set.

    Args:
        source: name of the data set.
        root: folder of the raw data (`table`: the file).
        images: image folder; None: where the data set keeps its images.
        folder: index folder; None: only check, keep nothing.
        min_count: see `write_index`; None: as the data set has it.
        options: what else the user said about the data set.
        classes, allow_left_out, check_images: see `write_index`.
        on_progress: see `write_index`.

    Raises:
        SettingsError: no such data set, an option it does not use, or another process writes `folder`.
        DataError: raw data that cannot be read, or that holds no usable row or too many faulty ones.
    """
    data_source, options = find_source(source), options or SourceOptions()
    clear_listings()
    require_unpacked(root, reads_tars=source == "table")
    if folder is not None:
        _require_outside(folder, root)
    # Resolved: the report names the folder for other processes, which start elsewhere.
    origin = DatasetOrigin(
        source,
        real_path(root),
        _resolve_image_folder(data_source, root, images),
        _accepted_options(source, data_source.ACCEPTED_OPTIONS, options),
        data_source.SPLIT_METHOD,
        data_source.QUESTION_TYPE_GROUPS,
    )
    shards = data_source.dataset_shards(origin.root, origin.images, options)
    origin = replace(origin, notes=[note for shard in shards for note in shard.notes])
    if images is not None:  # what the user names is meant, also where the data hold images themselves
        shards = [replace(shard, read_images=None) for shard in shards]
    if min_count is None:
        min_count = data_source.MIN_ANSWER_COUNT
    with contextlib.ExitStack() as stack:
        # A check writes a whole index too, and throws it away: what it says is what writing would say.
        output = folder or stack.enter_context(scratch_folder()) / "index"
        if any(shard.read_images for shard in shards):
            origin = replace(origin, images=real_path(output) / EMBEDDED_IMAGES_FOLDER)
        if folder is not None:
            stack.enter_context(output_lock(output))
        return write_index(
            shards,
            origin,
            output,
            min_count=min_count,
            classes=classes,
            allow_left_out=allow_left_out,
            check_images=check_images,
            allow_outside=options.allow_outside,
            on_progress=on_progress,
        )


def _require_outside(folder: Path, root: Path) -> None:
    """See that the raw data do not lie in the folder that is replaced as a whole.

    Raises:
        SettingsError: they do.
    """
    if real_path(root).is_relative_to(real_path(folder)):
        raise SettingsError(
            message(
                "index.output-holds-input",
                "{root} lies in {folder}, which would be replaced",
                root=root,
                folder=folder,
            ),
            message("index.output-taken.hint", "choose another folder with -o"),
        )


def build_upstream_files(
    source: str,
    root: Path,
    images: Path | None,
    folder: Path,
    encode: EncodeText | None = None,
    *,
    on_progress: OnProgress = ignore_progress,
) -> dict[str, int]:
    """Write the index files that the original project would have written; returns bytes by file name.

    Args:
        source: name of a data set that an original project has files of.
        root: folder of the raw data.
        images: image folder; None: where the data set keeps its images.
        folder: where the files appear, all or none; see `write_new_folder`.
        encode: token ids of a text, without `<s>` and `</s>`; not needed where the files hold texts.
        on_progress: called with the number of texts encoded so far, and with notes.

    Raises:
        SettingsError: no such data set, no tokenizer, a folder that holds something or that another
            process writes.
        DataError: raw data that cannot be read.
    """
    upstream = _find_upstream_writer(source, has_tokenizer=encode is not None)
    require_unpacked(root, reads_tars=source == "table")
    image_folder = _resolve_image_folder(find_source(source), root, images)
    encode_text = _encode_with_progress(encode or _refuse_to_encode, on_progress)
    with output_lock(folder):
        require_new_folder(folder, _may_be_upstream_files)
        write_new_folder(
            folder,
            lambda partial_folder: upstream.write_upstream_files(
                real_path(root), image_folder, partial_folder, encode_text
            ),
            on_progress,
        )
        return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def _may_be_upstream_files(folder: Path) -> bool:
    return all(path.suffix in _UPSTREAM_SUFFIXES for path in folder.iterdir())


def _find_upstream_writer(source: str, *, has_tokenizer: bool) -> UpstreamWriter:
    """The writer of a data set's original files; an error for one that lacks the tokenizer it needs."""
    if source not in UPSTREAM_WRITERS:
        raise unknown_name_error(
            message(
                "index.unknown-upstream", "no original files are known of data set '{source}'", source=source
            ),
            source,
            UPSTREAM_WRITERS,
        )
    upstream = UPSTREAM_WRITERS[source]
    if upstream.NEEDS_TOKENIZER and not has_tokenizer:
        raise SettingsError(
            message(
                "index.upstream-needs-tokenizer",
                "the original files of {source} hold token ids",
                source=source,
            ),
            message("index.upstream-needs-tokenizer.hint", "name a tokenizer: --tokenizer FILE.model"),
        )
    return upstream


def _refuse_to_encode(text: str) -> list[int]:
    raise AssertionError("files without token ids encode nothing")


def _encode_with_progress(encode: EncodeText, on_progress: OnProgress) -> EncodeText:
    """`encode` that reports every thousandth text, and refuses what is not a text."""
    # A list of rows is encoded row by row, deep inside a writer: counting here spares every writer a parameter.
    numbers = itertools.count(1)
    stage = message("index.encoding-texts", "encoding texts")

    def encode_and_count(text: str) -> list[int]:
        if (number := next(numbers)) % _PROGRESS_TEXTS == 0:
            on_progress(Progress(stage, number, unit="texts"))
        # null and NaN: the original's files are those of whole data, and no row may be left out of them.
        if not isinstance(text, str):
            raise DataError(
                message(
                    "index.upstream-not-a-text",
                    "text {number:,} is {value}, not a text",
                    number=number,
                    value=text,
                ),
                message(
                    "index.upstream-not-a-text.hint",
                    "the original's files need whole data: kovqa index without --as-upstream names the row",
                ),
            )
        return encode(text)

    return encode_and_count


def _accepted_options(
    source: str, accepted: Collection[str], options: SourceOptions
) -> dict[str, OptionValue]:
    """The options a data set uses; an error for one that it does not."""
    values, defaults = vars(options), vars(SourceOptions())
    for name, value in values.items():
        if name not in accepted and value != defaults[name]:
            raise SettingsError(
                message(
                    "index.option-not-used", "{source} has no use for {option} {value}",
                    source=source, option=name.replace("_", "-"), value=value,
                ),
                message("index.option-not-used.hint", "see kovqa index --help"),
            )  # fmt: skip
    # How the rows were read is of interest later; what the user allowed is for this command alone.
    return {name: values[name] for name in accepted if name != "allow_outside"}


def _resolve_image_folder(source: DataSource, root: Path, images: Path | None) -> Path:
    if not root.exists():
        raise DataError(
            with_near_files(message("index.no-root", "no folder or file {root}", root=root), root),
            message("index.no-root.hint", "check --root"),
        )
    folder = real_path(images or source.find_image_folder(root))
    if images is None and folder.is_file() and folder == real_path(root):
        raise DataError(
            message("index.root-is-a-file", "{root} is a file; this data set is a folder", root=root),
            message(
                "index.root-is-a-file.hint", "name the folder; a table of one's own: kovqa index table --root {root}",
                root=shell_quote(root),
            ),
        )  # fmt: skip
    if not folder.is_dir():
        raise DataError(
            message("index.no-image-folder", "no folder {folder}", folder=folder),
            missing_folder_hint(folder) or message("index.no-image-folder.hint", "check --images"),
        )
    return folder
