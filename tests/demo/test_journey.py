"""The demo in miniature: the same journey with few pictures and few steps."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from tests.conftest import Kovqa


def test_demo(kovqa: Kovqa, tmp_path: Path) -> None:
    steps = ["--set", "optim.steps=12", "--set", "eval.every_steps=12", "--set", "profile.threads=1"]
    steps += ["--set", "model.max_text=16"]  # an untrained captioner talks on and on
    done = kovqa("demo", "-o", "데모", "--pictures", 64, *steps)
    assert done.returncode == 0, done.stderr
    typed = [line for line in done.stderr.splitlines() if line.startswith("$ kovqa ")]
    assert [line.split()[2] for line in typed] == [
        "tokenizer",
        "index",
        "train",
        "predict",
        "evaluate",
        "predict",
        "tokenizer",
        "index",
        "train",
        "caption",
        "evaluate",
        "caption",
    ]
    assert done.stdout.splitlines()[-1] == "데모/contact_sheet.png"
    with Image.open(tmp_path / "데모" / "contact_sheet.png") as sheet:
        assert sheet.width > 600
        assert sheet.height > 600
    again = kovqa("demo", "-o", "데모", "--pictures", 64, *steps)  # a finished demo goes on where it stands
    assert again.returncode == 0, again.stderr


def test_held_out_means_held_out(kovqa: Kovqa, tmp_path: Path) -> None:
    from kovqa_core.demo.dataset import write_demo_dataset

    write_demo_dataset(tmp_path / "raw", 80, 40, 5)

    def part(name: str, file: str, key: str) -> set[str]:
        folder = tmp_path / "raw" / "labels" / name
        rows = (
            row for path in folder.rglob(f"{file}.json") for row in json.loads(path.read_text())[f"{file}s"]
        )
        return {row[key] for row in rows}

    trained, asked = (part(name, "question", "question") for name in ("train_labels", "valid_labels"))
    assert not trained & asked
    assert len(asked) > 200
    shown, unseen = (part(name, "question", "image_id") for name in ("train_labels", "valid_labels"))
    assert not shown & unseen
