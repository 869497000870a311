"""CPU threads of a worker: the profile's, else the user's, else what its loaders leave of its cores."""

from __future__ import annotations

import pytest
from kovqa_core.launch.launchers import find_launcher
from kovqa_core.launch.plan import worker_environment
from kovqa_core.settings.profile import Profile, SlurmSettings


@pytest.mark.parametrize(
    ("profile", "environ", "threads"),
    [
        ({}, {}, "8"),
        ({"processes_per_node": 2}, {}, "4"),
        ({"loader_workers": 3}, {}, "5"),  # a loader is a thread, too
        ({"loader_workers": 12}, {}, "1"),
        ({"threads": 3}, {"OMP_NUM_THREADS": "1"}, "3"),
        ({}, {"OMP_NUM_THREADS": "1"}, "1"),  # as torchrun does
        ({}, {"OMP_NUM_THREADS": "4,2"}, "4,2"),
        ({}, {"OMP_NUM_THREADS": "0"}, "8"),  # OpenMP itself ignores it
        ({}, {"OMP_NUM_THREADS": "many"}, "8"),
        ({"env": {"OMP_NUM_THREADS": "6"}}, {"OMP_NUM_THREADS": "1"}, "6"),
        ({"launcher": "srun", "loader_workers": 12}, {}, "1"),  # --cpus-per-task=13
        ({"launcher": "srun", "slurm": SlurmSettings(cpus_per_task=16), "loader_workers": 12}, {}, "4"),
        ({"launcher": "srun", "slurm": SlurmSettings(tasks="node"), "processes_per_node": 4}, {}, "1"),
    ],
)
def test_threads_of_a_worker(profile: dict[str, object], environ: dict[str, str], threads: str) -> None:
    machine = Profile.model_validate({"name": "x", **profile})
    assert worker_environment(machine, find_launcher(machine), 8, environ)["OMP_NUM_THREADS"] == threads


def test_gpus_are_numbered_as_nvidia_smi_does() -> None:
    def order(environ: dict[str, str], **profile: str) -> str | None:
        machine = Profile.model_validate({"name": "x", **profile})
        return worker_environment(machine, find_launcher(machine), 8, environ).get("CUDA_DEVICE_ORDER")

    assert order({}, gpu="A100") == "PCI_BUS_ID"
    assert order({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, gpu="A100") == "FASTEST_FIRST"  # the user's stays
    assert order({}) is None
