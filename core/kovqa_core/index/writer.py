"""Rows of a raw data set -> an index folder, in bounded memory, on all cores where it pays.

Every shard is spooled (`spool.py`); then the spools are merged split by split: ids that repeat are told apart
(`repeated_ids.py`), answers are counted, training rows without a class are dropped. What is written depends on the data
alone, not on the number of processes.

Rows are never held as objects: what decides about them is in arrays [rows], a decision is a mask [rows], and
lines are copied from the spool by that mask.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kovqa_core.data.answers import (
    choose_answer_classes,
    default_min_count,
    find_class,
    normalise_answer,
    number_classes,
    write_answers,
)
from kovqa_core.data.image_names import is_too_wide
from kovqa_core.data.left_out import are_too_many, too_many_left_out
from kovqa_core.errors import DataError
from kovqa_core.index.check_images import drop_unreadable_images
from kovqa_core.index.class_list import (
    SomeClasses,
    classes_without_rows,
    empty_looking_classes,
    first_of_classes,
    unreachable_classes,
)
from kovqa_core.index.left_out import ANSWER_NOT_A_CLASS, LeftOutRows, rare_answer
from kovqa_core.index.output_folder import require_index_folder
from kovqa_core.index.reader import SPLIT_NAMES
from kovqa_core.index.repeated_ids import QualifiedIds, RowMasks, keep_distinct_rows
from kovqa_core.index.report import (
    EMBEDDED_IMAGES_FOLDER,
    DatasetOrigin,
    IndexCounts,
    IndexReport,
    make_report,
    write_report,
)
from kovqa_core.index.row_extras import count_row_extras
from kovqa_core.index.shards import DatasetShard
from kovqa_core.index.spool import ShardSpool, SpooledRows, spool_shard
from kovqa_core.index.write_split import write_split
from kovqa_core.messages import join_messages, message
from kovqa_core.process_pool import add_to_count, parallel_map, usable_cpu_count
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.whole_folder import write_folder

ClassSelection = int | Sequence[str]  # so many classes, the most frequent; or the classes themselves
_PARALLEL_MIN_BYTES = 16 << 20  # bytes of raw data from which several processes are worth their start


def write_index(
    shards: Sequence[DatasetShard],
    origin: DatasetOrigin,
    folder: Path,
    *,
    min_count: int | None = None,
    classes: ClassSelection | None = None,
    allow_left_out: bool = True,
    check_images: bool = False,
    allow_outside: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> IndexReport:
    """Write the index of a raw data set.

    Args:
        shards: the data set, in the order its rows shall have.
        origin: the data set, for the report.
        folder: where the index appears, whole or not at all; an index there is replaced.
        min_count: how often a training answer must occur to become a class; None: by size, or once
            where `classes` says how many.
        classes: how many classes there shall be, the most frequent; or which, in this order. None: all
            that occur often enough.
        allow_left_out: write it although more than 10 % of the rows are left out for faults.
        check_images: open every image, and leave out the rows whose image cannot be read.
        allow_outside: the common folder of images with absolute paths may be that of all files, or of all homes.
        on_progress: called with the rows read so far and the fraction of the data they are.

    Raises:
        DataError: no row is left, or too many are left out (`data/left_out.py`); images lie too far apart.
        SettingsError: `folder` holds something that is not an index.
    """
    require_index_folder(folder)
    reports: list[IndexReport] = []

    def fill_folder(partial_folder: Path) -> None:
        spools = _spool_shards(shards, partial_folder, origin.source, on_progress)
        own_images = any(shard.read_images for shard in shards)  # which lie here until the folder is whole
        images = partial_folder / EMBEDDED_IMAGES_FOLDER if own_images else origin.images
        checked = images if check_images else None
        noted = [*origin.notes, *(note for spool in spools for note in spool.left_out.notes)]
        told = replace(origin, notes=noted) if noted else origin
        placed = _place_images(spools, told, allow_outside=allow_outside)
        counts = _merge_spools(
            spools, origin.images, placed, partial_folder, min_count, classes, checked, on_progress
        )
        incomplete = _incomplete_places(shards, spools)
        if not allow_left_out and are_too_many(len(incomplete), len(shards)):
            raise _incomplete_error(incomplete, origin.root)
        report = make_report(counts, replace(placed, incomplete=tuple(incomplete)), folder)
        if not allow_left_out and are_too_many(report.faults, report.all_rows):
            raise _too_many_faults(report)
        write_report(partial_folder, report)
        reports.append(report)

    # Spools lie in the partial folder too: a run that was killed leaves one folder to remove, on the disk of the index.
    write_folder(folder, fill_folder)
    return reports[0]


def _spool_shards(
    shards: Sequence[DatasetShard], folder: Path, source: str, on_progress: OnProgress
) -> list[ShardSpool]:
    stage = message("index.reading-source", "reading {source}", source=source)

    # Numbered in the order of the shards, and merged in that order: which process was faster changes nothing.
    tasks = [(shard, folder / f"shard-{number}") for number, shard in enumerate(shards)]
    is_large = sum(shard.size for shard in shards) > _PARALLEL_MIN_BYTES
    if len(shards) > 1 and usable_cpu_count() > 1 and is_large:
        return parallel_map(_spool_and_count, tasks, stage=stage, unit="rows", on_progress=on_progress)
    rows = 0
    spools: list[ShardSpool] = []

    def count_rows(more: int) -> None:
        nonlocal rows
        rows += more
        on_progress(Progress(stage, rows, unit="rows", fraction=len(spools) / len(shards)))

    for shard, stem in tasks:
        spools.append(spool_shard(shard, stem, count_rows))
    return spools


def _spool_and_count(shard: DatasetShard, stem: Path) -> ShardSpool:
    return spool_shard(shard, stem, add_to_count)


def _place_images(
    spools: Sequence[ShardSpool], origin: DatasetOrigin, *, allow_outside: bool
) -> DatasetOrigin:
    """The data set with the image folder that the index's paths start from: above the images with absolute paths too."""
    rows = [rows for spool in spools for rows in spool.splits.values()]
    folders = {each.absolute_folder for each in rows if each.absolute_folder}
    if not folders:
        return origin
    folders |= {str(origin.images)} if any(each.has_relative for each in rows) else set()
    images = Path(os.path.commonpath(folders))
    if is_too_wide(images) and not allow_outside:
        raise DataError(
            message(
                "index.images-far-apart", "the images of {table} have only {folder} in common",
                table=origin.root, folder=images,
            ),
            message(
                "index.images-far-apart.hint",
                "link their folders into one, and name that: --images DIR; or record {folder}: --allow-outside",
                folder=images,
            ),
        )  # fmt: skip
    note = message(
        "index.absolute-images", "images with absolute paths: all lie below {folder}, which is recorded",
        folder=images,
    )  # fmt: skip
    return replace(origin, images=images, notes=[*origin.notes, note])


