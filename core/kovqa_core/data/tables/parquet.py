"""Rows of parquet files, batch by batch, and the images in them."""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.json_values import JsonRecord, JsonValue, NumberText
from kovqa_core.data.tables.embedded_images import ImageNames, SaveImage
from kovqa_core.data.tables.excel import missing_library_error
from kovqa_core.data.tables.nested_columns import MISSING, field_at
from kovqa_core.data.tables.webdataset import PROBLEM_COLUMN, several_images
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.messages import message

_BATCH_ROWS = 64  # with images of some MB each


def read_parquet_rows(
    path: Path,
    image_columns: Sequence[str],
    save_image: SaveImage | None = None,
    names: ImageNames | None = None,
    *,
    as_text: bool,
) -> Iterator[tuple[int, JsonRecord]]:
    """Rows with their numbers from 1.

    An image in a row becomes its name; other bytes are left out. Numbers that are whole are written without
    a fraction (pandas makes 1.0 of 1 in a column with gaps), NaN is None, dates are ISO 8601, and numbers of a
    `ClassLabel` of Hugging Face are its names.

    Args:
        path: the file.
        image_columns: names of which the first that is there has the images.
        save_image: called with the name and the bytes of every image.
        names: those of the files before this one.
        as_text: numbers as text.

    Raises:
        DataError: pyarrow is not installed; a damaged file.
    """
    names = names or ImageNames()
    with _open_parquet(path) as file:
        schema = file.schema_arrow
        image_column = embedded_image_column(schema, image_columns)
        labels = _class_labels(schema)
        columns = [
            name for name in schema.names if name == image_column or not _holds_bytes(schema.field(name).type)
        ]
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH_ROWS if image_column else 4096, columns=columns):
            for row in batch.to_pylist():
                number += 1
                if image_column:
                    value = field_at(row, image_column)
                    row.pop(image_column, None)
                    row["image" if image_column == "images" else image_column] = _image_name(
                        value, names, save_image
                    )
                    if isinstance(value, list) and len(value) > 1:
                        row[PROBLEM_COLUMN] = several_images(len(value))
                for name, texts in labels.items():
                    if isinstance(label := row.get(name), int) and 0 <= label < len(texts):
                        row[name] = texts[label]
                yield number, {name: _json_value(value, as_text=as_text) for name, value in row.items()}


def has_embedded_images(path: Path, image_columns: Sequence[str]) -> bool:
    """Does a parquet file hold images, in the first of these columns that is there?"""
    with _open_parquet(path) as file:
        return embedded_image_column(file.schema_arrow, image_columns) is not None


def embedded_image_column(schema: Any, image_columns: Sequence[str]) -> str | None:
    """The column of a schema that holds images; `images` too, where each row has a list of one."""
    types = {name: _type_at(schema, name) for name in (*image_columns, "images")}
    present = next((name for name, type_ in types.items() if type_ is not None), None)
    return present if present and _holds_bytes(types[present]) else None


def _type_at(schema: Any, name: str) -> Any:
    """The type of a column, or of a field inside of one (`sample.image`); None: there is none."""
    import pyarrow.types as kinds

    if name in schema.names:
        return schema.field(name).type
    root, *fields = name.split(".")
    if root not in schema.names:
        return None
    type_: Any = schema.field(root).type
    for field in fields:
        while kinds.is_list(type_) or kinds.is_large_list(type_):
            type_ = type_.value_type
        if not kinds.is_struct(type_) or type_.get_field_index(field) < 0:
            return None
        type_ = type_.field(field).type
    return type_


@contextlib.contextmanager
def _open_parquet(path: Path) -> Iterator[Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise missing_library_error(path, "pyarrow") from None
    try:
        # Without reading ahead: it would fetch a whole group of rows, some hundred MB of images.
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file:
            yield file
    except KovqaError:
        raise
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        problem = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            message("data.damaged-parquet", "{file} is a damaged parquet file ({problem})", file=path, problem=problem),
            message("data.broken-json.hint", "fetch or unpack it again"),
        ) from None  # fmt: skip


def _holds_bytes(type_: Any) -> bool:
    """Binary values, Hugging Face's struct of `bytes` and `path`, or lists of them."""
    import pyarrow.types as kinds

    if kinds.is_list(type_) or kinds.is_large_list(type_):
        return _holds_bytes(type_.value_type)
    if kinds.is_struct(type_):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in type_)
    return bool(kinds.is_binary(type_) or kinds.is_large_binary(type_) or kinds.is_fixed_size_binary(type_))


def _image_name(value: Any, names: ImageNames, save_image: SaveImage | None) -> str | None:
    """The name of a row's image; None where it has none, or several."""
    if value is MISSING:
        return None
    if isinstance(value, list):
        value = value[0] if len(value) == 1 else None
    if isinstance(value, dict):
        path, data = value.get("path"), value.get("bytes")
    else:
        path, data = None, value
    if data is None:
        return path
    name = names.choose(path, data)
    if save_image:
        save_image(name, data)
    return name


def _class_labels(schema: Any) -> dict[str, list[str]]:
    """Column -> the names that its numbers stand for, as Hugging Face's metadata say."""
    try:
        features = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            name: [str(label) for label in feature["names"]]
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _json_value(value: Any, *, as_text: bool) -> JsonValue:
    if isinstance(value, list | tuple):
        return [_json_value(each, as_text=as_text) for each in value]
    if isinstance(value, dict):
        return {name: _json_value(each, as_text=as_text) for name, each in value.items()}
    if isinstance(value, float):
        if math.isnan(value):
            return None
        value = int(value) if value.is_integer() and abs(value) < 1e15 else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return NumberText(value) if as_text else value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal | datetime.timedelta):
        return str(value)
    return None if isinstance(value, bytes) else value
