"""Nine types of vision language models through one path: learn, resume, merge, answer."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.errors import AssetError, DataError, MachineError, ModelError, SettingsError, Stopped
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.family import DEFAULT_LOADING
from kovqa_core.models.vlm.family import export_model
from kovqa_core.models.vlm.hf_libraries import peft, transformers
from kovqa_core.models.vlm.tuning import component_of
from kovqa_core.runs.folder import follow_pointer
from kovqa_core.runs.left_out import read_run_left_out
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import Run, make_run
from kovqa_core.train.loop import run_training
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.conftest import VLM, Small
from tests.models.vlm.tiny_vlm import MODEL_TYPES
from tests.tools.training_log import read_log
from tests.train.test_resume import ALONE, CPU, never_stop, stop_after


def tiny_vlm_recipe(small: Small, base: Path, *sets: str) -> Recipe:
    """The recipe `tiny-vlm` on the small data set."""
    flags = {"data.index": str(small.index), "model.base": str(base)}
    return resolve_settings("tiny-vlm", "cpu", [*VLM, *sets], flags).recipe


def make_vlm_run(small: Small, base: Path, folder: Path, *sets: str) -> Run:
    flags = {"data.index": str(small.index), "model.base": str(base)}
    settings = resolve_settings("tiny-vlm", "cpu", [*VLM, *sets], flags)
    folder.mkdir()
    return make_run(settings.recipe, settings.profile, folder, [])


def losses(run: Run) -> list[float]:
    return [row["loss"] for row in read_log(run.folder) if row["kind"] == "train"]


def last_step(run: Run) -> Path:
    step = follow_pointer(run.folder, "last")
    assert step is not None
    return step


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_model_of_every_type_learns_resumes_merges_and_answers(
    model_type: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    uninterrupted = make_vlm_run(small, tiny_vlm(model_type), tmp_path / "uninterrupted")
    run_training(uninterrupted, ALONE, CPU, never_stop)
    resumed = make_vlm_run(small, tiny_vlm(model_type), tmp_path / "resumed")
    with pytest.raises(Stopped):
        run_training(resumed, ALONE, CPU, stop_after(2))
    run_training(resumed, ALONE, CPU, never_stop)
    assert losses(uninterrupted) == losses(resumed)
    assert len(losses(uninterrupted)) == 4
    saved = [
        load_file(last_step(run) / "adapter" / "adapter_model.safetensors")
        for run in (uninterrupted, resumed)
    ]
    assert all(torch.equal(saved[0][name], saved[1][name]) for name in saved[0])
    assert not any(path.stat().st_size > 200_000 for path in last_step(uninterrupted).rglob("*.safetensors"))

    model, processor = family.read_model_folder(last_step(uninterrupted), "vqa")
    examples, images = examples_of_all_shapes(small, tmp_path / "images")
    items = [processor.encode(e, images, train=False, rng=np.random.default_rng(0)) for e in examples]
    batch = processor.collate(items)
    model.eval()
    with torch.inference_mode():
        together = model.answer(batch)
        alone = [model.answer(processor.collate([item]))[0] for item in items]
    assert [a.text for a in together] == [a.text for a in alone]
    assert [a.score for a in together] == pytest.approx([a.score for a in alone], abs=1e-5)
    assert len({a.score for a in together}) > 1

    export_model(last_step(uninterrupted), tmp_path / "merged", DEFAULT_LOADING)
    names = load_file(tmp_path / "merged" / "model.safetensors").keys()
    assert not [
        name for name in names if "vision_tower.encoder.layers." in name
    ]  # version 4 would draw these anew
    plain = open_network(tmp_path / "merged")
    inputs = model.prompts(batch)
    with torch.inference_mode():
        ours, theirs = model.net(**inputs).logits, plain(**inputs).logits
        unlearned = open_network(tiny_vlm(model_type))(**inputs).logits
    assert (ours - theirs).abs().max() < 1e-4
    assert (ours - unlearned).abs().max() > 1e-3  # ... or nothing was learned


def examples_of_all_shapes(small: Small, folder: Path) -> tuple[list[Example], Path]:
    """Questions on images of all shapes: they make different numbers of tokens."""
    index = open_index(small.index)
    folder.mkdir()
    examples = list(index.split("val"))[:4]
    reshaped = []
    for example, size in zip(examples, ((64, 32), (33, 33), (40, 60), (96, 24)), strict=True):
        image = Image.open(index.images / example.image).convert("RGB").resize(size)
        image.save(folder / f"{example.id}.png")
        reshaped.append(replace(example, image=f"{example.id}.png"))
    return reshaped, folder


def open_network(folder: Path) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder).eval()


# ------------------------------------------------------------------------------ what learns


def changed_components(run: Run, base: Path) -> set[str]:
    """Components whose weights differ from the base's, after merging."""
    export_model(last_step(run), run.folder / "merged", DEFAULT_LOADING)
    before, after = open_network(base).state_dict(), open_network(run.folder / "merged").state_dict()
    return {component_of(name) for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("train", "components"),
    [
        ("projector", {"projector"}),
        ("{vision: lora, projector: full, language: none}", {"vision", "projector"}),
        ("{projector: lora, language: lora}", {"projector", "language"}),
        ("full", {"vision", "projector", "language"}),
    ],
)
def test_the_components_named_learn_and_no_other(
    train: str, components: set[str], small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    run = make_vlm_run(small, tiny_vlm("qwen3_vl"), tmp_path / "run", f"model.train={train}")
    run_training(run, ALONE, CPU, never_stop)
    assert changed_components(run, tiny_vlm("qwen3_vl")) == components


def test_a_base_is_answered_with_as_it_is_but_not_trained_without_learning(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    run = make_vlm_run(small, tiny_vlm("llava"), tmp_path / "run", "model.train=none")
    model, processor, note = family.create_model(run.recipe, [])
    assert "; 0 of" in note
    (tmp_path / "step").mkdir()
    family.write_model_folder(model, processor, tmp_path / "step", CheckpointInfo("vlm", "vqa"))
    assert not list((tmp_path / "step").rglob("*.safetensors"))
    family.read_model_folder(tmp_path / "step", "vqa")
    with pytest.raises(SettingsError, match="no trainable parameter"):
        run_training(run, ALONE, CPU, never_stop)


@pytest.mark.parametrize("model_type", ["qwen3_vl", "gemma3"])
@pytest.mark.parametrize("train", ["lora", "projector"])
def test_rows_of_tokens_learn_beside_other_parts(
    train: str, model_type: str, small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    """gemma3 names tokens with the table it reads them from."""
    base = tiny_vlm(model_type)
    run = make_vlm_run(small, base, tmp_path / "run", f"model.train={train}", "model.tokens=[색, <video>]")
    with pytest.raises(SettingsError, match="no token"):
        run_training(run, ALONE, CPU, never_stop)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    number = tokenizer.encode("하세요", add_special_tokens=False)[0]
    token = tokenizer.convert_ids_to_tokens(number)
    run = make_vlm_run(
        small, base, tmp_path / "known", f"model.train={train}", f"model.tokens=['{token}']", "optim.lr=5e-2"
    )
    run_training(run, ALONE, CPU, never_stop)
    export_model(last_step(run), tmp_path / "merged", DEFAULT_LOADING)
    plain = open_network(tmp_path / "merged")
    before, after = open_network(base).get_input_embeddings().weight, plain.get_input_embeddings().weight
    assert (before != after).any(1).nonzero().flatten().tolist() == [number]
    model, processor = family.read_model_folder(last_step(run), "vqa")
    index = open_index(small.index)
    example = next(iter(index.split("val")))
    item = processor.encode(example, index.images, train=False, rng=np.random.default_rng(0))
    inputs = model.prompts(processor.collate([item]))
    with torch.inference_mode():
        assert (model.eval().net(**inputs).logits - plain(**inputs).logits).abs().max() < 1e-4


def test_the_loss_is_the_same_however_a_batch_is_cut(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    runs = [
        make_vlm_run(small, tiny_vlm("qwen3_vl"), tmp_path / str(n), f"profile.micro_batch={{default: {n}}}")
        for n in (1, 2, 4)
    ]
    runs.append(make_vlm_run(small, tiny_vlm("qwen3_vl"), tmp_path / "workers", "profile.loader_workers=1"))
    for run in runs:
        run_training(run, ALONE, CPU, never_stop)
    for run in runs[1:]:
        assert losses(run) == pytest.approx(losses(runs[0]), rel=1e-4)


def test_checkpointed_activations_and_sixteen_bits_learn(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    plain = make_vlm_run(small, tiny_vlm("qwen3_vl"), tmp_path / "plain")
    again = make_vlm_run(
        small, tiny_vlm("qwen3_vl"), tmp_path / "again", "profile.activation_checkpointing=true"
    )
    short = make_vlm_run(
        small, tiny_vlm("qwen3_vl"), tmp_path / "short", "profile.precision=bf16", "model.dtype=bf16"
    )
    for run in (plain, again, short):
        run_training(run, ALONE, CPU, never_stop)
    assert losses(again) == pytest.approx(losses(plain), rel=1e-6)
    assert losses(short) == pytest.approx(losses(plain), rel=0.05)
    assert losses(short) != losses(plain)
    saved = load_file(last_step(short) / "adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}


def test_a_run_goes_on_from_another(small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path) -> None:
    """Warm start: the weights of a finished run, everything else anew."""
    base = tiny_vlm("llava")
    first = make_vlm_run(small, base, tmp_path / "first", "optim.steps=4")
    run_training(first, ALONE, CPU, never_stop)
    model, _, note = family.create_model(tiny_vlm_recipe(small, base, f"model.weights={first.folder}"), [])
    taken = load_file(last_step(first) / "adapter" / "adapter_model.safetensors")
    ours = peft.get_peft_model_state_dict(model.net)
    assert all(torch.equal(taken[name], ours[name]) for name in taken)
    assert str(last_step(first)) in note
    with pytest.raises(ModelError, match="in another way"):
        family.create_model(
            tiny_vlm_recipe(small, base, f"model.weights={first.folder}", "model.train=full"), []
        )


# ----------------------------------------------------------------------- rows that are left out


def test_rows_that_are_too_long_are_left_out_and_counted(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    """Nothing is cut; the run stops and goes on as ever."""
    base = tiny_vlm("qwen3_vl")
    _, processor, _ = family.create_model(tiny_vlm_recipe(small, base), [])
    index = open_index(small.index)
    rng = np.random.default_rng(0)
    items = [processor.encode(e, index.images, train=True, rng=rng) for e in index.split("train")]
    lengths = sorted(int(processor.collate([item]).tensors["attention_mask"].sum()) for item in items)
    middle = lengths[len(lengths) // 2]
    sets = (f"model.max_text={middle}", "save.every_steps=1", "optim.steps=6")
    uninterrupted = make_vlm_run(small, base, tmp_path / "uninterrupted", *sets)
    run_training(uninterrupted, ALONE, CPU, never_stop)
    resumed = make_vlm_run(small, base, tmp_path / "resumed", *sets)
    with pytest.raises(Stopped):
        run_training(resumed, ALONE, CPU, stop_after(2))
    run_training(resumed, ALONE, CPU, never_stop)
    assert losses(uninterrupted) == losses(resumed)
    left_out = [[row.get("left_out", 0) for row in train_records(run)] for run in (uninterrupted, resumed)]
    assert left_out[0] == left_out[1]
    assert 0 < sum(left_out[0]) < 6 * 4
    counted = read_run_left_out(uninterrupted.folder, uninterrupted)
    assert (counted.training, counted.trained) == (sum(left_out[0]), 6 * 4)
    assert f"training: {counted.training} of 24 rows" in counted.lines()[-1]
    # Such a run ends in its first steps, on every process alike, unless it was allowed.
    refused = make_vlm_run(small, base, tmp_path / "refused", *sets).model_copy(
        update={"allow_left_out": False}
    )
    with pytest.raises(DataError, match=r"rows \(.*%\) are left out: longer than model\.max_text") as caught:
        run_training(refused, ALONE, CPU, never_stop)
    assert "--allow-left-out" in caught.value.hint
    assert not (refused.folder / "result.json").exists()


def train_records(run: Run) -> list[dict[str, Any]]:
    return [row for row in read_log(run.folder) if row["kind"] == "train"]


def test_a_row_left_out_changes_nothing_for_the_others(small: Small, tiny_vlm: Callable[[str], Path]) -> None:
    model, processor, _ = family.create_model(tiny_vlm_recipe(small, tiny_vlm("internvl")), [])
    index = open_index(small.index)
    examples = list(index.split("train"))[:3]
    unanswered = replace(examples[1], answers={})
    rng = np.random.default_rng(0)
    items = [
        processor.encode(e, index.images, train=True, rng=rng) for e in (examples[0], unanswered, examples[2])
    ]
    batch = processor.collate(items)
    assert batch.left_out == [unanswered.id]
    assert batch.ids == [examples[0].id, examples[2].id]
    without = processor.collate([items[0], items[2]])
    with torch.no_grad():
        assert model(batch, 0)["loss"] == pytest.approx(float(model(without, 0)["loss"]) * 2 / 3)
    empty = model(processor.collate([items[1]]), 0)["loss"]
    empty.backward()
    assert empty == 0
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters() if p.requires_grad)


def test_a_step_without_a_single_usable_row_ends_the_run(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    run = make_vlm_run(small, tiny_vlm("llava"), tmp_path / "run", "model.max_text=20")
    with pytest.raises(DataError, match=r"no example of step 1 .* longer than model\.max_text") as caught:
        run_training(run, ALONE, CPU, never_stop)
    assert "max_pixels" in caught.value.hint
    assert not list(run.folder.glob("step-*"))


# ------------------------------------------------------------------------------ bad input


def test_a_base_that_is_missing_or_another_is_named(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOVQA_HOME", str(tmp_path / "home"))
    with pytest.raises(AssetError, match="base model qwen-nowhere not found") as missing:
        family.create_model(tiny_vlm_recipe(small, Path("qwen-nowhere")), [])
    assert str(tmp_path / "home" / "assets") in missing.value.hint
    base = tmp_path / "base"
    shutil.copytree(tiny_vlm("llava"), base)
    run = make_vlm_run(small, base, tmp_path / "run")
    run_training(run, ALONE, CPU, never_stop)
    base.rename(tmp_path / "home-less")
    with pytest.raises(AssetError, match="base not found"):
        family.read_model_folder(last_step(run), "vqa")
    (tmp_path / "home" / "assets").mkdir(parents=True)
    shutil.copytree(tmp_path / "home-less", tmp_path / "home" / "assets" / "base")
    family.read_model_folder(last_step(run), "vqa")  # found by its name
    weights = tmp_path / "home" / "assets" / "base" / "model.safetensors"
    bits = bytearray(weights.read_bytes())
    bits[-1] ^= 1
    weights.write_bytes(bits)
    with pytest.raises(ModelError, match="is not the base this model was trained on"):
        family.read_model_folder(last_step(run), "vqa")


def test_a_base_that_cannot_be_used_is_named(
    small: Small, tiny_vlm: Callable[[str], Path], tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_vlm("llava"), base)
    weights = load_file(base / "model.safetensors")
    save_file(dict(list(weights.items())[3:]), base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 3 weights"):
        family.create_model(tiny_vlm_recipe(small, base), [])
    weights["image_newline"] = torch.zeros(3)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights that .* no place for: .*image_newline"):
        family.create_model(tiny_vlm_recipe(small, base), [])
    (base / "config.json").write_text('{"model_type": "llava", "mm_vision_tower": "clip"}')
    with pytest.raises(ModelError, match="layout of the original LLaVA"):
        family.create_model(tiny_vlm_recipe(small, base), [])
    (base / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="cannot be opened") as unknown:
        family.create_model(tiny_vlm_recipe(small, base), [])
    assert "--trust-remote-code" in unknown.value.hint


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("data.flip=true", "no data.flip"),
        ("data.augment=crop", "no data.augment=crop"),
        ("optim.ema_decay=0.9", "no optim.ema_decay"),
        ("optim.layer_decay=0.9", "no optim.layer_decay"),
        ("model.train=loraa", "known: none, projector"),
        ("model.lora.targets=[query]", "no linear layer of language ends in query"),
        ("model.basis=x", "did you mean"),
    ],
)
def test_what_the_family_does_not_have_is_refused(
    setting: str, message: str, small: Small, tiny_vlm: Callable[[str], Path]
) -> None:
    with pytest.raises(SettingsError, match=message):
        family.create_model(tiny_vlm_recipe(small, tiny_vlm("llava"), setting), [])


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")
def test_four_bits_without_their_library_are_a_matter_of_the_machine(
    small: Small, tiny_vlm: Callable[[str], Path]
) -> None:
    with pytest.raises(MachineError, match="need bitsandbytes"):
        family.create_model(tiny_vlm_recipe(small, tiny_vlm("llava"), "model.train=qlora"), [])
