"""A base by its name on the hub: a run keeps the commit it began with, and goes on wherever that lies."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.export.model_origin import find_model_origin
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.config import config_from_recipe
from kovqa_core.models.vlm.config import ModelConfig, find_base_model
from kovqa_core.plan.claim import claim_planned_run
from kovqa_core.runs.manifest import read_launches, record_launch

from tests.conftest import VLM, Small
from tests.hub_cache import COMMIT, OTHER_COMMIT, asset_model, cache_model
from tests.plan.conftest import MoveHome, Plan


def test_a_run_keeps_the_commit_and_finds_it_elsewhere(
    plan: Plan, resume: Plan, small: Small, tiny_vlm: Callable[[str], Path], home: MoveHome, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    cache_model(tmp_path / "cache", "team/vlm", tiny_vlm("qwen3_vl"))
    typed = {
        "recipe": "tiny-vlm",
        "sets": [*VLM, "model.base=team/vlm"],
        "flags": {"data.index": str(small.index)},
    }
    folder, pinned = tmp_path / "run", f"team/vlm@{COMMIT}"
    with claim_planned_run(plan(folder, **typed), pytest.fail) as planned:
        assert planned.run.recipe.model["base"] == pinned
        with record_launch(planned.run):
            pass
    assert [launch.base for launch in read_launches(folder)] == [pinned]
    # The command typed again, and on a machine where the base lies elsewhere and its branch has gone on.
    assert resume(folder, **typed).run.recipe.model["base"] == pinned
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "other"))
    with pytest.raises(AssetError, match=rf"base model {pinned} not found") as caught:
        resume(folder)
    assert f"kovqa download hf:{pinned}" in caught.value.hint
    cache_model(tmp_path / "other", "team/vlm", tiny_vlm("llava"), OTHER_COMMIT)
    with pytest.raises(AssetError, match=f"not its revision {COMMIT}; here: {OTHER_COMMIT[:12]}"):
        resume(folder)
    asset = asset_model(home("다른 사람"), "team/vlm", tiny_vlm("qwen3_vl"), revision=COMMIT)
    config = config_from_recipe(ModelConfig, resume(folder).run.recipe)
    assert find_base_model(config.base) == asset
    with pytest.raises(SettingsError, match=rf"model\.base is {pinned} there, and team/other"):
        resume(folder, sets=["model.base=team/other"])


def test_a_checkpoint_with_a_path_of_another_machine_finds_the_model_by_its_name(
    tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = cache_model(tmp_path / "cache", "team/vlm", tiny_vlm("qwen3_vl"))
    there = f"/home/kim/.cache/huggingface/hub/models--team--vlm/snapshots/{COMMIT}"
    assert find_base_model(there) == snapshot


def test_the_card_of_an_export_names_the_base_its_commit_and_its_licence(
    tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint keeps the name alone: the copy of this machine has the card."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    snapshot = cache_model(tmp_path / "cache", "team/vlm", tiny_vlm("qwen3_vl"))
    (snapshot / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    step = tmp_path / "step"
    step.mkdir()
    (step / "config.json").write_text(json.dumps({"base": f"team/vlm@{COMMIT}"}))
    [base] = find_model_origin(step, CheckpointInfo("vlm", "vqa")).bases
    assert (base.name, base.repository, base.licence) == (f"team/vlm@{COMMIT[:12]}", "team/vlm", "apache-2.0")
