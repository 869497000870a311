"""A launcher from outside: a module of its own and its place in the table, in a copy of the code; nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Small, clean_env, command, training

ROOT = Path(__file__).resolve().parents[2]

# One process, without torchrun: what a debugger wants.
PLAIN = '''
"""plain: one process on this machine, the worker itself."""

from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.errors import Stopped
from kovqa_core.launch.launchers.protocol import LaunchPlan
from kovqa_core.messages import message


def settings_problem(profile):
    if profile.processes == 1:
        return None
    return message("launch.plain-is-one-process", "launcher plain starts one process, not {processes}",
                   processes=profile.processes)


def check_machine(profile, nearest_profile):
    pass


def starts_here(profile):
    return True


def waits_for_all(profile):
    return True


def build_plan(request):
    return LaunchPlan(request.after_setup([*request.python, "-u", *request.worker]), dict(request.env), request.folder)


def cores_per_process(profile, cores):
    return cores


def worker_environment(profile):
    return {}


def rank_from_environment(profile, environ):
    return RankInfo(0, 0, 1)


def stop_exit_code(profile, *, is_main_process):
    return Stopped.exit_code


def world_size_hint(profile):
    return message("launch.plain-is-one-process.hint", "use another launcher")
'''
IMPORT, ENTRY = "import sbatch, srun, torchrun", '"sbatch": sbatch}'
RECORDED = (
    "PYTHONSAFEPATH=1 PYTHONUTF8=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false PYTHON -P -u "
    "CODE/core/kovqa_core/worker.py RUN/run.yaml\n"
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the code that has the launcher plain."""
    folder = tmp_path_factory.mktemp("code")
    for name in ("core/kovqa_core", "kovqa_cli", "profiles"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    launchers = folder / "core/kovqa_core/launch/launchers"
    (launchers / "plain.py").write_text(PLAIN)
    table = (launchers / "__init__.py").read_text()
    assert table.count(IMPORT) == table.count(ENTRY) == 1
    table = table.replace(IMPORT, "import plain, sbatch, srun, torchrun")
    (launchers / "__init__.py").write_text(table.replace(ENTRY, '"sbatch": sbatch, "plain": plain}'))
    return folder


def in_copy(code: Path, folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """A command of that copy."""
    env = clean_env(PYTHONPATH=f"{code / 'core'}:{code}")
    return subprocess.run(
        command(words), cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def test_it_is_planned_started_and_checked(code: Path, small: Small, tmp_path: Path) -> None:
    words = [*training(small, "profile.launcher=plain", "optim.steps=3"), "-o", "r"]
    planned = in_copy(code, tmp_path, *words, "-n")
    assert planned.returncode == 0, planned.stderr
    python = command([])[0]
    text = planned.stdout.replace(python, "PYTHON").replace(str(code), "CODE")
    assert text.replace(str(tmp_path / "r"), "RUN") == RECORDED

    done = in_copy(code, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "result.json").read_text())["steps"] == 3

    refused = in_copy(
        code, tmp_path, *training(small, "profile.launcher=plain", "profile.processes_per_node=2")
    )
    assert refused.returncode == 2
    assert "launcher plain starts one process, not 2" in refused.stderr


def test_it_is_known_to_editors(code: Path, tmp_path: Path) -> None:
    schema = json.loads(in_copy(code, tmp_path, "profiles", "schema").stdout)
    assert schema["properties"]["launcher"]["enum"] == ["torchrun", "srun", "sbatch", "plain"]
