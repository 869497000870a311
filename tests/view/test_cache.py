"""Databases that are kept: found again, never a stale one, bounded; what a killed one leaves is removed."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from kovqa_core.view import cache, session
from kovqa_core.view.engine import open_finished_database
from kovqa_core.view.filters import RowFilter
from kovqa_core.view.inputs import open_inputs
from kovqa_core.view.session import ViewSession

from tests.conftest import Small


def rows_of(index: Path, *predictions: Path) -> int:
    """How many rows a session of its own counts."""
    started = ViewSession(open_inputs(index, predictions))
    started.start()
    try:
        started.wait(60)
        assert started.queries is not None and started.is_kept
        return int(started.queries.summary(RowFilter())["rows"])  # type: ignore[call-overload]
    finally:
        started.close()


def test_a_database_is_kept_and_never_stale(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    split = tmp_path / "mine.jsonl"
    shutil.copy(small.index / "test.jsonl", split)
    rows = rows_of(split)
    (kept,) = cache.cache_folder().iterdir()  # nothing but the database is left
    with monkeypatch.context() as without:
        without.setattr(session, "build_database", None)
        assert rows_of(split) == rows
    # As long as before, and with the old date: still another file.
    state, text = split.stat(), split.read_bytes()
    first = text.splitlines(keepends=True)[0]
    split.write_bytes(text.replace(first, b" " * (len(first) - 1) + b"\n", 1))
    split.write_bytes(text)
    os.utime(split, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert cache.find_database(cache.database_key(open_inputs(split))) is None
    # One that is damaged is made anew.
    kept.write_bytes(kept.read_bytes()[:5000])
    key = cache.database_key(open_inputs(split))
    kept.rename(kept.with_name(f"{key}.duckdb"))
    assert rows_of(split) == rows


def test_the_cache_is_bounded_and_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for number in range(cache.MAX_DATABASES + 3):
        with cache.build_folder(cache.cache_folder()) as folder:
            (folder / "view.duckdb").write_bytes(b"x")
            kept = cache.keep_database(folder / "view.duckdb", f"{number:02}")
        os.utime(kept, (number, number))
    names = sorted(path.name for path in cache.cache_folder().iterdir())
    assert names == [f"{number:02}.duckdb" for number in range(3, cache.MAX_DATABASES + 3)]
    killed = cache.cache_folder() / "kovqa-view-killed"
    killed.mkdir()
    (killed / "lock").touch()
    with cache.build_folder(cache.cache_folder()) as held, cache.build_folder(cache.cache_folder()):
        assert held.is_dir()
        assert not killed.exists()


def test_a_count_that_takes_long_ends_with_the_page(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    running = threading.Event()

    def count_for_ever(
        inputs: object, folder: Path, on_progress: object, on_open: Callable[[object], None]
    ) -> None:
        with duckdb.connect() as connection:
            on_open(connection)
            running.set()
            connection.execute("SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b")

    monkeypatch.setattr(session, "build_database", count_for_ever)
    started = ViewSession(open_inputs(small.index), keep=False)
    started.start()
    assert running.wait(20)
    began = time.monotonic()
    started.close()
    assert time.monotonic() - began < session._STOP_SECONDS
    assert not started._thread.is_alive() and started.error is None


def test_where_no_cache_can_be(small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    started = ViewSession(open_inputs(small.index / "test.jsonl"))
    started.start()
    started.wait(60)
    assert not started.is_kept
    started.close()


def test_a_finished_database_reads_nothing_else(small: Small, tmp_path: Path) -> None:
    path = tmp_path / "view.duckdb"
    duckdb.connect(str(path)).execute("CREATE TABLE rows (n INTEGER)").close()
    with open_finished_database(path, tmp_path / "spill") as connection:
        # DuckDB lets itself into the folder of its own temporary files.
        for query in (
            f"FROM read_text('{small.index}/index.json')",
            f"COPY rows TO '{tmp_path}/out.csv'",
            f"ATTACH '{tmp_path}/other.duckdb'",
            "INSTALL httpfs",
            "SET enable_external_access = true",
            "INSERT INTO rows VALUES (1)",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(query)
