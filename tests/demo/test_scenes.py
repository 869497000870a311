"""The drawn demonstration: particles, scenes, questions, the written data set and the contact sheet."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from kovqa_core.demo import dataset
from kovqa_core.demo.dataset import write_demo_dataset
from kovqa_core.demo.korean_text import load_font, wrap_text
from kovqa_core.demo.questions import (
    COUNT_ANSWERS,
    DEMO_QUESTION_TYPES,
    SLOW_QUESTION_TYPES,
    DemoQuestion,
    ask_questions,
    attach_particle,
)
from kovqa_core.demo.scenes import SHAPE_COLOURS, SHAPE_NAMES, Scene, SceneObject, make_scene, paint_scene
from kovqa_core.demo.sheet import SheetRow, draw_contact_sheet
from kovqa_core.demo.wordings import QUESTION_WORDINGS
from kovqa_core.progress import Progress
from PIL import Image


def _thing(shape: str, colour: str, x: float, y: float, *, large: bool = True) -> SceneObject:
    return SceneObject(shape, colour, large, x, y, 34.0 if large else 18.0, 0.0, SHAPE_COLOURS[colour])


def _questions(scene: Scene, question_type: str, tries: int = 40) -> list[DemoQuestion]:
    return [
        question
        for seed in range(tries)
        for question in ask_questions(
            scene, random.Random(seed), heldout=False, question_types=(question_type,)
        )
    ]


STAR_LEFT = Scene(
    (_thing("별", "분홍색", 40, 40), _thing("원", "하늘색", 210, 45, large=False)), (245, 245, 245)
)


@pytest.mark.parametrize(
    ("word", "pair", "expected"),
    [
        ("별", "은/는", "별은"),
        ("하트", "은/는", "하트는"),
        ("원", "이/가", "원이"),
        ("하트", "을/를", "하트를"),
        ("별", "와/과", "별과"),
        ("하트", "와/과", "하트와"),
        ("별", "으로/로", "별로"),
        ("분홍색", "으로/로", "분홍색으로"),
        ("하트", "으로/로", "하트로"),
        ("분홍색", "이에요/예요", "분홍색이에요"),
        ("하트", "이에요/예요", "하트예요"),
        ("7", "으로/로", "7로"),
        ("3", "이/가", "3이"),
        ("A", "은/는", "A는"),
    ],
)
def test_particle(word: str, pair: str, expected: str) -> None:
    assert attach_particle(word, pair) == expected


def test_particle_refuses_an_unknown_pair() -> None:
    with pytest.raises(ValueError, match="unknown particle"):
        attach_particle("별", "에서/서")


def test_scenes_stay_inside_and_apart() -> None:
    counts = set()
    for seed in range(300):
        scene = make_scene(random.Random(seed))
        counts.add(len(scene.things))
        cells = {(thing.row, thing.column) for thing in scene.things}
        assert len(cells) == len(scene.things)
        assert len({(thing.shape, thing.colour) for thing in scene.things}) == len(scene.things)
        for thing in scene.things:
            assert 0.7 * thing.radius < thing.x < 256 - 0.7 * thing.radius
    assert counts == {1, 2, 3, 4, 5}


def test_a_scene_and_its_image_follow_from_the_seed() -> None:
    first, second = (make_scene(random.Random("7")) for _ in range(2))
    assert first == second
    assert paint_scene(first).tobytes() == paint_scene(second).tobytes()


def test_paint_puts_the_colour_where_the_thing_is() -> None:
    image = paint_scene(STAR_LEFT)
    assert image.size == (256, 256) and image.mode == "RGB"
    assert image.getpixel((40, 40)) == SHAPE_COLOURS["분홍색"]
    assert image.getpixel((210, 45)) == SHAPE_COLOURS["하늘색"]
    assert min(image.getpixel((128, 200))) > 225  # type: ignore[type-var]
    assert paint_scene(STAR_LEFT, 96).size == (96, 96)
    with pytest.raises(ValueError):
        paint_scene(STAR_LEFT, 0)


@pytest.mark.parametrize("shape", SHAPE_NAMES)
def test_every_shape_is_drawn(shape: str) -> None:
    blank = paint_scene(Scene((), (245, 245, 245)))
    drawn = paint_scene(Scene((_thing(shape, "하얀색", 128, 128),), (245, 245, 245)))
    assert drawn.getpixel((128, 128)) != blank.getpixel((128, 128))
    assert drawn.getpixel((4, 4)) == blank.getpixel((4, 4))


def test_answers_are_true() -> None:
    assert {q.answer for q in _questions(STAR_LEFT, "개수")} == {COUNT_ANSWERS[1]}
    assert {q.answer for q in _questions(STAR_LEFT, "방향")} == {"왼쪽", "오른쪽"}
    for question in _questions(STAR_LEFT, "색깔"):
        assert question.answer == ("분홍색" if "별" in question.question else "하늘색")
    for question in _questions(STAR_LEFT, "위치"):
        about_star = "별" in question.question or "분홍색" in question.question
        assert question.answer == ("왼쪽 위" if about_star else "오른쪽 위")
    for question in _questions(STAR_LEFT, "크기"):
        about_star = "별" in question.question or "분홍색" in question.question
        assert question.answer == ("크다" if about_star else "작다")
    for question in _questions(STAR_LEFT, "비교"):
        bigger = "큰" in question.question or "커" in question.question or "큽" in question.question
        assert question.answer == ("별" if bigger else "원")


def test_a_name_fits_one_thing_only() -> None:
    same_shape = Scene((_thing("별", "분홍색", 40, 40), _thing("별", "하늘색", 210, 45)), (245, 245, 245))
    assert not _questions(same_shape, "색깔")
    assert all("별" in q.question or "도형" in q.question for q in _questions(same_shape, "위치"))
    assert not any(q.question.startswith("별") for q in _questions(same_shape, "위치"))
    assert COUNT_ANSWERS[1] in {q.answer for q in _questions(same_shape, "세기")}


def test_heldout_wordings_are_never_trained_on() -> None:
    assert len(DEMO_QUESTION_TYPES) >= 8
    for question_type, wordings in QUESTION_WORDINGS.items():
        assert len(set(wordings.train)) >= 6 and len(set(wordings.heldout)) >= 2, question_type
        assert not set(wordings.train) & set(wordings.heldout), question_type
    scenes = [make_scene(random.Random(seed)) for seed in range(200)]
    sentences = [
        {
            q.question
            for seed, scene in enumerate(scenes)
            for q in ask_questions(
                scene, random.Random(seed), heldout=heldout, question_types=tuple(QUESTION_WORDINGS)
            )
        }
        for heldout in (False, True)
    ]
    assert not sentences[0] & sentences[1]
    assert not any("{" in sentence for sentence in sentences[0] | sentences[1])


def test_every_type_comes_up_and_no_answer_dominates() -> None:
    question_types = DEMO_QUESTION_TYPES + SLOW_QUESTION_TYPES
    answers: dict[str, list[str]] = {question_type: [] for question_type in QUESTION_WORDINGS}
    for seed in range(600):
        rng = random.Random(seed)
        for question in ask_questions(make_scene(rng), rng, heldout=False, question_types=question_types):
            answers[question.question_type].append(question.answer)
    for question_type, texts in answers.items():
        assert len(texts) >= 60, question_type
        commonest = max(texts.count(answer) for answer in set(texts)) / len(texts)
        assert commonest < (0.62 if len(set(texts)) == 2 else 0.5), (question_type, commonest)


def test_dataset_layout(tmp_path: Path) -> None:
    reports: list[Progress] = []
    write_demo_dataset(tmp_path, 30, 8, seed=3, on_progress=reports.append)
    assert [report.done for report in reports] == [*range(1, 39)]
    assert reports[-1] == Progress("drawing", 38, 38, "images")
    assert len(list((tmp_path / "images").glob("장면_*.png"))) == 38
    identifiers: list[int] = []
    image_ids: dict[str, set[str]] = {"train_labels": set(), "valid_labels": set()}
    for file in sorted((tmp_path / "labels").rglob("question.json")):
        split, question_type, folder = file.relative_to(tmp_path / "labels").parts[:3]
        assert folder.split("_") == [folder[0], "train" if split[0] == "t" else "validate", question_type]
        questions = json.loads(file.read_text("utf-8"))["questions"]
        annotations = json.loads((file.parent / "annotation.json").read_text("utf-8"))["annotations"]
        images = json.loads((file.parent / "images.json").read_text("utf-8"))["images"]
        assert [q["question_id"] for q in questions] == [a["question_id"] for a in annotations]
        assert {q["image_id"] for q in questions} == {i["image_id"] for i in images}
        assert all(
            (tmp_path / "images" / i["image"]).is_file() and i["category"] == question_type for i in images
        )
        identifiers += [q["question_id"] for q in questions]
        image_ids[split] |= {q["image_id"] for q in questions}
    assert len(identifiers) == len(set(identifiers)) > 150
    assert len(image_ids["train_labels"]) == 30 and len(image_ids["valid_labels"]) == 8
    assert not image_ids["train_labels"] & image_ids["valid_labels"]
    lines = (tmp_path / "text.txt").read_text("utf-8").splitlines()
    assert len(lines) == len(set(lines)) > 100


def test_dataset_is_the_same_in_parallel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo_dataset(tmp_path / "serial", 12, 3, seed=5)
    monkeypatch.setattr(dataset, "PARALLEL_FROM", 1)
    monkeypatch.setattr(dataset, "usable_cpu_count", lambda: 2)
    write_demo_dataset(tmp_path / "parallel", 12, 3, seed=5)
    files = [
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "serial", tmp_path / "parallel")
    ]
    assert files[0] == files[1]


def test_dataset_needs_images(tmp_path: Path) -> None:
    with pytest.raises(ValueError):
        write_demo_dataset(tmp_path, 0, 0, seed=1)


def test_wrap_breaks_between_words_and_cuts() -> None:
    font = load_font(17)
    lines = wrap_text("그림에 있는 분홍색 별은 어느 자리에 있나요?", font, 150, 4)
    assert len(lines) > 1 and " ".join(lines) == "그림에 있는 분홍색 별은 어느 자리에 있나요?"
    long = wrap_text("가" * 200, font, 150, 2)
    assert len(long) == 2 and long[1].endswith("…")
    assert all(font.getlength(line) <= 150 for line in lines + long)
    assert wrap_text("", font, 150, 2) == [""]
    # What the font has no glyph for is spelled out, not a box.
    assert wrap_text("똠얌꿍은 값이", font, 150, 2) == ["ㄸㅗㅁ얌꿍은 값이"]
    assert all(font.getmask(letter).getbbox() for letter in "ㄸㅗㅁㄳㅄ")


def test_contact_sheet(tmp_path: Path) -> None:
    paint_scene(STAR_LEFT, 64).save(tmp_path / "장면.png")
    Image.new("L", (30, 200)).save(tmp_path / "tall.png")
    rows = [
        SheetRow(tmp_path / "장면.png", "별은 무슨 색인가요?", "분홍색", "분홍색", 0.97),
        SheetRow(tmp_path / "tall.png", "무엇인가요? " * 60, "원", "별", float("nan")),
        SheetRow(tmp_path / "없음.png", "어디?", "", "왼쪽", 7.0),
    ]
    draw_contact_sheet(rows, tmp_path / "sheet.png", "제목", columns=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 600 and sheet.height > 800
    with pytest.raises(ValueError):
        draw_contact_sheet([], tmp_path / "none.png", "제목")
    with pytest.raises(ValueError):
        draw_contact_sheet(rows, tmp_path / "none.png", "제목", columns=0)
