"""`index.json`: what an index holds, what was left out and why, and where the rows came from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from kovqa_core.errors import DataError
from kovqa_core.files import read_json, real_path, write_json
from kovqa_core.index.class_list import NO_CLASSES, SomeClasses
from kovqa_core.index.left_out import LeftOut
from kovqa_core.index.row_extras import RowExtras, read_row_extras
from kovqa_core.messages import message
from kovqa_core.paths import relative_path

INDEX_SCHEMA = 1
REPORT_FILE = "index.json"
EMBEDDED_IMAGES_FOLDER = "images"  # in an index, of images that lay in the raw data's own files
OptionValue = str | Mapping[str, str]


@dataclass(frozen=True)
class DatasetOrigin:
    """The raw data set that an index is made of.

    Attributes:
        source: name of the data set in `DATA_SOURCES`.
        root: folder of the raw data (`table`: the file).
        images: folder that the examples' image paths start from.
        options: the options that the data set was read with, by their names in `SourceOptions`.
        split_method: how rows were assigned to splits.
        question_type_groups: group -> the question types that are scored together as well.
        notes: what was found about the data that people should know.
        incomplete: files and folders of the data that are not whole, and what they lack.
    """

    source: str
    root: Path
    images: Path
    options: Mapping[str, OptionValue] = field(default_factory=dict)
    split_method: str = "as published"
    question_type_groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    incomplete: Sequence[str] = ()


@dataclass(frozen=True)
class ImageCheck:
    """What became of opening all images.

    Attributes:
        images: different ones.
        unreadable: of them.
        seconds: that it took; None: nobody knows any more.
    """

    images: int
    unreadable: int
    seconds: float | None = None


@dataclass(frozen=True)
class IndexCounts:
    """What an index holds.

    Attributes:
        rows: by split.
        images: different images, by split.
        classes: answers that are classes.
        min_count: how often a training answer occurs at least that is a class.
        class_coverage: by held-out split, the fraction of the rows with answers of which one is a class;
            None where no row has an answer.
        unreachable_classes: of a list that was given, the classes that no answer is ever found to be.
        classes_without_rows: the others that no training row has.
        images_shared_with_train: by held-out split; more than 0 makes its scores too good.
        left_out: by reason.
        fingerprint: SHA-256 of the splits' SHA-256.
        extras: what rows have besides image, question and answer.
        image_check: what became of opening all images; None: nobody opened them.
        qualified_ids: rows whose id repeats under other images, or for other questions, and was qualified.
        first_qualified_id: the first of them; "" where there is none.
        empty_looking_classes: classes such as `nan`, which programs write where there is no answer, and how
            many training rows have them.
    """

    rows: Mapping[str, int]
    images: Mapping[str, int]
    classes: int
    min_count: int
    class_coverage: Mapping[str, float | None]
    images_shared_with_train: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    fingerprint: str
    unreachable_classes: SomeClasses = NO_CLASSES
    classes_without_rows: SomeClasses = NO_CLASSES
    extras: RowExtras = field(default_factory=RowExtras)
    image_check: ImageCheck | None = None
    qualified_ids: int = 0
    first_qualified_id: str = ""
    empty_looking_classes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class IndexReport:
    """What `index.json` says.

    Attributes:
        counts: what the index holds.
        source, options, split_method, question_type_groups, notes, incomplete: see `DatasetOrigin`.
        root: folder of the raw data, an absolute path of the machine that wrote the index.
        image_folder: from the index's folder, so that both can move together.
    """

    counts: IndexCounts
    source: str
    root: str
    image_folder: str
    options: Mapping[str, OptionValue]
    split_method: str
    question_type_groups: Mapping[str, Sequence[str]]
    notes: Sequence[str] = ()
    incomplete: Sequence[str] = ()

    @property
    def faults(self) -> int:
        """Rows left out because something is wrong with them."""
        return sum(each.count for each in self.counts.left_out if each.is_fault)

    @property
    def all_rows(self) -> int:
        """Rows of the raw data: those of the index, and those left out."""
        return sum(self.counts.rows.values()) + sum(each.count for each in self.counts.left_out)

    def json_fields(self) -> dict[str, object]:
        """The fields of `index.json` and of `kovqa index --json`, whose names and order stay."""
        counts = self.counts
        fields: dict[str, object] = {
            "rows": counts.rows,
            "pictures": counts.images,
            "answers": counts.classes,
            "min_count": counts.min_count,
            "covered": counts.class_coverage,
            "pictures_shared_with_train": counts.images_shared_with_train,
            "left_out": {each.reason: each.count for each in counts.left_out},
            "left_out_rows": {each.reason: each.first_rows for each in counts.left_out},
            "fingerprint": counts.fingerprint,
            "source": self.source,
            "root": self.root,
            "images": self.image_folder,
            **self.options,
            "divided": self.split_method,
        }
        unused = {
            "unreachable_answers": counts.unreachable_classes, "answers_without_rows": counts.classes_without_rows,
        }  # fmt: skip
        fields |= {name: asdict(some) for name, some in unused.items() if some.count}
        fields |= counts.extras.json_fields()
        if counts.image_check is not None:
            check = counts.image_check
            fields |= {"pictures_checked": check.images, "pictures_unreadable": check.unreadable}
        if counts.qualified_ids:
            fields |= {"qualified_ids": counts.qualified_ids, "first_qualified_id": counts.first_qualified_id}
        if counts.empty_looking_classes:
            fields["empty_looking_answers"] = counts.empty_looking_classes
        others = {"groups": self.question_type_groups, "notes": self.notes, "incomplete": self.incomplete}
        return fields | {name: value for name, value in others.items() if value}


def make_report(counts: IndexCounts, origin: DatasetOrigin, folder: Path) -> IndexReport:
    """The report of an index that appears in `folder`."""
    return IndexReport(
        counts,
        origin.source,
        str(origin.root),
        relative_path(origin.images, real_path(folder)),
        origin.options,
        origin.split_method,
        origin.question_type_groups,
        origin.notes,
        origin.incomplete,
    )


def write_report(folder: Path, report: IndexReport) -> None:
    """Write `index.json`."""
    write_json(folder / REPORT_FILE, {"schema": INDEX_SCHEMA, **report.json_fields()})


def read_report(folder: Path) -> IndexReport:
    """Read the `index.json` of an index; fields that older versions did not write are empty.

    Raises:
        DataError: it cannot be read, or is not the report of an index.
    """
    fields = read_json(folder / REPORT_FILE)
    try:
        rows_by_reason = fields.get("left_out_rows", {})
        counts = IndexCounts(
            rows=fields["rows"],
            images=fields.get("pictures", {}),
            classes=fields.get("answers", 0),
            min_count=fields.get("min_count", 1),
            class_coverage=fields.get("covered", {}),
            images_shared_with_train=fields.get("pictures_shared_with_train", {}),
            left_out=tuple(
                LeftOut(reason, count, tuple(rows_by_reason.get(reason, ())))
                for reason, count in fields.get("left_out", {}).items()
            ),
            fingerprint=fields.get("fingerprint", ""),
            unreachable_classes=SomeClasses(**fields.get("unreachable_answers", {})),
            classes_without_rows=SomeClasses(**fields.get("answers_without_rows", {})),
            extras=read_row_extras(fields),
            image_check=ImageCheck(fields["pictures_checked"], fields["pictures_unreadable"])
            if "pictures_checked" in fields
            else None,
            qualified_ids=fields.get("qualified_ids", 0),
            first_qualified_id=fields.get("first_qualified_id", ""),
            empty_looking_classes=fields.get("empty_looking_answers", {}),
        )
        return IndexReport(
            counts,
            source=fields.get("source", ""),
            root=fields.get("root", ""),
            image_folder=fields["images"],
            options={name: fields[name] for name in ("columns", "language") if name in fields},
            split_method=fields.get("divided", ""),
            question_type_groups=fields.get("groups", {}),
            notes=fields.get("notes", ()),
            incomplete=tuple(fields.get("incomplete", ())),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            message(
                "index.not-a-report", "{file} is not the report of an index ({problem})",
                file=folder / REPORT_FILE, problem=json.dumps(str(error), ensure_ascii=False),
            ),
            message("index.not-a-report.hint", "write the index again: kovqa index"),
        ) from None  # fmt: skip
