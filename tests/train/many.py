"""Trains several runs one after the other in the same processes: torchrun … many.py JOBS.json

One start of the processes, which costs more than the steps, serves all of them.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Job:
    """A run, or the part of one that ends at step `stop`."""

    folder: str
    strategy: str
    recipe: str
    flags: dict[str, str]
    sets: list[str]
    stop: int | None = None


def write_jobs(path: Path, jobs: list[Job]) -> None:
    path.write_text(json.dumps([asdict(job) for job in jobs]), encoding="utf-8")


def do(job: Job, rank: int, world: int) -> None:
    """Train on this process's share; the run is taken up where it was left."""
    from kovqa_core.errors import Stopped
    from kovqa_core.settings.find import resolve
    from kovqa_core.settings.run import make_run
    from kovqa_core.train.loop import train
    from kovqa_core.train.ranks import Rank

    sets = [*job.sets, f"profile.strategy={job.strategy}", f"profile.processes_per_node={world}"]
    asked = resolve(job.recipe, "cpu", sets, job.flags)
    folder = Path(job.folder)
    folder.mkdir(exist_ok=True)
    run = make_run(asked.recipe, asked.profile, folder, [])
    seen = [last_step(folder)]

    def stop() -> bool:
        seen[0] += 1
        return seen[0] == job.stop

    try:
        train(run, Rank(rank, rank, world), torch.device("cpu"), stop)
    except Stopped:
        assert seen[0] == job.stop


def last_step(folder: Path) -> int:
    last = folder / "last"
    return int(last.read_text().strip().removeprefix("step-")) if last.exists() else 0


def main() -> None:
    torch.set_num_threads(1)
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo")
    for values in json.loads(Path(sys.argv[1]).read_text("utf-8")):
        do(Job(**values), rank, world)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
