"""A command in a hint can be pasted, whatever the folder is called."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core import worker
from kovqa_core.data.table_columns import _name_column_hint
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import DataError
from kovqa_core.index.reader import open_index
from kovqa_core.launch.failure import launch_failure
from kovqa_core.launch.launchers.protocol import BatchQueue, LaunchPlan
from kovqa_core.models.vlm.import_llava import ImportedLlava
from kovqa_core.runs.folder import RunResult
from kovqa_core.runs.summary import RunSummary
from kovqa_core.settings.resolve import load_profile, load_recipe
from kovqa_core.settings.run import Run, make_run

from kovqa_cli.output.models import print_converted_llava
from kovqa_cli.output.next_commands import next_commands
from kovqa_cli.output.settings import print_new_settings
from kovqa_cli.output.training import print_finished_run, print_interrupted_run, print_submitted_job
from tests.plan.conftest import leave_checkpoint

NAME = "a run's 100% $HOME & 실험"
RESULT = RunResult("vqa", "tiny", 4, "step-000004", 0.5, 0.5, 1.0, 2.0)
CAPTIONS = RunResult("caption", "tiny", 4, "step-000004", 0.5, 0.5, 1.0, 2.0)
QUEUE = BatchQueue("SLURM", "squeue -j {job}", "scancel {job}", "logs/{job}.log")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / NAME / "logs").mkdir(parents=True)
    return make_run(load_recipe("tiny"), load_profile("cpu"), tmp_path / NAME, [])


def _failed_launch(run: Run) -> str:
    log = run.folder / "logs" / "launcher.log"
    log.write_text("")
    return launch_failure(LaunchPlan([], {}, run.folder), log).hint


def _missing_index(run: Run) -> str:
    with pytest.raises(DataError) as caught:
        open_index(run.folder)
    return caught.value.hint


HINTS: dict[str, Callable[[Run], object]] = {
    "finished": lambda run: print_finished_run(run, RESULT, as_json=False, quiet=False),
    "finished captions": lambda run: print_finished_run(run, CAPTIONS, as_json=False, quiet=False),
    "interrupted": print_interrupted_run,
    "queued": lambda run: print_submitted_job(run, "7", QUEUE, as_json=False, quiet=False),
    "hung": lambda run: worker._hung_run_hint(run, RankInfo(0, 0, 1)),
    "failed": _failed_launch,
    "no index": _missing_index,
    "new recipe": lambda run: print_new_settings("recipe", run.folder, as_json=False, quiet=False),
    "llava": lambda run: print_converted_llava(
        run.folder, ImportedLlava("merged", [], []), as_json=False, quiet=False
    ),
    "runs show": lambda run: next_commands(RunSummary(run.folder, "stopped", 0.0), {})[0],
    "runs show, finished": lambda run: next_commands(RunSummary(run.folder, "finished", 0.0, task="vqa"), {})[
        0
    ],
}


@pytest.mark.parametrize("hint", HINTS)
def test_a_folder_comes_through_a_shell(
    run: Run, capsys: pytest.CaptureFixture[str], hint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for here in (tmp_path, tmp_path.parent):  # called relative to here, or by its whole path
        monkeypatch.chdir(here)
        returned = HINTS[hint](run)
        printed = capsys.readouterr()
        text = returned if isinstance(returned, str) else printed.err
        (command,) = re.findall(r"(?:kovqa|same command with) .*(?:-o|--model|--recipe|base=) ?.*", text)[-1:]
        words = [word.removeprefix("model.base=") for word in shlex.split(command.replace("'…'", "x"))]
        assert any(Path(word).resolve() == run.folder for word in words), command


def test_a_run_without_a_checkpoint_is_said_to_begin_anew(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "there is no checkpoint yet; begin anew at step 0: kovqa train --resume" in _failed_launch(run)
    print_interrupted_run(run)
    assert "there is no checkpoint yet → begin anew at step 0 with" in capsys.readouterr().err
    leave_checkpoint(run.folder, 4)
    assert "go on from the last checkpoint, step-000004: kovqa train --resume" in _failed_launch(run)
    print_interrupted_run(run)
    assert "step-000004 is complete → go on with" in capsys.readouterr().err


def test_a_column_comes_through_a_shell() -> None:
    assert shlex.split(_name_column_hint({"image": "그림 파일 $1"}))[-1] == "image=그림 파일 $1"
