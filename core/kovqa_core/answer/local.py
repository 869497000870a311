"""A model in this process answers: one question, one image, or the rows of a job."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from kovqa_core.answer.batch_size import choose_batch
from kovqa_core.answer.inference import answer_examples
from kovqa_core.answer.job import (
    AnswerBackend,
    AnsweredRow,
    AnswerJob,
    AnswerOptions,
    ModelAnswer,
    require_question,
)
from kovqa_core.answer.model_fingerprint import model_fingerprint
from kovqa_core.answer.partial_file import RowFault, append_answers, rank_file_path, read_answered_ids
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.answer.workers import WorkerAnswerJob
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions, require_written_answers
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.image_io import open_image
from kovqa_core.data.question_prompts import DEFAULT_CAPTION_INSTRUCTION, no_instruction_hint
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.files import disk_errors, real_path, to_nfc
from kovqa_core.machine.gpu_environment import gpu_environment
from kovqa_core.machine.gpu_settings import loader_workers
from kovqa_core.machine.hardware import APPLE_GPU, find_gpus
from kovqa_core.messages import Message, message
from kovqa_core.models import family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info
from kovqa_core.models.device_memory import release_memory
from kovqa_core.models.load_form import FOUR_BIT_FORM, require_load_form
from kovqa_core.models.precision import (
    choose_precision,
    make_autocast,
    own_precision,
    prepare_answering,
    require_precision,
)
from kovqa_core.models.text_warnings import cut_questions_warning
from kovqa_core.models.unread_columns import unread_columns_warning
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.progress import OnProgress, Progress
from kovqa_core.runs.events import EVENTS_VARIABLE, AnswerProgressEvent, event_line, report_warning
from kovqa_core.runs.folder import find_model_folder
from kovqa_core.runs.step_lease import hold_found_step, read_found_step

_SINGLE_RANK = RankInfo(0, 0, 1)  # rows come divided among processes, where there are several


@dataclass(frozen=True)
class LoadedModel:
    """A model on its device, what makes batches for it, and its step folder.

    The folder is not read again: a training beside it may have removed it.

    Attributes:
        info: of its checkpoint.
        precision: what it computes in.
        autocast: context of its forward passes.
        decoding: how it answers.
        in_use: held by the thread that asks it: a network answers one call at a time.
    """

    folder: Path
    info: CheckpointInfo
    model: family.FamilyModel
    processor: ExampleProcessor
    device: torch.device
    precision: str
    autocast: Callable[[], AbstractContextManager[object]]
    decoding: DecodingOptions = GREEDY_DECODING
    in_use: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)


def load_model(options: AnswerOptions, device: torch.device | None = None) -> LoadedModel:
    """Load the model that answers.

    Args:
        options: which one, and how it answers.
        device: None: this machine's GPU if it has one, else its CPU.

    Raises:
        ModelError: no model, or one for another task.
        SettingsError: decoding the model cannot do; a precision that does not exist; it has no likeliest answers.
    """
    asked = require_precision(options.precision)
    load_options = family.LoadOptions(
        trust_remote_code=options.trust_remote_code,
        fp32=asked == "fp32",
        four_bit=require_load_form(options.load) == FOUR_BIT_FORM,
    )

    def read(folder: Path) -> tuple[Path, CheckpointInfo, family.FamilyModel, ExampleProcessor]:
        info = read_checkpoint_info(folder)
        model, processor = family.read_model_folder(
            folder, options.task, load_options, options.decoding, options.num_beams, options.top_k
        )
        return folder, _set_prompt(info, model, processor, options), model, processor

    folder, info, model, processor = read_found_step(
        partial(find_model_folder, options.model, options.task), read
    )
    device = device or _local_device()
    own = own_precision(folder)
    precision = choose_precision(asked, own, device)
    if precision != own or device.type == "cuda":
        prepare_answering(model, precision, device)
    model.to(device)
    # A model that computes in it by itself needs nothing around it.
    autocast = nullcontext if precision == own else partial(make_autocast, precision, device)
    return LoadedModel(folder, info, model, processor, device, precision, autocast, options.decoding)


def _set_prompt(
    info: CheckpointInfo, model: family.FamilyModel, processor: ExampleProcessor, options: AnswerOptions
) -> CheckpointInfo:
    """Have a model asked as the options say, for captions too, where that is the task; what it does from now on.

    Raises:
        SettingsError: an instruction, or a length, for a model that writes no text, or for answers that are chosen.
    """
    chosen, asks_for_captions = family.load_family(info.family), family.asks_for_captions(info, options.task)
    if asks_for_captions and chosen.ask_for_captions is not None:
        chosen.ask_for_captions(model, processor, options.instruction or DEFAULT_CAPTION_INSTRUCTION)
    require_written_answers(options.decoding, options.max_new_tokens)
    if options.instruction is not None or options.max_new_tokens is not None:
        if chosen.set_prompt is None:
            raise SettingsError(
                message(
                    "answer.no-instruction",
                    "a model of family {family} takes no instruction, and its texts have the length it was made for",
                    family=info.family,
                ),
                no_instruction_hint(),
            )
        chosen.set_prompt(
            model, processor, None if asks_for_captions else options.instruction, options.max_new_tokens
        )
    if asks_for_captions and info.recipe is not None:
        report_warning(
            message(
                "answer.caption-by-instruction",
                "this model was trained to answer questions (recipe {recipe}): its captions may be as short as its answers",
                recipe=info.recipe,
            )
        )
    return replace(info, task="caption") if asks_for_captions else info


def _local_device() -> torch.device:
    """This machine's GPU if torch sees one, else its CPU, with no more threads than a container leaves to us."""
    # Read when CUDA starts, which is now.
    os.environ.update(gpu_environment(os.environ))
    if torch.cuda.is_available():
        return torch.device("cuda")
    if "OMP_NUM_THREADS" not in os.environ:  # torch counts the machine's cores, and knows no quota
        torch.set_num_threads(min(torch.get_num_threads(), usable_cpu_count()))
    return torch.device("cpu")


