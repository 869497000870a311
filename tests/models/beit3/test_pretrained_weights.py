"""Weight files of any task and from any training script: the body is loaded, what is not ours is named."""

from __future__ import annotations

import argparse
import pathlib
import re
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.models import family
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.pretrained_weights import (
    LoadReport,
    load_pretrained_weights,
    read_pretrained_weights,
)
from kovqa_core.models.beit3.weights_problems import TASK_COMPONENTS
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings
from safetensors.torch import save_file
from torch import Tensor

from tests import parity
from tests.models.test_safe_unpickle import Build, hostile

State = dict[str, Tensor]
TABLE = "beit3.text_embed.weight"


def body(*, final_norm: bool) -> State:
    """The recorded body, as files of tasks with or without the final norm have it."""
    return {
        name: tensor
        for name, tensor in parity.weights("captioning.pth").items()
        if name.startswith("beit3.") and (final_norm or ".encoder.layer_norm." not in name)
    }


def other_task(task: str) -> State:
    """A whole file of another task of BEiT-3: its body and its recorded heads."""
    about = parity.json_of("config.json")["normalize_output"]
    heads = parity.tensors_of("other_heads.safetensors")
    own = {name.partition(":")[2]: tensor for name, tensor in heads.items() if name.startswith(f"{task}:")}
    assert own
    return body(final_norm=about[task]) | own


OTHER_TASKS = sorted(
    {name.partition(":")[0] for name in parity.tensors_of("other_heads.safetensors")}
)  # retrieval, NLVR2, ImageNet


def load(state: State, task: str, *reinit: str) -> tuple[Beit3VqaNet | CaptionNet, LoadReport]:
    net = CaptionNet(parity.config(num_classes=None)) if task == "caption" else Beit3VqaNet(parity.config())
    return net, load_pretrained_weights(net, state, reinit, "other.pth")


def body_is_loaded(net: Beit3VqaNet | CaptionNet, state: State) -> bool:
    ours = parity.originals(net.named_parameters())
    names = [name for name in state if name.startswith("beit3.") and name in ours]
    return len(names) > 50 and all(torch.equal(ours[n].reshape(state[n].shape), state[n]) for n in names)


def hinted(caught: pytest.ExceptionInfo[ModelError]) -> list[str]:
    """The components that an error's hint wants to be initialised anew."""
    match = re.search(r"model\.reinit=\[([\w, ]+)\]", caught.value.hint)
    assert match, caught.value.hint
    return match[1].split(", ")


@pytest.mark.parametrize("task", ["vqa", "caption"])
@pytest.mark.parametrize("source", [*OTHER_TASKS, "vqa", "captioning", "pretraining"])
def test_the_hint_of_any_file_can_be_followed(source: str, task: str) -> None:
    """Follow the hint, and the body is loaded, with the foreign heads named as not used."""
    files = {"vqa": "vqa.pth", "captioning": "captioning.pth", "pretraining": "pretrain_fp16.pth"}
    state = parity.weights(files[source]) if source in files else other_task(source)
    reinit: list[str] = []
    try:
        net, report = load(state, task)
    except ModelError:
        with pytest.raises(ModelError, match=r"does not fit this model: [\w.]+ is ") as caught:
            load(state, task)
        reinit = hinted(caught)
        net, report = load(state, task, *reinit)
    assert set(reinit) <= set(TASK_COMPONENTS[task])
    assert body_is_loaded(net, state)
    known = set(parity.originals(net.named_parameters()))
    assert set(report.unused) == state.keys() - known
    for name in report.unused:
        assert name.rpartition(".")[0] in report.describe().partition("not used: ")[2]


def test_only_what_is_missing_is_asked_for_beside_what_was_given() -> None:
    with pytest.raises(ModelError, match=r"mlm_head\.weight is missing") as caught:
        load(other_task(OTHER_TASKS[-1]), "caption")  # retrieval: it has a final norm
    assert hinted(caught) == ["mlm_head"]
    with pytest.raises(ModelError, match=r"head\.0\.weight is missing") as caught:
        load(parity.weights("pretrain_fp16.pth"), "vqa", "pooler")
    assert hinted(caught) == ["pooler", "head"]


