"""The rows of `gpu_speed.py` that train and answer with BEiT-3."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import torch
from gpu_contestants import (
    BATCHES,
    Bench,
    build_net,
    collate,
    contestants_here,
    kovqa_answers,
    kovqa_strategy,
    kovqa_training,
    logits_differ,
    make_items,
    original_net,
    require_torchscale,
    timm_training,
    torchscale_training,
)
from gpu_timing import Contestant, copy_rate, multiply_rate, seconds_of, time_in_turns
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.beam_search import BeamSearchSettings, run_beam_search
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.new_weights import init_weights
from kovqa_core.models.beit3.vqa import VqaTask
from kovqa_core.models.xlmr_tokenizer import EOS_ID
from kovqa_core.train.strategies.base import TrainStrategy
from torch.nn.attention import SDPBackend, sdpa_kernel


@dataclass
class RowResult:
    """What a row found, as it stands in the file.

    Attributes:
        contestants: `Measured.to_json` of each.
        numbers: whatever else was measured, by name.
        notes: what the reader must know: who is missing, what was made smaller.
    """

    contestants: list[dict[str, object]] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(
        self,
        bench: Bench,
        contestants: list[Contestant],
        *,
        shapes: int = BATCHES,
        count_flops: tuple[str, ...] = (),
    ) -> None:
        """Time contestants in turns."""
        found = time_in_turns(contestants, shapes, bench.device, bench.turn_seconds, count_flops)
        self.contestants += [one.to_json() for one in found]


def ceilings(bench: Bench) -> RowResult:
    """Row 0: what this card can do at most, measured."""
    size, copied = (128, 1 << 16) if bench.tiny else (8192, 2 << 30)
    numbers = {
        "product_flops_per_second": multiply_rate(bench.device, size, 1 if bench.tiny else 10),
        "copy_bytes_per_second": copy_rate(bench.device, copied, 1 if bench.tiny else 10),
    }
    return RowResult(numbers=numbers, notes=[f"product {size}³ in bf16, of random numbers"])


def training_row(bench: Bench, size: str, image: int, micro_batch: int, *, peers: bool = True) -> RowResult:
    """Rows 1, 2 and 8: training steps beside torchscale's; the micro-batch is halved until all fit."""
    result, examples = RowResult(), bench.examples(micro_batch)
    while True:
        try:
            _train_in_turns(bench, bench.config(size, image), examples, result, peers=peers)
            return result
        except torch.OutOfMemoryError:
            if examples == 1:
                raise
            examples //= 2
            result.contestants.clear()
            result.notes = [
                f"micro-batch {examples}: {2 * examples} does not fit for all contestants side by side"
            ]


def _train_in_turns(
    bench: Bench, config: ModelConfig, examples: int, result: RowResult, *, peers: bool
) -> None:
    net = build_net(config, bench.device)
    if peers:
        try:
            require_torchscale()
            result.numbers["logits_differ"] = logits_differ(
                bench, config, net, original_net(bench, config, net)
            )
        except ImportError:
            pass  # said below, by the contestant that is missing
    builds = [lambda: kovqa_training(bench, config, examples, net=net)]
    if peers:
        builds += [
            lambda: torchscale_training(bench, config, examples, net),
            lambda: torchscale_training(bench, config, examples, net, sdpa=True),
        ]
    result.add(bench, contestants_here(builds, result.notes), count_flops=("kovqa",))


def answers_row(bench: Bench) -> RowResult:
    """Row 3: answers, in 16 bits and in fp32."""
    result = RowResult()
    for size, image, batch in (("base", 224, 128), ("large", 480, 32)):
        config = bench.config(size, image)
        net = build_net(config, bench.device)
        ways = [
            kovqa_answers(bench, config, bench.examples(batch), half=half, net=net) for half in (True, False)
        ]
        named = [
            Contestant(f"{one.name}, {size} {image}", one.examples, one.step, one.held_bytes) for one in ways
        ]
        result.add(bench, named, count_flops=(named[0].name,))
    return result


