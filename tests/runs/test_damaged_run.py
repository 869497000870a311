"""Files of a run folder, damaged in every way: one line that names the file, or the rest with a note; no traceback."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from kovqa_core.errors import KovqaError
from kovqa_core.runs.folder import find_model_folder, is_run_active, read_error, read_result
from kovqa_core.runs.log_file import log_problems, read_logged_events
from kovqa_core.runs.manifest import manifest_problems, read_launches, record_launch
from kovqa_core.runs.slurm_job import read_slurm_job
from kovqa_core.runs.summary import all_runs, read_run_details
from kovqa_core.settings.run import RUN_FILE, read_run
from typer.testing import CliRunner

from kovqa_cli.main import app, run

STORED = Path(__file__).parents[1] / "fixtures" / "compat" / "beit3" / "run"
FILES = (
    "run.yaml",
    "result.json",
    "error.json",
    "manifest.json",
    "log.jsonl",
    "last",
    "slurm-job.json",
    ".lock",
)
RESULT = {
    "schema": 1, "task": "vqa", "recipe": "tiny", "steps": 150, "best": "step-000126", "best_score": 0.5,
    "last_score": 0.25, "seconds": 3.5, "examples_per_second": 12.0,
}  # fmt: skip
READERS: tuple[Callable[[Path], object], ...] = (
    read_result, read_error, read_launches, manifest_problems, read_logged_events, read_slurm_job, is_run_active,
    lambda folder: list(log_problems(folder)), lambda folder: find_model_folder(folder, "vqa"),
)  # fmt: skip
WRONG = ([], {}, "글", -1, float("inf"), None, "a\0b", True, 10**30)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder of two runs, one of which is damaged by the test: 나쁜."""
    for name in ("좋은", "나쁜"):
        shutil.copytree(STORED, tmp_path / name)
        settings = tmp_path / name / RUN_FILE
        settings.write_text(settings.read_text("utf-8").replace("@HERE@", str(tmp_path)), "utf-8")
    (tmp_path / "나쁜" / "result.json").write_text(json.dumps(RESULT))
    (tmp_path / "나쁜" / "slurm-job.json").write_text('{"schema": 1, "number": "12", "name": "kovqa-r"}')
    (tmp_path / "나쁜" / ".lock").write_text('{"host": "h", "pid": 1, "job": ""}')
    return tmp_path


def wrong_values(name: str, content: bytes) -> Iterator[bytes]:
    """The file with one value of another type, or one key missing."""
    drawn = random.Random(name)
    lines = content.splitlines()
    whole = json.loads(lines[3]) if name == "log.jsonl" else yaml.safe_load(content)
    ways = list(ways_to_values(whole)) if isinstance(whole, dict) else []
    for way in drawn.sample(ways, min(12, len(ways))):
        text = json.dumps(changed(whole, way, drawn.choice((*WRONG, ...)))).encode()  # JSON is YAML, too
        yield b"\n".join([*lines[:3], text, *lines[4:], b""]) if name == "log.jsonl" else text


