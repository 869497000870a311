"""torchrun's range of nodes: one that comes or goes changes the number of processes, never the global batch."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.runs.folder import RESULT_FILE

from tests.conftest import Small, clean_env, command, training
from tests.disturbed import step, until
from tests.faults.test_stop_grid import PATH_OF_PHASES
from tests.hosts.test_life import Typed
from tests.tools.mini_hosts import MiniHosts
from tests.tools.training_log import read_log

pytestmark = pytest.mark.xdist_group("hosts")

STEPS = 300
PROFILE = """
launcher: torchrun
nodes: 1:2
precision: fp32
rendezvous: h1:29400
rendezvous_minutes: 0.5
max_restarts: 3
watchdog_minutes: 0.25
threads: 1
"""


class Elastic(Typed):
    """A run that waits at every step, so that others can come and go."""

    def __init__(self, hosts: MiniHosts, small: Small, folder: Path) -> None:
        self.hosts, self.folder, self.running = hosts, folder, {}
        profile = folder.with_name("range.yaml")
        profile.write_text(PROFILE, encoding="utf-8")
        words = training(small, f"optim.steps={STEPS}", "eval.every_steps=150", "data.augment=crop")
        words[words.index("-p") + 1] = profile
        self.line = command([*words, "--resume", "-o", folder])
        path = os.pathsep.join([str(PATH_OF_PHASES), os.environ.get("PYTHONPATH", "")])
        phases = str(folder.with_name("phases"))
        self.env = clean_env(PYTHONPATH=path, PHASES_FILE=phases, PHASES_COMPUTING="0.06")

    def launches(self) -> list[dict[str, object]]:
        """What the manifest says of each start of the workers."""
        file = self.folder / "manifest.json"
        return json.loads(file.read_text(encoding="utf-8"))["launches"] if file.exists() else []

    def trains_on(self, processes: int, more: int = 5) -> Callable[[], bool]:
        """Have so many processes begun, and made some steps?"""
        before = step(self.folder)

        def steps_made() -> bool:
            launches = self.launches()
            return (
                bool(launches)
                and launches[-1]["processes"] == processes
                and step(self.folder) >= before + more
            )

        return steps_made

    def is_whole(self) -> None:
        """It ended; every start shared the same global batch; each step was made once."""
        assert (self.folder / RESULT_FILE).exists(), self.output()
        for launch in self.launches():
            assert launch["processes"] * launch["micro_batch"] * launch["accumulate"] == 8  # type: ignore[operator]
        steps = [row["step"] for row in read_log(self.folder) if row["kind"] == "train"]
        assert steps == list(range(1, STEPS + 1))


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in read_log(folder) if row["kind"] == "train"]


@pytest.fixture
def elastic(hosts: MiniHosts, small: Small, tmp_path: Path) -> Elastic:
    """A run that one host has begun alone."""
    run = Elastic(hosts, small, tmp_path / "run")
    run.on("h1")
    until(run.trains_on(1), "h1 trains alone")
    return run


def test_a_node_comes(elastic: Elastic) -> None:
    elastic.on("h2")
    elastic.finished()
    elastic.is_whole()
    assert [launch["processes"] for launch in elastic.launches()] == [1, 2]


@pytest.mark.soak
@pytest.mark.parametrize("leave", ["INT", "TERM", "killed"])
def test_a_node_comes_and_goes(elastic: Elastic, small: Small, tmp_path: Path, leave: str) -> None:
    elastic.on("h2")
    until(elastic.trains_on(2), "both train")
    if leave == "killed":
        elastic.hosts.kill("h2")
        elastic.hosts.start("h2")
    else:
        elastic.hosts.run(["bash", "-c", f"kill -{leave} $(pgrep -o -f '[k]ovqa_cli')"], on="h2")
        assert elastic.ended("h2") in (130, 143), elastic.output()
    del elastic.running["h2"]
    until(elastic.trains_on(1), "h1 goes on alone", 180)
    assert elastic.ended("h1") == 0, elastic.output()
    elastic.is_whole()
    assert [launch["processes"] for launch in elastic.launches()] == [1, 2, 1]
    alone = Elastic(elastic.hosts, small, tmp_path / "alone")
    alone.env["PHASES_COMPUTING"] = "0"
    alone.on("h1")
    assert alone.ended("h1") == 0, alone.output()
    assert losses(elastic.folder) == pytest.approx(losses(alone.folder), rel=1e-4)
