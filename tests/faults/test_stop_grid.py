"""INT, TERM and HUP to kovqa, to torchrun, to a rank, whatever it does: a checkpoint, nothing left, the same end.

A few moments run with the other tests; `make soak` draws a hundred of the whole grid (KOVQA_SOAK_STOPS: how many).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from kovqa_core.runs.folder import follow_pointer

from tests.conftest import Small, clean_env, command, training
from tests.disturbed import ended, marked_processes, until

pytestmark = pytest.mark.xdist_group("stops")  # the undisturbed runs

STEPS = 24
PATH_OF_PHASES = Path(__file__).parent / "slow_phases"  # its sitecustomize.py notes the phases
COUNTS = {
    "computing": 15,
    "evaluating": 6,
    "saving": 2,
}  # so often each comes before the run is nearly finished


@dataclass(frozen=True)
class Stop:
    """When a run is stopped, and by what.

    Attributes:
        name: of the signal.
        target: who gets it: kovqa, torchrun, rank.
        loaders: loader processes of a rank.
        phase, count: in which phase, and the how manieth time that it comes.
        delay: seconds after the phase began.
        ranks: processes that train.
    """

    name: str
    target: str
    loaders: int
    phase: str
    count: int = 1
    delay: float = 0.0
    ranks: int = 1


def drawn(seed: int) -> Stop:
    """One moment of the whole grid."""
    rng = random.Random(seed)
    phase = rng.choice(list(COUNTS))
    return Stop(
        rng.choice(["SIGINT", "SIGTERM", "SIGHUP"]), rng.choice(["kovqa", "torchrun", "rank"]), rng.choice([0, 1, 4]),
        phase, rng.randint(1, COUNTS[phase]), rng.uniform(0, 0.4), rng.choice([1, 1, 2]),
    )  # fmt: skip


STOPS = [
    Stop("SIGINT", "kovqa", 1, "computing", 5),
    Stop("SIGTERM", "torchrun", 4, "evaluating", 2),
    Stop("SIGHUP", "rank", 0, "saving", delay=0.32),
]


def train_command(small: Small, folder: Path, *, loaders: int, ranks: int) -> list[str]:
    words = training(
        small, f"optim.steps={STEPS}", "eval.every_steps=8", "data.augment=crop", "model.drop_path=0.2",
        f"profile.loader_workers={loaders}", f"profile.processes_per_node={ranks}",
    )  # fmt: skip
    return command([*words, "--resume", "-o", folder, "-q"])


def run(line: list[str]) -> None:
    done = subprocess.run(line, env=clean_env(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def checkpoint_files(folder: Path) -> dict[str, bytes]:
    """Every file of the last step folder."""
    last = folder / f"step-{STEPS:06d}"
    return {str(p.relative_to(last)): p.read_bytes() for p in last.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def undisturbed(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, bytes]]:
    """The end of a run of so many ranks that nobody stopped; made once."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def files(ranks: int) -> dict[str, bytes]:
        if not (folder / str(ranks)).is_dir():
            run(train_command(small, folder / str(ranks), loaders=0, ranks=ranks))
        return checkpoint_files(folder / str(ranks))

    return files


def pid_of(target: str, process: subprocess.Popen[str], mark: str) -> int:
    if target == "kovqa":
        return process.pid
    # Loaders have their rank's command line, and are its children: of all these, the first is a rank.
    return min(marked_processes(mark)[target])


def hear_hangups() -> None:
    """Tests started with nohup ignore them, and so would the run."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def stopped_run(small: Small, folder: Path, mark: str, stop: Stop) -> subprocess.CompletedProcess[str]:
    """Start a run and stop it at its moment."""
    variable, value = mark.split("=")
    phases = folder.with_name("phases")
    path = os.pathsep.join([str(PATH_OF_PHASES), os.environ.get("PYTHONPATH", "")])
    env = clean_env(**{variable: value, "PHASES_FILE": str(phases), "PYTHONPATH": path})
    line = train_command(small, folder, loaders=stop.loaders, ranks=stop.ranks)
    process = subprocess.Popen(line, env=env, stderr=subprocess.PIPE, text=True, preexec_fn=hear_hangups)

    def reached() -> bool:
        seen = phases.read_text().splitlines() if phases.exists() else []
        return process.poll() is not None or seen.count(stop.phase) >= stop.count * stop.ranks

    until(reached, str(stop))
    time.sleep(stop.delay)
    assert process.poll() is None, "it ended before it could be stopped"
    os.kill(pid_of(stop.target, process, mark), getattr(signal, stop.name))
    _, err = process.communicate(timeout=120)
    return subprocess.CompletedProcess(line, process.returncode, "", err)


def stop_whole(small: Small, folder: Path, mark: str, stop: Stop) -> None:
    """Stopped at its moment, a run has a checkpoint, and nothing of it is left running."""
    done = stopped_run(small, folder, mark, stop)
    code = 128 + getattr(signal, stop.name) if stop.target == "kovqa" else 75
    assert done.returncode == code, done.stderr
    last = follow_pointer(folder, "last")
    assert last is not None, (folder / "logs" / "rank-0.log").read_text()
    assert last.name < f"step-{STEPS:06d}", "it ended before it could be stopped"
    assert ended(mark, 10), marked_processes(mark)
    assert "Traceback" not in (folder / "logs" / "rank-0.log").read_text(encoding="utf-8")


def resume(small: Small, folder: Path, stop: Stop) -> dict[str, bytes]:
    """Go on to the end; the files of the last step folder."""
    run(train_command(small, folder, loaders=stop.loaders, ranks=stop.ranks))
    return checkpoint_files(folder)


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: f"{stop.name}-{stop.target}-{stop.phase}")
def test_a_stopped_run_is_whole(
    small: Small, tmp_path: Path, mark: str, undisturbed: Callable[[int], dict[str, bytes]], stop: Stop
) -> None:
    stop_whole(small, tmp_path / "run", mark, stop)
    if stop == STOPS[0]:  # one resumed run is enough here
        assert resume(small, tmp_path / "run", stop) == undisturbed(stop.ranks)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(int(os.environ.get("KOVQA_SOAK_STOPS", "100"))))
def test_a_drawn_stop(
    small: Small, tmp_path: Path, mark: str, undisturbed: Callable[[int], dict[str, bytes]], seed: int
) -> None:
    stop = drawn(seed)
    print(stop)
    stop_whole(small, tmp_path / "run", mark, stop)
    assert resume(small, tmp_path / "run", stop) == undisturbed(stop.ranks)
