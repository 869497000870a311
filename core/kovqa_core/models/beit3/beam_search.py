"""Words from a picture, one by one: beam search as the original does it.

Source: docs/sources/beit3.md, B45 to B47. What differs is the cost only: the picture is
encoded once, its beams share it, the words' keys and values are kept, and a picture whose caption
is settled leaves the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.xlmr_tokenizer import BOS_ID, EOS_ID


@dataclass(frozen=True)
class BeamSearchSettings:
    """How captions are sought.

    Attributes:
        beams: captions followed at once; 1 is greedy.
        longest: tokens of a caption, `<s>` and `</s>` included.
        length_penalty: power of the length the sum of log-probabilities is divided by.
    """

    beams: int = 3
    longest: int = 32
    length_penalty: float = 0.6


@dataclass(frozen=True)
class BeamHypothesis:
    """A finished caption.

    Attributes:
        words: ids, without `<s>` and `</s>`.
        total: sum of their log-probabilities, that of `</s>` included.
        score: `total` divided by the length to the power of the penalty.
    """

    words: list[int]
    total: float
    score: float


OpenBeams = list[tuple[list[int], float]]  # (words, sum of their log-probabilities)
GrownBeams = list[tuple[int, list[int], float]]  # (number of the beam it grew from, words, sum)
BeamCandidate = tuple[float, int, int]  # (sum, beam, word)


def run_beam_search(
    net: CaptionNet, image: Tensor, search: BeamSearchSettings, mask_id: int
) -> list[BeamHypothesis]:
    """The best caption found for each picture.

    Args:
        net: the captioner.
        image: [B, 3, S, S], normalised.
        search: how to search.
        mask_id: id of `<mask>`, the last id that means something: rows of the head behind it are
            never named.
    """
    found: list[BeamHypothesis | None] = [None] * len(image)
    open_ = list(range(len(image)))  # pictures still sought for, in the order of the rows
    beams: list[OpenBeams] = [[([], 0.0)] for _ in open_]
    picture = net.picture(image)
    past = net.past(len(image), search.longest, picture[0][0])
    last = torch.full((len(image),), BOS_ID, device=image.device)
    while open_:
        totals = torch.tensor([[total for _, total in each] for each in beams], device=image.device)
        logits = net.next_words(last, mask_id, picture, past).float()
        candidates = _best_candidates(logits[:, : mask_id + 1], totals, 3 * search.beams)
        going, rows = [], []
        for n, (number, options) in enumerate(zip(open_, candidates, strict=True)):
            found[number], grown = _extend_beams(beams[n], options, found[number], search)
            if grown:
                going.append(n)
                rows.append((n, grown))
        beams = [[(words, total) for _, words, total in grown] for _, grown in rows]
        width = totals.shape[1]
        places = [n * width + beam for n, grown in rows for beam, _, _ in grown]
        if len(going) < len(open_):
            kept = torch.tensor(going, device=image.device, dtype=torch.long)
            picture = [(k[kept], v[kept]) for k, v in picture]
            open_ = [open_[n] for n in going]
        if open_:
            past = past.of(torch.tensor(places, device=image.device))
            last = torch.tensor([words[-1] for each in beams for words, _ in each], device=image.device)
    return [caption for caption in found if caption is not None]


def _best_candidates(logits: Tensor, totals: Tensor, wanted: int) -> list[list[BeamCandidate]]:
    """The best next words of each picture, best first: of every beam's best, the best of all.

    Args:
        logits: [B·K, W].
        totals: [B, K], sums of the beams so far.
        wanted: candidates a picture.
    """
    pictures = len(totals)
    best = logits.topk(min(wanted, logits.shape[1]))
    sums = best.values - logits.logsumexp(-1, keepdim=True) + totals.view(-1, 1)
    top = sums.view(pictures, -1).topk(min(wanted, sums.numel() // pictures))
    each = best.indices.shape[1]
    words = best.indices.view(pictures, -1).gather(1, top.indices)
    return [
        list(zip(s, (place // each for place in p), w, strict=True))
        for s, p, w in zip(top.values.tolist(), top.indices.tolist(), words.tolist(), strict=True)
    ]


def _extend_beams(
    beams: OpenBeams, options: list[BeamCandidate], best: BeamHypothesis | None, search: BeamSearchSettings
) -> tuple[BeamHypothesis | None, GrownBeams]:
    """The best finished caption of a picture after one more word, and the beams that go on."""
    length = len(beams[0][0]) + 2  # `<s>`, the words so far, the word now sought
    if best is not None and options[0][0] / (search.longest - 1) ** search.length_penalty <= best.score:
        return best, []
    last = length + 1 == search.longest
    grown: GrownBeams = []
    for total, beam, word in options:
        words = beams[beam][0]
        if word == EOS_ID or last:
            score = total / length**search.length_penalty
            if best is None or score > best.score:
                best = BeamHypothesis(words, total, score)
        else:
            grown.append((beam, [*words, word], total))
        if len(grown) == search.beams:
            break
    return best, grown
