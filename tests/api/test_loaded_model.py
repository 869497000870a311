"""import kovqa: a model loaded once and asked many times."""

from __future__ import annotations

import inspect
import io
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import kovqa
import numpy as np
import pytest
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import answer_question
from kovqa_core.index.reader import open_index
from PIL import Image

from tests.conftest import Small, clean_env

QUESTION = "무슨 색인가요?"


@pytest.fixture(scope="module")
def model(trained: Path) -> kovqa.Model:
    return kovqa.load(str(trained), device="cpu", top_k=3)


@pytest.fixture(scope="module")
def image(small: Small) -> Path:
    return next((small.root / "images").glob("*.png"))


def test_importing_it_is_light() -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'transformers', 'pydantic', 'yaml', 'kovqa_cli'}"
    script = f"import kovqa, sys; print(*sorted({heavy} & sys.modules.keys()))"
    words = [sys.executable, "-P", "-c", script]
    done = subprocess.run(words, env=clean_env(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_what_it_offers_is_documented() -> None:
    for name in kovqa.__all__:
        if name not in ("ImageInput", "__version__"):
            assert inspect.getdoc(getattr(kovqa, name)), name
    for name, method in inspect.getmembers(kovqa.Model, inspect.isfunction):
        assert name.startswith("_") or inspect.getdoc(method), name


def test_every_form_of_an_image_has_the_answer_of_predict(
    model: kovqa.Model, trained: Path, image: Path
) -> None:
    predicted = answer_question(image, QUESTION, AnswerOptions(trained, top_k=3)).answer
    with Image.open(image) as opened:
        forms = [image, str(image), image.read_bytes(), opened, np.asarray(opened.convert("RGB"))]
        answers = [model.answer(form, QUESTION) for form in forms]
    assert answers == [predicted] * len(forms)
    assert len(predicted.likeliest) == 3
    decomposed = unicodedata.normalize("NFD", QUESTION)
    assert decomposed != QUESTION
    assert model.answer(image, decomposed) == predicted
    assert (model.task, model.family, model.device, model.precision) == ("vqa", "beit3", "cpu", "fp32")


def test_many_questions_have_the_answers_of_each(model: kovqa.Model, small: Small) -> None:
    index = open_index(small.index)
    rows = [(index.images / row.image, row.question) for row in index.split("val")]
    one_by_one = [model.answer(*row) for row in rows]
    for batch in (None, 2):
        answers = model.answer_many(iter(rows), batch=batch)
        assert [each.text for each in answers] == [each.text for each in one_by_one]
        assert [each.score for each in answers] == pytest.approx(
            [each.score for each in one_by_one], abs=1e-6
        )
    assert model.answer_many([]) == []


def test_a_model_answers_when_its_folder_is_gone(
    model: kovqa.Model, trained: Path, image: Path, tmp_path: Path
) -> None:
    """A training that goes on removes older steps beside a server of one of them."""
    shutil.copytree(trained, folder := tmp_path / "run")
    moved = kovqa.load(folder, device="cpu", top_k=3)
    shutil.rmtree(folder)
    assert moved.answer_many([(image, QUESTION)] * 2) == model.answer_many([(image, QUESTION)] * 2)


def test_an_image_that_cannot_be_read_is_named_or_returned(model: kovqa.Model, image: Path) -> None:
    asked = [kovqa.Question(image, QUESTION), (b"<html>", QUESTION), (image, QUESTION)]
    with pytest.raises(kovqa.DataError, match=r"question 1: image of 6 bytes .* an HTML page"):
        model.answer_many(asked)
    cut_off = Image.open(io.BytesIO(image.read_bytes()[:300]))
    answers = model.answer_many([*asked, (cut_off, QUESTION)], errors="return")
    assert isinstance(answers[3], kovqa.DataError)
    assert answers[3].message.startswith("question 3: the image cannot be read")
    assert isinstance(answers[1], kovqa.DataError)
    assert answers[1].hint == "fetch it again"
    assert answers[0] == answers[2] == model.answer_many([asked[0], asked[0]])[0]


def test_mistakes_are_errors_of_kovqa(model: kovqa.Model, trained: Path, image: Path, tmp_path: Path) -> None:
    mistakes: list[tuple[Callable[[], object], type[kovqa.KovqaError], str]] = [
        (lambda: model.answer(image, " "), kovqa.SettingsError, "the question is empty"),
        (lambda: model.answer(tmp_path / "x", "?"), kovqa.DataError, "is missing"),
        (lambda: model.answer(image, 3), kovqa.SettingsError, "not a text"),  # type: ignore[arg-type]
        (lambda: model.answer(image, "\ud800"), kovqa.SettingsError, "not a text"),
        (lambda: model.answer("a\0.png", "?"), kovqa.DataError, "holds a NUL"),
        (lambda: model.answer(image, "?", choices="예"), kovqa.SettingsError, "choices='예' is one text"),
        (lambda: kovqa.load(trained, answers="예"), kovqa.SettingsError, "answers='예' is one text"),
        (lambda: model.answer(tmp_path, "?"), kovqa.DataError, "it is a folder"),
        (lambda: model.answer(image, "?", choices=["a", "b"]), kovqa.SettingsError, "reads no choices"),
        (lambda: model.answer(image, "?", context="a"), kovqa.SettingsError, "reads no context"),
        (lambda: model.caption(image), kovqa.ModelError, "was trained for vqa, not for caption"),
        (lambda: kovqa.load(tmp_path), kovqa.ModelError, "no kovqa model in"),
        (lambda: kovqa.load(trained, device="gpu"), kovqa.SettingsError, "there is no such one"),
        (lambda: kovqa.load(trained, device="cuda:64"), kovqa.MachineError, "torch sees"),
        (lambda: kovqa.load(trained, precision="fp8"), kovqa.SettingsError, "fp8"),
        (lambda: model.answer_many([(image, "?")] * 2, batch=-1), kovqa.SettingsError, "batch=-1"),
        (lambda: kovqa.load(trained, beams=0), kovqa.SettingsError, "beams=0"),
        (lambda: kovqa.load(trained, top_k=0), kovqa.SettingsError, "top_k=0"),
        (lambda: kovqa.load(trained, answers=["예"]), kovqa.SettingsError, "answers in one way only"),
    ]
    for mistake, kind, said in mistakes:
        with pytest.raises(kind, match=said):
            mistake()


def test_a_model_that_writes_chooses_where_it_is_given_choices(
    tiny_vlm: Callable[[str], Path], image: Path
) -> None:
    model = kovqa.load(tiny_vlm("qwen3_vl"), precision="fp32", top_k=2)
    chosen = model.answer(image, QUESTION, choices=["빨강", "파랑", "노랑"])
    assert chosen.likeliest[0] == (chosen.text, chosen.score)
    assert len(chosen.likeliest) == 2
    free = model.answer(image, QUESTION)
    assert free.likeliest == ()
    plain = answer_question(image, QUESTION, AnswerOptions(tiny_vlm("qwen3_vl"), precision="fp32")).answer
    assert free == plain, "as if there were no choices to choose among"
    with pytest.raises(kovqa.SettingsError, match="1 choices"):
        model.answer(image, QUESTION, choices=["빨강"])
