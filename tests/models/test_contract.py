"""Every family, for every task it claims, passes the same examination."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.errors import ModelError
from kovqa_core.index.reader import IndexFolder, open_index
from kovqa_core.models import FAMILIES, family
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings
from PIL import Image
from safetensors.torch import load_file

from tests.conftest import FUSION, SMALL, VLM, Small

VIT = "model.picture_config={architecture: vit_tiny_patch16_224, img_size: 32, embed_dim: 32, depth: 2, num_heads: 2}"

# Name -> recipe, settings that make it small.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "beit3:vqa": ("tiny", SMALL),
    "beit3:caption": ("tiny-caption", SMALL),
    "fusion:product": ("nia", FUSION),
    "fusion:product with weights": (
        "nia", (*FUSION, "model.loss=focal", "model.smoothing=0.1", "model.class_weights=effective"),
    ),
    "fusion:transformer": ("nia-transformer", (*FUSION, "model.transformer_ffn=64")),
    "fusion:grid": ("nia-grid", (*FUSION, "model.transformer_ffn=64")),
    "fusion:vision transformer": ("korean-fusion", (*FUSION, VIT, "model.transformer_ffn=64")),
    "fusion:frozen": ("laptop-features", (*FUSION, VIT, "model.transformer_ffn=64")),
    "vlm:lora": ("tiny-vlm", VLM),
    "vlm:projector and vision": ("tiny-vlm", (*VLM, "model.train={projector: full, vision: lora}")),
    "vlm:full": ("tiny-vlm", (*VLM, "model.train=full")),
    "vlm:from nothing": ("tiny-vlm-scratch", VLM),
}  # fmt: skip


def test_every_family_is_examined() -> None:
    assert {name.partition(":")[0] for name in CASES} == set(FAMILIES)


@pytest.fixture(params=CASES)
def recipe(request: pytest.FixtureRequest, small: Small) -> Recipe:
    name, sets = CASES[request.param]
    index = small.captions if request.param.endswith("caption") else small.index
    flags = {"data.index": str(index), "model.image_loading": "as_stored"}
    if not name.startswith("tiny-vlm"):
        flags["model.tokenizer"] = str(small.tokenizer)
    elif name == "tiny-vlm":
        flags["model.base"] = str(request.getfixturevalue("tiny_vlm")("qwen3_vl"))
    return resolve_settings(name, "cpu", sets, flags).recipe


def opened(recipe: Recipe) -> tuple[IndexFolder, list[str]]:
    """The recipe's index, and its answers where there are any."""
    index = open_index(Path(str(recipe.data.index)))
    return index, index.answers() if recipe.task == "vqa" else []


def numbers(folder: Path) -> int:
    """How many numbers a folder's weights have."""
    return sum(
        tensor.numel() for file in folder.rglob("*.safetensors") for tensor in load_file(file).values()
    )


def require_as_stored(processor: ExampleProcessor, folder: Path) -> None:
    """An image that EXIF turns gives what the same image gives without EXIF."""
    image, turned = Image.new("RGB", (60, 40), "red"), Image.Exif()
    image.paste("blue", (0, 0, 30, 40))
    turned[0x0112] = 6
    image.save(folder / "as it is.png")
    image.save(folder / "turned.png", exif=turned)
    rng = np.random.default_rng(0)
    batches = [
        processor.collate([processor.encode(Example("1", name, "?"), folder, train=False, rng=rng)])
        for name in ("as it is.png", "turned.png")
    ]
    assert batches[0].tensors.keys() == batches[1].tensors.keys()
    for name, tensor in batches[0].tensors.items():
        other = batches[1].tensors[name]
        assert other is tensor or torch.equal(tensor, other), name


def test_contract(recipe: Recipe, tmp_path: Path) -> None:
    index, answers_ = opened(recipe)
    model, processor, _ = family.create_model(recipe, answers_)
    examples = list(index.split("train"))[:5]
    rngs = [np.random.default_rng([1, i]) for i in range(5)]
    items = [
        processor.encode(e, index.images, train=True, rng=r) for e, r in zip(examples, rngs, strict=True)
    ]
    batch = processor.collate(items)
    assert batch.ids == [e.id for e in examples]
    require_as_stored(processor, tmp_path)

    loss = model.train()(batch, 0)["loss"]
    assert loss.ndim == 0
    assert torch.isfinite(loss)
    loss.backward()
    lacking = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert lacking == []  # DDP waits for every gradient
    assert {model.layer_id(n) for n, _ in model.named_parameters()} <= set(range(model.head_layer_id + 1))

    model.eval()
    plain = [processor.encode(e, index.images, train=False, rng=rngs[0]) for e in examples]
    with torch.inference_mode():
        answers = model.answer(processor.collate(plain))
        alone = [model.answer(processor.collate([item]))[0] for item in plain]
    for one, many in zip(alone, answers, strict=True):
        assert one.text == many.text  # an answer does not depend on its batch
        assert one.score == pytest.approx(many.score, abs=1e-5)
        assert 0 <= one.score <= 1

    info = CheckpointInfo(recipe.family, recipe.task)
    (tmp_path / "saved").mkdir()
    family.write_model_folder(model, processor, tmp_path / "saved", info)
    again, its_processor = family.read_model_folder(tmp_path / "saved", recipe.task)
    require_as_stored(its_processor, tmp_path)  # what it was trained with stands in its checkpoint
    again.eval()
    with torch.inference_mode():
        repeated = again.answer(
            its_processor.collate(
                [its_processor.encode(e, index.images, train=False, rng=rngs[0]) for e in examples]
            )
        )
    assert repeated == answers

    (tmp_path / "exported").mkdir()
    exported = family.load_family(recipe.family).export_model(
        tmp_path / "saved", tmp_path / "exported", family.DEFAULT_LOADING
    )
    loading = exported.loading
    module = re.match(r"from (\w+_model) import", loading)
    assert "from_pretrained(" in loading or (module and (tmp_path / "exported" / f"{module[1]}.py").is_file())
    compile(loading, "card", "exec")
    complete = Path(recipe.model.get("base", tmp_path / "saved"))  # a checkpoint may hold updates of a base
    assert numbers(tmp_path / "exported") == numbers(
        complete
    )  # nothing is lost on the way to other libraries
    if family.load_family(recipe.family).ask_for_captions is None:  # else it can be asked for both
        with pytest.raises(ModelError, match="was trained for"):
            family.read_model_folder(tmp_path / "saved", "caption" if recipe.task == "vqa" else "vqa")


def test_same_seed_same_model(recipe: Recipe) -> None:
    _, answers = opened(recipe)
    states = [family.create_model(recipe, answers)[0].state_dict() for _ in range(2)]
    other = family.create_model(recipe.model_copy(update={"seed": 7}), answers)[0].state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    # A base that learns as it is draws nothing.
    draws = recipe.model.get("train") != "full" or recipe.model.get("random_init")
    assert bool(draws) == any(not torch.equal(states[0][name], other[name]) for name in other)
