"""Ids that repeat in a raw data set: under another image they are other rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import IndexSplit

from tests.index.raw_data import (
    Row,
    index,
    left_out_counts,
    left_out_rows,
    touch,
    write,
    write_images,
    write_labels,
)


def nia_rows(images: int, first: int = 0) -> dict[str, Any]:
    """Two questions an image, numbered 1 and 2 under each."""
    return {
        "annotations": [
            {
                "IMAGE_NAME": f"{n}.jpg",
                "questions": [
                    {
                        "question_id": k,
                        "question_ko": f"질문 {n} {k}?",
                        "answer_ko": "예",
                        "ans_source": "triple",
                    }
                    for k in (1, 2)
                ],
            }
            for n in range(first, first + images)
        ]
    }


def test_nia_that_numbers_its_questions_per_image_keeps_all_rows(root: Path) -> None:
    for name, images, first in (("train", 3, 0), ("valid", 2, 3), ("test", 2, 5)):
        write(root / f"{name}.json", nia_rows(images, first))
    touch(root / "image", [f"{n}.jpg" for n in range(7)])
    examples, report = index(root, "nia")
    assert report.counts.rows == {"train": 6, "val": 4, "test": 4}
    assert [e.id for e in examples["val"]] == ["3.jpg#1", "3.jpg#2", "4.jpg#1", "4.jpg#2"]
    assert (report.counts.qualified_ids, report.counts.first_qualified_id) == (14, "0.jpg#1")
    assert (report.faults, report.all_rows) == (0, 14)
    assert report.json_fields()["qualified_ids"] == 14


def test_rows_that_differ_in_their_answer_alone_are_duplicates_and_named(root: Path) -> None:
    rows = [Row("1", "a", "예"), Row("1", "a", "아니요"), Row("1", "a", "예"), Row("1", "b", "예")]
    write_labels(root, rows)
    write_images(root, ["a.jpg", "b.jpg"])
    examples, report = index(root, "aihub")
    assert [(e.id, e.image) for e in examples["train"]] == [("a.jpg#1", "a.jpg"), ("b.jpg#1", "b.jpg")]
    assert left_out_rows(report) == {
        "question id appears twice": ["id 1: 무엇인가요?"],
        "question id appears twice, with other answers": ["id 1: 무엇인가요?"],
    }
    assert report.faults == 2  # under the rule of 1 % and 10 %


def test_ids_that_repeat_in_two_shards_do_not_depend_on_which_came_first(root: Path) -> None:
    for category, names in (("가", "ab"), ("나", "cda")):
        write_labels(root, [Row(n, name, "예") for n, name in enumerate(names)], category=category)
    write_images(root, [f"{name}.jpg" for name in "abcd"])
    examples, report = index(root, "aihub")
    assert [e.id for e in examples["train"]] == ["a.jpg#0", "b.jpg#1", "c.jpg#0", "d.jpg#1", "2"]
    assert report.counts.qualified_ids == 4


def test_label_files_that_number_per_image_meet_by_image_whatever_their_order(root: Path) -> None:
    """AI-Hub's questions lie in a file of their own, in another order than the annotations."""
    rows = [Row(k, f"p{n}", f"답{n}{k}", f"질문 {n}{k}?") for n in range(3) for k in (1, 2)]
    folder = write_labels(root, rows)
    questions = [
        {"question_id": r.id, "image_id": r.image_id, "question": r.question} for r in reversed(rows)
    ]
    write(folder / "question.json", {"questions": questions})
    write_images(root, [f"p{n}.jpg" for n in range(3)])
    examples, report = index(root, "aihub")
    assert [(e.id, e.question[3:5], list(e.answers)) for e in examples["train"]] == [
        (f"p{n}.jpg#{k}", f"{n}{k}", [f"답{n}{k}"]) for n in range(3) for k in (1, 2)
    ]
    # Without the image in their file, they meet by id alone, in order.
    write(
        folder / "question.json",
        {"questions": [{k: q[k] for k in ("question_id", "question")} for q in questions[::-1]]},
    )
    assert index(root, "aihub")[0] == examples
    assert report.faults == 0


def test_vqav2_questions_that_are_numbered_per_image_meet_by_image(root: Path) -> None:
    for part in ("train2014", "val2014"):
        rows = [(k, n) for n in (7, 8) for k in (1, 2)]
        questions = [{"question_id": k, "image_id": n, "question": f"What {n}{k}?"} for k, n in rows]
        annotations = [
            {
                "question_id": k,
                "image_id": n,
                "multiple_choice_answer": f"x{n}{k}",
                "answers": [{"answer": f"x{n}{k}"}],
            }
            for k, n in reversed(rows)
        ]
        write(root / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": questions})
        write(root / f"v2_mscoco_{part}_annotations.json", {"annotations": annotations})
        touch(root, [f"{part}/COCO_{part}_{n:012}.jpg" for n in (7, 8)])
    build_index("vqav2", root, None, root.parent / "index", min_count=1)
    kept = IndexSplit(root.parent / "index" / "val.jsonl")
    assert [(e.id[-2:], e.question[5:7], list(e.answers)) for e in kept] == [
        (f"#{k}", f"{n}{k}", [f"x{n}{k}"]) for k, n in rows
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "id,image,question,answer,split\n1,a.jpg,뭐?,예,train\n1,b.jpg,뭐?,예,train\n",
            ["a.jpg#1", "b.jpg#1"],
        ),
        (
            "id,image,question,answer,split\n1,a.jpg,뭐?,예,train\n1,a.jpg,왜?,예,train\n",
            ["a.jpg#1#1", "a.jpg#1#2"],
        ),
        ("id,image,question,answer,split\n1,a.jpg,뭐?,예,train\n1 ,a.jpg, 뭐?,예,train\n", ["1"]),
        ("id,image,question,answer,split\n1,a.jpg,뭐?,예,train\n1,b.jpg,뭐?,예,test\n", ["1"]),
    ],
)
def test_a_tables_ids_are_told_apart(root: Path, content: str, expected: list[str]) -> None:
    write(root / "표.csv", content)
    touch(root, ["a.jpg", "b.jpg"])
    examples, report = index(root / "표.csv", "table")
    assert [e.id for e in examples["train"]] == expected
    assert sum(report.counts.rows.values()) + sum(left_out_counts(report).values()) == 2


def test_every_line_that_is_written_again_is_the_row_it_was(root: Path) -> None:
    draw = random.Random(3)
    names = [f"{n}.jpg" for n in range(40)]
    rows = [(str(draw.randrange(30)), draw.choice(names), f"질문 {draw.randrange(2)}?") for _ in range(400)]
    lines = [f"{id},{image},{question},예,train" for id, image, question in rows]
    write(root / "표.csv", "\n".join(["id,image,question,answer,split", *lines]))
    touch(root, names)
    examples, report = index(root / "표.csv", "table")
    kept = examples["train"]
    assert [(e.image, e.question) for e in kept] == [row[1:] for row in dict.fromkeys(rows)]
    assert len({e.id for e in kept}) == len(kept) == len(set(rows))
    assert left_out_counts(report) == {"question id appears twice": len(rows) - len(set(rows))}
    assert all(id in e.id for e, (id, _, _) in zip(kept, dict.fromkeys(rows), strict=True))
