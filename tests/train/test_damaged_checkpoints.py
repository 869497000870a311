"""A checkpoint of which one bit is not as it was written: an older one is taken, and said; nothing is begun anew."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from kovqa_core.distributed import process_group
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import ModelError, Stopped
from kovqa_core.runs.checksums import damaged_files, has_checksums
from kovqa_core.runs.folder import follow_pointer, read_result
from kovqa_core.runs.resume_point import ResumePoint, find_resume_point
from kovqa_core.runs.step_folders import FILE_LIST
from kovqa_core.runs.verify import verify_run
from kovqa_core.settings.run import read_run, write_run
from kovqa_core.train import checkpoint, loop
from kovqa_core.train.loop import run_training
from kovqa_core.train.resume import agree_on_resume_point, settle_run_folder

from tests.conftest import Small
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, CPU, make_small_run, never_stop, stop_after

SETS = ("optim.steps=6", "eval.every_steps=3", "save.every_steps=1", "save.keep=2", "optim.ema_decay=0.5")


@pytest.fixture(scope="module")
def stopped_run(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped at step 4, with the step folders of 3 (the best) and 4."""
    run = make_small_run(small, tmp_path_factory.mktemp("stopped") / "run", *SETS)
    write_run(run)
    with pytest.raises(Stopped):
        run_training(run, ALONE, CPU, stop_after(4))
    return run.folder


@pytest.fixture
def folder(stopped_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stopped_run, tmp_path / "run"))


def flip_bit(path: Path, position: float = 0.5) -> None:
    """Change one bit, as a disk does."""
    content = bytearray(path.read_bytes())
    content[int(position * (len(content) - 1))] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("position", [0.0, 0.5, 1.0])
