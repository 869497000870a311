"""What the trainer is given: the text of tables and indexes alone, and only lines it learns from, counted."""

from __future__ import annotations

import json
import resource
from collections import Counter
from pathlib import Path

import openpyxl
import pytest
from kovqa_core.errors import DataError, MachineError, SettingsError
from kovqa_core.tokenizer.card import TokenizerCard, card_path, write_sentencepiece_model
from kovqa_core.tokenizer.corpus import chunk_lines, clean_corpus, corpus_chunks
from kovqa_core.tokenizer.extend import extend_tokenizer
from kovqa_core.tokenizer.train import train_tokenizer
from kovqa_core.tokenizer.unlearnable import (
    EMPTY_WHEN_NORMALISED,
    HOLDS_NUL,
    HOLDS_UNKNOWN_MARK,
    NOT_UNICODE,
)

from tests.conftest import Small

THEIRS = Path(__file__).parents[1] / "fixtures" / "tokenizer" / "smp.model"
ROWS = [
    {"id": "q1", "image": "img/a.jpg", "question": "이것은 무엇?", "answer": "개"},
    {"id": "q2", "image": "img/b.jpg", "question": "몇 마리?", "answer": "두 마리"},
]
TEXTS = ["이것은 무엇?", "개", "몇 마리?", "두 마리"]


def read(path: Path, *columns: str) -> list[str]:
    return [line for chunk in corpus_chunks(path, columns) for line in chunk_lines(chunk)]


def write_rows(path: Path) -> Path:
    if path.suffix in (".csv", ".tsv"):
        mark = "," if path.suffix == ".csv" else "\t"
        rows = [mark.join(ROWS[0]), *(mark.join(row.values()) for row in ROWS)]
        path.write_text("\n".join(rows), "utf-8-sig")
    elif path.suffix in (".xlsx", ""):
        workbook = openpyxl.Workbook()
        for row in [list(ROWS[0]), *(list(row.values()) for row in ROWS)]:
            workbook.active.append(row)
        workbook.save(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS), "utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8")
    return path


# -------------------------------------------------------------------------- tables and indexes


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.json", "t.jsonl", "줄.txt", "t.xlsx", "이름 없음"])
def test_a_table_gives_its_texts_not_its_ids_file_names_or_keys(tmp_path: Path, name: str) -> None:
    assert read(write_rows(tmp_path / name)) == TEXTS


def test_lists_of_answers_captions_choices_and_context_are_text_too(tmp_path: Path) -> None:
    row = {
        "question": "첫 줄\n둘째 줄", "answers": ["개", "강아지"], "captions": ["사진"], "choices": ["개", "소"],
        "context": "앞글", "hint": None, "score": 0.5, "image": "a.jpg", "columns": {"memo": "버릴 것"},
    }  # fmt: skip
    (tmp_path / "t.jsonl").write_text(json.dumps(row), "utf-8")
    assert Counter(read(tmp_path / "t.jsonl")) == Counter(
        ["첫 줄", "둘째 줄", "개", "강아지", "사진", "개", "소", "앞글"]
    )


def test_an_index_gives_its_training_split_only(small: Small, tmp_path: Path) -> None:
    corpus = clean_corpus([small.index], tmp_path / "work")
    rows = [json.loads(line) for line in (small.index / "train.jsonl").read_text("utf-8").splitlines()]
    text = "".join(path.read_text("utf-8") for path in corpus.chunk_files)
    assert Counter(text.splitlines()) == Counter(
        line for row in rows for line in [row["question"], *row["answers"], *row.get("captions", ())]
    )
    assert [source["path"] for source in corpus.sources] == [str(small.index / "train.jsonl")]


