"""`--check` where workers start in a container, or with another Python: what is missing there is named."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import MachineError
from kovqa_core.launch.look_inside import look_inside
from kovqa_core.launch.plan import WORKER_FILE, plan_launch
from kovqa_core.machine.versions import package_versions
from kovqa_core.messages import Message
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_recipe
from kovqa_core.settings.run import Run, make_run

from tests.conftest import Small, left_out

Look = Callable[..., Message | None]


@pytest.fixture
def look(small: Small, tmp_path: Path) -> Look:
    """Looks into the environment of a profile for a run of the small data set."""

    def look(environ: dict[str, str] | None = None, **profile: object) -> Message | None:
        run = run_of(small, tmp_path, **profile)
        return look_inside(run, plan_launch(run, sys.executable, cores=2), environ or {})

    return look


def run_of(small: Small, folder: Path, **profile: object) -> Run:
    recipe = load_recipe("tiny")
    data = recipe.data.model_copy(update={"index": str(small.index)})
    recipe = recipe.model_copy(
        update={"data": data, "model": {**recipe.model, "tokenizer": str(small.tokenizer)}}
    )
    return make_run(recipe, Profile.model_validate({"name": "x", **profile}), folder, [])


def container(folder: Path, text: str) -> list[str]:
    """A command that starts another one in surroundings of its own."""
    file = folder / "my container"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return [str(file), "exec"]


def test_the_python_that_runs_this_is_not_asked(look: Look) -> None:
    assert look() is None


def test_a_container_that_has_everything(look: Look, tmp_path: Path) -> None:
    prefix = container(tmp_path, 'echo "unpacking …"; shift; exec "$@"')
    found = look(command_prefix=prefix, setup=["export LOADED=1"])
    version = package_versions(["kovqa"])["kovqa"]
    assert found is not None
    assert f"my container' exec {sys.executable}`: Python 3." in found
    assert found.endswith(f", kovqa {version}, all 6 files and folders of the run are visible")


def test_paths_of_the_host_that_a_container_does_not_see(look: Look, small: Small, tmp_path: Path) -> None:
    """A real mount namespace, in which two folders are empty, and one is read-only."""
    hide = f"mount -t tmpfs none '{small.index}'; mount -t tmpfs none '{small.root}'; mount -t tmpfs -o ro none '{tmp_path}'"
    flags = "-m" if os.geteuid() == 0 else "-rm"
    if subprocess.run(["unshare", flags, "true"], capture_output=True).returncode:
        left_out("mount namespaces are not allowed here: run these tests as root")
    words = ["unshare", flags, "sh", "-c", f'{hide}; exec "$@"', "container"]
    with pytest.raises(MachineError) as error:
        look(command_prefix=words)
    hidden = f"{small.index / 'index.json'}, {small.root / 'images'}"
    assert error.value.message.endswith(f": not visible: {hidden}; not writable: {tmp_path}")
    assert "--bind" in error.value.hint


def test_a_container_with_a_python_of_its_own(look: Look, tmp_path: Path) -> None:
    prefix = container(tmp_path, f'shift 2; exec {sys.executable} -I -S "$@"')  # the standard library alone
    with pytest.raises(
        MachineError, match=r"kovqa cannot be imported \(ImportError: no module kovqa_core\)"
    ) as error:
        look(command_prefix=prefix)
    assert "no torch, pydantic, " in error.value.message


def test_a_container_with_another_kovqa(look: Look, tmp_path: Path) -> None:
    (tmp_path / "site" / "kovqa_core").mkdir(parents=True)
    (tmp_path / "site" / "kovqa_core" / "__init__.py").touch()
    (tmp_path / "site" / "kovqa-0.0.9.dist-info").mkdir()
    (tmp_path / "site" / "kovqa-0.0.9.dist-info" / "METADATA").write_text("Name: kovqa\nVersion: 0.0.9\n")
    with pytest.raises(MachineError) as error:
        look(env={"PYTHONPATH": str(tmp_path / "site")}, python=sys.executable)
    assert "kovqa 0.0.9, here " in error.value.message
    assert (
        f"kovqa is in {tmp_path}/site/kovqa_core, and not, as here, in {WORKER_FILE.parent}"
        in error.value.message
    )


def test_an_old_python(look: Look, tmp_path: Path) -> None:
    old = "import sys; sys.version_info = (3, 8, 10, 'final', 0); text = sys.argv[2]; del sys.argv[1:3]; exec(text)"
    prefix = container(tmp_path, f'shift 2; exec {sys.executable} -c "{old}" "$@"')
    with pytest.raises(MachineError, match=r"Python 3\.8\.10 \(kovqa needs 3\.11\)"):
        look(command_prefix=prefix)


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ({"command_prefix": ["no-such-container", "exec"]}, "no-such-container: No such file or directory"),
        ({"python": "/no/such/python"}, "/no/such/python: No such file or directory"),
        ({"setup": ["echo module: not here >&2; exit 1"]}, "module: not here"),
        ({"command_prefix": ["false"]}, "no message"),
    ],
)
def test_what_does_not_start(look: Look, profile: dict[str, object], words: str) -> None:
    with pytest.raises(MachineError, match="Python does not start: ") as error:
        look(**profile)
    assert error.value.message.endswith(words)


def test_a_container_of_srun_is_seen_in_a_job_only(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slurm = {"srun_options": ["--container-image=/x.sqsh", "--mpi=none"]}
    found = look(launcher="srun", slurm=slurm)
    assert found is not None
    assert "not looked inside: --container-image=/x.sqsh takes effect in a job only" in found
    prefix = container(
        tmp_path, 'echo "$@" > "$0.said"; while [ "${1#-}" != "$1" ]; do shift; done; exec "$@"'
    )
    Path(prefix[0]).rename(tmp_path / "srun")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = look({"SLURM_JOB_ID": "7"}, launcher="srun", slurm=slurm)
    assert found is not None
    assert "files and folders of the run are visible" in found
    assert "--overlap --container-image=/x.sqsh --mpi=none " in (tmp_path / "srun.said").read_text()
