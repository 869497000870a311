"""One question to `kovqa serve`: the whole file of the image and the bare question, as a model here would get them.

So the answers are those of the same model without a server. Nothing here needs torch.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from kovqa_core.answer.server_requests import (
    ModelServer,
    RefusedQuestion,
    ServedModel,
    UnreadableImage,
    request_reply,
)
from kovqa_core.data.decoding import one_answer_error
from kovqa_core.data.example import Answer, Example
from kovqa_core.data.image_io import open_image
from kovqa_core.data.image_source import read_image_bytes
from kovqa_core.data.tar_images import find_in_tar
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.messages import message
from kovqa_core.progress import OnProgress, ignore_progress

# Keys of the server's messages that are about the image alone.
_IMAGE_CODES = ("data.image", "vlm.image")


class _LikelyAnswer(BaseModel):
    answer: str
    score: float | None


class _Reply(BaseModel):
    answer: str | None = None
    caption: str | None = None
    score: float | None
    likeliest: Sequence[_LikelyAnswer] = ()


def request_kovqa_answer(
    server: ModelServer,
    served: ServedModel,
    example: Example,
    image_folder: Path,
    top_k: int,
    on_progress: OnProgress = ignore_progress,
) -> Answer:
    """The answer to one question, or the caption of its image.

    Args:
        server: where to.
        served: the model; its task says which of the two.
        example: the question. What the model does not read of it is not sent.
        image_folder: folder that its image path starts from.
        top_k: likeliest answers that are wanted.
        on_progress: called when the server is out of reach and the request will be repeated.

    Raises:
        UnreadableImage: the image cannot be read, here or there.
        KovqaError: as `request_reply`.
    """
    path = image_folder / example.image
    body: dict[str, object] = {"model": served.id, "image": base64.b64encode(_read_image_file(path)).decode()}
    if served.task == "vqa":
        body |= {"question": example.question, "top_k": top_k}
        if "context" in served.reads and example.context:
            body["context"] = example.context
        if "choices" in served.reads and example.choices:
            body["choices"] = list(example.choices)
    try:
        reply = request_reply(server, f"/{served.task}", _Reply, body, on_progress)
    except RefusedQuestion as error:
        if not error.code.startswith(_IMAGE_CODES):
            raise
        _open_image(path)  # which says what is wrong, and names the file
        raise UnreadableImage(error.message, error.hint) from None
    text = reply.answer if served.task == "vqa" else reply.caption
    likeliest = tuple((each.answer, _score(each.score)) for each in reply.likeliest)
    # Of a row without choices a model that chooses has one answer alone.
    has_others = top_k > 1 and len(likeliest) > 1
    return Answer(text or "", _score(reply.score), likeliest if has_others else ())


def _score(score: float | None) -> float:
    return math.nan if score is None else score


def _read_image_file(path: Path) -> bytes:
    try:
        if path.is_file() or find_in_tar(path):  # a pipe would be waited for
            return read_image_bytes(path)
    except (OSError, DataError):
        pass
    _open_image(path)
    raise UnreadableImage(message("data.image-missing", "image {file} is missing", file=path))


def _open_image(path: Path) -> None:
    """See whether an image can be read here.

    Raises:
        UnreadableImage: it cannot.
    """
    try:
        open_image(path)
    except DataError as error:
        raise UnreadableImage(error.message, error.hint) from None


def require_top_k(served: ServedModel, top_k: int) -> None:
    """See that a served model lists so many of the likeliest answers.

    Raises:
        SettingsError: it does not.
    """
    if top_k == 1:
        return
    name = message("answer.served-model", "model {name} of this server", name=served.id)
    if not served.is_kovqa or served.top_k == 1:
        raise one_answer_error(name)
    if top_k > served.top_k:
        raise SettingsError(
            message(
                "answer.served-top-k", "{model} lists {most} of the likeliest answers at most, not {top_k}",
                model=name, most=served.top_k, top_k=top_k,
            ),
            message("answer.served-top-k.hint", "use --top-k {most}", most=served.top_k),
        )  # fmt: skip
