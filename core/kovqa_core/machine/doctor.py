"""What this machine has and what is missing. Loads nothing heavy: imports are tried in other processes."""

from __future__ import annotations

import json
import os
import platform
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kovqa_core.machine import hardware as machine_hardware
from kovqa_core.machine.versions import package_versions
from kovqa_core.paths import kovqa_home
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.settings.profile import Profile

IMPORT_TIMEOUT = 120.0  # for one import: a first one from a network disk takes its time
MIN_DISK_GB = 10  # a few checkpoints of a large model
MIN_MEMORY_GB = 4
MIN_SHM_GB = 2  # containers have 64 MB unless told otherwise

FindingState = Literal["ok", "none", "warning", "missing"]  # none: not here, and not needed


@dataclass(frozen=True)
class DoctorFinding:
    """One thing looked at."""

    name: str
    state: FindingState
    what: str
    do: str = ""


@dataclass(frozen=True)
class CheckedPackage:
    """A library: what it is imported as, what it is for."""

    name: str
    module: str
    use: str
    needed: bool = True


TORCH_PACKAGE = CheckedPackage("torch", "torch", "models and training")
CHECKED_PACKAGES = (
    CheckedPackage("numpy", "numpy", "indexes and pictures"),
    CheckedPackage("pillow", "PIL", "opening pictures"),
    CheckedPackage("sentencepiece", "sentencepiece", "the tokenizer of BEiT-3"),
    CheckedPackage("safetensors", "safetensors.torch", "checkpoints"),
    CheckedPackage("tensorboardX", "tensorboardX", "TensorBoard files"),
    CheckedPackage("torchvision", "torchvision", "timm and transformers"),
    CheckedPackage("transformers", "transformers", "the families fusion and vlm"),
    CheckedPackage("timm", "timm", "picture encoders of the family fusion"),
    CheckedPackage("peft", "peft", "LoRA of the family vlm"),
    CheckedPackage("deepspeed", "deepspeed", "the strategies zero1, zero2, zero3", needed=False),
)
TORCH_FACTS_SCRIPT = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "built_for": torch.version.cuda or getattr(torch.version, "hip", None),
    "gpus": torch.cuda.device_count() if cuda else 0,
    "mps": bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available()),
}))
"""


def run_doctor_checks(
    profiles: Sequence[Profile], told: Callable[[int, int], None] = lambda done, total: None
) -> list[DoctorFinding]:
    """Look at everything; nothing is fetched or written.

    Args:
        profiles: those for one machine alone; the nearest is named.
        told: called with (imports tried, imports in all).
    """
    scripts = [TORCH_FACTS_SCRIPT, *map(_import_script, CHECKED_PACKAGES)]
    tried: list[ImportAttempt] = []
    with ThreadPoolExecutor(min(4, usable_cpu_count())) as pool:
        for outcome in pool.map(try_import, scripts):
            tried.append(outcome)
            told(len(tried), len(scripts))
    installed = package_versions(["kovqa", "torch", *(package.name for package in CHECKED_PACKAGES)])
    return [
        DoctorFinding("python", "ok", f"{platform.python_version()}, {sys.executable}"),
        DoctorFinding("kovqa", "ok", f"{installed['kovqa']}, {Path(__file__).parents[1]}"),
        torch_finding(tried[0], installed["torch"]),
        *(
            package_finding(package, outcome, installed, tried[0].error)
            for package, outcome in zip(CHECKED_PACKAGES, tried[1:], strict=True)
        ),
        *hardware_findings(profiles),
        *_disk_findings(),
        *_environment_findings(),
    ]


# --------------------------------------------------------------------------------- imports


@dataclass(frozen=True)
class ImportAttempt:
    """What came of a few lines of Python in a process of their own."""

    said: str  # last line of stdout
    error: str  # last line of stderr, or that it took too long; empty when all went well
    warned: str = ""  # a warning it gave all the same


def _import_script(package: CheckedPackage) -> str:
    """A script that imports a package as the engine does: torchvision first, made to fit, where it is there."""
    if package.name not in ("timm", "transformers", "peft"):
        return f"import {package.module}"
    engine = str(Path(__file__).resolve().parents[2])
    return (
        f"import sys; sys.path.append({engine!r})\n"
        "from kovqa_core.models.libraries import load_torchvision\n"
        f"load_torchvision()\nimport {package.module}"
    )


def try_import(script: str, seconds: float = IMPORT_TIMEOUT) -> ImportAttempt:
    """Run Python in another process, so that what breaks or hangs breaks there."""
    words = [sys.executable, "-P", "-c", script]
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            words, capture_output=True, env=environ, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return ImportAttempt("", f"not imported within {seconds:g} s")
    out, err = (
        stream.decode("utf-8", "replace").strip().splitlines() for stream in (done.stdout, done.stderr)
    )
    if done.returncode < 0:
        return ImportAttempt("", f"importing it ended with signal {-done.returncode}")
    if done.returncode:
        return ImportAttempt("", err[-1] if err else f"importing it ended with {done.returncode}")
    warned = next((line for line in err if "Warning" in line and "CUDA" in line), "")
    return ImportAttempt(out[-1] if out else "", "", warned)


def package_finding(
    package: CheckedPackage, tried: ImportAttempt, installed: dict[str, str], torch_error: str = ""
) -> DoctorFinding:
    """What an attempted import says.

    Args:
        package: what was imported.
        tried: what came of it.
        installed: versions by name.
        torch_error: of torch's own import; who fails alike only waits for torch.
    """
    name, version = package.name, installed[package.name]
    if not tried.error:
        return DoctorFinding(name, "ok", version)
    if version == "not installed":
        state: FindingState = "missing" if package.needed else "none"
        return DoctorFinding(name, state, f"not installed; for {package.use}", f"pip install {name}")
    state = "missing" if package.needed else "warning"
    if tried.error == torch_error:
        return DoctorFinding(
            name, state, f"{version}, cannot be imported without torch", "see to torch first"
        )
    if name == "torchvision" and "torchvision::" in tried.error:
        what = f"{version}, its compiled operators do not fit this torch; kovqa does without them"
        return DoctorFinding(name, "ok", what)
    do = f"install it again: pip install --force-reinstall {name}"
    return DoctorFinding(name, state, f"{version}, cannot be imported: {tried.error}", do)


def torch_finding(tried: ImportAttempt, version: str) -> DoctorFinding:
    """Torch, and whether it sees the GPUs that are here."""
    if tried.error:
        return package_finding(TORCH_PACKAGE, tried, {"torch": version})
    facts: dict[str, Any] = json.loads(tried.said)
    here = [gpu.name for gpu in machine_hardware.visible_gpus()]
    if facts["mps"] or not here or facts["gpus"] == len(here):
        sees = "sees Apple's GPU" if facts["mps"] else f"sees {facts['gpus'] or 'no'} GPUs"
        return DoctorFinding("torch", "ok", f"{version}, {sees}")
    if facts["built_for"] is None:
        return DoctorFinding(
            "torch", "warning", f"{version} is built for CPUs alone, but this machine has {len(here)} × {here[0]}",
            "install a torch that is built for CUDA",
        )  # fmt: skip
    why = f" ({tried.warned.partition('Warning: ')[2][:120]})" if tried.warned else ""
    return DoctorFinding(
        "torch", "warning",
        f"{version}, built for CUDA {facts['built_for']}, sees {facts['gpus']} of {len(here)} GPUs; "
        f"the driver is {machine_hardware.nvidia_driver_version()}{why}",
        "update the driver, or install a torch that is built for an older CUDA",
    )  # fmt: skip


# -------------------------------------------------------------------------------- hardware


def hardware_findings(profiles: Sequence[Profile]) -> Iterator[DoctorFinding]:
    """GPUs and the profile that fits them, cores, memory, SLURM."""
    found = machine_hardware.visible_gpus()
    profile = machine_hardware.nearest_profile(found, profiles)
    if found:
        driver = machine_hardware.nvidia_driver_version()
        what = f"{len(found)} × {found[0].name} {found[0].memory_gb} GB" + (
            f", driver {driver}" if driver else ""
        )
        yield DoctorFinding("GPUs", "ok", what)
    elif shutil.which("nvidia-smi") and os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        yield DoctorFinding(
            "GPUs", "warning", "nvidia-smi is here, but shows none", "run nvidia-smi and see what it says"
        )
    else:
        yield DoctorFinding("GPUs", "none", "none visible: models run on the CPU")
    yield DoctorFinding("profile", "ok", f"{profile} fits: kovqa train -p {profile}")
    yield DoctorFinding("cores", "ok", str(usable_cpu_count()))
    yield _memory_finding()
    yield _shared_memory_finding()
    tools = [tool for tool in ("srun", "sbatch") if shutil.which(tool)]
    yield DoctorFinding(
        "SLURM", "ok" if tools else "none", " and ".join(tools) or "not here; only SLURM profiles need it"
    )


def _memory_finding() -> DoctorFinding:
    gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    limit = Path("/sys/fs/cgroup/memory.max")  # what a container may use
    text = limit.read_text().strip() if limit.is_file() else ""
    if text.isdecimal():
        gb = min(gb, int(text) / 2**30)
    few = gb < MIN_MEMORY_GB
    do = "small recipes will do: tiny, tiny-caption, tiny-fusion" if few else ""
    return DoctorFinding("memory", "warning" if few else "ok", f"{gb:.0f} GB", do)


def _shared_memory_finding() -> DoctorFinding:
    place = Path("/dev/shm")
    if not place.is_dir():
        return DoctorFinding("/dev/shm", "none", "not on this system")
    gb = shutil.disk_usage(place).total / 2**30
    if gb >= MIN_SHM_GB:
        return DoctorFinding("/dev/shm", "ok", f"{gb:.0f} GB")
    do = "give the container more (docker run --shm-size=8g), or --set profile.loader_workers=0"
    return DoctorFinding("/dev/shm", "warning", f"{gb:.2f} GB; loader workers pass batches through it", do)


def _disk_findings() -> Iterator[DoctorFinding]:
    for name, folder in (("this folder", Path.cwd()), ("assets", kovqa_home() / "assets")):
        there = next(place for place in (folder, *folder.parents) if place.is_dir())
        gb = shutil.disk_usage(there).free / 2**30
        what = f"{gb:.0f} GB free in {folder}"
        if not os.access(there, os.W_OK | os.X_OK):
            yield DoctorFinding(
                name, "warning", f"{folder} cannot be written", "work elsewhere, or set -o and KOVQA_HOME"
            )
        elif gb < MIN_DISK_GB:
            yield DoctorFinding(
                name, "warning", what, "free some: a large model's checkpoints take several GB each"
            )
        else:
            yield DoctorFinding(name, "ok", what)


# ---------------------------------------------------------------------------- surroundings


def _environment_findings() -> Iterator[DoctorFinding]:
    yield terminal_finding(getattr(sys.stdout, "encoding", None) or "ascii")
    yield api_key_finding()
    yield _asset_finding()


def terminal_finding(encoding: str) -> DoctorFinding:
    """Can what is printed hold Hangul?"""
    try:
        "한글".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return DoctorFinding(
            "terminal", "warning", f"{encoding} has no Hangul", "export PYTHONUTF8=1, or LC_ALL=C.UTF-8"
        )
    return DoctorFinding("terminal", "ok", encoding)


def api_key_finding() -> DoctorFinding:
    """Which keys there are: names alone, never what they say."""
    from kovqa_core.download.hub import read_hub_token

    files = [("Dacon", "DACON_API_TOKEN", "dacon.key"), ("AI-Hub", "AIHUB_APIKEY", "aihub.key")]
    found = [
        name for name, variable, file in files if os.environ.get(variable) or (kovqa_home() / file).is_file()
    ]
    found += ["Hugging Face"] if read_hub_token() else []
    open_ = [kovqa_home() / file for *_, file in files if _readable_by_others(kovqa_home() / file)]
    if open_:
        return DoctorFinding("keys", "warning", f"others can read {open_[0]}", f"chmod 600 {open_[0]}")
    return DoctorFinding(
        "keys", "ok" if found else "none", ", ".join(found) or "none; only downloads and uploads ask for one"
    )


def _readable_by_others(path: Path) -> bool:
    return path.is_file() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _asset_finding() -> DoctorFinding:
    from kovqa_core.download.fetch import asset_state
    from kovqa_core.download.table import load_assets

    found = [asset.name for asset in load_assets().values() if asset_state(asset) == "here"]
    return DoctorFinding(
        "fetched", "ok" if found else "none", ", ".join(found) or "nothing yet; kovqa download --list"
    )
