"""Check 1: captions are evaluated in 16 bits as in 32."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from kovqa_core.answer.inference import answer_examples
from kovqa_core.distributed.rank_info import RankInfo

from tests.conftest import Small
from tests.gpu.devices import CPU, TinyVlm, autocast_on, build, on_devices

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize(("device", "dtype"), on_devices(DTYPES, DTYPES))
def test_captions_are_evaluated(
    small: Small, tiny_vlm: TinyVlm, device: torch.device, dtype: torch.dtype
) -> None:
    """As validation does it during training. In fp32 they are the CPU's, word for word."""
    built = build("beit3:caption", small, tiny_vlm, device)

    def captions(on: torch.device, dtype: torch.dtype) -> list[str]:
        found = answer_examples(
            built.model.to(on), built.processor, built.examples, built.images, RankInfo(0, 0, 1), on, batch=3,
            autocast=partial(autocast_on, on, dtype),
        )  # fmt: skip
        return [answer.text for _, answer in found]

    here = captions(device, dtype)
    assert len(here) == len(built.examples)
    if dtype == torch.float32:
        assert here == captions(CPU, dtype)
