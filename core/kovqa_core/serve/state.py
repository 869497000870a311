"""What the routes of a server share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.requests import Request

from kovqa_core.serve.ask_requests import FetchImage
from kovqa_core.serve.batch_queue import BatchQueue
from kovqa_core.serve.metrics import Metrics
from kovqa_core.serve.served_models import ServedModel


@dataclass(frozen=True)
class ServeState:
    """Of one server.

    Attributes:
        models: by their names; the first that can do a task answers requests that name none.
        queue: what waits for them.
        metrics: counts.
        fetch_image: of images by address.
        page: the page, whole.
    """

    models: Mapping[str, ServedModel]
    queue: BatchQueue
    metrics: Metrics
    fetch_image: FetchImage
    page: str


def serve_state(request: Request) -> ServeState:
    """What `serve.app.build_app` made."""
    state = request.app.state.serve
    assert isinstance(state, ServeState)
    return state
