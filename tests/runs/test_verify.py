"""`kovqa runs verify`: checksums, pointers, log and result of a run folder."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, MachineError
from kovqa_core.runs import resume_point
from kovqa_core.runs.checksums import note_files
from kovqa_core.runs.verify import require_verified, verify_run
from kovqa_core.runs.verify_log import log_problem
from typer.testing import CliRunner

from kovqa_cli.main import app


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged, with an older step folder."""
    folder = Path(shutil.copytree(trained, tmp_path / "내 run"))
    older = folder / "step-000003"
    shutil.copytree(folder / "step-000006", older)
    state = json.loads((older / "trainer/state.json").read_text())
    (older / "trainer/state.json").write_text(json.dumps({**state, "step": 3}))
    (older / "trainer/files.json").unlink()
    note_files(older)
    return folder


def problems(folder: Path) -> dict[str, str]:
    return {finding.name: finding.detail for finding in verify_run(folder).problems}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def edit_log(folder: Path, edit: Callable[[list[str]], list[str]]) -> None:
    path = folder / "log.jsonl"
    path.write_text("".join(edit(path.read_text().splitlines(keepends=True))))


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "weights": (lambda f: flip(f / "step-000003/model.safetensors"), "step-000003", "not as written: model.safe"),
    "moments": (lambda f: flip(f / "step-000006/trainer/optimizer.safetensors"), "step-000006", "not as written: tr"),
    "classes": (lambda f: (f / "step-000006/answers.txt").unlink(), "step-000006", "not as written: answers.txt"),
    "list": (lambda f: (f / "step-000006/trainer/files.json").write_text("[]"), "step-000006", "files.json is damaged"),
    "no last": (lambda f: (f / "last").unlink(), "last", "no readable file `last`"),
    "empty best": (lambda f: (f / "best").write_text(""), "best", "`best` is empty"),
    "other best": (lambda f: (f / "best").write_text("step-000003\n"), "best", "of step-000006 it is step-000006"),
    "best gone": (lambda f: (f / "best").write_text("step-000099\n"), "best", "names step-000099, which is gone"),
    "result": (lambda f: (f / "result.json").write_text("{}"), "result.json", "the key task is missing"),
    "result steps": (lambda f: edit_json(f / "result.json", steps=5), "result.json", "says 5 steps"),
    "result best": (lambda f: edit_json(f / "result.json", best="step-000003"), "result.json", "says step-000003 is"),
    "no log": (lambda f: (f / "log.jsonl").unlink(), "log.jsonl", "is missing"),
    "a step twice": (lambda f: edit_log(f, lambda rows: [rows[0], *rows]), "log.jsonl", "line 2: step 1 stands there t"),
    "a step back": (lambda f: edit_log(f, lambda rows: [*rows, rows[1]]), "log.jsonl", "comes after step 6"),
    "steps missing": (lambda f: edit_log(f, lambda rows: [rows[0], *rows[3:]]), "log.jsonl", "between 1 and 4 are mi"),
    "log too short": (lambda f: edit_log(f, lambda rows: rows[:3]), "log.jsonl", "ends at step 3, before the last"),
    "log damaged": (lambda f: edit_log(f, lambda rows: ['{"kind": 3}\n', *rows]), "log.jsonl", "line 1 is damaged"),
    "log torn": (lambda f: edit_log(f, lambda rows: [*rows, '{"kin']), "log.jsonl", "line 8 is damaged"),
    "settings": (lambda f: (f / "run.yaml").write_text("recipe: ["), "run.yaml", "run.yaml"),
}  # fmt: skip


def test_a_run_that_nobody_touched_has_no_problems(run: Path) -> None:
    verified = verify_run(run)
    assert [finding.name for finding in verified.findings] == [
        "step-000003", "step-000006", "last", "best", "log.jsonl", "result.json",
    ]  # fmt: skip
    assert verified.problems == []
    require_verified([verified])


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_named(run: Path, damage: str) -> None:
    do_damage, name, detail = DAMAGES[damage]
    do_damage(run)
    found = problems(run)
    assert detail in found.pop(name)
    assert found == {}
    with pytest.raises(DataError, match="1 of 1 runs"):
        require_verified([verify_run(run)])


def test_checkpoints_without_checksums_or_training_state_are_no_damage(run: Path) -> None:
    (run / "step-000003/trainer/files.json").unlink()
    shutil.rmtree(run / "step-000006/trainer")
    (run / "step-000009.part").mkdir()
    details = {finding.name: finding.detail for finding in verify_run(run).findings if finding.ok}
    assert details["step-000003"].startswith("no checksums: an earlier version")
    assert details["step-000006"].startswith("a model alone")
    assert details["step-000009.part"].startswith("left by a killed process")


def test_a_log_may_end_in_half_a_line_while_its_run_is_not_finished(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"kind": "train", "step": 10}\n{"kind": "eval", "step": 10}\n{"kind": "train", "st')
    assert log_problem(log, 10, 10, may_be_torn=True) is None
    assert log_problem(log, 10, 10, may_be_torn=False) is not None
    for odd in (
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"kind": "train", "step": 1.5}',
        b"null",
        b'{"kind": [], "step": 1}',
    ):
        log.write_bytes(odd + b"\n")
        problem = log_problem(log, 0, None, may_be_torn=True)
        assert problem is not None
        assert "line 1 is damaged" in problem


def test_the_command_prints_a_table_and_ends_with_3(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    runner = CliRunner()
    done = runner.invoke(app, ["runs", "verify", run.name], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout.count("ok") == 6
    flip(run / "step-000003/model.safetensors")
    done = runner.invoke(app, ["runs", "verify", run.name])
    assert isinstance(done.exception, DataError)  # `kovqa_cli.main.run` makes exit code 3 of it
    assert done.exception.exit_code == 3
    assert "DAMAGED" in done.stdout
    report = json.loads(runner.invoke(app, ["runs", "verify", "--root", ".", "--json"]).stdout)
    (of_run,) = report["runs"]
    assert (report["schema"], of_run["ok"], of_run["folder"]) == (1, False, run.name)
    assert of_run["findings"][0] == {
        "name": "step-000003", "ok": False, "detail": "not as written: model.safetensors",
    }  # fmt: skip
    assert runner.invoke(app, ["runs", "verify", "--root", ".", "-q"]).stdout == f"{run.name}\n"


def test_a_limit_of_this_process_is_no_damage_of_a_checkpoint(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Going on from an older step folder would throw hours away for an `ulimit -n`."""

    def without_descriptors(step: Path) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files", str(step / "model.safetensors"))

    monkeypatch.setattr(resume_point, "damaged_files", without_descriptors)
    with pytest.raises(MachineError, match="more files are open"):
        resume_point.find_resume_point(run, checksums=True)
