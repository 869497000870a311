"""Answers of a model that a server of its own serves: vLLM, SGLang, anything with OpenAI's chat completions.

A row is one request, several are on their way at once. Question and instruction are worded as for a
vlm of ours; the server applies the model's chat template and shrinks pictures as it was told to.
Nothing here needs torch.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
from PIL import Image

from kovqa_core.answer.partial_file import finish_partial_file, partial_file_path, resume_partial_file
from kovqa_core.answer.question_rows import QuestionRow, question_image_folder, select_question_rows
from kovqa_core.data.answers import normalise_answer
from kovqa_core.data.decoding import GREEDY_DECODING
from kovqa_core.data.example import Answer, Example, prediction_line
from kovqa_core.data.image_io import open_image
from kovqa_core.data.question_prompts import DEFAULT_INSTRUCTION, DEFAULT_MAX_NEW_TOKENS, build_prompt
from kovqa_core.errors import AssetError, DataError, KovqaError, SettingsError
from kovqa_core.files import disk_errors, read_bytes, to_nfc
from kovqa_core.net.api_keys import find_api_key
from kovqa_core.net.pages import page_text
from kovqa_core.net.request import (
    RETRY_STATUSES,
    RemoteFile,
    new_http_client,
    redact_url,
    retry_request,
    stream_request,
)
from kovqa_core.progress import ignore_progress

_TIMEOUT_SECONDS = 300.0  # a busy server may be silent for so long
_FINAL_STATUSES = frozenset(range(200, 500)) - RETRY_STATUSES  # statuses that are an answer, even if it is no
_PROGRESS_SECONDS = 5.0  # between two notes on a server that is busy
_EXIF_ORIENTATION = 0x0112  # EXIF
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")

ProgressNote = Callable[[str], None]


@dataclass(frozen=True)
class ChatServer:
    """Where the requests go.

    Attributes:
        url: without a slash at its end.
        headers: what only the server may see.
        client: keeps connections open.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    client: httpx2.Client


def ask_server(
    url: str, model: str | None, image: Path, question: str, note: ProgressNote | None = None
) -> tuple[Answer, str]:
    """Answer one question; the answer, and the name of the served model. Raises as `answer_table`."""
    if not question.strip():
        raise SettingsError("the question is empty", "kovqa predict -i x.png --question '무엇인가요?'")
    with _connect_server(url) as server:
        name = model or _only_served_model(server)
        return _request_answer(
            server, name, Example("", str(image.resolve()), to_nfc(question)), Path("/"), note
        ), name


def answer_table_with_server(
    url: str,
    model: str | None,
    table: Path,
    images: Path | None,
    output: Path,
    concurrency: int,
    progress: Callable[[int, int], None],
    note: ProgressNote | None = None,
    kinds: Sequence[str] = (),
) -> tuple[int, str]:
    """Answer every row of a table; (number of rows, name of the served model).

    Answers are appended to `OUTPUT.part` as they come; run again, the rest is asked. The finished
    file has the table's order.

    Args:
        url: of the server, up to and with /v1.
        model: its name there; None: the only one.
        table, images, output, kinds: as in `predict.answer_table`.
        concurrency: requests on their way at once.
        progress: called with (rows done, rows in total).
        note: called now and then with what is being waited for.

    Raises:
        SettingsError: no such address or model, a key the server does not take; a part of other answers.
        DataError: a row or picture that cannot be used, or that the server refuses; it names the id.
        AssetError: the server cannot be reached or fails again and again: what is answered is kept.
    """
    rows = select_question_rows(table, "vqa", kinds, GREEDY_DECODING)
    folder, part = question_image_folder(table, images), partial_file_path(output)
    with _connect_server(url) as server, disk_errors(output):
        name = model or _only_served_model(server)
        output.parent.mkdir(parents=True, exist_ok=True)
        stamp = {
            "served": name,
            "table": hashlib.sha256(table.read_bytes()).hexdigest(),
            "kinds": sorted({row.kind for row in rows}),
            "instruction": DEFAULT_INSTRUCTION,
            "max_tokens": DEFAULT_MAX_NEW_TOKENS,
        }
        done = len(ids := resume_partial_file(part, stamp))
        left = [row for row in rows if row.example.id not in ids]
        told = _throttle_progress(note) if note else None
        with part.open("a", encoding="utf-8") as stream:
            for row, answer in _request_answers(server, name, left, folder, concurrency, told):
                stream.write(prediction_line(row.example.id, answer, row.carried) + "\n")
                stream.flush()
                progress(done := done + 1, len(rows))
        finish_partial_file(part, output, (row.example.id for row in rows))
    return len(rows), name


