"""Limits of control groups: of both versions, of a container and of nested groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from kovqa_core import cgroup
from kovqa_core.process_pool import usable_cpu_count

GIB = 2**30
V1_NONE = str(2**63 - 4096)  # what version 1 writes for "no limit"
Mount = Callable[[str, Mapping[str, str]], None]


@pytest.fixture
def mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mount:
    """A tree of control groups, and the groups this process is in."""

    def make(own: str, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text + "\n")
        (tmp_path / "own").write_text(own + "\n")
        monkeypatch.setattr(cgroup, "_ROOT", tmp_path)
        monkeypatch.setattr(cgroup, "_OWN_GROUPS", tmp_path / "own")

    return make


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/", {"cpu.max": "100000 100000"}, 1),  # docker --cpus=1
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),  # of the parent
        ("0::/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "150000 100000"}, 1.5),
        ("0::/docker/f00", {"cpu.max": "300000 100000"}, 3),  # the container's own is mounted as the root
        ("0::/../../x", {"x/cpu.max": "100000 100000"}, 1),
        ("4:cpu,cpuacct:/slurm/job_1", {"cpu,cpuacct/slurm/job_1/cpu.cfs_quota_us": "400000",
                                        "cpu,cpuacct/slurm/job_1/cpu.cfs_period_us": "100000"}, 4),
        ("0::/", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("nonsense", {"cpu.max": ""}, None),
    ],
)  # fmt: skip
def test_cpu_quota(mount: Mount, own: str, files: dict[str, str], quota: float | None) -> None:
    mount(own, files)
    assert cgroup.cpu_quota() == quota
    if quota is not None and quota < 2:
        assert usable_cpu_count() == 1


@pytest.mark.parametrize(
    ("own", "files", "limit", "free"),
    [
        ("0::/", {"memory.max": "max"}, None, None),
        ("0::/", {"memory.max": str(4 * GIB), "memory.current": str(GIB)}, 4 * GIB, 3 * GIB),
        # What is read from disk stays in the cache until somebody needs the memory.
        ("0::/", {"memory.max": str(4 * GIB), "memory.current": str(4 * GIB),
                  "memory.stat": f"anon {GIB}\\nfile {3 * GIB}\\ninactive_file {2 * GIB}\\nactive_file {GIB}"},
         4 * GIB, 3 * GIB),
        ("0::/a/b", {"a/memory.max": str(2 * GIB), "a/memory.current": str(GIB), "a/b/memory.max": str(8 * GIB),
                     "a/b/memory.current": "0"}, 2 * GIB, GIB),
        ("0::/a", {"a/memory.max": "max", "a/memory.high": str(GIB), "a/memory.current": "0"}, GIB, GIB),
        ("9:memory:/docker/f00", {"memory/memory.limit_in_bytes": str(GIB), "memory/memory.usage_in_bytes": "1000"},
         GIB, GIB - 1000),
        ("9:memory:/job", {"memory/memory.limit_in_bytes": V1_NONE, "memory/job/memory.limit_in_bytes": str(GIB),
                           "memory/job/memory.usage_in_bytes": str(GIB),
                           "memory/job/memory.stat": f"cache {GIB}\\ntotal_inactive_file {GIB // 2}"}, GIB, GIB // 2),
        ("9:memory:/", {"memory/memory.limit_in_bytes": V1_NONE}, None, None),
    ],
)  # fmt: skip
def test_memory(mount: Mount, own: str, files: dict[str, str], limit: int | None, free: int | None) -> None:
    mount(own, {name: text.replace("\\n", "\n") for name, text in files.items()})
    assert cgroup.memory_limit() == limit
    assert cgroup.free_memory() == free
