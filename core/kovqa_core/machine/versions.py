"""Versions of what results depend on, and this machine as far as it can be known without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kovqa_core import __version__
from kovqa_core.machine import hardware
from kovqa_core.process_pool import usable_cpu_count

RECORDED_PACKAGES = (
    "kovqa", "torch", "transformers", "peft", "timm", "torchvision", "deepspeed", "safetensors", "numpy",
    "pillow", "sentencepiece",
)  # fmt: skip
NOT_INSTALLED = "not installed"  # in place of a version; manifests hold it, so it is never translated
_ENGINE_FOLDER = Path(__file__).resolve().parent.parent
# Keys of a checkout's own settings, by which `git status` runs a command, or fetches through one.
_COMMAND_KEY = re.compile(r"filter\.|extensions\.partialclone$|remote\..*\.(promisor|partialclonefilter)$")
_GIT_SECONDS = 5  # a checkout on a slow network disk must not hold up a training


@dataclass(frozen=True)
class MachineFacts:
    """A machine, as a manifest names it.

    Attributes:
        host: its name on the network.
        system: operating system, its release, the processor's architecture.
        cores: usable by the process that asked.
        gpus: their names, one each.
        driver: version of the NVIDIA driver; None without one.
    """

    host: str = "?"
    system: str = "?"
    cores: int = 0
    gpus: tuple[str, ...] = ()
    driver: str | None = None


@dataclass(frozen=True)
class GitState:
    """A checkout: its commit, and whether files git knows were changed since (None: git does not say)."""

    commit: str
    dirty: bool | None = None


def package_versions(packages: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Versions of what results depend on, read without importing anything heavy."""
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            # A source tree has no metadata of kovqa's.
            versions[package] = __version__ if package == "kovqa" else importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = NOT_INSTALLED
    return versions


def machine_facts() -> MachineFacts:
    """This machine."""
    return MachineFacts(
        host=platform.node(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=usable_cpu_count(),
        gpus=tuple(gpu.name for gpu in hardware.visible_gpus()),
        driver=hardware.nvidia_driver_version(),
    )


def git_state(folder: Path) -> GitState | None:
    """The checkout around a folder.

    None without git, outside a checkout, or where git refuses or takes too long.
    """
    commit = _run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    if _names_commands(folder):
        return GitState(commit)
    changes = _run_git(folder, "status", "--porcelain", "--untracked-files=no", "--ignore-submodules=dirty")
    return GitState(commit, None if changes is None else bool(changes))


def _names_commands(folder: Path) -> bool:
    """Has a checkout settings of its own by which `git status` runs other commands: filters, or remotes to fetch from?

    A checkout may have come with downloaded data. The user's own settings, git-lfs among them, are another scope.
    """
    if (keys := _run_git(folder, "config", "--show-scope", "--name-only", "--includes", "--list")) is None:
        return True
    own = [
        line.partition("\t")[2] for line in keys.splitlines() if line.startswith(("local\t", "worktree\t"))
    ]
    return any(_COMMAND_KEY.match(key) for key in own)


def engine_git_state() -> GitState | None:
    """The engine's own checkout; None for an installed engine, though it may lie inside another checkout."""
    return git_state(_ENGINE_FOLDER) if _run_git(_ENGINE_FOLDER, "ls-files", "errors.py") else None


def _run_git(folder: Path, *arguments: str) -> str | None:
    # A checkout's own file monitor is a command, too.
    command = ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments]
    # `git status` would otherwise write the index anew, and take its lock from a git of the user.
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_GIT_SECONDS, env=environ, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
