"""Questions and captions: as a form and as JSON, and every way to ask wrongly."""

from __future__ import annotations

import base64
import socket
import time

import httpx2
import pytest
from kovqa_core.serve.server import guarded_app

from tests.serve.conftest import MODELS, OPTIONS, RepeatingModels, no_log, png
from tests.web.servers import serving

RED = png()
CLIENT = httpx2.Client(trust_env=False)  # one for all: each reads all certificates
BASE64 = base64.b64encode(RED).decode()


def form(url: str, path: str = "/v1/vqa", image: bytes = RED, **fields: str) -> httpx2.Response:
    return CLIENT.post(url + path, files={"image": ("a.png", image)}, data=fields)


def code_of(response: httpx2.Response) -> str:
    error = response.json()["error"]
    assert error["message"]
    assert "\n" not in error["message"]
    return str(error["code"])


def test_a_form_and_json_are_answered_alike(url: str) -> None:
    by_form = form(url, question="무엇인가요?", context="글", top_k="2")
    asked = {"question": "무엇인가요?", "context": "글", "top_k": 2}
    for image in (
        BASE64,
        f"data:image/png;base64,{BASE64}",
        f"data:;base64,{BASE64}",
        base64.encodebytes(RED).decode(),
    ):
        by_json = CLIENT.post(f"{url}/v1/vqa", json={"image": image, **asked})
        assert by_json.status_code == 200
        assert by_json.json()["answer"] == by_form.json()["answer"]
    reply = by_form.json()
    assert reply["answer"].startswith("모양|글|무엇인가요?|")
    assert reply["likeliest"] == [
        {"answer": reply["answer"], "score": 0.5},
        {"answer": "둘째", "score": 0.25},
    ]
    assert (reply["schema"], reply["model"], reply["score"]) == (1, "모양", 0.5)
    assert 0 <= reply["seconds"] < 1
    assert 0 <= reply["queue_seconds"] < 1


