"""torchrun's options: one node by itself, or several that meet at an address (c10d rendezvous).

Sources: `python -m torch.distributed.run --help`; docs/sources/launching.md, R1 to R9.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from kovqa_core.settings.profile import Profile

# torch's names; its binding follows the GPU that a process uses.
_NUMA_BINDINGS = {"node": "node", "socket": "socket", "cores": "exclusive"}


def torchrun_options(profile: Profile, folder: Path) -> list[str]:
    """`-m torch.distributed.run …`, up to the worker.

    Args:
        profile: the machine.
        folder: the run folder; nodes that name the same one belong together.
    """
    words = ["-m", "torch.distributed.run", *_rendezvous_options(profile, folder)]
    words.append(f"--nproc-per-node={profile.processes_per_node}")
    if profile.max_restarts:
        words.append(f"--max-restarts={profile.max_restarts}")
    if profile.binding != "none":
        words.append(f"--numa-binding={_NUMA_BINDINGS[profile.binding]}")
    return words


def _rendezvous_options(profile: Profile, folder: Path) -> list[str]:
    if profile.nodes == 1 and profile.launcher == "torchrun":
        return ["--standalone"]  # takes a free port: two runs on one machine never meet
    seconds = max(1, round(profile.rendezvous_minutes * 60))
    # read_timeout: a first node that cannot be reached is said within a minute.
    patience = f"join_timeout={seconds},read_timeout={min(seconds, 30)}"
    words = [f"--nnodes={profile.nodes}", "--rdzv-backend=c10d", f"--rdzv-conf={patience}"]
    if profile.launcher == "torchrun":
        name = hashlib.sha256(str(folder).encode()).hexdigest()[:12]
        words += [f"--rdzv-id={name}", f"--rdzv-endpoint={profile.rendezvous}"]
    return words  # under SLURM: known inside the job only, see slurm.per_node
