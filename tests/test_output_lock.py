"""One process at a time writes an output: two at once, a killed one, a folder that is not there yet."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.output_lock import lock_file_of, output_lock, scratch_folder

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


# ----------------------------------------------------------------------------------- names and places


def test_who_writes_a_folder_excludes_who_writes_inside_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with holder(out) as other:
        with (
            pytest.raises(SettingsError, match=rf"process {other.pid} on .* is writing .*/out\n"),
            output_lock(out / "deep" / "p.jsonl", 0),
        ):
            raise AssertionError("two hold it")
        other.kill()
    with holder(out / "deep" / "p.jsonl") as other:
        with (
            pytest.raises(SettingsError, match=f"process {other.pid} on .* is writing .*p.jsonl"),
            output_lock(out, 0),
        ):
            raise AssertionError("two hold it")
        with output_lock(out / "deep" / "other.jsonl", 0):  # beside it
            pass
        other.kill()
    with output_lock(out, 0):  # the killed one's lock file is in there
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_spellings_of_one_output_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "file").symlink_to(tmp_path / "a" / "real")
    with output_lock(tmp_path / "a" / "real"):
        for name in ("a/real", "link/real", "a/../a/real", "./a//real", "a/file", "link/file"):
            with pytest.raises(SettingsError, match="is writing"), output_lock(Path(name), 0):
                raise AssertionError(name)


@pytest.mark.parametrize("name", ["/", "a" * 254, "planted"])
def test_a_place_that_has_no_lock_is_explained(tmp_path: Path, name: str) -> None:
    (tmp_path / ".planted.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(SettingsError, match="cannot write"), output_lock(tmp_path / name, 0):
        raise AssertionError("held")
    assert [path.name for path in tmp_path.iterdir()] == [".planted.lock"]


def test_a_scratch_folder_outlives_no_process_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as mine:
        (mine / "x").touch()
        for name in ("kovqa-scratch-dead", "kovqa-scratch-users"):
            (tmp_path / name).mkdir()
        (tmp_path / ".kovqa-scratch-dead.lock").touch()
        with scratch_folder():
            assert (mine / "x").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["kovqa-scratch-users"]  # no lock file: nobody knows


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
    part = tmp_path / ".색인.part"
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
        assert not (tmp_path / ".upstream.part").exists()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert {p.name for p in tmp_path.iterdir()} == {"upstream"}