def _request_answers(
    server: ChatServer,
    model: str,
    rows: Sequence[QuestionRow],
    folder: Path,
    concurrency: int,
    note: ProgressNote | None,
) -> Iterator[tuple[QuestionRow, Answer]]:
    """Rows and their answers as they come. The first failure ends it without waiting for the others."""
    todo: queue.SimpleQueue[QuestionRow] = queue.SimpleQueue()
    came: queue.SimpleQueue[tuple[QuestionRow, Answer | BaseException]] = queue.SimpleQueue()
    over = threading.Event()
    for row in rows:
        todo.put(row)

    def told(text: str) -> None:
        if note and not over.is_set():  # what is under way when it ends is of no interest
            note(text)

    def work() -> None:
        with contextlib.suppress(queue.Empty):
            while not over.is_set():
                row = todo.get_nowait()
                try:
                    came.put((row, _request_answer(server, model, row.example, folder, told)))
                except BaseException as error:
                    came.put((row, error))

    try:
        for _ in range(min(concurrency, len(rows))):
            threading.Thread(target=work, daemon=True).start()  # Ctrl-C does not wait for a daemon
        for _ in rows:
            row, said = came.get()
            if isinstance(said, BaseException):
                raise said
            yield row, said
    finally:
        over.set()


def _throttle_progress(note: ProgressNote) -> ProgressNote:
    """A note now and then: many requests wait for the same server."""
    last, lock = -_PROGRESS_SECONDS, threading.Lock()

    def say(text: str) -> None:
        nonlocal last
        with lock:
            if time.monotonic() - last >= _PROGRESS_SECONDS:
                last = time.monotonic()
                note(text)

    return say


# ---------------------------------------------------------------------------------- one request


def _request_answer(
    server: ChatServer, model: str, example: Example, folder: Path, note: ProgressNote | None
) -> Answer:
    """One question asked, patiently; errors name its id, unless they are about all of them."""
    try:
        return _parse_completion(
            _request_json(server, "/chat/completions", _chat_request(model, example, folder), note), server
        )
    except (DataError, AssetError) as error:
        kind = DataError if isinstance(error, DataError) else AssetError
        where = f"id {example.id}: " if example.id else ""
        raise kind(where + error.message, error.hint) from None


def _chat_request(model: str, example: Example, folder: Path) -> dict[str, Any]:
    """A chat completion as vLLM and SGLang take it; a thinking model is asked not to."""
    picture = {"type": "image_url", "image_url": {"url": image_data_url(folder / example.image)}}
    question = {"type": "text", "text": build_prompt(to_nfc(example.question), DEFAULT_INSTRUCTION)}
    return {
        "model": model,
        "messages": [{"role": "user", "content": [picture, question]}],
        "temperature": 0,
        "max_tokens": DEFAULT_MAX_NEW_TOKENS,
        "logprobs": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }


def image_data_url(path: Path) -> str:
    """A picture as a `data:` URL: JPEG and PNG as they are, if every reader sees the same in them.

    What is turned (EXIF), transparent, of 16 bit or of another format is brought to upright RGB as for a
    model of ours, and sent as JPEG.

    Raises:
        DataError: it cannot be read.
    """
    pixels = open_image(path)  # also sees that it is whole
    with Image.open(path) as raw:
        plain = raw.mode in ("RGB", "L") and raw.getexif().get(_EXIF_ORIENTATION, 1) == 1
        kind = raw.format if plain and "transparency" not in raw.info else None
    if kind in ("JPEG", "PNG"):
        data = read_bytes(path)
    else:
        kind, stream = "JPEG", io.BytesIO()
        pixels.save(stream, "JPEG", quality=95, subsampling=0)
        data = stream.getvalue()
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def _parse_completion(said: Any, server: ChatServer) -> Answer:
    """The answer in a chat completion; its score is the mean probability of its tokens, nan if not told."""
    try:
        choice = said["choices"][0]
        text, tokens = choice["message"]["content"], (choice.get("logprobs") or {}).get("content") or []
        likely = [math.exp(min(0.0, token["logprob"])) for token in tokens]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise AssetError(f"{redact_url(server.url)} answers with no chat completion", _ADDRESS_HINT) from None
    if not isinstance(text, str):
        hint = "is it a thinking model? serve it with thinking switched off"
        raise DataError(f"{redact_url(server.url)} gives no text ({choice.get('finish_reason')!r})", hint)
    return Answer(normalise_answer(text), sum(likely) / len(likely) if likely else math.nan)


