"""Which GPU a process takes: its local rank's, or the one that SLURM bound to it. The GPUs are pretended."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from kovqa_core.distributed import process_group
from kovqa_core.distributed.process_group import RankGpu, local_device, require_own_gpus
from kovqa_core.distributed.rank_info import RankInfo, choose_gpu, rank_from_slurm, rank_from_torchrun
from kovqa_core.errors import MachineError


def srun_task(local_rank: int, tasks: int) -> RankInfo:
    """A task of a step on one node, as srun's variables have it."""
    environ = {"SLURM_PROCID": str(local_rank), "SLURM_LOCALID": str(local_rank)}
    return rank_from_slurm({**environ, "SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": "1"})


@pytest.fixture
def pretended_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """One visible GPU; what was made the current one."""
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    return taken


def test_a_task_that_is_bound_to_one_gpu_takes_that_one(pretended_gpus: list[torch.device]) -> None:
    for local_rank in range(4):
        assert local_device(srun_task(local_rank, 4), "cuda") == torch.device("cuda", 0)
    assert pretended_gpus == [torch.device("cuda", 0)] * 4


@pytest.mark.parametrize(("visible", "gpus"), [(4, [0, 1, 2, 3]), (8, [0, 1, 2, 3])])
def test_tasks_that_see_all_gpus_take_their_local_ranks(visible: int, gpus: list[int]) -> None:
    assert [choose_gpu(srun_task(local_rank, 4), visible) for local_rank in range(4)] == gpus


@pytest.mark.parametrize(("local_rank", "visible"), [(2, 2), (3, 2), (0, 0)])
def test_tasks_that_see_some_gpus_but_not_theirs(local_rank: int, visible: int) -> None:
    with pytest.raises(MachineError, match=f"wants GPU {local_rank}, torch sees {visible}") as error:
        choose_gpu(srun_task(local_rank, 4), visible)
    assert ("--gpus-per-task=1" in error.value.hint) == bool(visible)


def test_torchrun_binds_nothing() -> None:
    """Its second process on a machine with one GPU has none: two would share it."""
    rank = rank_from_torchrun({"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"})
    with pytest.raises(MachineError, match=r"rank 1 on .* wants GPU 1, torch sees 1") as error:
        choose_gpu(rank, 1)
    assert "fewer GPUs" in error.value.hint


def test_two_tasks_with_one_gpu_are_refused() -> None:
    """Not bound, and CUDA_VISIBLE_DEVICES=0 for both; or bound one way here and another there."""
    for visible in ((1, 1), (1, 2)):
        gpus = [RankGpu(rank, "n1", seen, "GPU-a") for rank, seen in enumerate(visible)]
        expected = f"ranks 0 and 1 on n1 have the same GPU: they see 1 and {visible[1]}"
        with pytest.raises(MachineError, match=expected) as error:
            require_own_gpus([RankGpu(2, "n2", 1, "GPU-b"), *gpus])
        assert "--gpus-per-task=1" in error.value.hint
    require_own_gpus(
        [RankGpu(0, "n1", 1, "GPU-a"), RankGpu(1, "n1", 1, "GPU-b"), RankGpu(2, "n2", 1, "GPU-a")]
    )
    require_own_gpus([RankGpu(0, "n1", 2, ""), RankGpu(1, "n1", 2, "")])  # torch does not name them


def test_processes_tell_each_other_which_gpu_they_took(
    pretended_gpus: list[torch.device], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Before NCCL could fail in its own words; libraries find the GPU, not the local rank, in LOCAL_RANK."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(uuid="GPU-a"))
    store = dist.FileStore(str(tmp_path / "store"), 2)
    monkeypatch.setattr(process_group, "_open_rendezvous_store", lambda rank: store)
    monkeypatch.setattr(os, "environ", {**os.environ})
    problems: list[str] = []

    def join(local_rank: int) -> None:
        with pytest.raises(MachineError) as error:
            process_group.init_process_group(srun_task(local_rank, 2), "cuda", None)  # type: ignore[arg-type]
        problems.append(error.value.message)

    threads = [threading.Thread(target=join, args=(local_rank,)) for local_rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(problems) == 2
    assert all(problem.startswith("ranks 0 and 1 on ") for problem in problems)
    assert os.environ["LOCAL_RANK"] == "0"
