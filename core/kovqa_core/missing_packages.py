"""A package that is not installed, or cannot be imported: its name, and what installs it.

Commands import what they need when they need it, so that a small installation is enough for much: without torch all
but models, without transformers, timm and peft all of BEiT-3.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from types import TracebackType

from kovqa_core.errors import KovqaError, MachineError
from kovqa_core.messages import message
from kovqa_core.process_limits import error_chain

# Name that is imported -> what `pip install` is given.
REQUIREMENTS: dict[str, str] = {
    "torch": "torch",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "peft": "peft",
    "timm": "timm",
    "safetensors": "safetensors",
    "tensorboardX": "tensorboardX",
    "sentencepiece": "sentencepiece",
    "google": "protobuf",
    "numpy": "numpy",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "pydantic": "pydantic",
    "rich": "rich",
    "httpx2": "httpx2",
    "huggingface_hub": "huggingface_hub",
    "jinja2": "jinja2",
    "deepspeed": "kovqa[deepspeed]",
    "gdown": "kovqa[gdown]",
    "openpyxl": "kovqa[tables]",
    "pyarrow": "kovqa[tables]",
    "starlette": "kovqa[serve]",
    "uvicorn": "kovqa[serve]",
    "python_multipart": "kovqa[serve]",
    "duckdb": "kovqa[serve]",
    "bitsandbytes": "kovqa[qlora]",
    "soundfile": "kovqa[speech]",
    "uroman": "kovqa[speech]",
    "onnx": "kovqa[onnx]",
    "onnxruntime": "kovqa[onnx]",
    "onnxscript": "kovqa[onnx]",
    "wandb": "kovqa[wandb]",
    "mlflow": "kovqa[mlflow]",
    "trackio": "kovqa[trackio]",
}
# What the models of each family need, by the names that are imported.
_MODELS = ("torch", "safetensors", "numpy", "PIL")
FAMILY_PACKAGES: dict[str, tuple[str, ...]] = {
    "beit3": (*_MODELS, "sentencepiece", "google"),
    "fusion": (*_MODELS, "torchvision", "timm", "transformers"),
    "vlm": (*_MODELS, "torchvision", "transformers", "peft"),
}
_TORCH_PAGE = "https://pytorch.org/get-started/locally/"


def find_missing_package(error: BaseException) -> MachineError | None:
    """What an error means that came of an import; None where it did not, or says so itself already.

    Args:
        error: what a command ends with. A module of kovqa's own that cannot be imported is a bug.
    """
    if isinstance(error, KovqaError):
        return None
    for each in error_chain(error):
        if isinstance(each, ModuleNotFoundError) and (module := _known_package(each.name)):
            return missing_package_error([module])
        if isinstance(each, ImportError) and (module := _known_package(each.name) or _importer(each)):
            return _broken_package_error(module, each)
    return None


def missing_packages(modules: Iterable[str]) -> list[str]:
    """Those of some packages, by the names they are imported by, that are not installed; nothing is imported."""
    return [module for module in modules if importlib.util.find_spec(module) is None]


def missing_package_error(modules: Iterable[str]) -> MachineError:
    """The error for packages that are needed and not installed, by the names they are imported by."""
    names = list(dict.fromkeys(REQUIREMENTS.get(module, module) for module in modules))
    command = install_command(names)
    if "torch" in names:
        hint = message(
            "missing_packages.torch.hint",
            "{command} (torch's build for CPUs alone is much smaller: {page})",
            command=command,
            page=_TORCH_PAGE,
        )
    else:
        hint = message("missing_packages.hint", "{command}", command=command)
    return MachineError(
        message(
            "missing_packages.not-installed", "this needs {names}: not installed", names=", ".join(names)
        ),
        hint,
    )


def install_command(requirements: Iterable[str]) -> str:
    """What a person types to install packages."""
    words = (f"'{each}'" if "[" in each else each for each in requirements)
    return f"pip install {' '.join(words)}"


def _broken_package_error(module: str, error: ImportError) -> MachineError:
    name = REQUIREMENTS[module]
    return MachineError(
        message(
            "missing_packages.broken", "{name} is installed, but cannot be imported: {error}",
            name=name, error=_first_line(error),
        ),
        message(
            "missing_packages.broken.hint",
            "kovqa doctor --deep looks at all of them; pip install --upgrade --force-reinstall {name}",
            name=name,
        ),
    )  # fmt: skip


def _known_package(module: str | None) -> str:
    """The package of a module, if it is one of ours to name; else ""."""
    package = (module or "").partition(".")[0]
    return package if package in REQUIREMENTS else ""


def _importer(error: ImportError) -> str:
    """The package whose own code could not be imported, where the error names none: a library of the system, mostly."""
    trace: TracebackType | None = error.__traceback__
    package = ""
    while trace is not None:
        package = _known_package(trace.tb_frame.f_globals.get("__name__")) or package
        trace = trace.tb_next
    return package


def _first_line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
