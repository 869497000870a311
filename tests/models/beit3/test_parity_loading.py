"""Weight files are loaded as the original loads them."""

from __future__ import annotations

import ast

import pytest
import torch
from kovqa_core.errors import ModelError
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.pretrained_weights import (
    LoadReport,
    load_pretrained_weights,
    read_pretrained_weights,
    to_original_state,
)
from torch import Tensor

from tests import parity


def sides() -> list[str]:
    return list(parity.json_of("expected_load_report.json"))


def load(side: str) -> tuple[Beit3VqaNet, LoadReport]:
    net = Beit3VqaNet(parity.config(image_size=int(side))).eval()
    return net, load_pretrained_weights(
        net, parity.weights("pretrain_fp16.pth"), parity.HEADS, "pretrain_fp16.pth"
    )


def recorded_unused(log: list[str]) -> list[str]:
    """The names the original says it had no use for."""
    (line,) = [line for line in log if "not used" in line]
    return ast.literal_eval(line[line.index("[") :])


def test_parity_beit3_loading_reports_what_became_of_every_tensor() -> None:
    for side, expected in parity.json_of("expected_load_report.json").items():
        _, report = load(side)
        assert len(report.loaded) == expected["loaded"], side
        assert sorted(report.newly_initialised) == sorted(expected["not_loaded"]), side
        assert sorted(report.unused) == sorted(recorded_unused(expected["log"])), side
        before, after = expected["grid"]
        assert bool(report.resized) == (before != after), side


@torch.no_grad()
def test_parity_beit3_loading_resizes_positions() -> None:
    expected = parity.tensors_of("expected_load_interpolate.safetensors")
    for side in sides():
        net, _ = load(side)
        table = net.encoder.vision_position_embed
        parity.close(table, expected[f"{side}.pos_embed_A"], 1e-6, f"positions at {side}")


@torch.no_grad()
def test_parity_beit3_loading_encoder_output() -> None:
    expected = parity.tensors_of("expected_load_interpolate.safetensors")
    tokens, padding = expected["language_tokens"], expected["padding_mask"].bool()
    for side in sides():
        net, _ = load(side)
        out = torch.cat(net.encoder(expected[f"image.{side}"], tokens, padding), 1)
        pictures = torch.ones(len(tokens), out.shape[1] - tokens.shape[1], dtype=torch.bool)
        shown = torch.cat([pictures, ~padding], 1)
        wanted = expected[f"{side}.encoder_out"]
        assert out.shape == wanted.shape
        parity.close(out[shown], wanted[shown], 2e-4, f"encoder output at {side}")


@pytest.mark.parametrize("file", ["vqa.pth", "captioning.pth", "pretrain_fp16.pth"])
def test_parity_beit3_loading_gives_fp32(file: str) -> None:
    """Weights below `model` or `module`, in fp16 or fp32."""
    state = parity.weights(file)
    assert "beit3.encoder.embed_positions.A.weight" in state
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_parity_beit3_exporting_gives_the_original_file_back() -> None:
    """Names, shapes and numbers are the original's."""
    original = parity.weights("vqa.pth")
    about = parity.config()
    found = to_original_state(parity.vqa_model().net.state_dict(), about.patch_size)
    assert found.keys() == original.keys()
    for name, tensor in original.items():
        assert torch.equal(found[name], tensor), name


def test_parity_beit3_loading_takes_every_number() -> None:
    """What is loaded comes out again, name by name, bit for bit."""
    original = parity.weights("vqa.pth")
    ours: dict[str, Tensor] = parity.originals(parity.vqa_model().net.named_parameters())
    assert ours.keys() == original.keys()
    for name, tensor in original.items():
        assert torch.equal(ours[name].reshape(tensor.shape), tensor), name


def test_parity_beit3_loading_refuses_a_file_without_heads() -> None:
    """The original goes on with random heads; we stop unless told to."""
    net = Beit3VqaNet(parity.config())
    with pytest.raises(ModelError, match=r"pooler\.norm\.weight is missing") as caught:
        load_pretrained_weights(net, parity.weights("pretrain_fp16.pth"), (), "pretrain_fp16.pth")
    assert "model.reinit" in caught.value.hint


def test_parity_beit3_loading_refuses_another_number_of_classes() -> None:
    classes = parity.config().num_classes
    assert classes is not None
    net = Beit3VqaNet(parity.config(num_classes=classes + 1))
    with pytest.raises(ModelError, match=r"head\.3\.weight is"):
        load_pretrained_weights(net, read_pretrained_weights(parity.path("vqa.pth")).tensors, (), "vqa.pth")
