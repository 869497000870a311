"""A strategy's settings, checked before anything is started."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from kovqa_core.errors import MachineError, SettingsError
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run
from kovqa_core.settings.strategy import check_strategy


def profile(*sets: str) -> Profile:
    return resolve_settings("tiny", "cpu", [f"profile.{one}" for one in sets]).profile


def written(path: Path, values: object) -> str:
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return f"deepspeed={path}"


def test_deepspeed_that_is_not_installed_is_said_with_the_way_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for strategy in ("ddp", "fsdp2"):
        check_strategy(profile(f"strategy={strategy}"))
    with pytest.raises(MachineError, match="zero2 needs DeepSpeed") as caught:
        check_strategy(profile("strategy=zero2"))
    assert "pip install 'kovqa[deepspeed]'" in caught.value.hint


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("train_batch_size", {"train_batch_size": 8}),
        ("optimizer", {"optimizer": {"type": "AdamW"}}),
        ("bf16", {"bf16": {"enabled": True}}),
        ("zero_optimization.stage is 3", {"zero_optimization": {"stage": 3}}),
        ("zero_optimization.offload_optimizer", {"zero_optimization": {"offload_optimizer": {"device": "nvme"}}}),
        ("not valid JSON", "{"),
        ("expected DeepSpeed's settings", [1]),
    ],
)  # fmt: skip
def test_a_key_that_is_not_deepspeeds_to_set_is_named(tmp_path: Path, key: str, values: object) -> None:
    with pytest.raises(SettingsError, match=key):
        check_strategy(profile("strategy=zero2", written(tmp_path / "ds.json", values)))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            ("strategy=fsdp2", "offload_optimizer=cpu"),
            "offload_optimizer=cpu does not go with strategy fsdp2",
        ),
        (("strategy=zero2", "offload_param=cpu"), "offload_param=cpu does not go with strategy zero2"),
    ],
)
def test_offloading_is_refused_where_there_is_none(settings: tuple[str, ...], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem):
        check_strategy(profile(*settings))


def test_offloading_is_said_in_one_place_and_takes_memory_of_the_device_no_more(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    from kovqa_core.models.memory import StepMemory, estimate_memory
    from kovqa_core.train.strategies.zero import deepspeed_config

    own = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}
    file = written(tmp_path / "ds.json", own)
    with pytest.raises(SettingsError, match=r"profile\.offload_optimizer says it too"):
        check_strategy(profile("strategy=zero2", "offload_optimizer=cpu", file))
    sets = ["profile.strategy=zero3", "profile.offload_optimizer=cpu", "profile.offload_param=cpu"]
    settings = resolve_settings("tiny", "cpu", sets)
    check_strategy(settings.profile)
    zero = deepspeed_config(make_run(settings.recipe, settings.profile, tmp_path, []), 3)["zero_optimization"]
    assert [zero[key]["device"] for key in ("offload_optimizer", "offload_param")] == ["cpu", "cpu"]
    step = StepMemory(1e9, 250_000_000, 250_000_000, 0, 1e6, 1e6, 1e6, 1e6, 1e6)
    there = estimate_memory(step, resolve_settings("tiny", "cpu", sets[:1]).profile, 1)
    offloaded = estimate_memory(step, settings.profile, 1)
    assert there.peak - offloaded.peak == pytest.approx(1e9 + 8 * 250e6)


def test_deepspeeds_own_file_comes_below_ours(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    from kovqa_core.train.strategies.zero import deepspeed_config

    own = {
        "train_batch_size": "auto", "bf16": {"enabled": "auto"}, "prescale_gradients": True,
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000, "overlap_comm": False},
    }  # fmt: skip
    sets = [
        "profile.strategy=zero2", f"profile.{written(tmp_path / 'ds.json', own)}",
        "profile.micro_batch={default: 4}", "optim.global_batch=16", "optim.max_grad_norm=0.5",
    ]  # fmt: skip
    settings = resolve_settings("tiny", "cpu", sets)
    config = deepspeed_config(make_run(settings.recipe, settings.profile, tmp_path, []), 2)
    assert config["zero_optimization"] == {
        "stage": 2, "reduce_bucket_size": 1000, "allgather_bucket_size": 50_000_000, "overlap_comm": False,
    }  # fmt: skip
    assert config["prescale_gradients"] is True
    assert (config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]) == (4, 4)
    assert config["gradient_clipping"] == 0.5
    assert "bf16" not in config
    assert "train_batch_size" not in config


def test_settings_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no such file"):
        check_strategy(profile("strategy=zero2", "deepspeed=nowhere.json"))
    with pytest.raises(SettingsError, match="the strategy is ddp"):
        check_strategy(profile(written(tmp_path / "ds.json", {})))
    with pytest.raises(SettingsError, match="compile"):
        check_strategy(profile("strategy=zero3", "compile=true"))
