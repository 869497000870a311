"""Every source, every damage once: an index whose rows add up, or one error that names the place."""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import IndexReport

from tests.faults.damaged_sources import FILE_DAMAGES, ROW_DAMAGES, ROWS, SOURCES, Source, write_source

# A class of these names comes from a value that is none; a bracket, from a list that became a text.
_NO_CLASS = re.compile(r"nan|-?inf(inity)?|none|null|\[.*|\{.*", re.IGNORECASE)
_SOURCES = [pytest.param(source, id=source.name) for source in SOURCES]


def build(source: Source, root: Path, file: Path) -> IndexReport:
    return build_index(
        source.kind,
        file if source.kind == "table" else root,
        None,
        root.parent / "index",
        min_count=1,
        check_images=True,
    )


def try_damages(source: Source, folder: Path, names: Sequence[str], draw: random.Random) -> None:
    """Write a source with some damages and index it; whatever comes must be one of the two good ends."""
    root = folder / "원본"
    rows, added = source.rows(), 0
    for name in names:
        if name in ROW_DAMAGES:
            rows = ROW_DAMAGES[name](rows, draw)
    added = len(rows) - ROWS
    file = write_source(source, root, rows)
    for name in names:
        if name in FILE_DAMAGES:
            FILE_DAMAGES[name](source, root, file, draw)
    try:
        report = build(source, root, file)
    except KovqaError as problem:
        error = problem
    else:
        check_index(source, folder / "index", report)
        others = {"nia": 2, "vqav2": 1, "dacon": 1}.get(source.kind, 0)
        is_whole = source.is_json or {"a truncated file", "bare CR"}.isdisjoint(names)
        assert report.all_rows == ROWS + added + others or not is_whole, report.counts.left_out
        return
    assert isinstance(error, DataError), error
    assert len(error.message) < 2000 and "\n" not in error.message
    # The file, or where no row is usable, the first of them.
    assert any(path.name in error.message for path in root.rglob("*.[cjt]s*")) or "id " in error.message, (
        error
    )
    assert not (folder / "index").exists()


def check_index(source: Source, folder: Path, report: IndexReport) -> None:
    index = open_index(folder)
    # There is no list where no training row has an answer.
    classes = index.answers() if (folder / "answers.txt").exists() else []
    for answer in filter(_NO_CLASS.fullmatch, classes):
        # A text of a table stays what it is, but one that says nothing is said.
        assert answer in report.counts.empty_looking_classes or (not source.is_json and answer != "nan"), (
            answer
        )
    assert all(each.first_rows and each.reason for each in report.counts.left_out)
    for split in report.counts.rows:
        ids = [example.id for example in index.split(split)]
        assert len(set(ids)) == len(ids) and "" not in ids
        for example in index.split(split):
            assert (index.images / example.image).is_file()
            assert not (
                source.is_json and example.question != "nan" and _NO_CLASS.fullmatch(example.question)
            )
            assert example.question.strip() or source.kind == "coco"


@pytest.mark.parametrize("source", _SOURCES)
@pytest.mark.parametrize("name", [*ROW_DAMAGES, *FILE_DAMAGES])
def test_every_damage_is_left_out_or_named(tmp_path: Path, source: Source, name: str) -> None:
    draw = random.Random(zlib.crc32(f"{source.name}/{name}".encode()))
    try_damages(source, tmp_path, [name], draw)


@pytest.mark.parametrize("source", _SOURCES)
def test_a_whole_source_has_all_its_rows(tmp_path: Path, source: Source) -> None:
    root = tmp_path / "원본"
    report = build(source, root, write_source(source, root, source.rows()))
    assert report.faults == 0 and sum(report.counts.rows.values()) >= ROWS
    assert not report.counts.empty_looking_classes and not report.counts.qualified_ids


@pytest.mark.soak
@pytest.mark.parametrize("source", _SOURCES)
@pytest.mark.parametrize("seed", range(150))
def test_damages_together_are_left_out_or_named(tmp_path: Path, source: Source, seed: int) -> None:
    draw = random.Random(zlib.crc32(f"{source.name}/{seed}".encode()))
    # A file is damaged once: a second damage would be another one, of bytes that no program writes.
    names = [
        *draw.choices(list(ROW_DAMAGES), k=draw.randint(1, 3)),
        *draw.sample(list(FILE_DAMAGES), draw.randrange(2)),
    ]
    try_damages(source, tmp_path, names, draw)
