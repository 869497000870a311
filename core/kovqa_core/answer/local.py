"""One question or caption, or a whole table with ids, written as it goes and taken up where it stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from kovqa_core.answer.inference import answer_examples
from kovqa_core.answer.partial_file import (
    begin_partial_file,
    finish_partial_file,
    partial_file_path,
    rank_file_path,
    read_answered_ids,
)
from kovqa_core.answer.question_rows import question_image_folder, select_question_rows
from kovqa_core.answer.workers import TableJob
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.data.example import Answer, Example, prediction_line
from kovqa_core.data.image_io import open_image
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import SettingsError
from kovqa_core.files import disk_errors, to_nfc
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.runs.events import EVENTS_VARIABLE
from kovqa_core.runs.folder import find_model_folder

_SINGLE_RANK = RankInfo(0, 0, 1)
_ANSWER_LOADER_WORKERS = 12  # as many as the profiles of large GPUs have
AskFunction = Callable[[Path, str], Answer]
RowProgress = Callable[[int, int], None]


def answer_question(
    image: Path,
    question: str,
    model: Path | None,
    decoding: DecodingOptions = GREEDY_DECODING,
    trust_remote_code: bool = False,
) -> tuple[Answer, Path]:
    """Answer one question; the answer, and the step folder that gave it."""
    if not question.strip():
        raise SettingsError("the question is empty", "kovqa predict -i x.png --question '무엇인가요?'")
    ask, folder = open_question_model(model, decoding, trust_remote_code)
    return ask(image, question), folder


def open_question_model(
    model: Path | None, decoding: DecodingOptions = GREEDY_DECODING, trust_remote_code: bool = False
) -> tuple[AskFunction, Path]:
    """A model, read once, that answers questions about pictures; and its step folder."""
    folder = find_model_folder(model, "vqa")
    model_ready = load_on_device(folder, "vqa", decoding=decoding, trust_remote_code=trust_remote_code)

    def ask(image: Path, question: str) -> Answer:
        rows = [Example("1", str(image.resolve()), to_nfc(question))]
        (_, answer), *_ = _iterate_answers(model_ready, rows, Path("/"), 1)
        return answer

    return ask, folder


def check_image(image: Path) -> Path:
    """The picture, which can be opened; a `DataError` if not."""
    open_image(image)
    return image


def caption_image(image: Path, model: Path | None, beams: int | None = None) -> tuple[Answer, Path]:
    """Caption one picture; the caption, and the step folder that gave it."""
    folder = find_model_folder(model, "caption")
    rows = [Example("1", str(image.resolve()), "")]
    (_, caption), *_ = _iterate_answers(load_on_device(folder, "caption", beams), rows, Path("/"), 1)
    return caption, folder


def answer_table(
    table: Path,
    images: Path | None,
    output: Path,
    model: Path | None,
    batch: int,
    progress: RowProgress | None,
    task: str = "vqa",
    beams: int | None = None,
    kinds: Sequence[str] = (),
    decoding: DecodingOptions = GREEDY_DECODING,
    trust_remote_code: bool = False,
) -> tuple[int, Path]:
    """Answer or caption every row of a table; (number of rows, step folder that did).

    Rows are appended to `OUTPUT.part` as they are answered; run again, the rest is done. The file
    takes its name when the last row is there. Unknown columns are carried over.

    Args:
        table: an index split or any table; for captions also a folder of pictures.
        images: where picture paths start; None: as the index says, else beside the table.
        output: predictions file.
        model: run or step folder; None: the newest finished run for the task.
        batch: rows at once.
        progress: called with (rows done, rows in total).
        task: "vqa" or "caption".
        beams: captions followed at once; None: as the model was made.
        kinds: only rows of these kinds; none or "all": every row.
        decoding: how a model that writes freely is to answer.
        trust_remote_code: see `models.family.LoadOptions`.

    Raises:
        DataError: a row without id, picture or question, an id twice; a picture that cannot be read.
        SettingsError: a part of other answers lies there; a kind the table does not have; a way to
            answer the model does not have.
    """
    folder, part = find_model_folder(model, task), partial_file_path(output)
    rows, root = select_question_rows(table, task, kinds, decoding), question_image_folder(table, images)
    with disk_errors(output):
        done = begin_partial_file(part, folder, table, rows, beams, decoding)
        left = [row for row in rows if row.example.id not in done]
        examples = [row.example for row in left]
        told = (lambda n, _: progress(len(done) + n, len(rows))) if progress else None
        answers: Iterator[tuple[int, Answer]] = iter(())
        if left:
            model_ready = load_on_device(folder, task, beams, decoding, trust_remote_code=trust_remote_code)
            answers = _iterate_answers(model_ready, examples, root, batch, told)
        with part.open("a", encoding="utf-8") as stream:
            for number, answer in answers:
                row = left[number]
                stream.write(prediction_line(row.example.id, answer, row.carried, task) + "\n")
                stream.flush()
        finish_partial_file(part, output, (row.example.id for row in rows))
    return len(rows), folder


class _LoadedModel(NamedTuple):
    """A model in its place, and what feeds it."""

    model: family.FamilyModel
    processor: ExampleProcessor
    device: torch.device


def load_on_device(
    folder: Path,
    task: str,
    beams: int | None = None,
    decoding: DecodingOptions = GREEDY_DECODING,
    device: torch.device | None = None,
    trust_remote_code: bool = False,
) -> _LoadedModel:
    """A step folder's model on a device (None: this machine's GPU if it has one), and its processor."""
    options = family.LoadOptions(trust_remote_code=trust_remote_code)
    model, processor = family.read_model_folder(folder, task, options, decoding, beams)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    return _LoadedModel(model, processor, device)


def _iterate_answers(
    model_ready: _LoadedModel,
    rows: list[Example],
    images: Path,
    batch: int,
    progress: RowProgress | None = None,
) -> Iterator[tuple[int, Answer]]:
    model, processor, device = model_ready
    # A GPU is fed by processes of their own; on a CPU the model itself needs the cores.
    workers = (
        min(usable_cpu_count() - 1, _ANSWER_LOADER_WORKERS)
        if device.type == "cuda" and len(rows) > batch
        else 0
    )
    return answer_examples(
        model, processor, rows, images, _SINGLE_RANK, device, batch, workers, progress=progress
    )


# ------------------------------------------------------------------------- one process of several


def answer_rank_rows(job: TableJob, rank: RankInfo, device: torch.device, stop: Callable[[], bool]) -> None:
    """Answer every world-th of the rows that are left, into a file of this process alone.

    Args:
        job: what is answered.
        rank: place of this process.
        device: its own.
        stop: asked after every row.
    """
    rows, before = (
        select_question_rows(job.table, "vqa", job.kinds, job.decoding),
        read_answered_ids(job.part),
    )
    left = [row for row in rows if row.example.id not in before]
    share = rank_file_path(job.part, rank.rank)
    own = read_answered_ids(share)  # torchrun began this process again
    mine = [row for row in left[rank.rank :: rank.world_size] if row.example.id not in own]
    if not mine:
        return

    def told(done: int, of: int) -> None:
        """All are about as far as this one."""
        if rank.is_main_process and os.environ.get(EVENTS_VARIABLE):
            event = {"kind": "progress", "done": len(rows) - len(left) * (of - done) // of, "of": len(rows)}
            print(json.dumps(event), flush=True)

    model, processor, _ = load_on_device(job.model, "vqa", None, job.decoding, device, job.trust_remote_code)
    answers = answer_examples(
        model, processor, [row.example for row in mine], job.images, _SINGLE_RANK, device, job.batch,
        job.profile.loader_workers, progress=told,
    )  # fmt: skip
    with disk_errors(share), share.open("a", encoding="utf-8") as stream:
        for number, answer in answers:
            row = mine[number]
            stream.write(prediction_line(row.example.id, answer, row.carried) + "\n")
            stream.flush()
            if stop():
                return
