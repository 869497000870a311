"""How `kovqa view` grows: 250 k and 7.5 M rows with two predictions files, and DuckDB beside SQLite.

    python bench/view_scale.py [--rows 250000 7500000] [--engines] [--scratch DIR]

Makes an index (four fifths of the rows are the training split, which is what both files answer, the worst case), starts
the command as a user does, and measures: seconds to the first rows, seconds until everything is counted, the same for a
second start, each count and filter of the page as the browser asks for it (the least of three), and the most memory.
7.5 million rows take 3 GB of disk while it runs.

`--engines` also loads the same rows into SQLite (texts once each and indexed numbers as in `view/build.py`, the texts in
an FTS5 trigram table) and asks both engines the same.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import urlopen

from bench.index_scale import FREQUENT_ANSWERS, QUESTION_FORMS, QUESTION_NOUNS

SPLITS = {"train": 0.8, "val": 0.1, "test": 0.1}
ASKED = {
    "all rows": "/summary?",
    "train": "/summary?split=train",
    "first page": "/rows?split=train",
    "page 1,000 of the wrong": "/rows?split=train&a=wrong&page=1000",
    "search, 1 % of rows": "/summary?q=" + quote("신호등의"),
    "search, 11 rows": "/rows?q=" + quote("12345번"),
    "A and B differ": "/summary?split=train&pair=different",
    "surest wrong": "/rows?split=train&a=wrong&sort=sure",
    "answers": "/answers?split=train",
    "training frequency": "/frequency?split=train",
    "calibration": "/calibration?split=train",
    "confusion": "/confusion?split=train",
    "questions": "/questions?split=train",
}


def make_index(folder: Path, rows: int) -> None:
    """An index without images, and two files that answer its training split."""
    (folder / "images").mkdir(parents=True)
    draw = random.Random(1)
    said = {name: (folder / f"{name}.jsonl").open("w", encoding="utf-8") for name in "ab"}
    id = 0
    for split, share in SPLITS.items():
        offsets, place = array.array("Q"), 0
        with (folder / f"{split}.jsonl").open("wb") as stream:
            for _ in range(int(rows * share)):
                answer = _answer(draw)
                question = draw.choice(QUESTION_FORMS).format(draw.choice(QUESTION_NOUNS))
                if draw.random() < 0.1:
                    question = f"{id % 500_000}번 {question}"
                line = (
                    f'{{"id": "{id:010}", "image": "{id // 5:07}.jpg", "question": "{question}", '
                    f'"answers": {{"{answer}": 1.0}}, "kind": "분류{id % 20:02}"}}\n'
                ).encode()
                offsets.append(place)
                place += stream.write(line)
                for name, accuracy in (("a", 0.7), ("b", 0.6)) if split == "train" else ():
                    given = answer if draw.random() < accuracy else _answer(draw)
                    said[name].write(
                        f'{{"id": "{id:010}", "answer": "{given}", "score": {draw.random():.6f}}}\n'
                    )
                id += 1
        (folder / f"{split}.offsets").write_bytes(offsets.tobytes())
    for each in said.values():
        each.close()
    report = {"schema": 1, "rows": {}, "images": "images"}
    (folder / "index.json").write_text(json.dumps(report))


def _answer(draw: random.Random) -> str:
    if draw.random() < 0.9:
        return draw.choice(FREQUENT_ANSWERS)
    return f"{draw.choice(QUESTION_NOUNS)} {int(draw.paretovariate(0.6)) % 20_000}"


def measure_view(folder: Path, cache: Path) -> None:
    """Two starts of the command; each count of the page with the first."""
    words = [sys.executable, "-P", "-m", "kovqa_cli", "view", folder, "--port", "0", "-q"]
    words += ["--predictions", folder / "a.jsonl", "--predictions", folder / "b.jsonl"]
    for start in ("first start", "second start"):
        began = time.perf_counter()
        process = subprocess.Popen(
            list(map(str, words)), stdout=subprocess.PIPE, text=True,
            env={**os.environ, "XDG_CACHE_HOME": str(cache)},
        )  # fmt: skip
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            _get(url + "/")
            _get(url + "/state?")
            _get(url + "/rows?split=train")
            seen, seen_cpu = time.perf_counter() - began, _cpu_seconds(process.pid)
            while not json.loads(_get(url + "/state?"))["ready"]:
                time.sleep(0.1)
            counted, counted_cpu = time.perf_counter() - began, _cpu_seconds(process.pid)
            print(f"| {start}: first rows | {seen:.2f} s ({seen_cpu:.2f} s of CPU) |")
            print(f"| {start}: all counted | {counted:.1f} s ({counted_cpu:.1f} s of CPU) |")
            if start == "first start":
                for name, path in ASKED.items():
                    print(f"| {name} | {_least(partial(_get, url + path)):.3f} s |")
            print(f"| most memory, {start} | {_peak_mb(process.pid):,.0f} MB |", flush=True)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    size = sum(path.stat().st_size for path in (cache / "kovqa" / "view").glob("*.duckdb"))
    print(f"| database | {size / 1e6:,.0f} MB |", flush=True)


def _get(url: str) -> bytes:
    with urlopen(url, timeout=600) as reply:
        return bytes(reply.read())


def _least(ask: Callable[[], object]) -> float:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        ask()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def _fetch(connection: Any, query: str) -> object:
    return connection.execute(query).fetchall()


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM"))


# --------------------------------------------------------------------------------------- engines

TABLES = """
CREATE TABLE questions (number INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE texts (number INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE rows (line INTEGER PRIMARY KEY, split INTEGER, question INTEGER, best INTEGER, a_form INTEGER,
    a_score REAL, a_confidence REAL);
"""
QUERIES = {
    "count and mean": "SELECT count(*), avg(a_score) FROM rows WHERE split = 0",
    "wrong and sure": "SELECT count(*) FROM rows WHERE a_score < 0.5 AND a_confidence > 0.9",
    "answers": "SELECT best, count(*) FROM rows GROUP BY best ORDER BY 2 DESC LIMIT 50",
    "confusion": "SELECT best, a_form, count(*) FROM rows WHERE a_score < 0.5 GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 50",
    "questions": "SELECT question, count(*), avg(a_score) FROM rows GROUP BY question ORDER BY 2 DESC LIMIT 50",
}
SEARCH = "SELECT count(*) FROM rows WHERE question IN (SELECT {number} FROM {table} WHERE {match})"


def compare_engines(database: Path, folder: Path) -> None:
    """The same rows in SQLite, taken from DuckDB's database, and the same questions to both."""
    import duckdb

    duck = duckdb.connect(str(database), read_only=True, config={"threads": 2, "memory_limit": "1GiB"})
    path = folder / "sqlite.db"
    lite = sqlite3.connect(path, isolation_level=None)
    lite.executescript(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000;" + TABLES
    )

    def rows(query: str) -> Iterator[tuple[object, ...]]:
        result = duck.execute(query)
        while some := result.fetchmany(50_000):
            yield from some

    began = time.perf_counter()
    lite.execute("BEGIN")
    for table, columns in (
        ("questions", "number, text"),
        ("texts", "number, text"),
        ("rows", "rowid, split, question, best, a_form, a_score, a_confidence"),
    ):
        marks = ", ".join("?" * len(columns.split(",")))
        lite.executemany(f"INSERT INTO {table} VALUES ({marks})", rows(f"SELECT {columns} FROM {table}"))
    lite.execute("COMMIT")
    loaded = time.perf_counter() - began
    lite.executescript(
        "CREATE VIRTUAL TABLE found USING fts5(text, content='questions', content_rowid='number', tokenize='trigram');"
        "INSERT INTO found (found) VALUES ('rebuild');"
        + "".join(f"CREATE INDEX i_{name} ON rows ({name});" for name in ("question", "best", "a_score"))
    )
    size = path.stat().st_size / 1e6
    print(
        f"| SQLite: rows in, all indexed, size | {loaded:.1f} s, {time.perf_counter() - began:.1f} s, {size:,.0f} MB |"
    )
    queries = {name: (query, query) for name, query in QUERIES.items()} | {
        "search 신호등의": (
            SEARCH.format(number="number", table="questions", match="contains(folded, '신호등의')"),
            SEARCH.format(number="rowid", table="found", match="found MATCH '\"신호등의\"'"),
        ),
        "search of two letters": (
            SEARCH.format(number="number", table="questions", match="contains(folded, '창문')"),
            SEARCH.format(number="number", table="questions", match="text LIKE '%창문%'"),
        ),
    }
    for name, (for_duck, for_lite) in queries.items():
        fast = _least(partial(_fetch, duck, for_duck))
        slow = _least(partial(_fetch, lite, for_lite))
        print(f"| {name}: DuckDB, SQLite | {fast:.3f} s, {slow:.3f} s |", flush=True)


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 7_500_000])
    parser.add_argument("--engines", action="store_true", help="SQLite beside DuckDB")
    parser.add_argument("--scratch", type=Path, help="where the indexes are made")
    options = parser.parse_args()
    for rows in options.rows:
        scratch = Path(tempfile.mkdtemp(dir=options.scratch))
        try:
            make_index(scratch / "index", rows)
            print(f"| {rows:,} rows | |\n|---|---|", flush=True)
            measure_view(scratch / "index", scratch / "cache")
            if options.engines:
                (database,) = (scratch / "cache" / "kovqa" / "view").glob("*.duckdb")
                compare_engines(database, scratch)
        finally:
            shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