def _merge_spools(
    spools: Sequence[ShardSpool],
    spooled_images: Path,
    origin: DatasetOrigin,
    folder: Path,
    min_count: int | None,
    selection: ClassSelection | None,
    checked_images: Path | None,
    on_progress: OnProgress,
) -> IndexCounts:
    left_out = LeftOutRows()
    for spool in spools:
        left_out.merge(spool.left_out)
    # The three names first and always: an index has a file of each, though it may be empty.
    names = dict.fromkeys((*SPLIT_NAMES, *(split for spool in spools for split in spool.splits)))
    qualified = QualifiedIds()
    splits = {
        split: keep_distinct_rows(
            [spool.splits[split] for spool in spools if split in spool.splits], left_out, qualified
        )
        for split in names
    }
    image_check = None
    if checked_images is not None:
        splits, image_check = drop_unreadable_images(splits, checked_images, folder, left_out, on_progress)
    if not any(map(_count_rows, splits.values())):
        raise _no_row_error(left_out, origin.root)
    answer_counts = _count_answers(splits["train"])
    if min_count is None:
        min_count = 1 if selection else default_min_count(_count_rows(splits["train"]))
    classes = _select_classes(answer_counts, min_count, selection)
    label_of = number_classes(classes)
    if classes:
        write_answers(folder / "answers.txt", classes)
        reason = ANSWER_NOT_A_CLASS if selection else rare_answer(min_count)
        splits["train"] = _drop_unlabelled_rows(splits["train"], label_of, reason, left_out)
    if origin.images != spooled_images:
        for shard, _ in itertools.chain.from_iterable(splits.values()):
            shard.move_image_folder(spooled_images, origin.images)
    # Of the lines, not of files or dates: equal data gives an equal fingerprint on any machine.
    digests = [write_split(masks, folder / f"{split}.jsonl") for split, masks in splits.items()]
    held_out, train_images = ("val", "test"), _image_hashes(splits["train"])
    return IndexCounts(
        rows={split: _count_rows(masks) for split, masks in splits.items()},
        images={split: len(_image_hashes(masks)) for split, masks in splits.items()},
        classes=len(classes),
        min_count=min((answer_counts[normalise_answer(each)] for each in classes), default=0)
        if selection
        else min_count,
        class_coverage={split: _class_coverage(splits[split], label_of) for split in held_out},
        **_unused_classes(classes, label_of, splits["train"], selection),
        images_shared_with_train={
            split: len(np.intersect1d(_image_hashes(splits[split]), train_images)) for split in held_out
        },
        left_out=left_out.by_reason(),
        image_check=image_check,
        extras=count_row_extras(splits),
        qualified_ids=qualified.count,
        first_qualified_id=qualified.first,
        empty_looking_classes=empty_looking_classes(classes, answer_counts),
        fingerprint=hashlib.sha256(b"".join(digests)).hexdigest(),
    )


