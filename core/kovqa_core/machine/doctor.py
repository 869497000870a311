"""What this machine has and what is missing. Loads nothing heavy: libraries are looked up, not imported.

`deep` imports them as well, each in a process of its own: that takes half a minute of CPU.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from kovqa_core.errors import MachineError
from kovqa_core.machine.finding import DoctorFinding
from kovqa_core.machine.gpu_settings import describe_gpus, profile_notes
from kovqa_core.machine.hardware import (
    FoundGpus,
    find_gpus,
    nearest_profile,
    nvidia_driver_version,
    system_memory_gb,
)
from kovqa_core.machine.library_checks import (
    CHECKED_PACKAGES,
    TORCH_FACTS_SCRIPT,
    ImportAttempt,
    family_findings,
    import_script,
    installed_finding,
    installed_torch_finding,
    package_finding,
    torch_finding,
    try_import,
)
from kovqa_core.machine.versions import package_versions
from kovqa_core.messages import Message, join_messages, message
from kovqa_core.paths import kovqa_home
from kovqa_core.process_pool import usable_cpu_count
from kovqa_core.progress import OnProgress, Progress, ignore_progress
from kovqa_core.settings.profile import Profile
from kovqa_core.system_support import HAS_FILE_OWNERS, require_launching

MIN_DISK_GB = 10  # a few checkpoints of a large model
MIN_MEMORY_GB = 4
MIN_SHM_GB = 2  # containers have 64 MB unless they are started with more


def run_doctor_checks(
    profiles: Sequence[Profile], on_progress: OnProgress = ignore_progress, *, deep: bool = False
) -> list[DoctorFinding]:
    """Look at everything; nothing is downloaded or written.

    Args:
        profiles: those for one machine alone; the nearest is named.
        on_progress: counts the imports tried.
        deep: import every library, in processes of their own.
    """
    installed = package_versions(["kovqa", "torch", *(package.name for package in CHECKED_PACKAGES)])
    return [
        DoctorFinding("python", "ok", f"{platform.python_version()}, {sys.executable}"),
        DoctorFinding("kovqa", "ok", f"{installed['kovqa']}, {Path(__file__).parents[1]}"),
        *_system_findings(),
        *(_imported_findings(installed, on_progress) if deep else _installed_findings(installed)),
        *family_findings(),
        *hardware_findings(profiles),
        *_disk_findings(),
        terminal_finding(getattr(sys.stdout, "encoding", None) or "ascii"),
        api_key_finding(),
        _asset_finding(),
    ]


def _system_findings() -> Iterator[DoctorFinding]:
    """The operating system, where it does not start processes that train."""
    try:
        require_launching()
    except MachineError as error:
        yield DoctorFinding("system", "warning", error.message, error.hint)


def _installed_findings(installed: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Versions from the packages' metadata: nothing is imported."""
    yield installed_torch_finding(installed["torch"])
    for package in CHECKED_PACKAGES:
        yield installed_finding(package, installed)


def _imported_findings(installed: Mapping[str, str], on_progress: OnProgress) -> Iterator[DoctorFinding]:
    attempts = _try_imports(on_progress)
    yield torch_finding(attempts[0], installed["torch"])
    for package, attempt in zip(CHECKED_PACKAGES, attempts[1:], strict=True):
        yield package_finding(package, attempt, installed, attempts[0].error)


def _try_imports(on_progress: OnProgress) -> list[ImportAttempt]:
    """Attempts of torch, then of `CHECKED_PACKAGES` in their order."""
    scripts = [TORCH_FACTS_SCRIPT, *map(import_script, CHECKED_PACKAGES)]
    stage = message("machine.trying-imports", "trying imports")
    attempts = []
    with ThreadPoolExecutor(min(4, usable_cpu_count())) as pool:  # threads that wait for processes
        for attempt in pool.map(try_import, scripts):
            attempts.append(attempt)
            on_progress(Progress(stage, len(attempts), len(scripts), "libraries"))
    return attempts


# -------------------------------------------------------------------------------- hardware


def hardware_findings(profiles: Sequence[Profile]) -> Iterator[DoctorFinding]:
    """GPUs and the profile that fits them, cores, memory, SLURM."""
    found = find_gpus()
    yield _gpu_finding(found)
    yield _profile_finding(found, profiles)
    yield DoctorFinding("cores", "ok", str(usable_cpu_count()))
    yield _memory_finding()
    yield _shared_memory_finding()
    tools = [tool for tool in ("srun", "sbatch") if shutil.which(tool)]
    if tools:
        yield DoctorFinding("SLURM", "ok", ", ".join(tools))
    else:
        yield DoctorFinding(
            "SLURM", "none", message("machine.slurm-absent", "not here; only SLURM profiles need it")
        )


def _profile_finding(found: FoundGpus, profiles: Sequence[Profile]) -> DoctorFinding:
    what = message(
        "machine.profile-fits",
        "{profile} fits: kovqa train -p {profile}",
        profile=nearest_profile(found.gpus, profiles),
    )
    if notes := profile_notes(found.gpus, profiles):
        what = message(
            "machine.profile-fits-with-notes",
            "{profile}; {notes}",
            profile=what,
            notes=join_messages("; ", notes),
        )
    return DoctorFinding("profile", "ok", what)


