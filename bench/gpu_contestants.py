"""Who takes part in `gpu_speed.py`: kovqa as `kovqa train` and `kovqa predict` run it, and its peers.

| contestant | what it is |
|---|---|
| kovqa | the strategy of a run: its gradients, its clipping, its fused AdamW; batches as its loader makes them |
| torchscale | torchscale 0.2.0's BEiT-3 as users run it: bf16 autocast, text padded to 64, torch's own AdamW |
| torchscale, SDPA | the same with attention by torch's `scaled_dot_product_attention` |
| timm ViT-L | timm's vit_large_patch16_224, bf16 autocast, fused AdamW: images alone |

All have random weights; kovqa and torchscale the same ones.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MethodType
from typing import Any, cast

import numpy as np
import torch
from beit3_speed import LENGTHS, TEXT
from gpu_timing import Contestant, held_bytes
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.family import Beit3Model
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.new_weights import init_weights
from kovqa_core.models.beit3.vqa import Beit3VqaItem, Beit3VqaProcessor, VqaTask
from kovqa_core.models.family import FamilyModel
from kovqa_core.models.image_transforms import normalise_pixels
from kovqa_core.models.precision import prepare_answering
from kovqa_core.models.xlmr_tokenizer import PAD_ID, XlmrTokenizer
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run
from kovqa_core.train import optim
from kovqa_core.train.strategies.base import TrainStrategy
from kovqa_core.train.strategies.ddp import DdpStrategy
from original import OriginalVqa, original_like
from torch import Tensor, nn
from torch.nn import functional

CLASSES, VOCAB = 3129, 64010
BATCHES = 4  # different batches, used in turn
ALONE = RankInfo(0, 0, 1)


@dataclass(frozen=True)
class Bench:
    """Where the rows run.

    Attributes:
        device: of all contestants.
        tiny: shapes that a CPU does in seconds, to see that everything still runs.
        turn_seconds: after which a row begins no further turn.
    """

    device: torch.device
    tiny: bool
    turn_seconds: float = 4.0

    def config(self, size: str, image: int) -> ModelConfig:
        """A BEiT-3 with VQAv2's answers."""
        chosen: dict[str, Any] = {"size": size, "image_size": image}
        if self.tiny:
            chosen = {"size": "custom", "custom": [32, 2, 2, 64], "image_size": 32}
        classes, vocab = (7, 400) if self.tiny else (CLASSES, VOCAB)
        return ModelConfig.model_validate(
            {**chosen, "max_text": TEXT, "vocab_size": vocab, "num_classes": classes, "drop_path": 0.0}
        )

    def examples(self, number: int) -> int:
        """A batch of this size, or of two where all is tiny."""
        return 2 if self.tiny else number

    def autocast(self) -> torch.autocast:
        """bf16, as a profile of such a card asks for."""
        return torch.autocast(self.device.type, torch.bfloat16)


def make_items(config: ModelConfig, size: int, seed: int, length: int | None = None) -> list[Beit3VqaItem]:
    """Encoded examples of random pixels and words, as long as real questions, or all of one length."""
    rng, words = np.random.default_rng(seed), Random(seed)
    lengths = words.choices(list(LENGTHS), list(LENGTHS.values()), k=size)
    side, vocab, classes = config.image_size, config.vocab_size or VOCAB, config.num_classes or CLASSES
    return [
        Beit3VqaItem(
            f"{seed}-{number}",
            rng.integers(0, 256, (3, side, side), dtype=np.uint8),
            [0, *rng.integers(4, vocab, (length or lengths[number]) - 2).tolist(), 2],
            [(int(rng.integers(classes)), 1.0)],
            rng.random((config.dimensions.num_layers, 2), np.float32),
        )
        for number in range(size)
    ]


def collate(config: ModelConfig, items: list[Beit3VqaItem], device: torch.device) -> ModelBatch:
    """A batch as kovqa's loader makes it, on the device."""
    answers = [f"답 {number}" for number in range(config.num_classes or CLASSES)]
    no_tokenizer = cast(XlmrTokenizer, None)  # it encodes; here everything is encoded already
    return Beit3VqaProcessor(config, no_tokenizer, answers, DataSettings()).collate(items).to(device)


