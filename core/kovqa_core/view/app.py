"""The page of `kovqa view` and what it asks for: an ASGI application over one session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.example import Example, json_line
from kovqa_core.errors import DataError
from kovqa_core.evaluate.answer_statistics import TRAINING_COUNT_BINS
from kovqa_core.evaluate.likeliest_column import parse_likeliest
from kovqa_core.messages import Message, message, shell_quote
from kovqa_core.messages.languages import LANGUAGES, translate
from kovqa_core.messages.readable_name import readable_name
from kovqa_core.view.export import EXPORT_TYPES, export_rows
from kovqa_core.view.filters import ROWS_OF_A_PAGE, parse_filter, parse_page
from kovqa_core.view.queries import ViewQueries, calibration_error
from kovqa_core.view.session import ViewSession
from kovqa_core.view.thumbnails import SIDES
from kovqa_core.web.http_errors import ERROR_HANDLERS, RefusedRequest
from kovqa_core.web.http_server import LOCAL_HOSTS, guard_app
from kovqa_core.web.page_template import render_page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp

_TEMPLATE_FILE = Path(__file__).with_name("view.html")
_MAX_BODY_BYTES = 1 << 16
_MAX_TYPES = 500  # in the page's choice of question types
_MAX_TEXTS = 20  # true answers, captions or choices of a row


def make_app(session: ViewSession) -> ASGIApp:
    """The application: `/` is the page, `/image` an image, `/export` a table, all else JSON.

    Every handler is a plain function, which starlette runs in a thread: a slow count holds nobody up.
    """
    from starlette.applications import Starlette
    from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
    from starlette.routing import Route

    splits = list(session.inputs.splits)

    def page(request: Request) -> Response:
        inputs = session.inputs
        return HTMLResponse(
            render_page(
                _TEMPLATE_FILE, name=inputs.name, images=shell_quote(inputs.images),
                of_captions=inputs.task == "caption",
            )
        )  # fmt: skip

    def state(request: Request) -> Response:
        return JSONResponse(_session_state(session))

    def rows(request: Request) -> Response:
        return JSONResponse({"rows": _page_rows(session, request.query_params)})

    def row(request: Request) -> Response:
        split, line = _row_place(session, request)
        found = session.queries.row(split, line) if session.queries else None
        return JSONResponse(_row_fields(session, split, line, found or {}, whole=True))

    def image(request: Request) -> Response:
        split, line = _row_place(session, request)
        side = request.query_params.get("side", str(SIDES[0]))
        if side not in map(str, SIDES):
            raise _refuse(400, message("view.bad-side", "no images of {side} pixels here", side=side))
        name = session.inputs.splits[splits[split]][line].image
        try:
            jpeg = session.thumbnails.jpeg(name, int(side))
        except DataError as error:
            raise _refuse(404, error.message) from None
        return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})

    def export(request: Request) -> Response:
        form = request.query_params.get("format", "csv")
        if form not in EXPORT_TYPES:
            raise _refuse(400, message("view.bad-format", "no table of the format '{name}' here", name=form))
        chosen = parse_filter(request.query_params, splits)
        parts = export_rows(session, _require_queries(session), chosen, form)
        headers = {"Content-Disposition": f'attachment; filename="kovqa-selection.{form}"'}
        return StreamingResponse(parts, media_type=EXPORT_TYPES[form], headers=headers)

    def count(ask: Callable[[ViewQueries, Mapping[str, str]], object]) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            return JSONResponse(ask(_require_queries(session), request.query_params))

        return answer

    routes: dict[str, Callable[[Request], Response]] = {
        "/": page,
        "/state": state,
        "/rows": rows,
        "/row": row,
        "/image": image,
        "/export": export,
    }
    routes |= {path: count(ask) for path, ask in _counts(splits).items()}
    app = Starlette(
        routes=[Route(path, handler) for path, handler in routes.items()],
        exception_handlers=dict(ERROR_HANDLERS),
    )
    return guard_app(app, token="", allowed_hosts=LOCAL_HOSTS, max_body_bytes=_MAX_BODY_BYTES)


def _counts(splits: Sequence[str]) -> dict[str, Callable[[ViewQueries, Mapping[str, str]], object]]:
    """Path -> what is counted for it."""
    return {
        "/summary": lambda queries, query: queries.summary(parse_filter(query, splits)),
        "/answers": lambda queries, query: queries.answers(parse_filter(query, splits)),
        "/frequency": lambda queries, query: (
            queries.frequency(parse_filter(query, splits)) if "train" in splits else []
        ),
        "/questions": lambda queries, query: queries.questions(parse_filter(query, splits)),
        "/confusion": lambda queries, query: {
            model: queries.confusion(parse_filter(query, splits), model) for model in ("a", "b")
        },
        "/calibration": lambda queries, query: _calibration(queries, query, splits),
    }


def _calibration(queries: ViewQueries, query: Mapping[str, str], splits: Sequence[str]) -> dict[str, object]:
    from kovqa_core.view.charts import calibration_chart  # not at the top: the first view goes without

    chosen = parse_filter(query, splits)
    bins = {model: queries.calibration(chosen, model) for model in ("a", "b")}
    return {
        **{model: {"bins": each, "error": calibration_error(each)} for model, each in bins.items()},
        "chart": calibration_chart(bins),
    }


def _refuse(status: int, text: Message | str) -> RefusedRequest:
    return RefusedRequest(
        status, text if isinstance(text, Message) else message("view.refused", "{text}", text=text)
    )


def _require_queries(session: ViewSession) -> ViewQueries:
    if session.queries is None:
        raise _refuse(503, message("view.not-ready", "it is still being counted"))
    return session.queries


def _session_state(session: ViewSession) -> dict[str, object]:
    """What the page asks for until all is there."""
    inputs, queries, progress = session.inputs, session.queries, session.progress
    fields: dict[str, object] = {
        "ready": queries is not None,
        "step": progress.stage.key if isinstance(progress.stage, Message) else "",
        "done": progress.done,
        "steps": progress.total,
        "name": inputs.name,
        "key": session.key,
        "task": inputs.task,
        "splits": [{"name": name, "rows": len(split)} for name, split in inputs.splits.items()],
        "first_split": inputs.first_split,
        "models": [path.name for path in inputs.predictions],
        "images": str(inputs.images),
        "page_rows": ROWS_OF_A_PAGE,
        "frequency_edges": TRAINING_COUNT_BINS,
    }
    if queries is not None:
        facts = parse_json(queries.facts())
        fields |= {
            "first_split": facts["answered_split"] or inputs.first_split,
            "answered_split": facts["answered_split"],
            "predictions": facts["predictions"],
            "types": queries.split_types()[:_MAX_TYPES],
        }
    return fields


def _page_rows(session: ViewSession, query: Mapping[str, str]) -> list[dict[str, object]]:
    """Rows of a page; while the database is being made, those of a split in its order."""
    splits = list(session.inputs.splits)
    chosen, page = parse_filter(query, splits), parse_page(query)
    if session.queries is not None:
        found = session.queries.rows(chosen, page)
    else:
        number = splits.index(chosen.split or session.inputs.first_split)
        rows = len(session.inputs.splits[splits[number]])
        first = min(page * ROWS_OF_A_PAGE, rows)
        found = [{"split": number, "line": line} for line in range(first, min(first + ROWS_OF_A_PAGE, rows))]
    return [_row_fields(session, row["split"], row["line"], row) for row in found]


def _row_place(session: ViewSession, request: Request) -> tuple[int, int]:
    """The split's number and the line's that an address names."""
    numbers = [request.query_params.get(name, "") for name in ("split", "line")]
    if all(text.isascii() and text.isdecimal() and len(text) < 12 for text in numbers):
        split, line = map(int, numbers)
        splits = list(session.inputs.splits.values())
        if split < len(splits) and line < len(splits[split]):
            return split, line
    raise _refuse(404, message("view.no-such-row", "there is no such row"))


def _row_fields(
    session: ViewSession, split: int, line: int, found: Mapping[str, Any], *, whole: bool = False
) -> dict[str, object]:
    """A row as the page shows it.

    Args:
        session: with the splits.
        split, line: where it stands.
        found: what the database has of it.
        whole: with what only the view of one row has.
    """
    place: dict[str, object] = {"split": split, "line": line}
    try:
        example = list(session.inputs.splits.values())[split][line]
    except DataError as error:  # changed since, or a line that only another version reads
        said = {language: translate(error.message, language) for language in LANGUAGES}
        return {**place, "id": "", "image": "", "question": "", "fault": str(error.message), "fault_in": said}
    fields = {**place, **_example_fields(example), "models": _model_fields(found)}
    if whole:
        fields |= {
            "choices": list(example.choices[:_MAX_TEXTS]), "context": example.context,
            "annotations": list(example.annotations[:_MAX_TEXTS]), "columns": _column_texts(example),
            "trained": found.get("trained") if "train" in session.inputs.splits else None,
            "likeliest": {model: parse_likeliest(found.get(f"{model}_likeliest"))[:_MAX_TEXTS] for model in ("a", "b")},
        }  # fmt: skip
    return fields


def _column_texts(example: Example) -> list[tuple[str, str]]:
    """The table's other columns that say something, such as what a judge goes by: names and texts."""
    cells = [(name, cell) for name, cell in example.columns.items() if cell not in (None, "")]
    return [(name, cell if isinstance(cell, str) else json_line(cell)) for name, cell in cells[:_MAX_TEXTS]]


def _example_fields(example: Example) -> dict[str, object]:
    answers = sorted(example.answers.items(), key=lambda pair: -pair[1])[:_MAX_TEXTS]
    return {
        "id": example.id,
        "image": readable_name(example.image),
        "question": example.question,
        "type": example.question_type,
        "answers": [{"answer": answer, "score": score} for answer, score in answers],
        "captions": list(example.captions[:_MAX_TEXTS]),
    }


def _model_fields(found: Mapping[str, Any]) -> list[dict[str, object]]:
    """Each model's answer to a row that it answered."""
    return [
        {
            "model": model,
            **{name: found.get(f"{model}_{name}") for name in ("answer", "score", "right", "confidence")},
        }
        for model in ("a", "b")
        if found.get(f"{model}_answer") is not None
    ]