def _incomplete_places(shards: Sequence[DatasetShard], spools: Sequence[ShardSpool]) -> list[str]:
    """Files and folders that are there in part or hold no row, and what they lack."""
    no_rows = message("index.no-rows", "no rows")
    return [
        join_messages(": ", [shard.name, shard.missing or no_rows])
        for shard, spool in zip(shards, spools, strict=True)
        if shard.missing or (shard.name and not spool.splits and not spool.left_out.counts)
    ]


def _incomplete_error(incomplete: Sequence[str], root: Path) -> DataError:
    return DataError(
        message(
            "index.incomplete", "{root} is not complete: {count:,} of its parts are not whole (first: {first})",
            root=root, count=len(incomplete), first=incomplete[0],
        ),
        message(
            "index.incomplete.hint", "unpack it again, or go on without them: add --allow-left-out"
        ),
    )  # fmt: skip


def _too_many_faults(report: IndexReport) -> DataError:
    reasons = join_messages("; ", (
        message(
            "index.fault", "{reason} {count:,} (first: {row})",
            reason=each.reason, count=each.count, row=next(iter(each.first_rows), ""),
        )
        for each in report.counts.left_out
        if each.is_fault
    ))  # fmt: skip
    return too_many_left_out(report.faults, report.all_rows, reasons)


def _no_row_error(left_out: LeftOutRows, root: Path) -> DataError:
    hint = message("index.no-usable-row.hint", "check --root and --images")
    for reason, rows in left_out.listed.items():
        return DataError(
            message(
                "index.no-usable-row-because",
                "no usable row found: {reason}, {row}",
                reason=reason,
                row=rows[0],
            ),
            hint,
        )
    return DataError(message("index.no-usable-row", "{root}: no usable row found", root=root), hint)


# ------------------------------------------------------------------------- which rows are kept


