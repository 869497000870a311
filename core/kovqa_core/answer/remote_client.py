"""A model that a server holds answers: one question, or the rows of a job, several requests at once.

Threads send and wait; everything else (lines of the predictions file, progress) happens in the thread that
iterates. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kovqa_core.answer.chat_completions import (
    ChatServer,
    UnreadableImage,
    connect_server,
    find_only_model,
    request_answer,
)
from kovqa_core.answer.job import (
    AnswerBackend,
    AnsweredRow,
    AnswerJob,
    AnswerOptions,
    ModelAnswer,
    require_question,
)
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.data.example import Example
from kovqa_core.data.question_prompts import DEFAULT_INSTRUCTION, DEFAULT_MAX_NEW_TOKENS
from kovqa_core.files import real_path, to_nfc
from kovqa_core.index.reader import is_index_file
from kovqa_core.messages import message
from kovqa_core.models.unread_columns import unread_columns_warning
from kovqa_core.net.request import redact_url
from kovqa_core.progress import OnProgress, Progress, ignore_progress

_NOTICE_SECONDS = 5.0  # between two notices of a server that is busy: many requests wait for the same one


def ask_server(
    url: str, image: Path, question: str, options: AnswerOptions, on_progress: OnProgress = ignore_progress
) -> ModelAnswer:
    """Answer one question.

    Args:
        url: of the server, up to and with /v1.
        image: path of the image.
        question: about it.
        options: only `model` counts: the server decides the rest.
        on_progress: called when the server is out of reach.

    Raises:
        KovqaError: as `connect_server` and `request_answer`.
    """
    require_question(question)
    with connect_server(url, on_progress) as server:
        name = _served_model(server, options)
        example = Example("", str(real_path(image)), to_nfc(question))
        return ModelAnswer(request_answer(server, name, example, Path("/"), on_progress), name)


@contextlib.contextmanager
def server_backend(
    url: str, options: AnswerOptions, concurrency: int, on_progress: OnProgress = ignore_progress
) -> Iterator[AnswerBackend]:
    """A back end that asks a server, connected as long as the block lasts.

    Args:
        url: of the server, up to and with /v1.
        options: only `model` counts: the server decides the rest.
        concurrency: requests under way at once.
        on_progress: told of a key that this server does not get.

    Raises:
        KovqaError: as `connect_server` and `find_only_model`.
    """
    with connect_server(url, on_progress) as server:
        name = _served_model(server, options)
        fingerprint = {
            "served": name,
            "instruction": DEFAULT_INSTRUCTION,
            "max_tokens": DEFAULT_MAX_NEW_TOKENS,
        }
        yield AnswerBackend(name, fingerprint, partial(_request_answers, server, name, concurrency))


def _served_model(server: ChatServer, options: AnswerOptions) -> str:
    return str(options.model) if options.model else find_only_model(server)


def _request_answers(
    server: ChatServer,
    model: str,
    concurrency: int,
    job: AnswerJob,
    rows: Sequence[QuestionRow],
    on_progress: OnProgress,
) -> Iterator[AnsweredRow]:
    """Rows and their answers as they come. The first failure ends it without waiting for the others."""
    server_name = message("answer.this-server", "a server")
    if unread := unread_columns_warning(server_name, ("context",), [row.example for row in rows]):
        on_progress(Progress(unread))
    pending: queue.SimpleQueue[QuestionRow] = queue.SimpleQueue()
    # What threads hand over: an answered row, a notice of a server that is out of reach, or what failed.
    results: queue.SimpleQueue[AnsweredRow | Progress | BaseException] = queue.SimpleQueue()
    ended = threading.Event()
    image_folder = job.image_folder
    if job.images is None and is_index_file(job.table):  # which may be another's
        sent = message(
            "answer.images-sent", "images below {folder} are sent to {url}", folder=image_folder, url=redact_url(server.url)
        )  # fmt: skip
        on_progress(Progress(sent, is_note=True))
    for row in rows:
        pending.put(row)

    def send_requests() -> None:
        with contextlib.suppress(queue.Empty):
            while not ended.is_set():
                row = pending.get_nowait()
                try:
                    results.put((row, request_answer(server, model, row.example, image_folder, results.put)))
                except UnreadableImage as error:
                    results.put((row, RowFault(str(error.message))))
                except BaseException as error:
                    results.put(error)

    on_notice = _throttled(on_progress)
    remaining = len(rows)
    try:
        for _ in range(min(concurrency, len(rows))):
            # Daemons: Ctrl-C, or a failure, does not wait for answers under way, which may take minutes.
            threading.Thread(target=send_requests, daemon=True).start()
        while remaining:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, Progress):
                on_notice(result)
                continue
            remaining -= 1
            yield result
    except KeyboardInterrupt:
        ended.set()  # first: a thread that begins another request now would ask for nothing
        while not results.empty():  # answers that came meanwhile are kept, not asked for again
            result = results.get_nowait()
            if isinstance(result, tuple):
                yield result
        raise
    finally:
        ended.set()


def _throttled(on_progress: OnProgress) -> OnProgress:
    """Passes one call on in so many seconds."""
    next_time = 0.0

    def on_notice(progress: Progress) -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            next_time = time.monotonic() + _NOTICE_SECONDS
            on_progress(progress)

    return on_notice
