"""What the plan says a step needs, beside what a real step takes: every family, within 15 %."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from kovqa_core.index.reader import open_index
from kovqa_core.plan.training import PlannedTraining, plan_training

from tests.conftest import Small
from tests.models.vlm.tiny_vlm import write_tiny_vlm
from tests.train.measured import peak_of

BEIT3 = (
    "model.size=custom",
    "model.custom=[192, 6, 6, 768]",
    "model.image_size=176",
    "model.patch_size=16",
    "model.max_text=12",
)
CAPTION = (*BEIT3[:4], "model.max_text=16")
XLMR = "{hidden_size: 128, num_hidden_layers: 4, num_attention_heads: 4, intermediate_size: 512}"
FUSION = (
    "model.random_init=true",
    f"model.question_config={XLMR}",
    "model.image_size=112",
    "model.max_text=12",
)
RESNET = "model.picture_config={architecture: resnet50, layers: [1, 2, 2, 1], channels: [32, 48, 64, 96]}"
VIT = "model.picture_config={architecture: vit_tiny_patch16_224, img_size: 112, embed_dim: 192, depth: 4, num_heads: 4}"
GRID = (
    VIT,
    "model.fusion=grid",
    "model.transformer=2",
    "model.transformer_ffn=512",
    "model.transformer_heads=4",
)
BF16, AGAIN = "profile.precision=bf16", "profile.activation_checkpointing=true"

# Tokens of the longest rows of the small index, with an image of each model.
LONGEST = {"llava": 93, "qwen2_5_vl": 86}

CASES: dict[str, tuple[str, Sequence[str]]] = {
    "beit3 vqa": ("tiny", BEIT3),
    "beit3 vqa, bf16, averages": ("tiny", (*BEIT3, BF16, "optim.ema_decay=0.99")),
    "beit3 vqa, checkpointing": ("tiny", (*BEIT3, AGAIN)),
    "beit3 caption": ("tiny-caption", CAPTION),
    "beit3 caption, bf16, checkpointing": ("tiny-caption", (*CAPTION, BF16, AGAIN)),
    "fusion product": ("tiny-fusion", (*FUSION, RESNET, "model.fusion=product", "model.transformer=0")),
    "fusion grid, bf16": ("tiny-fusion", (*FUSION, *GRID, BF16)),
    "fusion grid, checkpointing": ("tiny-fusion", (*FUSION, *GRID, AGAIN)),
    "llava projector": ("llava", ("model.train=projector",)),
    "llava projector, checkpointing": ("llava", ("model.train=projector", AGAIN)),
    "llava lora, bf16": ("llava", ("model.train=lora", "model.dtype=bf16")),
    "llava lora, checkpointing": ("llava", ("model.train=lora", AGAIN)),
    "llava full": ("llava", ("model.train=full",)),
    "qwen2_5_vl lora": ("qwen2_5_vl", ("model.train=lora",)),
    "qwen2_5_vl dora": ("qwen2_5_vl", ("model.train=lora", "model.lora.use_dora=true")),
    "llava dora, bf16": ("llava", ("model.train=lora", "model.dtype=bf16", "model.lora.use_dora=true")),
    "qwen2_5_vl projector, bf16": ("qwen2_5_vl", ("model.train=projector", "model.dtype=bf16")),
}


# Measured whenever the tests run; the others in `make soak`.
FEW = ("beit3 vqa, bf16, averages", "fusion grid, checkpointing", "llava projector", "qwen2_5_vl lora")


@pytest.fixture(scope="module")
def planned(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], PlannedTraining]:
    """A run of a case at a micro-batch, planned."""
    folder = tmp_path_factory.mktemp("memory")

    def plan(name: str, micro_batch: int) -> PlannedTraining:
        recipe, sets = CASES[name]
        flags = {"data.index": str(small.captions if "caption" in recipe else small.index)}
        if recipe in LONGEST:
            base = folder / recipe
            if not base.is_dir():
                write_tiny_vlm(recipe, base, _texts(small), wide=True)
            sets = (*sets, f"model.base={base}", "model.max_pixels=2304", f"model.max_text={LONGEST[recipe]}")
            recipe = "tiny-vlm"
        else:
            flags["model.tokenizer"] = str(small.tokenizer)
        run = folder / f"{name} {micro_batch}"
        sets = ("optim.global_batch=8", *sets)
        return plan_training(
            recipe,
            "cpu",
            sets=sets,
            flags=flags,
            folder=run,
            resume=False,
            dry_run=True,
            micro_batch=str(micro_batch),
        )

    return plan


def _texts(small: Small) -> tuple[str, ...]:
    return tuple(f"{e.question} {' '.join(e.answers)}" for e in open_index(small.index).split("train"))


@pytest.mark.parametrize(
    "name", [name if name in FEW else pytest.param(name, marks=pytest.mark.soak) for name in CASES]
)
def test_the_plan_tells_what_a_step_takes(planned: Callable[[str, int], PlannedTraining], name: str) -> None:
    for micro_batch in (8, 4):  # one pass, and two with gradients kept between them
        plan = planned(name, micro_batch)
        assert plan.memory_plan.needs is not None, plan.memory_plan.unknown
        assert plan.run.micro_batch == micro_batch
        measured = peak_of(plan.run)
        print(
            f"{name}, {micro_batch}: planned {plan.memory_plan.needs.peak / 1e6:.1f} MB, measured {measured / 1e6:.1f} MB"
        )
        assert plan.memory_plan.needs.peak == pytest.approx(measured, rel=0.15)
