"""What a tracker gets of a log: each line once, whatever fails and whenever the run was killed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import pytest
from kovqa_core.tracking.secret_texts import without_secrets
from kovqa_core.tracking.tracked_run import (
    LoggedValues,
    ShownSample,
    TrackedRun,
    TrackerState,
    flat_config,
    image_copy,
    write_tracked_run,
)
from kovqa_core.tracking.tracker_process import LogRecorder


class Notebook:
    """A tracker that remembers."""

    def __init__(self) -> None:
        self.points: list[tuple[str, int, float]] = []
        self.samples: list[tuple[int, list[ShownSample]]] = []
        self.ids: list[str] = []
        self.ends: list[tuple[str, Mapping[str, float]]] = []
        self.fails = False

    def add_values(self, rows: list[LoggedValues]) -> None:
        if self.fails:
            raise ConnectionError("down")
        self.points += [(key, row.step, value) for row in rows for key, value in row.values.items()]

    def add_samples(self, step: int, samples: list[ShownSample]) -> None:
        self.samples.append((step, samples))

    def finish(self, outcome: str, summary: Mapping[str, float]) -> None:
        self.ends.append((outcome, summary))


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Notebook:
    notebook, module = Notebook(), ModuleType("notebook_tracker")

    def open_tracker(run: TrackedRun, state: TrackerState, warn: object) -> Notebook:
        notebook.ids.append(state.id)
        return notebook

    vars(module).update(set_variables=lambda run: None, open_tracker=open_tracker)
    monkeypatch.setitem(sys.modules, "notebook_tracker", module)
    return notebook


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    run = TrackedRun(folder, folder / "log.jsonl", folder / "val_samples.jsonl", {"optim.lr": 0.1}, {})
    write_tracked_run(run)
    return folder


def write_log(folder: Path, *steps: int, torn: str = "") -> None:
    lines = [json.dumps({"kind": "train", "step": step, "loss": step + 0.5, "left_out": 1}) for step in steps]
    (folder / "log.jsonl").write_text("\n".join([*lines, torn]))


def record(folder: Path) -> list[str]:
    """One launch of a run; the problems."""
    problems: list[str] = []
    recorder = LogRecorder("notebook", "notebook_tracker", folder, lambda text, step: problems.append(text))
    recorder.record_new(at_once=True)
    recorder.finish("finished")
    return [problem for problem in problems if problem]


def steps(notebook: Notebook) -> list[int]:
    return [step for _, step, _ in notebook.points]


def test_what_is_done_again_after_a_kill_is_not_recorded_twice(notebook: Notebook, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    write_log(folder, *range(1, 251), torn='{"kind": "train", "step": 251, "lo')
    record(folder)
    assert steps(notebook) == list(range(1, 251))
    assert notebook.points[0] == ("train/loss", 1, 1.5)  # numbers of rows are no curves
    write_log(folder, *range(1, 261))  # resumed at an earlier checkpoint: the log was cut, and grew again
    record(folder)
    assert steps(notebook) == list(range(1, 261))
    assert len(set(notebook.ids)) == 1


def test_a_moved_run_goes_on_and_a_copy_is_another(notebook: Notebook, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    write_log(folder, 1, 2)
    record(folder)
    moved = folder.rename(tmp_path / "moved")
    record(moved)
    copy = Path(shutil.copytree(moved, tmp_path / "copy"))
    record(copy)
    first, second, third = notebook.ids
    assert first == second != third
    assert steps(notebook) == [1, 2, 1, 2]  # the copy's curve is whole


def test_what_fails_is_recorded_later(notebook: Notebook, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    write_log(folder, 1, 2)
    notebook.fails = True
    assert record(folder) == ["ConnectionError: down"]
    notebook.fails = False
    write_log(folder, 1, 2, 3)
    assert record(folder) == []
    assert steps(notebook) == [1, 2, 3]


def test_a_damaged_state_or_log_is_no_obstacle(notebook: Notebook, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    (folder / "tracking" / "notebook.json").write_text('{"id": 3}')
    lines = ["[]", "{", '{"kind": "train", "step": 1, "loss": NaN, "lr": 0.5}', '{"step": "x"}', "\x00" * 9]
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")
    assert record(folder) == []
    assert notebook.points == [("train/lr", 1, 0.5)]


def test_samples_come_with_their_evaluation(notebook: Notebook, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "run")
    for name in ("가.png", "b.png"):
        copy = image_copy(folder, name)
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(b"")
    rows = [
        {"step": step, "samples": [
            {"image": name, "question": "몇 개인가요?", "answer": "두 개", "truth": ["세 개", "3"]}
            for name in ("가.png", "b.png", "not copied.png")
        ]}
        for step in (5, 10)
    ]  # fmt: skip
    (folder / "val_samples.jsonl").write_text("\n".join([*map(json.dumps, rows), '{"step": 15, "sam']))
    events = [{"kind": "eval", "step": step, "score": 0.5} for step in (10, 15)]
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    assert record(folder) == []
    ((step, samples),) = notebook.samples
    assert step == 10
    assert [sample.caption for sample in samples] == ["몇 개인가요? → 두 개 (세 개)"] * 2


def test_keys_are_hidden() -> None:
    environ = {
        "TOKEN": "012345",
        "WANDB_API_KEY": "0123456789abcdef",
        "SHORT_KEY": "a",
        "HOME": "/home/somebody",
    }
    text = "bad 0123456789abcdef at https://user:pass@h/x?write_token=abc&b=1 in /home/somebody"
    hidden = "bad *** at https://***@h/x?write_token=***&b=1 in /home/somebody"
    assert without_secrets(text, environ) == hidden


def test_settings_are_flat() -> None:
    values = {"a": {"b": 1, "c": {"d": [1, "가"]}}, "e": None, "f": {}, "g": True}
    assert dict(flat_config(values)) == {"a.b": 1, "a.c.d": '[1, "가"]', "f": "{}", "g": True}
