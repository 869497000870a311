"""kovqa predict -p PROFILE: a table answered by several processes, stopped, and resumed by another number of them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from kovqa_core.index.reader import open_index

from tests.cli.test_predict import lines
from tests.conftest import Kovqa, Small, clean_env, command


def profile(folder: Path, processes: int) -> Path:
    path = folder / f"cpu{processes}.yaml"
    path.write_text(f"name: cpu{processes}\nprocesses_per_node: {processes}\nthreads: 1\n")
    return path


def many(small: Small, folder: Path, times: int) -> Path:
    """A table of every training question, so many times."""
    rows = [
        {"id": f"{e.id}-{n}", "image": e.image, "question": e.question, "메모": n}
        for n in range(times)
        for e in open_index(small.index).split("train")
    ]
    path = folder / "많은.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def test_two_processes_answer_as_one(kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path) -> None:
    words = ["predict", "--model", trained, "--input", small.index / "test.jsonl"]
    assert kovqa(*words, "-o", "one.jsonl").returncode == 0
    done = kovqa(*words, "-o", "two.jsonl", "-p", profile(tmp_path, 2))
    assert (done.returncode, done.stdout.strip()) == (0, "two.jsonl"), done.stderr
    assert lines(tmp_path / "two.jsonl") == lines(tmp_path / "one.jsonl")
    assert not list(tmp_path.glob("*.part*"))


def test_stopped_and_resumed_by_another_number(small: Small, trained: Path, tmp_path: Path) -> None:
    table, output = many(small, tmp_path, 25), tmp_path / "out.jsonl"
    words = ["predict", "--model", trained, "--images", open_index(small.index).images, "--input", table]
    words += ["-o", output, "--batch", "4"]
    ids = [row["id"] for row in lines(table)]
    process = subprocess.Popen(
        command([*words, "-p", profile(tmp_path, 2)]), env=clean_env(), stderr=subprocess.PIPE
    )
    rank_files = [tmp_path / "out.jsonl.parts" / f"rank-{rank}.jsonl" for rank in (0, 1)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not all(s.exists() and s.stat().st_size > 500 for s in rank_files):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    answered_ids = [
        json.loads(line)["id"]
        for rank_file in rank_files
        for line in rank_file.read_text("utf-8").splitlines()
    ]
    assert 0 < len(answered_ids) == len(set(answered_ids)) < len(ids)
    with rank_files[1].open("ab") as stream:
        stream.write('{"id": "찢어'.encode()[:-1])
    done = subprocess.run(command(words), env=clean_env(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [row["id"] for row in lines(output)] == ids
    assert not list(tmp_path.glob("*.part*"))


def test_what_a_process_cannot_answer_is_named(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    table = many(small, tmp_path, 1)
    with table.open("a", encoding="utf-8") as stream:
        stream.write('{"id": "없는 것", "image": "없음.png", "question": "무엇?"}\n')
    words = ["predict", "--model", trained, "--images", open_index(small.index).images, "--input", table]
    done = kovqa(*words, "-o", "out.jsonl", "-p", profile(tmp_path, 2), "--batch", 1)
    assert done.returncode == 0, done.stderr  # one of 197 rows: below what ends it
    assert "left out: id 없는 것: image" in done.stderr
    assert "없는 것" not in {row["id"] for row in lines(tmp_path / "out.jsonl")}


def test_profiles_that_cannot_be_waited_for(
    kovqa: Kovqa, small: Small, trained: Path, tmp_path: Path
) -> None:
    words = ["predict", "--model", trained, "--input", small.index / "test.jsonl", "-o", "out.jsonl", "-p"]
    (tmp_path / "queue.yaml").write_text("name: queue\nlauncher: sbatch\n")
    queued, large = kovqa(*words, "queue.yaml"), kovqa(*words, "a100x4")
    assert (queued.returncode, "while you wait" in queued.stderr) == (2, True)
    assert (large.returncode, "4 GPUs" in large.stderr) == (4, True)
    assert kovqa("predict", "-p", "cpu", "--chat").returncode == 2