# ---------------------------------------------------------------------------------- the server

_ADDRESS_HINT = "the address ends in /v1: --server http://HOST:8000/v1"


@contextlib.contextmanager
def _connect_server(url: str) -> Iterator[ChatServer]:
    """A server, its key read; nothing is asked yet."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(f"--server {redact_url(url)} is no http address", _ADDRESS_HINT)
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingsError(
            f"--server {redact_url(url)}: keys do not belong into an address", "export KOVQA_SERVER_KEY=…"
        )
    key = _server_key(parts.scheme == "https" or parts.hostname in _LOCAL_HOSTS)
    with new_http_client(_TIMEOUT_SECONDS) as client:
        yield ChatServer(url.rstrip("/"), {"Authorization": f"Bearer {key}"} if key else {}, client)


def _server_key(private: bool) -> str:
    """The server's key, "" if there is none. OpenAI's is never sent where others can listen."""
    own = find_api_key("server", "KOVQA_SERVER_KEY", "server.key")
    return own or (find_api_key("OpenAI", "OPENAI_API_KEY", "openai.key") if private else "")


def _only_served_model(server: ChatServer) -> str:
    """The name of the only model a server has.

    Raises:
        SettingsError: it has several: they are named.
    """
    said = _request_json(server, "/models")
    try:
        names = [str(model["id"]) for model in said["data"]]
    except (KeyError, TypeError):
        raise AssetError(f"{redact_url(server.url)}/models lists no models", _ADDRESS_HINT) from None
    if len(names) != 1:
        raise SettingsError(
            f"{redact_url(server.url)} serves {len(names)} models: {page_text(', '.join(names).encode())}",
            "choose one: --model NAME",
        )
    return names[0]


def _request_json(
    server: ChatServer, path: str, asked: Mapping[str, Any] | None = None, note: ProgressNote | None = None
) -> Any:
    """The JSON a server answers with, asked again while it is busy or out of reach."""
    remote = RemoteFile(server.url + path, headers=server.headers)
    body = None if asked is None else json.dumps(asked).encode()

    def once() -> tuple[httpx2.Response, bytes]:
        with stream_request(
            remote, method="POST" if body else "GET", headers={"Content-Type": "application/json"},
            accept=_FINAL_STATUSES, follow_redirects=False, body=body, client=server.client,
        ) as response:  # fmt: skip
            return response, response.read()

    response, said = retry_request(once, (lambda progress: note(progress.stage)) if note else ignore_progress)
    if response.status_code != 200:
        raise _status_error(remote, response, said)
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        raise AssetError(f"{redact_url(remote.url)} answers with no JSON", _ADDRESS_HINT) from None


def _status_error(remote: RemoteFile, response: httpx2.Response, said: bytes) -> KovqaError:
    """What a server's no means: it is not asked again."""
    status = response.status_code
    text = remote.redact_secrets(
        f"{redact_url(remote.url)}: {status} {_error_message(said) or response.reason_phrase}"
    )
    if status in (401, 403):
        return SettingsError(text, "export KOVQA_SERVER_KEY=… with a key this server takes")
    if status == 404:
        return SettingsError(text, f"{_ADDRESS_HINT}; --model NAME is a name its /models lists")
    if response.is_redirect:
        return SettingsError(f"{text} to {redact_url(response.headers.get('location', ''))}", _ADDRESS_HINT)
    return DataError(text, "leave the row out, or serve the model with other limits")


def _error_message(said: bytes) -> str:
    """What an error of OpenAI's form says; of any other page, its text."""
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
        found = json.loads(said)
        return page_text(str(found.get("error", found)["message"]).encode())
    return page_text(said)
