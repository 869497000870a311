"""Folders of published encoders as people have them: old names, shards, training files, a list of tokens."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.errors import ModelError
from kovqa_core.files import write_json
from kovqa_core.models.fusion.config import tokenizer_file_in
from kovqa_core.models.fusion.encoders import (
    EncoderReport,
    build_image_encoder,
    build_question_encoder,
    load_encoder_weights,
)
from kovqa_core.models.fusion.tokenizer import FastTokenizer, open_question_tokenizer
from safetensors.torch import save_file
from torch import Tensor, nn

State = Mapping[str, Tensor]
BERT = {
    "model_type": "bert", "vocab_size": 30, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 16, "max_position_embeddings": 12,
}  # fmt: skip
RESNET = {"architecture": "resnet50", "layers": [1, 1, 1, 1], "channels": [4, 4, 4, 8]}


def question() -> nn.Module:
    return build_question_encoder(BERT, pooled=True)


def image() -> nn.Module:
    return build_image_encoder(RESNET, 8)


def other_values(net: nn.Module) -> dict[str, Tensor]:
    """Another state dict of the same shapes."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor + 1
        for name, tensor in net.state_dict().items()
    }


def loads(net: nn.Module, folder: Path, state: State) -> EncoderReport:
    report = load_encoder_weights(net, folder)
    own = net.state_dict()
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in state.items())
    return report


def test_the_names_of_bert_base(tmp_path: Path) -> None:
    """LayerNorms with gamma and beta, the encoder below `bert.`, heads of pretraining beside it."""
    net = question()
    state = other_values(net)
    old = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in state.items()
    }  # fmt: skip
    assert sum(name.endswith(".gamma") for name in old) == 5
    heads = {
        "cls.predictions.bias": torch.ones(30),
        "cls.predictions.transform.LayerNorm.gamma": torch.ones(8),
    }
    torch.save(old | heads, tmp_path / "pytorch_model.bin")
    assert loads(net, tmp_path, state) == EncoderReport([], [])


