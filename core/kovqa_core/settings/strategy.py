"""What a profile's strategy needs, checked on paper."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.files import read_text
from kovqa_core.settings.profile import Profile

# DeepSpeed's keys that would change the experiment, or say a second time what run.yaml says.
_RESERVED_KEYS = {
    "train_batch_size": "optim.global_batch",
    "train_micro_batch_size_per_gpu": "profile.micro_batch",
    "gradient_accumulation_steps": "optim.global_batch and profile.micro_batch",
    "gradient_clipping": "optim.max_grad_norm",
    "optimizer": "the recipe's optim",
    "scheduler": "the recipe's optim",
    "fp16": "profile.precision",
    "bf16": "profile.precision",
    "amp": "profile.precision",
    "torch_autocast": "profile.precision",
    "zero_allow_untested_optimizer": "the recipe's optim",
    "zero_force_ds_cpu_optimizer": "the recipe's optim",
    "steps_per_print": "log_every",
}  # fmt: skip


def check_strategy(profile: Profile) -> None:
    """See that the strategy can work.

    Raises:
        SettingsError: settings that contradict each other; names the key.
        MachineError: DeepSpeed is not installed.
    """
    zero = profile.strategy.startswith("zero")
    if profile.deepspeed and not zero:
        raise SettingsError(
            f"profile.deepspeed is given, but the strategy is {profile.strategy}",
            "use --set profile.strategy=zero2, or leave profile.deepspeed away",
        )
    if profile.strategy == "zero3" and profile.compile:
        raise SettingsError("profile.compile does not go with zero3", "use fsdp2, or do without compile")
    if zero:
        read_deepspeed_config(profile)
        if importlib.util.find_spec("deepspeed") is None:
            raise MachineError(
                f"strategy {profile.strategy} needs DeepSpeed, which is not installed here",
                "pip install 'kovqa[deepspeed]', or use --set profile.strategy=fsdp2",
            )


def read_deepspeed_config(profile: Profile) -> dict[str, Any]:
    """DeepSpeed's own settings of a profile; "auto", as transformers' files have it, says nothing.

    Raises:
        SettingsError: no such file, not JSON, or a key that is kovqa's to set.
    """
    if not profile.deepspeed:
        return {}
    path = Path(profile.deepspeed)
    if not path.is_file():
        raise SettingsError(f"profile.deepspeed: no such file: {path}")
    try:
        found = json.loads(read_text(path))
    except ValueError as error:
        raise SettingsError(f"{path}: not valid JSON ({error})") from None
    if not isinstance(found, dict) or not isinstance(found.get("zero_optimization", {}), dict):
        raise SettingsError(
            f"{path}: expected DeepSpeed's settings, an object with an object zero_optimization"
        )
    said = _drop_auto_values(found)
    for key, ours in _RESERVED_KEYS.items():
        if key in said:
            raise SettingsError(f"{path}: {key} is not DeepSpeed's to set here", f"remove it: {ours} says it")
    zero = said.get("zero_optimization", {})
    if f"zero{zero.get('stage', profile.strategy[-1])}" != profile.strategy:
        raise SettingsError(
            f"{path}: zero_optimization.stage is {zero['stage']}, the strategy is {profile.strategy}",
            "remove it, or change profile.strategy",
        )
    for key in ("offload_optimizer", "offload_param"):
        if "nvme" in str(zero.get(key, "")):
            raise SettingsError(
                f"{path}: zero_optimization.{key} to nvme is not supported: checkpoints cannot carry it to "
                "another strategy",
                "offload to cpu",
            )
    return said


def _drop_auto_values(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _drop_auto_values(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value != "auto" and not (key in ("fp16", "bf16", "amp") and value == {"enabled": "auto"})
    }
