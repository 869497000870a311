"""A vision language model through the command line: kill -9, resume, two processes, predict, export."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.runs.folder import RESULT_FILE

from tests.conftest import VLM, Kovqa, Small, clean_env, command, sets
from tests.faults.test_kill import logged_steps, marked_processes
from tests.tools.training_log import read_log

pytestmark = pytest.mark.xdist_group("vlm")  # one undisturbed run

STEPS = 16


def words(small: Small, base: Path, folder: Path, *extra: str) -> list[object]:
    settings = (
        *VLM, f"optim.steps={STEPS}", "eval.every_steps=16", "save.every_steps=2", f"model.base={base}",
        *extra,
    )  # fmt: skip
    return ["train", "-r", "tiny-vlm", "-p", "cpu", "--data", small.index, "-o", folder, *sets(*settings)]


def files(folder: Path) -> dict[str, bytes]:
    last = folder / f"step-{STEPS:06d}"
    return {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*") if p.is_file()}


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder) if row["kind"] == "train"]


@pytest.fixture(scope="module")
def run(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A finished run, and its base."""
    folder, base = tmp_path_factory.mktemp("vlm") / "run", tiny_vlm("qwen3_vl")
    done = subprocess.run(
        command(words(small, base, folder)), env=clean_env(), capture_output=True, text=True, timeout=300, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "FutureWarning" not in done.stderr
    return folder, base


def test_killed_and_resumed_it_ends_with_the_same_bits(
    run: tuple[Path, Path], small: Small, tmp_path: Path
) -> None:
    whole, base = run
    folder, mark = tmp_path / "run", f"vlm-{os.getpid()}"
    started = command([*words(small, base, folder), "--resume"])
    process = subprocess.Popen(
        started, env=clean_env(KOVQA_TEST=mark), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while logged_steps(folder) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in (pid for pids in marked_processes(f"KOVQA_TEST={mark}").values() for pid in pids):
        os.kill(pid, signal.SIGKILL)
    process.wait(30)
    assert not (folder / RESULT_FILE).exists(), "it ended before it could be killed"
    done = subprocess.run(started, env=clean_env(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (
        "resumed from step-" in done.stderr + (folder / "log.jsonl").read_text()
        or logged_steps(folder) == STEPS
    )
    assert losses(folder) == losses(whole)
    assert files(folder) == files(whole)


def test_two_processes_learn_what_one_does(
    run: tuple[Path, Path], small: Small, tmp_path: Path, kovqa: Kovqa
) -> None:
    whole, base = run
    done = kovqa(*words(small, base, tmp_path / "two", "profile.processes_per_node=2"))
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "two") == pytest.approx(losses(whole), rel=1e-5)


def test_questions_are_answered_one_by_one_and_by_the_table(
    run: tuple[Path, Path], small: Small, tmp_path: Path, kovqa: Kovqa
) -> None:
    folder, _ = run
    table = small.index / "val.jsonl"
    done = kovqa("predict", "--model", folder, "--input", table, "-o", tmp_path / "p.jsonl")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [json.loads(line) for line in table.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in asked]
    picture = next(path for path in small.root.rglob(Path(asked[0]["image"]).name))
    one = kovqa("predict", "--model", folder, "-i", picture, "--question", asked[0]["question"], "-q")
    assert one.returncode == 0, one.stderr
    assert one.stdout.strip() == rows[0]["answer"].strip()


def test_the_exported_folder_answers_by_its_card(
    run: tuple[Path, Path], small: Small, tmp_path: Path, kovqa: Kovqa
) -> None:
    """The Python of its card, run as it stands, in the folder."""
    folder, _ = run
    done = kovqa("export", folder, "-o", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    card = (tmp_path / "plain" / "README.md").read_text(encoding="utf-8")
    image = next(small.root.rglob("*.png"), None) or next(small.root.rglob("*.jpg"))
    code = card.split("```python\n")[1].split("```")[0].replace("image.jpg", str(image))
    cure = "from kovqa_core.models.torchvision_compat import load_torchvision\nload_torchvision()\n"
    ran = subprocess.run(
        [sys.executable, "-c", cure + code], cwd=tmp_path / "plain", env=clean_env(), capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip()


def test_a_base_that_is_gone_ends_with_five(
    run: tuple[Path, Path], small: Small, tmp_path: Path, kovqa: Kovqa
) -> None:
    done = kovqa(*words(small, tmp_path / "qwen", tmp_path / "x"), KOVQA_HOME=str(tmp_path / "home"))
    assert done.returncode == 5
    assert "base model" in done.stderr
    assert "not found" in done.stderr
    assert not (tmp_path / "x" / "step-000002").exists()
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
