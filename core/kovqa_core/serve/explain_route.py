"""`POST /v1/explain`: where an answer comes from, as a transparent image to lay over the one that was sent."""

from __future__ import annotations

import base64
import math

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kovqa_core.answer.job import require_question
from kovqa_core.data.image_io import open_image
from kovqa_core.explain.draw_heat import OVERLAY_SIDE, overlay_png
from kovqa_core.explain.explanation import Explanation, explain_answer
from kovqa_core.messages import Message
from kovqa_core.serve.ask_requests import read_asked_question, require_read_fields
from kovqa_core.serve.served_models import find_served_model
from kovqa_core.serve.state import REPLY_SCHEMA, json_score, serve_state


async def explain_question(request: Request) -> Response:
    """The heat, the words' effects and the answer; asks the model some hundred times, others wait meanwhile."""
    state = serve_state(request)
    state.queue.require_room()
    asked = await read_asked_question(request, state.fetch_image)
    model = find_served_model(state.models, asked.model)
    require_read_fields(asked, model, explains=True)
    question = require_question(asked.question) if model.task == "vqa" else ""

    def explain() -> tuple[Explanation, bytes]:
        explanation = explain_answer(model.loaded, asked.image, question, method=asked.method)
        return explanation, overlay_png(explanation, *open_image(asked.image, OVERLAY_SIDE).size)

    done = await state.queue.call(model.id, explain)
    explanation, overlay = done.result
    return JSONResponse(
        {
            "schema": REPLY_SCHEMA,
            "model": model.id,
            "heat": f"data:image/png;base64,{base64.b64encode(overlay).decode()}",
            "words": [{"word": each.word, "effect": finite(each.effect)} for each in explanation.words],
            "method": explanation.method,
            "doubt": _doubt_fields(explanation.doubt),
            "answer": explanation.answer.text,
            "score": json_score(explanation.answer.score),
            "seconds": round(done.seconds, 6),
            "queue_seconds": round(done.queue_seconds, 6),
        }
    )


def finite(value: float) -> float:
    """JSON knows neither nan nor infinity: a word without which the answer is impossible takes all."""
    return value if math.isfinite(value) else math.copysign(1e9, value) if not math.isnan(value) else 0.0


def _doubt_fields(doubt: Message | None) -> dict[str, str] | None:
    return None if doubt is None else {"message": str(doubt), "code": doubt.key}
