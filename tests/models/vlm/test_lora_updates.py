"""Kinds of low-rank updates, by peft's names: saved, loaded, merged, and read by peft alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.export.check_examples import find_check_examples
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.export_check import one_example_batch
from kovqa_core.models.vlm.family import new_model
from kovqa_core.models.vlm.hf_libraries import peft, transformers
from kovqa_core.models.vlm.lora_updates import lora_layers, merge_updates, updated_weight
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings

from bench.vlm_classes.tiny_model import write_tiny_model
from tests.conftest import VLM, Small

KINDS: dict[str, tuple[str, ...]] = {
    "dora": ("model.lora.use_dora=true",),
    "rslora": ("model.lora.use_rslora=true", "model.lora.init_lora_weights=gaussian"),
    "pissa": ("model.lora.init_lora_weights=pissa",),
    "pissa in bf16": ("model.lora.init_lora_weights=pissa_niter_4", "model.dtype=bf16"),
    "olora": ("model.lora.init_lora_weights=olora", "model.lora.use_rslora=true"),
    "pissa and dora": ("model.lora.init_lora_weights=pissa", "model.lora.use_dora=true"),
}


def recipe_of(base: Path, *sets: str) -> Recipe:
    return resolve_settings("tiny-vlm", "cpu", [*VLM, *sets], {"model.base": str(base)}).recipe


def learn_something(net: torch.nn.Module) -> None:
    """Move what learns, as training does."""
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=draws) * 0.02)


@torch.inference_mode()
def logits_of(net: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    dtype = next(p.dtype for n, p in net.named_parameters() if "embed_tokens" in n)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits: torch.Tensor = net.eval()(**inputs).logits.float()
    return logits


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_of_update_is_the_same_after_saving_and_merging(
    kind: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    base = tiny_vlm("qwen3_vl")
    model, processor, _ = family.create_model(recipe_of(base, *KINDS[kind]), [])
    (example, *_) = find_check_examples(tmp_path, as_stored=False).examples
    batch = one_example_batch(processor, example)
    inputs = {
        n: t for n, t in batch.tensors.items() if t is not None and n not in ("labels", "prompt_lengths")
    }
    plain, *_ = family.create_model(recipe_of(base, *KINDS[kind][1:], "model.train=none"), [])
    is_rounded = "bf16" in kind
    tolerance = 0.15 if is_rounded else 5e-5
    before = logits_of(model.net, inputs)
    # Until something is learned nothing has changed.
    torch.testing.assert_close(before, logits_of(plain.net, inputs), rtol=0, atol=tolerance)

    learn_something(model.net)
    learned = logits_of(model.net, inputs)
    assert (learned - before).abs().max() > 0.02
    (tmp_path / "s").mkdir()
    family.write_model_folder(model, processor, tmp_path / "s", CheckpointInfo("vlm", "vqa"))
    again, _ = family.read_model_folder(tmp_path / "s", "vqa")
    assert torch.equal(logits_of(again.net, inputs), learned)  # onto the base as it is, bit by bit
    (tmp_path / "t").mkdir()
    family.write_model_folder(again, processor, tmp_path / "t", CheckpointInfo("vlm", "vqa"))
    for file in (tmp_path / "s").rglob("*.*"):
        assert file.read_bytes() == (tmp_path / "t" / file.relative_to(tmp_path / "s")).read_bytes(), file

    network = transformers.AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    by_peft = peft.PeftModel.from_pretrained(network, tmp_path / "s" / "adapter")
    difference = (logits_of(by_peft, inputs) - learned).abs().max()
    assert difference < tolerance
    merged, rounding = merge_updates(again.net)
    assert (logits_of(merged, inputs) - learned).abs().max() < tolerance
    assert (rounding > 0) is is_rounded


def test_a_run_goes_on_only_from_updates_of_its_own_size(
    tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    base = tiny_vlm("qwen3_vl")
    recipe = recipe_of(base, "model.lora.init_lora_weights=pissa")
    model, processor, _ = family.create_model(recipe, [])
    (tmp_path / "s").mkdir()
    family.write_model_folder(model, processor, tmp_path / "s", CheckpointInfo("vlm", "vqa"))
    weights = f"model.weights={tmp_path}/s"
    family.create_model(recipe_of(base, weights), [])
    with pytest.raises(ModelError, match="trained on another base, or in another way"):
        family.create_model(recipe_of(base, weights, "model.lora.alpha=99"), [])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (("model.lora.init_lora_weights=loftq",), "known: true, gaussian"),
        (("model.lora.init_lora_weights=pissa", "model.train=qlora"), "qlora holds in 4 bits"),
    ],
)
def test_a_beginning_that_cannot_be_is_refused(
    settings: tuple[str, ...], problem: str, tiny_vlm: Callable[[str], Path]
) -> None:
    with pytest.raises(SettingsError, match=problem):
        family.create_model(recipe_of(tiny_vlm("qwen3_vl"), *settings), [])


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["model.lora.dropout=0.05"], "cannot update this base .* lora_dropout"),
        (["model.lora.dropout=0", "model.lora.use_dora=true"], "cannot update this base .* use_dora"),
        (["model.lora.dropout=0", "model.lora.init_lora_weights=pissa"], "pissa takes its beginning out of linear"),
        (["model.lora.dropout=0"], ""),
    ],
)  # fmt: skip
def test_updates_of_experts(experts: Path, small: Small, settings: list[str], problem: str) -> None:
    sets = [f"model.base={experts}", "model.dtype=fp32", *settings]
    recipe = resolve_settings("dacon-vlm-lora", "cpu", sets, {"data.index": str(small.index)}).recipe
    if problem:
        with pytest.raises(SettingsError, match=problem):
            new_model(recipe, [])
        return
    net = new_model(recipe, [])[0].net
    layers = [layer for _, layer in lora_layers(net)]
    kinds = {type(layer).__name__ for layer in layers}
    assert {"ParamWrapper", "Linear"} <= kinds
    with torch.no_grad():
        for layer in layers:
            layer.lora_B["default"].weight.normal_()
    expected = [
        (updated_weight(layer), updated_weight(layer).detach() + layer.get_delta_weight("default"))
        for layer in layers
    ]
    merge_updates(net)
    for weight, merged in expected:
        torch.testing.assert_close(weight, merged, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model with a mixture of experts."""
    folder = tmp_path_factory.mktemp("experts")
    write_tiny_model("glm4v_moe", folder, ("무슨 색인가요? 빨강 파랑 한 단어나 짧은 구로 답하세요.",))
    return folder