def cpu_warning() -> Message | None:
    """Why a model here runs on the CPU though the machine has, or should have, an NVIDIA GPU; None where it does not."""
    if _local_device().type == "cuda":
        return None
    found = find_gpus()
    if found.gpus and found.gpus[0].name != APPLE_GPU:
        return message(
            "answer.torch-sees-no-gpu",
            "torch {version} sees no GPU, though {gpu} is here: the model runs on the CPU (see kovqa doctor --deep)",
            version=torch.__version__,
            gpu=found.gpus[0].name,
        )
    if found.problems:
        return message(
            "answer.runs-on-cpu", "the model runs on the CPU: {problem}", problem=found.problems[0]
        )
    return None


def answer_one_image(loaded: LoadedModel, image: Path, question: str = "") -> Answer:
    """The answer to one question about an image, or its caption.

    Raises:
        DataError: the image cannot be read.
    """
    example = Example("", str(real_path(image)), to_nfc(question))
    warn_of_unread_texts(loaded, [example])
    (_, answer), *_ = _answer_batches(loaded, [example], Path("/"), 1)
    return answer


def warn_of_unread_texts(loaded: LoadedModel, examples: Sequence[Example]) -> None:
    """Say how many questions were longer than the model reads, or had texts it is not shown; captions have none."""
    info = loaded.info
    if info.task != "vqa":
        return
    columns = family.load_family(info.family).prompt_columns
    unread = unread_columns_warning(
        message("answer.this-model", "this model ({family})", family=info.family),
        columns(loaded.processor) if columns else (),
        examples,
    )
    cut = cut_questions_warning(info.family, loaded.processor, examples)
    foreign = _foreign_choices_warning(loaded, examples) if loaded.decoding.choices else None
    for warning in filter(None, (unread, cut, foreign)):
        report_warning(warning)


def _foreign_choices_warning(loaded: LoadedModel, examples: Sequence[Example]) -> Message | None:
    count = family.load_family(loaded.info.family).count_foreign_choices
    rows = count(loaded.processor, examples) if count else 0
    if not rows:
        return None
    return message(
        "answer.foreign-choices",
        "{rows:,} rows have choices that are not answers of the model: it cannot give these",
        rows=rows,
    )


def answer_question(image: Path, question: str, options: AnswerOptions) -> ModelAnswer:
    """Answer one question; raises as `load_model` and `answer_one_image`."""
    require_question(question)
    loaded = load_model(options)
    return ModelAnswer(answer_one_image(loaded, image, question), loaded.folder, loaded.precision)


def caption_image(image: Path, options: AnswerOptions) -> ModelAnswer:
    """Caption one image; raises as `load_model` and `answer_one_image`."""
    loaded = load_model(options)
    return ModelAnswer(answer_one_image(loaded, image), loaded.folder, loaded.precision)


def check_image(image: Path) -> Path:
    """The path of an image that can be opened; a `DataError` if it cannot."""
    open_image(image)
    return image


# ------------------------------------------------------------------------------- rows of a job

LoadModel = Callable[[AnswerOptions], LoadedModel]


def keep_last_model() -> LoadModel:
    """A `load_model` that keeps its last model for the next table; two, which may not fit into memory, are never there."""
    kept: dict[AnswerOptions, LoadedModel] = {}

    def load(options: AnswerOptions) -> LoadedModel:
        if options not in kept:
            kept.clear()
            release_memory(_local_device())
            kept[options] = load_model(options)
        return kept[options]

    return load


def local_backend(options: AnswerOptions, load: LoadModel = load_model) -> AnswerBackend:
    """A back end that loads the model here, once there are rows to answer.

    Args:
        options: which model answers, and how.
        load: how it is loaded; see `keep_last_model`.

    Raises:
        ModelError: there is no such model.
    """
    # Until the model is read: a training beside it may be removing step folders.
    hold = contextlib.ExitStack()
    folder = hold.enter_context(hold_found_step(partial(find_model_folder, options.model, options.task)))
    precision = choose_precision(options.precision, own_precision(folder), _local_device())
    fingerprint = model_fingerprint(folder, replace(options, precision=precision))
    return AnswerBackend(folder, fingerprint, partial(_answer_rows, folder, precision, hold, load), precision)


