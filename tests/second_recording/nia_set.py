"""The second set of VQA_NIA: other sizes everywhere, other gammas, another number of transformer layers.

Both encoders are the libraries' own, as in the original; what lies between and after them is written out here.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kovqa_core.models.torchvision_compat import load_torchvision
from torch import Tensor, nn
from torch.nn import functional as f

from tests import parity

NIA = "vqa_nia"
SAME = ("answers", "aihub_json", "tokenizer", "transform")
TEXT = {
    "vocab_size": 90, "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40,
    "max_position_embeddings": 40, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1, "bos_token_id": 0,
    "eos_token_id": 2, "hidden_act": "gelu",
}  # fmt: skip
IMAGE = {"layers": [1, 2, 1, 1], "channels": [8, 8, 12, 16]}
CLASSES, HIDDEN, SIDE, LENGTHS = 9, 20, 48, (10, 6, 3)
ENCODER = {"num_layers": 2, "nhead": 4, "dim_feedforward": 32, "activation": "relu", "norm_first": False}
GAMMAS, SMOOTHING = (0.0, 1.5, 3.0), 0.2
CLASS_WEIGHT = [0.9, 0.8, 0.95, 0.7, 0.99, 0.6, 0.85, 0.9, 0.97]
STEP = {
    "lr": 0.004,
    "weight_decay": 0.002,
    "betas": [0.8, 0.99],
    "eps": 1e-7,
    "targets": [4, 8, 0],
    "gamma": 1.5,
}


class VQAModel(nn.Module):
    """The original's network, by its names."""

    def __init__(self) -> None:
        super().__init__()
        load_torchvision()
        import timm
        from transformers import XLMRobertaConfig, XLMRobertaModel

        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        self.bert = XLMRobertaModel(XLMRobertaConfig(**TEXT, **dropout))
        width = TEXT["hidden_size"]
        self.i_model = timm.create_model("resnet50", pretrained=False, num_classes=width, **IMAGE)
        self.linear, self.h_layer_norm = nn.Linear(width, HIDDEN), nn.LayerNorm(HIDDEN)
        self.out_linear, self.layer_norm = nn.Linear(HIDDEN, CLASSES), nn.LayerNorm(CLASSES)
        self.config = argparse.Namespace(lang="ko", batch_size=12, lr=2e-5, use_transformer_layer=False)

    def fused(self, image: Tensor, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        question = self.bert(input_ids=ids, attention_mask=mask).pooler_output
        raw = self.i_model(image)
        return {"question": question, "image_raw": raw, "image": raw.tanh(), "fused": raw.tanh() * question}

    def logits(self, fused: Tensor) -> Tensor:
        return self.out_linear(self.h_layer_norm(self.linear(fused)).relu())


def original_focal(logits: Tensor, targets: Tensor, gamma: float, weight: Tensor | None, e: float) -> Tensor:
    """Of the batch's mean."""
    ce = f.cross_entropy(logits, targets, weight, label_smoothing=e)
    return (1 - (-ce).exp()) ** gamma * ce


def focal_by_row(logits: Tensor, targets: Tensor, gamma: float, weight: Tensor | None, e: float) -> Tensor:
    ce = f.cross_entropy(logits, targets, label_smoothing=e, reduction="none")
    right = logits.softmax(1)[torch.arange(len(targets)), targets]
    w = torch.ones_like(ce) if weight is None else weight[targets]
    return (w * (1 - right) ** gamma * ce).sum() / w.sum()


def write_nia_set(folder: Path) -> None:
    """Write the second set into an empty folder."""
    for name in SAME:
        shutil.copytree(parity.path(name, NIA), folder / name)
    torch.manual_seed(30)
    net = VQAModel()
    with torch.no_grad():
        for parameter in net.parameters():  # none at the 0 or 1 that it begins with
            parameter.add_(torch.randn_like(parameter) * 0.1)
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(TEXT["hidden_size"], ENCODER["nhead"], ENCODER["dim_feedforward"], 0.0),
        ENCODER["num_layers"], enable_nested_tensor=False,
    ).eval()  # fmt: skip
    about = {
        "text": TEXT, "image": {"timm_name": "resnet50", "kwargs": {"pretrained": False, "num_classes": 24, **IMAGE}},
        "dim_h": HIDDEN, "n_answers": CLASSES, "question_lengths": LENGTHS, "image_size_hw": [SIDE, SIDE],
        "encoder": ENCODER, "train_step": STEP | {"class_weight": CLASS_WEIGHT},
        "focal": {"label_smoothing": SMOOTHING, "gammas": GAMMAS},
        "pickle": {"file": "infer_model_31.50.pt", "use_transformer_layer": False},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(about))
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, folder / "state_dict.pt")
    torch.save(encoder.state_dict(), folder / "encoder.pt")
    keys = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in state.items()]
    (folder / "keys.json").write_text(json.dumps(keys))
    save_pickled_model(net, folder / about["pickle"]["file"])
    inputs = write_inputs(net, encoder, folder)
    write_focal(folder)
    write_steps(net, state, inputs, folder)


