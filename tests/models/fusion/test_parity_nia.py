"""Fusion models with the original's weights give the original's numbers."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.data.image_io import open_image
from kovqa_core.models import image_transforms
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.fusion import losses, network
from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.family import FusionModel
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.state_dict_names import our_tensor_name, rename_state_dict
from kovqa_core.models.fusion.tokenizer import open_question_tokenizer
from kovqa_core.settings.recipe import OptimSettings
from kovqa_core.train.optim import make_optimizer, set_learning_rate
from PIL import Image
from PIL.Image import Resampling
from torch import Tensor, nn

from tests import parity

NIA = "vqa_nia"
TOLERANCE = 1e-4


@functools.cache
def arrays(name: str) -> dict[str, Any]:
    """A recorded .npz."""
    with np.load(parity.path(name, NIA)) as recording:
        return {key: recording[key] for key in recording.files}


def tensors(name: str) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in arrays(name).items() if value.ndim}


def config(**changes: Any) -> ModelConfig:
    """Our configuration of the recorded model, dropout off."""
    about = parity.json_of("config.json", NIA)
    # What our network sets itself: it is as wide as the questions are, and its weights are loaded.
    picture = {k: v for k, v in about["image"]["kwargs"].items() if k not in ("pretrained", "num_classes")}
    known = {
        "question_config": {**about["text"], "model_type": "xlm-roberta", "hidden_dropout_prob": 0.0,
                            "attention_probs_dropout_prob": 0.0},
        "picture_config": {"architecture": about["image"]["timm_name"], **picture},
        "hidden_size": about["dim_h"], "num_classes": about["n_answers"], "image_size": about["image_size_hw"][0],
        "transformer_heads": about["encoder"]["nhead"], "transformer_ffn": about["encoder"]["dim_feedforward"],
        "picture_dropout": 0.0, "head_dropout": 0.0, "transformer_dropout": 0.0,
    }  # fmt: skip
    return ModelConfig(**{**known, **changes})


def recordingnet(**changes: Any) -> FusionNet:
    """Our network with the recorded weights, every one of which is used or knowingly dropped."""
    net = FusionNet(config(**changes))
    state = torch.load(parity.path("state_dict.pt", NIA), weights_only=True)
    named = rename_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()})
    if net.encoder is not None:
        encoder = torch.load(parity.path("encoder.pt", NIA), weights_only=True)
        named |= {f"encoder.{name}": tensor for name, tensor in encoder.items()}
    net.load_state_dict(named)
    return net


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Pixels, ids and where there is padding."""
    recording = tensors("inputs.npz")
    return recording["image"], recording["input_ids"], recording["attention_mask"] == 0


def test_forward() -> None:
    net = recordingnet().eval()
    image, tokens, padding = inputs()
    want = tensors("expected.npz")
    with torch.inference_mode():
        attended = (~padding).long()
        question = net.question(input_ids=tokens, attention_mask=attended).pooler_output
        seen = net.picture(image)
        parity.close(question, want["question"], TOLERANCE, "question")
        parity.close(seen, want["image_raw"], TOLERANCE, "image_raw")
        parity.close(torch.tanh(seen), want["image"], TOLERANCE, "image")
        parity.close(net.fuse_product(image, tokens, attended), want["fused"], TOLERANCE, "fused")
        parity.close(net(image, tokens, padding), want["logits_base"], TOLERANCE, "logits")


@pytest.mark.parametrize(("scope", "name"), [("sample", "single"), ("batch", "batch")])
def test_transformer(scope: str, name: str) -> None:
    layers = parity.json_of("config.json", NIA)["encoder"]["num_layers"]
    net = recordingnet(transformer=layers, scope=scope).eval()
    image, tokens, padding = inputs()
    want = tensors("expected.npz")
    with torch.inference_mode():
        encoded = net.fuse_product(image, tokens, (~padding).long())
        parity.close(encoded, want[f"encoded_{name}"], TOLERANCE, "encoded")
        parity.close(net(image, tokens, padding), want[f"logits_encoder_{name}"], TOLERANCE, "logits")


