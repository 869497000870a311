"""Check 18: torch.compile makes some graphs of every family, and few."""

from __future__ import annotations

import functools

import pytest
import torch
from torch._dynamo.utils import counters

from tests.conftest import Small
from tests.gpu.devices import TinyVlm, autocast_on, build, on_devices

CASES = ("beit3:vqa", "beit3:caption", "fusion:product", "fusion:grid", "vlm:lora")
MOST = 4


@pytest.mark.parametrize(("device", "case"), on_devices(CASES[:1], CASES))
def test_few_graphs(
    small: Small, tiny_vlm: TinyVlm, monkeypatch: pytest.MonkeyPatch, device: torch.device, case: str
) -> None:
    """Learning from batches of several sizes, then once more: no graph is added by what was seen before."""
    if device.type == "cpu":  # the graphs are the same; compiling them to C++ would take a minute
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    built = [build(case, small, tiny_vlm, device, examples=rows) for rows in (4, 3)]
    model = built[0].model.train()
    torch._dynamo.reset()
    counters.clear()
    model.prepare(activation_checkpointing=False, compile=True)
    found = []
    for _ in range(2):
        for each in built:
            with autocast_on(device, torch.bfloat16):
                model(each.learn, 0)["loss"].backward()
        found.append(counters["stats"]["unique_graphs"])
    assert 0 < found[0] <= MOST, counters["graph_break"]
    assert found[1] == found[0]