def _count_answers(masks: RowMasks) -> Counter[str]:
    """How many rows have each answer, in normal form, as their first, the one most annotators gave, as in VQAv2."""
    counts: Counter[str] = Counter()
    for shard, mask in masks:
        times = np.bincount(shard.answer_numbers[mask], minlength=len(shard.answer_sets)).tolist()
        # Counted by combination, not by row: some thousand combinations instead of millions of rows.
        for answers, n in zip(shard.answer_sets, times, strict=True):
            for answer in answers[:1]:
                counts[normalise_answer(answer)] += n
    # `+` drops the zeros: answers of dropped rows alone.
    return +counts


def _select_classes(counts: Counter[str], min_count: int, selection: ClassSelection | None) -> list[str]:
    """The answers that become classes, in the order of their labels.

    Raises:
        DataError: no training row would be left.
    """
    if isinstance(selection, Sequence):
        if counts.keys().isdisjoint(map(normalise_answer, selection)):
            raise DataError(
                message("index.no-training-class", "no training answer is in the list of classes"),
                message("index.no-training-class.hint", "check --answers"),
            )
        return list(selection)
    classes = choose_answer_classes(counts, min_count)[:selection]
    if counts and not classes:
        raise DataError(
            message("index.no-frequent-answer", "no answer occurs {min_count} times", min_count=min_count),
            message("index.no-frequent-answer.hint", "use a smaller --min-count"),
        )
    return classes


def _drop_unlabelled_rows(
    masks: RowMasks, label_of: Mapping[str, int], reason: str, left_out: LeftOutRows
) -> RowMasks:
    """Training rows of which some answer is a class."""
    labelled_masks = []
    for shard, mask in masks:
        labelled = _has_class_answer(shard, label_of)
        dropped = mask & ~labelled
        left_out.counts[reason] += int(dropped.sum())
        # Only the first are read again for the list; the count comes from the mask.
        for example in shard.examples(dropped & (np.cumsum(dropped) <= LeftOutRows.MAX_LISTED)):
            left_out.list_row(reason, f"id {example.id}: {next(iter(example.answers), '')}")
        labelled_masks.append((shard, mask & labelled))
    return labelled_masks


def _unused_classes(
    classes: Sequence[str], label_of: Mapping[str, int], train: RowMasks, selection: ClassSelection | None
) -> dict[str, SomeClasses]:
    """Of a list that was given: the classes no answer can be, and those no training row has."""
    if not isinstance(selection, Sequence):
        return {}
    answer_sets = (
        shard.answer_sets[number] for shard, mask in train for number in np.unique(shard.answer_numbers[mask])
    )
    return {
        "unreachable_classes": first_of_classes(unreachable_classes(classes, label_of)),
        "classes_without_rows": first_of_classes(classes_without_rows(classes, label_of, answer_sets)),
    }


def _has_class_answer(shard: SpooledRows, label_of: Mapping[str, int]) -> np.ndarray:
    """Whether some answer of each row is a class [rows]."""
    has_class = [any(find_class(label_of, a) is not None for a in answers) for answers in shard.answer_sets]
    return np.array(has_class, bool)[shard.answer_numbers]


def _has_any_answer(shard: SpooledRows) -> np.ndarray:
    """Whether each row has an answer [rows]."""
    return np.array([bool(answers) for answers in shard.answer_sets], bool)[shard.answer_numbers]


# ------------------------------------------------------------------------ what they are, on disk


def _count_rows(masks: RowMasks) -> int:
    return sum(int(mask.sum()) for _, mask in masks)


def _image_hashes(masks: RowMasks) -> np.ndarray:
    """Hashes of the images of the kept rows, each once [images]."""
    hashes = [shard.image_hashes[np.unique(shard.image_numbers[mask])] for shard, mask in masks]
    return np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)


def _class_coverage(masks: RowMasks, label_of: Mapping[str, int]) -> float | None:
    """Of the rows with answers, the fraction that has a class among them; None without such rows."""
    covered = sum(int((mask & _has_class_answer(shard, label_of)).sum()) for shard, mask in masks)
    answered = sum(int((mask & _has_any_answer(shard)).sum()) for shard, mask in masks)
    return round(covered / answered, 4) if answered else None
