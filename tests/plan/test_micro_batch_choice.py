"""Which micro-batch a run gets: a number that is stated is kept, else the most that fits, and the plan says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from kovqa_core.plan.micro_batch import choose_micro_batch, keep_recorded_micro_batch, micro_batch_within
from kovqa_core.settings.profile import Profile
from kovqa_core.settings.resolve import load_profile, load_recipe, resolve_settings
from kovqa_core.settings.run import Run, make_run, read_run
from kovqa_core.train import memory_probe


def chosen(
    recipe: str, *sets: str, profile: str = "rtx3090x1", typed: str | None = None
) -> tuple[int, bool, str]:
    settings = resolve_settings(recipe, profile, sets)
    found, plan = choose_micro_batch(settings.recipe, settings.profile, typed)
    micro_batch = make_run(settings.recipe, found, Path("run"), []).micro_batch
    return micro_batch, found.checkpoints_activations, plan.choice(micro_batch)


def test_the_plan_says_why() -> None:
    micro_batch, twice, why = chosen("vqav2")
    assert (micro_batch, twice) == (32, False)
    assert why.startswith("micro-batch 32: the most that fits into 24 GB")
    micro_batch, twice, why = chosen("kobeit3", profile="colab-t4")
    assert twice
    assert f"micro-batch {micro_batch}: the most that fits into 15 GB" in why
    assert "activations are computed twice (without that" in why
    _, _, why = chosen("dacon-vlm-lora")
    assert "micro-batch 8: few, because nothing says how many fit (no base model named)" in why


def test_what_is_stated_is_kept() -> None:
    assert chosen("kobeit3", "profile.micro_batch={default: 8}")[:2] == (8, False)
    assert chosen("kobeit3", "profile.micro_batch={kobeit3: 128}")[:2] == (
        128,
        True,
    )  # which fits in no other way
    assert chosen("kobeit3", "profile.micro_batch={tiny: 128}")[0] == chosen("kobeit3")[0]
    assert chosen("kobeit3", typed="4")[:2] == (4, False)
    assert chosen("kobeit3", "profile.activation_checkpointing=true")[:2] == (256, True)
    off = ("profile.micro_batch={default: 128}", "profile.activation_checkpointing=false")
    assert chosen("kobeit3", *off)[:2] == (128, False)
    assert chosen("kobeit3", typed="auto")[:2] == chosen("kobeit3")[:2]
    assert chosen("llava-v1")[0] == 16  # the recipe's
    # A computer without a GPU keeps its numbers, however much memory is free just now.
    assert chosen("kobeit3", profile="cpu")[:2] == (8, False)
    bare = choose_micro_batch(load_recipe("kobeit3"), Profile(name="old"))[0]
    assert (bare.max_micro_batch("kobeit3"), bare.activation_checkpointing) == (8, False)


def test_what_shards_the_states_leaves_room_for_more() -> None:
    alone = choose_micro_batch(load_recipe("kobeit3"), load_profile("rtx3090x4"))[0].max_micro_batch(
        "kobeit3"
    )
    sharded = resolve_settings("kobeit3", "rtx3090x4", ["profile.strategy=fsdp2"])
    assert choose_micro_batch(sharded.recipe, sharded.profile)[0].max_micro_batch("kobeit3") > alone


def test_a_run_that_goes_on_keeps_its_micro_batch(tmp_path: Path) -> None:
    settings = resolve_settings("kobeit3", "rtx3090x1")
    before = settings.profile.model_copy(
        update={"micro_batch": {"kobeit3": 64}, "activation_checkpointing": True}
    )
    run = make_run(settings.recipe, before, tmp_path, [], {"profile.micro_batch.kobeit3": "counted"})
    kept = keep_recorded_micro_batch(settings, run)
    assert (kept.profile.micro_batch, kept.profile.activation_checkpointing) == ({"kobeit3": 64}, True)
    assert kept.origin["profile.micro_batch.kobeit3"] == "counted"
    other = replace(settings, profile=load_profile("a100x1"))  # another machine: counted anew
    assert keep_recorded_micro_batch(other, run) is other
    stated = resolve_settings("kobeit3", "rtx3090x1", ["profile.micro_batch={default: 4}"])
    assert keep_recorded_micro_batch(stated, run) is stated


# ------------------------------------------------------------------- --micro-batch auto on a GPU


def probed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, free: int | None, holds: int
) -> tuple[Run, list[int]]:
    """A run whose steps are tried on a device that says it has so much memory free, and holds so many examples."""
    settings = resolve_settings("kobeit3", "a100x1")
    profile = choose_micro_batch(settings.recipe, settings.profile, "auto")[0]
    run = make_run(settings.recipe, profile, tmp_path, [], probe=True)
    tried = []

    def step(state: object, run: Run) -> None:
        tried.append(run.micro_batch)
        if run.micro_batch > holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(memory_probe, "_run_probe_step", step)
    monkeypatch.setattr(memory_probe, "_free_memory", lambda device: free)
    monkeypatch.setattr(memory_probe.process_group, "all_gather_objects", lambda value: [value])
    state = SimpleNamespace(
        run=run, device=torch.device("cpu"), strategy=SimpleNamespace(model=torch.nn.BatchNorm1d(2)),
        rank=SimpleNamespace(is_main_process=True), log=SimpleNamespace(log_record=lambda event: None),
        progress=SimpleNamespace(step=0),
    )  # fmt: skip
    return memory_probe.probe_micro_batch(state), tried  # type: ignore[arg-type]


def test_the_probe_begins_with_what_is_free_on_the_real_card(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, tried = probed(monkeypatch, tmp_path, free=40 * 2**30, holds=16)
    assert tried == [64, 32, 16]
    assert (run.micro_batch * run.accumulate, run.probe) == (512, False)
    assert read_run(tmp_path / "run.yaml").micro_batch == 16
    assert probed(monkeypatch, tmp_path, free=None, holds=512)[1] == [128]
    assert micro_batch_within(run, 2**30) == 1
