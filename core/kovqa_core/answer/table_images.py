"""Images that lie in the table to answer itself: files for as long as its rows are answered."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from kovqa_core.data.table_columns import known_columns
from kovqa_core.data.tables import holds_images, read_table
from kovqa_core.data.tables.embedded_images import image_writer
from kovqa_core.files import disk_errors
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress

_PROGRESS_ROWS = 100  # rows between two reports of progress


@contextlib.contextmanager
def unpack_table_images(
    table: Path, images: Path | None, columns: Mapping[str, str], output: Path, on_progress: OnProgress
) -> Iterator[Path | None]:
    """The image folder of a table: as the user named it, or one of the images in the table itself.

    The latter is `.OUTPUT.images` beside the output, where all processes and nodes see it, and is removed at the
    end. Its names are those in the rows of the table, whoever reads them.

    Args:
        table: what is answered.
        images: folder that the user named; images in the table are not looked at then.
        columns: our name of a column -> the table's.
        output: predictions file.
        on_progress: called with the rows read so far.

    Raises:
        DataError: a table that cannot be read.
        SettingsError: another process answers for the same output.
        MachineError: the disk is full.
    """
    names = known_columns(columns)["image"]
    if images is not None or not holds_images(table, names):
        yield images
        return
    folder = output.with_name(f".{output.name}.images")
    stage = message("answer.unpacking-images", "unpacking the images of {table}", table=table.name)
    with output_lock(folder):
        try:
            with disk_errors(folder):
                shutil.rmtree(folder, ignore_errors=True)  # a killed process left it
                folder.mkdir(parents=True)
                rows = read_table(table, {"image": names}, save_image=image_writer(folder))
                for number, _ in enumerate(rows, 1):
                    if number % _PROGRESS_ROWS == 0:
                        on_progress(Progress(stage, number))
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
