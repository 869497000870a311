"""`POST /v1/chat/completions`: OpenAI's form, whole or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.job import require_question
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.example import Answer
from kovqa_core.serve.ask_requests import read_json_body
from kovqa_core.serve.batch_queue import require_answer
from kovqa_core.serve.chat_requests import (
    ChatQuestion,
    ChatReply,
    check_chat_fields,
    error_event,
    read_chat_question,
)
from kovqa_core.serve.served_models import ServedModel, find_served_model
from kovqa_core.serve.state import ServeState, serve_state
from kovqa_core.web.http_errors import RefusedRequest


async def complete_chat(request: Request) -> Response:
    """The answer to one question, in OpenAI's form."""
    state = serve_state(request)
    state.queue.require_room()
    fields = check_chat_fields(await read_json_body(request))
    model = find_served_model(state.models, fields.model)
    asked = await read_chat_question(fields, model, state.fetch_image)
    if model.task == "vqa":
        require_question(asked.question)
    question = ImageQuestion(asked.image, asked.question if model.task == "vqa" else "")
    reply = ChatReply.new(model)
    if fields.stream and model.set_on_text is not None:
        texts: AsyncIterator[str | Answer] = _tell_answer(state, model, question)
    else:
        done = await state.queue.ask(model.id, question)
        if not fields.stream:
            return JSONResponse(reply.whole(done.result, asked))
        texts = _tell_at_once(done.result)
    first = await anext(texts)  # before the reply begins: what is wrong until now has a status of its own
    return StreamingResponse(_events(reply, asked, first, texts), media_type="text/event-stream")


async def _tell_at_once(answer: Answer) -> AsyncIterator[str | Answer]:
    yield answer


async def _tell_answer(
    state: ServeState, model: ServedModel, question: ImageQuestion
) -> AsyncIterator[str | Answer]:
    """An answer as it grows, and at last the answer; alone in its batch, where there is one text to tell."""
    loop, told = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def tell(text: str | None) -> None:
        loop.call_soon_threadsafe(told.put_nowait, text)

    def answer() -> Answer | RowFault:
        assert model.set_on_text is not None
        model.set_on_text(model.loaded.model, tell)
        try:
            return state.answer_batch(model.id, [question])[0]
        finally:
            model.set_on_text(model.loaded.model, None)

    call = asyncio.ensure_future(state.queue.call(model.id, answer))
    call.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (text := await told.get()) is not None:
            yield text
        done = await call
        yield require_answer(done.result)
    finally:
        call.cancel()


async def _events(
    reply: ChatReply, asked: ChatQuestion, first: str | Answer, texts: AsyncIterator[str | Answer]
) -> AsyncIterator[bytes]:
    """The events of a stream; the texts of its chunks together are the answer."""
    yield reply.chunk({"role": "assistant", "content": ""})
    sent, text = "", first
    while True:
        # The last letter may still change: a syllable is composed of several tokens.
        known = text.text if isinstance(text, Answer) else text[:-1]
        if known.startswith(sent) and known != sent:
            yield reply.chunk({"content": known[len(sent) :]})
            sent = known
        if isinstance(text, Answer):
            yield reply.end(text, asked)
            return
        try:
            text = await anext(texts)
        except RefusedRequest as refused:  # too late for a status
            yield error_event(refused)
            return
