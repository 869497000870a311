"""SIGKILL at every operation on a file of a training: the same command again ends as if nothing had been.

A sample runs with the other tests; `make soak` takes every operation, and pairs of them.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from kovqa_core.runs.verify import verify_run
from kovqa_core.settings.run import write_run

from tests.conftest import Small
from tests.tools.training_log import read_log
from tests.train.killed_trainings import EndedTraining, TrainingForks
from tests.train.test_resume import make_small_run

# Four steps, three saves, two evaluations: of each kind one that replaces, and one that removes an older folder.
SETS = ("optim.steps=4", "eval.every_steps=2", "save.every_steps=1", "save.keep=1", "optim.ema_decay=0.5")
SAMPLES = 10


@pytest.fixture(scope="module")
def forks() -> Iterator[TrainingForks]:
    with TrainingForks() as server:
        yield server


@pytest.fixture(scope="module")
def new_run(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder in which nothing was trained yet."""
    run = make_small_run(small, tmp_path_factory.mktemp("new") / "run", *SETS)
    write_run(run)
    return run.folder


@pytest.fixture(scope="module")
def undisturbed(
    forks: TrainingForks, new_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, object], EndedTraining]:
    """What a training leaves that nobody killed."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    shutil.copytree(new_run, folder)
    ended = forks.train(folder)
    assert ended.code == 0, ended.text
    return contents(folder), ended


def contents(folder: Path) -> dict[str, object]:
    """All files of a run, and log and result without what a clock says."""
    files: dict[str, object] = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }
    clock = ("seconds", "examples_per_second")
    result = json.loads((folder / "result.json").read_text())
    files["result.json"] = {key: value for key, value in result.items() if key not in clock}
    files["log.jsonl"] = [{k: v for k, v in row.items() if k not in clock} for row in read_log(folder)]
    return files


def kill_then_finish(forks: TrainingForks, new_run: Path, folder: Path, *kills: int) -> dict[str, object]:
    """Train with kills, one after the other, then to the end; what is left then."""
    shutil.copytree(new_run, folder)
    for kill in kills:
        killed = forks.train(folder, kill)
        assert killed.code in (-9, 0), killed.text  # 0: a resume has fewer operations than a whole run
        log = folder / "log.jsonl"
        if killed.code and list(folder.glob("step-*/kovqa.json")):
            assert log.stat().st_size > 0  # never cut before a checkpoint stands
    ended = forks.train(folder)
    assert ended.code == 0, (kills, ended.text)
    assert not verify_run(folder).problems, kills
    left = contents(folder)
    shutil.rmtree(folder)
    return left


def test_killed_at_any_operation_a_training_ends_as_if_nothing_had_been(
    forks: TrainingForks, new_run: Path, undisturbed: tuple[dict[str, object], EndedTraining], tmp_path: Path
) -> None:
    left, whole = undisturbed
    count = len(whole.operations)
    assert count > 60, whole.operations  # or the hook counts nothing
    rng = random.Random(0)
    for kill in sorted(rng.sample(range(1, count + 1), SAMPLES)):
        assert kill_then_finish(forks, new_run, tmp_path / "run", kill) == left, whole.operations[kill - 1]


@pytest.mark.soak
def test_killed_at_every_operation(
    forks: TrainingForks, new_run: Path, undisturbed: tuple[dict[str, object], EndedTraining], tmp_path: Path
) -> None:
    left, whole = undisturbed
    for kill in range(1, len(whole.operations) + 1):
        assert kill_then_finish(forks, new_run, tmp_path / "run", kill) == left, whole.operations[kill - 1]


@pytest.mark.soak
def test_killed_in_two_or_three_saves_one_after_the_other(
    forks: TrainingForks, new_run: Path, undisturbed: tuple[dict[str, object], EndedTraining], tmp_path: Path
) -> None:
    left, whole = undisturbed
    rng = random.Random(1)
    for number in range(60):
        kills = [rng.randrange(1, len(whole.operations) + 1) for _ in range(2 + number % 2)]
        assert kill_then_finish(forks, new_run, tmp_path / "run", *kills) == left, kills
