"""Encoders of fusion models: named and read safely, never silently random."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from kovqa_core.data.example import Example
from kovqa_core.errors import AssetError, DataError, ModelError, SettingsError
from kovqa_core.index.reader import open_index
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.fusion.config import ModelConfig
from kovqa_core.models.fusion.encoders import load_encoder_weights
from kovqa_core.models.fusion.losses import NO_CLASS
from kovqa_core.models.fusion.tokenizer import open_question_tokenizer
from kovqa_core.models.memory import ElementSize, recipe_step_memory
from kovqa_core.settings.recipe import Recipe
from kovqa_core.settings.resolve import resolve_settings
from kovqa_core.settings.run import make_run
from kovqa_core.train.accumulate import batch_norm_note
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tests import parity
from tests.conftest import FUSION, Kovqa, Small, sets
from tests.encoders import picture_folder, question_folder
from tests.test_startup import loaded

SIZES = ("model.image_size=32", "model.max_text=24", "model.hidden_size=48", "optim.global_batch=8")


@pytest.fixture(scope="module")
def encoders(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("인코더")
    return question_folder(folder / "xlm", small.tokenizer), picture_folder(folder / "resnet")


def recipe(small: Small, *sets: str, name: str = "nia") -> Recipe:
    return resolve_settings(name, "cpu", sets, {"data.index": str(small.index)}).recipe


def with_encoders(small: Small, encoders: tuple[Path, Path], *sets: str) -> Recipe:
    named = (f"model.question='{encoders[0]}'", f"model.picture='{encoders[1]}'")
    return recipe(small, *SIZES, *named, *sets)


def test_published_weights_are_used(small: Small, encoders: tuple[Path, Path]) -> None:
    model, _, note = family.create_model(with_encoders(small, encoders), open_index(small.index).answers())
    question = load_file(encoders[0] / "model.safetensors")
    picture = load_file(encoders[1] / "model.safetensors")
    own = model.net.state_dict()
    name = "embeddings.word_embeddings.weight"
    assert torch.equal(own[f"question.{name}"], question[f"roberta.{name}"])
    assert torch.equal(own["picture.layer4.0.conv3.weight"], picture["layer4.0.conv3.weight"])
    assert own["picture.fc.weight"].shape == (32, 96)  # the published thousand classes are left out
    assert "newly initialised: pooler.dense.weight, pooler.dense.bias, fc.weight, fc.bias" in note


def test_the_grid_reads_the_same_folders(small: Small, encoders: tuple[Path, Path]) -> None:
    sets = ("model.fusion=grid", "model.transformer=1", "model.transformer_ffn=64")
    model, _, note = family.create_model(
        with_encoders(small, encoders, *sets), open_index(small.index).answers()
    )
    assert "newly initialised" not in note
    assert not hasattr(model.net.picture, "pooler")


def test_missing_encoders_are_named(kovqa: Kovqa, small: Small) -> None:
    arguments = ["train", "-r", "nia", "-p", "cpu", "--data", small.index, *sets("optim.global_batch=16")]
    done = kovqa(*arguments)
    assert done.returncode == 5
    error = done.stderr.strip().splitlines()[-1]
    for word in ("xlm-roberta-base", "kovqa download xlm-roberta-base", "assets", "--random-init"):
        assert word in error
    assert "--tokenizer" in kovqa(*arguments, "--random-init").stderr


def test_random_encoders_say_so(small: Small) -> None:
    _, _, note = family.create_model(
        recipe(small, *FUSION, f"model.tokenizer='{small.tokenizer}'"), open_index(small.index).answers()
    )
    assert "newly initialised, both encoders too" in note


@pytest.mark.parametrize(
    ("sets", "problem"),
    [
        (("model.question_config={model_type: nonsense}",), "nonsense"),
        (("model.picture_config={architecture: resnet51}",), "resnet51"),
        (("model.picture_config={architecture: resnet50, depth: 3}",), "depth"),
        (("task=caption",), "answers questions"),
    ],
)
def test_settings_that_cannot_be(small: Small, sets: tuple[str, ...], problem: str) -> None:
    tried = recipe(small, *FUSION, f"model.tokenizer='{small.tokenizer}'", *sets)
    with pytest.raises(SettingsError, match=problem):
        family.create_model(tried, ["예"])


def test_settings_that_contradict() -> None:
    with pytest.raises(ValidationError, match="transformer"):
        ModelConfig(fusion="grid")
    with pytest.raises(ValidationError, match="scope"):
        ModelConfig(fusion="grid", transformer=1, scope="batch")


def test_weights_that_do_not_fit(small: Small, encoders: tuple[Path, Path], tmp_path: Path) -> None:
    question = question_folder(tmp_path / "q", small.tokenizer)
    answers = open_index(small.index).answers()

    def refused(problem: str, kind: type[Exception] = ModelError) -> None:
        with pytest.raises(kind, match=problem):
            family.create_model(with_encoders(small, (question, encoders[1])), answers)

    tensors = load_file(question / "model.safetensors")
    save_file({k: t for k, t in tensors.items() if "layer.1.output" not in k}, question / "model.safetensors")
    refused("lacks encoder.layer.1.output")
    (question / "model.safetensors").write_bytes(b"broken")
    refused("is not a file of weights, or it is damaged")
    (question / "model.safetensors").unlink()
    refused("no model.safetensors or pytorch_model.bin")
    about = json.loads((question / "config.json").read_text())
    (question / "config.json").write_text(json.dumps({**about, "vocab_size": 10}))
    refused("only 10 rows", SettingsError)
    (question / "sentencepiece.bpe.model").unlink()
    refused("no tokenizer")
    (question / "config.json").unlink()
    refused("no config.json", AssetError)


def test_a_swapped_tokenizer_is_refused(small: Small, tmp_path: Path) -> None:
    model, processor, _ = family.create_model(
        recipe(small, *FUSION, f"model.tokenizer='{small.tokenizer}'"), open_index(small.index).answers()
    )
    (tmp_path / "m").mkdir()
    family.write_model_folder(model, processor, tmp_path / "m", CheckpointInfo("fusion", "vqa"))
    other = parity.path("tokenizer/tiny.model", "vqa_nia").read_bytes()
    (tmp_path / "m" / "tokenizer" / "spm.model").write_bytes(other)
    with pytest.raises(ModelError, match="SHA-256"):
        family.read_model_folder(tmp_path / "m", "vqa")


def test_a_fast_tokenizer_takes_text_as_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[CLS]", "[SEP]", "[UNK]", "[", "]", "SEP", "고양이"]
    made = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    made.add_special_tokens(["[CLS]", "[SEP]"])
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 1), ("[CLS]", 0))
    made.save(str(tmp_path / "tokenizer.json"))
    text = open_question_tokenizer(tmp_path / "tokenizer.json", None)
    assert text.encode_with_specials("고양이 [SEP] 고양이", 50) == [0, 6, 3, 5, 4, 6, 1]
    assert text.encode_with_specials("고양이 " * 60, 5) == [0, 6, 6, 6, 1]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match=r"not a tokenizer\.json"):
        open_question_tokenizer(tmp_path / "tokenizer.json", None)


def test_an_answer_that_is_no_class_counts_for_nothing(small: Small) -> None:
    index = open_index(small.index)
    made = recipe(small, *FUSION, f"model.tokenizer='{small.tokenizer}'")
    model, processor, _ = family.create_model(made, ["없는 답"])
    example = index.split("train")[0]
    item = processor.encode(example, index.images, train=False, rng=np.random.default_rng(0))
    assert item.target == NO_CLASS
    written = replace(example, answers={"답": 0.3, " 없는  답": 0.6, "Z": 1.0})
    target = processor.encode(written, index.images, train=False, rng=np.random.default_rng(0)).target
    assert target == 0, "an answer is compared with classes in normal form"
    loss = model.eval()(processor.collate([item]), 0)["loss"]
    assert loss.item() == 0
    loss.backward()
    blind = Example(example.id, "없다.png", example.question)
    with pytest.raises(DataError, match=example.id):
        processor.encode(blind, index.images, train=False, rng=np.random.default_rng(0))


def test_a_dry_run_needs_no_heavy_library(small: Small, tmp_path: Path) -> None:
    arguments = [
        "train",
        "-r",
        "nia",
        "-p",
        "cpu",
        "--data",
        str(small.index),
        "-n",
        "-o",
        str(tmp_path / "r"),
    ]
    assert not {"torch", "transformers", "timm"} & loaded(*arguments)


def test_memory_is_counted_whatever_is_set_of_the_encoder(small: Small) -> None:
    """`num_classes` in a recipe says nothing about how complete `question_config` is."""
    fusion = recipe(small, *FUSION, f"model.tokenizer='{small.tokenizer}'")
    by = ElementSize(4, is_cpu=True)
    expected = recipe_step_memory(fusion, 7, by)
    with_classes = fusion.model_copy(update={"model": {**fusion.model, "num_classes": 7}})
    assert recipe_step_memory(with_classes, None, by) == expected


def test_a_pickle_that_would_run_code_is_one_error(small: Small, tmp_path: Path) -> None:
    question = question_folder(tmp_path / "q", small.tokenizer)
    (question / "model.safetensors").unlink()
    (question / "pytorch_model.bin").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(ModelError, match="print, and loading that could run foreign code"):
        load_encoder_weights(torch.nn.Linear(1, 1), question)


VIT = "model.picture_config={architecture: vit_tiny_patch16_224, img_size: 32, embed_dim: 32, depth: 2, num_heads: 2}"


@pytest.mark.parametrize(
    ("sets", "said"), [((), True), (("optim.loss_micro_batch=4",), False), ((VIT,), False)]
)
def test_batch_norms_see_one_micro_batch_and_say_so(
    small: Small, tmp_path: Path, sets: tuple[str, ...], said: bool
) -> None:
    flags = {"data.index": str(small.index), "model.tokenizer": str(small.tokenizer)}
    settings = resolve_settings("nia", "cpu", [*FUSION, "profile.micro_batch={default: 2}", *sets], flags)
    run = make_run(settings.recipe, settings.profile, tmp_path, [])
    model, _, _ = family.create_model(run.recipe, open_index(small.index).answers())
    note = batch_norm_note(model.train(), run)
    assert (note is not None) == said
    assert note is None or "means are of a micro-batch (2 examples)" in note
    assert batch_norm_note(model.eval(), run) is None


@pytest.mark.parametrize("model_type", ["xlm-roberta", "bert"])
def test_the_whole_mask_is_what_transformers_makes_of_the_short_one(small: Small, model_type: str) -> None:
    """A mask [B, T] would be read before it is used, for which the CPU waits for a GPU."""
    encoder = (
        "model.question_config={hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2, "
        f"intermediate_size: 64, model_type: {model_type}}}"
    )
    settings = recipe(small, *FUSION, encoder, f"model.tokenizer='{small.tokenizer}'")
    model, _, _ = family.create_model(settings, open_index(small.index).answers())
    net = model.eval().net
    tokens = torch.randint(5, 90, (3, 8), generator=torch.Generator().manual_seed(1))
    padding = torch.arange(8) >= torch.tensor([8, 3, 6])[:, None]
    for where in (padding, None):
        mask = net._attended_tokens(tokens, where)
        assert where is None or mask.shape == (3, 1, 8, 8)
        plain = torch.ones_like(tokens) if where is None else (~where).long()
        with torch.no_grad():
            given, short = (net.question(input_ids=tokens, attention_mask=m)[0] for m in (mask, plain))
        assert torch.equal(given, short)
