"""Korean data sets and Dacon's from a few raw rows: what becomes an example, what is left out and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.build import build_upstream_files
from kovqa_core.index.sources import DATA_SOURCES

from tests import parity
from tests.index.raw_data import Row, index, left_out_counts, left_out_rows, touch, write, write_labels

# --------------------------------------------------------------------------------------------- nia


def nia_row(name: str, *questions: dict[str, Any]) -> dict[str, Any]:
    return {"IMAGE_NAME": name, "questions": list(questions)}


def nia_question(question: str, answer: str | None, **more: Any) -> dict[str, Any]:
    return {
        "question_ko": question,
        "answer_ko": answer,
        "question_en": "What?",
        "answer_en": "A horn",
        **more,
    }


def write_nia(root: Path, train: list[Any]) -> None:
    for split in ("train", "valid", "test"):
        rows = train if split == "train" else [nia_row(f"{split}.jpg", nia_question("뭐?", "예"))]
        write(root / f"{split}.json", {"info": {}, "annotations": rows})
    touch(root / "image", ["1.jpg", "valid.jpg", "test.jpg"])


def test_nia_has_two_questions_per_image(root: Path) -> None:
    a = nia_question("누가 만들었지?", "아돌프 삭스", ans_source="triple", question_id="q1")
    write_nia(root, [nia_row("1.jpg", a, nia_question("뭐야?", " 호른 "))])
    examples, _ = index(root, "nia")
    assert examples["train"] == [
        Example("q1", "1.jpg", "누가 만들었지?", {"아돌프 삭스": 1.0}, "triple"),
        Example("1.jpg/B", "1.jpg", "뭐야?", {"호른": 1.0}, "vqa"),
    ]
    assert [len(examples[split]) for split in ("val", "test")] == [1, 1]
    english, report = index(root, "nia", language="en")
    assert [(e.question, dict(e.answers)) for e in english["val"]] == [("What?", {"A horn": 1.0})]
    assert report.options["language"] == "en"


def test_nia_rows_left_out_are_reported(root: Path) -> None:
    write_nia(
        root,
        [
            nia_row("1.jpg", nia_question("뭐?", "예"), nia_question("", "예")),
            nia_row("2.jpg", nia_question("뭐?", "예"), nia_question("뭐?", None)),
        ],
    )
    _, report = index(root, "nia")
    assert left_out_counts(report) == {"question missing": 1, "picture missing": 1, "answer empty": 1}
    assert left_out_rows(report)["picture missing"] == ["id 2.jpg/A: 2.jpg"]


# ------------------------------------------------------------------------------------------- dacon


def write_dacon(root: Path, rows: int = 200) -> None:
    lines = [f"TRAIN_{n},train_{n // 2},What is it?,{'Yes' if n % 3 else 'no'}" for n in range(rows)]
    write(root / "train.csv", "\n".join(["ID,image_id,question,answer", *lines, ""]))
    write(root / "test.csv", "ID,image_id,question\nTEST_0,test_0,Why?\nTEST_1,gone,Why?\n")
    touch(root / "image", [*(f"train/train_{n}.jpg" for n in range(rows // 2)), "test/test_0.png"])


def test_dacon_finds_the_suffix_and_splits_by_image(root: Path) -> None:
    write_dacon(root)
    examples, report = index(root, "dacon")
    assert examples["train"][0] == Example("TRAIN_0", "train/train_0.jpg", "What is it?", {"no": 1.0})
    assert examples["test"] == [Example("TEST_0", "test/test_0.png", "Why?")]
    assert left_out_rows(report) == {"picture missing": [f"{root}/test.csv:3: id TEST_1: test/gone"]}
    assert 10 <= report.counts.rows["val"] <= 30
    assert report.counts.rows["train"] + report.counts.rows["val"] == 200
    assert report.counts.images_shared_with_train["val"] == 0
    assert "dacon/<image_id>" in report.split_method
    assert report.counts.class_coverage == {"val": 1.0, "test": None}


def test_a_dacon_id_that_appears_under_two_images_is_qualified(root: Path) -> None:
    write_dacon(root, 4)
    with (root / "train.csv").open("a") as stream:
        stream.write("TRAIN_1,train_1,Who?,yes\nTRAIN_0,train_0,What is it?,no\n")
    examples, report = index(root, "dacon")
    assert sorted(e.id for split in ("train", "val") for e in examples[split]) == [
        "TRAIN_0", "TRAIN_2", "TRAIN_3", "train/train_0.jpg#TRAIN_1", "train/train_1.jpg#TRAIN_1",
    ]  # fmt: skip
    assert left_out_rows(report)["question id appears twice"] == ["id TRAIN_0: What is it?"]


def test_dacon_tests_keep_the_files_order(root: Path) -> None:
    write_dacon(root, 4)
    ids = [f"TEST_{n}" for n in (7, 3, 0, 12, 5)]
    write(root / "test.csv", "\n".join(["ID,image_id,question", *(f"{id},test_0,Why?" for id in ids)]))
    write(
        root / "sample_submission.csv", "\ufeffID,answer\r\n" + "".join(f"{id},0\r\n" for id in sorted(ids))
    )
    examples, _ = index(root, "dacon")
    assert [example.id for example in examples["test"]] == ids


@pytest.mark.parametrize(
    ("sample_ids", "expected"),
    [
        (["TEST_0"], "test.csv holds what sample_submission.csv does not ask for: 1 id: TEST_1"),
        (["TEST_1", "TEST_0", "TEST_2"], "sample_submission.csv asks for what test.csv lacks: 1 id: TEST_2"),
    ],
)
def test_dacon_sample_and_test_must_agree(root: Path, sample_ids: list[str], expected: str) -> None:
    write_dacon(root, 4)
    write(root / "sample_submission.csv", "\n".join(["ID,answer", *(f"{id},0" for id in sample_ids)]))
    with pytest.raises(DataError) as caught:
        index(root, "dacon")
    assert expected in caught.value.message


def test_dacon_images_may_be_elsewhere(root: Path) -> None:
    write_dacon(root, 4)
    for name in ("images", "."):
        for split in ("train", "test"):
            old_folder = next(folder for folder in (root / "image", root / "images") if folder.is_dir())
            (root / name).mkdir(exist_ok=True)
            (old_folder / split).rename(root / name / split)
        old_folder.rmdir()
        assert index(root, "dacon")[1].counts.rows["test"] == 1


def test_dacon_files_as_the_scripts_write_them(tmp_path: Path) -> None:
    root, images = parity.path("dacon", of="llava"), tmp_path / "그림"
    images.mkdir()
    build_upstream_files("dacon", root, images, tmp_path / "out")
    for name in ("output.json", "test.jsonl"):
        recorded = (root / "expected" / name).read_text()
        image_folder = json.dumps(str(images))[1:-1]
        assert (tmp_path / "out" / name).read_text() == recorded.replace(
            "/content/dacon-multimodal-vqa/image", image_folder
        )


# -------------------------------------------------------------------------------------------- kvqa


def kvqa_row(image: str, *answers: str, **more: Any) -> dict[str, Any]:
    annotations = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    row = {"image": image, "source": "kvqa", "question": "무엇인가요?", "answers": annotations}
    return {**row, "answerable": 1, "answer_type": "other", **more}


def test_kvqa_has_ten_answers_and_is_split_by_image(root: Path) -> None:
    rows = [kvqa_row(f"{n}.jpg", *["우유"] * 7, "물", "물", "컵") for n in range(300)]
    rows[1] = kvqa_row("1.jpg", *["알 수 없음"] * 10, answerable=0)
    write(root / "kvqa_annotations.json", rows)
    touch(root / "images" / "kvqa_images_0", [f"{n}.jpg" for n in range(299)])
    examples, report = index(root, "kvqa")
    every = {e.id: e for split in examples.values() for e in split}
    assert every["0.jpg"].answers == {"우유": 1.0, "물": 0.6, "컵": 0.3}
    assert [every[id].question_type for id in ("0.jpg", "1.jpg")] == ["other", "unanswerable"]
    assert every["0.jpg"].image == "kvqa_images_0/0.jpg"
    assert [round(report.counts.rows[split] / 299, 1) for split in ("train", "val", "test")] == [
        0.8,
        0.1,
        0.1,
    ]
    assert left_out_counts(report) == {"picture missing": 1}
    assert "kvqa/<image>" in report.split_method


def test_kvqa_says_which_line_is_wrong(root: Path) -> None:
    write(root / "kvqa_annotations.json", '[\n{"image": "a.jpg",\n"question": "?", "answers": [1]}\n]')
    with pytest.raises(
        DataError, match=r"kvqa_annotations\.json:2: record 1 lacks image, question or answers"
    ):
        index(root, "kvqa")


# --------------------------------------------------------------------------------------------- all


def test_one_file_name_in_two_folders_is_the_splits_own_or_nobodys(root: Path) -> None:
    write_nia(
        root, [nia_row("같은.jpg", nia_question("뭐?", "예")), nia_row("1.jpg", nia_question("뭐?", "예"))]
    )
    touch(root / "image", ["train/같은.jpg", "test/같은.jpg", "가/1.jpg", "나/1.jpg"])
    (root / "image" / "1.jpg").unlink()
    examples, report = index(root, "nia")
    assert [example.image for example in examples["train"]] == ["train/같은.jpg"]
    assert left_out_rows(report) == {
        "several pictures of that name": ["id 1.jpg/A: 1.jpg: 가/1.jpg or 나/1.jpg?"]
    }
    write(root / "kvqa_annotations.json", [kvqa_row("1.jpg", "예"), kvqa_row("나/1.jpg", "예")])
    touch(root / "images", ["가/1.jpg", "나/1.jpg"])
    examples, report = index(root, "kvqa")
    assert [example.image for split in examples.values() for example in split] == ["나/1.jpg"]
    assert left_out_counts(report) == {"several pictures of that name": 1}
    captions = [{"raw": "개"}]
    row = {"filepath": "val2014", "filename": "a.jpg", "split": "train", "cocoid": 1, "sentences": captions}
    write(root / "dataset_coco.json", {"images": [row, {**row, "filename": "b.jpg", "cocoid": 2}]})
    touch(root, ["coco/val2014/a.jpg", "train2014/a.jpg", "train2014/b.jpg"])
    examples, report = index(root, "coco")
    assert [example.image for example in examples["train"]] == ["coco/val2014/a.jpg"]
    assert left_out_rows(report) == {
        "picture missing": ["id 2: val2014/b.jpg (in another folder: train2014/b.jpg)"]
    }


def test_the_original_files_of_broken_labels_are_an_error_and_none_is_written(root: Path) -> None:
    folder = write_labels(root, [Row("q1", "p1", "예"), Row("q2", "p1", "네")])
    write(
        folder / "annotation.json", {"annotations": [{"question_id": "q1", "multiple_choice_answer": "예"}]}
    )
    with pytest.raises(DataError, match="question q2 has no answer or no image"):
        build_upstream_files("aihub", root, None, root.parent / "up", lambda text: [7])
    write_nia(root, [])
    write(root / "knowledge_base.json", {"knowledgebase": {}})
    with pytest.raises(DataError, match=r"knowledge_base\.json: no knowledgebase\.fact"):
        build_upstream_files("nia", root, None, root.parent / "up")
    assert not (root.parent / "up").exists()


@pytest.mark.parametrize("source", list(DATA_SOURCES))
def test_an_empty_folder_is_an_error_that_says_what_is_missing(root: Path, source: str) -> None:
    (root / "image").mkdir()
    with pytest.raises(DataError) as caught:
        index(root, source)
    assert str(root) in caught.value.message
    assert caught.value.hint


def test_an_option_a_data_set_has_no_use_for_is_refused(root: Path) -> None:
    for options in ({"language": "en"}, {"columns": {"id": "번호"}}):
        with pytest.raises(SettingsError, match="coco has no use for"):
            index(root, "coco", **options)
    (root / "image").mkdir()
    with pytest.raises(SettingsError, match="unknown language 'kr'; did you mean ko"):
        index(root, "nia", language="kr")
