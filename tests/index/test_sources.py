"""Each data set from a few raw rows: what becomes an example, what is left out and why."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, KovqaError, SettingsError
from kovqa_core.index.build import build_index, build_upstream_files
from kovqa_core.index.reader import open_index
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import SOURCE_MODULES

from tests import parity
from tests.index.layout import Row, write_labels


def index(root: Path, source: str, **options: Any) -> tuple[dict[str, list[Example]], dict[str, Any]]:
    """Examples by split, and the report; the raw data set lies in `root` or is `root`."""
    folder = (root if root.is_dir() else root.parent).parent / "index"
    report = build_index(source, root, None, folder, options=SourceOptions(**options))
    opened = open_index(folder)
    return {split: list(opened.split(split)) for split in report["rows"]}, report


def touch(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8"
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "원본").mkdir()
    return tmp_path / "원본"


# --------------------------------------------------------------------------------------- nia


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


def test_nia_has_two_questions_a_picture(root: Path) -> None:
    a = nia_question("누가 만들었지?", "아돌프 삭스", ans_source="triple", question_id="q1")
    write_nia(root, [nia_row("1.jpg", a, nia_question("뭐야?", " 호른 "))])
    found, _ = index(root, "nia")
    assert found["train"] == [
        Example("q1", "1.jpg", "누가 만들었지?", {"아돌프 삭스": 1.0}, "triple"),
        Example("1.jpg/B", "1.jpg", "뭐야?", {"호른": 1.0}, "vqa"),
    ]
    assert [len(found[split]) for split in ("val", "test")] == [1, 1]
    english, report = index(root, "nia", language="en")
    assert [(e.question, dict(e.answers)) for e in english["val"]] == [("What?", {"a horn": 1.0})]
    assert report["language"] == "en"


def test_nia_rows_left_out_are_reported(root: Path) -> None:
    write_nia(
        root,
        [
            nia_row("1.jpg", nia_question("뭐?", "예"), nia_question("", "예")),
            nia_row("2.jpg", nia_question("뭐?", "예"), nia_question("뭐?", None)),
        ],
    )
    _, report = index(root, "nia")
    assert report["left_out"] == {"question missing": 1, "picture missing": 1, "answer empty": 1}
    assert report["left_out_rows"]["picture missing"] == ["id 2.jpg/A: 2.jpg"]


# ------------------------------------------------------------------------------------- dacon


def write_dacon(root: Path, rows: int = 200) -> None:
    lines = [f"TRAIN_{n},train_{n // 2},What is it?,{'Yes' if n % 3 else 'no'}" for n in range(rows)]
    write(root / "train.csv", "\n".join(["ID,image_id,question,answer", *lines, ""]))
    write(root / "test.csv", "ID,image_id,question\nTEST_0,test_0,Why?\nTEST_1,gone,Why?\n")
    touch(root / "image", [*(f"train/train_{n}.jpg" for n in range(rows // 2)), "test/test_0.png"])


def test_dacon_finds_the_suffix_and_divides_by_picture(root: Path) -> None:
    write_dacon(root)
    found, report = index(root, "dacon")
    assert found["train"][0] == Example("TRAIN_0", "train/train_0.jpg", "What is it?", {"no": 1.0})
    assert found["test"] == [Example("TEST_0", "test/test_0.png", "Why?")]
    assert report["left_out_rows"] == {"picture missing": [f"{root}/test.csv:3: id TEST_1: test/gone"]}
    assert 10 <= report["rows"]["val"] <= 30
    assert report["rows"]["train"] + report["rows"]["val"] == 200
    assert report["pictures_shared_with_train"]["val"] == 0
    assert "dacon/<image_id>" in report["divided"]
    assert report["covered"] == {"val": 1.0, "test": None}


def test_dacon_ids_that_appear_twice(root: Path) -> None:
    write_dacon(root, 4)
    with (root / "train.csv").open("a") as stream:
        stream.write("TRAIN_1,train_0,Who?,yes\n")
    with pytest.raises(DataError, match=r"train\.csv:6: id TRAIN_1 was already in line 3"):
        index(root, "dacon")


def test_dacon_tests_keep_the_files_order(root: Path) -> None:
    write_dacon(root, 4)
    ids = [f"TEST_{n}" for n in (7, 3, 0, 12, 5)]
    write(root / "test.csv", "\n".join(["ID,image_id,question", *(f"{id},test_0,Why?" for id in ids)]))
    write(
        root / "sample_submission.csv", "\ufeffID,answer\r\n" + "".join(f"{id},0\r\n" for id in sorted(ids))
    )
    found, _ = index(root, "dacon")
    assert [example.id for example in found["test"]] == ids


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["TEST_0"], "test.csv holds what sample_submission.csv does not ask for: 1 id: TEST_1"),
        (["TEST_1", "TEST_0", "TEST_2"], "sample_submission.csv asks for what test.csv lacks: 1 id: TEST_2"),
    ],
)
def test_dacon_sample_and_test_must_agree(root: Path, asked: list[str], says: str) -> None:
    write_dacon(root, 4)
    write(root / "sample_submission.csv", "\n".join(["ID,answer", *(f"{id},0" for id in asked)]))
    with pytest.raises(DataError) as caught:
        index(root, "dacon")
    assert says in caught.value.message


def test_dacon_pictures_may_lie_elsewhere(root: Path) -> None:
    write_dacon(root, 4)
    for name in ("images", "."):
        for split in ("train", "test"):
            place = next(folder for folder in (root / "image", root / "images") if folder.is_dir())
            (root / name).mkdir(exist_ok=True)
            (place / split).rename(root / name / split)
        place.rmdir()
        assert index(root, "dacon")[1]["rows"]["test"] == 1


def test_dacon_files_as_the_scripts_write_them(tmp_path: Path) -> None:
    root, images = parity.path("dacon", of="llava"), tmp_path / "그림"
    images.mkdir()
    build_upstream_files("dacon", root, images, tmp_path / "out")
    for name in ("output.json", "test.jsonl"):
        recorded = (root / "expected" / name).read_text()
        here = json.dumps(str(images))[1:-1]
        assert (tmp_path / "out" / name).read_text() == recorded.replace(
            "/content/dacon-multimodal-vqa/image", here
        )


# ------------------------------------------------------------------------------------- vqav2


def write_vqav2(root: Path, part: str, rows: list[tuple[int, int, list[str]]], type: str = "other") -> None:
    questions = [{"question_id": id, "image_id": image, "question": "What?"} for id, image, _ in rows]
    write(root / "vqa" / f"v2_OpenEnded_mscoco_{part}_questions.json", {"questions": questions})
    annotations = [
        {
            "question_id": id,
            "image_id": image,
            "multiple_choice_answer": max(given, key=given.count),
            "answer_type": type,
            "answers": [{"answer": answer} for answer in given],
        }
        for id, image, given in reversed(rows)  # in another order than the questions
        if given
    ]
    if not part.startswith("test"):
        write(root / "vqa" / f"v2_mscoco_{part}_annotations.json", {"annotations": annotations})
    folder = part.replace("test-dev", "test")
    touch(root, {f"{folder}/COCO_{folder}_{image:012}.jpg" for _, image, _ in rows if image < 1000})


def test_vqav2_scores_ten_annotators_on_normalised_answers(root: Path) -> None:
    given = ["The dog", "dog", "two", "2", "2", *["a dog"] * 5]
    write_vqav2(root, "train2014", [(id, 7, given) for id in range(9)])
    write_vqav2(root, "val2014", [(90, 8, ["yes"] * 10)], "yes/no")
    write_vqav2(root, "test2015", [(91, 9, []), (92, 1000, [])])
    write_vqav2(root, "test-dev2015", [(91, 9, [])])
    found, report = index(root, "vqav2")
    picture = "train2014/COCO_train2014_000000000007.jpg"
    assert found["train"][0] == Example("0", picture, "What?", {"dog": 1.0, "2": 0.9}, "other")
    assert found["val"][0].question_type == "yes/no"
    assert [e.id for e in found["test"]] == [e.id for e in found["test-dev"]] == ["91"]
    assert found["test-dev"][0].image == "test2015/COCO_test2015_000000000009.jpg"
    assert open_index(root.parent / "index").answers() == ["dog"], "2 was never the most given answer"
    assert report["min_count"] == 9
    assert report["covered"]["val"] == 0
    assert report["left_out"] == {"picture missing": 1}


def test_vqav2_questions_without_annotation_and_broken_annotations(root: Path) -> None:
    write_vqav2(root, "train2014", [(id, 7, ["yes"] * 10) for id in range(9)] + [(10, 7, [])])
    write_vqav2(root, "val2014", [(90, 8, ["yes"] * 10)])
    assert index(root, "vqav2")[1]["left_out_rows"] == {"no annotation": ["id 10"]}
    file = root / "vqa" / "v2_mscoco_val2014_annotations.json"
    broken = {"question_id": 90, "multiple_choice_answer": "yes", "answers": ["yes"]}
    write(file, {"annotations": [broken]})
    with pytest.raises(DataError, match=r"val2014_annotations\.json: question 90 lacks answers"):
        index(root, "vqav2")
    file.unlink()
    with pytest.raises(DataError, match=r"cannot read .*val2014_annotations\.json"):
        index(root, "vqav2")


# -------------------------------------------------------------------------------------- coco


def coco_row(id: int, split: str, *captions: str) -> dict[str, Any]:
    sentences = [{"raw": caption} for caption in captions]
    about = {"filepath": "val2014", "filename": f"{id}.jpg", "split": split, "cocoid": id}
    return {**about, "sentences": sentences}


def test_coco_has_a_row_a_sentence_to_train_and_one_a_picture_else(root: Path) -> None:
    rows = [
        coco_row(1, "train", "A dog.", " A cat. "), coco_row(2, "restval", "A bus."),
        coco_row(3, "val", "A cup.", "Tea."), coco_row(4, "test", "A pan."), coco_row(5, "train", "Gone."),
    ]  # fmt: skip
    write(root / "dataset_coco.json", {"images": rows, "dataset": "coco"})
    touch(root / "val2014", [f"{n}.jpg" for n in range(1, 5)])
    found, report = index(root, "coco")
    assert found["train"] == [
        Example("1-0", "val2014/1.jpg", "", captions=["A dog."]),
        Example("1-1", "val2014/1.jpg", "", captions=["A cat."]),
        Example("2-0", "val2014/2.jpg", "", captions=["A bus."]),
    ]
    assert found["val"] == [Example("3", "val2014/3.jpg", "", captions=["A cup.", "Tea."])]
    assert [e.id for e in found["test"]] == ["4"]
    assert report["left_out"] == {"picture missing": 1}
    assert not (root.parent / "index" / "answers.txt").exists()


@pytest.mark.parametrize("row", [coco_row(1, "dev", "A dog."), {**coco_row(1, "val"), "sentences": [{}]}])
def test_coco_says_which_picture_is_wrong(root: Path, row: dict[str, Any]) -> None:
    write(root / "dataset_coco.json", {"images": [row]})
    with pytest.raises(DataError, match=r"dataset_coco\.json: picture 1"):
        index(root, "coco")


def test_an_example_without_captions_keeps_its_line() -> None:
    assert "captions" not in Example("1", "a.jpg", "뭐?", {"예": 1.0}, "교통").line()
    assert json.loads(Example("1", "a.jpg", "", captions=["말 \\ 한"]).line())["captions"] == ["말 \\ 한"]


def test_the_original_files_are_written_with_word_of_progress(root: Path) -> None:
    write(root / "dataset_coco.json", {"images": [coco_row(1, "train", *["A dog."] * 1000)]})
    told: list[int] = []
    folder = root.parent / "up"
    sizes = build_upstream_files(
        "coco", root, None, folder, lambda text: [7], lambda n, share: told.append(n)
    )
    assert told == [1000, 2000], "each caption for captioning and for retrieval"
    assert sizes == {path.name: path.stat().st_size for path in folder.iterdir()}


# -------------------------------------------------------------------------------------- kvqa


def kvqa_row(image: str, *answers: str, **more: Any) -> dict[str, Any]:
    given = [{"answer": answer, "answer_confidence": "yes"} for answer in answers]
    asked = {"image": image, "source": "kvqa", "question": "무엇인가요?", "answers": given}
    return {**asked, "answerable": 1, "answer_type": "other", **more}


def test_kvqa_has_ten_answers_and_is_divided_by_picture(root: Path) -> None:
    rows = [kvqa_row(f"{n}.jpg", *["우유"] * 7, "물", "물", "컵") for n in range(300)]
    rows[1] = kvqa_row("1.jpg", *["알 수 없음"] * 10, answerable=0)
    write(root / "kvqa_annotations.json", rows)
    touch(root / "images" / "kvqa_images_0", [f"{n}.jpg" for n in range(299)])
    found, report = index(root, "kvqa")
    every = {e.id: e for split in found.values() for e in split}
    assert every["0.jpg"].answers == {"우유": 1.0, "물": 0.6, "컵": 0.3}
    assert [every[id].question_type for id in ("0.jpg", "1.jpg")] == ["other", "unanswerable"]
    assert every["0.jpg"].image == "kvqa_images_0/0.jpg"
    assert [round(report["rows"][split] / 299, 1) for split in ("train", "val", "test")] == [0.8, 0.1, 0.1]
    assert report["left_out"] == {"picture missing": 1}
    assert "kvqa/<image>" in report["divided"]


def test_kvqa_says_which_line_is_wrong(root: Path) -> None:
    write(root / "kvqa_annotations.json", '[\n{"image": "a.jpg",\n"question": "?", "answers": [1]}\n]')
    with pytest.raises(DataError, match=r"kvqa_annotations\.json:2: lacks image, question or answers"):
        index(root, "kvqa")


# ------------------------------------------------------------------------------------- table


def test_a_table_with_columns_of_its_own(root: Path) -> None:
    write(root / "표.csv", "번호,사진,질문,정답,나눔\n1,그림/a.jpg,뭐?,NA,train\n2,그림\\b,뭐?,,TEST\n")
    touch(root / "그림", ["a.jpg", unicodedata.normalize("NFD", "b.jpg")])
    columns = {"id": "번호", "image": "사진", "question": "질문", "answer": "정답", "split": "나눔"}
    found, report = index(root / "표.csv", "table", columns=columns)
    assert found["train"] == [Example("1", "그림/a.jpg", "뭐?", {"na": 1.0})]
    assert found["test"] == [Example("2", "그림/b.jpg", "뭐?")]
    assert report["columns"] == columns


def test_a_json_table_may_have_many_annotators_and_captions(root: Path) -> None:
    lines = [
        {
            "image": "a.jpg",
            "question": "몇?",
            "answers": ["1.0", 1.0, "None"],
            "split": "train",
            "kind": "수",
        },
        {"image": "a.jpg", "question": "몇?", "split": "test"},
        {"image": "a.jpg", "caption": ["개 한 마리"], "split": "dev"},
    ]
    write(root / "표.jsonl", "\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    touch(root, ["a.jpg"])
    found, _ = index(root / "표.jsonl", "table")
    assert found["train"] == [Example("1", "a.jpg", "몇?", {"1.0": 0.6, "none": 0.3}, "수")]
    assert found["test"] == [Example("2", "a.jpg", "몇?")]
    assert found["val"] == [Example("3", "a.jpg", "", captions=["개 한 마리"])]


def test_a_table_without_splits_is_divided_by_picture(root: Path) -> None:
    lines = [f"p{n // 3}.jpg,뭐?,예" for n in range(300)]
    write(root / "표.csv", "\n".join(["image,question,answer", *lines]))
    touch(root, [f"p{n}.jpg" for n in range(100)])
    found, report = index(root / "표.csv", "table")
    assert report["rows"]["train"] + report["rows"]["val"] == 300
    assert 4 <= report["pictures"]["val"] <= 18
    assert report["pictures_shared_with_train"]["val"] == 0
    assert found["train"][0].id == "2", "without ids, the line"


def test_rows_of_a_table_that_are_left_out_are_named_by_line(root: Path) -> None:
    write(root / "표.csv", "image,question,answer\na.jpg,뭐?,예\nb.jpg,뭐?,예\na.jpg,,예\na.jpg,뭐?,\n")
    touch(root, ["a.jpg"])
    _, report = index(root / "표.csv", "table")
    file = root / "표.csv"
    assert report["left_out_rows"] == {
        "picture missing": [f"{file}:3: b.jpg"],
        "question missing": [f"{file}:4"],
        "answer empty": [f"{file}:5"],
    }


@pytest.mark.parametrize(
    ("content", "columns", "says", "hint"),
    [
        ("image,question,정답\n", {}, "표.csv:1: no column 'answer'; it has image, question, 정답", "answer=NAME"),
        ("img,question,answer\n", {}, "표.csv:1: no column 'image'", "--column image=img"),
        ("image,question,answer\n", {"id": "번호"}, "표.csv:1: no column '번호'", "--column id=NAME"),
        ("image,question,answer\n", {"imag": "a"}, "unknown column 'imag'; did you mean image", ""),
        ("image,question,answer,split\na.jpg,뭐?,예,시험\n", {}, "표.csv:2: unknown split '시험'", "known: train"),
        ("id,image,question,answer\n1,a.jpg,뭐?,예\n1,a.jpg,뭐?,예\n", {}, "표.csv:3: id 1 was already in line 2", ""),
        ("image,question,answer\n", {}, "no usable row", ""),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_read_is_explained(
    root: Path, content: str, columns: dict[str, str], says: str, hint: str
) -> None:
    write(root / "표.csv", content)
    touch(root, ["a.jpg"])
    with pytest.raises(KovqaError) as caught:
        index(root / "표.csv", "table", columns=columns)
    assert says in caught.value.message
    assert hint in caught.value.hint
    assert not (root.parent / "index").exists()


def test_a_cell_of_json_that_is_no_text_is_refused(root: Path) -> None:
    write(root / "표.json", '[{"image": "a.jpg",\n "question": {"ko": "뭐?"}, "answer": "예"}]')
    with pytest.raises(DataError, match=r"표\.json:1: question is a dict, not a text"):
        index(root / "표.json", "table")


def test_half_a_character_in_json_is_left_out(root: Path) -> None:
    lines = [
        '{"image": "\\ud83d.jpg", "question": "뭐?", "answer": "예"}',
        '{"image": "a.jpg", "question": "뭐?", "answer": "예"}',
    ]
    write(root / "표.jsonl", "\n".join(lines))
    touch(root, ["a.jpg"])
    found, report = index(root / "표.jsonl", "table")
    assert sum(len(split) for split in found.values()) == 1
    assert report["left_out"] == {"picture missing": 1}


# --------------------------------------------------------------------------------------- all


def test_the_original_files_of_broken_labels_are_an_error_and_none_is_written(root: Path) -> None:
    folder = write_labels(root, [Row("q1", "p1", "예"), Row("q2", "p1", "네")])
    write(
        folder / "annotation.json", {"annotations": [{"question_id": "q1", "multiple_choice_answer": "예"}]}
    )
    with pytest.raises(DataError, match="question q2 has no answer or no picture"):
        build_upstream_files("aihub", root, None, root.parent / "up", lambda text: [7])
    write_nia(root, [])
    write(root / "knowledge_base.json", {"knowledgebase": {}})
    with pytest.raises(DataError, match=r"knowledge_base\.json: no knowledgebase\.fact"):
        build_upstream_files("nia", root, None, root.parent / "up")
    assert not (root.parent / "up").exists()


@pytest.mark.parametrize("source", list(SOURCE_MODULES))
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