def test_a_flipped_bit_in_any_file_is_noticed_and_named(folder: Path, position: float) -> None:
    step = folder / "step-000004"
    assert damaged_files(step) == []
    names = sorted(path.relative_to(step).as_posix() for path in step.rglob("*") if path.is_file())
    assert {"model.safetensors", "answers.txt", "trainer/optimizer.safetensors", "trainer/state.json"} < {
        *names
    }
    for name in names:
        whole = (step / name).read_bytes()
        flip_bit(step / name, position)
        point = find_resume_point(folder, checksums=True)
        assert point.step == folder / "step-000003", name
        if name != f"trainer/{FILE_LIST}":
            assert f"step-000004 cannot be resumed: not as it was written: {name}" in point.notes[0]
            assert point.notes[0].endswith(": going on from step-000003, the newest whole checkpoint")
        (step / name).write_bytes(whole)
    assert find_resume_point(folder, checksums=True) == ResumePoint(step)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_end(
    folder: Path, small: Small, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = make_small_run(small, tmp_path / "whole", *SETS)
    run_training(whole, ALONE, CPU, never_stop)
    flip_bit(folder / "step-000004/model.safetensors")
    (folder / "best").write_text("step-00")  # torn
    for leftover in ("step-000002.part", ".step-000002.part", ".step-000001.old"):
        (folder / leftover).mkdir()
    (folder / "step-000001.old").mkdir()  # the user's own copy
    capsys.readouterr()
    run_training(read_run(folder / "run.yaml"), ALONE, CPU, never_stop)
    said = capsys.readouterr().err
    assert "not as it was written: model.safetensors: going on from step-000003" in said
    assert "`best` names no step folder ('step-00'): step-000003 is the best by the training state" in said
    for name in ("model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json"):
        assert (folder / "step-000006" / name).read_bytes() == (
            whole.folder / "step-000006" / name
        ).read_bytes()
    assert [row["step"] for row in read_log(folder) if row["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    (folder / "step-000001.old").rmdir()
    assert {p.name for p in folder.rglob("*step-*")} == {p.name for p in whole.folder.rglob("*step-*")}
    assert not verify_run(folder).problems


def test_without_a_whole_checkpoint_nothing_is_begun_and_each_is_named(folder: Path) -> None:
    flip_bit(folder / "step-000004/trainer/optimizer.safetensors")
    (folder / "step-000003/answers.txt").unlink()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with pytest.raises(ModelError) as caught:
        run_training(read_run(folder / "run.yaml"), ALONE, CPU, never_stop)
    assert "step-000004 cannot be resumed: not as it was written: trainer/optimizer.safetensors" in str(
        caught.value
    )
    assert "step-000003 cannot be resumed: it lacks answers.txt" in str(caught.value)
    assert caught.value.exit_code == 3
    assert "kovqa runs rerun" in caught.value.hint
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("place", ["read_resume_state", "restore_strategy"])
def test_the_log_is_cut_only_once_the_checkpoint_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def broken(*args: object, **options: object) -> None:
        raise ModelError("of another process")

    monkeypatch.setattr(checkpoint, place, broken)
    (folder / "last").write_text("")
    (folder / "log.jsonl").write_text((folder / "log.jsonl").read_text() + '{"kind": "train", "step": 5}\n')
    before = (folder / "log.jsonl").read_bytes()
    with pytest.raises(ModelError):
        loop.prepare_training(read_run(folder / "run.yaml"), ALONE, CPU, never_stop)
    assert (folder / "log.jsonl").read_bytes() == before
    assert (folder / "last").read_bytes() == b""


def test_a_checkpoint_of_an_earlier_version_has_no_checksums_and_is_resumed(folder: Path) -> None:
    for step in (folder / "step-000003", folder / "step-000004"):
        path = step / "trainer" / FILE_LIST
        values = json.loads(path.read_text())
        del values["sha256"]
        path.write_text(json.dumps({**values, "schema": 1}))
        assert not has_checksums(step)
    assert find_resume_point(folder, checksums=True).step == folder / "step-000004"
    state = folder / "step-000004/trainer/state.json"
    state.write_text(state.read_text().replace('"step": 4', '"step": 5'))
    point = find_resume_point(folder, checksums=True)
    assert point.step == folder / "step-000003"
    assert "state.json is not the training state of this step" in point.notes[0]
    run_training(
        read_run(folder / "run.yaml"), ALONE, CPU, never_stop
    )  # evaluates into folders without checksums
    assert read_result(folder) is not None


def test_a_run_that_went_back_keeps_what_it_writes(folder: Path) -> None:
    """keep=1 beside step folders of higher numbers: none of those takes the place of the newest."""
    names = ["step-000002", "step-000003", "step-000009"]
    assert checkpoint.checkpoints_to_remove(names, 1, None, "step-000003") == ["step-000002"]
    assert checkpoint.checkpoints_to_remove(names, 1, Path("step-000002"), "step-000003") == []
    shutil.copytree(folder / "step-000004", folder / "step-000009")
    flip_bit(folder / "step-000009/model.safetensors")
    (folder / "last").write_text("step-000009\n")
    with pytest.raises(Stopped):
        run_training(read_run(folder / "run.yaml"), ALONE, CPU, stop_after(1))
    last = follow_pointer(folder, "last")
    assert last == folder / "step-000005"
    assert damaged_files(last) == []


def test_the_log_of_checkpoints_that_were_removed_is_kept(folder: Path) -> None:
    for step in folder.glob("step-*"):
        shutil.rmtree(step)
    (folder / "last").unlink()
    log = (folder / "log.jsonl").read_bytes()
    launch = {"began": "2026-01-01T00:00:00+0900", "step": 4}
    (folder / "manifest.json").write_text(json.dumps({"schema": 1, "launches": [launch]}))
    point = find_resume_point(folder, checksums=True)
    (note,) = settle_run_folder(folder, point)
    assert "the log so far is kept as log-1.jsonl" in note
    assert (folder / "log-1.jsonl").read_bytes() == log


# ------------------------------------------------------------------------------ several processes


def test_one_process_chooses_and_the_others_wait_until_they_see_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = agree_on_resume_point(folder, ALONE)
    assert chosen.step == folder / "step-000004"
    monkeypatch.setattr(process_group, "all_gather_objects", lambda value: [chosen, value])
    hidden = folder / "step-000004"
    hidden.rename(folder / "hidden")  # an NFS client that goes by what it knew
    other = RankInfo(1, 0, 2)
    with pytest.raises(
        ModelError, match=r"rank 1 on \S+ does not see what the first process goes on from: .*0004"
    ):
        agree_on_resume_point(folder, other, seen_seconds=0)
    timer = threading.Timer(0.5, (folder / "hidden").rename, [hidden])
    timer.start()
    began = time.monotonic()
    assert agree_on_resume_point(folder, other, seen_seconds=30).step == hidden
    assert time.monotonic() - began > 0.4


def test_all_processes_end_with_the_error_of_the_one_that_chooses(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []

    def gather(value: object) -> list[object]:
        told.append(value)
        return told[:1]

    monkeypatch.setattr(process_group, "all_gather_objects", gather)
    (folder / "step-000004/answers.txt").unlink()
    shutil.rmtree(folder / "step-000003")
    errors = []
    for rank in (ALONE, RankInfo(1, 0, 2)):
        with pytest.raises(ModelError, match=r"it lacks answers\.txt") as caught:
            agree_on_resume_point(folder, rank)
        errors.append((str(caught.value), caught.value.hint))
    assert errors[0] == errors[1]
