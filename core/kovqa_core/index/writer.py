"""Rows of a raw data set -> an index folder, in bounded memory, on all cores where it pays.

Every piece is spooled (`spool.py`); then the spools are put together split by split: ids that
appear twice are dropped, answers are counted, training rows no class fits are dropped. What is
written depends on the data alone, not on the number of processes.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kovqa_core.data.answers import choose_answer_classes, default_min_count, write_answers
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import write_folder, write_json
from kovqa_core.index.reader import INDEX_SCHEMA, SPLIT_NAMES
from kovqa_core.index.shards import DatasetShard, LeftOutRows
from kovqa_core.index.spool import ShardSpool, SpooledRows, spool_shard
from kovqa_core.process_pool import add_to_count, parallel_map, usable_cpu_count

IndexProgress = Callable[[int, float], None]  # (rows read so far, share of the data they are)
ClassSelection = int | Sequence[str]  # so many classes, the most frequent; or the classes themselves
RowMasks = list[tuple[SpooledRows, np.ndarray]]  # the pieces of a split and the rows of each that are kept
_PARALLEL_MIN_BYTES = 16 << 20  # bytes of raw data from which several processes are worth their start
_COPY_BLOCK_ROWS = 4096  # copied at once


def write_index(
    pieces: Sequence[DatasetShard],
    name: str,
    root: Path,
    images: Path,
    folder: Path,
    min_count: int | None = None,
    progress: IndexProgress | None = None,
    about: Mapping[str, Any] | None = None,
    wanted: ClassSelection | None = None,
) -> dict[str, Any]:
    """Write the index of a raw data set; returns what stands in `index.json`.

    Args:
        pieces: the data set's parts, in the order their rows shall have (`data/sources`).
        name: the source's name.
        root: folder of the raw data.
        images: folder the examples' picture paths start from.
        folder: where the index appears, whole or not at all; an index there is replaced.
        min_count: how often a training answer must occur to become a class; None: by size, or once
            where `wanted` says how many.
        progress: called with the rows read so far and the share of the data they are.
        about: what else `index.json` shall tell of how the index was made.
        wanted: how many classes there shall be, the most frequent; or which, in this order. None: all
            that occur often enough.

    Raises:
        DataError: no row is left.
        SettingsError: `folder` holds something that is no index.
    """
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file", "choose another folder with -o")
    if folder.exists() and any(folder.iterdir()) and not (folder / "index.json").exists():
        raise SettingsError(f"{folder} holds files that are no index", "choose another folder with -o")
    report: dict[str, Any] = {}

    def fill(part: Path) -> None:
        report.update(_merge_spools(_spool_shards(pieces, part, progress), part, min_count, wanted))
        report.update(source=name, root=str(root), images=os.path.relpath(images, folder.resolve()))
        report.update(about or {})
        write_json(part / "index.json", {"schema": INDEX_SCHEMA, **report})

    write_folder(folder, fill)
    return report


def _spool_shards(
    pieces: Sequence[DatasetShard], part: Path, progress: IndexProgress | None
) -> list[ShardSpool]:
    calls = [(piece, part / f"piece-{number}") for number, piece in enumerate(pieces)]
    if (
        len(pieces) > 1
        and usable_cpu_count() > 1
        and sum(piece.size for piece in pieces) > _PARALLEL_MIN_BYTES
    ):
        return parallel_map(
            _spool_and_count,
            calls,
            on_progress=lambda now: progress(now.done, now.fraction or 0.0) if progress else None,
        )
    rows = 0
    result: list[ShardSpool] = []

    def told(more: int) -> None:
        nonlocal rows
        rows += more
        if progress:
            progress(rows, len(result) / len(pieces))

    for piece, stem in calls:
        result.append(spool_shard(piece, stem, told))
    return result


def _spool_and_count(piece: DatasetShard, stem: Path) -> ShardSpool:
    return spool_shard(piece, stem, add_to_count)


def _merge_spools(
    spools: Sequence[ShardSpool], part: Path, min_count: int | None, wanted: ClassSelection | None
) -> dict[str, Any]:
    left_out = LeftOutRows()
    for each in spools:
        left_out.join(each.left_out)
    names = dict.fromkeys((*SPLIT_NAMES, *(split for each in spools for split in each.splits)))
    splits = {
        split: _drop_duplicate_ids([each.splits[split] for each in spools if split in each.splits], left_out)
        for split in names
    }
    if not any(splits.values()):
        first = next((f": {why}, {rows[0]}" for why, rows in left_out.shown.items()), "")
        raise DataError(f"no usable row found{first}", "check --root and --images")
    counts = _answer_counts(splits["train"])
    if min_count is None:
        min_count = 1 if wanted else default_min_count(_count_rows(splits["train"]))
    classes = _select_classes(counts, min_count, wanted)
    if classes:
        write_answers(part / "answers.txt", classes)
        reason = "answer is no class" if wanted else f"answer seen fewer than {min_count} times"
        splits["train"] = _drop_unlabelled_rows(splits["train"], frozenset(classes), reason, left_out)
    digests = [_write_split(pieces, part / f"{split}.jsonl") for split, pieces in splits.items()]
    return {
        "rows": {split: _count_rows(pieces) for split, pieces in splits.items()},
        "pictures": {split: len(_image_hashes(pieces)) for split, pieces in splits.items()},
        "answers": len(classes),
        "min_count": min((counts[answer] for answer in classes), default=0) if wanted else min_count,
        "covered": {split: _class_coverage(splits[split], frozenset(classes)) for split in ("val", "test")},
        "pictures_shared_with_train": {
            split: len(np.intersect1d(_image_hashes(splits[split]), _image_hashes(splits["train"])))
            for split in ("val", "test")
        },
        "left_out": dict(left_out.counts),
        "left_out_rows": left_out.shown,
        "fingerprint": hashlib.sha256(b"".join(digests)).hexdigest(),
    }


# ------------------------------------------------------------------------- which rows are kept


def _drop_duplicate_ids(pieces: Sequence[SpooledRows], left_out: LeftOutRows) -> RowMasks:
    """The first row of every id; only ids of equal checksum are compared letter by letter."""
    if not pieces:
        return []
    sums, times = np.unique(np.concatenate([lines.ids for lines in pieces]), return_counts=True)
    shared, seen, masks = sums[times > 1], set[str](), []
    for lines in pieces:
        kept = np.ones(len(lines.ids), bool)
        suspects = np.isin(lines.ids, shared)
        for row, example in zip(np.flatnonzero(suspects), lines.rows(suspects), strict=True):
            if example.id in seen:
                kept[row] = False
                left_out.add("question id appears twice", f"id {example.id}: {example.question}")
            seen.add(example.id)
        masks.append((lines, kept))
    return masks


def _answer_counts(pieces: RowMasks) -> Counter[str]:
    """How many rows each answer is the first of: the one most annotators gave, as in VQAv2."""
    counts: Counter[str] = Counter()
    for lines, kept in pieces:
        times = np.bincount(lines.answers[kept], minlength=len(lines.table)).tolist()
        for answers, n in zip(lines.table, times, strict=True):
            for answer in answers[:1]:
                counts[answer] += n
    return +counts


def _select_classes(counts: Counter[str], min_count: int, wanted: ClassSelection | None) -> list[str]:
    """The answers that become classes, in the order of their labels.

    Raises:
        DataError: no training row would be left.
    """
    if isinstance(wanted, Sequence):
        if counts.keys().isdisjoint(wanted):
            raise DataError("no training answer is in the list of classes", "check --answers")
        return list(wanted)
    classes = choose_answer_classes(counts, min_count)[:wanted]
    if counts and not classes:
        raise DataError(f"no answer occurs {min_count} times", "use a smaller --min-count")
    return classes


def _drop_unlabelled_rows(
    pieces: RowMasks, classes: frozenset[str], reason: str, left_out: LeftOutRows
) -> RowMasks:
    """Training rows of which some answer is a class."""
    masks = []
    for lines, kept in pieces:
        fits = _has_class_answer(lines, classes)
        dropped = kept & ~fits
        left_out.counts[reason] += int(dropped.sum())
        for example in lines.rows(dropped & (np.cumsum(dropped) <= LeftOutRows.SHOWN)):
            left_out.show(reason, f"id {example.id}: {next(iter(example.answers), '')}")
        masks.append((lines, kept & fits))
    left_out.counts = +left_out.counts
    return masks


def _has_class_answer(lines: SpooledRows, classes: frozenset[str]) -> np.ndarray:
    """Does some answer of each row belong to the classes? [rows]"""
    return np.array([not classes.isdisjoint(answers) for answers in lines.table], bool)[lines.answers]


def _has_any_answer(lines: SpooledRows) -> np.ndarray:
    """Has each row an answer? [rows]"""
    return np.array([bool(answers) for answers in lines.table], bool)[lines.answers]


# ------------------------------------------------------------------------------- what they are


def _count_rows(pieces: RowMasks) -> int:
    return sum(int(kept.sum()) for _, kept in pieces)


def _image_hashes(pieces: RowMasks) -> np.ndarray:
    """Hashes of the pictures of the kept rows, each once."""
    hashes = [lines.hashes[np.unique(lines.pictures[kept])] for lines, kept in pieces]
    return np.unique(np.concatenate(hashes)) if hashes else np.zeros(0, np.uint64)


def _class_coverage(pieces: RowMasks, classes: frozenset[str]) -> float | None:
    """Share of the rows with answers of which some is a class; None without such rows."""
    hits = sum(int((kept & _has_class_answer(lines, classes)).sum()) for lines, kept in pieces)
    rows = sum(int((kept & _has_any_answer(lines)).sum()) for lines, kept in pieces)
    return round(hits / rows, 4) if rows else None


def _write_split(pieces: RowMasks, path: Path) -> bytes:
    """Write the kept lines of a split and where each begins; the SHA-256 of the lines."""
    digest, start = hashlib.sha256(), 0
    with path.open("wb") as lines_file, path.with_suffix(".offsets").open("wb") as offsets:
        for lines, kept in pieces:
            for block in _kept_bytes(lines, kept):
                lines_file.write(block)
                digest.update(block)
            ends = start + np.cumsum(lines.lengths[kept], dtype=np.uint64)
            offsets.write((ends - lines.lengths[kept]).astype("<u8").tobytes())
            start = int(ends[-1]) if len(ends) else start
            lines.path.unlink()
    return digest.digest()


def _kept_bytes(lines: SpooledRows, kept: np.ndarray) -> Iterator[bytes]:
    """The bytes of the kept rows, some thousand rows at a time."""
    with lines.path.open("rb") as stream:
        for first in range(0, len(kept), _COPY_BLOCK_ROWS):
            some, lengths = (
                kept[first : first + _COPY_BLOCK_ROWS],
                lines.lengths[first : first + _COPY_BLOCK_ROWS],
            )
            block = stream.read(int(lengths.sum()))
            if some.all():
                yield block
            else:
                ends = np.cumsum(lengths)
                places = zip((ends - lengths)[some].tolist(), ends[some].tolist(), strict=True)
                yield b"".join(block[start:end] for start, end in places)
