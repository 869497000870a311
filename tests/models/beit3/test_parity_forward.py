"""The encoder and the VQA head give the original's numbers."""

from __future__ import annotations

import pytest
import torch
from kovqa_core.models.beit3.network import (
    Beit3VqaNet,
    MultiwayEncoder,
    TokenStreams,
    drop_path_factors,
    drop_path_rates,
)
from torch import Tensor

from tests import parity

HIDDEN, LOGITS = 2e-4, 5e-5  # largest deviation, as recorded beside the numbers


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return parity.tensors_of("inputs.safetensors")


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    return parity.tensors_of("expected_forward.safetensors")


@pytest.fixture(scope="module")
def net() -> Beit3VqaNet:
    return parity.vqa_model().net.eval()


def visible(inputs: dict[str, Tensor], pictures: bool) -> Tensor:
    """[B, N], True where a token is real: padded positions hold nothing to compare."""
    text = inputs["padding_mask"] == 0
    patches = torch.ones(len(text), parity.config().num_patches + 1, dtype=torch.bool)
    return torch.cat([patches, text], 1) if pictures else text


def compare_states(
    encoder: MultiwayEncoder,
    arguments: dict[str, Tensor],
    expected: dict[str, Tensor],
    prefix: str,
    read_mask: Tensor | None,
) -> None:
    """All hidden states and the output that were recorded below a prefix."""
    states: list[TokenStreams] = []
    with torch.no_grad():
        out = encoder(**arguments, watch=states.append)
    states_by_name = {f"{prefix}.hidden{i}": state for i, state in enumerate(states)} | {f"{prefix}.out": out}
    wanted = {name: value for name, value in expected.items() if name.startswith(f"{prefix}.")}
    assert wanted, f"nothing recorded below {prefix}"
    assert wanted.keys() <= states_by_name.keys()
    for name, value in wanted.items():
        ours = torch.cat(states_by_name[name], 1)
        assert ours.shape == value.shape, name
        parity.close(
            *((ours, value) if read_mask is None else (ours[read_mask], value[read_mask])),
            atol=HIDDEN,
            what=name,
        )


@torch.no_grad()
def test_parity_beit3_vqa_logits(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    arguments = inputs["image"], inputs["language_tokens"], inputs["padding_mask"].bool()
    parity.close(net.pooled(*arguments), expected["vqa.pooled"], LOGITS, "pooled")
    parity.close(net(*arguments), expected["vqa.logits"], LOGITS, "logits")


@torch.no_grad()
def test_parity_beit3_vqa_logits_without_mask(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    wanted = expected["vqa.logits_nopad"]
    rows = len(wanted)
    logits = net(inputs["image"][:rows], inputs["language_tokens"][:rows], None)
    parity.close(logits, wanted, LOGITS, "logits without a mask")


@torch.no_grad()
def test_parity_beit3_vqa_logits_with_padding_trimmed(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    """Our batches end with their longest question; the recorded ones are padded further."""
    lengths = (inputs["padding_mask"] == 0).sum(1)
    for row, length in enumerate(lengths.tolist()):
        one = slice(row, row + 1)
        logits = net(inputs["image"][one], inputs["language_tokens"][one, :length], None)
        parity.close(logits, expected["vqa.logits"][one], LOGITS, f"logits of row {row}, all padding removed")
    longest = int(lengths.max())
    tokens, padding = inputs["language_tokens"][:, :longest], inputs["padding_mask"][:, :longest].bool()
    parity.close(net(inputs["image"], tokens, padding), expected["vqa.logits"], LOGITS, "trimmed logits")


@torch.no_grad()
def test_parity_beit3_vqa_logits_with_activation_checkpointing(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    net.encoder.activation_checkpointing = True
    try:
        with torch.enable_grad():
            logits = net(inputs["image"], inputs["language_tokens"], inputs["padding_mask"].bool())
    finally:
        net.encoder.activation_checkpointing = False
    parity.close(logits, expected["vqa.logits"], LOGITS, "logits")


def test_parity_beit3_states_of_picture_and_text(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    arguments = {
        "image": inputs["image"],
        "tokens": inputs["language_tokens"],
        "padding": inputs["padding_mask"].bool(),
    }
    compare_states(net.encoder, arguments, expected, "vl", visible(inputs, pictures=True))


def test_parity_beit3_states_of_text(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    arguments = {"tokens": inputs["language_tokens"], "padding": inputs["padding_mask"].bool()}
    compare_states(net.encoder, arguments, expected, "text", visible(inputs, pictures=False))


def test_parity_beit3_states_of_picture(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    compare_states(net.encoder, {"image": inputs["image"]}, expected, "image", None)


def test_parity_beit3_states_with_hidden_patches(
    net: Beit3VqaNet, inputs: dict[str, Tensor], expected: dict[str, Tensor]
) -> None:
    arguments = {
        "image": inputs["image"],
        "tokens": inputs["language_tokens"],
        "padding": inputs["padding_mask"].bool(),
        "masked": inputs["vision_masked_position"].bool(),
    }
    assert arguments["masked"].any()
    compare_states(net.encoder, arguments, expected, "vl_vmask", visible(inputs, pictures=True))


def test_parity_beit3_states_with_final_norm(inputs: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    arguments = {
        "image": inputs["image"],
        "tokens": inputs["language_tokens"],
        "padding": inputs["padding_mask"].bool(),
    }
    compare_states(
        parity.caption_encoder(), arguments, expected, "cap_vl_finalln", visible(inputs, pictures=True)
    )


def test_parity_beit3_drop_path_rates() -> None:
    for case in parity.json_of("expected_drop_path.json"):
        rates = drop_path_rates(case["rate"], case["layers"])
        assert rates == pytest.approx(case["values"], rel=0, abs=1e-12)


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_parity_beit3_drop_path_keeps_or_drops_each_sample(rate: float) -> None:
    """Rate r of a layer drops a share r of the samples and divides the others by 1 - r."""
    config = parity.config(drop_path=rate)
    draws = torch.rand(4000, config.dimensions.num_layers, 2, generator=torch.Generator().manual_seed(1))
    keep = drop_path_factors(draws, drop_path_rates(rate, config.dimensions.num_layers))
    assert keep.shape == (config.dimensions.num_layers, 2, len(draws), 1, 1)
    for layer, value in enumerate(drop_path_rates(rate, config.dimensions.num_layers)):
        factors = keep[layer][keep[layer] > 0]
        assert factors.numpy() == pytest.approx(1 / (1 - value), rel=1e-6)
        assert keep[layer].count_nonzero().item() / keep[layer].numel() == pytest.approx(1 - value, abs=0.03)