def build_net(config: ModelConfig, device: torch.device) -> Beit3VqaNet:
    """kovqa's network with random weights, made on the device."""
    with torch.device(device):
        net = Beit3VqaNet(config)
    init_weights(net, torch.Generator(device).manual_seed(0))
    return net


def kovqa_strategy(bench: Bench, model: FamilyModel, recipe: str, micro_batch: int) -> TrainStrategy:
    """What a run of one process trains a model with."""
    sets = [
        f"optim.global_batch={micro_batch}",
        f"profile.micro_batch={{default: {micro_batch}}}",
        "profile.precision=bf16",
    ]
    settings = resolve_settings(recipe, "cpu", sets)
    run = make_run(settings.recipe, settings.profile, Path(), [])
    strategy = DdpStrategy(model.train(), run, ALONE, bench.device)
    optim.set_learning_rate(strategy.optimizer, 1e-5)
    return strategy


def kovqa_training(
    bench: Bench,
    config: ModelConfig,
    micro_batch: int,
    *,
    net: Beit3VqaNet | None = None,
    compile: bool = False,
) -> Contestant:
    """Training steps as `kovqa train` makes them: gradients, norm, AdamW."""
    before = held_bytes(bench.device)
    net = net or build_net(config, bench.device)
    model = Beit3Model(net, VqaTask([f"답 {n}" for n in range(config.num_classes or CLASSES)]))
    model.prepare(activation_checkpointing=False, compile=compile)
    strategy = kovqa_strategy(bench, model, "kobeit3", micro_batch)
    batches = [collate(config, make_items(config, micro_batch, n), bench.device) for n in range(BATCHES)]

    def step(number: int) -> None:
        strategy.backward(batches[number], 0, last=True)
        strategy.step(torch.ones((), device=strategy.device), torch.zeros((), device=strategy.device))

    name = "kovqa, compiled" if compile else "kovqa"
    return ready(Contestant(name, micro_batch, step), bench, before)


def ready(one: Contestant, bench: Bench, before: int) -> Contestant:
    """The contestant after its first step, by which its optimizer has its moments; so much it holds."""
    one.step(0)
    return Contestant(one.name, one.examples, one.step, held_bytes(bench.device) - before)


@dataclass(frozen=True)
class OriginalBatch:
    """What the original reads: pixels in -1…1, words padded to 64."""

    image: Tensor
    tokens: Tensor
    padding: Tensor
    labels: Tensor


def original_batch(config: ModelConfig, items: list[Beit3VqaItem], device: torch.device) -> OriginalBatch:
    """The same examples for the original."""
    tokens = torch.full((len(items), TEXT), PAD_ID)
    labels = torch.zeros(len(items), config.num_classes or CLASSES)
    for row, item in enumerate(items):
        tokens[row, : len(item.tokens)] = torch.tensor(item.tokens)
        for label, score in item.labels:
            labels[row, label] = score
    pixels = torch.from_numpy(np.stack([item.image for item in items])).to(device)
    tokens = tokens.to(device)
    return OriginalBatch(normalise_pixels(pixels), tokens, tokens == PAD_ID, labels.to(device))


