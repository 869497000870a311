"""What Linux leaves to this process of the machine: limits of its control groups (containers, SLURM, systemd).

Version 2 keeps `cpu.max` and `memory.max` in one tree; version 1 has a tree for each controller. Limits may
stand in the process's own group or in any above it, and the smallest holds. Inside a container the group that
/proc/self/cgroup names is often not there: the container's own is then mounted as the root of the tree.

Sources: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst of Linux; cgroups(7).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")
_UNLIMITED = 1 << 60  # version 1 writes the largest number of pages for "no limit"

# What the kernel gives back before anything is killed: in memory.stat of version 2, then of version 1.
_RECLAIMABLE = (
    ("inactive_file", "active_file", "slab_reclaimable"),
    ("total_inactive_file", "total_active_file"),
)


def cpu_quota() -> float | None:
    """CPU seconds per second that this process and its group may use; None without a limit."""
    quotas = []
    for folder in _groups("cpu"):
        quota, period = _read_words(folder / "cpu.max", 2)  # version 2: "100000 100000", "max 100000"
        if not quota:
            (quota,) = _read_words(folder / "cpu.cfs_quota_us", 1)  # -1: no limit
            (period,) = _read_words(folder / "cpu.cfs_period_us", 1)
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory_limit() -> int | None:
    """Bytes that this process and its group may use; None without a limit."""
    return min((limit for _, limit in _limited_groups()), default=None)


def free_memory() -> int | None:
    """Bytes that are left of the limit, the page cache counted as left; None without a limit."""
    return min((max(0, limit - _used_memory(folder)) for folder, limit in _limited_groups()), default=None)


def _limited_groups() -> Iterator[tuple[Path, int]]:
    for folder in _groups("memory"):
        # Above memory.high a group is slowed down until nothing moves: it is a limit, too.
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            (limit,) = _read_words(folder / name, 1)
            if limit.isdecimal() and int(limit) < _UNLIMITED:
                yield folder, int(limit)


def _used_memory(folder: Path) -> int:
    """What a group uses and cannot give back, in bytes."""
    is_version_1 = (folder / "memory.usage_in_bytes").is_file()
    (used,) = _read_words(folder / ("memory.usage_in_bytes" if is_version_1 else "memory.current"), 1)
    statistics = dict(line.split()[:2] for line in _read(folder / "memory.stat").splitlines() if " " in line)
    reclaimable = sum(int(statistics.get(name, 0)) for name in _RECLAIMABLE[is_version_1])
    return max(0, int(used or 0) - reclaimable)


def _groups(controller: str) -> Iterator[Path]:
    """The folders of this process's groups that may limit something, from the innermost to the roots."""
    own: dict[str, str] = {}  # controllers -> group; "" is version 2
    for line in _read(_OWN_GROUPS).splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        own |= dict.fromkeys(controllers.split(","), group)
    for tree in (_ROOT, _ROOT / "unified"):
        yield from _group_and_parents(tree, own.get("", "/"))
    for name in (controller, f"{controller},{controller}acct"):
        yield from _group_and_parents(_ROOT / name, own.get(controller, own.get("", "/")))


def _group_and_parents(tree: Path, group: str) -> Iterator[Path]:
    # ".." stands where the group lies outside of what a namespace shows.
    parts = [part for part in group.split("/") if part not in ("", "..")]
    for depth in range(len(parts), -1, -1):
        folder = tree.joinpath(*parts[:depth])
        if folder.is_dir():
            yield folder


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""


def _read_words(path: Path, count: int) -> list[str]:
    """The first words of a file; "" for each that is not there."""
    return [*_read(path).split(), *[""] * count][:count]