def save_pickled_model(net: VQAModel, path: Path) -> None:
    """As the original saved it: the whole model, of a class that no importable module has."""
    script = types.ModuleType("model")
    script.VQAModel = VQAModel  # type: ignore[attr-defined]
    VQAModel.__module__, home = "model", VQAModel.__module__
    sys.modules["model"] = script
    try:
        torch.save(nn.DataParallel(net), path)
    finally:
        del sys.modules["model"]
        VQAModel.__module__ = home


def write_inputs(net: VQAModel, encoder: nn.Module, folder: Path) -> tuple[Tensor, Tensor, Tensor]:
    rows, length = len(LENGTHS), max(LENGTHS)
    ids = torch.randint(3, TEXT["vocab_size"], (rows, length))
    mask = (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).long()
    ids = torch.where(mask == 1, ids, TEXT["pad_token_id"])
    image = torch.randn(rows, 3, SIDE, SIDE)
    np.savez(folder / "inputs.npz", input_ids=ids.numpy(), attention_mask=mask.numpy(), image=image.numpy())
    net.eval()
    with torch.no_grad():
        expected = net.fused(image, ids, mask)
        fused = expected["fused"]
        # One sequence of all rows, as the original has it; and each row a sequence of its own.
        together, single = encoder(fused[:, None])[:, 0], encoder(fused[None])[0]
        expected |= {
            "logits_base": net.logits(fused), "encoded_batch": together, "logits_encoder_batch": net.logits(together),
            "encoded_single": single, "logits_encoder_single": net.logits(single),
        }  # fmt: skip
    np.savez(folder / "expected.npz", **{name: tensor.numpy() for name, tensor in expected.items()})
    return image, ids, mask


def write_focal(folder: Path) -> None:
    rows, classes = 7, 5
    logits, targets = torch.randn(rows, classes), torch.tensor([0, 3, 3, 1, 4, 2, 3])
    counts = torch.tensor([4.0, 9.0, 1.0, 30.0, 6.0])
    weight = 1 - counts / counts.sum()
    recorded: dict[str, Any] = {
        "logits": logits,
        "targets": targets,
        "counts": counts.long(),
        "class_weight": weight,
    }
    for kind, function in (("upstream", original_focal), ("per_sample", focal_by_row)):
        for gamma in GAMMAS:
            for name, w in (("none", None), ("weighted", weight)):
                x = logits.clone().requires_grad_()
                loss = function(x, targets, gamma, w, SMOOTHING)
                loss.backward()
                recorded |= {
                    f"{kind}/g{gamma}/{name}/loss": loss.detach(),
                    f"{kind}/g{gamma}/{name}/grad": x.grad,
                }
    np.savez(folder / "focal.npz", **{name: np.asarray(value) for name, value in recorded.items()})


def write_steps(net: VQAModel, state: dict[str, Tensor], inputs: tuple[Tensor, ...], folder: Path) -> None:
    """Loss, gradients, and weights after a step of AdamW, from the same state each time."""
    recorded: dict[str, Any] = {}
    targets = torch.tensor(STEP["targets"])
    some = ("out_linear.weight", "linear.weight", "i_model.layer2.1.conv2.weight", "bert.pooler.dense.weight",
            "bert.encoder.layer.2.attention.self.query.weight", "h_layer_norm.weight")  # fmt: skip
    for tag in ("ce", "ce_upstream", "focal_upstream"):
        net.load_state_dict(state)
        net.train()
        rules = {name: STEP[name] for name in ("lr", "weight_decay", "betas", "eps")}
        optimizer = torch.optim.AdamW(net.parameters(), **rules)
        logits = net.logits(net.fused(*inputs)["fused"])
        if tag.startswith("ce"):
            loss = f.cross_entropy(logits, targets)
        else:
            loss = original_focal(logits, targets, STEP["gamma"], torch.tensor(CLASS_WEIGHT), SMOOTHING)
        (loss if tag == "ce" else loss * loss.detach()).backward()
        own = dict(net.named_parameters())
        recorded[f"{tag}/loss"] = loss.detach()
        recorded |= {f"{tag}/grad/{name}": own[name].grad.clone() for name in some}
        optimizer.step()
        recorded |= {f"{tag}/param/{name}": own[name].detach().clone() for name in some}
        optimizer.zero_grad()
    recorded["ce/buffer/i_model.bn1.running_mean"] = net.i_model.bn1.running_mean.clone()
    np.savez(folder / "train_step.npz", **{name: np.asarray(value) for name, value in recorded.items()})