def test_padding_is_not_needed() -> None:
    """The original pads all questions to one length; as long as the longest of the batch is enough."""
    net = recordingnet().eval()
    image, tokens, _ = inputs()
    want = tensors("expected.npz")["logits_base"]
    with torch.inference_mode():
        for row, length in enumerate(parity.json_of("config.json", NIA)["question_lengths"]):
            alone = net(image[row : row + 1], tokens[row : row + 1, :length], None)
            parity.close(alone, want[row : row + 1], TOLERANCE, f"question {row}")


def test_layers_begin_with_values_of_their_own() -> None:
    first, second, third = FusionNet(config(transformer=3)).encoder.layers  # type: ignore[union-attr]
    assert not torch.equal(first.linear1.weight, second.linear1.weight)
    assert not torch.equal(second.linear1.weight, third.linear1.weight)


def test_focal() -> None:
    """Every recorded gamma, with class weights and without."""
    recording, smoothing = (
        tensors("focal.npz"),
        parity.json_of("config.json", NIA)["focal"]["label_smoothing"],
    )
    functions = {"upstream": losses.original_focal_loss, "per_sample": losses.focal_loss}
    cases = [key.removesuffix("/loss") for key in arrays("focal.npz") if key.endswith("/loss")]
    assert {case.partition("/")[0] for case in cases} == functions.keys()
    assert {case.rpartition("/")[2] for case in cases} == {"none", "weighted"}
    for case in cases:
        kind, gamma, weighting = case.split("/")
        weight = recording["class_weight"] if weighting == "weighted" else None
        logits = recording["logits"].clone().requires_grad_()
        value = functions[kind](
            logits, recording["targets"], float(gamma.removeprefix("g")), weight, smoothing
        )
        value.backward()
        assert value.item() == pytest.approx(float(arrays("focal.npz")[f"{case}/loss"]), abs=1e-5), case
        assert logits.grad is not None
        parity.close(logits.grad, recording[f"{case}/grad"], 1e-6, f"{case}/grad")


def test_class_weights() -> None:
    recording = arrays("focal.npz")
    ours_ = losses.compute_class_weights(recording["counts"].tolist(), "original")
    parity.close(ours_, torch.from_numpy(recording["class_weight"]).float(), 1e-6, "1 - n / N")
    for kind in ("inverse_sqrt", "effective"):
        weights = losses.compute_class_weights([100, 10, 1, 0], kind)
        assert weights.tolist() == sorted(weights.tolist())
        assert weights.mean().item() == pytest.approx(1.0)


def test_focal_without_focus_is_cross_entropy() -> None:
    recording = tensors("focal.npz")
    logits, targets = recording["logits"], recording["targets"].clone()
    targets[2] = losses.NO_CLASS
    assert losses.focal_loss(logits, targets, 0.0, None, 0.1).item() == pytest.approx(
        losses.class_cross_entropy(logits, targets, None, 0.1).item(), rel=1e-6
    )


def step_settings(tag: str) -> dict[str, Any]:
    """Our settings of a recorded step, which its tag names."""
    about = parity.json_of("config.json", NIA)
    upstream: dict[str, Any] = {"gradient_times_loss": True}
    return {
        "ce": {},
        "ce_upstream": upstream,
        # Its gamma is said in the recording's README alone.
        "focal_upstream": upstream | {
            "loss": "focal_original", "gamma": about["train_step"].get("gamma", 2.0), "class_weights": "original",
            "smoothing": about["focal"]["label_smoothing"],
        },
    }[tag]  # fmt: skip


