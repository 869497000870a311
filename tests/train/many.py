"""Trains several runs one after the other in the same processes: many.py JOBS.json RANK WORLD

One start of the processes, which costs more than the steps, serves all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from tests.conftest import clean_env


@dataclass(frozen=True)
class Job:
    """A run, or the part of one that ends at step `stop`; of several processes, two steps from its beginning at least."""

    folder: str
    strategy: str
    recipe: str
    flags: dict[str, str]
    sets: list[str]
    stop: int | None = None


def launch(world: int, jobs: list[Job], folder: Path) -> None:
    """Do the jobs on so many processes, which start together."""
    path = folder / f"jobs-{uuid.uuid4().hex}.json"
    path.write_text(json.dumps([asdict(job) for job in jobs]), encoding="utf-8")
    logs = [folder / f"{path.stem}-{rank}.log" for rank in range(world)]
    started = []
    for rank, log in enumerate(logs):
        words = [sys.executable, "-P", __file__, str(path), str(rank), str(world)]
        env = clean_env(OMP_NUM_THREADS="1", LOCAL_RANK=str(rank))
        with log.open("wb") as stream:
            started.append(subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=stream, text=True))
    outputs = [process.communicate(timeout=600)[0] for process in started]
    log_ends = "\n".join(log.read_text("utf-8", errors="replace")[-3000:] for log in logs)
    assert [process.returncode for process in started] == [0] * world, log_ends
    assert outputs == [""] * world  # DeepSpeed's output would mix with our events


def do(job: Job, rank: int, world: int) -> None:
    """Train on this process; the run goes on where it was stopped."""
    from kovqa_core.distributed.rank_info import RankInfo
    from kovqa_core.errors import Stopped
    from kovqa_core.settings.resolve import resolve_settings
    from kovqa_core.settings.run import make_run
    from kovqa_core.train.loop import run_training

    sets = [*job.sets, f"profile.strategy={job.strategy}", f"profile.processes_per_node={world}"]
    settings = resolve_settings(job.recipe, "cpu", sets, job.flags)
    folder = Path(job.folder)
    folder.mkdir(exist_ok=True)
    run = make_run(settings.recipe, settings.profile, folder, [])
    seen = [last_step(folder)]
    # Of several processes each learns one step later what was asked of any.
    asked_at = job.stop - (world > 1) if job.stop else None

    def stop() -> bool:
        seen[0] += 1
        return seen[0] == asked_at

    try:
        run_training(run, RankInfo(rank, rank, world), torch.device("cpu"), stop)
    except Stopped:
        assert seen[0] == job.stop


def last_step(folder: Path) -> int:
    last = folder / "last"
    return int(last.read_text().strip().removeprefix("step-")) if last.exists() else 0


def main() -> None:
    torch.set_num_threads(1)
    jobs, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dist.init_process_group("gloo", init_method=f"file://{jobs}.meeting", rank=rank, world_size=world)
    for values in json.loads(jobs.read_text("utf-8")):
        do(Job(**values), rank, world)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
