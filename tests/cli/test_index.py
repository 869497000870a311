"""kovqa index: users' tables, a look at an index, the originals' files."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests import parity
from tests.conftest import Kovqa, Small
from tests.tools.benchmark_files import write_benchmark


def error(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one line a failed command ends with."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_a_table_with_its_columns_named(kovqa: Kovqa, tmp_path: Path) -> None:
    (tmp_path / "표.csv").write_bytes("사진,질문,참값\na.jpg,뭐?,007\n".encode("cp949"))
    (tmp_path / "a.jpg").touch()
    words = ["index", "table", "--root", "표.csv", "--column", "image=사진"]  # 질문 is known
    line = error(kovqa(*words, "-o", "색인"), 3)
    assert "표.csv:1: no column 'answer'; it has 사진, 질문, 참값 [KOVQA-" in line
    assert line.endswith("→ name it: --column answer=NAME")
    done = kovqa(*words, "--column", "answer=참값", "-o", "색인", "--json")
    assert json.loads(done.stdout)["rows"]["train"] == 1, done.stderr
    assert (tmp_path / "색인" / "answers.txt").read_text("utf-8") == "007\n"
    checked = kovqa(*words, "--column", "answer=참값", "--check")
    assert (checked.returncode, checked.stdout) == (0, "")
    assert "OURS=THEIRS" in error(kovqa(*words, "--column", "정답"), 2)


def test_examples_of_an_index(kovqa: Kovqa, small: Small) -> None:
    done = kovqa("index", "--show", "2", "-o", small.index, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    shown = json.loads(kovqa("index", "--show", "2", "-o", small.index, "--json").stdout)
    assert [row["split"] for row in shown["examples"]] == ["train"] * 2 + ["val"] * 2 + ["test"] * 2
    for row in shown["examples"]:
        assert Path(row["image"]).is_absolute()
        assert Path(row["image"]).is_file()
        assert row["id"] in done.stdout
    assert kovqa("index", "--show", "2", "-o", small.index, COLUMNS="200").stdout == done.stdout


def test_columns_of_examples_stand_below_each_other(kovqa: Kovqa, small: Small) -> None:
    """Hangul is two columns wide: the questions begin in one column whatever stands before them."""
    from rich.cells import cell_len

    lines = kovqa("index", "--show", "3", "-o", small.index, COLUMNS="300").stdout.splitlines()
    shown = json.loads(kovqa("index", "--show", "3", "-o", small.index, "--json").stdout)["examples"]
    places = [cell_len(x.split(row["question"])[0]) for row in shown for x in lines if row["id"] in x.split()]
    assert len(places) == len(shown)
    assert len(set(places)) == 1


def test_the_original_files(kovqa: Kovqa, tmp_path: Path) -> None:
    root, tokenizer = parity.path("coco_caption/input"), parity.path("tokenizer.model")
    words = ["index", "coco", "--root", root, "--as-upstream"]
    assert "--tokenizer" in error(kovqa(*words), 2)
    done = kovqa(*words, "--tokenizer", tokenizer, "-q")
    assert (done.stdout.strip(), done.stderr) == ("data/coco-upstream", "")
    name = "coco_retrieval.val.jsonl"
    written = (tmp_path / "data/coco-upstream" / name).read_bytes()
    assert written == parity.path(f"coco_caption/expected/{name}").read_bytes()
    again = kovqa(*words, "--tokenizer", tokenizer)
    assert again.returncode == 0
    assert "is there already, byte by byte" in again.stderr
    (tmp_path / "data/coco-upstream" / name).write_bytes(written + b"\n")  # the user's own
    assert "not empty" in error(kovqa(*words, "--tokenizer", tokenizer), 2)
    shutil.rmtree(tmp_path / "data")
    unknown = error(kovqa("index", "table", "--root", root, "--as-upstream"), 2)
    assert "known: aihub, coco, dacon, nia, vqav2" in unknown


def test_a_missing_source_or_root_is_named(kovqa: Kovqa) -> None:
    assert "aihub, aihub101, nia, dacon, vqav2, coco, kvqa, table" in error(kovqa("index"), 2)
    assert "--root DIR" in error(kovqa("index", "nia"), 2)


def test_a_benchmark_is_scored_by_the_command_that_its_index_names(
    kovqa: Kovqa, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    root = write_benchmark("k-mmbench", tmp_path / "raw")
    done = kovqa("index", "k-mmbench", "--root", root)
    assert (done.returncode, done.stdout) == (0, "data/k-mmbench\n"), done.stderr
    *_, protocol, following = done.stderr.splitlines()
    assert protocol == "answers are scored by the protocol circular"
    assert "5 questions, 1,164 are published" in done.stderr and "that is a class" not in done.stderr
    words = shlex.split(following.removeprefix("next: kovqa "))
    assert words.pop() == "MODEL"
    scored = kovqa(*words, tiny_vlm("qwen3_vl"), "--json")
    assert scored.returncode == 0, scored.stderr
    (result,) = json.loads(scored.stdout)["results"]
    assert (result["questions"], result["rows"], result["protocol"]) == (5, 18, "circular")
    shown = kovqa("index", "--show", "1", "-o", "data/k-mmbench", COLUMNS="200").stdout
    assert "choices" in shown and " | " in shown


def test_a_judged_benchmark_is_answered_and_then_judged(kovqa: Kovqa, tmp_path: Path) -> None:
    root = write_benchmark("koffvqa", tmp_path / "raw")
    *_, answering, judging = kovqa("index", "koffvqa", "--root", root, "-o", "색인").stderr.splitlines()
    assert answering == "next: kovqa predict --input 색인/test.jsonl -o koffvqa.jsonl --model MODEL"
    assert judging == "then: kovqa evaluate koffvqa.jsonl --index 색인/test.jsonl --judge URL"
