"""Real models behind the server: the answers are those of `kovqa predict`, and none is lost when it ends."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2
import openai
import pytest
from kovqa_core.answer.ask_model import ImageQuestion, ask_model
from kovqa_core.answer.chat_completions import request_chat_answer
from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.local import load_model
from kovqa_core.answer.server_requests import connect_server
from kovqa_core.data.example import Answer, Example
from kovqa_core.index.reader import open_index
from kovqa_core.serve.openapi import openapi_document
from kovqa_core.serve.served_models import load_served_models
from kovqa_core.serve.server import guarded_app
from PIL import Image

from tests.conftest import Small, clean_env, command
from tests.serve.conftest import OPTIONS, no_log
from tests.serve.test_chat_routes import user
from tests.web.servers import serving


def test_a_vision_language_model_tells_its_answer_token_by_token(
    small: Small, tiny_vlm: Callable[[str], Path]
) -> None:
    """And kovqa's own client has the answers that kovqa has without a server."""
    folder = tiny_vlm("qwen3_vl")
    models = load_served_models([folder], AnswerOptions())
    (name,) = models
    image = next((small.root / "images").glob("*.png"))
    local = load_model(AnswerOptions(folder))
    question = "무슨 색인가요?"
    (expected,) = ask_model(local, [ImageQuestion(image, question)])
    assert isinstance(expected, Answer)
    data = f"data:image/png;base64,{base64.b64encode(image.read_bytes()).decode()}"
    with serving(guarded_app(models, OPTIONS, "", no_log)) as url:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
            stream = client.chat.completions.create(
                model=name, messages=user(question, data), stream=True, logprobs=True
            )
            chunks = [choice for chunk in stream for choice in chunk.choices]
        with connect_server(f"{url}/v1") as server:
            found = request_chat_answer(server, name, Example("", image.name, question), image.parent)
    texts = [choice.delta.content for choice in chunks if choice.delta.content]
    assert "".join(texts) == found.text == expected.text
    assert len(texts) > 1
    assert found.score == pytest.approx(expected.score, abs=1e-6)


def test_an_explanation_lies_over_the_image(small: Small, trained: Path) -> None:
    models = load_served_models([trained], AnswerOptions())
    image = next((small.root / "images").glob("*.png"))
    wide = io.BytesIO()
    Image.open(image).resize((128, 64)).save(wide, "PNG")
    required = openapi_document()["paths"]["/v1/explain"]["post"]["responses"]["200"]  # type: ignore[index]
    with serving(guarded_app(models, OPTIONS, "", no_log)) as url, httpx2.Client(timeout=30) as client:

        def explain(data: bytes, **fields: str) -> httpx2.Response:
            return client.post(f"{url}/v1/explain", files={"image": ("a.png", data)}, data=fields)

        reply = explain(wide.getvalue(), question="하트가 있나요?", method="rollout").json()
        assert set(reply) == set(required["content"]["application/json"]["schema"]["required"])
        kind, _, text = reply["heat"].partition(",")
        assert kind == "data:image/png;base64"
        with Image.open(io.BytesIO(base64.b64decode(text))) as heat:
            assert (heat.mode, heat.size) == ("RGBA", (128, 64))
        assert [each["word"] for each in reply["words"]] == ["하트가", "있나요?"]
        assert (reply["method"], reply["answer"]) == ("rollout", "예")
        assert explain(b"text", question="뭐?").json()["error"]["code"] == "data.image-unreadable"
        assert explain(wide.getvalue()).json()["error"]["code"] == "answer.empty-question"


TOKEN = "0123456789abcdef"


@contextlib.contextmanager
def running_command(
    folder: Path, *words: object
) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    """`kovqa serve` as a user starts it, and what it said when it was ready."""
    environment = clean_env(KOVQA_SERVE_TOKEN=TOKEN)
    with subprocess.Popen(
        command(["serve", "--port", 0, "--json", *words]), cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            yield process, json.loads(line)
        finally:
            process.kill()


def test_answers_are_predicts_and_a_signal_loses_none(small: Small, trained: Path, tmp_path: Path) -> None:
    """Two models of one name, 12 clients at once, SIGTERM while they ask."""
    rows = list(open_index(small.index).split("val"))[:24]
    questions = [ImageQuestion(small.root / "images" / Path(row.image).name, row.question) for row in rows]
    answers = ask_model(load_model(AnswerOptions(trained)), questions)
    # A model of six steps says the same of all, but not with the same score.
    expected = [answer.score for answer in answers if isinstance(answer, Answer)]
    assert len({round(score, 5) for score in expected}) > 15
    found: dict[tuple[str, int], float] = {}
    failed: list[Exception] = []
    with running_command(
        tmp_path, "--model", trained, "--model", trained, "--max-wait-ms", 900, "--batch", 6
    ) as (
        process,
        ready,
    ):
        assert ready["token"] is True
        names = [str(model["id"]) for model in ready["models"]]  # type: ignore[attr-defined]
        assert names == [trained.name, f"{trained.name}-2"]

        def ask(numbers: Sequence[int], model: str) -> None:
            with httpx2.Client(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30) as client:
                for number in numbers:
                    image, fields = (
                        questions[number].image,
                        {"question": questions[number].question, "model": model},
                    )
                    assert isinstance(image, Path)
                    files = {"image": ("x.png", image.read_bytes())}
                    try:
                        reply = client.post(f"{ready['url']}/v1/vqa", files=files, data=fields)
                    except httpx2.ConnectError as error:  # no more are accepted
                        failed.append(error)
                        return
                    assert reply.status_code == 200, reply.text
                    found[model, number] = reply.json()["score"]

        threads = [
            threading.Thread(target=ask, args=(range(first, 24, 6), name))
            for first in range(6)
            for name in names
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wanted = {(name, number): expected[number] for name in names for number in range(24)}
        assert found == pytest.approx(wanted, abs=5e-6)
        assert not failed
        found.clear()
        asking = threading.Thread(target=ask, args=([0], names[0]))
        asking.start()
        counts, deadline = "", time.monotonic() + 10
        while "kovqa_queue_length 1" not in counts:
            assert time.monotonic() < deadline
            counts = httpx2.get(f"{ready['url']}/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
        process.send_signal(signal.SIGTERM)  # while it waits for others
        asking.join()
        assert found == pytest.approx({(names[0], 0): expected[0]}, abs=5e-6)
        assert process.wait(20) == 128 + signal.SIGTERM
        assert process.stderr is not None
        assert TOKEN not in process.stderr.read()
