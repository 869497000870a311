"""Beams chosen by tensors are those that plain Python chooses, whenever it is asked which captions are settled."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from kovqa_core.models.beit3 import beam_search
from kovqa_core.models.beit3.beam_search import BeamHypothesis, BeamSearchSettings, run_beam_search
from kovqa_core.models.xlmr_tokenizer import EOS_ID
from torch import Tensor

from tests import parity
from tests.cuda_autocast import Waits

MASK = 11  # of a vocabulary of 14


@dataclass
class History:
    """The token ids so far, in the place of keys and values."""

    ids: list[tuple[int, ...]]

    def select_rows(self, rows: Tensor) -> History:
        return History([self.ids[row] for row in rows.tolist()])


@dataclass
class DrawnNet:
    """Its logits are drawn, the same for the same image and text; counts its rows."""

    ends: float
    rows: list[int] = field(default_factory=list)

    def search_cache(self, image: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(image, image)]

    def empty_kv_cache(self, rows: int, max_length: int, like: Tensor) -> History:
        return History([()] * rows)

    def next_token_logits(
        self, last_ids: Tensor, mask_id: int, cache: list[tuple[Tensor, Tensor]], history: History
    ) -> Tensor:
        self.rows.append(len(last_ids))
        history.ids = [(*ids, last) for ids, last in zip(history.ids, last_ids.tolist(), strict=True)]
        images, beams = cache[0][1], len(last_ids) // len(cache[0][1])
        names = [int(images[row // beams].sum()) for row in range(len(last_ids))]
        return torch.stack([self.logits(name, ids) for name, ids in zip(names, history.ids, strict=True)])

    def logits(self, image: int, ids: tuple[int, ...]) -> Tensor:
        logits = torch.randn(14, generator=torch.Generator().manual_seed(hash((image, ids)) % 2**31))
        logits[EOS_ID] += self.ends
        return logits


def plain_search(net: DrawnNet, image: int, search: BeamSearchSettings) -> BeamHypothesis:
    """The original's rule for one image (docs/sources/beit3.md, B45 to B47), in Python's own numbers."""
    beams: list[tuple[list[int], float]] = [([], 0.0)]
    best: BeamHypothesis | None = None
    for length in range(2, search.max_length):
        grown = []
        for ids, total in beams:
            logits = net.logits(image, (0, *ids))[: MASK + 1]
            sums = logits - logits.logsumexp(-1, keepdim=True) + torch.tensor(total)
            grown += [(float(value), ids, id) for id, value in enumerate(sums)]
        candidates = sorted(grown, key=lambda one: -one[0])[: 3 * search.num_beams]
        longest = (search.max_length - 1) ** search.length_penalty
        if best is not None and candidates[0][0] / longest <= best.score:
            break
        beams = []
        for total, ids, id in candidates:
            if id == EOS_ID or length + 1 == search.max_length:
                score = total / length**search.length_penalty
                if best is None or score > best.score:
                    best = BeamHypothesis(ids, total, score)
            else:
                beams.append(([*ids, id], total))
            if len(beams) == search.num_beams:
                break
    assert best is not None
    return best


@pytest.mark.parametrize("between", [1, 2, 4])
@pytest.mark.parametrize(("beams", "length", "penalty", "ends"), [
    (3, 12, 0.6, 0.0), (1, 12, 1.0, 1.0), (5, 9, 0.0, 2.0), (2, 4, 2.0, -3.0), (3, 3, 0.6, 0.0), (4, 12, 0.6, -9.0),
])  # fmt: skip
def test_beams_are_those_of_the_rule(
    monkeypatch: pytest.MonkeyPatch, beams: int, length: int, penalty: float, ends: float, between: int
) -> None:
    monkeypatch.setattr(beam_search, "words_between_checks", lambda _: between)
    search, net = BeamSearchSettings(beams, length, penalty), DrawnNet(ends)
    images = torch.arange(6.0).view(6, 1, 1, 1)
    found = run_beam_search(net, images, search, MASK)  # type: ignore[arg-type]
    expected = [plain_search(net, image, search) for image in range(6)]
    assert [one.token_ids for one in found] == [one.token_ids for one in expected]
    assert [one.log_probability for one in found] == [one.log_probability for one in expected]
    assert [one.score for one in found] == [one.score for one in expected], "to the last bit"
    if (beams, ends, between) == (1, 1.0, 1):
        assert net.rows[-1] < net.rows[0], "what is settled has left"


@torch.no_grad()
def test_a_gpu_is_asked_every_few_words_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    net, mask = parity.caption_net().eval(), parity.json_of("config.json")["mask_id"]
    images = parity.tensors_of("beam_images.safetensors")["image"]
    search = BeamSearchSettings(3, 20, 0.6)
    at_once = run_beam_search(net, images, search, mask)
    monkeypatch.setattr(beam_search, "words_between_checks", lambda _: 4)
    with Waits() as waits:
        read = beam_search.begin_beam_search(net, images, search, mask)
        asked = len(waits.calls)
    assert set(waits.calls) <= {"tolist"}
    assert asked <= 18 // 4 + 1
    assert [one.token_ids for one in read()] == [one.token_ids for one in at_once]