def ways_to_values(value: object, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in pairs:
        yield (*way, key)
        yield from ways_to_values(inside, (*way, key))


def changed(value: object, way: tuple[str | int, ...], new: object) -> object:
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in way[:-1]:
        inside = inside[key]
    if new is ...:
        del inside[way[-1]]
    else:
        inside[way[-1]] = new
    return copy


def damages(name: str, content: bytes) -> Iterator[bytes]:
    yield from (b"", content[: len(content) // 2], content[:9] + b"\0" + content[9:], b"\xff\xfe" + content)
    yield from (b"[" * 100_000, b'{"a":' * 100_000, b"[]", b"3", b"null", b'{"steps": ' + b"9" * 5000 + b"}")
    yield from wrong_values(name, content)


@pytest.mark.parametrize("name", FILES)
def test_every_damage_is_an_error_of_one_line_or_left_out(runs: Path, name: str) -> None:
    file = runs / "나쁜" / name
    for number, damage in enumerate(damages(name, file.read_bytes())):
        file.write_bytes(damage)
        look_at(runs, f"{name}, damage {number}: {damage[:60]!r}")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("what", ["folder", "pipe", "link to itself", "link to nothing", "missing"])
def test_something_else_in_the_place_of_a_file(runs: Path, name: str, what: str) -> None:
    file = runs / "나쁜" / name
    file.unlink()
    if what == "folder":
        file.mkdir()
    elif what == "pipe":
        os.mkfifo(file)
    elif what != "missing":
        file.symlink_to(name if what == "link to itself" else "nothing")
    look_at(runs, f"{name}: {what}")


def look_at(runs: Path, case: str) -> None:
    """All that reads a run folder; the good one beside it is always listed."""
    bad = runs / "나쁜"
    looks: list[Callable[[], object]] = [partial(read, bad) for read in READERS]
    if case.startswith("run.yaml"):  # to read settings takes longest
        looks.append(partial(read_run_details, bad))
    if case.endswith(": folder"):
        assert {run.folder.name for run in all_runs(runs)} == {"좋은", "나쁜"}, case
    for look in looks:
        said = error_of(look, case)
        assert said == "" or "나쁜" in said, f"{case}: {said}"
        assert "\n" not in said, case


def error_of(look: Callable[[], object], case: str) -> str:
    """The message of the error that ends it; "" where it ends well."""
    try:
        look()
    except KovqaError as error:
        return error.message
    except Exception as error:
        raise AssertionError(case) from error
    return ""


def test_what_is_left_out_is_said(runs: Path) -> None:
    bad = runs / "나쁜"
    (bad / "result.json").unlink()
    manifest = json.loads((bad / "manifest.json").read_text())
    manifest["launches"].append({**manifest["launches"][0], "micro_batch": "many"})
    (bad / "manifest.json").write_text(json.dumps(manifest))
    lines = (bad / "log.jsonl").read_text().splitlines()
    (bad / "log.jsonl").write_text(
        "\n".join([*lines[:2], '{"kind": "train", "step": "x"}', "{", *lines[2:], ""])
    )
    said = [str(problem) for problem in read_run_details(bad).problems]
    assert "manifest.json: launch 2 cannot be read: micro_batch: " in said[0]
    assert "log.jsonl:3: " in said[1]
    assert "step" in said[1]
    assert said[1].endswith("there are 2")
    shown = CliRunner().invoke(app, ["runs", "show", str(bad)])
    assert shown.exit_code == 0
    assert "launch 2 cannot be read" in shown.stderr
    (bad / RUN_FILE).write_text("recipe: 3\n")
    listed = CliRunner().invoke(app, ["runs", "--root", str(runs), "--json"])
    assert listed.exit_code == 0
    states = {Path(run["folder"]).name: run for run in json.loads(listed.stdout)["runs"]}
    assert (states["나쁜"]["state"], states["좋은"]["state"]) == ("broken", "stopped")
    assert "run.yaml: folder: this key is missing" in states["나쁜"]["error"]


def test_a_broken_manifest_is_kept_beside_the_new_one(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = runs / "나쁜"
    (bad / "manifest.json").write_text('{"launches": "all lost"}')
    with record_launch(read_run(bad / RUN_FILE)):
        pass
    assert (bad / "manifest.json.broken").read_text() == '{"launches": "all lost"}'
    assert len(json.loads((bad / "manifest.json").read_text())["launches"]) == 1
    assert "launches: " in capsys.readouterr().err


def test_a_folder_that_may_not_be_looked_into_is_named_and_the_others_are_listed(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tests may run as root, whom no permission keeps out: the refusal is the system's, as Python raises it."""
    stat = Path.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if "나쁜" in path.parent.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", refuse)
    states = {run.folder.name: run for run in all_runs(runs)}
    assert (states["좋은"].state, states["나쁜"].state) == ("stopped", "broken")
    assert "Permission denied" in states["나쁜"].error
    assert read_run_details(runs / "나쁜").run is None
    for words in (["runs", "diff", "나쁜", "좋은"], ["runs", "rerun", "나쁜"]):
        monkeypatch.chdir(runs)
        monkeypatch.setattr(sys, "argv", ["kovqa", *words])
        with pytest.raises(SystemExit) as ended:
            run()
        assert ended.value.code == 3
        assert re.fullmatch(
            r"kovqa: cannot use .*나쁜/run\.yaml: Permission denied.*\n", capsys.readouterr().err
        )
