"""What the routes of a server share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request

from kovqa_core.serve.ask_requests import FetchImage
from kovqa_core.serve.batch_queue import AnswerBatch, BatchQueue
from kovqa_core.serve.metrics import Metrics
from kovqa_core.serve.served_models import ServedModel

REPLY_SCHEMA = 1
Transcribe = Callable[[bytes], str]


@dataclass(frozen=True)
class ServeState:
    """Of one server.

    Attributes:
        models: by their names; the first that can do a task answers requests that name none.
        answer_batch: how they answer, in the thread of the queue.
        queue: what waits for them.
        metrics: counts.
        fetch_image: of images by address.
        page: the page, whole.
        transcribe: what is said in a sound, a whole file's bytes; None: the server has no model of speech.
    """

    models: Mapping[str, ServedModel]
    answer_batch: AnswerBatch
    queue: BatchQueue
    metrics: Metrics
    fetch_image: FetchImage
    page: str
    transcribe: Transcribe | None = None


def serve_state(request: Request) -> ServeState:
    """What `serve.app.build_app` made."""
    state = request.app.state.serve
    assert isinstance(state, ServeState)
    return state


def json_score(score: float) -> float | None:
    """A score; None where a model says none: JSON knows no nan."""
    return score if score == score else None
