"""The routes of `kovqa serve`: a page, questions and captions, OpenAI's form, and what a machine's keeper asks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kovqa_core.answer.ask_model import ImageQuestion, ask_model
from kovqa_core.answer.job import require_question
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.example import Answer
from kovqa_core.serve.ask_requests import (
    AskedQuestion,
    FetchImage,
    read_asked_question,
    refuse_address,
    require_read_fields,
)
from kovqa_core.serve.batch_queue import BatchQueue, Done, QueueLimits
from kovqa_core.serve.chat_routes import complete_chat
from kovqa_core.serve.examples import example_scenes
from kovqa_core.serve.explain_route import explain_question
from kovqa_core.serve.metrics import Metrics
from kovqa_core.serve.openapi import openapi_document
from kovqa_core.serve.served_models import ServedModel, find_served_model
from kovqa_core.serve.state import REPLY_SCHEMA, ServeState, Transcribe, json_score, serve_state
from kovqa_core.serve.transcribe_route import transcribe_speech
from kovqa_core.web.http_errors import ERROR_HANDLERS


def build_app(
    models: Mapping[str, ServedModel],
    limits: QueueLimits,
    fetch_image: FetchImage = refuse_address,
    page: str = "",
    transcribe: Transcribe | None = None,
) -> Starlette:
    """The app of a server, without guard (`web.http_server.guard_app`).

    Args:
        models: of `load_served_models`.
        limits: of its queue.
        fetch_image: how images by address are fetched.
        page: what `/` shows.
        transcribe: see `ServeState`.
    """
    metrics = Metrics()

    def answer_batch(name: str, questions: Sequence[ImageQuestion]) -> Sequence[Answer | RowFault]:
        return ask_model(models[name].loaded, questions, batch=limits.max_batch)

    state = ServeState(
        models,
        answer_batch,
        BatchQueue(answer_batch, limits, metrics),
        metrics,
        fetch_image,
        page,
        transcribe,
    )

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        state.queue.start()
        yield
        await state.queue.stop()

    app = Starlette(routes=ROUTES, exception_handlers=ERROR_HANDLERS, lifespan=lifespan)
    # The address it would send to is http, also where a server with https stands before this one.
    app.router.redirect_slashes = False
    app.state.serve = state
    return app


# ------------------------------------------------------------------------------ questions, captions


async def answer_question(request: Request) -> Response:
    """`POST /v1/vqa`."""
    return await _answer(request, "vqa", "answer")


async def caption_image(request: Request) -> Response:
    """`POST /v1/caption`."""
    return await _answer(request, "caption", "caption")


async def _answer(request: Request, task: str, key: str) -> Response:
    state = serve_state(request)
    state.queue.require_room()  # before a body is read that nobody will look at
    asked = await read_asked_question(request, state.fetch_image)
    model = find_served_model(state.models, asked.model, task)
    if task == "vqa":
        require_question(asked.question)
    require_read_fields(asked, model)
    question = ImageQuestion(asked.image, asked.question, asked.context, asked.choices)
    done = await state.queue.ask(model.id, question)
    return JSONResponse(_reply(model, key, done.result, asked, done))


def _reply(
    model: ServedModel, key: str, answer: Answer, asked: AskedQuestion, done: Done[Answer]
) -> dict[str, object]:
    likeliest = answer.likeliest or ((answer.text, answer.score),)
    return {
        "schema": REPLY_SCHEMA,
        "model": model.id,
        key: answer.text,
        "score": json_score(answer.score),
        "likeliest": [
            {"answer": text, "score": json_score(score)} for text, score in likeliest[: asked.top_k]
        ],
        "question_cut": answer.is_cut,
        "seconds": round(done.seconds, 6),
        "queue_seconds": round(done.queue_seconds, 6),
    }


# ------------------------------------------------------------------------------------------ others


async def list_models(request: Request) -> Response:
    """`GET /v1/models`, OpenAI's list, with each model's task and family."""
    models = serve_state(request).models.values()
    return JSONResponse({"object": "list", "data": [_model_entry(model) for model in models]})


async def show_model(request: Request) -> Response:
    """`GET /v1/models/NAME`."""
    return JSONResponse(
        _model_entry(find_served_model(serve_state(request).models, request.path_params["name"]))
    )


def _model_entry(model: ServedModel) -> dict[str, object]:
    return {
        "id": model.id, "object": "model", "created": model.created, "owned_by": "kovqa",
        "task": model.task, "family": model.family, "top_k": model.top_k,
        "reads": model.reads,
    }  # fmt: skip


async def show_page(request: Request) -> Response:
    """`GET /`."""
    return HTMLResponse(serve_state(request).page)


async def list_examples(request: Request) -> Response:
    """`GET /v1/examples`: images to try, and a question about each."""
    scenes = await asyncio.to_thread(example_scenes)
    entries = [
        {"image": f"/v1/examples/{number}.png", "question": scene.question}
        for number, scene in enumerate(scenes, 1)
    ]
    return JSONResponse({"schema": REPLY_SCHEMA, "examples": entries})


async def show_example(request: Request) -> Response:
    """`GET /v1/examples/N.png`."""
    number = request.path_params["number"]
    scenes = await asyncio.to_thread(example_scenes)
    if not 1 <= number <= len(scenes):
        raise HTTPException(404)
    return Response(scenes[number - 1].image, media_type="image/png")


async def say_healthy(request: Request) -> Response:
    """`GET /healthz`."""
    return JSONResponse({"status": "ok"})


async def show_openapi(request: Request) -> Response:
    """`GET /openapi.json`."""
    return JSONResponse(openapi_document())


async def show_metrics(request: Request) -> Response:
    """`GET /metrics`, for Prometheus."""
    state = serve_state(request)
    text = state.metrics.text(state.queue.waiting())
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


ROUTES = [
    Route("/", show_page),
    Route("/healthz", say_healthy),
    Route("/metrics", show_metrics),
    Route("/openapi.json", show_openapi),
    Route("/v1/models", list_models),
    Route("/v1/models/{name:path}", show_model),
    Route("/v1/vqa", answer_question, methods=["POST"]),
    Route("/v1/caption", caption_image, methods=["POST"]),
    Route("/v1/explain", explain_question, methods=["POST"]),
    Route("/v1/transcribe", transcribe_speech, methods=["POST"]),
    Route("/v1/chat/completions", complete_chat, methods=["POST"]),
    Route("/v1/examples", list_examples),
    Route("/v1/examples/{number:int}.png", show_example),
]
