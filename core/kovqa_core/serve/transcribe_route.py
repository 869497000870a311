"""`POST /v1/transcribe`: what is said in a sound, for a question to be looked over before it is asked."""

from __future__ import annotations

from functools import partial

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kovqa_core.errors import MachineError
from kovqa_core.messages import message
from kovqa_core.serve.state import REPLY_SCHEMA, serve_state
from kovqa_core.web.http_errors import RefusedRequest

SPEECH_QUEUE = "(speech)"  # of the thread that all models answer in; no model has such a name


async def transcribe_speech(request: Request) -> Response:
    """The text of a form's one file, `speech`."""
    state = serve_state(request)
    if state.transcribe is None:
        raise RefusedRequest(
            404, message("serve.no-speech-model", "this server has no model of speech (--speech-model)")
        )
    state.queue.require_room()  # before a body is read that nobody will look at
    sound = await _read_speech(request)
    try:
        done = await state.queue.call(SPEECH_QUEUE, partial(state.transcribe, sound))
    except MachineError as error:  # a format that is not read here is the client's mistake
        raise RefusedRequest(415, message("serve.sound-format", "{problem}", problem=error.message)) from None
    return JSONResponse(
        {
            "schema": REPLY_SCHEMA,
            "text": done.result,
            "seconds": round(done.seconds, 6),
            "queue_seconds": round(done.queue_seconds, 6),
        }
    )


async def _read_speech(request: Request) -> bytes:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise RefusedRequest(
            415,
            message("serve.form-needed", "Content-Type is {kind!r}; send multipart/form-data", kind=kind),
        )
    async with request.form(max_files=1, max_fields=1) as form:
        [(name, value), *others] = form.multi_items() or [("", "")]
        if name != "speech" or others or not isinstance(value, UploadFile):
            raise RefusedRequest(
                400,
                message("serve.one-sound", "a form has one file here, in the field speech, and nothing else"),
            )
        return await value.read()
