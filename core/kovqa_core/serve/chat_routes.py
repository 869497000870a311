"""`POST /v1/chat/completions`: OpenAI's form, whole or as a stream of server-sent events."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.job import require_question
from kovqa_core.data.example import Answer
from kovqa_core.serve.ask_requests import read_json_body
from kovqa_core.serve.chat_requests import ChatQuestion, ChatReply, check_chat_fields, read_chat_question
from kovqa_core.serve.served_models import find_served_model
from kovqa_core.serve.state import serve_state


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
    done = await state.queue.ask(model.id, question)
    assert isinstance(done.result, Answer)
    if not fields.stream:
        return JSONResponse(reply.whole(done.result, asked))
    return StreamingResponse(_one_chunk(reply, done.result, asked), media_type="text/event-stream")


async def _one_chunk(reply: ChatReply, answer: Answer, asked: ChatQuestion) -> AsyncIterator[bytes]:
    yield reply.chunk({"role": "assistant", "content": answer.text})
    yield reply.end(answer, asked)
