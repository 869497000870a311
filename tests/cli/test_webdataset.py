"""A webdataset is answered as the same rows with images in a folder are."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.evaluate.predictions_file import read_predictions
from kovqa_core.index.reader import open_index

from tests.conftest import Kovqa, Small
from tests.data.test_webdataset import said, write_tar


def test_the_same_answers_as_from_a_folder(kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path) -> None:
    index = open_index(small.index)
    examples = list(index.split("test"))
    files = [
        (f"{number:04d}{end}", data)
        for number, example in enumerate(examples)
        for end, data in (
            (".png", (index.images / example.image).read_bytes()),
            (".json", said(id=example.id, question=example.question, kind=example.question_type)),
        )
    ]
    write_tar(tmp_path / "t.tar", files)
    for table, output in ((small.index / "test.jsonl", "folder.jsonl"), ("t.tar", "tar.jsonl")):
        done = kovqa("predict", "--model", trained, "--input", table, "-o", output)
        assert done.returncode == 0, done.stderr
    folder, tar = (read_predictions(tmp_path / f"{name}.jsonl") for name in ("folder", "tar"))
    assert folder.texts == tar.texts
    assert folder.confidence == tar.confidence
    assert len(folder.texts) == len(examples)
