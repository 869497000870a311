"""The demo in miniature: the same journey with few images and few steps."""

from __future__ import annotations

import json
from hashlib import sha256
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


def test_bytes_follow_from_the_seed(tmp_path: Path) -> None:
    """Recorded scores belong to these images and questions."""
    from kovqa_core.demo.dataset import write_demo_dataset

    write_demo_dataset(tmp_path, 40, 10, 7)
    texts = sha256()
    for path in sorted(tmp_path.rglob("*")):
        if path.is_file() and path.suffix != ".png":  # Pillow's compression may change
            texts.update(path.relative_to(tmp_path).as_posix().encode() + b"\n" + path.read_bytes())
    assert texts.hexdigest() == "b40469dcd3af7332ad4a448f27e3788111481c53e0ef7a36faa910996b1697b3"


def test_held_out_means_held_out(kovqa: Kovqa, tmp_path: Path) -> None:
    from kovqa_core.demo.dataset import write_demo_dataset

    write_demo_dataset(tmp_path / "raw", 80, 40, 5)

    def values(split: str, file: str, key: str) -> set[str]:
        folder = tmp_path / "raw" / "labels" / split
        rows = (
            row for path in folder.rglob(f"{file}.json") for row in json.loads(path.read_text())[f"{file}s"]
        )
        return {row[key] for row in rows}

    splits = ("train_labels", "valid_labels")
    trained, heldout = (values(split, "question", "question") for split in splits)
    assert not trained & heldout
    assert len(heldout) > 200
    trained, heldout = (values(split, "question", "image_id") for split in splits)
    assert not trained & heldout


def test_a_table_to_try_commands_on(kovqa: Kovqa, tmp_path: Path) -> None:
    """As people have theirs: Korean names of columns, file names alone, images in a folder beside it."""
    done = kovqa("demo", "--table", "-o", "연습", "--pictures", 64)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["연습/questions.csv", "연습/new.csv"]
    first, second = (
        (tmp_path / "연습" / name).read_text("utf-8-sig").splitlines()
        for name in ("questions.csv", "new.csv")
    )
    assert (first[0], second[0]) == ("사진,질문,정답", "사진,질문")
    known, new = ({line.partition(",")[0] for line in table[1:]} for table in (first, second))
    assert (len(known), len(new), known & new) == (64, 20, set())
    next_command = done.stderr.splitlines()[-1].removeprefix("next: kovqa ").split()
    indexed = kovqa(*next_command, "--json")
    assert indexed.returncode == 0, indexed.stderr
    document = json.loads(indexed.stdout)
    assert (document["left_out"], sum(document["pictures"].values())) == ({}, 64)
