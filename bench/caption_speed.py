"""Captions of a BEiT-3: ours against the original's way and against no cache at all.

    python bench/caption_speed.py [--size base] [--image 224] [--batch 8] [--beams 3] [--tokens 20]

All hold the same weights and find the same tokens, which is checked first. Then they take turns, and every
ratio is taken inside one turn. `</s>` is made unlikely, so that every caption has the full number of tokens.
The last table tells what one more token and one more beam cost.
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
from kovqa_core.models.beit3.new_weights import init_weights
from kovqa_core.models.xlmr_tokenizer import EOS_ID
from original import OriginalCaption, original_beam_search, original_like
from torch import Tensor

VOCAB, MASK = 64010, 64001


class WithoutCache:
    """The same network, but every token looks at everything again, for every beam."""

    def __init__(self, net: CaptionNet) -> None:
        self.net = net

    def search_cache(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pixels instead of keys and values."""
        return [(image, image)]

    def empty_kv_cache(self, rows: int, max_length: int, like: Tensor) -> TokenHistory:
        """Token ids instead of keys and values."""
        return TokenHistory(torch.zeros(rows, 0, dtype=torch.long))

    def next_token_logits(
        self,
        last_ids: Tensor,
        mask_id: int,
        image_cache: list[tuple[Tensor, Tensor]],
        history: TokenHistory,
    ) -> Tensor:
        """The whole image and the whole caption, again."""
        history.token_ids = torch.cat([history.token_ids, last_ids[:, None]], 1)
        images = image_cache[0][1]
        image = images.repeat_interleave(len(last_ids) // len(images), 0)
        tokens = torch.cat([history.token_ids, torch.full_like(last_ids[:, None], mask_id)], 1)
        return self.net.mlm_head(self.net.hidden_states(image, tokens, None)[:, -1])


class TokenHistory:
    """The token ids so far, [R, tokens], without keys and values."""

    def __init__(self, token_ids: Tensor) -> None:
        self.token_ids = token_ids

    def select_rows(self, rows: Tensor) -> TokenHistory:
        """Those of other rows."""
        return TokenHistory(self.token_ids[rows])


def build_captioners(size: str, image: int) -> tuple[CaptionNet, OriginalCaption]:
    """Ours and the original with the same weights."""
    config = ModelConfig.model_validate({"size": size, "image_size": image, "vocab_size": VOCAB})
    ours = CaptionNet(config).eval()
    init_weights(ours, torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours.mlm_head.bias[EOS_ID] = -1e4
        ours.mlm_head.bias[MASK + 1 :] = -1e4  # the original would predict ids that mean nothing
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
    parser.add_argument("--tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--no-plain", action="store_true", help="leave out the way without a cache: it is slow"
    )
    options = parser.parse_args()
    ours, original = build_captioners(options.size, options.image)
    plain: Any = WithoutCache(ours)
    images = (
        torch.rand(options.batch, 3, options.image, options.image, generator=torch.Generator().manual_seed(1))
        * 2
        - 1
    )
    search = BeamSearchSettings(options.beams, options.tokens + 3)
    check(ours, plain, original, images, BeamSearchSettings(options.beams, 8))
    print(f"{options.size}, {options.image} pixels, {options.batch} images, {options.beams} beams, {options.tokens} tokens,",
          f"{torch.get_num_threads()} threads; seconds a batch, ratio (quartiles)")  # fmt: skip
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        typed_images = images.to(dtype)
        steps = {
            "ours": lambda x=typed_images: run_beam_search(ours, x, search, MASK),
            "original": lambda x=typed_images: original_beam_search(original, x, search, MASK),
            "no cache": lambda x=typed_images: run_beam_search(plain, x, search, MASK),
        }
        if options.no_plain:
            del steps["no cache"]
        for net in (ours, original):
            net.to(dtype)
        report(name, turns(steps, options.repeats))
        costs(name, ours, typed_images, options.beams, options.tokens)


def check(
    ours: CaptionNet, plain: Any, original: OriginalCaption, images: Tensor, search: BeamSearchSettings
) -> None:
    """All three must find the same captions."""
    captions = [one.token_ids for one in run_beam_search(ours, images, search, MASK)]
    assert captions == [one.token_ids for one in run_beam_search(plain, images, search, MASK)], (
        "no cache differs"
    )
    assert captions == [ids for ids, _ in original_beam_search(original, images, search, MASK)], (
        "original differs"
    )
    print(f"all find the same {len(captions[0])} tokens for {len(captions)} images")


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


def costs(name: str, net: CaptionNet, images: Tensor, beams: int, tokens: int) -> None:
    """What the image, a further token and a further beam cost."""

    def took(beams: int, tokens: int) -> float:
        return quartiles(
            [
                timed(lambda: run_beam_search(net, images, BeamSearchSettings(beams, tokens + 3), MASK))
                for _ in range(3)
            ]
        )[1]

    image = quartiles([timed(lambda: net.encode_image(images)) for _ in range(3)])[1]
    total = took(beams, tokens)
    token = (total - took(beams, tokens // 2)) / (tokens - tokens // 2)
    beam = (took(beams + 2, tokens) - total) / 2 / tokens
    print(f"{name}: image {image / len(images) * 1e3:.1f} ms; {token * 1e3:.1f} ms a further token of the batch; "
          f"{beam * 1e3:.1f} ms a token and further beam", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
