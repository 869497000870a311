"""Answers keep their letters in every index; classes are their normal forms, and rows are compared by those."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.data.answers import class_scores, find_class, number_classes
from kovqa_core.data.example import Example
from kovqa_core.evaluate.metrics import mean_soft_score
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index

from tests.index.raw_data import Row, index, touch, write, write_images, write_labels
from tests.index.test_sources import kvqa_row, nia_question, nia_row, write_nia
from tests.index.test_sources_of_coco import write_vqav2

WRITTEN = "IS USx 24H"


def _aihub(root: Path, answer: str) -> None:
    write_labels(root, [Row(1, "p1", f" {answer} ")])
    write_images(root, ["p1.jpg"])


def _aihub101(root: Path, answer: str) -> None:
    question = {"question_id": 1, "image_id": "p1", "question": "뭐?", "answer": answer}
    write(
        root / "Training" / "1.json",
        {"images": [{"image_id": "p1", "image": "p1.jpg"}], "question": [question]},
    )
    write_images(root, ["p1.jpg"])


def _nia(root: Path, answer: str) -> None:
    write_nia(root, [nia_row("1.jpg", nia_question("뭐?", answer))])


def _dacon(root: Path, answer: str) -> None:
    # The hash of this image's name says train.
    write(root / "train.csv", f"ID,image_id,question,answer\nT_0,train_0,What?,{answer}\n")
    write(root / "test.csv", "ID,image_id,question\nE_0,test_0,Why?\n")
    touch(root / "image", ["train/train_0.jpg", "test/test_0.png"])


def _kvqa(root: Path, answer: str) -> None:
    write(root / "kvqa_annotations.json", [kvqa_row(f"{n}.jpg", *[answer] * 10) for n in range(20)])
    touch(root / "images", [f"{n}.jpg" for n in range(20)])


def _vqav2(root: Path, answer: str) -> None:
    write_vqav2(
        root, "train2014", [(id, 7, [f"the {answer}!"] * 6 + [answer.lower()] * 4) for id in range(9)]
    )
    write_vqav2(root, "val2014", [(90, 8, ["yes"] * 10)])


def _table(root: Path, answer: str) -> None:
    write(root / "t.csv", f"image,question,answer,split\na.jpg,뭐?,{answer},train\n")
    touch(root, ["a.jpg"])


@pytest.mark.parametrize(
    ("source", "write_source"),
    [
        ("aihub", _aihub), ("aihub101", _aihub101), ("nia", _nia), ("dacon", _dacon), ("kvqa", _kvqa),
        ("vqav2", _vqav2), ("table", _table),
    ],
)  # fmt: skip
def test_every_source_keeps_the_letters_and_lists_normal_forms(
    source: str, write_source: Callable[[Path, str], None], root: Path
) -> None:
    write_source(root, WRITTEN)
    examples, report = index(root / "t.csv" if source == "table" else root, source)
    assert dict(examples["train"][0].answers) == {WRITTEN: 1.0}
    assert WRITTEN.lower() in open_index(root.parent / "index").answers()
    assert WRITTEN not in open_index(root.parent / "index").answers()
    assert report.counts.rows["train"] == len(examples["train"]) > 0


def test_annotations_of_one_normal_form_are_one_answer_in_its_most_frequent_spelling(root: Path) -> None:
    spellings = ["iPhone", "IPHONE", "iphone", "iPhone", "Mac", "mac", "mac"]  # three who agree are enough
    write(
        root / "t.jsonl",
        f'{{"image": "a.jpg", "question": "?", "answers": {spellings}, "split": "train"}}'.replace("'", '"'),
    )
    touch(root, ["a.jpg"])
    examples, _ = index(root / "t.jsonl", "table")
    assert dict(examples["train"][0].answers) == {"iPhone": 1.0, "mac": 1.0}


def test_classes_are_counted_over_spellings_and_their_order_is_that_of_normal_forms(root: Path) -> None:
    """What decides a label (docs of `choose_answer_classes`) did not change: counts, then code points."""
    answers = ["OPEN", "Open", "open", "B", "b", "a", "A"]
    rows = [f"a.jpg,?,{answer},train" for answer in answers]
    write(root / "t.csv", "\n".join(["image,question,answer,split", *rows]))
    touch(root, ["a.jpg"])
    report = build_index("table", root / "t.csv", None, root / "i", min_count=2)
    assert open_index(root / "i").answers() == ["open", "a", "b"]
    assert [next(iter(e.answers)) for e in open_index(root / "i").split("train")] == answers
    assert not report.counts.left_out
    chosen = build_index("table", root / "t.csv", None, root / "j", classes=["Open", "z"])
    assert chosen.counts.rows["train"] == 3, "a given list of classes is compared in normal form"
    assert open_index(root / "j").answers() == ["Open", "z"]


def test_an_answer_finds_its_class_by_its_letters_first() -> None:
    label_of = number_classes(["yes", "Yes", " YES", "open 24h"])
    assert [find_class(label_of, answer) for answer in ("yes", "Yes", " YES", "YES", "OPEN  24H")] == [
        0,
        1,
        2,
        0,
        3,
    ]
    assert find_class(label_of, "no") is None
    assert class_scores(label_of, {"Open 24h": 0.6, "OPEN 24H": 0.6, "no": 1.0}) == {3: 1.0}


def test_answers_are_scored_in_normal_form() -> None:
    """Of indexes with letters and of earlier ones without; by models that write letters or know classes."""
    with_letters, without = (Example("1", "a", "?", {t: 0.6, "X": 0.3}) for t in ("OPEN 24H", "open 24h"))
    for answer in ("OPEN 24H", "open 24h", " Open  24h"):
        assert mean_soft_score([with_letters, without], [answer, answer]) == 0.6
    assert mean_soft_score([with_letters], ["OPEN24H"]) == 0.0