def _answer_rows(
    folder: Path,
    precision: str,
    hold: contextlib.ExitStack,
    load: LoadModel,
    job: AnswerJob,
    rows: Sequence[QuestionRow],
    on_progress: OnProgress,
) -> Iterator[AnsweredRow]:
    examples = [row.example for row in rows]
    faults: dict[int, DataError] = {}
    with hold:
        loaded = load(replace(job.options, model=folder, precision=precision))
    answers = _answer_batches(
        loaded, examples, job.image_folder, job.batch, faults.__setitem__, job.options.decoding
    )
    yield from with_faults(rows, answers, faults)
    warn_of_unread_texts(loaded, examples)


def with_faults(
    rows: Sequence[QuestionRow], answers: Iterator[tuple[int, Answer]], faults: dict[int, DataError]
) -> Iterator[AnsweredRow]:
    """Answers of rows, and after each batch those of its rows that have none.

    Args:
        rows: that are answered.
        answers: by number of the row.
        faults: filled meanwhile: what is wrong with a row, by its number; emptied.
    """
    for number, answer in answers:
        yield from _take_faults(rows, faults)
        yield rows[number], answer
    yield from _take_faults(rows, faults)


def _take_faults(rows: Sequence[QuestionRow], faults: dict[int, DataError]) -> Iterator[AnsweredRow]:
    for number in list(faults):
        yield rows[number], RowFault.of_error(faults.pop(number))


def _answer_batches(
    loaded: LoadedModel,
    examples: list[Example],
    image_folder: Path,
    batch: int | None,
    on_fault: Callable[[int, DataError], None] | None = None,
    decoding: DecodingOptions = GREEDY_DECODING,
) -> Iterator[tuple[int, Answer]]:
    # A GPU is fed by loader processes; on a CPU the model itself needs the cores.
    workers = loader_workers(usable_cpu_count(), 1) if loaded.device.type == "cuda" else 0
    batch = batch or _choose_batch(loaded, len(examples), workers, decoding)
    workers = workers if len(examples) > batch else 0
    return answer_examples(
        loaded.model, loaded.processor, examples, image_folder, _SINGLE_RANK, loaded.device, batch, workers,
        loaded.autocast, on_fault=on_fault,
    )  # fmt: skip


def _choose_batch(loaded: LoadedModel, rows: int, workers: int, decoding: DecodingOptions) -> int:
    return choose_batch(loaded.folder, loaded.info, loaded.device, loaded.precision, rows, workers, decoding)


# --------------------------------------------------------------------- one process of a profile


def answer_rank_rows(
    worker_job: WorkerAnswerJob, rank: RankInfo, device: torch.device, stop: Callable[[], bool]
) -> None:
    """Answer every world-th of the rows that are left, into a file of this process alone.

    Args:
        worker_job: what is answered.
        rank: place of this process.
        device: its own.
        stop: checked after every row.
    """
    job = worker_job.job
    rows = job.read_rows()
    answered_ids = read_answered_ids(job.partial_file)
    # All processes see the same rows here: the partial file does not change while they run.
    remaining = [row for row in rows if row.example.id not in answered_ids]
    rank_file = rank_file_path(job.partial_file, rank.rank)
    own_ids = read_answered_ids(rank_file)  # torchrun started this process again after a failure
    rank_rows = [row for row in remaining[rank.rank :: rank.world_size] if row.example.id not in own_ids]
    if not rank_rows:
        return
    loaded = load_model(job.options, device)
    on_progress = partial(_print_rank_progress, rank, len(rows), len(remaining))
    faults: dict[int, DataError] = {}
    workers = worker_job.profile.loader_workers
    batch = job.batch or _choose_batch(loaded, len(rank_rows), workers, job.options.decoding)
    answers = answer_examples(
        loaded.model, loaded.processor, [row.example for row in rank_rows], job.image_folder, _SINGLE_RANK, device,
        batch, workers, loaded.autocast, on_progress=on_progress, on_fault=faults.__setitem__,
    )  # fmt: skip
    rows_and_answers = with_faults(rank_rows, answers, faults)
    with disk_errors(rank_file):
        for _ in append_answers(rank_file, rows_and_answers, job.options.task, own_ids, job.image_folder):
            if stop():
                return
    if rank.is_main_process:  # for all of them
        warn_of_unread_texts(loaded, [row.example for row in remaining])


def _print_rank_progress(rank: RankInfo, rows: int, remaining: int, progress: Progress) -> None:
    """An event for the launcher: all processes are about as far as this one."""
    if rank.is_main_process and os.environ.get(EVENTS_VARIABLE) and progress.fraction_done is not None:
        answered = rows - int(remaining * (1 - progress.fraction_done))
        print(event_line(AnswerProgressEvent(answered, rows)), flush=True)
