"""Questions and annotations in two files belong together by question and image, in whatever order they come."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.index.join_questions import join_by_question
from kovqa_core.index.left_out import LeftOutRows
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import aihub, vqav2

from tests.index.raw_data import touch, write, write_images, write_table

PAIRS = [("1", "7"), ("2", "7"), ("1", "8"), ("2", "8")]  # question id, image id: numbered per image


def records(pairs: list[tuple[Any, ...]], field: str) -> list[dict[str, Any]]:
    return [{"question_id": id, "image_id": image, field: f"{id} of {image}"} for id, image in pairs]


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_questions_numbered_per_image_keep_their_own_image_in_any_order(order: tuple[int, ...]) -> None:
    partners = records([PAIRS[n] for n in order], "question")
    joined = list(join_by_question(iter(records(PAIRS, "answer")), iter(partners)))
    assert all(row["answer"] == partner["question"] for row, partner in joined) and len(joined) == 4


@pytest.mark.parametrize(
    ("partners", "found", "unused"),
    [
        ([("1", "7"), ("1", "9")], ["1 of 7"], ["1 of 9"]),
        ([("1", "9")], [None], ["1 of 9"]),  # another image's
        ([("1", None)], ["1 of None"], []),  # no image is named: the id decides
        ([(1, 7)], ["1 of 7"], []),
        ([("3", "7"), ("3", "7"), ("1", "7")], ["1 of 7"], ["3 of 7", "3 of 7"]),
        ([], [None], []),
    ],
)
def test_what_has_no_partner_is_said(
    partners: list[tuple[Any, ...]], found: list[str | None], unused: list[str]
) -> None:
    left: list[str] = []
    rows = iter(records([("1", "7")], "answer"))
    joined = list(
        join_by_question(rows, iter(records(partners, "question")), lambda row: left.append(row["question"]))
    )
    assert [partner.get("question") for _, partner in joined] == found
    assert left == unused


def test_set_104_asks_each_image_its_own_question(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "동물" / "상_train_동물"
    folder.mkdir(parents=True)
    asked = [*PAIRS[::-1], ("9", "7")]
    write_table(folder / "images.json", {"images": [{"image_id": n, "image": f"{n}.jpg"} for n in "78"]})
    write_table(folder / "annotation.json", {"annotations": records(PAIRS, "multiple_choice_answer")})
    write_table(folder / "question.json", {"questions": records(asked, "question")})
    left_out = LeftOutRows()
    (shard,) = aihub.dataset_shards(tmp_path, write_images(tmp_path, ["7.jpg", "8.jpg"]), SourceOptions())
    examples = [example for _, example in shard.read(left_out)]
    assert [(e.image, e.question) for e in examples] == [(f"{i}.jpg", f"{q} of {i}") for q, i in PAIRS]
    assert left_out.listed == {"no annotation": [f"id 9: of image 7 in {folder / 'question.json'}"]}


def test_vqav2_gives_each_image_its_own_answer(tmp_path: Path) -> None:
    given = [
        {**row, "answers": [{"answer": row["multiple_choice_answer"]}] * 10}
        for row in records([*PAIRS[::-1], ("9", "7")], "multiple_choice_answer")
    ]
    for part in ("train2014", "val2014"):
        write(
            tmp_path / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": records(PAIRS, "question")}
        )
        write(tmp_path / f"v2_mscoco_{part}_annotations.json", {"annotations": given})
        touch(tmp_path, [f"{part}/COCO_{part}_{image:0>12}.jpg" for image in "78"])
    left_out = LeftOutRows()
    shard = vqav2.dataset_shards(tmp_path, tmp_path, SourceOptions())[0]
    examples = [example for _, example in shard.read(left_out)]
    assert [e.annotations[0] for e in examples] == [f"{q} of {i}" for q, i in PAIRS]
    assert left_out.counts == {"question missing": 1}
