"""What a profile's strategy needs, checked on paper; DeepSpeed's own settings file."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from kovqa_core.bounded_json import parse_json
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.files import read_text
from kovqa_core.messages import message
from kovqa_core.settings.profile import Profile

JsonObject = dict[str, Any]  # DeepSpeed's file: whatever keys it knows, at any depth

# DeepSpeed's keys that would change the experiment, or repeat what run.yaml says -> where it is said.
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
    """See that a profile's strategy can work.

    Raises:
        SettingsError: settings that contradict each other; names the key.
        MachineError: DeepSpeed is not installed.
    """
    zero = profile.strategy.startswith("zero")
    if profile.deepspeed and not zero:
        raise SettingsError(
            message(
                "settings.deepspeed-without-zero",
                "profile.deepspeed is given, but the strategy is {strategy}",
                strategy=profile.strategy,
            ),
            message(
                "settings.deepspeed-without-zero.hint",
                "use --set profile.strategy=zero2, or leave out profile.deepspeed",
            ),
        )
    _check_offload(profile)
    if profile.strategy == "zero3" and profile.compile is True:
        raise SettingsError(
            message("settings.zero3-compile", "profile.compile does not work with zero3"),
            message("settings.zero3-compile.hint", "use fsdp2, or leave out compile"),
        )
    if zero:
        read_deepspeed_config(profile)
        if importlib.util.find_spec("deepspeed") is None:
            raise MachineError(
                message(
                    "settings.no-deepspeed",
                    "strategy {strategy} needs DeepSpeed, which is not installed here",
                    strategy=profile.strategy,
                ),
                message(
                    "settings.no-deepspeed.hint",
                    "pip install 'kovqa[deepspeed]', or use --set profile.strategy=fsdp2",
                ),
            )


def _check_offload(profile: Profile) -> None:
    """Offloading is DeepSpeed's, and weights are offloaded where they are sharded."""
    strategies = {"offload_optimizer": ("zero1", "zero2", "zero3"), "offload_param": ("zero3",)}
    for key, offloading in strategies.items():
        if getattr(profile, key) != "none" and profile.strategy not in offloading:
            raise SettingsError(
                message(
                    "settings.no-offload",
                    "profile.{key}=cpu does not go with strategy {strategy}",
                    key=key,
                    strategy=profile.strategy,
                ),
                message(
                    "settings.no-offload.hint",
                    "use --set profile.strategy={strategy}, or leave it out",
                    strategy=offloading[-1],
                ),
            )


def read_deepspeed_config(profile: Profile) -> JsonObject:
    """DeepSpeed's own settings of a profile; "auto", as transformers' files have it, leaves a key to kovqa.

    Raises:
        SettingsError: no such file, not JSON, or a key that is kovqa's to set.
    """
    if not profile.deepspeed:
        return {}
    path = Path(profile.deepspeed)
    values = _read_json_object(path)
    for key, place in _RESERVED_KEYS.items():
        if key in values:
            raise SettingsError(
                message(
                    "settings.deepspeed-reserved",
                    "{file}: {key} is not DeepSpeed's to set here",
                    file=path,
                    key=key,
                ),
                message("settings.deepspeed-reserved.hint", "remove it: {place} says it", place=place),
            )
    zero = values.get("zero_optimization", {})
    for key in ("offload_optimizer", "offload_param"):
        if key in zero and getattr(profile, key) != "none":
            raise SettingsError(
                message(
                    "settings.offload-twice",
                    "{file}: zero_optimization.{key} is there, and profile.{key} says it too",
                    file=path,
                    key=key,
                ),
                message("settings.offload-twice.hint", "say it in one place"),
            )
    if f"zero{zero.get('stage', profile.strategy[-1])}" != profile.strategy:
        raise SettingsError(
            message(
                "settings.deepspeed-stage",
                "{file}: zero_optimization.stage is {stage}, the strategy is {strategy}",
                file=path,
                stage=zero["stage"],
                strategy=profile.strategy,
            ),
            message("settings.deepspeed-stage.hint", "remove it, or change profile.strategy"),
        )
    for key in ("offload_optimizer", "offload_param"):
        if "nvme" in str(zero.get(key, "")):
            raise SettingsError(
                message(
                    "settings.deepspeed-nvme",
                    "{file}: zero_optimization.{key} to nvme is not supported: checkpoints cannot carry it to "
                    "another strategy",
                    file=path,
                    key=key,
                ),
                message("settings.deepspeed-nvme.hint", "offload to cpu"),
            )
    return values


def _read_json_object(path: Path) -> JsonObject:
    if not path.is_file():
        raise SettingsError(
            message("settings.no-deepspeed-file", "profile.deepspeed: no such file: {file}", file=path)
        )
    try:
        values = parse_json(read_text(path))
        values = _drop_auto_values(values) if isinstance(values, dict) else values
    except ValueError as error:
        raise SettingsError(
            message("settings.not-json", "{file}: not valid JSON ({problem})", file=path, problem=error)
        ) from None
    if not isinstance(values, dict) or not isinstance(values.get("zero_optimization", {}), dict):
        raise SettingsError(
            message(
                "settings.not-deepspeed",
                "{file}: expected DeepSpeed's settings, an object with an object zero_optimization",
                file=path,
            )
        )
    return values


def _drop_auto_values(values: JsonObject) -> JsonObject:
    return {
        key: _drop_auto_values(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value != "auto" and not (key in ("fp16", "bf16", "amp") and value == {"enabled": "auto"})
    }
