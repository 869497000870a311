"""A server in this process whose models only repeat what they were given; and real ones where answers count."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest
from kovqa_core.answer.ask_model import ImageQuestion
from kovqa_core.answer.local import LoadedModel
from kovqa_core.answer.partial_file import RowFault
from kovqa_core.data.example import Answer
from kovqa_core.messages import message
from kovqa_core.serve import app as serve_app
from kovqa_core.serve.batch_queue import QueueLimits
from kovqa_core.serve.served_models import ServedModel
from kovqa_core.serve.server import ServeOptions, guarded_app
from PIL import Image

from tests.web.servers import serving


def png(colour: str = "red") -> bytes:
    """A small image."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(stream, "PNG")
    return stream.getvalue()


@dataclass
class RepeatingModels:
    """Answers that say what was asked, about which image; `hold` keeps them back, `batches` has their sizes."""

    hold: threading.Event = field(default_factory=threading.Event)
    batches: list[int] = field(default_factory=list)

    def ask(
        self, loaded: LoadedModel, questions: Sequence[ImageQuestion], *, batch: int | None = None
    ) -> list[Answer | RowFault]:
        self.batches.append(len(questions))
        self.hold.wait(20)
        return [self._answer(str(loaded), question) for question in questions]

    def _answer(self, name: str, question: ImageQuestion) -> Answer | RowFault:
        assert isinstance(question.image, bytes)
        if not question.image.startswith(b"\x89PNG"):
            return RowFault(message("data.image-unreadable", "image cannot be read"))
        digest = hashlib.sha256(question.image).hexdigest()[:6]
        text = "|".join((name, question.context, question.question, digest))
        if name == "이야기":
            return Answer(text, 0.5)
        return Answer(text, 0.5, ((text, 0.5), ("둘째", 0.25), ("셋째", 0.0)))


def served(name: str, task: str, family: str, top_k: int) -> ServedModel:
    """A model of the server, without a network."""
    reads = ("context", "choices") if task == "vqa" else ()
    return ServedModel(name, cast(LoadedModel, name), task, family, top_k, 1_700_000_000, reads=reads)


MODELS = {
    model.id: model
    for model in (
        served("모양", "vqa", "beit3", 20),
        served("설명", "caption", "beit3", 1),
        served("이야기", "vqa", "vlm", 1),
    )
}
OPTIONS = ServeOptions(
    limits=QueueLimits(max_batch=4, max_wait_seconds=0.02, max_waiting=8, timeout_seconds=5),
    max_body_bytes=200_000,
)


def no_log(method: str, path: str, status: int, seconds: float) -> None:
    """A server that says nothing of its replies."""


@pytest.fixture(scope="module")
def repeating_models() -> Iterator[RepeatingModels]:
    models = RepeatingModels()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve_app, "ask_model", models.ask)
        yield models


@pytest.fixture
def repeating(repeating_models: RepeatingModels) -> RepeatingModels:
    """What the models do: answer at once, until a test says otherwise."""
    repeating_models.hold.set()
    repeating_models.batches.clear()
    return repeating_models


@pytest.fixture(scope="module")
def server_url(repeating_models: RepeatingModels) -> Iterator[str]:
    with serving(guarded_app(MODELS, OPTIONS, "", no_log)) as address:
        yield address


@pytest.fixture
def url(repeating: RepeatingModels, server_url: str) -> str:
    """A server of three models."""
    return server_url
