"""What version 0.1.0 wrote, users still have: index, run folder, checkpoint, predictions, recipe, profile.

`tests/fixtures/compat` holds one of each family, written at the commit its README names. Only the `kovqa`
command is used here, as a process: modules may move, these files must go on working.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Kovqa

FIXTURE = Path(__file__).parent / "fixtures" / "compat"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text("utf-8"))
FAMILIES = sorted(EXPECTED["families"])
TEXTS = (".yaml", ".json", ".jsonl")  # where a path may stand, as @HERE@
# Key of 0.1.0 -> key of today. A key that is renamed gets its line here.
RENAMED = {
    "image": "image_size", "patch": "patch_size", "classes": "num_classes", "vocab": "vocab_size", "fresh": "reinit",
    "hidden": "hidden_size", "beams": "num_beams", "clip": "max_grad_norm", "ema": "ema_decay",
    "decay_vectors": "decay_bias_and_norm", "text_first_steps": "freeze_vision_steps", "prologue": "setup",
    "wrap": "command_prefix", "interface": "network_interface", "warn_seconds": "signal_seconds",
    "hang_minutes": "watchdog_minutes",
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The kept files, copied to where they may be written, their paths made true."""
    folder = tmp_path / "kept"
    shutil.copytree(FIXTURE, folder)
    for path in (path for path in folder.rglob("*") if path.suffix in TEXTS):
        text = path.read_text("utf-8")
        if "@HERE@" in text:
            path.write_text(text.replace("@HERE@", str(folder)), "utf-8")
    return folder


def succeed(kovqa: Kovqa, *words: object) -> str:
    """Run a command that must succeed; its stdout."""
    done = kovqa(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]


def contains(found: Any, recorded: Any, where: str = "") -> None:
    """Everything recorded is found again; something new may stand beside it. Numbers to 1e-6."""
    if isinstance(recorded, dict):
        assert set(recorded) <= set(found), where
        for key, value in recorded.items():
            contains(found[key], value, f"{where}.{key}")
    elif isinstance(recorded, list):
        assert len(found) == len(recorded), where
        for number, value in enumerate(recorded):
            contains(found[number], value, f"{where}[{number}]")
    elif isinstance(recorded, float):
        assert found == pytest.approx(recorded, abs=1e-6), where
    else:
        assert found == recorded, where


