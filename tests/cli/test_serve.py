"""kovqa serve: what a user gets wrong is one line, before a model is loaded."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.conftest import Kovqa


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ([], 3, "no finished vqa run"),
        (["--model", "nowhere"], 3, "nowhere"),
        (["--model", "."], 3, "no kovqa model in ."),
        (["--host", "0.0.0.0"], 2, "KOVQA_SERVE_TOKEN"),
        (["--host", "192.0.2.1"], 2, "--host 192.0.2.1"),
    ],
)
def test_a_wrong_start_is_one_line(
    kovqa: Kovqa, tmp_path: Path, words: list[str], code: int, says: str
) -> None:
    token = {} if "0.0.0.0" in words else {"KOVQA_SERVE_TOKEN": "0123456789abcdef"}
    done = kovqa("serve", "--port", "0", *words, cwd=tmp_path, **token)
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_port_that_is_taken_and_a_weak_token_are_one_line(kovqa: Kovqa) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = kovqa("serve", "--port", port, "--model", "nowhere")
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    assert f"port {port} of 127.0.0.1" in done.stderr
    weak = kovqa("serve", "--host", "0.0.0.0", "--port", "0", KOVQA_SERVE_TOKEN="secret")
    assert weak.returncode == 2
    assert "secret" not in weak.stderr
    odd = kovqa("serve", "--port", "0", KOVQA_SERVE_TOKEN="열쇠 하나")
    assert odd.returncode == 2
    assert "열쇠" not in odd.stderr