def batch_sizes_row(bench: Bench) -> RowResult:
    """Row 4: answers of base 224 by batch size."""
    result, config = RowResult(), bench.config("base", 224)
    net = build_net(config, bench.device)
    for batch in (1, 2) if bench.tiny else (4, 16, 64, 256):
        one = kovqa_answers(bench, config, batch, half=True, net=net)
        named = Contestant(f"kovqa, batch {batch}", batch, one.step, one.held_bytes)
        result.add(bench, [named])
    return result


def compiled_row(bench: Bench) -> RowResult:
    """Row 5: row 1's training compiled, beside itself eager; `warm_up_seconds` has the compilation."""
    result, config = RowResult(), bench.config("large", 224)
    examples = bench.examples(128)
    if bench.device.type != "cuda":
        result.notes.append("compiled on a GPU alone")
        return result
    ways = [kovqa_training(bench, config, examples, compile=compile) for compile in (True, False)]
    result.add(bench, ways, count_flops=("kovqa",))
    return result


def timm_row(bench: Bench) -> RowResult:
    """Row 6: timm's ViT-L beside kovqa's large 224."""
    result, examples = RowResult(), bench.examples(128)
    builds = [
        lambda: timm_training(bench, examples),
        lambda: kovqa_training(bench, bench.config("large", 224), examples),
    ]
    result.add(bench, contestants_here(builds, result.notes), count_flops=("timm ViT-L", "kovqa"))
    return result


def lengths_row(bench: Bench) -> RowResult:
    """Row 7: what 24 new text lengths cost, with cuDNN's attention first and set back."""
    result, config = RowResult(), bench.config("base", 224)
    examples, lengths = bench.examples(64), range(5, 8 if bench.tiny else 29)
    efficient = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    orders = {
        "set back": [*efficient[:2], SDPBackend.CUDNN_ATTENTION, efficient[2]],
        "cuDNN first": [SDPBackend.CUDNN_ATTENTION, *efficient],
    }
    answers = [f"답 {n}" for n in range(config.num_classes or 0)]
    for name, order in orders.items():
        model = Beit3Model(build_net(config, bench.device), VqaTask(answers))
        strategy = kovqa_strategy(bench, model, "kobeit3", examples)
        batches = [collate(config, make_items(config, examples, n, n), bench.device) for n in lengths]
        with sdpa_kernel(order, set_priority=True):
            train_on([collate(config, make_items(config, examples, 1, 4), bench.device)], strategy)
            first, again = (
                seconds_of(partial(train_on, batches, strategy), bench.device) / len(batches)
                for _ in range(2)
            )
        result.numbers |= {f"{name}: seconds of a new length": first, f"{name}: of one met before": again}
    return result


def train_on(batches: list[ModelBatch], strategy: TrainStrategy) -> None:
    """A training step on each batch."""
    for batch in batches:
        strategy.backward(batch, 0, last=True)
        strategy.step(torch.ones((), device=strategy.device), torch.zeros((), device=strategy.device))


@torch.inference_mode()
def captions_row(bench: Bench) -> RowResult:
    """Row 9: captions of 20 tokens by 3 beams."""
    result, chosen = RowResult(), bench.config("base", 480)
    config = chosen.model_copy(update={"num_classes": None})
    vocab = config.vocab_size or 0
    tokens = 3 if bench.tiny else 20
    with torch.device(bench.device):
        net = CaptionNet(config).eval()
    init_weights(net, torch.Generator(bench.device).manual_seed(0))
    net.mlm_head.bias[EOS_ID] = -1e4  # every caption has its full length
    search = BeamSearchSettings(3, tokens + 3)
    side = config.image_size
    for images in (1, 2) if bench.tiny else (16, 64, 256):
        image = torch.rand(images, 3, side, side, device=bench.device) * 2 - 1

        def step(_: int) -> None:
            with torch.inference_mode(), bench.autocast():
                run_beam_search(net, image, search, vocab - 2)  # noqa: B023

        result.add(bench, [Contestant(f"kovqa, {images} images", images, step)], shapes=1)
    return result