def test_every_task_has_its_own_path_and_a_model_by_name(url: str) -> None:
    caption = form(url, "/v1/caption")
    assert caption.json()["caption"].startswith("설명|||")
    assert "answer" not in caption.json()
    named = form(url, question="뭐?", model="이야기", top_k="5").json()
    assert named["answer"].startswith("이야기||뭐?|")
    assert [each["answer"] for each in named["likeliest"]] == [named["answer"]]  # it has no others
    for path, model in (("/v1/vqa", "설명"), ("/v1/caption", "모양")):
        assert code_of(form(url, path, question="뭐?", model=model)) == "serve.other-task"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"question": ""}, 400, "answer.empty-question"),
        ({"question": " \n"}, 400, "answer.empty-question"),
        ({"question": "a" * 10_001}, 400, "serve.bad-field"),
        ({"question": "뭐?", "model": "모영"}, 404, "serve.no-such-model"),
        ({"question": "뭐?", "model": "/etc/passwd"}, 404, "serve.no-such-model"),
        ({"question": "뭐?", "modle": "모양"}, 400, "serve.unknown-field"),
        ({"question": "뭐?", "top_k": "NaN"}, 400, "serve.bad-field"),
        ({"question": "뭐?", "top_k": "0"}, 400, "serve.bad-field"),
        ({"question": "뭐?", "top_k": "21"}, 400, "serve.bad-field"),
        ({"question": "뭐?", "top_k": "-1"}, 400, "serve.bad-field"),
        ({"question": "뭐?", "top_k": "９"}, 400, "serve.bad-field"),
        ({"question": "뭐?", "method": "magic"}, 400, "serve.bad-field"),
        ({f"f{n}": "x" for n in range(8)}, 400, "web.unreadable-request"),
    ],
)
def test_a_wrong_field_is_one_error(url: str, fields: dict[str, str], status: int, code: str) -> None:
    response = form(url, **fields)
    assert (response.status_code, code_of(response)) == (status, code)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/v1/vqa", {"question": "뭐?", "method": "rollout"}),
        ("/v1/caption", {"question": "뭐?"}),
        ("/v1/explain", {"question": "뭐?", "context": "글"}),
        ("/v1/explain", {"question": "뭐?", "choices": "예|아니요"}),
    ],
)
def test_what_would_not_be_read_is_refused(url: str, path: str, fields: dict[str, str]) -> None:
    response = form(url, path, **fields)
    assert (response.status_code, code_of(response)) == (400, "serve.not-read")
    assert str(list(fields)[-1]) in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "serve.not-json"),
        (b"{", "serve.not-json"),
        (b"[" * 100_000, "serve.not-json"),
        (b'{"image": ' + b"[" * 300 + b"]" * 300 + b"}", "serve.not-json"),
        (b'{"image": "a", "top_k": ' + b"9" * 5000 + b"}", "serve.not-json"),
        (b"\xff\xfe\xff", "serve.not-json"),
        (b'{"image": "a", "image": "b"}', "serve.not-json"),
        (b"[]", "serve.not-an-object"),
        (b"null", "serve.not-an-object"),
        (b"{}", "serve.missing-field"),
        (b'{"image": 3}', "serve.bad-field"),
        (b'{"image": null}', "serve.bad-field"),
        (b'{"image": ["a"]}', "serve.bad-field"),
        (b'{"image": "' + BASE64.encode() + b'", "top_k": NaN}', "serve.bad-field"),
        (b'{"image": "' + BASE64.encode() + b'", "top_k": "3"}', "serve.bad-field"),
        (b'{"image": "' + BASE64.encode() + b'", "top_k": true}', "serve.bad-field"),
        (b'{"image": "' + BASE64.encode() + b'", "question": "\\ud800"}', "serve.bad-field"),
        (b'{"image": "/etc/passwd", "question": "a"}', "serve.not-base64"),
        (b'{"image": "file:///etc/passwd", "question": "a"}', "serve.not-base64"),
        (b'{"image": "data:image/png,abc", "question": "a"}', "serve.not-base64"),
        (b'{"image": "http://127.0.0.1/a.png", "question": "a"}', "serve.no-addresses"),
        (b'{"image": "HTTPS://example.com/a.png", "question": "a"}', "serve.no-addresses"),
    ],
)
def test_wrong_json_is_one_error(url: str, body: bytes, code: str) -> None:
    response = CLIENT.post(f"{url}/v1/vqa", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, code_of(response)) == (400, code)


def test_a_wrong_form_is_one_error(url: str) -> None:
    no_image = CLIENT.post(f"{url}/v1/vqa", files={"question": (None, "뭐?")})
    assert (no_image.status_code, code_of(no_image)) == (400, "serve.no-image")
    as_text = CLIENT.post(f"{url}/v1/vqa", files={"image": (None, "/etc/passwd"), "question": (None, "뭐?")})
    assert (as_text.status_code, code_of(as_text)) == (400, "serve.image-not-a-file")
    twice = CLIENT.post(
        f"{url}/v1/vqa", files=[("image", ("a", RED)), ("question", (None, "a")), ("question", (None, "b"))]
    )
    assert (twice.status_code, code_of(twice)) == (400, "serve.field-twice")
    two_images = CLIENT.post(f"{url}/v1/vqa", files=[("image", ("a", RED)), ("image", ("b", RED))])
    assert (two_images.status_code, code_of(two_images)) == (400, "web.unreadable-request")


