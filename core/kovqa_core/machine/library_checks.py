"""Are the libraries installed; do they import, each in a process of its own; does torch see the GPUs?"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.bounded_json import parse_json
from kovqa_core.machine import hardware
from kovqa_core.machine.finding import DoctorFinding, FindingState
from kovqa_core.machine.versions import NOT_INSTALLED
from kovqa_core.messages import Message, message
from kovqa_core.missing_packages import FAMILY_PACKAGES, REQUIREMENTS, install_command, missing_packages

IMPORT_TIMEOUT = 120.0  # seconds for one import: a first one from a network disk takes its time


@dataclass(frozen=True)
class CheckedPackage:
    """A library: what it is imported as, what it is for."""

    name: str
    module: str
    use: Message
    needed: bool = True


TORCH_PACKAGE = CheckedPackage("torch", "torch", message("machine.use-torch", "models and training"))
CHECKED_PACKAGES = (
    CheckedPackage("numpy", "numpy", message("machine.use-numpy", "indexes and images")),
    CheckedPackage("pillow", "PIL", message("machine.use-pillow", "opening images")),
    CheckedPackage(
        "sentencepiece", "sentencepiece", message("machine.use-sentencepiece", "the tokenizer of BEiT-3")
    ),
    CheckedPackage("safetensors", "safetensors.torch", message("machine.use-safetensors", "checkpoints")),
    CheckedPackage("tensorboardX", "tensorboardX", message("machine.use-tensorboardx", "TensorBoard files")),
    CheckedPackage("wandb", "wandb", message("machine.use-wandb", "the tracker wandb"), needed=False),
    CheckedPackage(
        "mlflow-skinny", "mlflow", message("machine.use-mlflow-skinny", "the tracker mlflow"), needed=False
    ),
    CheckedPackage("trackio", "trackio", message("machine.use-trackio", "the tracker trackio"), needed=False),
    CheckedPackage("torchvision", "torchvision", message("machine.use-torchvision", "timm and transformers")),
    CheckedPackage(
        "transformers", "transformers", message("machine.use-transformers", "the families fusion and vlm")
    ),
    CheckedPackage("timm", "timm", message("machine.use-timm", "image encoders of the family fusion")),
    CheckedPackage("peft", "peft", message("machine.use-peft", "LoRA of the family vlm")),
    CheckedPackage(
        "deepspeed",
        "deepspeed",
        message("machine.use-deepspeed", "the strategies zero1, zero2, zero3"),
        needed=False,
    ),
    CheckedPackage("openpyxl", "openpyxl", message("machine.use-openpyxl", "tables as .xlsx"), needed=False),
    CheckedPackage("pyarrow", "pyarrow", message("machine.use-pyarrow", "tables as .parquet"), needed=False),
    CheckedPackage(
        "starlette", "starlette", message("machine.use-server", "kovqa serve and view"), needed=False
    ),
    CheckedPackage("uvicorn", "uvicorn", message("machine.use-server", "kovqa serve and view"), needed=False),
    CheckedPackage(
        "python-multipart",
        "python_multipart",
        message("machine.use-server", "kovqa serve and view"),
        needed=False,
    ),
    CheckedPackage("duckdb", "duckdb", message("machine.use-duckdb", "kovqa view"), needed=False),
    CheckedPackage("onnx", "onnx", message("machine.use-onnx", "kovqa export --onnx"), needed=False),
    CheckedPackage(
        "onnxruntime", "onnxruntime", message("machine.use-onnx", "kovqa export --onnx"), needed=False
    ),
    CheckedPackage(
        "onnxscript", "onnxscript", message("machine.use-onnx", "kovqa export --onnx"), needed=False
    ),
    CheckedPackage(
        "soundfile", "soundfile", message("machine.use-soundfile", "sounds that are not WAV"), needed=False
    ),
    CheckedPackage("uroman", "uroman", message("machine.use-uroman", "the voice of MMS-TTS"), needed=False),
    CheckedPackage(
        "bitsandbytes", "bitsandbytes", message("machine.use-bitsandbytes", "models of 4 bits"), needed=False
    ),
    CheckedPackage("gdown", "gdown", message("machine.use-gdown", "Google Drive's second way"), needed=False),
)
TorchFacts = dict[str, str | int | bool | None]  # what the script below prints
# getattr: not every build of torch has `hip` and `mps`.
TORCH_FACTS_SCRIPT = """
import json, torch
cuda = torch.cuda.is_available()
print(json.dumps({
    "built_for": torch.version.cuda or getattr(torch.version, "hip", None),
    "gpus": torch.cuda.device_count() if cuda else 0,
    "mps": bool(getattr(torch.backends, "mps", None) and torch.backends.mps.is_available()),
}))
"""


@dataclass(frozen=True)
class ImportAttempt:
    """What came of a few lines of Python in a process of their own.

    Attributes:
        output: last line of stdout.
        error: last line of stderr, or that it took too long; empty when all went well.
        warning: of CUDA, from an import that went well.
    """

    output: str
    error: str
    warning: str = ""


def import_script(package: CheckedPackage) -> str:
    """A script that imports a package as the engine does.

    timm and transformers import torchvision, whose compiled operators may belong to another torch; the
    engine mends that first (`models/torchvision_compat.py`), so the script does too.
    """
    if package.name not in ("timm", "transformers", "peft"):
        return f"import {package.module}"
    # At the end of sys.path: nothing in the engine's folder may hide an installed package.
    engine = str(Path(__file__).resolve().parents[2])
    return (
        f"import sys; sys.path.append({engine!r})\n"
        "from kovqa_core.models.torchvision_compat import load_torchvision\n"
        f"load_torchvision()\nimport {package.module}"
    )


def try_import(script: str, seconds: float = IMPORT_TIMEOUT) -> ImportAttempt:
    """Run Python in another process: what breaks or hangs, breaks or hangs there."""
    # -P: a file called torch.py in this folder must not be what is imported.
    command = [sys.executable, "-P", "-c", script]
    environ = {**os.environ, "PYTHONIOENCODING": "utf-8", "TOKENIZERS_PARALLELISM": "false"}
    try:
        done = subprocess.run(
            command, capture_output=True, env=environ, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        return ImportAttempt(
            "", message("machine.import-timeout", "not imported within {seconds:g} s", seconds=seconds)
        )
    output, errors = (
        stream.decode("utf-8", "replace").strip().splitlines() for stream in (done.stdout, done.stderr)
    )
    if done.returncode < 0:
        return ImportAttempt(
            "",
            message(
                "machine.import-signal", "importing it ended with signal {signal}", signal=-done.returncode
            ),
        )
    if done.returncode:
        # The last line of a traceback is the exception.
        code = message("machine.import-failed", "importing it ended with {code}", code=done.returncode)
        return ImportAttempt("", errors[-1] if errors else code)
    warning = next((line for line in errors if "Warning" in line and "CUDA" in line), "")
    return ImportAttempt(output[-1] if output else "", "", warning)


def installed_finding(package: CheckedPackage, installed: Mapping[str, str]) -> DoctorFinding:
    """Whether a package is installed, by its metadata and its folder; nothing is imported.

    Args:
        package: what is looked for.
        installed: versions by name.
    """
    version = installed[package.name]
    if version == NOT_INSTALLED or importlib.util.find_spec(package.module.partition(".")[0]) is None:
        return _not_installed_finding(package)
    return DoctorFinding(package.name, "ok", version)


def family_findings() -> Iterator[DoctorFinding]:
    """Which families of models can be trained and asked with what is installed; nothing is imported."""
    for family, modules in FAMILY_PACKAGES.items():
        missing = missing_packages(modules)
        if missing:
            names = [REQUIREMENTS[module] for module in missing]
            what = message("machine.family-lacks", "needs {names}", names=", ".join(names))
            yield DoctorFinding(family, "none", what, install_command(names))
        else:
            yield DoctorFinding(
                family, "ok", message("machine.family-ready", "all that its models need is installed")
            )


def installed_torch_finding(version: str) -> DoctorFinding:
    """Torch as its version names it: a wheel for CPUs alone, beside GPUs, is a mistake that shows here."""
    gpus = [gpu.name for gpu in hardware.visible_gpus()]
    if version.endswith("+cpu") and gpus:
        return _torch_for_cpus_finding(version, gpus)
    return installed_finding(TORCH_PACKAGE, {"torch": version})


def _not_installed_finding(package: CheckedPackage) -> DoctorFinding:
    state: FindingState = "missing" if package.needed else "none"
    return DoctorFinding(
        package.name,
        state,
        message("machine.not-installed", "not installed; for {use}", use=package.use),
        install_command([REQUIREMENTS.get(package.module.partition(".")[0], package.name)]),
    )


def package_finding(
    package: CheckedPackage, attempt: ImportAttempt, installed: Mapping[str, str], torch_error: str = ""
) -> DoctorFinding:
    """What an attempted import says about a package.

    Args:
        package: what was imported.
        attempt: what came of it.
        installed: versions by name.
        torch_error: of torch's own import; a package that fails with the same words only needs torch.
    """
    name, version = package.name, installed[package.name]
    if not attempt.error:
        return DoctorFinding(name, "ok", version)
    if version == NOT_INSTALLED:
        return _not_installed_finding(package)
    return _failed_import_finding(package, attempt.error, version, torch_error)


def _failed_import_finding(
    package: CheckedPackage, error: str, version: str, torch_error: str
) -> DoctorFinding:
    """A package that is installed, and cannot be imported; see `package_finding`."""
    name = package.name
    state: FindingState = "missing" if package.needed else "warning"
    if error == torch_error:
        return DoctorFinding(
            name,
            state,
            message("machine.needs-torch", "{version}, cannot be imported without torch", version=version),
            message("machine.needs-torch.hint", "mend torch first"),
        )
    if name == "torchvision" and "torchvision::" in error:
        # Its operators are compiled for one torch; kovqa uses none of them.
        what = message(
            "machine.torchvision-operators",
            "{version}, its compiled operators do not fit this torch; kovqa does without them",
            version=version,
        )
        return DoctorFinding(name, "ok", what)
    return DoctorFinding(
        name,
        state,
        message(
            "machine.cannot-import",
            "{version}, cannot be imported: {error}",
            version=version,
            error=error,
        ),
        message(
            "machine.cannot-import.hint",
            "reinstall it: pip install --force-reinstall {package}",
            package=name,
        ),
    )


def torch_finding(attempt: ImportAttempt, version: str) -> DoctorFinding:
    """Torch, and whether it sees the GPUs of this machine."""
    if attempt.error:
        return package_finding(TORCH_PACKAGE, attempt, {"torch": version})
    facts: TorchFacts = parse_json(attempt.output)
    gpus = [gpu.name for gpu in hardware.visible_gpus()]
    if facts["mps"]:
        return DoctorFinding(
            "torch", "ok", message("machine.torch-mps", "{version}, sees Apple's GPU", version=version)
        )
    if facts["gpus"] and (not gpus or facts["gpus"] == len(gpus)):
        return DoctorFinding(
            "torch",
            "ok",
            message(
                "machine.torch-gpus", "{version}, sees {count} GPUs", version=version, count=facts["gpus"]
            ),
        )
    if not gpus:
        return DoctorFinding(
            "torch", "ok", message("machine.torch-no-gpus", "{version}, sees no GPUs", version=version)
        )
    return _unseen_gpus_finding(attempt, facts, version, gpus)


def _unseen_gpus_finding(
    attempt: ImportAttempt, facts: TorchFacts, version: str, gpus: Sequence[str]
) -> DoctorFinding:
    """nvidia-smi lists more GPUs than torch sees: another torch or another driver is needed.

    Args:
        attempt: torch's import, whose warning says what CUDA complains about.
        facts: what `TORCH_FACTS_SCRIPT` printed.
        version: of torch.
        gpus: names of the GPUs that nvidia-smi lists.
    """
    if facts["built_for"] is None:
        return _torch_for_cpus_finding(version, gpus)
    what = message(
        "machine.torch-blind",
        "{version}, built for CUDA {cuda}, sees {seen} of {count} GPUs; the driver is {driver}",
        version=version,
        cuda=facts["built_for"],
        seen=facts["gpus"],
        count=len(gpus),
        driver=hardware.nvidia_driver_version(),
    )
    if attempt.warning:
        reason = attempt.warning.partition("Warning: ")[2][:120]
        what = message("machine.with-reason", "{what} ({reason})", what=what, reason=reason)
    return DoctorFinding(
        "torch",
        "warning",
        what,
        message(
            "machine.torch-blind.hint",
            "update the driver, or install a torch that is built for an older CUDA",
        ),
    )


def _torch_for_cpus_finding(version: str, gpus: Sequence[str]) -> DoctorFinding:
    return DoctorFinding(
        "torch",
        "warning",
        message(
            "machine.torch-for-cpus",
            "{version} is built for CPUs alone, but this machine has {count} × {gpu}",
            version=version,
            count=len(gpus),
            gpu=gpus[0],
        ),
        message("machine.torch-for-cpus.hint", "install a torch that is built for CUDA"),
    )
