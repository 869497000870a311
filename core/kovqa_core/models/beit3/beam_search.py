"""A caption for an image, token by token: beam search as the original does it.

Source: docs/sources/beit3.md, B45 to B47. Only the cost differs: the image is encoded once and shared by
its beams, keys and values of the tokens are cached, and an image whose caption is settled leaves the batch.
Beams are chosen where the network is, so that a GPU is never waited for within a word.

Shapes: B images still searched for, K beams an image, R = B · K rows, C candidates an image, L tokens of a
caption at most, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.read_later import read_later
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


def words_between_checks(device: torch.device) -> int:
    """How many words are searched before it is asked which captions are settled.

    On a GPU the answer is read a word later, and meanwhile the search goes on for all; on a CPU (1) at once.
    """
    return 4 if device.type == "cuda" else 1


@dataclass(frozen=True)
class _Candidates:
    """The best next tokens of each image, best first.

    Attributes:
        totals: [B, C], sums of log-probabilities.
        beams: [B, C], which of the image's beams grows.
        ids: [B, C], by which token.
    """

    totals: Tensor
    beams: Tensor
    ids: Tensor


@dataclass(frozen=True)
class _Search:
    """What is known of the images that are still searched for.

    Attributes:
        places: [B], of the images in the call.
        token_ids: [B, K, L], of the beams; as many as there have been words are filled.
        sums: [B, K], their log-probabilities.
        best_ids: [B, L], of the best finished caption so far.
        best_length: [B], how many of them.
        best_total: [B], its log-probability.
        best_score: [B], its score; -inf: there is none.
        settled: [B], no open beam can become better than it.
    """

    places: Tensor
    token_ids: Tensor
    sums: Tensor
    best_ids: Tensor
    best_length: Tensor
    best_total: Tensor
    best_score: Tensor
    settled: Tensor

    def select(self, images: Tensor) -> _Search:
        """Of these images alone."""
        return _Search(*(tensor[images] for tensor in vars(self).values()))


def run_beam_search(
    net: CaptionNet, image: Tensor, search: BeamSearchSettings, mask_id: int
) -> list[BeamHypothesis]:
    """The best caption found for each image; see `begin_beam_search`."""
    return begin_beam_search(net, image, search, mask_id)()


def begin_beam_search(
    net: CaptionNet, image: Tensor, search: BeamSearchSettings, mask_id: int
) -> Callable[[], list[BeamHypothesis]]:
    """The best caption found for each image, to be read later.

    Args:
        net: the captioner.
        image: [B, 3, S, S], normalised.
        search: how to search.
        mask_id: id of `<mask>`, the last id that means something: rows of the head after it are
            never predicted.
    """
    between = words_between_checks(image.device)
    # One beam an image at first: K equal ones would propose the same token K times. R = B, then B · K.
    state, finished = _new_search(image, search), list[_Search]()
    image_cache = net.search_cache(image)
    text_cache = net.empty_kv_cache(len(image), search.max_length, image_cache[0][0])
    last_ids = torch.full((len(image),), BOS_ID, device=image.device)
    check: tuple[int, Tensor, Callable[[], list[list[int]]]] | None = None
    for word in range(search.max_length - 2):
        logits = net.next_token_logits(last_ids, mask_id, image_cache, text_cache).float()
        # 3 K candidates: as many as the original looks at, so that K go on even if many of them end.
        candidates = _best_candidates(logits[:, : mask_id + 1], state.sums, 3 * search.num_beams)
        width = state.sums.shape[1]
        state = _finish_beams(state, candidates, word, search)
        if word == search.max_length - 3:  # all have ended
            break
        state, parents = _grow_beams(state, candidates, word, search)
        if check is None and word % between == 0:
            check = word, state.settled, read_later(state.settled.logical_not().sum().view(1))
        # Rows of the caches that the new beams go on from, [B, K]: several may grow from one.
        rows = torch.arange(len(parents), device=image.device)[:, None] * width + parents
        if check is not None and (word > check[0] or between == 1):
            (_, settled, read), check = check, None
            still_open = read()[0][0]
            if still_open < len(settled):
                # Sorted on the device, those still open first: their number is all that is known here.
                order = settled.int().argsort(stable=True)
                finished.append(state.select(order[still_open:]))
                if not still_open:
                    return _read_hypotheses(finished)
                going_on = order[:still_open]
                state, rows = state.select(going_on), rows[going_on]
                image_cache = [(keys.mT[going_on].mT, values[going_on]) for keys, values in image_cache]
        text_cache = text_cache.select_rows(rows.view(-1))
        last_ids = state.token_ids[:, :, word].reshape(-1)
    return _read_hypotheses([*finished, state])


def _new_search(image: Tensor, search: BeamSearchSettings) -> _Search:
    images, device = len(image), image.device
    # As Python computes: its floats have 64 bits, which Apple's GPUs do not know.
    exact = torch.float32 if device.type == "mps" else torch.float64
    ids = torch.zeros(images, 1, max(1, search.max_length - 2), dtype=torch.long, device=device)
    return _Search(
        places=torch.arange(images, device=device),
        token_ids=ids,
        sums=torch.zeros(images, 1, device=device),
        best_ids=ids[:, 0],
        best_length=torch.zeros(images, dtype=torch.long, device=device),
        best_total=torch.full((images,), -math.inf, device=device),
        best_score=torch.full((images,), -math.inf, dtype=exact, device=device),
        settled=torch.zeros(images, dtype=torch.bool, device=device),
    )


def _read_hypotheses(finished: list[_Search]) -> Callable[[], list[BeamHypothesis]]:
    """The captions in the order of the call, one wait for all."""
    parts = [
        torch.cat([getattr(part, name) for part in finished])
        for name in ("places", "best_ids", "best_length", "best_total", "best_score")
    ]
    read = read_later(*parts)

    def hypotheses() -> list[BeamHypothesis]:
        rows = sorted(zip(*read(), strict=True))
        return [BeamHypothesis(ids[:length], total, score) for _, ids, length, total, score in rows]

    return hypotheses


def _best_candidates(logits: Tensor, sums: Tensor, number: int) -> _Candidates:
    """Of every beam's best next tokens the best of all.

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
    return _Candidates(of_image.values, of_image.indices // per_beam, ids)


def _finish_beams(state: _Search, candidates: _Candidates, word: int, search: BeamSearchSettings) -> _Search:
    """The best finished captions after one more token, and which are settled."""
    length = word + 2  # `<s>`, the tokens so far, the one now chosen
    totals = candidates.totals.to(state.best_score.dtype)
    # Even if the best candidate ended with probability 1 at full length, it would not win any more.
    hopeless = totals[:, 0] / (search.max_length - 1) ** search.length_penalty <= state.best_score
    settled = state.settled | (hopeless & (state.best_score > -math.inf))
    ending = _ends(candidates, word, search)
    # Candidates count until K of them go on: an end behind those would not have been looked at.
    ending = ending & (ending.logical_not().cumsum(1) < search.num_beams)
    # The first end is the best: candidates come in order. Of none, position 0, which `found` leaves out.
    found, at = ending.int().max(1)
    at = at[:, None]
    score = totals.gather(1, at)[:, 0] / length**search.length_penalty
    better = (found > 0) & (score > state.best_score) & ~settled
    beam = candidates.beams.gather(1, at)[:, :, None].expand(-1, -1, state.token_ids.shape[2])
    return replace(
        state,
        best_ids=torch.where(better[:, None], state.token_ids.gather(1, beam)[:, 0], state.best_ids),
        best_length=torch.where(better, word, state.best_length),
        best_total=torch.where(better, candidates.totals.gather(1, at)[:, 0], state.best_total),
        best_score=torch.where(better, score, state.best_score),
        settled=settled,
    )


def _ends(candidates: _Candidates, word: int, search: BeamSearchSettings) -> Tensor:
    """Which candidates end their captions, [B, C]: `</s>`, and of the last word all."""
    if word == search.max_length - 3:
        return torch.ones_like(candidates.ids, dtype=torch.bool)
    return candidates.ids == EOS_ID


def _grow_beams(
    state: _Search, candidates: _Candidates, word: int, search: BeamSearchSettings
) -> tuple[_Search, Tensor]:
    """The beams that go on, the best first, and the beam that each grew from, [B, K]."""
    width, number = state.sums.shape[1], candidates.ids.shape[1]
    # Rectangular: each beam can end once, so that many go on for every image. Usually it is K: of 3 K at least 2 K.
    going_on = min(search.num_beams, number - width)
    order = (candidates.ids == EOS_ID).int().argsort(dim=1, stable=True)[:, :going_on]
    parents = candidates.beams.gather(1, order)
    token_ids = state.token_ids.gather(1, parents[:, :, None].expand(-1, -1, state.token_ids.shape[2]))
    token_ids[:, :, word] = candidates.ids.gather(1, order)
    grown = replace(state, token_ids=token_ids, sums=candidates.totals.gather(1, order))
    return grown, parents
