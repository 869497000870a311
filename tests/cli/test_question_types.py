"""AI-Hub 71357 by question type: what is answered, scored and logged; its groups A and B."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from kovqa_core.answer.partial_line import PartialLine
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import IndexSplit

from tests.cli.test_bad_input import one_line
from tests.cli.test_predict import lines
from tests.conftest import Kovqa, Small
from tests.evaluate.pages import captioned

SOURCES = ("triple", "abstract", "multiple", "triple")  # of the A questions, image by image
ANSWERS = ("아돌프 삭스", "예", "Eiffel 탑", "아주아주 긴 사람의 이름과 성")


@pytest.fixture(scope="module")
def split(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test split of an index of four images with an A and a B question each."""
    root = tmp_path_factory.mktemp("nia")
    images = sorted((small.root / "images").glob("*.png"))[:4]
    rows = []
    for image, source, answer in zip(images, SOURCES, ANSWERS, strict=True):
        a, b = ({"question_ko": "무엇?", "answer_ko": text} for text in (answer, "호른"))
        rows.append({"IMAGE_NAME": image.name, "questions": [{**a, "ans_source": source}, b]})
        (root / "image").mkdir(exist_ok=True)
        shutil.copy(image, root / "image")
    for name in ("train", "valid", "test"):
        (root / f"{name}.json").write_text(json.dumps({"annotations": rows}), encoding="utf-8")
    build_index("nia", root, None, root / "index")
    return root / "index" / "test.jsonl"


def write_predictions(path: Path, split: Path, *kinds: str) -> Path:
    """Predictions for the questions of some kinds, or all: every answer is 호른, with a line end more for A."""
    chosen = [example for example in IndexSplit(split) if not kinds or example.question_type in kinds]
    rows = [{"id": e.id, "answer": "호른" if e.question_type == "vqa" else "호\n른"} for e in chosen]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_some_kinds_are_answered(kovqa: Kovqa, trained: Path, split: Path, tmp_path: Path) -> None:
    words = ["predict", "--model", trained, "--input", split, "-o", "out.jsonl"]
    done = kovqa(*words, "--kind", "abstract", "--kind", "vqa", "--json")
    assert json.loads(done.stdout)["rows"] == 5
    predictions = lines(tmp_path / "out.jsonl")
    assert [row["id"] for row in predictions] == [
        e.id for e in IndexSplit(split) if e.question_type in ("abstract", "vqa")
    ]
    assert {row["kind"] for row in predictions} == {"abstract", "vqa"}
    assert json.loads(kovqa(*words, "--kind", "all", "--json", "--force").stdout)["rows"] == 8
    one_line(kovqa(*words, "--kind", "vqaa"), 2, "unknown kind 'vqaa'", "did you mean vqa")
    one_line(kovqa(*words, "--kind", "x"), 2, "known: abstract, multiple, triple, vqa")


def test_a_partial_file_of_other_kinds_is_not_resumed(
    kovqa: Kovqa, trained: Path, split: Path, tmp_path: Path
) -> None:
    words = ["predict", "--model", trained, "--input", split, "-o", "out.jsonl"]
    one_line(kovqa(*words, "--kind", "vqa", "--images", tmp_path), 3, "is missing")
    with (tmp_path / "out.jsonl.part").open("ab") as stream:
        stream.write(PartialLine("", {"id": "1", "answer": "예"}).encode())
    one_line(kovqa(*words), 2, "out.jsonl.part holds answers", "other kinds")
    assert kovqa(*words, "--kind", "vqa").returncode == 0
    assert len(lines(tmp_path / "out.jsonl")) == 4


