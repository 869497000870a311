"""kovqa submit dacon: the file, byte for byte, and everything that must be refused."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path

import openpyxl
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


# -------------------------------------------------------------------------------------- any challenge


def test_what_is_empty_is_filled_like_what_is_missing(tmp_path: Path) -> None:
    rows: list[tuple[object, object]] = [("A", "네"), ("B", ""), ("C", " \n"), ("D", None)]
    paths = write(tmp_path, rows, b"ID,answer\nA,0\nB,0\nC,0\nD,0\nE,0\n")
    written = write_submission("dacon", *paths, fill="모름")
    assert paths[2].read_text("utf-8") == "ID,answer\nA,네\nB,모름\nC,모름\nD,모름\nE,모름\n"
    assert (written.filled, written.filled_empty) == (1, 3)
    with pytest.raises(DataError, match="no prediction for 1 id: E"):
        write_submission("dacon", *paths)
    with pytest.raises(DataError, match="an empty text for 4 ids: B, C, D, E"):
        write_submission("dacon", *paths, fill=" ")
    paths[1].write_text("ID,answer\nA,0\nB,0\nC,0\nD,0\n")
    with pytest.raises(DataError, match="an empty text for 3 ids: B, C, D") as caught:
        write_submission("dacon", *paths)
    assert "--fill TEXT" in str(caught.value.hint)


def test_captions_are_filled_too(tmp_path: Path) -> None:
    (tmp_path / "i.json").write_text('{"images": [{"id": 1}, {"id": 2}, {"id": 3}]}')
    lines = '{"image_id": 1, "caption": "a cat"}\n{"image_id": 2, "caption": "  "}\n'
    (tmp_path / "p.jsonl").write_text(lines)
    paths = tmp_path / "p.jsonl", tmp_path / "i.json", tmp_path / "o.json"
    written = write_submission("coco", *paths, fill="a photo")
    assert (written.filled, written.filled_empty, written.columns) == (1, 1, None)
    assert [row["caption"] for row in json.loads(paths[2].read_text())] == ["a cat", "a photo", "a photo"]


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (["01", "1"], "one number, which is all that the submission has: 1 id: 01 = 1"),
        (["1", "2", "002", "001"], "2 ids: 1 = 001, 2 = 002"),
        (["0", "000"], "1 id: 0 = 000"),
        (["9" * 5000, "0" + "9" * 5000], "one number"),
        (["007"], "not a number: 1 id: 007"),  # 7 would be another question
        (["１"], "not a number: 1 id: １"),
        (["-1", "1.0"], "not a number: 2 ids: -1, 1.0"),
    ],
)
def test_ids_that_a_list_of_numbers_does_not_tell_apart(tmp_path: Path, ids: list[str], says: str) -> None:
    paths = tmp_path / "p.jsonl", tmp_path / "q.json", tmp_path / "o.json"
    paths[0].write_text("".join(f'{{"id": "{id}", "answer": "a"}}\n' for id in ids), "utf-8")
    paths[1].write_text(json.dumps({"questions": [{"question_id": id} for id in ids]}), "utf-8")
    with pytest.raises(DataError) as caught:
        write_submission("vqav2", *paths)
    assert says in caught.value.message
    assert not paths[2].exists()


@pytest.mark.parametrize("word", ["nan", "NaN", "null", "None", "n/a", "N/A", "<NA>", " NULL "])
def test_words_for_nothing_are_counted(tmp_path: Path, word: str) -> None:
    """They may be answers (VQAv2 has "none"), or what a program writes where it has none."""
    written, content = made(tmp_path, [("A", "네"), ("B", word)], b"ID,answer\nA,0\nB,0\n")
    assert (written.missing_words, written.first_missing_word) == (1, "B")
    assert content.decode() == f"ID,answer\nA,네\nB,{word.strip()}\n"


# ---------------------------------------------------------------------------- a contest's own sample


def contest(
    folder: Path, sample: bytes, answers: dict[str, str], name: str = "sample.csv", **columns: str
) -> tuple[WrittenSubmission, bytes]:
    """The submission like a sample, and its bytes."""
    paths = folder / "p.jsonl", folder / name, folder / "o.csv"
    lines = [json.dumps({"id": id, "answer": text}, ensure_ascii=False) for id, text in answers.items()]
    paths[0].write_text("\n".join(lines), "utf-8")
    paths[1].write_bytes(sample)
    return write_submission("csv", *paths, columns=columns), paths[2].read_bytes()


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ("idx,label\nb,0\na,0\n", "idx,label\nb,둘\na,하나\n"),  # the sample's order
        ("ID,answer\r\na,\r\nb,\r\n", "ID,answer\r\na,하나\r\nb,둘\r\n"),
        ("\ufeffid,정답\na,x\nb,x\n", "\ufeffid,정답\na,하나\nb,둘\n"),
        (
            'question_id,Answer,비고\na,0,"x, y"\nb,0,007\n',
            'question_id,Answer,비고\na,하나,"x, y"\nb,둘,007\n',
        ),
        ("score,answer,id\n1.0,?,a\n0.50,?,b\n", "score,answer,id\n1.0,하나,a\n0.50,둘,b\n"),
        ("key,answer\na,0\nb,0\n", "key,answer\na,하나\nb,둘\n"),  # the other of two columns
        ("id,value\n a ,0\nb,0", "id,value\n a ,하나\nb,둘\n"),  # blanks around an id; no last line end
    ],
)
def test_a_contests_sample_keeps_its_form(tmp_path: Path, sample: str, expected: str) -> None:
    written, content = contest(tmp_path, sample.encode(), {"a": "하나", "b": " 둘 "})
    assert content == expected.encode()
    assert written.rows == 2


def test_a_samples_encoding_is_kept(tmp_path: Path) -> None:
    sample = "id,정답\r\n가,모름\r\n".encode("cp949")
    assert contest(tmp_path, sample, {"가": "예"})[1] == "id,정답\r\n가,예\r\n".encode("cp949")
    with pytest.raises(DataError, match="is in CP949, which lacks a letter of the answer to 1 id: 가"):
        contest(tmp_path, sample, {"가": "☃️"})


@pytest.mark.parametrize(
    ("encoding", "delimiter", "line_end"),
    [("utf-16", "\t", "\r\n"), ("utf-8-sig", ";", "\r\n"), ("utf-8", ";", "\r"), ("cp949", "\t", "\n")],
)
def test_a_sample_as_spreadsheets_write_it(
    tmp_path: Path, encoding: str, delimiter: str, line_end: str
) -> None:
    def text(answer: str) -> bytes:
        rows = [["번호", "비고", "정답"], ["가", "x,y", answer], ["나", "", answer]]
        return "".join(delimiter.join(row) + line_end for row in rows).encode(encoding)

    written, content = contest(tmp_path, text("0"), {"가": "예", "나": "예"}, id="번호")
    assert content == text("예")
    assert ("cells are separated by" in "".join(written.notes)) == (delimiter != ",")


def test_a_workbook_as_a_sample(tmp_path: Path) -> None:
    """Its submission is a CSV, which is what contests take."""
    workbook = openpyxl.Workbook()
    for row in (["ID", "정답", "점수"], ["가", None, 1], ["나", None, 0.5]):
        workbook.active.append(row)
    workbook.save(tmp_path / "s.xlsx")
    (tmp_path / "p.jsonl").write_text(
        '{"id": "나", "answer": "둘"}\n{"id": "가", "answer": "하나"}\n', "utf-8"
    )
    write_submission("csv", tmp_path / "p.jsonl", tmp_path / "s.xlsx", tmp_path / "o.csv")
    assert (tmp_path / "o.csv").read_text("utf-8") == "ID,정답,점수\n가,하나,1\n나,둘,0.5\n"


def test_a_samples_columns_are_named_where_they_must_be(tmp_path: Path) -> None:
    sample = b"number,reply,id\nA,0,1\nB,0,2\n"
    written, content = contest(tmp_path, sample, {"A": "x", "B": "y"}, id="number", answer="reply")
    assert content == b"number,reply,id\nA,x,1\nB,y,2\n"
    assert written.columns == ("number", "reply")
    with pytest.raises(DataError, match="no column 'answer'; it has number, reply, id"):
        contest(tmp_path, sample, {"1": "x", "2": "y"})
    with pytest.raises(DataError, match="no column 'Reply'; it has"):
        contest(tmp_path, sample, {"A": "x", "B": "y"}, id="number", answer="Reply")
    with pytest.raises(DataError, match="no column 'answer'"):
        contest(tmp_path, sample, {"A": "x", "B": "y"}, id="number", answer="number")
    with pytest.raises(KovqaError, match="--column question=…: a sample has id and answer"):
        contest(tmp_path, sample, {"A": "x", "B": "y"}, question="number")


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        (b"id,answer\na,0\na,0\n", "sample.csv:3: id a was already in line 2"),
        (b"id,answer\na,0\n,0\n", "sample.csv:3: no id"),
        (b"id,answer\n", "sample.csv has no rows"),
        (b",id,answer\n0,a,0\n", "sample.csv: a column without a name"),
        (b'[{"id": "a", "answer": 0}]', "sample.csv is JSON, not a table with a header"),
        (b"id,answer\na,0\nb,0\n", "no prediction for 1 id: b"),
        (b"id,text,label\na,0,0\n", "sample.csv: the answers may belong in text, label"),
        (b"a,b,c\n1,2,3\n", "sample.csv: no column 'id'; it has a, b, c"),
        (b"id,answer\nc,0\n", "no prediction for 1 id: c"),
    ],
)
def test_a_sample_that_cannot_be_followed(tmp_path: Path, sample: bytes, says: str) -> None:
    with pytest.raises(DataError) as caught:
        contest(tmp_path, sample, {"a": "x"})
    assert says in caught.value.message
    assert not (tmp_path / "o.csv").exists()


def test_a_submission_like_the_sample_is_a_csv(tmp_path: Path) -> None:
    paths = write(tmp_path, [("T", "no")], b"ID,answer\nT,0\n")
    with pytest.raises(KovqaError, match="a submission like the sample is a CSV"):
        write_submission("csv", *paths[:2], tmp_path / "o.xlsx")
    with pytest.raises(KovqaError, match="dacon has columns of its own"):
        write_submission("dacon", *paths, columns={"id": "ID"})


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
    done = kovqa("submit", "csv", *words[2:], "--column", "answer=answer")
    assert (done.returncode, (tmp_path / "o.csv").read_text("utf-8").splitlines()[1]) == (0, "A,no")
    assert "ids in column ID, answers in column answer" in done.stderr
    printed = json.loads(kovqa(*words, "--json").stdout)
    assert (printed["schema"], printed["rows"], printed["distinct"], printed["path"]) == (1, 3, 2, "o.csv")
    (tmp_path / "p.jsonl").write_text('{"id": "A", "answer": "no"}\n')
    done = kovqa(*words)
    assert (done.returncode, "no prediction for 2 ids: B, C" in done.stderr) == (3, True)