def same_arithmetic() -> bool:
    """Is this the CPU, and are these the libraries, that the bits were recorded with?"""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    facts = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    can = hashlib.sha256(" ".join(sorted(facts.get("flags", "").split())).encode()).hexdigest()[:12]
    cpu = f"{facts.get('model name', platform.processor())}, family {facts.get('cpu family')}, flags {can}"
    versions = {name: importlib.metadata.version(name) for name in EXPECTED["versions"]}
    return cpu == EXPECTED["cpu"] and versions == EXPECTED["versions"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_stopped_run_goes_on_to_the_recorded_end(kovqa: Kovqa, files: Path, family: str) -> None:
    recorded = EXPECTED["families"][family]
    finished, losses = recorded["finished"], json.loads(recorded["finished"]["losses"])
    run = files / family / "run"
    stop = int(recorded["stopped_at"].removeprefix("step-"))
    assert 0 < stop < len(losses)
    succeed(kovqa, "train", "-o", run, "--resume", "-q")
    log = read_lines(run / "log.jsonl")
    assert [row["step"] for row in log if row["kind"] == "train"] == list(range(1, len(losses) + 1))
    found = [row["loss"] for row in log if row["kind"] == "train"]
    assert found[:stop] == losses[:stop]  # kept as it was
    last = run / (run / "last").read_text().strip()
    assert last.name == finished["last"]
    assert {str(path.relative_to(last)) for path in last.rglob("*") if path.is_file()} >= set(
        finished["sha256"]
    )
    assert found == pytest.approx(losses, rel=1e-6)  # kernels without AVX are 4.5e-7 away at most
    if not same_arithmetic():
        return
    assert found == losses
    result = json.loads((run / "result.json").read_text("utf-8"))
    timed = ("seconds", "examples_per_second")
    contains(result, {key: value for key, value in finished["result"].items() if key not in timed})
    for name, digest in finished["sha256"].items():
        if not name.endswith(
            ".json"
        ):  # their keys may get other names; what they say is read above and below
            assert hashlib.sha256((last / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_gives_the_recorded_answers(
    kovqa: Kovqa, files: Path, tmp_path: Path, family: str
) -> None:
    column, index = ("caption", "index-captions") if family == "caption" else ("answer", "index")
    command = "caption" if family == "caption" else "predict"
    written, rows = tmp_path / "new.jsonl", files / index / "val.jsonl"
    succeed(kovqa, command, "--input", rows, "-o", written, "--model", files / family / "run", "-q")
    found, recorded = read_lines(written), read_lines(files / family / "predictions.jsonl")
    assert [(row["id"], row[column]) for row in found] == [(row["id"], row[column]) for row in recorded]
    for new, old in zip(found, recorded, strict=True):
        assert new["score"] == pytest.approx(old["score"], abs=2e-6)  # both are rounded to six digits


def test_predictions_get_the_recorded_scores(kovqa: Kovqa, files: Path) -> None:
    for family in FAMILIES:
        rows = files / ("index-captions" if family == "caption" else "index") / "val.jsonl"
        found = succeed(kovqa, "evaluate", files / family / "predictions.jsonl", "--index", rows, "--json")
        contains(json.loads(found), EXPECTED["families"][family]["evaluate"], family)


@pytest.mark.parametrize(("index", "table"), [("index", "questions"), ("index-captions", "captions")])
def test_an_index_has_the_recorded_rows(kovqa: Kovqa, files: Path, index: str, table: str) -> None:
    found = succeed(kovqa, "index", "--show", 99, "-o", files / index, "--json")
    recorded = json.dumps(EXPECTED["shown"][index]).replace("@HERE@", str(files))
    contains(json.loads(found), json.loads(recorded))
    again = files / "again"
    words = ["--root", files / f"{table}.jsonl", "--images", files / "images", "-o", again, "-q"]
    succeed(kovqa, "index", "table", *words)
    for path in sorted((files / index).iterdir()):
        if path.suffix != ".json":
            assert (again / path.name).read_bytes() == path.read_bytes(), path.name
    contains(*(json.loads((files / name / "index.json").read_text("utf-8")) for name in ("again", index)))


def test_runs_are_listed_with_the_step_they_stopped_at(kovqa: Kovqa, files: Path) -> None:
    for family in FAMILIES:
        found = json.loads(succeed(kovqa, "runs", "--root", files / family, "--json"))["runs"]
        stop = int(EXPECTED["families"][family]["stopped_at"].removeprefix("step-"))
        assert [(run["state"], run["steps"]) for run in found] == [("stopped", stop)]


def leaves(values: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All values of nested settings that are no mappings, by the keys that lead to them."""
    if not isinstance(values, dict):
        return {path: values}
    return {way: leaf for key, value in values.items() for way, leaf in leaves(value, (*path, key)).items()}


def in_todays_keys(path: tuple[str, ...], known: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The path of a setting of 0.1.0 in a run.yaml of today, whichever of its keys were renamed."""
    now = tuple(RENAMED.get(key, key) for key in path)
    return next((way for way in (path, now, (*path[:-1], now[-1])) if way in known), path)


@pytest.mark.parametrize("name", ["recipe-beit3", "recipe-fusion", "profile-slurm"])
def test_settings_of_a_user_keep_their_meaning(kovqa: Kovqa, files: Path, name: str) -> None:
    file = files / f"{name}.yaml"
    part = name.partition("-")[0]
    recipe = file if part == "recipe" else files / "recipe-beit3.yaml"
    profile = file if part == "profile" else "cpu"
    inputs = ["--data", files / "index", "--tokenizer", files / "tokenizer.model"]
    done = kovqa("train", "-r", recipe, "-p", profile, *inputs, "-o", files / "new", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    asked = leaves(
        yaml.safe_load(file.read_text("utf-8").replace("1e-3", "1.0e-3").replace("01:00:00", '"01:00:00"'))
    )
    run = leaves(json.loads(done.stdout)["run"][part])
    for path, value in asked.items():
        assert run[in_todays_keys(path, set(run))] == value, path
    if part == "profile":
        script = json.loads(done.stdout)["script"]
        assert "module load cuda" in script
        assert "env FROM_WRAP=1" in script
        assert "@120" in script  # --signal
