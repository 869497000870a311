"""Each profile's launch command is exactly the recorded text, and means the same experiment."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from kovqa_core.launch.plan import WORKER, plan
from kovqa_core.paths import names
from kovqa_core.settings.find import load_profile, load_recipe
from kovqa_core.settings.run import make_run

from tests.conftest import SMALL, Kovqa, Small, clean_env, sets

RECORDED = Path(__file__).parent.parent / "fixtures" / "launch"
FOLDER = Path("/실험 폴더/runs/첫 실행")


def recorded(name: str) -> str:
    """The command of a profile, with this machine's paths replaced by names."""
    run = make_run(load_recipe("kobeit3"), load_profile(name), FOLDER, [])
    return plan(run, "/usr/bin/python3", cores=48).shell().replace(str(WORKER), "WORKER") + "\n"


@pytest.mark.parametrize("name", sorted(names("profiles")))
def test_command_is_the_recorded_one(name: str) -> None:
    file = RECORDED / f"{name}.txt"
    assert recorded(name) == file.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(names("profiles")))
def test_command_parses_back(name: str) -> None:
    run = make_run(load_recipe("kobeit3"), load_profile(name), FOLDER, [])
    planned = plan(run, "/usr/bin/python3", cores=48)
    words = shlex.split(planned.shell())
    variables = dict(word.split("=", 1) for word in words[: len(planned.env)])
    assert variables == planned.env
    assert words[len(planned.env) :] == planned.argv


@pytest.mark.parametrize("name", ["a100x4", "rtx3090x4"])
def test_dry_run_prints_it(kovqa: Kovqa, tmp_path: Path, name: str) -> None:
    done = kovqa("train", "--profile", name, "--dry-run", "-o", "runs/r")
    assert done.returncode == 0, done.stderr
    text = done.stdout.replace(str(WORKER), "WORKER").replace(shlex.quote(sys.executable), "/usr/bin/python3")
    text = text.replace(
        shlex.quote(str((tmp_path / "runs/r/run.yaml").resolve())), shlex.quote(str(FOLDER / "run.yaml"))
    )
    wanted = (RECORDED / f"{name}.txt").read_text(encoding="utf-8")
    threads = re.compile(r"OMP_NUM_THREADS=\d+")
    assert threads.sub("OMP", text) == threads.sub("OMP", wanted)
    batch = json.loads(kovqa("train", "--profile", name, "--dry-run", "--json", "-o", "runs/j").stdout)["run"]
    assert batch["recipe"]["optim"]["global_batch"] == 512
    assert batch["micro_batch"] * batch["accumulate"] * 4 == 512


def test_pasted_command_starts_the_same_run(kovqa: Kovqa, small: Small, tmp_path: Path) -> None:
    folder = tmp_path / "내 실험 폴더"
    folder.mkdir()
    words = ["train", "-r", "tiny", "-p", "cpu", "--data", small.index, "--tokenizer", small.tokenizer]
    options = sets(*SMALL, "optim.steps=3")
    prepared = kovqa(*words, *options, "-o", "붙여 넣기", "--dry-run", cwd=folder)
    assert prepared.returncode == 0, prepared.stderr
    pasted = subprocess.run(
        ["bash", "-c", prepared.stdout],
        cwd=folder,
        env=clean_env(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert pasted.returncode == 0, pasted.stderr
    assert kovqa(*words, *options, "-o", "바로", cwd=folder).returncode == 0
    weights = [
        (folder / name / "step-000003" / "model.safetensors").read_bytes() for name in ("붙여 넣기", "바로")
    ]
    assert weights[0] == weights[1]


if __name__ == "__main__":  # python -m tests.launch.test_recorded: record anew
    RECORDED.mkdir(parents=True, exist_ok=True)
    for profile in names("profiles"):
        (RECORDED / f"{profile}.txt").write_text(recorded(profile), encoding="utf-8")
    print(f"recorded {len(names('profiles'))} commands in {os.path.relpath(RECORDED)}")
