"""The server of the page: what it answers, what it refuses, and the command as a process."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openpyxl
import pytest
from kovqa_core.data.example import Example
from kovqa_core.errors import DataError, MachineError, SettingsError
from kovqa_core.view import server, thumbnails
from kovqa_core.view.app import make_app
from kovqa_core.view.engine import require_engine
from kovqa_core.view.inputs import open_inputs
from kovqa_core.view.session import ViewSession
from kovqa_core.view.thumbnails import Thumbnails
from PIL import Image

from kovqa_cli.commands.view import view
from tests.conftest import Small, clean_env, command
from tests.web.servers import serving


@pytest.fixture(scope="module")
def client(session: ViewSession) -> Iterator[httpx2.Client]:
    with serving(make_app(session)) as url, httpx2.Client(base_url=url) as opened:
        yield opened


def test_the_page_and_what_it_asks_for(client: httpx2.Client, session: ViewSession) -> None:
    page = client.get("/")
    assert "default-src &#39;none&#39;" in page.text or "default-src 'none'" in page.text
    assert "http://" not in page.text.replace("http://www.w3.org/", "") and "https://" not in page.text
    state = client.get("/state").json()
    assert state["ready"] and state["answered_split"] == "test" and state["models"] == ["a?.jsonl", "b.jsonl"]
    rows = client.get("/rows", params={"split": "test"}).json()["rows"]
    assert [row["line"] for row in rows] == list(range(len(rows)))
    assert [answer["model"] for answer in rows[0]["models"]] == ["a", "b"]
    row = client.get("/row", params={"split": 2, "line": 1}).json()
    assert row["likeliest"]["a"] == [["하나", 0.75], ["둘", 0.25]]
    assert row["trained"] > 0
    table = client.get("/export", params={"split": "test", "a": "wrong", "format": "csv"})
    assert table.headers["content-disposition"] == 'attachment; filename="kovqa-selection.csv"'
    wrong = list(csv.DictReader(io.StringIO(table.text.removeprefix("\ufeff"))))
    assert len(wrong) == client.get("/summary", params={"split": "test", "a": "wrong"}).json()["rows"] > 0
    book = client.get("/export", params={"split": "test", "a": "wrong", "format": "xlsx"}).content
    assert _excel_texts(book) == {
        value for row in wrong for value in (row["id"], row["question"], row["answer_a"])
    }
    for path in ("/answers", "/frequency", "/confusion", "/questions", "/calibration"):
        assert client.get(path, params={"split": "test"}).json(), path


def _excel_texts(book: bytes) -> set[str]:
    """Ids, questions and A's answers; none of them is a formula."""
    sheet = openpyxl.load_workbook(io.BytesIO(book)).active
    assert sheet is not None
    heading, *rows = sheet.iter_rows()
    places = [[cell.value for cell in heading].index(name) for name in ("id", "question", "answer_a")]
    assert {row[place].data_type for row in rows for place in places} == {"s"}
    return {str(row[place].value) for row in rows for place in places}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/rows?split=none", 400), ("/rows?page=-1", 400), ("/rows?low=2", 400), ("/rows?sort=id;--", 400),
        ("/rows?a=maybe", 400), ("/rows?page=9999999999", 400), ("/rows?low=nan", 400),
        ("/export?format=exe", 400), ("/image?split=0&line=0&side=5000", 400),
        ("/row?split=9&line=0", 404), ("/row?split=0&line=99999999", 404), ("/row?split=0&line=-1", 404),
        ("/image?split=0&line=..%2F..%2Fetc", 404), ("/image", 404), ("/view.js", 404), ("/../../etc/passwd", 404),
    ],
)  # fmt: skip
def test_what_is_refused(client: httpx2.Client, path: str, status: int) -> None:
    reply = client.get(path)
    assert reply.status_code == status
    assert set(reply.json()["error"]) == {"message", "type", "code"}


def test_other_sites_are_refused(client: httpx2.Client) -> None:
    assert client.get("/state", headers={"Host": "example.com"}).status_code == 403
    assert client.post("/state", headers={"Origin": "http://example.com"}).status_code == 403
    headers = client.get("/state").headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"


