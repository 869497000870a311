"""One answering job: the rows of a table become the lines of a predictions file, whatever answers them.

    back end          what answers                            module
    local_backend     a model in this process                 local.py
    worker_backend    the processes of a profile              workers.py
    server_backend    a model that a server of its own holds  remote_client.py

All three go through `run_answer_job`, so that an answer once given is never lost and never asked for again.
Nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from kovqa_core.answer.abstain import require_unknown_choices
from kovqa_core.answer.folder_images import rows_from_images
from kovqa_core.answer.partial_file import (
    PARTIAL_SUFFIX,
    RowFault,
    append_answers,
    fingerprint_path,
    finish_partial_file,
    merge_rank_files,
    partial_file_path,
    read_faults,
    resume_partial_file,
)
from kovqa_core.answer.question_rows import QuestionRow, notes_of, question_image_folder, select_question_rows
from kovqa_core.answer.row_digest import digest_row
from kovqa_core.answer.table_fingerprint import table_fingerprint
from kovqa_core.answer.table_images import unpack_table_images
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions
from kovqa_core.data.example import Answer
from kovqa_core.data.image_source import has_image_file
from kovqa_core.data.left_out import are_too_many, too_many_left_out
from kovqa_core.data.write_tables import require_list_fits, require_table_fits, require_table_format
from kovqa_core.errors import SettingsError, Stopped
from kovqa_core.evaluate.answers_record import answers_record_path
from kovqa_core.files import disk_errors, require_other_output
from kovqa_core.messages import message
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress, ignore_progress


@dataclass(frozen=True)
class AnswerOptions:
    """Which model answers, and how.

    Attributes:
        model: run folder, step folder, Hugging Face folder, or a name of the hub; None: the newest finished run for
            the task. With a server: the name of a model there; None: its only one.
        task: "vqa" or "caption".
        decoding: how a model that writes freely answers.
        num_beams: captions followed at once; None: as the model was made.
        top_k: every answer brings so many of the likeliest (`Answer.likeliest`); 1: the answer alone.
        precision: what it computes in: bf16, fp16, fp32, or auto (`models/precision.py`).
        load: in which form its weights are held: 4bit, or auto (`models/load_form.py`).
        instruction: below a chat model's question, or of a caption (`question_prompts`); None: as it was made, Korean.
        max_new_tokens: of an answer or caption of a model that writes freely; None: as it was made.
        trust_remote_code: see `models.family.LoadOptions`.
    """

    model: Path | None = None
    task: str = "vqa"
    decoding: DecodingOptions = GREEDY_DECODING
    num_beams: int | None = None
    top_k: int = 1
    precision: str = "auto"
    load: str = "auto"
    instruction: str | None = None
    max_new_tokens: int | None = None
    trust_remote_code: bool = field(default=False, kw_only=True)


@dataclass(frozen=True)
class AnswerJob:
    """A table to answer.

    Attributes:
        table: an index split or any table; for captions also a folder of images.
        output: predictions file.
        options: which model answers, and how.
        images: folder that image paths start from; None: as the index says, else beside the table.
        question_types: only rows of these types; empty or "all": every row.
        batch: rows at once; None: as many as suit the device (`answer/batch_size.py`).
        columns: our name of a column -> the table's, for those it calls by names that we do not know.
        allow_left_out: finish although more than 10 % of the rows cannot be answered.
        fill_unreadable: what stands for the answer of a row whose image cannot be read; None: it has no line.
        unknown_below: an answer of a lower score becomes the row's choice that means "unknown"; None: none does.
        force: answers of another model, or to other questions, may be replaced.
        allow_outside: images may be named with `..` or by absolute paths, and lie outside the image folder.
    """

    table: Path
    output: Path
    options: AnswerOptions = AnswerOptions()
    images: Path | None = None
    question_types: tuple[str, ...] = ()
    batch: int | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    allow_left_out: bool = field(default=False, kw_only=True)
    fill_unreadable: str | None = field(default=None, kw_only=True)
    unknown_below: float | None = field(default=None, kw_only=True)
    force: bool = field(default=False, kw_only=True)
    allow_outside: bool = field(default=False, kw_only=True)

    @property
    def partial_file(self) -> Path:
        """The lines of the unfinished predictions file."""
        return partial_file_path(self.output)

    @property
    def image_folder(self) -> Path:
        """The folder that image paths start from."""
        return question_image_folder(self.table, self.images)

    def read_rows(
        self, on_passed_over: Callable[[str], object] = str, on_duplicate: Callable[[str], object] = str
    ) -> list[QuestionRow]:
        """The rows to answer, with the images as this disk spells them.

        Args:
            on_passed_over: called with the path of every file of a folder of images that is none.
            on_duplicate: called with the place of every row that is there already.

        Raises:
            KovqaError: as `select_question_rows` and `rows_from_images`.
        """
        task = self.options.task
        if self.table.is_dir() and task == "caption":
            return rows_from_images(self.table, on_passed_over)
        return select_question_rows(
            self.table, task, self.question_types, self.options.decoding, self.columns, images=self.images,
            on_duplicate=on_duplicate, allow_outside=self.allow_outside,
        )  # fmt: skip


_DUPLICATE = message("answer.row-twice", "the same question is in an earlier row")
_MORE_COLUMNS = 4  # of predictions, besides the input's: answer, score, likeliest, and id where it has none
AnsweredRow = tuple[QuestionRow, Answer | RowFault]
# From a job and those of its rows that have no answer yet to these rows, as they come, in any order.
AnswerRows = Callable[[AnswerJob, Sequence[QuestionRow], OnProgress], Iterator[AnsweredRow]]


@dataclass(frozen=True)
class AnswerBackend:
    """What answers the rows of a job.

    Attributes:
        model: its step folder, or its name on a server.
        fingerprint: all that its answers depend on, besides the rows; JSON values.
        answer_rows: does it. Processes of a profile yield nothing: their lines lie in files of their own.
        precision: what the model computes in; empty: its server knows.
    """

    model: Path | str
    fingerprint: Mapping[str, object]
    answer_rows: AnswerRows
    precision: str = ""


@dataclass(frozen=True)
class ModelAnswer:
    """One answer or caption, the step folder or served model that gave it, and its precision where it is known."""

    answer: Answer
    model: Path | str
    precision: str = ""


@dataclass(frozen=True)
class AnsweredTable:
    """A finished predictions file.

    Attributes:
        path: the file.
        rows: lines in it.
        model: the step folder or served model that gave the answers.
        left_out: of the table's rows, what is wrong with those that have no answer, by id.
        kept: lines that an earlier start had answered.
        dropped: its answers to rows that are not in the table any more, or have changed.
        passed_over: files of a folder of images that are none.
        duplicates: rows of the table that ask again what an earlier one asks: id, file and line.
        notes: what was found about the table that its suffix does not say.
        precision: what the model computed in; empty: its server knows.
        abstained: answers that became "unknown" (`AnswerJob.unknown_below`); None: none were to.
        without_unknown: rows that have no such choice, where some were to.
        filled: those have a line all the same, with the text of `AnswerJob.fill_unreadable`.
    """

    path: Path
    rows: int
    model: Path | str
    left_out: Mapping[str, str] = field(default_factory=dict)
    kept: int = 0
    dropped: int = 0
    passed_over: Sequence[str] = ()
    duplicates: Sequence[str] = ()
    notes: Sequence[str] = ()
    precision: str = ""
    abstained: int | None = field(default=None, kw_only=True)
    without_unknown: int = field(default=0, kw_only=True)
    filled: bool = field(default=False, kw_only=True)


def run_answer_job(
    job: AnswerJob, backend: AnswerBackend, on_progress: OnProgress = ignore_progress
) -> AnsweredTable:
    """Answer or caption every row of a table.

    Lines are appended to `OUTPUT.part` as they come; run again, only the rest is answered, also where rows were
    added, left out or mended meanwhile. The file takes its name and format, in the table's order, when the last row
    is answered. Unknown columns are carried over.

    Raises:
        DataError: a table that cannot be read, more than 10 % of the rows cannot be answered
            (`data/left_out.py`): they ask nothing, or their images cannot be read.
        SettingsError: the output has an unknown format, or it or `OUTPUT.part` holds other answers; a question type
            the table does not have; another process writes the output; decoding the model cannot do.
        MachineError: the library that writes the output's format is not installed.
        Stopped: processes of a profile ended early on request.
        KovqaError: whatever the back end raises; what is answered is kept.
    """
    if not job.output.name:  # "." and "/" have no place beside them
        require_table_format(job.output)
    with unpack_table_images(job.table, job.images, job.columns, job.output, on_progress) as images:
        return _run_answer_job(replace(job, images=images), backend, on_progress)


def _run_answer_job(job: AnswerJob, backend: AnswerBackend, on_progress: OnProgress) -> AnsweredTable:
    passed_over, duplicates = list[str](), list[str]()
    rows = job.read_rows(passed_over.append, duplicates.append)
    _check_faults(job, dict.fromkeys(duplicates, _DUPLICATE), len(rows) + len(duplicates))
    if job.unknown_below is not None:
        require_unknown_choices(job.table, rows)
    with disk_errors(job.output):
        _require_free_output(job, backend.model, rows)
    require_table_format(job.output)
    require_table_fits(job.output, [row.all_columns for row in rows], _MORE_COLUMNS)
    require_list_fits(job.output, job.options.top_k)
    partial_file, folder, task = job.partial_file, job.image_folder, job.options.task
    # Two processes that resumed the same partial file would answer the same rows, and glue their lines together.
    with output_lock(job.output), disk_errors(job.output):
        fingerprint = {**backend.fingerprint, **table_fingerprint(job.table, job.columns, rows)}
        resumed = resume_partial_file(
            job.output,
            fingerprint,
            lambda: {row.example.id: digest_row(row.example, folder) for row in rows},
            force=job.force,
        )
        answered_ids = set(resumed.ids)
        # Rows that ask nothing come first: the processes of a profile leave out what has a line already.
        unasked = [row for row in rows if row.fault]
        faults: dict[str, str] = {}
        without_answer = ((row, RowFault(row.fault)) for row in unasked)
        watched = _watch_faults(job, len(rows), without_answer, faults)
        for _ in append_answers(partial_file, watched, task, answered_ids, folder):
            pass
        # By id, not by position: several processes leave their lines in any order.
        remaining = [row for row in rows if row.example.id not in answered_ids]
        if remaining:
            check_missing_images(job, remaining, len(rows))
            answers = _watch_faults(job, len(rows), backend.answer_rows(job, remaining, on_progress), faults)
            for _ in append_answers(partial_file, answers, task, answered_ids, folder):
                on_progress(answer_progress(job, len(answered_ids), len(rows)))
            # Read again from the file: what several processes answered is known only from their lines.
            answered_ids = merge_rank_files(partial_file)
        if len(answered_ids) < len(rows):
            raise Stopped(
                message(
                    "answer.stopped",
                    "stopped; {answered:,} of {rows:,} rows are answered",
                    answered=len(answered_ids),
                    rows=len(rows),
                ),
                resume_hint(),
            )
        # The file's words are English; what was seen here still knows its key.
        problems = {id: faults.get(id, problem) for id, problem in read_faults(partial_file).items()}
        _check_faults(job, problems, len(rows))  # those of a profile's processes are known only now
        fill = job.fill_unreadable
        written = [row for row in rows if fill is not None or row.example.id not in problems]
        abstained = finish_partial_file(
            partial_file, job.output, written, task, fill or "", job.unknown_below
        )
    return AnsweredTable(
        job.output, len(written), backend.model, problems, len(resumed.ids), resumed.dropped, passed_over,
        duplicates, notes_of(job.table, rows), backend.precision, filled=fill is not None,
        abstained=None if job.unknown_below is None else abstained,
        without_unknown=sum(not row.example.unknown for row in written),
    )  # fmt: skip


def _require_free_output(job: AnswerJob, model: Path | str, rows: Sequence[QuestionRow]) -> None:
    """See that nothing that is read would be written, by whatever name: not even with `force`.

    Raises:
        SettingsError: the output, or a file that it becomes of, is the table, an image of it, or a file of its
            index or of the model.
    """
    folders = [path for path in (model, job.options.model) if isinstance(path, Path)]
    if (job.table.parent / "index.json").is_file():
        folders.append(job.table.parent)
    read = [job.table]
    read += [job.image_folder / row.example.image for row in rows if _has_name(row, job.output.name)]
    read += [path for folder in folders for path in folder.glob("**/*") if not _is_answers(path)]
    for written in (job.output, job.partial_file, fingerprint_path(job.partial_file)):
        if written.exists():
            require_other_output(written, read)


def _has_name(row: QuestionRow, name: str) -> bool:
    return row.example.image.rpartition("/")[2] == name


def _is_answers(path: Path) -> bool:
    """Is it a predictions file, or unfinished lines of one, that was put beside what it was made from?"""
    unfinished = path.suffix == PARTIAL_SUFFIX or path.name.endswith(f"{PARTIAL_SUFFIX}.json")
    return unfinished or answers_record_path(path).is_file()


def _watch_faults(
    job: AnswerJob, rows: int, answers: Iterator[AnsweredRow], faults: dict[str, str]
) -> Iterator[AnsweredRow]:
    """Pass answers on, and end as soon as too many rows have none: not after hours.

    Args:
        job, rows, answers: what is answered, how many rows it has, and those that come.
        faults: of the rows so far; gets those that come.
    """
    for row, answer in answers:
        yield row, answer
        if isinstance(answer, RowFault):
            faults[row.example.id] = answer.problem
            _check_faults(job, faults, rows, at_least=True)


def _check_faults(job: AnswerJob, faults: Mapping[str, str], rows: int, *, at_least: bool = False) -> None:
    if not job.allow_left_out and are_too_many(len(faults), rows):
        first = describe_fault(*next(iter(faults.items())))
        raise too_many_left_out(len(faults), rows, first, at_least=at_least)


def check_missing_images(job: AnswerJob, rows: Sequence[QuestionRow], all_rows: int) -> None:
    """Before a model is loaded: are there too many rows whose images are not there?

    Args:
        job: what is answered.
        rows, all_rows: of its table, those without an answer yet, and how many there are.

    Raises:
        DataError: by the rule of `data/left_out.py`.
    """
    folder = job.image_folder
    is_there = {image: has_image_file(folder / image) for image in {row.example.image for row in rows}}
    missing = {
        row.example.id: message(
            "data.image-missing", "image {file} is missing", file=folder / row.example.image
        )
        for row in rows
        if not is_there[row.example.image]
    }
    if missing:
        _check_faults(job, missing, all_rows)


def describe_fault(id: str, problem: str) -> str:
    """What is wrong with a row; most problems name it themselves."""
    if problem.startswith(f"id {id}:"):
        return problem
    return message("answer.fault-of-row", "id {id}: {problem}", id=id, problem=problem)


def answer_progress(job: AnswerJob, answered: int, rows: int) -> Progress:
    """How many of a job's rows are answered."""
    if job.options.task == "caption":
        return Progress(message("answer.captioning", "captioning"), answered, rows)
    return Progress(message("answer.answering", "answering"), answered, rows)


def resume_hint() -> str:
    """What to do when a job ended early."""
    return message("answer.resume.hint", "run the same command again: the answers so far are kept")


def require_question(question: str) -> str:
    """A question that asks something.

    Raises:
        SettingsError: it is empty.
    """
    if not question.strip():
        raise SettingsError(
            message("answer.empty-question", "the question is empty"),
            message("answer.empty-question.hint", "kovqa predict -i x.png --question '무엇인가요?'"),
        )
    return question
