"""kovqa predict: one question, a table, resuming what was interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from kovqa_core.answer.partial_line import PartialLine
from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.index.reader import open_index

from tests.conftest import Kovqa, Small, clean_env, command


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_one_question(kovqa: Kovqa, small: Small, trained: Path) -> None:
    image = next((small.root / "images").glob("*.png"))
    words = ["predict", "--model", trained, "-i", image, "--question", "이것은 무엇인가요?"]
    done = kovqa(*words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in open_index(small.index).answers()
    document = json.loads(kovqa(*words, "--json").stdout)
    assert document["answer"] == done.stdout.strip()
    assert 0 <= document["score"] <= 1
    assert kovqa(*words, "-q").stderr == ""


def test_the_likeliest_answers(kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path) -> None:
    """Of one question below the answer, on stderr; of a table in a column, which resuming, voting and scoring read."""
    image, test = next((small.root / "images").glob("*.png")), small.index / "test.jsonl"
    words = ["predict", "--model", trained, "-i", image, "--question", "이것은 무엇인가요?", "--top-k", 3]
    asked = kovqa(*words)
    answer, noted = asked.stdout.strip(), asked.stderr.splitlines()
    assert len(noted) == 4, "three answers, and the model"
    assert noted[0].endswith(f"%  {answer}")
    listed = json.loads(kovqa(*words, "--json").stdout)["likeliest"]
    assert [text for text, _ in listed] == [line.split("%  ")[1] for line in noted[:3]]

    table = ["predict", "--model", trained, "--input", test, "-o", "a.csv"]
    for _ in range(2):
        done = kovqa(*table, "--top-k", 3)
        assert done.returncode == 0, done.stderr
    assert "of them were there already" in done.stderr
    read = read_predictions(tmp_path / "a.csv")
    assert {len(each) for each in read.likeliest.values()} == {3}
    assert all(read.likeliest[id][0] == (text, read.confidence[id]) for id, text in read.texts.items())
    other = kovqa(*table)
    assert other.returncode == 2
    assert "another number of the likeliest answers (3, not 1; see --top-k)" in other.stderr
    assert kovqa("evaluate", "a.csv", "--index", test).returncode == 0


def test_default_model_is_the_newest_finished_run(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    image = next((small.root / "images").glob("*.png"))
    none = kovqa("predict", "-i", image, "--question", "무엇?")
    assert none.returncode == 3
    assert "no finished vqa run" in none.stderr
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "r").symlink_to(trained)
    done = kovqa("predict", "-i", image, "--question", "무엇? " * 640)
    assert done.returncode == 0, done.stderr
    assert "1 of 1 questions are longer than model.max_text=" in done.stderr
    assert "runs/r/step-" in done.stderr or "step-" in done.stderr


def test_index_and_csv_give_the_same_answers(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    test = small.index / "test.jsonl"
    assert kovqa("predict", "--model", trained, "--input", test, "-o", "a.jsonl").returncode == 0
    index = open_index(small.index)
    rows = [f'{e.id},{e.image},"{e.question}",남김' for e in index.split("test")]
    table = "ID,img_path,question,메모\n" + "\n".join(rows) + "\n"
    (tmp_path / "표.csv").write_bytes(table.encode("cp949"))
    done = kovqa(
        "predict",
        "--model",
        trained,
        "--input",
        "표.csv",
        "--images",
        index.images,
        "-o",
        "b.jsonl",
        "--batch",
        "3",
    )
    assert done.returncode == 0, done.stderr
    from_index, from_csv = lines(tmp_path / "a.jsonl"), lines(tmp_path / "b.jsonl")
    assert [r["id"] for r in from_index] == [e.id for e in index.split("test")]
    assert [(r["id"], r["answer"]) for r in from_index] == [(r["id"], r["answer"]) for r in from_csv]
    assert {r["메모"] for r in from_csv} == {"남김"}
    assert {r["kind"] for r in from_index} == {e.question_type for e in index.split("test")}
    assert not list(tmp_path.glob("*.part*"))


def test_killed_and_resumed(small: Small, trained: Path, tmp_path: Path) -> None:
    """kill -9 in the middle: what was answered stays, a torn line is done again, no id twice."""
    index = open_index(small.index)
    rows = [
        {"id": f"{e.id}-{n}", "image": e.image, "question": e.question}
        for n in range(60)
        for e in index.split("train")
    ]
    table = tmp_path / "many.jsonl"
    table.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    words = [
        "predict",
        "--model",
        trained,
        "--input",
        table,
        "--images",
        index.images,
        "-o",
        tmp_path / "out.jsonl",
    ]
    partial_file = tmp_path / "out.jsonl.part"
    process = subprocess.Popen(command([*words, "--batch", "4"]), env=clean_env(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (
        partial_file.exists() and partial_file.read_bytes().count(b"\n") > 40
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    answered = partial_file.read_bytes().count(b"\n")
    assert 40 < answered < len(rows)
    with partial_file.open("ab") as stream:
        stream.write('{"id": "찢어'.encode()[:-1])
    done = subprocess.run(command([*words, "--batch", "4"]), env=clean_env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [r["id"] for r in lines(tmp_path / "out.jsonl")] == [row["id"] for row in rows]


def test_a_partial_file_of_another_model_is_not_mixed_in(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl.part").write_bytes(PartialLine("", {"id": "1", "answer": "예"}).encode())
    (tmp_path / "out.jsonl.part.json").write_text("{}")
    words = ["predict", "--model", trained, "--input", small.index / "test.jsonl", "-o", "out.jsonl"]
    done = kovqa(*words)
    assert done.returncode == 2
    assert "holds answers of another model" in done.stderr
    (tmp_path / "out.jsonl.part").write_bytes(b"")  # in which nothing can be lost
    assert kovqa(*words).returncode == 0
