"""A caption for an image, token by token: beam search as the original does it.

Source: docs/sources/beit3.md, B45 to B47. Only the cost differs: the image is encoded once and shared by
its beams, keys and values of the tokens are cached, and an image whose caption is settled leaves the batch.

Shapes: B images, K beams an image, R = B · K rows, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.xlmr_tokenizer import BOS_ID, EOS_ID


@dataclass(frozen=True)
class BeamSearchSettings:
    """How captions are searched for.

    Attributes:
        num_beams: captions followed at once; 1 is greedy.
        max_length: tokens of a caption, `<s>` and `</s>` included.
        length_penalty: power of the length that the sum of log-probabilities is divided by.
    """

    num_beams: int = 3
    max_length: int = 32
    length_penalty: float = 0.6


@dataclass(frozen=True)
class BeamHypothesis:
    """A finished caption.

    Attributes:
        token_ids: without `<s>` and `</s>`.
        log_probability: sum over its tokens, `</s>` included.
        score: `log_probability` divided by the length to the power of the penalty.
    """

    token_ids: list[int]
    log_probability: float
    score: float


OpenBeams = list[tuple[list[int], float]]  # (ids, sum of their log-probabilities)
GrownBeams = list[tuple[int, list[int], float]]  # (number of the beam it grew from, ids, sum)
BeamCandidate = tuple[float, int, int]  # (sum, beam, id)


def run_beam_search(
    net: CaptionNet, image: Tensor, search: BeamSearchSettings, mask_id: int
) -> list[BeamHypothesis]:
    """The best caption found for each image.

    Args:
        net: the captioner.
        image: [B, 3, S, S], normalised.
        search: how to search.
        mask_id: id of `<mask>`, the last id that means something: rows of the head after it are
            never predicted.
    """
    # `number` is an image's place in the call, n its place in the batch: they differ once an image has left.
    best: list[BeamHypothesis | None] = [None] * len(image)
    unfinished = list(range(len(image)))  # images still searched for, in the order of the rows
    # One beam an image at first: K equal ones would propose the same token K times. R = B, then B · K.
    beams: list[OpenBeams] = [[([], 0.0)] for _ in unfinished]
    image_cache = net.encode_image(image)
    text_cache = net.empty_kv_cache(len(image), search.max_length, image_cache[0][0])
    last_ids = torch.full((len(image),), BOS_ID, device=image.device)
    while unfinished:
        # Rectangular, [B, K]: each beam can end once, so of 3 K candidates at least 2 K go on.
        sums = torch.tensor([[total for _, total in each] for each in beams], device=image.device)
        logits = net.next_token_logits(last_ids, mask_id, image_cache, text_cache).float()
        # 3 K candidates: as many as the original looks at, so that K go on even if many of them end.
        candidates = _best_candidates(logits[:, : mask_id + 1], sums, 3 * search.num_beams)
        still_open: list[int] = []
        grown: list[GrownBeams] = []
        for n, (number, options) in enumerate(zip(unfinished, candidates, strict=True)):
            best[number], going_on = _extend_beams(beams[n], options, best[number], search)
            if going_on:
                still_open.append(n)
                grown.append(going_on)
        beams = [[(ids, total) for _, ids, total in each] for each in grown]
        width = sums.shape[1]
        # Rows of the caches that the new beams go on from: several may grow from one.
        parents = [n * width + beam for n, each in zip(still_open, grown, strict=True) for beam, _, _ in each]
        if len(still_open) < len(unfinished):
            open_images = torch.tensor(still_open, device=image.device, dtype=torch.long)
            image_cache = [(keys[open_images], values[open_images]) for keys, values in image_cache]
            unfinished = [unfinished[n] for n in still_open]
        if unfinished:
            text_cache = text_cache.select_rows(torch.tensor(parents, device=image.device))
            last_ids = torch.tensor([ids[-1] for each in beams for ids, _ in each], device=image.device)
    return [caption for caption in best if caption is not None]


def _best_candidates(logits: Tensor, sums: Tensor, number: int) -> list[list[BeamCandidate]]:
    """The best next tokens of each image, best first: of every beam's best, the best of all.

    Args:
        logits: [R, V].
        sums: [B, K], log-probabilities of the beams so far.
        number: candidates an image.
    """
    images = len(sums)
    # The best `number` of all beams are among the best `number` of each: so only [R, number] is sorted twice.
    of_beam = logits.topk(min(number, logits.shape[1]))
    # Log-probabilities of the candidates alone: a log_softmax would write all V of them.
    totals = of_beam.values - logits.logsumexp(-1, keepdim=True) + sums.view(-1, 1)
    of_image = totals.view(images, -1).topk(min(number, totals.numel() // images))
    # A position counts through [K, per_beam]: its quotient is the beam.
    per_beam = of_beam.indices.shape[1]
    ids = of_beam.indices.view(images, -1).gather(1, of_image.indices)
    return [
        list(zip(total, (at // per_beam for at in position), id, strict=True))
        for total, position, id in zip(
            of_image.values.tolist(), of_image.indices.tolist(), ids.tolist(), strict=True
        )
    ]


def _extend_beams(
    beams: OpenBeams,
    candidates: list[BeamCandidate],
    best: BeamHypothesis | None,
    search: BeamSearchSettings,
) -> tuple[BeamHypothesis | None, GrownBeams]:
    """The best finished caption of an image after one more token, and the beams that go on."""
    length = len(beams[0][0]) + 2  # `<s>`, the tokens so far, the one now chosen
    # Even if the best candidate ended with probability 1 at full length, it would not win any more.
    if best is not None and candidates[0][0] / (search.max_length - 1) ** search.length_penalty <= best.score:
        return best, []
    is_last = length + 1 == search.max_length
    grown: GrownBeams = []
    for total, beam, id in candidates:
        ids = beams[beam][0]
        if id == EOS_ID or is_last:
            score = total / length**search.length_penalty
            if best is None or score > best.score:
                best = BeamHypothesis(ids, total, score)
        else:
            grown.append((beam, [*ids, id], total))
        if len(grown) == search.num_beams:
            break
    return best, grown
