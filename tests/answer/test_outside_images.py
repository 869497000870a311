"""Images that a table names outside its folder: not opened, not sent, unless the user says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.answer.job import AnswerJob, AnswerOptions, run_answer_job
from kovqa_core.answer.question_rows import QuestionRow, read_question_table
from kovqa_core.answer.remote_client import server_backend
from kovqa_core.answer.workers import WorkerAnswerJob, read_worker_job, write_worker_job
from kovqa_core.errors import DataError
from kovqa_core.progress import Progress
from kovqa_core.settings.resolve import load_profile
from PIL import Image
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.answer.server import Vllm, image_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table's folder with an image, a link to another, and a secret beside it."""
    folder, secret = tmp_path / "표", tmp_path / "secret"
    for number, path in enumerate((folder / "a.png", secret / "s.png", tmp_path / "disk" / "d.png")):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 8)).save(path)
    (folder / "linked").symlink_to(tmp_path / "disk")
    return folder


def write_table(folder: Path, names: list[str]) -> Path:
    rows = [{"id": f"Q{n}", "image": name, "question": f"{n}?"} for n, name in enumerate(names)]
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return folder / "t.jsonl"


def write_as_index(folder: Path) -> None:
    (folder / "index.json").write_text(json.dumps({"rows": {}, "images": "."}))


def images_of(rows: list[QuestionRow]) -> list[str]:
    return [row.example.image for row in rows]


@pytest.mark.parametrize("is_index", [False, True])
@pytest.mark.parametrize(
    "name", ["../secret/s.png", "{top}/secret/s.png", "linked/../../secret/s.png", "{top}/표/../secret/s.png"]
)
def test_an_image_outside_is_refused_by_its_first_row(folder: Path, name: str, is_index: bool) -> None:
    table = write_table(folder, ["a.png", name.format(top=folder.parent), "../secret/s.png"])
    if is_index:
        write_as_index(folder)
    with pytest.raises(
        DataError, match=r"t\.jsonl:2: image .*s\.png lies outside .*표 \(and 1 more\)\n"
    ) as caught:
        read_question_table(table)
    assert "--allow-outside" in caught.value.hint and "--images DIR" in caught.value.hint
    allowed = images_of(read_question_table(table, allow_outside=True))
    assert [(folder / each).resolve().name for each in allowed] == ["a.png", "s.png", "s.png"]


@pytest.mark.parametrize("is_index", [False, True])
def test_the_users_own_paths_below_the_folder_are_fine(folder: Path, tmp_path: Path, is_index: bool) -> None:
    names = [f"{folder}/a.png", f"{tmp_path}/secret/s.png", f"{folder}/linked/d.png"]
    table = write_table(folder, names)
    if is_index:
        write_as_index(folder)
    rows = read_question_table(table, images=tmp_path)
    assert [(tmp_path / name).is_file() for name in images_of(rows)] == [True] * 3
    own = write_table(folder, [names[0], names[2], "linked/d.png"])
    assert [(folder / name).is_file() for name in images_of(read_question_table(own))] == [True] * 3


def test_names_of_other_systems_are_looked_for_inside_and_nothing_else_is_opened(folder: Path) -> None:
    names = ["C:\\data\\a.png", "/no/such/a.png", "file:///x/a.png", "~/s.png", "\\\\host\\x\\s.png"]
    found = images_of(read_question_table(write_table(folder, names)))
    assert found == [
        "a.png",
        "a.png",
        "a.png",
        "~/s.png",
        "\\\\host\\x\\s.png",
    ]  # the last two: missing, as they are named


def ask(url: str, table: Path, output: Path, notes: list[Progress], images: Path | None = None) -> int:
    job = AnswerJob(table, output, AnswerOptions(), images)
    with server_backend(url, job.options, 2, notes.append) as backend:
        return run_answer_job(job, backend, notes.append).rows


@pytest.mark.parametrize("is_index", [False, True])
def test_a_server_gets_none(vllm: Vllm, folder: Path, tmp_path: Path, is_index: bool) -> None:
    if is_index:
        write_as_index(folder)
    notes: list[Progress] = []
    for name in ("../secret/s.png", str(tmp_path / "secret" / "s.png")):
        with pytest.raises(DataError, match="lies outside"):
            ask(vllm.url, write_table(folder, ["a.png", name]), tmp_path / "o.jsonl", notes)
    assert not vllm.bodies
    ask(vllm.url, write_table(folder, ["a.png", "linked/d.png"]), tmp_path / "o.jsonl", notes)
    sent = {image_of(body)[1] for body in vllm.bodies}
    assert sent == {(folder / "a.png").read_bytes(), (tmp_path / "disk" / "d.png").read_bytes()}
    # Where the images are is the word of an index, which may be another's: it is said.
    assert [note.is_note for note in notes if "are sent to" in note.stage] == [True] * is_index


def test_options_that_do_not_go_together(folder: Path) -> None:
    words = ["predict", "--input", str(write_table(folder, ["a.png"])), "-o", "x.jsonl", "--allow-outside"]
    done = CliRunner().invoke(app, [*words, "--server", "http://127.0.0.1:9/v1"])
    assert "a server gets no image from outside" in str(done.exception)
    done = CliRunner().invoke(app, ["predict", "-i", "a.png", "--question", "?", "--allow-outside"])
    assert "--allow-outside is for images that a table names" in str(done.exception)


def test_workers_are_told(folder: Path, tmp_path: Path) -> None:
    job = AnswerJob(write_table(folder, ["a.png"]), tmp_path / "o.jsonl", allow_outside=True)
    worker_job = WorkerAnswerJob(load_profile("cpu"), job)
    worker_job.folder.mkdir(parents=True, exist_ok=True)
    write_worker_job(worker_job)
    assert read_worker_job(worker_job.folder / "job.json").job.allow_outside
