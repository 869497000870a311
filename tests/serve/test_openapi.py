"""The document says what the server does."""

from __future__ import annotations

import re

import httpx2
from kovqa_core.serve.app import ROUTES
from kovqa_core.serve.openapi import openapi_document
from starlette.routing import Route

from tests.serve.conftest import png


def test_paths_and_methods_are_those_of_the_routes() -> None:
    document = openapi_document()
    assert isinstance(document["paths"], dict)
    described = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    served = {
        (re.sub(r":\w+", "", route.path), method)
        for route in ROUTES
        if isinstance(route, Route)
        for method in (route.methods or ())
        if method != "HEAD"
    }
    assert described == served


def test_replies_have_what_the_document_requires(url: str) -> None:
    document = httpx2.get(f"{url}/openapi.json").json()
    assert document["openapi"] == "3.1.0"
    assert "$ref" not in str(document["paths"]["/v1/chat/completions"]["post"]["requestBody"])
    for path, field in (("/v1/vqa", {"question": "뭐?"}), ("/v1/caption", {})):
        operation = document["paths"][path]["post"]
        form = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert set(field) <= set(form["properties"])
        assert form["required"] == ["image"]
        reply = httpx2.post(url + path, files={"image": ("a.png", png())}, data=field)
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        assert set(schema["required"]) == set(reply.json())
        wrong = httpx2.post(url + path, json={})
        assert str(wrong.status_code) in operation["responses"]
        assert set(wrong.json()["error"]) == {"message", "type", "code"}