def test_a_network_that_calls_weights_gamma_keeps_them(tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gamma, self.norm = nn.Parameter(torch.ones(2)), nn.LayerNorm(2)

    net = nn.Sequential(Scaled())
    state = other_values(net)
    save_file(state, tmp_path / "model.safetensors")
    loads(net, tmp_path, state)


@pytest.mark.parametrize("whole", ["model.safetensors", "pytorch_model.bin"])
def test_shards(whole: str, tmp_path: Path) -> None:
    """As transformers cuts a large model; one that is missing is named."""
    net = question()
    state = other_values(net)
    stem, _, suffix = whole.partition(".")
    weight_map = {}
    for number, names in enumerate((list(state)[:9], list(state)[9:20], list(state)[20:]), 1):
        shard = f"{stem}-0000{number}-of-00003.{suffix}"
        tensors = {f"bert.{name}": state[name] for name in names}
        (save_file if suffix == "safetensors" else torch.save)(tensors, tmp_path / shard)  # type: ignore[operator]
        weight_map |= dict.fromkeys(tensors, shard)
    write_json(tmp_path / f"{whole}.index.json", {"metadata": {}, "weight_map": weight_map})
    loads(net, tmp_path, state)
    (tmp_path / f"{stem}-0000{2}-of-00003.{suffix}").unlink()
    with pytest.raises(ModelError, match=r"has 2 of 3 shards: .*-00002-of-00003\.\w+ is missing"):
        load_encoder_weights(net, tmp_path)
    for content, problem in (
        (["x"], "not a JSON object"),
        ({"weight_map": {}}, "names no shards"),
        ({"weight_map": {"a": "../outside.bin"}}, "leads out of the model folder"),
    ):
        write_json(tmp_path / f"{whole}.index.json", content)
        with pytest.raises(ModelError, match=problem):
            load_encoder_weights(net, tmp_path)


def test_a_training_file_of_timm(tmp_path: Path) -> None:
    """Weights below `state_dict`, of a wrapped model, beside numbers of numpy, arguments and an average."""
    net = image()
    state = other_values(net)
    content = {
        "epoch": 3, "arch": "resnet50", "state_dict": {f"module.{n}": t for n, t in state.items()},
        "state_dict_ema": {n: t.float() + 1 for n, t in state.items()}, "metric": np.float64(78.25),
        "args": argparse.Namespace(lr=0.1, output=tmp_path), "version": 2,
    }  # fmt: skip
    torch.save(content, tmp_path / "model_best.pth.tar")
    with pytest.raises(ModelError, match=r"no model\.safetensors or pytorch_model\.bin") as caught:
        load_encoder_weights(net, tmp_path)
    assert "model_best.pth.tar" in caught.value.hint
    (tmp_path / "model_best.pth.tar").rename(tmp_path / "pytorch_model.bin")  # what the hint says
    assert loads(net, tmp_path, state) == EncoderReport([], [])


def test_running_statistics_are_weights_too(tmp_path: Path) -> None:
    net = image()
    state = other_values(net)
    parameters = {name: state[name] for name, _ in net.named_parameters()}
    save_file(parameters, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks bn1\.running_mean, bn1\.running_var, .* more") as caught:
        load_encoder_weights(net, tmp_path)
    assert "without buffers" in caught.value.hint
    counted = {name: tensor for name, tensor in state.items() if "num_batches_tracked" not in name}
    save_file(counted, tmp_path / "model.safetensors")  # as before torch 0.4.1: nothing needs the counters
    assert load_encoder_weights(net, tmp_path) == EncoderReport([], [])
    some = {name: tensor for name, tensor in counted.items() if not name.startswith("layer4.0.bn1")}
    save_file(some, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks layer4\.0\.bn1\.weight") as caught:
        load_encoder_weights(net, tmp_path)
    assert "another model" in caught.value.hint


def test_weights_without_a_place_are_reported(tmp_path: Path) -> None:
    net = question()
    state = other_values(net)
    deeper = {
        name.replace("layer.1.", "layer.2."): t.clone() for name, t in state.items() if "layer.1." in name
    }
    save_file(state | deeper | {"cls.bias": torch.ones(1)}, tmp_path / "model.safetensors")
    assert sorted(loads(net, tmp_path, state).unused) == sorted(deeper)


# ------------------------------------------------------------------------------------ vocab.txt

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def word_list(folder: Path, *words: str) -> FastTokenizer:
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    tokenizer = open_question_tokenizer(tokenizer_file_in(folder), None)
    assert isinstance(tokenizer, FastTokenizer)
    return tokenizer


@pytest.mark.parametrize("settings", [None, {"do_lower_case": False}, {"do_lower_case": True}])
@pytest.mark.parametrize(
    "words",
    [["고양이", "##는", "?", "cat"], ["고양이", "##는", "?", "Cat", "cat"],
     ["\u1100", "##\u1169", "##\u110b\u1163\u11bc", "cat", "?"]],
    ids=["syllables", "syllables and capitals", "letters"],
)  # fmt: skip
def test_a_list_of_tokens_alone_is_a_tokenizer(
    words: list[str], settings: dict[str, bool] | None, tmp_path: Path
) -> None:
    """The same ids as transformers' own; without settings, the list tells what happened to its text."""
    from transformers import BertTokenizerFast

    if settings is not None:
        write_json(tmp_path / "tokenizer_config.json", settings)
    ours = word_list(tmp_path, *words)
    assert ours.vocab_size == len(SPECIAL) + len(words)
    lower = settings["do_lower_case"] if settings else "Cat" not in words
    options = {} if settings or "고양이" not in words else {"strip_accents": False}
    theirs = BertTokenizerFast(
        vocab={word: i for i, word in enumerate([*SPECIAL, *words])}, do_lower_case=lower, **options
    )
    for text in ("고양이는 cat?", "Cat 고 뷁", "고"):
        assert ours.encode_with_specials(text, 9) == theirs(text)["input_ids"], text
    assert ours.encode_with_specials("[SEP]", 9)[1:-1] != [SPECIAL.index("[SEP]")]
    if settings is None and "고양이" in words:
        assert ours.encode_with_specials("고양이는?", 9) == [2, 5, 6, 7, 3]
    # What is saved in a checkpoint is a whole tokenizer.json.
    assert json.loads(ours.model_bytes)["model"]["type"] == "WordPiece"


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a\nb\n", encoding="utf-8")
    with pytest.raises(ModelError, match=r"has no token \[CLS\]"):
        open_question_tokenizer(tmp_path / "vocab.txt", None)
    with pytest.raises(ModelError, match="lists 1 tokens twice"):
        word_list(tmp_path, "a", "a")
    (tmp_path / "vocab.txt").unlink()
    (tmp_path / "merges.txt").touch()
    with pytest.raises(ModelError, match="no tokenizer in") as caught:
        tokenizer_file_in(tmp_path)
    assert "save_pretrained" in caught.value.hint
