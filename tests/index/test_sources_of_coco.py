"""VQAv2 and COCO from a few raw rows: what becomes an example, what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_upstream_files
from kovqa_core.index.reader import open_index
from kovqa_core.progress import Progress

from tests.index.raw_data import index, left_out_counts, left_out_rows, touch, write

# ------------------------------------------------------------------------------------------- vqav2


def write_vqav2(root: Path, part: str, rows: list[tuple[int, int, list[str]]], type: str = "other") -> None:
    questions = [{"question_id": id, "image_id": image, "question": "What?"} for id, image, _ in rows]
    write(root / "vqa" / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": questions})
    annotations = [
        {
            "question_id": id,
            "image_id": image,
            "multiple_choice_answer": max(answers, key=answers.count),
            "answer_type": type,
            "answers": [{"answer": answer} for answer in answers],
        }
        for id, image, answers in reversed(rows)  # in another order than the questions
        if answers
    ]
    if not part.startswith("test"):
        write(root / "vqa" / f"v2_mscoco_{part}_annotations.json", {"annotations": annotations})
    folder = part.replace("test-dev", "test")
    touch(root, {f"{folder}/COCO_{folder}_{image:012}.jpg" for _, image, _ in rows if image < 1000})


def test_vqav2_scores_ten_annotators_on_normalised_answers(root: Path) -> None:
    answers = ["The dog", "dog", "two", "2", "2", *["a dog"] * 5]
    write_vqav2(root, "train2014", [(id, 7, answers) for id in range(9)])
    write_vqav2(root, "val2014", [(90, 8, ["yes"] * 10)], "yes/no")
    write_vqav2(root, "test2015", [(91, 9, []), (92, 1000, [])])
    write_vqav2(root, "test-dev2015", [(91, 9, [])])
    examples, report = index(root, "vqav2")
    image = "train2014/COCO_train2014_000000000007.jpg"
    assert examples["train"][0] == Example(
        "0", image, "What?", {"dog": 1.0, "2": 0.9}, "other", annotations=answers
    )
    assert examples["val"][0].question_type == "yes/no"
    assert [e.id for e in examples["test"]] == [e.id for e in examples["test-dev"]] == ["91"]
    assert examples["test-dev"][0].image == "test2015/COCO_test2015_000000000009.jpg"
    assert open_index(root.parent / "index").answers() == ["dog"], "2 was never the most frequent answer"
    assert report.counts.min_count == 9
    assert report.counts.class_coverage["val"] == 0
    assert left_out_counts(report) == {"picture missing": 1}


def test_vqav2_questions_without_annotation_and_broken_annotations(root: Path) -> None:
    write_vqav2(root, "train2014", [(id, 7, ["yes"] * 10) for id in range(9)] + [(10, 7, [])])
    write_vqav2(root, "val2014", [(90, 8, ["yes"] * 10)])
    assert left_out_rows(index(root, "vqav2")[1]) == {"no annotation": ["id 10: of image 7"]}
    file = root / "vqa" / "v2_mscoco_val2014_annotations.json"
    broken = {"question_id": 90, "multiple_choice_answer": "yes", "answers": ["yes"]}
    write(file, {"annotations": [broken]})
    with pytest.raises(DataError, match=r"val2014_annotations\.json: question 90 lacks answers"):
        index(root, "vqav2")
    file.unlink()
    with pytest.raises(DataError, match=r"cannot read .*val2014_annotations\.json"):
        index(root, "vqav2")


# -------------------------------------------------------------------------------------------- coco


def coco_row(id: int, split: str, *captions: str) -> dict[str, Any]:
    sentences = [{"raw": caption} for caption in captions]
    about = {"filepath": "val2014", "filename": f"{id}.jpg", "split": split, "cocoid": id}
    return {**about, "sentences": sentences}


def test_coco_has_a_row_per_sentence_to_train_and_one_per_image_else(root: Path) -> None:
    rows = [
        coco_row(1, "train", "A dog.", " A cat. "), coco_row(2, "restval", "A bus."),
        coco_row(3, "val", "A cup.", "Tea."), coco_row(4, "test", "A pan."), coco_row(5, "train", "Gone."),
    ]  # fmt: skip
    write(root / "dataset_coco.json", {"images": rows, "dataset": "coco"})
    touch(root / "val2014", [f"{n}.jpg" for n in range(1, 5)])
    examples, report = index(root, "coco")
    assert examples["train"] == [
        Example("1-0", "val2014/1.jpg", "", captions=["A dog."]),
        Example("1-1", "val2014/1.jpg", "", captions=["A cat."]),
        Example("2-0", "val2014/2.jpg", "", captions=["A bus."]),
    ]
    assert examples["val"] == [Example("3", "val2014/3.jpg", "", captions=["A cup.", "Tea."])]
    assert [e.id for e in examples["test"]] == ["4"]
    assert left_out_counts(report) == {"picture missing": 1}
    assert not (root.parent / "index" / "answers.txt").exists()


@pytest.mark.parametrize("row", [coco_row(1, "dev", "A dog."), {**coco_row(1, "val"), "sentences": [{}]}])
def test_coco_says_which_image_is_wrong(root: Path, row: dict[str, Any]) -> None:
    write(root / "dataset_coco.json", {"images": [row]})
    with pytest.raises(DataError, match=r"dataset_coco\.json: image 1"):
        index(root, "coco")


def test_an_example_without_captions_keeps_its_line() -> None:
    assert "captions" not in Example("1", "a.jpg", "뭐?", {"예": 1.0}, "교통").line()
    assert json.loads(Example("1", "a.jpg", "", captions=["말 \\ 한"]).line())["captions"] == ["말 \\ 한"]


def test_the_original_files_are_written_with_progress(root: Path) -> None:
    write(root / "dataset_coco.json", {"images": [coco_row(1, "train", *["A dog."] * 1000)]})
    reported: list[Progress] = []
    folder = root.parent / "up"
    sizes = build_upstream_files("coco", root, None, folder, lambda text: [7], on_progress=reported.append)
    assert [each.done for each in reported] == [1000, 2000], "each caption for captioning and for retrieval"
    assert sizes == {path.name: path.stat().st_size for path in folder.iterdir()}
