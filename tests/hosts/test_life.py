"""A run by torchrun over two hosts ends by itself, or says which command goes on, whatever happens to it."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest
from kovqa_core.runs.folder import RESULT_FILE

from tests.conftest import Small, clean_env, command
from tests.disturbed import STEPS, same_end, step, until, words
from tests.tools.mini_hosts import MiniHosts

pytestmark = pytest.mark.xdist_group("hosts")  # two hosts, one undisturbed run

PROFILE = """
launcher: torchrun
nodes: 2
processes_per_node: 1
precision: fp32
rendezvous: h1:29400
rendezvous_minutes: 1
max_restarts: 3
watchdog_minutes: 0.25
"""


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("두 대") / "two-hosts.yaml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


class Typed:
    """The same command, typed on both hosts."""

    def __init__(self, hosts: MiniHosts, small: Small, profile: Path, folder: Path) -> None:
        self.hosts, self.folder = hosts, folder
        self.line, self.env = command(words(small, profile, folder)), clean_env()
        self.running: dict[str, subprocess.Popen[str]] = {}

    def on(self, host: str) -> None:
        """Type it there; its output goes to a file beside the run folder."""
        output_file = self.folder.with_name(f"output-{host}.txt")
        with output_file.open("a", encoding="utf-8") as stream:
            self.running[host] = self.hosts.popen(
                self.line, on=host, env=self.env, stdout=stream, stderr=stream, text=True
            )

    def ended(self, host: str) -> int:
        """Its exit code, once it has ended."""
        return self.running[host].wait(180)

    def output(self) -> str:
        """What was printed on both hosts."""
        return "\n".join(p.read_text(encoding="utf-8") for p in self.folder.parent.glob("output-*.txt"))

    def finished(self) -> None:
        """Both end well."""
        codes = {host: self.ended(host) for host in self.running}
        assert codes == {"h1": 0, "h2": 0}, self.output()
        assert (self.folder / RESULT_FILE).exists()


@pytest.fixture
def typed(hosts: MiniHosts, small: Small, profile: Path, tmp_path: Path) -> Typed:
    run = Typed(hosts, small, profile, tmp_path / "run")
    run.on("h1")
    run.on("h2")
    return run


@pytest.fixture(scope="module")
def undisturbed(
    hosts: MiniHosts, small: Small, profile: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = Typed(hosts, small, profile, tmp_path_factory.mktemp("undisturbed") / "run")
    run.on("h1")
    run.on("h2")
    run.finished()
    return run.folder


def test_a_host_dies_and_is_booted_again(undisturbed: Path, typed: Typed) -> None:
    assert step(undisturbed) == STEPS
    until(lambda: step(typed.folder) >= 12, "step 12")
    typed.hosts.kill("h2")
    typed.hosts.start("h2")
    typed.on("h2")  # as its owner, or a service, would
    typed.finished()
    same_end(typed.folder, undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("host", ["h1", "h2"])
def test_a_worker_is_killed(undisturbed: Path, typed: Typed, host: str) -> None:
    until(lambda: step(typed.folder) >= 12, "step 12")
    typed.hosts.run(
        ["bash", "-c", f"kill -{signal.SIGKILL.value} $(pgrep -f '[w]orker.py' | tail -n 1)"], on=host
    )
    typed.finished()
    same_end(typed.folder, undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("host", ["h1", "h2"])
def test_a_cable_is_cut_and_plugged_in_again(undisturbed: Path, typed: Typed, host: str) -> None:
    until(lambda: step(typed.folder) >= 12, "step 12")
    typed.hosts.cut(host)
    time.sleep(5)  # connections outlive this
    typed.hosts.heal(host)
    typed.finished()
    same_end(typed.folder, undisturbed)


@pytest.mark.soak
def test_a_cable_stays_cut(undisturbed: Path, typed: Typed) -> None:
    until(lambda: step(typed.folder) >= 12, "step 12")
    typed.hosts.cut("h2")
    assert typed.ended("h1") in (4, 6), typed.output()
    typed.hosts.heal("h2")  # its torchrun waits for an answer of h1's until then
    assert typed.ended("h2") in (4, 6), typed.output()
    assert "kovqa train --resume" in typed.output()
    typed.on("h1")  # the one command that goes on
    typed.on("h2")
    typed.finished()
    same_end(typed.folder, undisturbed)


@pytest.mark.soak
def test_the_first_host_dies_and_is_booted_again(undisturbed: Path, typed: Typed) -> None:
    until(lambda: step(typed.folder) >= 12, "step 12")
    typed.hosts.kill("h1")  # where all meet: torchrun on h2 gives up
    typed.hosts.start("h1")
    assert typed.ended("h2") in (4, 6), typed.output()
    typed.on("h1")
    typed.on("h2")
    typed.finished()
    same_end(typed.folder, undisturbed)