def test_half_a_form_and_other_types_are_one_error(url: str) -> None:
    whole = httpx2.Request("POST", url, files={"image": ("a.png", RED)}, data={"question": "뭐?"})
    content, kind = whole.read(), whole.headers["content-type"]
    half = CLIENT.post(f"{url}/v1/vqa", content=content[: len(content) // 2], headers={"Content-Type": kind})
    assert half.status_code == 400
    assert code_of(half) in ("serve.no-image", "web.unreadable-request")
    for other in ("multipart/form-data", "multipart/form-data; boundary="):
        assert (
            CLIENT.post(f"{url}/v1/vqa", content=content, headers={"Content-Type": other}).status_code == 400
        )
    for other in ("text/plain", "application/x-www-form-urlencoded", "image/png", ""):
        response = CLIENT.post(f"{url}/v1/vqa", content=content, headers={"Content-Type": other})
        assert (response.status_code, code_of(response)) == (415, "serve.content-type")


def test_what_is_no_image_and_what_is_too_large(url: str) -> None:
    text = form(url, image="그림이 아닙니다".encode(), question="뭐?")
    assert (text.status_code, code_of(text)) == (400, "data.image-unreadable")
    empty = form(url, image=b"", question="뭐?")
    assert (empty.status_code, code_of(empty)) == (400, "data.image-unreadable")
    large = form(url, image=RED + bytes(200_000), question="뭐?")
    assert (large.status_code, code_of(large)) == (413, "web.body-too-large")


def test_a_failing_model_is_a_500_and_the_next_question_is_answered(
    url: str, repeating: RepeatingModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(RepeatingModels, "_answer", lambda *_: 1 / 0)
        failed = form(url, question="뭐?")
    assert (failed.status_code, code_of(failed)) == (500, "web.server-fault")
    assert "division" not in failed.text
    assert form(url, question="뭐?").status_code == 200


def test_a_client_that_leaves_is_no_fault_of_the_server(repeating: RepeatingModels) -> None:
    """Nor is a path with a slash behind it sent on: to http, where a server with https may stand before this one."""
    replies: list[tuple[str, int]] = []
    app = guarded_app(MODELS, OPTIONS, "x" * 16, lambda _, path, status, __: replies.append((path, status)))
    bearer = {"Authorization": f"Bearer {'x' * 16}", "Host": "vqa.example", "Origin": "https://vqa.example"}
    with serving(app) as url:
        host, port = url.removeprefix("http://").split(":")
        for kind in ("application/json", "multipart/form-data; boundary=x"):
            with socket.create_connection((host, int(port))) as client:
                head = {**bearer, "Content-Type": kind, "Content-Length": "100"}
                lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
                client.sendall(f"POST /v1/vqa HTTP/1.1\r\n{lines}\r\n--x".encode())
                time.sleep(0.05)
        assert CLIENT.post(f"{url}/v1/vqa/", headers=bearer).status_code == 404
        # With a token the name is another server's, which stands before this one.
        assert CLIENT.get(f"{url}/v1/models/모양", headers=bearer).status_code == 200
        counts = CLIENT.get(f"{url}/metrics", headers=bearer).text
    assert replies[:2] == [("/v1/vqa", 400)] * 2
    assert 'kovqa_requests_total{path="/v1/models/{name:path}",status="200"} 1' in counts


def test_models_examples_and_counts(repeating: RepeatingModels) -> None:
    with serving(guarded_app(MODELS, OPTIONS, "", no_log)) as url:
        check_models_examples_and_counts(url)


def check_models_examples_and_counts(url: str) -> None:
    models = CLIENT.get(f"{url}/v1/models").json()
    assert models["object"] == "list"
    assert [(m["id"], m["task"], m["family"], m["owned_by"]) for m in models["data"]] == [
        ("모양", "vqa", "beit3", "kovqa"), ("설명", "caption", "beit3", "kovqa"), ("이야기", "vqa", "vlm", "kovqa"),
    ]  # fmt: skip
    assert CLIENT.get(f"{url}/v1/models/모양").json() == models["data"][0]
    assert code_of(CLIENT.get(f"{url}/v1/models/없음")) == "serve.no-such-model"
    examples = CLIENT.get(f"{url}/v1/examples").json()["examples"]
    assert len({example["question"] for example in examples}) == len(examples) == 6
    for example in examples:
        image = CLIENT.get(url + example["image"])
        assert image.headers["content-type"] == "image/png"
        assert form(url, image=image.content, question=example["question"]).status_code == 200
    assert CLIENT.get(f"{url}/v1/examples/7.png").status_code == 404
    assert CLIENT.get(f"{url}/v1/examples/..%2f..%2fetc.png").status_code == 404
    assert CLIENT.get(f"{url}/healthz").json() == {"status": "ok"}
    counts = CLIENT.get(f"{url}/metrics")
    assert counts.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'kovqa_requests_total{path="/v1/vqa",status="200"} 6' in counts.text
    assert 'kovqa_rows_total{model="모양"} 6' in counts.text
    assert "%2f" not in counts.text