def torchscale_training(
    bench: Bench, config: ModelConfig, micro_batch: int, weights: nn.Module, *, sdpa: bool = False
) -> Contestant:
    """Training steps of torchscale's BEiT-3 as users run it.

    Raises:
        ImportError: torchscale is not here.
    """
    require_torchscale()
    before = held_bytes(bench.device)
    net = original_net(bench, config, weights, sdpa=sdpa).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, weight_decay=0.01)
    batches = [
        original_batch(config, make_items(config, micro_batch, n), bench.device) for n in range(BATCHES)
    ]

    def step(number: int) -> None:
        batch = batches[number]
        with bench.autocast():
            logits = net(batch.image, batch.tokens, batch.padding)
        loss = functional.binary_cross_entropy_with_logits(logits.float(), batch.labels)
        (loss * batch.labels.shape[1]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return ready(Contestant("torchscale, SDPA" if sdpa else "torchscale", micro_batch, step), bench, before)


def require_torchscale() -> None:
    """Raise an ImportError where torchscale is not here: the row then says so and goes on without it."""
    from importlib.util import find_spec

    if find_spec("torchscale") is None:
        raise ImportError("torchscale is not installed (pip install --no-deps torchscale==0.2.0)")


def original_net(bench: Bench, config: ModelConfig, weights: nn.Module, *, sdpa: bool = False) -> OriginalVqa:
    """torchscale's network with kovqa's weights."""
    with torch.device(bench.device):
        net = original_like(weights, OriginalVqa(config))
    if sdpa:
        from torchscale.component.multihead_attention import MultiheadAttention

        for module in net.modules():
            if isinstance(module, MultiheadAttention):
                module.forward = MethodType(_sdpa_attention, module)
    return net


def _sdpa_attention(
    self: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_padding_mask: Tensor | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """torchscale's attention of an encoder, its scores and softmax by torch's fused kernels."""
    batch, length, width = query.shape

    def heads(x: Tensor) -> Tensor:
        return x.view(batch, length, self.num_heads, self.head_dim).transpose(1, 2)

    mask = None if key_padding_mask is None else ~key_padding_mask.bool()[:, None, None]
    attended = functional.scaled_dot_product_attention(
        heads(self.q_proj(query)), heads(self.k_proj(key)), heads(self.v_proj(value)), attn_mask=mask
    )
    attended = attended.transpose(1, 2).reshape(batch, length, width)
    if self.inner_attn_ln is not None:
        attended = self.inner_attn_ln(attended)
    return self.out_proj(attended), None


@torch.no_grad()
def logits_differ(bench: Bench, config: ModelConfig, net: Beit3VqaNet, original: nn.Module) -> float:
    """Largest difference of both models' logits in fp32, as a share of the largest logit."""
    items = make_items(config, bench.examples(4), 99)
    ours, theirs = collate(config, items, bench.device), original_batch(config, items, bench.device)
    modes = net.training, original.training
    net.eval(), original.eval()
    own = net(theirs.image, ours.tensors["tokens"], ours.tensors["padding"])
    peer = original(theirs.image, theirs.tokens, theirs.padding)
    net.train(modes[0]), original.train(modes[1])
    return float((own - peer).abs().max() / peer.abs().max())


def kovqa_answers(
    bench: Bench, config: ModelConfig, batch: int, *, half: bool, net: Beit3VqaNet | None = None
) -> Contestant:
    """Answers as `kovqa predict` gives them, in 16 bits or in fp32 as before it had them."""
    before = held_bytes(bench.device)
    net = net or build_net(config, bench.device)
    if half:  # its own weights, rounded once
        net = copy.deepcopy(net)
        prepare_answering(net, "bf16", bench.device)
    model = Beit3Model(net, VqaTask([f"답 {n}" for n in range(config.num_classes or CLASSES)])).eval()
    batches = [collate(config, make_items(config, batch, n), bench.device) for n in range(BATCHES)]

    @torch.inference_mode()
    def step(number: int) -> None:
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=half):
            model.answer(batches[number])

    return ready(Contestant("kovqa, 16 bits" if half else "kovqa, fp32", batch, step), bench, before)


def timm_training(bench: Bench, micro_batch: int) -> Contestant:
    """timm's ViT-L of as many answers: how fast a plain, widely used transformer of that size learns here.

    Raises:
        ImportError: timm is not here.
    """
    import timm

    before = held_bytes(bench.device)
    tiny = {"img_size": 32, "depth": 2, "embed_dim": 32, "num_heads": 2, "num_classes": 7}
    sizes: dict[str, int] = tiny if bench.tiny else {"img_size": 224, "num_classes": CLASSES}
    with torch.device(bench.device):
        net = timm.create_model("vit_large_patch16_224", **sizes)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-5, weight_decay=0.01, fused=True)
    images = torch.randn(micro_batch, 3, sizes["img_size"], sizes["img_size"], device=bench.device)
    labels = torch.zeros(micro_batch, net.num_classes, device=bench.device)

    def step(_: int) -> None:
        with bench.autocast():
            logits = net(images)
        functional.binary_cross_entropy_with_logits(logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return ready(Contestant("timm ViT-L", micro_batch, step), bench, before)


Build = Callable[[], Contestant]


def contestants_here(builds: list[Build], notes: list[str]) -> list[Contestant]:
    """Those that can be built; why another cannot goes into the notes."""
    here = []
    for build in builds:
        try:
            here.append(build())
        except ImportError as error:
            notes.append(f"left out: {error}")
    return here
