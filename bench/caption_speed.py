"""Captions of a BEiT-3: ours against the original's way and against no cache at all.

    python bench/caption_speed.py [--size base] [--image 224] [--batch 8] [--beams 3] [--words 20]

All hold the same weights and find the same words, which is checked first. Then they take turns,
and every ratio is taken inside one turn. `</s>` is made unlikely, so that every caption has the
full number of words. The last table tells what one more word and one more beam cost.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from beit3_speed import quartiles, ratios
from kovqa_core.models.beit3.beam_search import BeamHypothesis, BeamSearchSettings, run_beam_search
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import ModelConfig
from kovqa_core.models.beit3.network import init_weights
from kovqa_core.models.xlmr_tokenizer import EOS_ID
from original import OriginalCaption, original_beam_search, original_like
from torch import Tensor

VOCAB, MASK = 64010, 64001


class WithoutCache:
    """The same network, but every word looks at everything again, for every beam."""

    def __init__(self, net: CaptionNet) -> None:
        self.net = net

    def encode_image(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pixels instead of keys and values."""
        return [(image, image)]

    def empty_kv_cache(self, rows: int, longest: int, like: Tensor) -> Said:
        """Words instead of keys and values."""
        return Said(torch.zeros(rows, 0, dtype=torch.long))

    def next_token_logits(
        self, words: Tensor, mask_id: int, picture: list[tuple[Tensor, Tensor]], past: Said
    ) -> Tensor:
        """The whole picture and the whole caption, again."""
        past.words = torch.cat([past.words, words[:, None]], 1)
        image = picture[0][0].repeat_interleave(len(words) // len(picture[0][0]), 0)
        tokens = torch.cat([past.words, torch.full_like(words[:, None], mask_id)], 1)
        return self.net.mlm_head(self.net.hidden_states(image, tokens, None)[:, -1])


class Said:
    """Words without keys and values."""

    def __init__(self, words: Tensor) -> None:
        self.words = words

    def select_rows(self, rows: Tensor) -> Said:
        """Those of other rows."""
        return Said(self.words[rows])


def nets(size: str, image: int) -> tuple[CaptionNet, OriginalCaption]:
    """Two captioners of one mind."""
    config = ModelConfig.model_validate({"size": size, "image_size": image, "vocab_size": VOCAB})
    ours = CaptionNet(config).eval()
    init_weights(ours, torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.mlm_head.bias[EOS_ID] = -1e4
        ours.mlm_head.bias[MASK + 1 :] = -1e4  # the original would name ids that mean nothing
    return ours, original_like(ours, OriginalCaption(config)).eval()


def timed(step: Callable[[], object]) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    step()
    return time.perf_counter() - began


@torch.inference_mode()
def main() -> None:
    """Check, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="base")
    parser.add_argument("--image", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--words", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-plain", action="store_true", help="leave out the way without a cache: it is slow"
    )
    asked = parser.parse_args()
    ours, original = nets(asked.size, asked.image)
    plain: Any = WithoutCache(ours)
    images = (
        torch.rand(asked.batch, 3, asked.image, asked.image, generator=torch.Generator().manual_seed(1)) * 2
        - 1
    )
    search = BeamSearchSettings(asked.beams, asked.words + 3)
    check(ours, plain, original, images, BeamSearchSettings(asked.beams, 8))
    print(f"{asked.size}, {asked.image} pixels, {asked.batch} pictures, {asked.beams} beams, {asked.words} words,",
          f"{torch.get_num_threads()} threads; seconds a batch, ratio (quartiles)")  # fmt: skip
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        pictures = images.to(dtype)
        steps = {
            "ours": lambda p=pictures: run_beam_search(ours, p, search, MASK),
            "original": lambda p=pictures: original_beam_search(original, p, search, MASK),
            "no cache": lambda p=pictures: run_beam_search(plain, p, search, MASK),
        }
        if asked.no_plain:
            del steps["no cache"]
        for net in (ours, original):
            net.to(dtype)
        report(name, turns(steps, asked.repeats))
        costs(name, ours, pictures, asked.beams, asked.words)


def check(
    ours: CaptionNet, plain: Any, original: OriginalCaption, images: Tensor, search: BeamSearchSettings
) -> None:
    """All three must say the same."""
    found = [one.token_ids for one in run_beam_search(ours, images, search, MASK)]
    assert found == [one.token_ids for one in run_beam_search(plain, images, search, MASK)], (
        "no cache differs"
    )
    assert found == [words for words, _ in original_beam_search(original, images, search, MASK)], (
        "original differs"
    )
    print(f"all say the same {len(found[0])} words about {len(found)} pictures")


def turns(steps: dict[str, Callable[[], list[BeamHypothesis]]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every step in every turn; the first turn warms up, the order rotates."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(-1, repeats):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            took = timed(steps[name])
            if turn >= 0:
                seconds[name].append(took)
    return seconds


def report(name: str, seconds: dict[str, list[float]]) -> None:
    """One line a contestant."""
    for peer, took in seconds.items():
        low, middle, high = ratios(took, seconds["ours"])
        print(
            f"{name} {peer:<10} {statistics.median(took):8.3f} s   {middle:5.2f} ({low:.2f}-{high:.2f})",
            flush=True,
        )


def costs(name: str, net: CaptionNet, images: Tensor, beams: int, words: int) -> None:
    """What the picture, a further word and a further beam cost."""

    def took(beams: int, words: int) -> float:
        return quartiles(
            [
                timed(lambda: run_beam_search(net, images, BeamSearchSettings(beams, words + 3), MASK))
                for _ in range(3)
            ]
        )[1]

    picture = quartiles([timed(lambda: net.encode_image(images)) for _ in range(3)])[1]
    whole = took(beams, words)
    word = (whole - took(beams, words // 2)) / (words - words // 2)
    beam = (took(beams + 2, words) - whole) / 2 / words
    print(f"{name}: picture {picture / len(images) * 1e3:.1f} ms; {word * 1e3:.1f} ms a further word of the batch; "
          f"{beam * 1e3:.1f} ms a word and further beam", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