@pytest.mark.parametrize(
    "tag", sorted({key.partition("/")[0] for key in arrays("train_step.npz") if "/" in key})
)
def test_training_step(tag: str) -> None:
    """Loss, gradients, weights after one AdamW step, and BatchNorm's statistics."""
    about, want = parity.json_of("config.json", NIA)["train_step"], arrays("train_step.npz")
    net = recordingnet().train()
    net.config = config(**step_settings(tag))
    if net.config.class_weights != "none":
        net.class_weight = torch.tensor(about["class_weight"])
    for module in net.modules():
        assert not (isinstance(module, nn.Dropout) and module.p)
    model = FusionModel(net, [])
    settings = OptimSettings(
        steps=1, global_batch=len(about["targets"]), lr=about["lr"], weight_decay=about["weight_decay"],
        decay_bias_and_norm=True,
        betas=tuple(about["betas"]), eps=about["eps"],
    )  # fmt: skip
    optimizer = make_optimizer(model, model, settings)
    set_learning_rate(optimizer, about["lr"])
    image, tokens, padding = inputs()
    tensors = {
        "image": image,
        "tokens": tokens,
        "padding": padding,
        "targets": torch.tensor(about["targets"]),
    }
    batch = ModelBatch(tensors, [str(number) for number in range(len(image))])
    loss = model(batch, 0)["loss"]
    assert loss.item() == pytest.approx(float(want[f"{tag}/loss"]), abs=1e-4)
    loss.backward()
    own = dict(net.named_parameters())
    gradients = {name: p.grad.clone() for name, p in own.items() if p.grad is not None}
    optimizer.step()
    state = net.state_dict()
    compared = 0
    for key, value in want.items():
        which, _, original = key.removeprefix(f"{tag}/").partition("/")
        if not key.startswith(f"{tag}/") or not original:
            continue
        name, recorded = our_tensor_name(original), torch.from_numpy(value)
        assert name is not None
        if which == "grad":
            parity.close(gradients[name], recorded, 1e-4 * recorded.abs().max().item(), key)
        else:
            parity.close(state[name], recorded, TOLERANCE, key)
        compared += 1
    assert compared


def only_file(folder: str, pattern: str) -> Path:
    (file,) = parity.path(folder, NIA).glob(pattern)
    return file


def test_tokenizer() -> None:
    recorded = parity.json_of("tokenizer/expected.json", NIA)
    text = open_question_tokenizer(only_file("tokenizer", "*.model"), None)
    assert text.vocab_size == recorded["tokenizer_vocab_size"]
    for example in recorded["examples"]:
        real = sum(example["attention_mask"])
        assert (
            text.encode_with_specials(example["text"], example["max_length"]) == example["input_ids"][:real]
        )


def test_pictures() -> None:
    """By this Pillow or by the one it was recorded with: see `parity.resized_by_pillow`."""
    want = arrays("transform/expected.npz")
    side = int(want["size"])
    names = {key.partition("/")[0] for key in want} - {"size"}
    assert names
    for name in names:
        image = open_image(parity.path(f"transform/{name}", NIA), as_stored=True)
        releases = [pixels_of(each) for each in parity.resized_by_pillow(image, side, Resampling.BILINEAR)]
        ours = pixels_of(image_transforms.resize_square(image, side, Resampling.BILINEAR))
        assert any(np.array_equal(ours, each) for each in releases), name
        recorded = want[f"{name}/resized_uint8"].transpose(2, 0, 1)
        assert any(np.array_equal(recorded, each) for each in releases), name
        config = ModelConfig(image_size=side)
        tensor = network.normalise_by_mean_std(
            torch.from_numpy(np.ascontiguousarray(recorded))[None],
            *(torch.tensor(values)[:, None, None] for values in (config.mean, config.std)),
        )[0]
        every_16 = torch.from_numpy(want[f"{name}/tensor_every_16"])
        parity.close(tensor[:, ::16, ::16], every_16, 1e-5, name)
        spread = torch.stack([tensor.double().mean(), tensor.double().std()])
        parity.close(spread, torch.from_numpy(want[f"{name}/mean_std"]), 1e-4, f"{name} mean and deviation")


def pixels_of(image: Image.Image) -> np.ndarray:
    return image_transforms.image_to_array(image)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_batch_without_any_class_has_loss_0(smoothing: float) -> None:
    logits = torch.randn(2, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    targets, weight = torch.full((2,), losses.NO_CLASS), torch.tensor([1.0, 2.0, 0.5])
    for function in (losses.class_cross_entropy, functools.partial(losses.focal_loss, gamma=2.0)):
        value = function(logits, targets, weight=weight, smoothing=smoothing)
        value.backward()
        assert value == 0
        assert logits.grad is not None
        assert not logits.grad.any()
    assert losses.row_weights(torch.tensor([1, losses.NO_CLASS]), weight).tolist() == [2.0, 0.0]