def test_images(client: httpx2.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = client.get("/image", params={"split": 2, "line": 0, "side": 320})
    assert reply.headers["content-type"] == "image/jpeg" and reply.content.startswith(b"\xff\xd8")
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (900, 300), "red").save(folder / "a.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "secret.png")
    (folder / "b.png").write_text("no image")
    names = ["a.png", "../secret.png", str(tmp_path / "secret.png"), "b.png", "none.png", "a.png"]
    split = tmp_path / "mine.jsonl"
    split.write_text("".join(Example(str(n), name, "무엇?").line() + "\n" for n, name in enumerate(names)))
    started = ViewSession(
        open_inputs(split, images=folder), keep=False
    )  # not started: nothing is counted yet
    with serving(make_app(started)) as url, httpx2.Client(base_url=url) as other:
        codes = [other.get("/image", params={"split": 0, "line": n}).status_code for n in range(6)]
        assert codes == [200, 404, 404, 404, 404, 200]
        assert len(other.get("/rows").json()["rows"]) == 6
        assert other.get("/rows", params={"page": 3}).json()["rows"] == []
        assert other.get("/summary").json()["error"]["code"] == "view.not-ready"
        assert other.get("/state").json()["ready"] is False
    monkeypatch.setattr(thumbnails, "CACHE_BYTES", 3000)
    small = Thumbnails(folder)
    for number in range(20):
        Image.new("RGB", (300, 300), (number, 0, 0)).save(folder / f"{number}.png")
        small.jpeg(f"{number}.png", 320)
        assert small._bytes == sum(map(len, small._kept.values())) <= 3000
    Image.new("RGB", (300, 300), "white").save(folder / "19.png")
    os.utime(folder / "19.png", ns=(1, 1))
    assert Image.open(io.BytesIO(small.jpeg("19.png", 320))).getpixel((5, 5)) == (255, 255, 255)


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(MachineError, match="needs duckdb") as error:
        require_engine()
    assert error.value.hint == "pip install 'kovqa[serve]'"


def test_the_command(small: Small, answers: tuple[Path, Path], tmp_path: Path) -> None:
    words = ["view", small.index, "--predictions", answers[0], "--port", "0", "--json"]
    environment = clean_env(XDG_CACHE_HOME=str(tmp_path))
    with subprocess.Popen(
        command(words), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        ready = json.loads(process.stdout.readline())
        assert ready["rows"].keys() == {"train", "val", "test"}
        assert "도형" in httpx2.get(f"{ready['url']}/rows").text
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
        assert process.stderr.read() == ""
    # The database, and nothing that was needed on the way.
    assert [path.suffix for path in (tmp_path / "kovqa" / "view").iterdir()] == [".duckdb"]


def test_mistakes_end_before_an_address_is_said(
    small: Small, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(MachineError, match="port"):
        view(small.index, port=taken.getsockname()[1])
    with pytest.raises(SettingsError, match="without a password") as error:
        view(small.index, host="0.0.0.0")
    with pytest.raises(SettingsError, match="there are no predictions"):
        view(small.index, kind=["색깔"])
    assert "ssh -L" in error.value.hint
    foreign = [small.root / "captions.jsonl"]
    with pytest.raises(DataError, match="not a prediction"):
        view(small.index, foreign, port=0, no_cache=True)
    assert capsys.readouterr() == ("", "")
    # A large file is read while the page is served: its fault ends the command all the same.
    monkeypatch.setattr(server, "_SMALL_BYTES", 0)
    monkeypatch.setattr(server, "_PATIENCE_SECONDS", 0)
    with pytest.raises(DataError, match="not a prediction"):
        view(small.index, foreign, port=0, no_cache=True, quiet=True)


def test_an_index_without_training_and_texts_longer_than_an_address(tmp_path: Path) -> None:
    """How often training saw an answer is not 0 but unknown; a filter of a long text finds its rows."""
    question, answer = "가" * 5000, "나" * 5000
    judged = {"criteria": "- 5점\n- 5점", "comment": None, "meta_info": {"split": "val"}}
    rows = [
        Example("1", "a.png", question, {answer: 1.0}, columns=judged),
        Example("2", "a.png", "무엇?", {"나": 1.0}),
    ]
    (tmp_path / "val.jsonl").write_text("".join(row.line() + "\n" for row in rows), encoding="utf-8")
    started = ViewSession(open_inputs(tmp_path / "val.jsonl", images=tmp_path), keep=False)
    started.start()
    started.wait(60)
    with serving(make_app(started)) as url, httpx2.Client(base_url=url) as other:
        assert other.get("/frequency").json() == []
        row = other.get("/row", params={"split": 0, "line": 0}).json()
        assert row["trained"] is None
        assert row["columns"] == [["criteria", "- 5점\n- 5점"], ["meta_info", '{"split": "val"}']]
        for chosen in ({"question": question[:2000]}, {"answer": answer[:2000]}):
            assert other.get("/summary", params=chosen).json()["rows"] == 1
    started.close()
