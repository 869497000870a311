"""Writes drawn scenes and their questions in the layout of AI-Hub data set 104.

Everything follows from the seed: each picture has a random source of its own, so that the bytes do
not depend on how many processes paint.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.demo.captions import scene_captions
from kovqa_core.demo.questions import DemoQuestion, ask_questions
from kovqa_core.demo.scenes import make_scene, paint_scene
from kovqa_core.files import write_json, write_text

DrawingProgress = Callable[[int, int], None]

LEVEL_BY_COUNT = {1: "하", 2: "하", 3: "중", 4: "상", 5: "상"}  # number of things -> level
DATASET_PARTS = (("train_labels", "train"), ("valid_labels", "validate"))
IMAGES_PER_TASK = 50  # pictures handed to a process at a time
PARALLEL_FROM = 200  # below this starting processes costs more than it saves


@dataclass(frozen=True)
class _DrawJob:
    """One picture to draw: its number over the whole data set, from 1."""

    folder: Path
    number: int
    seed: int
    heldout: bool


@dataclass(frozen=True)
class _DrawnImage:
    """What a painted picture is asked about."""

    number: int
    level: str
    heldout: bool
    questions: tuple[DemoQuestion, ...]
    captions: tuple[str, ...]


def write_demo_dataset(
    folder: Path, train: int, heldout: int, seed: int, progress: DrawingProgress | None = None
) -> None:
    """Draw `train` pictures for training and `heldout` for testing and write them below `folder`.

    `folder` gets `images/`, `labels/`, `captions.jsonl` (every picture's captions) and, for tokenizers,
    `text.txt` and `captions.txt` (training sentences, one a line).
    Held-out pictures are asked about in wordings that no training question uses.  `progress` is
    called with (pictures done, pictures in total).  Files of the same names are replaced.
    Raises ValueError for negative numbers or none at all; OSError or DataError when writing fails.
    """
    if train < 0 or heldout < 0 or train + heldout == 0:
        raise ValueError(f"cannot draw {train} training and {heldout} held-out pictures")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    jobs = [_DrawJob(folder, 1 + i, seed, i >= train) for i in range(train + heldout)]
    drawn = []
    for done, picture in enumerate(_draw_images(jobs), 1):
        drawn.append(picture)
        if progress is not None:
            progress(done, len(jobs))
    _write_labels(folder / "labels", drawn)
    _write_sentences(folder / "text.txt", drawn)
    _write_captions(folder, drawn)


def _draw_images(jobs: Sequence[_DrawJob]) -> Iterator[_DrawnImage]:
    """Draw in order; over several processes when there is enough to do."""
    workers = min(os.cpu_count() or 1, 8)
    if workers == 1 or len(jobs) < PARALLEL_FROM:
        yield from map(_draw_image, jobs)
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(_draw_image, jobs, chunksize=IMAGES_PER_TASK)


def _draw_image(job: _DrawJob) -> _DrawnImage:
    """Paint one picture, store it, and ask about it."""
    rng = random.Random(f"{job.seed}/{job.number}")
    scene = make_scene(rng)
    buffer = io.BytesIO()
    paint_scene(scene).save(buffer, "PNG")
    # A demonstration picture is cheap to make again: no need to write it through a temporary file.
    (job.folder / "images" / f"{_scene_id(job.number)}.png").write_bytes(buffer.getvalue())
    questions = ask_questions(scene, rng, job.heldout)
    return _DrawnImage(
        job.number,
        LEVEL_BY_COUNT[len(scene.things)],
        job.heldout,
        tuple(questions),
        tuple(scene_captions(scene)),
    )


def _scene_id(number: int) -> str:
    return f"장면_{number:05d}"


def _write_labels(folder: Path, drawn: Sequence[_DrawnImage]) -> None:
    """One folder of three files for every part, kind of question and level that occurs."""
    groups: dict[tuple[bool, str, str], list[tuple[int, str, DemoQuestion]]] = defaultdict(list)
    question_id = 0
    for picture in drawn:
        for question in picture.questions:
            question_id += 1
            key = (picture.heldout, question.kind, picture.level)
            groups[key].append((question_id, _scene_id(picture.number), question))
    for (heldout, kind, level), entries in groups.items():
        part, word = DATASET_PARTS[heldout]
        _write_group(folder / part / kind / f"{level}_{word}_{kind}", kind, entries)


def _write_group(folder: Path, kind: str, entries: Sequence[tuple[int, str, DemoQuestion]]) -> None:
    annotations = [
        {
            "question_id": number,
            "image_id": picture,
            "multiple_choice_answer": question.answer,
            "answer_confidence": "yes",
        }
        for number, picture, question in entries
    ]
    questions = [
        {"question_id": number, "image_id": picture, "question": question.question}
        for number, picture, question in entries
    ]
    pictures = dict.fromkeys(picture for _, picture, _ in entries)
    images = [{"image_id": name, "image": f"{name}.png", "category": kind} for name in pictures]
    write_json(folder / "annotation.json", {"annotations": annotations})
    write_json(folder / "question.json", {"questions": questions})
    write_json(folder / "images.json", {"images": images})


def _write_sentences(path: Path, drawn: Sequence[_DrawnImage]) -> None:
    """Training questions and answers, each sentence once, in the order they come up; then all words.

    SentencePiece's unigram trainer only considers pieces that occur in two different words.  Listed
    with a comma, every word does, and a question becomes some 7 pieces instead of 12.
    """
    asked = [question for picture in drawn if not picture.heldout for question in picture.questions]
    sentences = list(dict.fromkeys(text for each in asked for text in (each.question, each.answer)))
    words = list(dict.fromkeys(word.strip(".,?") for text in sentences for word in text.split()))
    lists = [", ".join(words[start : start + 20]) + "," for start in range(0, len(words), 20)]
    write_text(path, "".join(f"{line}\n" for line in sentences + lists))


def _write_captions(folder: Path, drawn: Sequence[_DrawnImage]) -> None:
    rows, sentences = [], dict[str, None]()
    for picture in drawn:
        name = _scene_id(picture.number)
        split = "test" if picture.heldout else "train"
        rows.append({"id": name, "image": f"{name}.png", "captions": picture.captions, "split": split})
        if not picture.heldout:
            sentences.update(dict.fromkeys(picture.captions))
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(folder / "captions.jsonl", "".join(f"{line}\n" for line in lines))
    write_text(folder / "captions.txt", "".join(f"{sentence}\n" for sentence in sentences))
