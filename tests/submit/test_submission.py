"""kovqa submit dacon: the file, byte for byte, and everything that must be refused."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, KovqaError
from kovqa_core.submit import submission as work
from kovqa_core.submit.submission import WrittenSubmission, write_submission

from tests import parity
from tests.conftest import Kovqa

ANSWERS = [
    "no", " red, white ", 'a "big" one', "서핑을\n하고 있다", "None", "nan", "007", "1.0", "a\rb", "=1+1", "예\u2028",
]  # fmt: skip
IDS = [f"TEST_{n:05}" for n in (3, 1, 2, 0, 9, 4, 8, 5, 7, 6, 10)]


def write(
    folder: Path, rows: list[tuple[object, object]], sample: bytes | None = None
) -> tuple[Path, Path, Path]:
    """Predictions, sample and output."""
    predictions, template = folder / "p.jsonl", folder / "sample_submission.csv"
    lines = [
        json.dumps({"id": id, "answer": answer, "score": 0.5}, ensure_ascii=False) for id, answer in rows
    ]
    predictions.write_text("\n".join(lines), "utf-8")
    template.write_bytes(sample or "".join(["ID,answer\n", *(f"{id},0\n" for id in IDS)]).encode())
    return predictions, template, folder / "제출.csv"


def made(folder: Path, *args: object, **options: object) -> tuple[WrittenSubmission, bytes]:
    paths = write(folder, *args, **options)  # type: ignore[arg-type]
    return write_submission("dacon", *paths), paths[2].read_bytes()


# ------------------------------------------------------------------------------------ the file


def test_the_recorded_submission(tmp_path: Path) -> None:
    given, sample = (
        parity.path("dacon/result.jsonl", of="llava"),
        parity.path("dacon/sample_submission.csv", of="llava"),
    )
    write_submission("dacon", given, sample, tmp_path / "s.csv")
    recorded = parity.path("dacon/expected/llava_submission.csv", of="llava").read_bytes()
    assert (tmp_path / "s.csv").read_bytes() == recorded


def test_what_was_said_arrives_in_the_samples_order(tmp_path: Path) -> None:
    written, content = made(tmp_path, list(zip(sorted(IDS), ANSWERS, strict=True)))
    with (tmp_path / "제출.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    said = dict(zip(sorted(IDS), ANSWERS, strict=True))
    assert header == ["ID", "answer"]
    assert rows == [[id, said[id].strip()] for id in IDS]
    assert content.endswith(b"\n") and b"\r\n" not in content and b'"a\rb"\n' in content
    assert (written.rows, written.distinct, written.longest) == (11, 11, 'a "big" one')


def test_shuffled_rows_give_the_same_bytes(tmp_path: Path) -> None:
    rows: list[tuple[object, object]] = list(zip(IDS, ANSWERS, strict=True))
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one = made(tmp_path / "a", rows)
    random.Random(1).shuffle(rows)
    two = made(tmp_path / "b", rows)
    assert one[1] == two[1]
    assert one[0].frequent == two[0].frequent


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949"])
def test_only_a_marked_sample_marks_the_submission(tmp_path: Path, encoding: str) -> None:
    sample = "ID,answer\r\n가_1,모름\r\n".encode(encoding)
    _, content = made(tmp_path, [("가_1", "예")], sample)
    assert content == "ID,answer\n가_1,예\n".encode("utf-8-sig" if encoding == "utf-8-sig" else "utf-8")


def test_predictions_may_be_a_table(tmp_path: Path) -> None:
    _, sample, output = write(tmp_path, [], b"ID,answer\nT,0\n")
    (tmp_path / "p.csv").write_bytes('\ufeffid,answer\r\nT,"예, 물론"\r\n'.encode())
    write_submission("dacon", tmp_path / "p.csv", sample, output)
    assert output.read_bytes() == 'ID,answer\nT,"예, 물론"\n'.encode()


# --------------------------------------------------------------------------------- what is refused

MANY = "".join(["ID,answer\n", *(f"T{n:02},0\n" for n in range(12))]).encode()


@pytest.mark.parametrize(
    ("rows", "sample", "says"),
    [
        ([("T99", "no")], MANY, "no prediction for 12 ids: T00, T01, T02, T03, T04, T05, T06, T07, T08, T09, …"),
        ([("T", "no"), ("U", "x")], b"ID,answer\nT,0\n", "sample_submission.csv: 1 id: U"),
        ([("T", "no"), ("T", "no")], b"ID,answer\nT,0\n", "more than once: 1 id: T"),
        ([("T", "no"), ("", "x"), (None, "y")], b"ID,answer\nT,0\n", "no id in 2 lines: 2, 3"),
        ([("T", " \n")], b"ID,answer\nT,0\n", "an empty text for 1 id: T"),
        ([("T", None)], b"ID,answer\nT,0\n", "an empty text for 1 id: T"),
        ([("T", "no")], b"ID,Answer\nT,0\n", "no column 'answer'; it has ID, Answer, did you mean 'Answer'?"),
        ([("T", "no")], b"answer,ID\n0,T\n", "its columns are answer, ID, not ID, answer"),
        ([("T", "no")], b"ID,answer,score\nT,0,1\n", "its columns are ID, answer, score, not ID, answer"),
        ([("T", "no")], b"ID,answer\nT,0\nU,0\nT,1\n", "sample_submission.csv:4: id T was already in line 2"),
        ([("T", "no")], b"ID,answer\nT,0\n ,0\n", "sample_submission.csv:3: no id"),
        ([("T", "no")], b"ID,answer\n", "has no rows"),
        ([("T", "no")], b"ID,answer\nT,\xff\xff\n", "sample_submission.csv:2: neither UTF-8 nor CP949"),
    ],
)  # fmt: skip
def test_what_dacon_would_refuse_is_not_written(
    tmp_path: Path, rows: list[tuple[object, object]], sample: bytes, says: str
) -> None:
    predictions, template, output = write(tmp_path, rows, sample)
    with pytest.raises(DataError) as caught:
        write_submission("dacon", predictions, template, output)
    assert says in caught.value.message
    assert not output.exists()


@pytest.mark.parametrize("escape", ["\\ud800", "\\u0000"])
def test_broken_characters_are_refused(tmp_path: Path, escape: str) -> None:
    predictions, template, output = write(tmp_path, [], b"ID,answer\nT,0\n")
    predictions.write_text(f'{{"id": "T", "answer": "a{escape}"}}\n')
    with pytest.raises(DataError, match="a broken character in 1 id: T"):
        write_submission("dacon", predictions, template, output)


def test_a_file_dacon_would_not_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "DACON_MAX_BYTES", 15)
    assert made(tmp_path, [("T", "no")], b"ID,answer\nT,0\n")[1] == b"ID,answer\nT,no\n"
    with pytest.raises(DataError, match="has 16 bytes, Dacon takes 15"):
        made(tmp_path, [("T", "yes")], b"ID,answer\nT,0\n")


def test_inputs_are_not_overwritten(tmp_path: Path) -> None:
    predictions, template, _ = write(tmp_path, [("T", "no")], b"ID,answer\nT,0\n")
    for output in (predictions, template):
        before = output.read_bytes()
        with pytest.raises(KovqaError, match="it would be overwritten"):
            write_submission("dacon", predictions, template, output)
        assert output.read_bytes() == before


def test_the_command_says_what_the_answers_are_like(kovqa: Kovqa, tmp_path: Path) -> None:
    write(tmp_path, [("A", "no"), ("B", "no"), ("C", "노란색 꽃")], b"ID,answer\nA,0\nB,0\nC,0\n")
    words = [
        "submit",
        "dacon",
        "--predictions",
        "p.jsonl",
        "--sample",
        "sample_submission.csv",
        "-o",
        "o.csv",
    ]
    done = kovqa(*words)
    assert (done.returncode, done.stdout) == (0, "o.csv\n")
    assert done.stderr.splitlines() == [
        "3 rows, every id once, none empty; 2 different texts",
        "most frequent: no (2), 노란색 꽃 (1); longest: 노란색 꽃 (5 characters)",
    ]
    printed = json.loads(kovqa(*words, "--json").stdout)
    assert (printed["schema"], printed["rows"], printed["distinct"], printed["path"]) == (1, 3, 2, "o.csv")
    (tmp_path / "p.jsonl").write_text('{"id": "A", "answer": "no"}\n')
    done = kovqa(*words)
    assert (done.returncode, "no prediction for 2 ids: B, C" in done.stderr) == (3, True)
