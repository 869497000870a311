"""A training step of the fusion family: ours against the original VQA_NIA's way, on the same encoders.

    python bench/fusion_speed.py [--batch 8] [--repeats 6]

XLM-RoBERTa base and ResNet-50 with random weights, the same in both. The original's way: questions
padded to 50 tokens, fp32, images with channels first, labels looked for one by one in the table of
answers, torch's plain AdamW; without the DataParallel it was wrapped in. Ours: questions as long as
the longest of the batch, channels last, labels looked up, fused AdamW; and once more under bf16.
First both must give the same logits. Then they take turns, each repeat with another batch, and every
ratio is taken inside one repeat. Question lengths are those of the photo set (mean 14.6 tokens).
"""

from __future__ import annotations

import argparse
import copy
import random
import statistics
import time
from collections.abc import Callable

import torch
from beit3_speed import LENGTHS, ratios
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.fusion import vqa
from kovqa_core.models.fusion.config import ModelConfig, image_encoder_config, question_encoder_config
from kovqa_core.models.fusion.network import FusionNet
from torch import Tensor, nn
from torch.nn import functional

CLASSES, VOCAB, LONGEST, PAD = 3133, 250002, 50, 1
ANSWERS = [f"답 {number}" for number in range(CLASSES)]


class OriginalWay(nn.Module):
    """The same layers, put together as the original does."""

    def __init__(self, net: FusionNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, tokens: Tensor) -> Tensor:
        """Logits [B, C] of normalised pixels and of ids padded to 50."""
        net = self.net
        asked = net.question(input_ids=tokens, attention_mask=(tokens != PAD).long()).pooler_output
        fused = asked * net.picture_drop(torch.tanh(net.picture(image)))
        return net.out(torch.relu(net.drop(net.norm(net.hidden(fused)))))


def make_batch(size: int, seed: int) -> tuple[Tensor, Tensor, list[str]]:
    """Normalised pixels, ids padded to 50, answers."""
    rng, random_ = random.Random(seed), torch.Generator().manual_seed(seed)
    lengths = torch.tensor(rng.choices(list(LENGTHS), list(LENGTHS.values()), k=size))
    tokens = torch.randint(4, VOCAB, (size, LONGEST), generator=random_)
    tokens = tokens.masked_fill(torch.arange(LONGEST) >= lengths[:, None], PAD)
    image = torch.randn(size, 3, 224, 224, generator=random_)
    return image, tokens, rng.choices(ANSWERS, k=size)


def cut(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Ids as long as the longest question, and where there is padding."""
    kept = tokens[:, : int((tokens != PAD).sum(1).max())]
    return kept, kept == PAD


def original_step(model: OriginalWay, optimizer: torch.optim.Optimizer) -> Callable[..., None]:
    """One step of the original's loop."""

    def step(image: Tensor, tokens: Tensor, answers: list[str]) -> None:
        targets = torch.cat(
            [torch.tensor([n for n, a in enumerate(ANSWERS) if a == given]) for given in answers]
        )
        optimizer.zero_grad()
        functional.cross_entropy(model(image, tokens), targets).backward()
        optimizer.step()

    return step


def our_step(net: FusionNet, optimizer: torch.optim.Optimizer, bf16: bool) -> Callable[..., None]:
    """One step of ours."""
    label = {answer: number for number, answer in enumerate(ANSWERS)}

    def step(image: Tensor, tokens: Tensor, answers: list[str]) -> None:
        kept, padding = cut(tokens)
        targets = torch.tensor([label[answer] for answer in answers])
        batch = ModelBatch({"image": image, "tokens": kept, "padding": padding, "targets": targets}, answers)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = vqa.fusion_loss(net, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=6)
    asked = parser.parse_args()
    torch.manual_seed(0)
    config = ModelConfig(
        question_config=question_encoder_config({}, None, VOCAB),
        picture_config=image_encoder_config({}, None),
        num_classes=CLASSES,
    )
    ours = FusionNet(config)
    original = OriginalWay(copy.deepcopy(ours))
    image, tokens, _ = make_batch(asked.batch, 0)
    with torch.inference_mode():
        worst = (ours.eval()(image, *cut(tokens)) - original.eval()(image, tokens)).abs().max().item()
    assert worst < 1e-4, f"logits differ by {worst:.1e}"
    ours.train(), original.train()
    fused = torch.optim.AdamW(ours.parameters(), lr=3e-5, weight_decay=1e-3, fused=True)
    plain = torch.optim.AdamW(original.parameters(), lr=3e-5, weight_decay=1e-3)
    steps = {
        "original": original_step(original, plain),
        "ours": our_step(ours, fused, False),
        "ours, bf16": our_step(ours, fused, True),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(-1, asked.repeats):
        batch = make_batch(asked.batch, repeat + 2)
        for name in random.Random(repeat).sample(list(steps), len(steps)):
            began = time.perf_counter()
            steps[name](*batch)
            if repeat >= 0:
                times[name].append(time.perf_counter() - began)
    print(
        f"training step, {asked.batch} examples, {torch.get_num_threads()} threads; logits differ by {worst:.0e}"
    )
    for name, found in times.items():
        low, middle, high = ratios(times["original"], found)
        print(f"{name:12s} {statistics.median(found):7.3f} s   {middle:.2f}× ({low:.2f}-{high:.2f})")


if __name__ == "__main__":
    main()
