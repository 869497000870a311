"""Questions by themselves, of a server or a program: from files and from memory, with the likeliest answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kovqa_core.answer.ask_model import ImageQuestion, ask_model
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import LoadedModel, answer_one_image, load_model
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.decoding import DecodingOptions
from kovqa_core.data.example import Answer
from kovqa_core.errors import SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models.class_answers import begin_class_answers

from tests.answer.conftest import AnswerFolder
from tests.conftest import Small

COLOURS = ("빨강", "파랑", "노랑")


def questions(small: Small, *, in_memory: bool, count: int = 5) -> list[ImageQuestion]:
    index = open_index(small.index)
    rows = list(index.split("val"))[:count]
    paths = [index.images / row.image for row in rows]
    images = [path.read_bytes() if in_memory else path for path in paths]
    return [
        ImageQuestion(image, row.question, choices=COLOURS) for image, row in zip(images, rows, strict=True)
    ]


def options(name: str, folder: Path, top_k: int = 1) -> AnswerOptions:
    decoding = DecodingOptions(choices=True) if name == "vlm" and top_k > 1 else DecodingOptions()
    # In 16 bits, a vision language model's own, neighbours in a batch would change the last digits.
    return AnswerOptions(
        folder, "caption" if name == "caption" else "vqa", decoding, top_k=top_k, precision="fp32"
    )


@pytest.mark.parametrize("name", ["beit3", "caption", "fusion", "vlm"])
def test_images_in_memory_are_answered_as_files_are(
    name: str, answer_folder: AnswerFolder, small: Small, tmp_path: Path
) -> None:
    loaded = load_model(options(name, answer_folder(name)))
    asked = questions(small, in_memory=False)
    answers = ask_model(loaded, asked)
    from_memory = questions(small, in_memory=True)
    assert ask_model(loaded, from_memory) == answers
    one_by_one = [answer_one_image(loaded, Path(str(q.image)), q.question) for q in asked]
    for answer, alone in zip(answers, one_by_one, strict=True):
        assert isinstance(answer, Answer)
        assert answer.text == alone.text
        assert answer.score == pytest.approx(alone.score, abs=1e-5)
        assert 0 <= answer.score <= 1, "how sure it is, of every family"
        assert answer.likeliest == ()

    damaged = [ImageQuestion(image, "무엇?") for image in (b"", b"<html>", tmp_path / "nix.png")]
    mixed = ask_model(loaded, [damaged[0], from_memory[0], *damaged[1:], from_memory[1]], batch=3)
    assert [isinstance(each, RowFault) for each in mixed] == [True, False, True, True, False]
    problems = [each.problem for each in mixed if isinstance(each, RowFault)]
    assert problems[0].startswith("image of 0 bytes cannot be read (it is empty")
    assert problems[1].startswith("image of 6 bytes cannot be read (it is an HTML page")
    assert problems[2] == f"image {tmp_path / 'nix.png'} is missing"
    assert [each.text for each in mixed if isinstance(each, Answer)] == [a.text for a in one_by_one[:2]]
    if name != "caption":
        long, short = ask_model(
            loaded, [replace(from_memory[0], question="무엇이 있나요? " * 500), from_memory[0]]
        )
        assert isinstance(long, Answer) and isinstance(short, Answer)
        assert (long.is_cut, short.is_cut) == (name != "vlm", False), "a vlm reads all of it"
        (empty,) = ask_model(loaded, [replace(from_memory[0], question=" \n")])
        assert isinstance(empty, RowFault)
        assert empty.problem == "the question is empty"


def test_several_threads_ask_one_model_and_a_file_is_read_anew(
    trained: Path, small: Small, tmp_path: Path
) -> None:
    loaded = load_model(AnswerOptions(trained))
    asked = questions(small, in_memory=True, count=9)
    alone = [ask_model(loaded, [question])[0] for question in asked]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda question: ask_model(loaded, [question])[0], asked * 4)) == alone * 4
    file = tmp_path / "x.png"
    for image, answer in zip(asked, alone, strict=True):
        file.write_bytes(bytes(image.image))  # type: ignore[arg-type]  # in memory
        assert ask_model(loaded, [replace(image, image=file)]) == [answer]
    assert not loaded.processor._images._cache, "a server does not grow"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["beit3", "fusion", "vlm"])
def test_the_likeliest_begin_with_the_answer_and_leave_it_as_it_is(
    name: str, answer_folder: AnswerFolder, small: Small
) -> None:
    folder, asked = answer_folder(name), questions(small, in_memory=True)
    one, five, all_ = (ask(load_model(options(name, folder, top_k)), asked) for top_k in (1, 5, 10**6))
    if name == "vlm":  # its list is that of the row
        one = ask(load_model(replace(options(name, folder), decoding=DecodingOptions(choices=True))), asked)
    most = 3 if name == "vlm" else len(open_index(small.index).answers())
    for answer, some, every in zip(one, five, all_, strict=True):
        assert (some.text, some.score) == (answer.text, answer.score) == tuple(some.likeliest[0])
        scores = [score for _, score in every.likeliest]
        assert scores == sorted(scores, reverse=True)
        assert (len(some.likeliest), len(every.likeliest)) == (min(5, most), most)
        assert [text for text, _ in some.likeliest] == [text for text, _ in every.likeliest[:5]]
        assert [score for _, score in some.likeliest] == pytest.approx(scores[:5], abs=1e-6)
        assert len(dict(every.likeliest)) == most
        if name != "beit3":  # sigmoids do not sum up to anything
            assert sum(scores) == pytest.approx(1, abs=1e-5)


def ask(loaded: LoadedModel, asked: Sequence[ImageQuestion]) -> list[Answer]:
    answers = ask_model(loaded, asked)
    return [answer for answer in answers if isinstance(answer, Answer)]


@pytest.mark.parametrize("listed", [1, 3, 12])
def test_of_a_closed_list_the_search_knows_the_likeliest(
    listed: int, tiny_vlm: Callable[[str], Path], small: Small
) -> None:
    answers = tuple(f"{colour} {n}" for n in range(4) for colour in COLOURS)[:listed]
    loaded = load_model(AnswerOptions(tiny_vlm("qwen3_vl"), decoding=DecodingOptions(answers), top_k=20))
    plain = load_model(AnswerOptions(tiny_vlm("qwen3_vl"), decoding=DecodingOptions(answers)))
    for answer, best in zip(
        ask(loaded, questions(small, in_memory=True, count=2)),
        ask(plain, questions(small, in_memory=True, count=2)),
        strict=True,
    ):
        assert (answer.text, answer.score) == (best.text, best.score) == tuple(answer.likeliest[0])
        assert len(answer.likeliest) == min(listed, 8), "as many as it follows beams"
        assert set(dict(answer.likeliest)) <= set(answers)


def test_who_has_one_answer_says_so(answer_folder: AnswerFolder) -> None:
    with pytest.raises(SettingsError, match=r"a captioner gives one answer.*\nleave out --top-k"):
        load_model(AnswerOptions(answer_folder("caption"), "caption", top_k=2))
    for decoding in (DecodingOptions(), DecodingOptions(temperature=0.7)):
        with pytest.raises(
            SettingsError, match=r"writes freely gives one answer.*\n.*--answers FILE or --choices"
        ):
            load_model(AnswerOptions(answer_folder("vlm"), decoding=decoding, top_k=2))


def test_of_equal_classes_the_answer_stays_the_first() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0, 3.0]])
    names = ["a", "b", "c", "d", "e"]
    for top_k in (2, 3, 9):
        answers = begin_class_answers(names, logits, torch.sigmoid, top_k)()
        plain = begin_class_answers(names, logits, torch.sigmoid)()
        assert [a.text for a in answers] == [a.text for a in plain]
        assert all(a.likeliest[0] == (a.text, a.score) for a in answers)
        assert all(len(dict(a.likeliest)) == min(top_k, 5) for a in answers)