@pytest.mark.parametrize(
    ("change", "problem", "hint"),
    [
        (lambda state: state | {f"{TABLE}2": torch.ones(2)}, "weight2 is unknown", "it is a model of size"),
        (lambda state: state | {TABLE: state[TABLE][:, :5]}, r"weight is \[\d+, 5\], wanted", "size custom"),
        (lambda state: {n: t for n, t in state.items() if "layers.0" not in n}, "is missing", "such as"),
        (lambda state: {"vit.cls": torch.ones(2)}, "is missing", "names such as vit.cls"),
    ],
    ids=["unknown in the body", "other width", "no first layer", "another model"],
)
def test_another_body_is_an_error_whatever_is_initialised_anew(
    change: Callable[[State], State], problem: str, hint: str
) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        load(change(parity.weights("vqa.pth")), "vqa", "pooler", "head")
    assert hint in caught.value.hint
    assert "reinit" not in caught.value.hint


# --------------------------------------------------------------------------- names and wrappers


def prefixed(*prefixes: str) -> Callable[[State], State]:
    return lambda state: {"".join(prefixes) + name: tensor for name, tensor in state.items()}


def inner(prefix: str) -> Callable[[State], State]:
    return lambda state: {re.sub(r"(layers\.\d+\.)", rf"\1{prefix}", n): t for n, t in state.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        prefixed("module."), prefixed("_orig_mod."), prefixed("module.", "_orig_mod."),
        prefixed("_orig_mod.", "module."), prefixed("model."), prefixed("model.", "module."),
        inner("_orig_mod."), inner("_checkpoint_wrapped_module."),
    ],
    ids=["ddp", "compiled", "both", "both the other way", "lightning", "lightning and ddp", "layers compiled",
         "layers checkpointed"],
)  # fmt: skip
@pytest.mark.parametrize("keys", [(), ("model",), ("module",), ("state_dict",), ("state_dict", "model")])
def test_wrappers_are_taken_off(
    wrapped: Callable[[State], State], keys: tuple[str, ...], tmp_path: Path
) -> None:
    state = {name: tensor for name, tensor in parity.weights("vqa.pth").items() if ".layers.1." not in name}
    content: Any = wrapped(state)
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "x.pth")
    weights = read_pretrained_weights(tmp_path / "x.pth")
    assert weights.tensors.keys() == state.keys()
    assert torch.equal(weights.tensors[TABLE], state[TABLE])
    assert not weights.beside


def test_one_weight_under_two_names_is_refused(tmp_path: Path) -> None:
    torch.save({"a._orig_mod.b": torch.ones(2), "a.b": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"holds a\.b twice"):
        read_pretrained_weights(tmp_path / "x.pth")


def test_averaged_weights_beside_the_others_are_named(tmp_path: Path) -> None:
    state = OrderedDict(a=torch.ones(2))
    average = {name: tensor + 1 for name, tensor in state.items()}
    optimizer = {"state": {0: {"step": torch.ones(())}}, "param_groups": [{"lr": 1.0}]}
    for value in (3, np.float64(3)):  # by either reader
        content = {"model": state, "model_ema": average, "optimizer": optimizer, "epoch": value}
        torch.save(content, tmp_path / "x.pth")
        weights = read_pretrained_weights(tmp_path / "x.pth")
        assert torch.equal(weights.tensors["a"], state["a"])
        assert weights.beside == ("model_ema",)


# ------------------------------------------------------------------------ objects beside weights


class Settings:
    """Stands for a class of somebody's training script."""

    def __init__(self) -> None:
        self.rate, self.folder = 0.1, Path("x")


BESIDE = {
    "numpy float": np.float64(71.3), "numpy array": np.arange(3), "numpy in a list": [{"acc": np.float32(1)}],
    "path": Path("runs/x"), "windows path": pathlib.PureWindowsPath("c:/x"),
    "namespace": argparse.Namespace(lr=1e-3, output_dir=Path("x"), betas=[0.9, 0.98]), "class": Settings(),
    "device": torch.device("cpu"), "generator": np.random.default_rng(1), "set of types": {int, np.float32},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("beside", BESIDE)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_lies_beside_weights_does_no_harm(beside: str, protocol: int, tmp_path: Path) -> None:
    state = {"a": torch.arange(6.0).reshape(2, 3).t(), "half": torch.ones(2).half()}
    content = {
        "model": state,
        "args": BESIDE[beside],
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
    }
    torch.save(content, tmp_path / "x.pth", pickle_protocol=protocol)
    found = read_pretrained_weights(tmp_path / "x.pth").tensors
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], tensor.float()) for name, tensor in state.items())


