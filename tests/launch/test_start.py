"""Real processes: signals passed on, failures said at once, nodes that wait for each other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.errors import KovqaError, MachineError, WorkerError
from kovqa_core.launch import start
from kovqa_core.launch.launchers import torchrun
from kovqa_core.launch.launchers.protocol import LaunchPlan
from kovqa_core.launch.start import start_processes
from kovqa_core.runs.events import WaitingEvent, WarningEvent, WorkerEvent
from kovqa_core.settings.profile import Profile

from tests.conftest import Kovqa, Small, clean_env, command, left_out, training
from tests.disturbed import ended, until
from tests.tools.mini_hosts import MiniHosts, possible


def shell_plan(text: str, folder: Path, **more: Any) -> LaunchPlan:
    """A plan that runs some shell lines in place of workers."""
    return LaunchPlan(["bash", "-c", text], {"GLOO_SOCKET_IFNAME": "eth7"}, folder, **more)


def failed(text: str, folder: Path) -> KovqaError:
    with pytest.raises(KovqaError) as caught:
        start_processes(shell_plan(text, folder), lambda event: None)
    return caught.value


def test_events_come_through_and_other_lines_do_not(tmp_path: Path) -> None:
    events: list[WorkerEvent] = []
    start_processes(
        shell_plan(
            """echo loading; echo '{"kind": "warning", "note": "한글"}'; echo '{"no": "event"}'""", tmp_path
        ),
        events.append,
    )
    assert events == [WarningEvent("한글")]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("ModuleNotFoundError: No module named 'pydantic'", "a worker could not start: ModuleNotFoundError"),
        ("bash: line 2: module: command not found", "a worker could not start: bash: line 2: module"),
        (
            "slurmstepd: error: execve(): enroot: No such file or directory",
            "could not start: execve(): enroot",
        ),
        ("srun: error: n2: task 3: Killed", "rank 3 was killed (Killed)"),
        ("srun: error: n2: tasks 0-1: Segmentation fault", "rank 0-1 was killed (Segmentation fault)"),
        ("something odd\n=====", "the workers ended without a word (something odd)"),
    ],
)
def test_the_last_output_explains_the_failure(tmp_path: Path, output: str, message: str) -> None:
    error = failed("printf '%s\\n' \"$0\" >&2; exit 1".replace("$0", output), tmp_path)
    assert isinstance(error, WorkerError)
    assert message in error.message


def test_the_first_failing_rank_keeps_its_meaning(tmp_path: Path) -> None:
    error_json = '{"kind": "DataError", "message": "picture 3 is torn", "detail": "copy it again", "rank": 2}'
    error = failed(f"echo '{error_json}' > '{tmp_path}/error.json'; echo Killed >&2; exit 1", tmp_path)
    assert (type(error).__name__, error.exit_code) == ("DataError", 3)
    assert error.message == "picture 3 is torn"


def test_a_python_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="/no/python cannot be started"):
        start_processes(LaunchPlan(["/no/python"], {}, tmp_path), lambda event: None)


def test_a_node_that_waits_alone_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "_RENDEZVOUS_NOTICE_SECONDS", 0.2)
    events: list[WorkerEvent] = []
    start_processes(shell_plan("sleep 1", tmp_path, rendezvous="node1:29500"), events.append)
    (waiting,) = events
    assert isinstance(waiting, WaitingEvent)
    assert "node1, port 29500, interface eth7" in waiting.note


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGTERM, 143)])
def test_a_signal_to_the_launcher_ends_in_a_checkpoint(
    small: Small, tmp_path: Path, number: int, code: int
) -> None:
    words = [*training(small, "optim.steps=100000", "eval.every_steps=100000"), "-o", tmp_path / "r"]
    running = subprocess.Popen(command(words), env=clean_env(), stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    next(line for line in running.stderr if line.startswith("step 3:"))
    running.send_signal(number)
    _, stderr = running.communicate(timeout=120)
    assert running.returncode == code
    assert "complete" in stderr
    assert "--resume" in stderr
    last = (tmp_path / "r" / "last").read_text()
    assert (tmp_path / "r" / last.strip() / "trainer").is_dir()


def test_four_gpus_wanted_and_one_seen(small: Small, tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"  # as a machine with one 3090 has it
    smi.write_text("#!/bin/sh\necho NVIDIA GeForce RTX 3090, 24576\n")
    smi.chmod(0o755)
    env = clean_env(PATH=f"{tmp_path}:{os.environ['PATH']}")
    words = command([*training(small), "-p", "a100x4", "-o", tmp_path / "r"])
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 4
    assert (
        "needs 4 GPUs, this machine shows 1 [KOVQA-4024] → use --profile rtx3090x1, or see the plan with --dry-run"
        in done.stderr
    )


# ----------------------------------------------------------------------------- a killed kovqa

WAITING = """
import signal, sys, time
from kovqa_core.process_pool import die_with_parent
die_with_parent()
signal.signal(signal.SIGTERM, lambda *_: None)  # as a worker that waits in C for a batch that never comes
open(sys.argv[1], "a").write("here\\n")
time.sleep(600)
"""


@pytest.mark.parametrize("command", ["torchrun", "deaf"])
def test_what_waits_ends_with_a_killed_kovqa(tmp_path: Path, mark: str, command: str) -> None:
    """Nothing is printed, so no broken pipe tells them."""
    (tmp_path / "waiting.py").write_text(WAITING, encoding="utf-8")
    here, name = tmp_path / "here", mark.split("=")
    words = {
        "torchrun": [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=1", "--rdzv-backend=c10d", "--max-restarts=3",
            "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", str(tmp_path / "waiting.py"), str(here),
        ],
        "deaf": ["bash", "-c", f"trap '' TERM HUP INT; echo here > '{here}'; while sleep 1; do :; done"],
    }  # fmt: skip
    starting = (
        "from pathlib import Path; from kovqa_core.launch import start, launchers\n"
        f"plan = launchers.protocol.LaunchPlan({words[command]!r}, {{}}, Path({str(tmp_path)!r}))\n"
        "start.start_processes(plan, print)"
    )
    killed = subprocess.Popen([sys.executable, "-c", starting], env=clean_env(**{name[0]: name[1]}))
    until(here.exists, "the worker waits", 60)
    killed.kill()
    killed.wait()
    assert ended(mark, 10)


def test_variables_of_another_launcher_stay_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = ("PET_NNODES", "PET_RDZV_ENDPOINT", "TORCHELASTIC_USE_AGENT_STORE", "PYTHON_EXEC")
    for name in foreign:
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    start_processes(shell_plan(f"env > '{tmp_path}/seen'", tmp_path), lambda event: None)
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert not seen & set(foreign)
    assert {"NCCL_DEBUG", "GLOO_SOCKET_IFNAME", "PATH"} <= seen


# ----------------------------------------------------------------------------- host names


def lonely(kovqa_words: list[str], *setup: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine of a name that nobody knows, not even /etc/hosts."""
    if not possible():
        left_out("needs root and unshare(1)")
    script = "; ".join([*setup, 'exec "$@"'])
    return subprocess.run(
        ["unshare", "-n", "-u", "-m", "sh", "-c", script, "sh", *kovqa_words], env=clean_env(PET_NNODES="2"),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_machine_of_any_name_trains(small: Small, tmp_path: Path) -> None:
    (tmp_path / "hosts").touch()
    words = training(small, "optim.steps=2", "eval.every_steps=2", "profile.processes_per_node=2")
    done = lonely(
        command([*words, "-o", tmp_path / "r", "-q"]),
        "hostname nosuchhost", f"mount --bind '{tmp_path}/hosts' /etc/hosts", "ip link set lo up",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_no_loopback_is_said(small: Small, tmp_path: Path) -> None:
    done = lonely(command([*training(small), "-o", tmp_path / "r"]), "hostname box")
    assert done.returncode == 4, done.stderr
    assert "processes on box cannot reach each other at 127.0.0.1" in done.stderr
    assert not (tmp_path / "r").exists()


# ----------------------------------------------------------------------------- several nodes


@pytest.fixture
def two_nodes(tmp_path: Path) -> Path:
    """A profile of two nodes that wait three seconds for each other."""
    file = tmp_path / "두 대.yaml"
    file.write_text(
        "nodes: 2\nprecision: fp32\nrendezvous: h1:29533\nrendezvous_minutes: 0.05\ninterface: eth0\n",
        "utf-8",
    )
    return file


@pytest.mark.parametrize(("host", "words"), [("h1", "not all nodes came to"), ("h2", "nobody answers at")])
def test_a_rendezvous_that_nobody_joins(
    hosts: MiniHosts, small: Small, tmp_path: Path, two_nodes: Path, host: str, words: str
) -> None:
    typed = command([*training(small), "-p", two_nodes, "--resume", "-o", tmp_path / host])
    began = time.monotonic()
    done = hosts.run(typed, on=host, env=clean_env(), capture_output=True, text=True, timeout=120)
    assert time.monotonic() - began < 60
    assert done.returncode == 4, done.stderr
    assert f"{words} h1, port 29533, interface eth0" in done.stderr


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("profile.rendezvous=no-such-host.invalid:29500", "host no-such-host.invalid is not known here"),
        ("profile.network_interface=ib7", "no network interface ib7 here; there are lo"),
    ],
)
def test_a_network_that_is_not_there(
    kovqa: Kovqa, small: Small, two_nodes: Path, assignment: str, words: str
) -> None:
    changed = training(small, "profile.rendezvous=localhost:29500", assignment)
    done = kovqa(*changed, "-p", two_nodes, "-o", "r")
    assert done.returncode == 4
    assert words in done.stderr


def test_a_name_that_other_nodes_are_told_must_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getfqdn", lambda: "nosuchhost.invalid")
    profile = Profile(name="p", nodes=2, rendezvous="localhost:29500")
    with pytest.raises(
        MachineError, match=r"own name nosuchhost\.invalid does not resolve .* localhost:29500"
    ):
        torchrun.check_machine(profile, str)


def test_several_nodes_need_an_address(kovqa: Kovqa, small: Small) -> None:
    for assignment in ("profile.nodes=2", "profile.rendezvous=here"):
        done = kovqa(*training(small, assignment), "-n")
        assert done.returncode == 2
        assert "HOST:PORT" in done.stderr
