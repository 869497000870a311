"""Versions of what results depend on, and this machine as far as it can be known without torch."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kovqa_core.machine import hardware
from kovqa_core.process_pool import usable_cpu_count

RECORDED_PACKAGES = (
    "kovqa", "torch", "transformers", "peft", "timm", "torchvision", "deepspeed", "safetensors", "numpy",
    "pillow", "sentencepiece",
)  # fmt: skip
_ENGINE_FOLDER = Path(__file__).resolve().parent.parent


def package_versions(packages: Iterable[str] = RECORDED_PACKAGES) -> dict[str, str]:
    """Versions of what results depend on, read without importing anything heavy."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine_facts() -> dict[str, Any]:
    """This machine, as far as it can be known without torch."""
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": usable_cpu_count(),
        "gpus": [gpu.name for gpu in hardware.visible_gpus()],
        "driver": hardware.nvidia_driver_version(),
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit of the checkout around a folder, and whether files it knows were changed since.

    None without git, outside a checkout, or where git refuses or takes too long.
    """
    commit = _run_git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    changed = _run_git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def engine_git_state() -> dict[str, Any] | None:
    """Of the engine's own checkout; an installed engine inside somebody's checkout is not part of it."""
    return git_state(_ENGINE_FOLDER) if _run_git(_ENGINE_FOLDER, "ls-files", "errors.py") else None


def _run_git(folder: Path, *words: str) -> str | None:
    command = ["git", "-C", str(folder), *words]
    environ = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environ, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