def test_columns_can_be_named_and_a_table_without_text_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("파일,물음,설명\na.jpg,무엇?,개가 있다\n", "utf-8")
    assert read(tmp_path / "t.csv", "설명", "물음") == ["개가 있다", "무엇?"]
    for columns, said in (
        ((), "known to hold text; it has 파일, 물음, 설명"),
        (("뜻",), "no column 뜻; it has"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            read(tmp_path / "t.csv", *columns)
        assert "--column NAME" in caught.value.hint


# -------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16", "utf-16-be"])
def test_every_encoding_korean_text_comes_in_is_read(tmp_path: Path, encoding: str) -> None:
    mark = b"\xfe\xff" if encoding == "utf-16-be" else b""
    (tmp_path / "글.txt").write_bytes(mark + "고양이가 운다\r\n\r\nabc\r\n개".encode(encoding))
    assert read(tmp_path / "글.txt") == ["고양이가 운다", "abc", "개"]


def test_a_cut_letter_in_the_first_line_does_not_make_a_file_cp949(tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_bytes("보".encode() + b"\xeb\xb3\n" + "고양이\n".encode())
    with pytest.raises(DataError, match=r"글\.txt:1: damaged UTF-8"):
        read(tmp_path / "글.txt")


# ------------------------------------------------------------------------- lines left out


def test_lines_the_trainer_drops_are_counted_by_reason(tmp_path: Path) -> None:
    good = [f"고양이가 {number}번 운다" for number in range(50)]
    bad = ["네모 ▅ 표", "\u200b\u200b", "\x01\x02", "가\0나", "반쪽 \ud83d"]
    rows = [{"question": text} for text in [*good, *bad]]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    card = train_tokenizer([tmp_path / "t.jsonl"], tmp_path / "t.model", 300)
    assert card.lines == card.lines_given == 50
    expected = {HOLDS_UNKNOWN_MARK: 1, HOLDS_NUL: 1, NOT_UNICODE: 1, EMPTY_WHEN_NORMALISED: 2}
    assert json.loads(card_path(tmp_path / "t.model").read_text("utf-8"))["left_out"] == expected
    # Nothing but these lines is missing: without them, the model is the same.
    (tmp_path / "good.txt").write_text("\n".join(good), "utf-8")
    train_tokenizer([tmp_path / "good.txt"], tmp_path / "good.model", 300)
    assert (tmp_path / "t.model").read_bytes() == (tmp_path / "good.model").read_bytes()


def test_more_than_a_tenth_of_the_lines_is_an_error_until_allowed(tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_text("고양이 ▅\n" * 2 + "고양이가 운다\n" * 10, "utf-8")
    with pytest.raises(DataError, match=r"2 of 12 lines \(16\.7%\) are left out: holds U\+2585 2") as caught:
        train_tokenizer([tmp_path / "글.txt"], tmp_path / "t.model", 300)
    assert "--allow-left-out" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["글.txt"]
    assert train_tokenizer(
        [tmp_path / "글.txt"], tmp_path / "t.model", 300, allow_left_out=True
    ).left_out == {HOLDS_UNKNOWN_MARK: 2}
    (tmp_path / "all.txt").write_text("고양이 ▅\n" * 5, "utf-8")
    with pytest.raises(DataError, match=r"no text in .*all\.txt"):
        train_tokenizer([tmp_path / "all.txt"], tmp_path / "a.model", 300, allow_left_out=True)


# ------------------------------------------------------------------- a failed try leaves nothing


def test_a_failed_training_leaves_nothing(tmp_path: Path) -> None:
    text = tmp_path / "글.txt"
    text.write_text("고양이가 운다\n" * 9, "utf-8")
    (tmp_path / "broken.txt").write_bytes("고양이\n".encode() + b"\xff\xff\n")
    (tmp_path / "signs.txt").write_text("\u200b\n" * 5, "utf-8")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingsError, match="ask for 2"):
        train_tokenizer([text], tmp_path / "t.model", 100)
    for name in "broken.txt", "signs.txt":
        with pytest.raises(DataError):
            train_tokenizer([text, tmp_path / name], tmp_path / "t.model", 300)
    with pytest.raises(DataError):
        extend_tokenizer(THEIRS, tmp_path / "broken.txt", tmp_path / "t.model")
    assert sorted(tmp_path.iterdir()) == before


def test_a_full_disk_leaves_neither_half_a_model_nor_cleaned_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "글.txt").write_text("고양이가 운다\n" * 9, "utf-8")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(MachineError, match="larger than a file may be here"):
            train_tokenizer([tmp_path / "글.txt"], tmp_path / "t.model", 300)
        # The model fits, its card does not.
        with pytest.raises(MachineError, match="larger than a file may be here"):
            write_sentencepiece_model(tmp_path / "t.model", b"m" * 90, TokenizerCard(1, "0" * 64, {}, ""))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["글.txt"]


def test_chunks_of_another_folder_are_never_removed(tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_text("고양이\n", "utf-8")
    (tmp_path / "t.model.work").mkdir()
    (tmp_path / "t.model.work" / "thesis.txt").write_text("논문")
    with pytest.raises(SettingsError, match="did not write"):
        train_tokenizer([tmp_path / "글.txt"], tmp_path / "t.model", 300)
    assert (tmp_path / "t.model.work" / "thesis.txt").read_text() == "논문"


@pytest.mark.parametrize(
    "name", ["kowiki-latest-pages-articles.xml.bz2", "kowiki.xml", "글.txt", "index.html"]
)
@pytest.mark.parametrize(
    ("page", "kind"),
    [
        (b"<!DOCTYPE html>\n<html><head><title>404</title></head><body>\xec\x97\x86\xec\x9d\x8c</body></html>", "HTML page"),
        (b"\xef\xbb\xbf  <HTML><BODY>sign in</BODY></HTML>\n", "HTML page"),
        (b"<!-- a proxy's -->\n<html lang=ko>\n", "HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "XML text"),
    ],
)  # fmt: skip
def test_a_page_under_the_name_of_a_dump_is_no_corpus(
    tmp_path: Path, name: str, page: bytes, kind: str
) -> None:
    (tmp_path / name).write_bytes(page)
    with pytest.raises(DataError, match=f"{name} is an {kind}"):
        corpus_chunks(tmp_path / name)


def test_lines_that_begin_with_a_bracket_are_text(tmp_path: Path) -> None:
    (tmp_path / "글.txt").write_text("<뉴스> 오늘의 날씨\n< 1 > 첫째\n", "utf-8")
    assert len(corpus_chunks(tmp_path / "글.txt")) == 1