@pytest.mark.filterwarnings("ignore:Environment variable TORCH_FORCE")
@pytest.mark.parametrize("kind", ["os.system", "exec", "torch.load", "state"])
def test_what_lies_beside_weights_is_not_run(kind: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"model": {"a": torch.ones(2)}, "args": hostile(kind, marker)}, tmp_path / "x.pth")
    assert torch.equal(read_pretrained_weights(tmp_path / "x.pth").tensors["a"], torch.ones(2))
    torch.save({"model": {"a": Build(str(marker))}}, tmp_path / "y.pth")
    with pytest.raises(ModelError, match=r"a is a .*, not a tensor"):
        read_pretrained_weights(tmp_path / "y.pth")
    assert not marker.exists()


def test_safetensors_and_folders(tmp_path: Path) -> None:
    state = {"module.a": torch.ones(2)}
    save_file(state, tmp_path / "x.pth")  # whatever its suffix
    assert read_pretrained_weights(tmp_path / "x.pth").tensors.keys() == {"a"}
    with pytest.raises(ModelError, match="is a folder, not a weights file") as caught:
        read_pretrained_weights(tmp_path)
    assert str(tmp_path / "x.pth") in caught.value.hint
    for content, problem in (
        ([torch.ones(2)], "a list"), ({}, "a dict"), ({"model": {"a": 3}}, "a is not a tensor"),
    ):  # fmt: skip
        torch.save(content, tmp_path / "y.pth")
        with pytest.raises(ModelError, match=f"holds no state dict: {problem}"):
            read_pretrained_weights(tmp_path / "y.pth")
    (tmp_path / "y.pth").write_bytes(b"<html>")
    with pytest.raises(ModelError, match="is not a file of weights, or it is damaged"):
        read_pretrained_weights(tmp_path / "y.pth")


# ------------------------------------------------------------------------------ through a recipe


def recipe(task: str, *changes: str) -> Recipe:
    about = parity.json_of("config.json")
    size = [about[key] for key in ("embed_dim", "num_heads", "num_layers", "ffn_dim")]
    tokenizer = parity.path("tokenizer.model")
    options = [
        f"task={task}", "model.size=custom", f"model.custom={size}", f"model.image_size={about['image_size']}",
        f"model.patch_size={about['patch_size']}", f"model.weights_tokenizer='{tokenizer}'",
    ]  # fmt: skip
    flags = {"model.tokenizer": str(tokenizer)}
    return resolve_settings("tiny", "cpu", [*options, *changes], flags).recipe


def test_a_captioner_begins_with_a_classifier() -> None:
    """The hint of the first error works; what it names is drawn, and is the same for the same seed."""
    weights = f"model.weights='{parity.path('vqa.pth')}'"
    with pytest.raises(ModelError, match="does not fit") as caught:
        family.create_model(recipe("caption", weights), [])
    assert hinted(caught) == ["mlm_head", "layer_norm"]
    anew = f"model.reinit=[{', '.join(hinted(caught))}]"
    model, _, note = family.create_model(recipe("caption", weights, anew), [])
    again, _, _ = family.create_model(recipe("caption", weights, anew), [])
    assert "newly initialised: layer_norm, mlm_head; not used: head.0" in note
    assert body_is_loaded(model.net, parity.weights("vqa.pth"))
    for name, parameter in model.net.state_dict().items():
        assert torch.equal(parameter, again.net.state_dict()[name]), name
    for norm in model.net.encoder.norm.values():
        assert norm.weight.eq(1).all()
        assert norm.bias.eq(0).all()
    assert 0 < model.net.mlm_head.weight.std() < 1


@pytest.mark.parametrize(("task", "foreign"), [("caption", "pooler, head"), ("vqa", "mlm_head")])
def test_components_of_the_other_task_are_refused_by_name(task: str, foreign: str) -> None:
    weights = f"model.weights='{parity.path('vqa.pth')}'"
    with pytest.raises(SettingsError, match=f"model.reinit names {foreign}, which") as caught:
        family.create_model(recipe(task, weights, f"model.reinit=[{foreign}]"), ["예"])
    assert ", ".join(TASK_COMPONENTS[task]) in caught.value.hint
