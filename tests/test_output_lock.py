"""One process at a time writes an output: two at once, a killed one, a folder that is not there yet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.output_lock import lock_file_of, output_lock

from tests.conftest import Kovqa, Small, clean_env, command

HOLDER = """
import sys, time
from pathlib import Path
from kovqa_core.output_lock import output_lock
with output_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(output: Path) -> subprocess.Popen[str]:
    """Another process that holds an output."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, output], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_holder_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    output = tmp_path / "not yet" / "색인"
    with holder(output) as other:
        with (
            pytest.raises(SettingsError, match=f"process {other.pid} on .* is writing"),
            output_lock(output, 0.2),
        ):
            raise AssertionError("two hold it")
        (tmp_path / "link").symlink_to(output)  # another name of the same folder
        with pytest.raises(SettingsError, match=f"process {other.pid} "), output_lock(tmp_path / "link", 0):
            raise AssertionError("two hold it")
        other.kill()
    assert lock_file_of(output).is_file()  # what a killed process leaves
    with output_lock(output, 0):
        assert json.loads(lock_file_of(output).read_text())["pid"] == os.getpid()
    assert list(output.parent.iterdir()) == []


def test_who_waits_gets_it_when_the_other_ends(tmp_path: Path) -> None:
    output = tmp_path / "o"
    with output_lock(output):
        waiting = subprocess.Popen([sys.executable, "-c", HOLDER, output], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
    with waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "held\n"
        with pytest.raises(SettingsError, match=f"process {waiting.pid} "), output_lock(output, 0):
            raise AssertionError("two hold it")
        waiting.kill()


def test_a_child_that_lives_on_does_not_hold_it(tmp_path: Path) -> None:
    with output_lock(tmp_path / "o"):
        child = subprocess.Popen(["sleep", "60"])
    try:
        with output_lock(tmp_path / "o", 0):
            pass
    finally:
        child.kill()
        child.wait()


# --------------------------------------------------------------------------------------- kovqa index


def table(folder: Path, name: str, rows: int) -> Path:
    """A table that takes about a second to be read."""
    (folder / "a.jpg").touch()
    path = folder / f"{name}.jsonl"
    splits = ("train", "val")
    lines = (
        {"id": f"{name}-{n}", "image": "a.jpg", "question": f"뭐? {n}", "answer": f"{n % 7}", "split": splits[n % 2]}
        for n in range(rows)
    )  # fmt: skip
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def whole(folder: Path) -> str:
    """The name of the table that an index was made of, which it holds wholly and alone."""
    about = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    names = set()
    for split in ("train", "val"):
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == about["rows"][split]
        names |= {json.loads(line)["id"].split("-")[0] for line in lines}
    (name,) = names
    assert about["root"].endswith(f"{name}.jsonl")
    return name


@pytest.mark.parametrize("round", range(3))
def test_two_indexes_at_once_on_one_folder(tmp_path: Path, round: int) -> None:
    tables = [table(tmp_path, name, rows) for name, rows in (("first", 8000), ("second", 6000))]
    running = [
        subprocess.Popen(
            command(["index", "table", "--root", path, "-o", tmp_path / "색인", "-q"]),
            env=clean_env(),
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in (tables if round % 2 else tables[::-1])
    ]
    for process in running:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0 or "is writing" in err, err
    assert whole(tmp_path / "색인") in ("first", "second")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.jpg", "first.jsonl", "second.jsonl", "색인"}


def test_what_a_killed_index_leaves_does_not_block_the_next(kovqa: Kovqa, tmp_path: Path) -> None:
    path, folder = table(tmp_path, "first", 60_000), tmp_path / "색인"
    words = ["index", "table", "--root", path, "-o", folder, "-q"]
    process = subprocess.Popen(command(words), env=clean_env(), stderr=subprocess.DEVNULL)
    part = tmp_path / "색인.part"
    while process.poll() is None and not any(part.glob("shard-*")):
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert part.is_dir() and lock_file_of(folder).is_file()
    done = kovqa(*words)
    assert done.returncode == 0, done.stderr
    assert whole(folder) == "first"
    assert {p.name for p in tmp_path.iterdir()} == {"a.jpg", "first.jsonl", "색인"}


def test_the_originals_files_are_locked_too(small: Small, kovqa: Kovqa, tmp_path: Path) -> None:
    folder = tmp_path / "upstream"
    words = [
        "index",
        "aihub",
        "--root",
        small.root,
        "--as-upstream",
        "--tokenizer",
        small.tokenizer,
        "-o",
        folder,
    ]
    with output_lock(folder):
        process = subprocess.Popen(command(words), env=clean_env(), stderr=subprocess.PIPE)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        assert not (tmp_path / "upstream.part").exists()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert {p.name for p in tmp_path.iterdir()} == {"upstream"}
