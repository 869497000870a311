"""In which numbers a model computes: the one place where device and wish become a dtype. Loads torch when asked.

Weights are stored in fp32 and products made in 16 bits by torch's autocast, in training and in answering alike.
What a vision language model does not learn is in 16 bits from the start (`model.dtype`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.errors import KovqaError, SettingsError
from kovqa_core.files import read_json
from kovqa_core.machine.gpu_settings import BF16_CAPABILITY
from kovqa_core.messages import message
from kovqa_core.models import family_part
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.config import FamilyConfig
from kovqa_core.runs.folder import is_huggingface_folder
from kovqa_core.settings.profile import Profile

if TYPE_CHECKING:
    import torch

PRECISIONS = ("bf16", "fp16", "fp32")
AUTO_PRECISION = "auto"  # as the device can, see `choose_precision`


def require_precision(asked: str) -> str:
    """A precision that exists, or "auto".

    Raises:
        SettingsError: it does not.
    """
    if asked not in (AUTO_PRECISION, *PRECISIONS):
        raise SettingsError(
            message("models.unknown-precision", "--precision {asked}: there is no such one", asked=asked),
            message("models.unknown-precision.hint", "use auto, bf16, fp16 or fp32"),
        )
    return asked


def own_precision(folder: Path) -> str:
    """What the model of a checkpoint folder computes in by itself, without autocast around it. No torch.

    A folder whose settings cannot be read says so when it is loaded.
    """
    try:
        info = read_checkpoint_info(folder)
        settings = info.model or {} if is_huggingface_folder(folder) else read_json(folder / "config.json")
        config_class: type[FamilyConfig] = family_part(info.family, "ModelConfig")
    except KovqaError:
        return "fp32"
    return config_class.own_precision(settings if isinstance(settings, dict) else {})


def choose_precision(asked: str, own: str, device: torch.device) -> str:
    """What a model answers in on a device: bf16, fp16 or fp32.

    Args:
        asked: one of `PRECISIONS`, which holds on every device; or "auto": 16 bits on a GPU of NVIDIA, bf16 where
            its tensor cores take it, else fp16; the model's own anywhere else.
        own: see `own_precision`.
        device: where it answers.
    """
    if require_precision(asked) != AUTO_PRECISION:
        return asked
    if device.type != "cuda":
        return own
    import torch

    return "bf16" if torch.cuda.get_device_capability(device) >= BF16_CAPABILITY else "fp16"


def profile_precision(asked: str, own: str, profile: Profile) -> str:
    """What the processes of a profile answer in, which may run on machines that are not looked at here.

    Args:
        asked: as for `choose_precision`; "auto" of a profile with GPUs: what it says.
        own: see `own_precision`.
        profile: of the processes.
    """
    if require_precision(asked) != AUTO_PRECISION:
        return asked
    return profile.precision if profile.device == "cuda" else own


def make_autocast(precision: str, device: torch.device) -> torch.autocast:
    """Products in 16 bits where `precision` says so, in training and in answering."""
    import torch

    return torch.autocast(device.type, _dtype(precision), enabled=precision != "fp32")


def _dtype(precision: str) -> torch.dtype:
    import torch

    return torch.float16 if precision == "fp16" else torch.bfloat16


def prepare_answering(model: torch.nn.Module, precision: str, device: torch.device) -> None:
    """Bring a model that only answers into the form its precision is fastest in; no number changes.

    Weights that nothing but products read are rounded to 16 bits once: autocast would round them anew for every
    batch, which takes a pass over all of them, and keep both forms. What is in fp32 is exact: cuDNN would compute
    convolutions in TF32 (torch allows it), products of matrices would not.

    Args:
        model: loaded; never trained afterwards.
        precision: it answers in.
        device: where.
    """
    import torch
    from torch import nn

    if precision == "fp32":
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        return
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    for module in model.modules():
        # By the class of the module, for a weight says nothing of its use. One that a table shares stays as it is.
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            for parameter in module.parameters(recurse=False):
                if parameter.is_floating_point() and id(parameter) not in tables:
                    parameter.data = parameter.data.to(_dtype(precision))
