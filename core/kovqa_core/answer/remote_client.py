"""A model that a server holds answers: one question, or the rows of a job, several requests at once.

Threads send and wait; everything else (lines of the predictions file, progress) happens in the thread that
iterates. Nothing here needs torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from kovqa_core.answer.chat_completions import ChatPrompt, request_chat_answer
from kovqa_core.answer.job import (
    AnswerBackend,
    AnsweredRow,
    AnswerJob,
    AnswerOptions,
    ModelAnswer,
    require_question,
)
from kovqa_core.answer.kovqa_server import request_kovqa_answer, require_top_k
from kovqa_core.answer.parallel_requests import send_in_parallel
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.answer.question_rows import QuestionRow
from kovqa_core.answer.server_requests import (
    ModelServer,
    ServedModel,
    UnreadableImage,
    connect_server,
    find_served_model,
)
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.question_prompts import (
    DEFAULT_INSTRUCTION,
    DEFAULT_MAX_NEW_TOKENS,
    no_instruction_hint,
)
from kovqa_core.errors import AssetError, DataError, ModelError, SettingsError
from kovqa_core.files import real_path, to_nfc
from kovqa_core.index.reader import is_index_file
from kovqa_core.messages import Message, message
from kovqa_core.models.unread_columns import unread_columns_warning
from kovqa_core.net.request import redact_url
from kovqa_core.progress import OnProgress, Progress, ignore_progress


@dataclass(frozen=True)
class _RemoteModel:
    """A model of a server, how many of its likeliest answers are wanted, and how it is asked."""

    server: ModelServer
    served: ServedModel
    top_k: int
    prompt: ChatPrompt

    def request_answer(self, example: Example, image_folder: Path, on_progress: OnProgress) -> Answer:
        """The answer to one question, or a caption; errors name its id, unless they are about all questions.

        Raises:
            KovqaError: as `request_chat_answer` and `request_kovqa_answer`.
        """
        try:
            if self.served.is_kovqa:
                return request_kovqa_answer(
                    self.server, self.served, example, image_folder, self.top_k, on_progress
                )
            return request_chat_answer(
                self.server, self.served.id, example, image_folder, on_progress, self.prompt
            )
        except (DataError, AssetError) as error:
            if not example.id:
                raise
            # Subclasses of AssetError (such as a refusal) take other arguments.
            error_class = next(
                kind for kind in (UnreadableImage, DataError, AssetError) if isinstance(error, kind)
            )
            raise error_class(
                message("answer.row-failed", "id {id}: {error}", id=example.id, error=error.message),
                error.hint,
            ) from None


def ask_server(
    url: str, image: Path, question: str, options: AnswerOptions, on_progress: OnProgress = ignore_progress
) -> ModelAnswer:
    """Answer one question, or caption an image.

    Args:
        url: of the server, up to and with /v1.
        image: path of the image.
        question: about it; "" for a caption.
        options: `model`, `task` and `top_k` count: the server decides the rest.
        on_progress: called when the server is out of reach.

    Raises:
        KovqaError: as `server_backend`, and what is wrong with the question.
    """
    if options.task == "vqa":
        require_question(question)
    with connect_server(url, on_progress) as server:
        remote = _find_remote_model(server, options)
        example = Example("", str(real_path(image)), to_nfc(question))
        return ModelAnswer(remote.request_answer(example, Path("/"), on_progress), remote.served.id)


@contextlib.contextmanager
def server_backend(
    url: str, options: AnswerOptions, concurrency: int, on_progress: OnProgress = ignore_progress
) -> Iterator[AnswerBackend]:
    """A back end that asks a server, connected as long as the block lasts.

    Args:
        url: of the server, up to and with /v1.
        options: `model`, `task`, `top_k` and what is said of choices and of long answers count: the server decides the rest.
        concurrency: requests under way at once.
        on_progress: told of a key that this server does not get.

    Raises:
        KovqaError: as `connect_server` and `find_served_model`.
        ModelError: the model is for another task.
        SettingsError: it does not list so many of its likeliest answers, or takes no instruction.
    """
    with connect_server(url, on_progress) as server:
        remote = _find_remote_model(server, options)
        fingerprint: dict[str, object] = {"served": remote.served.id}
        if remote.served.is_kovqa:
            fingerprint |= {
                "family": remote.served.family,
                **({"top_k": remote.top_k} if remote.top_k > 1 else {}),
            }
        else:
            fingerprint |= remote.prompt.json_fields()
        yield AnswerBackend(remote.served.id, fingerprint, partial(_request_answers, remote, concurrency))


def _find_remote_model(server: ModelServer, options: AnswerOptions) -> _RemoteModel:
    served = find_served_model(server, str(options.model) if options.model else None, options.task)
    if options.task != (served.task or "vqa"):
        raise ModelError(
            message(
                "answer.served-other-task", "model {name} of {url} is for {own_task}, not for {task}",
                name=served.id, url=redact_url(server.url), own_task=served.task or "vqa", task=options.task,
            ),
            message("answer.served-other-task.hint", "captions need a captioner behind kovqa serve"),
        )  # fmt: skip
    require_top_k(served, options.top_k)
    if options.decoding.choices and served.is_kovqa and "choices" not in served.reads:
        raise ModelError(
            message(
                "answer.served-without-choices", "model {name} of {url} is not shown the choices of a question",
                name=served.id, url=redact_url(server.url),
            ),
            message(
                "answer.served-without-choices.hint",
                "kovqa serve shows them to models that are trained with them: answer here, without --server",
            ),
        )  # fmt: skip
    return _RemoteModel(server, served, options.top_k, _choose_prompt(served, options))


def _choose_prompt(served: ServedModel, options: AnswerOptions) -> ChatPrompt:
    given = options.instruction is not None or options.max_new_tokens is not None
    if given and served.is_kovqa:
        raise SettingsError(
            message(
                "answer.served-with-own-prompt",
                "a model behind kovqa serve is asked as it was made, without an instruction or another length",
            ),
            no_instruction_hint(),
        )
    return ChatPrompt(
        DEFAULT_INSTRUCTION if options.instruction is None else options.instruction,
        options.max_new_tokens or DEFAULT_MAX_NEW_TOKENS,
        options.decoding.choices,
    )


def _request_answers(
    remote: _RemoteModel,
    concurrency: int,
    job: AnswerJob,
    rows: Sequence[QuestionRow],
    on_progress: OnProgress,
) -> Iterator[AnsweredRow]:
    """Rows and their answers as they come. The first failure ends it without waiting for the others."""
    if remote.served.task != "caption" and (unread := _unread_columns(remote.served, rows)):
        on_progress(Progress(unread))
    image_folder = job.image_folder
    if job.images is None and is_index_file(job.table):  # which may be another's
        sent = message(
            "answer.images-sent", "images below {folder} are sent to {url}",
            folder=image_folder, url=redact_url(remote.server.url),
        )  # fmt: skip
        on_progress(Progress(sent, is_note=True))

    def send(row: QuestionRow, on_notice: OnProgress) -> Answer | RowFault:
        try:
            return remote.request_answer(row.example, image_folder, on_notice)
        except UnreadableImage as error:
            return RowFault(error.message, error.hint)

    yield from send_in_parallel(rows, send, concurrency, on_progress)


def _unread_columns(served: ServedModel, rows: Sequence[QuestionRow]) -> Message | None:
    name = (
        message("answer.this-model", "this model ({family})", family=served.family)
        if served.is_kovqa
        else message("answer.this-server", "a server")
    )
    read = served.reads if served.is_kovqa else ("context",)
    return unread_columns_warning(name, read, [row.example for row in rows])