def test_a_file_of_some_kinds_is_scored_alone(kovqa: Kovqa, split: Path, tmp_path: Path) -> None:
    words = ["evaluate", write_predictions(tmp_path / "p.jsonl", split, "triple", "vqa"), "--index", split]
    hint = "score only the question types that are answered: --kind triple --kind vqa"
    one_line(kovqa(*words), 3, "no prediction for 2 ids", hint)
    one_line(kovqa(*words, "--kind", "all"), 3, "no prediction for 2 ids", hint)
    one_line(kovqa(*words, "--kind", "abstract"), 3, "no prediction for 1 id:", hint)
    one_line(kovqa(*words, "--kind", "Vqa"), 2, "did you mean vqa")
    document = json.loads(kovqa(*words, "--kind", "vqa", "--kind", "triple", "--json").stdout)
    assert (document["all"]["rows"], document["score"]) == (6, 4 / 6)
    assert [(row["kind"], row["rows"]) for row in document["groups"]] == [("B", 4)], "half of A is not A"

    words[1].write_text("\n".join(words[1].read_text("utf-8").splitlines()[1:]), encoding="utf-8")
    done = kovqa(*words)
    one_line(done, 3, "no prediction for 3 ids", "predict that split again")
    assert "--kind" not in done.stderr


def test_groups_have_scores(kovqa: Kovqa, split: Path, tmp_path: Path) -> None:
    """A and B of the index, each with interval and a baseline that knows the kind."""
    words = ["evaluate", write_predictions(tmp_path / "p.jsonl", split), "--index", split]
    document = json.loads(kovqa(*words, "--json", "--report", "r.html").stdout)
    a, b = document["groups"]
    assert [(row["kind"], row["rows"], row["score"], row["majority"]) for row in (a, b)] == [
        ("A", 4, 0, (1 + 1 + 2 * 0.5) / 4), ("B", 4, 1, 1),
    ]  # fmt: skip
    assert a["low"] == 0 < a["high"] < b["low"] < b["high"] == 1
    table = kovqa(*words).stdout
    assert [line.split()[:4] for line in table.splitlines() if "group" in line] == [
        ["group", "A", "4", "0.0%"], ["group", "B", "4", "100.0%"],
    ]  # fmt: skip
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.count("Group of types") == 1
    assert '<th scope="row" data-value="A">' in page


def test_a_log_has_a_line_for_every_question(kovqa: Kovqa, split: Path, tmp_path: Path) -> None:
    """Wide letters count two columns, a long answer pushes on, a line end does not end the line."""
    words = ["evaluate", write_predictions(tmp_path / "p.jsonl", split), "--index", split]
    done = kovqa(*words, "--log", "기록/log.txt")
    assert done.returncode == 0, done.stderr
    assert "log: 기록/log.txt" in done.stderr
    blank, truth, cell = " ", "호른" + 16 * " ", "호\\n른" + 14 * " "
    assert (tmp_path / "기록/log.txt").read_text("utf-8").splitlines() == [
        f"[    1] 아돌프 삭스{9 * blank} {cell} (X)",
        f"[    2] {truth} {truth} (O)",
        f"[    3] 예{18 * blank} {cell} (X)",
        f"[    4] {truth} {truth} (O)",
        f"[    5] Eiffel 탑{11 * blank} {cell} (X)",
        f"[    6] {truth} {truth} (O)",
        f"[    7] 아주아주 긴 사람의 이름과 성 {cell} (X)",
        f"[    8] {truth} {truth} (O)",
        "accuracy: 4 / 8 = 50.00%",
    ]
    kovqa(*words, "--kind", "vqa", "--log", "기록/log.txt")
    assert (tmp_path / "기록/log.txt").read_text("utf-8").endswith("accuracy: 4 / 4 = 100.00%\n")


def test_a_log_that_cannot_be(kovqa: Kovqa, small: Small, split: Path, tmp_path: Path) -> None:
    words = ["evaluate", write_predictions(tmp_path / "p.jsonl", split), "--index", split, "--log"]
    one_line(kovqa(*words, "p.jsonl/log.txt"), 2, "cannot write p.jsonl/log.txt")
    index, captions = captioned(small, tmp_path)
    one_line(kovqa("evaluate", captions, "--index", index, "--log", "x.txt"), 2, "holds captions")
    assert not (tmp_path / "x.txt").exists()
