"""The number of processes changes nothing but the time."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import Kovqa, Small, clean_env, command, training
from tests.tools.training_log import read_log

pytestmark = pytest.mark.xdist_group("world")  # one pair of runs


def odd(small: Small, folder: Path) -> Small:
    """The small data set with an odd number of validation questions."""
    shutil.copytree(small.index, folder / "index")
    (folder / "index" / "val.offsets").unlink()
    val = folder / "index" / "val.jsonl"
    lines = val.read_text(encoding="utf-8").splitlines(keepends=True)
    val.write_text("".join(lines[: len(lines) - 1 + len(lines) % 2]), encoding="utf-8")
    return replace(small, index=folder / "index")


def run(kovqa: Kovqa, small: Small, folder: Path, *extra: str) -> Path:
    words = training(
        small, "optim.steps=5", "eval.every_steps=5", "data.augment=crop", "model.drop_path=0.2",
        "optim.freeze_vision_steps=2",
        f"data.images={small.root / 'images'}", *extra,
    )  # fmt: skip
    done = kovqa(*words, "-o", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def pair(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run on one process accumulating twice, and on two processes."""
    folder = tmp_path_factory.mktemp("world")
    small = odd(small, folder)

    def kovqa(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command(words),
            cwd=folder,
            env=clean_env(),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    one = run(kovqa, small, folder / "one", "profile.micro_batch={default: 4}")
    two = run(kovqa, small, folder / "two", "profile.processes_per_node=2")
    return one, two


def test_two_processes_equal_accumulation(pair: tuple[Path, Path]) -> None:
    one, two = ([r for r in read_log(folder) if r["kind"] == "train"] for folder in pair)
    assert [r["step"] for r in one] == [1, 2, 3, 4, 5]
    for a, b in zip(one, two, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)
    weights = [load_file(folder / "step-000005" / "model.safetensors") for folder in pair]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[0].items():
        np.testing.assert_allclose(tensor, weights[1][name], rtol=0, atol=1e-6, err_msg=name)


def test_odd_validation_split_gives_the_same_score(pair: tuple[Path, Path]) -> None:
    one, two = ([r for r in read_log(folder) if r["kind"] == "eval"] for folder in pair)
    rows = len((pair[0].parent / "index" / "val.jsonl").read_text(encoding="utf-8").splitlines())
    assert rows % 2 == 1
    assert one[0]["rows"] == two[0]["rows"] == rows
    assert one[0]["score"] == two[0]["score"]


def test_other_ranks_have_their_own_log(pair: tuple[Path, Path]) -> None:
    assert (pair[1] / "logs" / "rank-1.log").exists()
    assert not (pair[1] / "error.json").exists()
