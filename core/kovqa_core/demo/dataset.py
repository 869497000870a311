"""Writes drawn scenes and their questions in the layout of AI-Hub data set 104.

Everything follows from the seed: each image has a random source of its own, so that the bytes do
not depend on how many processes paint.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.demo.captions import scene_captions
from kovqa_core.demo.questions import DemoQuestion, ask_questions
from kovqa_core.demo.scenes import make_scene, paint_scene
from kovqa_core.files import atomic_file, write_json, write_text
from kovqa_core.messages import message
from kovqa_core.process_pool import (
    end_pool,
    outlive_signals,
    shared_memory_errors,
    signals_blocked,
    usable_cpu_count,
)
from kovqa_core.progress import OnProgress, Progress, ignore_progress

LEVEL_BY_COUNT = {1: "하", 2: "하", 3: "중", 4: "상", 5: "상"}  # number of things -> level
SPLIT_FOLDERS = (("train_labels", "train"), ("valid_labels", "validate"))  # of training, of held-out images
IMAGES_PER_TASK = 50  # images handed to a process at a time
PARALLEL_FROM = 200  # below this starting processes costs more than it saves


@dataclass(frozen=True)
class _DrawJob:
    """One image to draw: its number over the whole data set, from 1."""

    folder: Path
    number: int
    seed: int
    heldout: bool


@dataclass(frozen=True)
class _DrawnImage:
    """What a painted image is asked about."""

    number: int
    level: str
    heldout: bool
    questions: tuple[DemoQuestion, ...]
    captions: tuple[str, ...]


def write_demo_dataset(
    folder: Path, train: int, heldout: int, seed: int, on_progress: OnProgress = ignore_progress
) -> None:
    """Draw `train` images for training and `heldout` for testing and write them below `folder`.

    `folder` gets `images/`, `labels/`, `captions.jsonl` (every image's captions) and, for tokenizers,
    `text.txt` and `captions.txt` (training sentences, one a line). Held-out images are asked about in
    wordings that no training question uses. Files of the same names are replaced.

    Raises:
        ValueError: a negative number of images, or none at all.
        SettingsError: the folder cannot be written.
        MachineError: the disk is full.
    """
    if train < 0 or heldout < 0 or train + heldout == 0:
        raise ValueError(f"cannot draw {train} training and {heldout} held-out images")
    drawn = _draw_into(
        folder, [_DrawJob(folder, 1 + i, seed, i >= train) for i in range(train + heldout)], on_progress
    )
    _write_labels(folder / "labels", drawn)
    _write_sentences(folder / "text.txt", drawn)
    _write_captions(folder, drawn)


def write_demo_table(
    folder: Path, images: int, new_images: int, seed: int, on_progress: OnProgress = ignore_progress
) -> tuple[Path, Path]:
    """Draw images and write their questions as people have them: a table for Excel beside a folder of images.

    `folder` gets `images/`, `questions.csv` (columns 사진, 질문, 정답) of the first `images`, and `new.csv` of the others,
    without answers. Files of the same names are replaced.

    Returns:
        Both tables.

    Raises:
        SettingsError: the folder cannot be written.
        MachineError: the disk is full.
    """
    drawn = _draw_into(
        folder, [_DrawJob(folder, 1 + i, seed, False) for i in range(images + new_images)], on_progress
    )
    known, new = folder / "questions.csv", folder / "new.csv"
    _write_table(known, ("사진", "질문", "정답"), drawn[:images])
    _write_table(new, ("사진", "질문"), drawn[images:])
    return known, new


def _draw_into(folder: Path, jobs: Sequence[_DrawJob], on_progress: OnProgress) -> list[_DrawnImage]:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    stage = message("demo.drawing", "drawing")
    drawn = []
    for image in _draw_images(jobs):
        drawn.append(image)
        on_progress(Progress(stage, len(drawn), len(jobs), "images"))
    return drawn


def _draw_images(jobs: Sequence[_DrawJob]) -> Iterator[_DrawnImage]:
    """Draw in order; over several processes when there is enough to do."""
    workers = min(usable_cpu_count(), 8)
    if workers == 1 or len(jobs) < PARALLEL_FROM:
        yield from map(_draw_image, jobs)
        return
    spawn = multiprocessing.get_context("spawn")  # see `process_pool.parallel_map`
    with shared_memory_errors():
        executor = ProcessPoolExecutor(workers, spawn, outlive_signals)
    with executor as pool:
        with signals_blocked():  # the calls start the processes
            drawn = pool.map(_draw_image, jobs, chunksize=IMAGES_PER_TASK)
        try:
            yield from drawn
        except BaseException:
            end_pool(pool)
            raise


def _draw_image(job: _DrawJob) -> _DrawnImage:
    """Paint one image, store it, and ask about it."""
    rng = random.Random(f"{job.seed}/{job.number}")
    scene = make_scene(rng)
    buffer = io.BytesIO()
    paint_scene(scene).save(buffer, "PNG")
    path = job.folder / "images" / f"{_scene_id(job.number)}.png"
    # One that is there is not written again: a demo that runs may be reading it.
    if not path.is_file() or path.read_bytes() != buffer.getvalue():
        with atomic_file(path) as stream:
            stream.write(buffer.getvalue())
    questions = ask_questions(scene, rng, heldout=job.heldout)
    return _DrawnImage(
        job.number,
        LEVEL_BY_COUNT[len(scene.things)],
        job.heldout,
        tuple(questions),
        tuple(scene_captions(scene)),
    )


def _scene_id(number: int) -> str:
    return f"장면_{number:05d}"


def _write_table(path: Path, columns: Sequence[str], drawn: Sequence[_DrawnImage]) -> None:
    """A row a question; UTF-8 with BOM, by which Excel knows it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for image in drawn:
        for each in image.questions:
            row = (f"{_scene_id(image.number)}.png", each.question, each.answer)
            writer.writerow(row[: len(columns)])
    write_text(path, "\ufeff" + text.getvalue())


def _write_labels(folder: Path, drawn: Sequence[_DrawnImage]) -> None:
    """One folder of three files for every split, type of question and level that occurs."""
    groups: dict[tuple[bool, str, str], list[tuple[int, str, DemoQuestion]]] = defaultdict(list)
    question_id = 0
    for image in drawn:
        for question in image.questions:
            question_id += 1
            key = (image.heldout, question.question_type, image.level)
            groups[key].append((question_id, _scene_id(image.number), question))
    for (heldout, question_type, level), entries in groups.items():
        split_folder, suffix = SPLIT_FOLDERS[heldout]
        path = folder / split_folder / question_type / f"{level}_{suffix}_{question_type}"
        _write_group(path, question_type, entries)


def _write_group(folder: Path, question_type: str, entries: Sequence[tuple[int, str, DemoQuestion]]) -> None:
    annotations = [
        {
            "question_id": number,
            "image_id": image_id,
            "multiple_choice_answer": question.answer,
            "answer_confidence": "yes",
        }
        for number, image_id, question in entries
    ]
    questions = [
        {"question_id": number, "image_id": image_id, "question": question.question}
        for number, image_id, question in entries
    ]
    image_ids = dict.fromkeys(image_id for _, image_id, _ in entries)
    images = [{"image_id": name, "image": f"{name}.png", "category": question_type} for name in image_ids]
    write_json(folder / "annotation.json", {"annotations": annotations})
    write_json(folder / "question.json", {"questions": questions})
    write_json(folder / "images.json", {"images": images})


def _write_sentences(path: Path, drawn: Sequence[_DrawnImage]) -> None:
    """Training questions and answers, each sentence once, in the order they come up; then all words.

    SentencePiece's unigram trainer only considers tokens that occur in two different words. Listed
    with a comma, every word does, and a question becomes some 7 tokens instead of 12.
    """
    questions = [question for image in drawn if not image.heldout for question in image.questions]
    sentences = list(dict.fromkeys(text for each in questions for text in (each.question, each.answer)))
    words = list(dict.fromkeys(word.strip(".,?") for text in sentences for word in text.split()))
    lists = [", ".join(words[start : start + 20]) + "," for start in range(0, len(words), 20)]
    write_text(path, "".join(f"{line}\n" for line in sentences + lists))


def _write_captions(folder: Path, drawn: Sequence[_DrawnImage]) -> None:
    rows, sentences = [], dict[str, None]()
    for image in drawn:
        name = _scene_id(image.number)
        split = "test" if image.heldout else "train"
        rows.append({"id": name, "image": f"{name}.png", "captions": image.captions, "split": split})
        if not image.heldout:
            sentences.update(dict.fromkeys(image.captions))
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(folder / "captions.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(folder / "captions.txt", "".join(f"{sentence}\n" for sentence in sentences))
