"""kovqa caption and kovqa submit: from a trained captioner to the file a challenge takes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from kovqa_core.index.reader import open_index
from PIL import Image

from tests.conftest import SMALL, Kovqa, Small, clean_env, command, sets


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="session")
def captioner(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A captioner of a few steps."""
    folder = tmp_path_factory.mktemp("talker") / "r"
    files = ["--data", small.captions, "--tokenizer", small.tokenizer, "-o", folder]
    words = ["train", "-r", "tiny-caption", "-p", "cpu", *files, *sets(*SMALL, "optim.steps=6")]
    done = subprocess.run(
        command(words), env=clean_env(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "next: kovqa caption" in done.stderr
    return folder


def test_one_image(kovqa: Kovqa, small: Small, captioner: Path) -> None:
    image = next((small.root / "images").glob("*.png"))
    words = ["caption", "--model", captioner, "-i", image]
    done = kovqa(*words)
    assert done.returncode == 0, done.stderr
    document = json.loads(kovqa(*words, "--json").stdout)
    assert document["caption"] == done.stdout.rstrip("\n")
    assert 0 <= document["score"] <= 1
    assert kovqa(*words, "--beams", 1, "-q").stderr == ""


def test_an_index_its_scores_and_a_submission(
    kovqa: Kovqa, small: Small, captioner: Path, tmp_path: Path
) -> None:
    test = small.captions / "test.jsonl"
    done = kovqa("caption", "--model", captioner, "--input", test, "-o", "설명.jsonl", "-q")
    assert done.returncode == 0, done.stderr
    rows = lines(tmp_path / "설명.jsonl")
    assert [row["id"] for row in rows] == [e.id for e in open_index(small.captions).split("test")]
    assert all({"caption", "score"} <= row.keys() and "captions" not in row for row in rows)
    scored = json.loads(kovqa("evaluate", "설명.jsonl", "--index", test, "--json").stdout)
    assert {"CIDEr", "BLEU-4", "exact"} <= {metric["metric"] for metric in scored["metrics"]}


def test_a_folder_of_images_is_resumed(kovqa: Kovqa, small: Small, captioner: Path, tmp_path: Path) -> None:
    words = ["caption", "--model", captioner, "--input", small.root / "images", "--batch", 4, "-o", "a.jsonl"]
    assert kovqa(*words).returncode == 0
    whole = (tmp_path / "a.jsonl").read_bytes()
    all_lines = whole.splitlines(keepends=True)
    process = subprocess.Popen(command([*words[:-1], "b.jsonl"]), cwd=tmp_path, env=clean_env())
    partial_file = tmp_path / "b.jsonl.part"
    while process.poll() is None and not (partial_file.exists() and partial_file.stat().st_size):
        pass
    process.kill()
    process.wait()
    if partial_file.exists():  # killed in time
        assert partial_file.read_bytes().count(b"\n") < len(all_lines)
    assert kovqa(*words[:-1], "b.jsonl").returncode == 0
    assert (tmp_path / "b.jsonl").read_bytes() == whole


@pytest.mark.parametrize("size", [(1, 1), (20000, 20000)])
def test_images_of_any_size(kovqa: Kovqa, captioner: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("1", size).save(tmp_path / "x.png", compress_level=1)
    done = kovqa("caption", "--model", captioner, "-i", "x.png")
    assert done.returncode in (0, 3)
    assert "Traceback" not in done.stderr
    if done.returncode:
        assert "x.png" in done.stderr


def test_a_captioner_needs_its_tokenizer(kovqa: Kovqa, small: Small, captioner: Path, tmp_path: Path) -> None:
    import shutil

    step = tmp_path / "step"
    shutil.copytree(next(captioner.glob("step-*")), step)
    (step / "tokenizer" / "spm.model").unlink()
    done = kovqa("caption", "--model", step, "-i", next((small.root / "images").glob("*.png")))
    assert done.returncode == 3
    assert "spm.model" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_caption_longer_than_the_table(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    """It is cut to `model.max_text` tokens, as in the original; no longer table than the model has is made."""
    rows = open_index(small.captions).split("train")
    table = tmp_path / "긴.jsonl"
    long = {"captions": ["빨간 원 " * 2000]}
    table.write_text("\n".join(json.dumps({"id": e.id, "image": e.image, **long}) for e in rows))
    images = ["--images", small.root / "images"]
    assert kovqa("index", "table", "--root", table, *images, "-o", tmp_path / "index").returncode == 0
    files = ["--data", tmp_path / "index", "--tokenizer", small.tokenizer]
    words = ["train", "-r", "tiny-caption", "-p", "cpu", *files, *sets(*SMALL, "optim.steps=1")]
    assert kovqa(*words, "-o", tmp_path / "r").returncode == 0
    done = kovqa(*words, "--set", "model.max_text=1023")
    assert done.returncode == 2
    assert "max_text" in done.stderr
    assert "1022" in done.stderr


def test_a_question_is_not_for_a_captioner(kovqa: Kovqa, small: Small, captioner: Path) -> None:
    image = next((small.root / "images").glob("*.png"))
    done = kovqa("predict", "--model", captioner, "-i", image, "--question", "무엇?")
    assert (done.returncode, "was trained for caption" in done.stderr) == (3, True)
    assert kovqa("caption", "--model", captioner).returncode == 2


# ------------------------------------------------------------------------------ submissions


def predictions(path: Path, **texts: str) -> Path:
    path.write_text("".join(json.dumps({"id": i[1:], "answer": t}) + "\n" for i, t in texts.items()))
    return path


def questions(path: Path, *ids: int) -> Path:
    rows = [{"question_id": id, "image_id": 1, "question": "?"} for id in ids]
    path.write_text(json.dumps({"info": {}, "questions": rows}))
    return path


def test_vqav2_submission_has_every_question_once_in_the_samples_order(kovqa: Kovqa, tmp_path: Path) -> None:
    sample = questions(tmp_path / "q.json", 30, 10, 20)
    predictions_path = predictions(tmp_path / "p.jsonl", _10="yes", _20="2", _30="예")
    done = kovqa("submit", "vqav2", "--predictions", predictions_path, "--sample", sample, "-o", "s.json")
    assert (done.returncode, done.stdout) == (0, "s.json\n")
    rows = json.loads((tmp_path / "s.json").read_text("utf-8"))
    assert rows == [
        {"question_id": 30, "answer": "예"}, {"question_id": 10, "answer": "yes"}, {"question_id": 20, "answer": "2"},
    ]  # fmt: skip


def test_coco_submission(kovqa: Kovqa, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": "42", "caption": "a cat"}\n')
    (tmp_path / "i.json").write_text('{"images": [{"id": 42, "file_name": "x.jpg"}]}')
    words = ["submit", "coco", "--predictions", "p.jsonl", "--sample", "i.json", "-o", "s.json", "--json"]
    document = json.loads(kovqa(*words).stdout)
    assert (document["rows"], document["frequent"]) == (1, [["a cat", 1]])
    assert json.loads((tmp_path / "s.json").read_text()) == [{"image_id": 42, "caption": "a cat"}]


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        ({"_1": "예"}, "no prediction for 1 id: 2"),
        ({"_1": "예", "_2": "예", "_3": "예"}, "not in q.json: 1 id: 3"),
        ({"_1": "예", "_2": " "}, "an empty text for 1 id: 2"),
    ],
)
def test_a_submission_that_would_be_refused_is_not_written(
    kovqa: Kovqa, tmp_path: Path, texts: dict[str, str], says: str
) -> None:
    questions(tmp_path / "q.json", 1, 2)
    predictions(tmp_path / "p.jsonl", **texts)
    done = kovqa("submit", "vqav2", "--predictions", "p.jsonl", "--sample", "q.json", "-o", "s.json")
    assert (done.returncode, says in done.stderr) == (3, True), done.stderr
    assert not (tmp_path / "s.json").exists()


def test_predictions_of_another_task_are_refused(kovqa: Kovqa, tmp_path: Path) -> None:
    questions(tmp_path / "q.json", 1)
    predictions(tmp_path / "p.jsonl", _1="예")
    done = kovqa("submit", "coco", "--predictions", "p.jsonl", "--sample", "q.json", "-o", "s.json")
    assert (done.returncode, "holds vqa predictions" in done.stderr) == (3, True)
    done = kovqa("submit", "vqa", "--predictions", "p.jsonl", "--sample", "q.json", "-o", "s.json")
    assert (done.returncode, "did you mean vqav2" in done.stderr) == (2, True)
