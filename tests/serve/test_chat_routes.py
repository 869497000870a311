"""OpenAI's form, asked by OpenAI's own client."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest
from kovqa_core.data.question_prompts import build_prompt
from kovqa_core.serve.server import guarded_app

from tests.serve.conftest import MODELS, OPTIONS, RepeatingModels, no_log, png
from tests.web.servers import serving

IMAGE = f"data:image/png;base64,{base64.b64encode(png()).decode()}"


def user(text: str, *images: str) -> list[Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": image}} for image in images or (IMAGE,)]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def test_openais_client_lists_models_and_asks(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == list(MODELS)
    assert client.models.retrieve("설명").owned_by == "kovqa"
    reply = client.chat.completions.create(
        model="모양", messages=user("무슨 색이야?"), logprobs=True, top_logprobs=3, temperature=0
    )
    (choice,) = reply.choices
    assert (choice.message.content or "").startswith("모양||무슨 색이야?|")
    assert (choice.finish_reason, reply.model, reply.object) == ("stop", "모양", "chat.completion")
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    (token,) = choice.logprobs.content
    assert token.logprob == math.log(0.5)
    assert [round(math.exp(top.logprob), 3) for top in token.top_logprobs] == [0.5, 0.25, 0.0]
    caption = client.chat.completions.create(model="설명", messages=user(""))
    assert (caption.choices[0].message.content or "").startswith("설명|||")
    assert caption.choices[0].logprobs is None


def test_a_prompt_of_ours_is_the_bare_question(client: openai.OpenAI) -> None:
    prompt = build_prompt("무슨 색이야?", "auto")
    assert prompt != "무슨 색이야?"
    for text in (prompt, "무슨 색이야?", build_prompt("무슨 색이야?", "en")):
        reply = client.chat.completions.create(model="모양", messages=user(text))
        assert (reply.choices[0].message.content or "").startswith("모양||무슨 색이야?|")


def test_what_a_model_cannot_follow_is_named(client: openai.OpenAI) -> None:
    def ignored(model: str, **fields: Any) -> object:
        reply = client.chat.completions.create(model=model, messages=user("뭐?"), **fields)
        return reply.model_extra and reply.model_extra["ignored"]

    assert ignored("모양", temperature=0, top_p=1, max_tokens=16, seed=3, user="나") == []
    assert ignored("모양", temperature=0.7, stop="x") == ["temperature", "stop"]
    assert ignored("이야기", max_tokens=16) == ["max_tokens"]
    assert ignored("모양", top_logprobs=3) == ["top_logprobs"]
    assert ignored("설명") == ["messages.text"]


def test_a_wrong_part_is_named_as_what_it_is(url: str) -> None:
    content = [{"type": "input_audio", "input_audio": {}}]
    body = {"model": "모양", "messages": [{"role": "user", "content": content}]}
    said = httpx2.post(f"{url}/v1/chat/completions", json=body).json()["error"]["message"]
    assert said.startswith("messages.0.content.parts.0: ")
    assert "input_audio" in said


@pytest.mark.parametrize("model", ["모양", "설명", "이야기"])
def test_a_stream_is_the_same_answer(client: openai.OpenAI, model: str) -> None:
    whole = client.chat.completions.create(model=model, messages=user("뭐?"))
    chunks = list(
        client.chat.completions.create(
            model=model, messages=user("뭐?"), stream=True, stream_options={"include_usage": True}
        )
    )
    texts = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(texts) == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert "stream_options.include_usage" in (chunks[-1].model_extra or {})["ignored"]
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"messages": []}, "serve.bad-field"),
        ({"messages": user("a") + user("b")}, "serve.one-message"),
        ({"messages": [{"role": "system", "content": "a"}]}, "serve.one-message"),
        ({"messages": [{"role": "user", "content": "a"}]}, "serve.one-image"),
        ({"messages": user("a", IMAGE, IMAGE)}, "serve.one-image"),
        ({"messages": user("")}, "answer.empty-question"),
        ({"messages": user(build_prompt("", "en"))}, "answer.empty-question"),
        ({"messages": user("a", "http://localhost/a.png")}, "serve.no-addresses"),
        ({"messages": user("a", "file:///etc/passwd")}, "serve.not-base64"),
        ({"messages": user("a", "data:image/png;base64,AAAA")}, "data.image-unreadable"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "serve.bad-field"),
        ({"n": 2}, "serve.bad-field"),
        ({"tools": []}, "serve.unknown-field"),
        ({"temperature": float("nan")}, "serve.bad-field"),
        ({"top_logprobs": 21}, "serve.bad-field"),
        ({"stream": "yes"}, "serve.bad-field"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_request_is_one_error(url: str, change: dict[str, Any], code: str, stream: bool) -> None:
    body = {"model": "이야기", "messages": user("뭐?"), "stream": stream, **change}
    # With json=, httpx2 refuses NaN; others send it.
    response = httpx2.post(
        f"{url}/v1/chat/completions", content=json.dumps(body), headers={"Content-Type": "application/json"}
    )
    assert (response.status_code, response.json()["error"]["code"]) == (400, code)


def test_openais_client_knows_our_errors(repeating: RepeatingModels) -> None:
    def ask(client: openai.OpenAI, **fields: Any) -> None:
        client.chat.completions.create(**{"model": "모양", "messages": user("뭐?"), **fields})

    with serving(guarded_app(MODELS, OPTIONS, "geheim-geheim-geheim", no_log)) as url:
        with (
            openai.OpenAI(base_url=f"{url}/v1", api_key="wrong", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError, match="needs its token"),
        ):
            ask(client)
        with openai.OpenAI(base_url=f"{url}/v1", api_key="geheim-geheim-geheim", max_retries=0) as client:
            with pytest.raises(openai.NotFoundError, match="there are: 모양"):
                ask(client, model="gpt-4o")
            with pytest.raises(openai.BadRequestError) as wrong:
                ask(client, messages=user(" "))
            assert wrong.value.code == "answer.empty-question"
            with pytest.raises(openai.APIStatusError) as large:
                ask(client, messages=user("a" * 300_000))
            assert large.value.status_code == 413
            ask(client)


def test_a_busy_server_is_a_rate_limit_and_its_answers_come(url: str, repeating: RepeatingModels) -> None:
    repeating.hold.clear()
    with openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0) as client:
        answers: dict[int, str] = {}

        def ask(number: int) -> None:
            reply = client.chat.completions.create(model="모양", messages=user(f"{number}번?"))
            answers[number] = reply.choices[0].message.content or ""

        def start(numbers: range) -> list[threading.Thread]:
            threads = [threading.Thread(target=ask, args=(number,)) for number in numbers]
            for thread in threads:
                thread.start()
            return threads

        threads = start(range(4))
        while not repeating.batches:
            time.sleep(0.01)
        threads += start(range(4, 12))
        counts = ""
        while "kovqa_queue_length 8" not in counts:
            counts = httpx2.get(f"{url}/metrics").text
        with pytest.raises(openai.RateLimitError) as busy:
            ask(99)
        assert int(busy.value.response.headers["Retry-After"]) >= 1
        repeating.hold.set()
        for thread in threads:
            thread.join()
    assert len(answers) == 12
    assert all(f"|{number}번?|" in text for number, text in answers.items())