def _gpu_finding(found: FoundGpus) -> DoctorFinding:
    what = message("machine.no-gpus", "none visible: models run on the CPU")
    if found.gpus:
        what = message("machine.gpus-found", "{gpus}", gpus=describe_gpus(found.gpus))
        if driver := nvidia_driver_version():
            what = message("machine.gpus", "{gpus}, driver {driver}", gpus=what, driver=driver)
    if found.problems:
        problems = join_messages("; ", found.problems)
        return DoctorFinding(
            "GPUs",
            "warning",
            message("machine.gpus-with-problem", "{gpus}; {problems}", gpus=what, problems=problems),
            message("machine.smi-shows-none.hint", "run nvidia-smi and read what it reports"),
        )
    return DoctorFinding("GPUs", "ok" if found.gpus else "none", what)


def _memory_finding() -> DoctorFinding:
    gb = system_memory_gb()  # of a container, what it may use
    if gb >= MIN_MEMORY_GB:
        return DoctorFinding("memory", "ok", f"{gb} GB")
    hint = message("machine.little-memory.hint", "use a small recipe: tiny, tiny-caption, tiny-fusion")
    return DoctorFinding("memory", "warning", f"{gb} GB", hint)


def _shared_memory_finding() -> DoctorFinding:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return DoctorFinding("/dev/shm", "none", message("machine.no-shared-memory", "not on this system"))
    gb = shutil.disk_usage(folder).total / 2**30
    if gb >= MIN_SHM_GB:
        return DoctorFinding("/dev/shm", "ok", f"{gb:.0f} GB")
    return DoctorFinding(
        "/dev/shm",
        "warning",
        message("machine.little-shared-memory", "{gb:.2f} GB; loader workers pass batches through it", gb=gb),
        message(
            "machine.little-shared-memory.hint",
            "give the container more (docker run --shm-size=8g), or use --set profile.loader_workers=0",
        ),
    )


def _disk_findings() -> Iterator[DoctorFinding]:
    yield _disk_finding("this folder", Path.cwd())
    yield _disk_finding("assets", kovqa_home() / "assets")


def _disk_finding(name: str, folder: Path) -> DoctorFinding:
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    if not os.access(existing, os.W_OK | os.X_OK):
        return DoctorFinding(
            name,
            "warning",
            message("machine.not-writable", "{folder} cannot be written", folder=folder),
            message("machine.not-writable.hint", "work in another folder, or set -o and KOVQA_HOME"),
        )
    gb = shutil.disk_usage(existing).free / 2**30
    what = message("machine.disk-free", "{gb:.0f} GB free in {folder}", gb=gb, folder=folder)
    if gb >= MIN_DISK_GB:
        return DoctorFinding(name, "ok", what)
    hint = message(
        "machine.little-disk.hint", "free some space: each checkpoint of a large model takes several GB"
    )
    return DoctorFinding(name, "warning", what, hint)


# ---------------------------------------------------------------------------- surroundings


def terminal_finding(encoding: str) -> DoctorFinding:
    """Can what is printed hold Hangul?"""
    try:
        "한글".encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return DoctorFinding(
            "terminal",
            "warning",
            message("machine.no-hangul", "{encoding} has no Hangul", encoding=encoding),
            message("machine.no-hangul.hint", "export PYTHONUTF8=1, or LC_ALL=C.UTF-8"),
        )
    return DoctorFinding("terminal", "ok", encoding)


def api_key_finding() -> DoctorFinding:
    """Which API keys are set: the names of the services alone, never a key."""
    from kovqa_core.download.hub import has_hub_token
    from kovqa_core.net.server_key import KEY_FOLDER

    files = [("Dacon", "DACON_API_TOKEN", "dacon.key"), ("AI-Hub", "AIHUB_APIKEY", "aihub.key")]
    services = [
        name for name, variable, file in files if os.environ.get(variable) or (kovqa_home() / file).is_file()
    ]
    services += ["Hugging Face"] if has_hub_token() else []
    own_files = [kovqa_home() / file for *_, file in files]
    own_files += [kovqa_home() / "server.key", kovqa_home() / "openai.key"]
    own_files += sorted((kovqa_home() / KEY_FOLDER).glob("*"))
    exposed = [file for file in own_files if _readable_by_others(file)]
    if exposed:
        what = message("machine.exposed-key", "others can read {file}", file=exposed[0])
        return DoctorFinding("keys", "warning", what, f"chmod 600 {exposed[0]}")
    return _list_finding(
        "keys", services, message("machine.no-keys", "none; only downloads and uploads need one")
    )


def _readable_by_others(path: Path) -> bool:
    # Windows has other permissions, which a mode does not tell: a user's folder is the user's own there.
    return HAS_FILE_OWNERS and path.is_file() and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _asset_finding() -> DoctorFinding:
    from kovqa_core.download.fetch import asset_state
    from kovqa_core.download.table import load_assets

    names = [asset.name for asset in load_assets().values() if asset_state(asset) == "here"]
    return _list_finding(
        "fetched",
        names,
        message("machine.no-assets", "nothing yet; kovqa download --list shows what there is"),
    )


def _list_finding(name: str, names: Sequence[str], none: Message) -> DoctorFinding:
    return DoctorFinding(name, "ok", ", ".join(names)) if names else DoctorFinding(name, "none", none)
