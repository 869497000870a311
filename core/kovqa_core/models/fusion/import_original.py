"""A checkpoint of the original -> a checkpoint folder of ours. Source: docs/sources/vqa_nia.md, N5, N14 and N15."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import ModelError, SettingsError, unknown_name_error
from kovqa_core.files import require_empty, write_folder
from kovqa_core.index.upstream import nia
from kovqa_core.index.upstream.pinned_order import pinned_order
from kovqa_core.messages import message
from kovqa_core.models import family
from kovqa_core.models.checkpoint_info import CheckpointInfo
from kovqa_core.models.fusion import vqa
from kovqa_core.models.fusion.config import (
    ModelConfig,
    find_tokenizer_file,
    image_encoder_config,
    question_encoder_config,
)
from kovqa_core.models.fusion.family import FusionModel
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.safe_unpickle import read_original_checkpoint
from kovqa_core.models.fusion.state_dict_names import our_tensor_name, rename_state_dict
from kovqa_core.models.fusion.tokenizer import QuestionTokenizer, open_question_tokenizer
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.settings.renamed_keys import recipe_keys
from kovqa_core.settings.strict_yaml import SettingsDocument, apply_overrides, build_settings

_HEAD_WIDTH = 64  # of attention, in every published XLM-RoBERTa
_RESNET50_STAGES = {"layers": [3, 4, 6, 3], "channels": [64, 128, 256, 512]}
_ROW_TENSORS = {
    "vocab_size": "embeddings.word_embeddings",
    "max_position_embeddings": "embeddings.position_embeddings",
    "type_vocab_size": "embeddings.token_type_embeddings",
    "intermediate_size": "encoder.layer.0.intermediate.dense",
    "hidden_size": "pooler.dense",
}


@dataclass(frozen=True)
class ImportedFusion:
    """What became of a checkpoint.

    Attributes:
        taken, dropped: names of its tensors; what is dropped has no part in an answer.
        classes: number of answers.
        arguments: of the command that trained it, where it remembers them.
    """

    taken: list[str]
    dropped: list[str]
    classes: int
    arguments: Mapping[str, Any]


def import_original_checkpoint(
    checkpoint: Path, labels: Path, tokenizer: str, folder: Path, sets: Sequence[str] = ()
) -> ImportedFusion:
    """Write a checkpoint of the original as a folder that every command takes for a model.

    Args:
        checkpoint: see `read_original`.
        labels: the `data_ko.csv` it was trained with, or a list of its classes in order.
        tokenizer: of its questions; a file, a folder, or an asset's name.
        folder: what to write; must be empty or not exist.
        sets: `model.a=b` texts: settings that neither the weights tell nor are the original's.

    Raises:
        SettingsError: a folder that holds something, an unknown setting.
        AssetError: the tokenizer is nowhere.
        ModelError: a checkpoint that cannot be read or is of another model, another number of
            classes than the labels have, another tokenizer.
        DataError: labels that cannot be read.
    """
    require_empty(folder)
    found = read_original_checkpoint(checkpoint)
    config = config_from_tensors(found.tensors, checkpoint, sets).model_copy(update={"tokenizer": tokenizer})
    check_tensor_shapes(found.tensors, config, checkpoint)
    answers = read_label_classes(labels, len(found.tensors["out_linear.bias"]))
    text = _open_matching_tokenizer(config)
    model = FusionModel(FusionNet(config), answers)
    model.net.load_state_dict(rename_state_dict(found.tensors))
    processor = vqa.FusionProcessor(config, text, answers, DataSettings())
    imported = {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": _checkpoint_sha256(checkpoint),
        "labels": labels.name,
        "labels_sha256": _checkpoint_sha256(labels),
        "arguments": found.arguments,
    }
    info = CheckpointInfo("fusion", "vqa", imported=imported)
    write_folder(folder, lambda part: family.write_model_folder(model, processor, part, info))
    taken = [name for name in found.tensors if our_tensor_name(name)]
    dropped = [name for name in found.tensors if not our_tensor_name(name)]
    return ImportedFusion(taken, dropped, len(answers), found.arguments)


def read_label_classes(labels: Path, classes: int) -> list[str]:
    """The classes in order.

    Raises:
        ModelError: they are not as many as the checkpoint's: every answer would be another word.
    """
    table = labels.suffix.lower() in (".csv", ".tsv")
    answers = pinned_order(nia.count_nia_answers(nia.read_nia_csv(labels))) if table else read_answers(labels)
    if len(answers) != classes:
        raise ModelError(
            f"{labels} gives {len(answers):,} answers, the checkpoint has {classes:,}",
            "name the data_ko.csv or data_en.csv it was trained with, or a list of its answers in order",
        )
    return answers


def _open_matching_tokenizer(config: ModelConfig) -> QuestionTokenizer:
    place = find_tokenizer_file(config)
    text, rows = open_question_tokenizer(place, None), config.question_config["vocab_size"]
    if text.vocab_size != rows:
        raise ModelError(
            f"tokenizer {place} has {text.vocab_size:,} ids, the checkpoint {rows:,}: it was trained with another",
            "the original's is that of xlm-roberta-base: kovqa download xlm-roberta-base",
        )
    return text


def _checkpoint_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# ------------------------------------------------------------------------------------ sizes


def config_from_tensors(
    tensors: Mapping[str, Tensor], checkpoint: Path, sets: Sequence[str] = ()
) -> ModelConfig:
    """The original's settings, with the sizes that the tensors have.

    Raises:
        SettingsError: an unknown setting, or one that must be given.
        ModelError: a tensor that tells a size is not there.
    """
    document = apply_overrides(
        SettingsDocument({"model": {}}, {}), sets, "--set", renamed=recipe_keys("fusion")
    )
    if strange := document.values.keys() - {"model"}:
        raise unknown_name_error(
            message("models.unknown-setting", "unknown setting '{name}'", name=min(strange)),
            min(strange),
            ["model"],
            message("models.unknown-setting.hint", "a checkpoint only has settings of its model"),
        )
    config = build_settings(ModelConfig, document, ("model",))
    try:
        question = {**_question_dimensions(tensors), **config.question_config}
        picture = {**_image_dimensions(tensors), **config.picture_config}
        hidden, classes = len(tensors["linear.bias"]), len(tensors["out_linear.bias"])
    except (KeyError, IndexError, TypeError) as error:
        raise _foreign_checkpoint(checkpoint, f"no usable {error}") from None
    if "num_attention_heads" not in question:
        if question["hidden_size"] % _HEAD_WIDTH:
            raise SettingsError(
                f"{checkpoint} does not tell the number of its attention heads",
                "--set model.question_config.num_attention_heads=N",
            )
        question["num_attention_heads"] = question["hidden_size"] // _HEAD_WIDTH
    sizes = {
        "question_config": question_encoder_config(question, None, question["vocab_size"]),
        "picture_config": image_encoder_config(picture, None),
        "hidden_size": hidden,
        "num_classes": classes,
    }
    return config.model_copy(update=sizes)


def _question_dimensions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    layers = sum(name.endswith(".attention.self.query.weight") for name in tensors)
    rows = {key: tensors[f"bert.{name}.weight"].shape[0] for key, name in _ROW_TENSORS.items()}
    return {**rows, "num_hidden_layers": layers}


def _image_dimensions(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Blocks and channels of the four stages, where they are not ResNet-50's."""
    stages = [f"i_model.layer{stage}." for stage in (1, 2, 3, 4)]
    blocks = [sum(n.startswith(stage) and n.endswith(".conv1.weight") for n in tensors) for stage in stages]
    channels = [tensors[f"{stage}0.conv1.weight"].shape[0] for stage in stages]
    sizes = {"layers": blocks, "channels": channels}
    return {} if sizes == _RESNET50_STAGES else sizes


def check_tensor_shapes(tensors: Mapping[str, Tensor], config: ModelConfig, checkpoint: Path) -> None:
    """See that every tensor has its place, before any memory is asked for.

    Raises:
        ModelError: one is missing, of another shape, or unknown.
    """
    with torch.device("meta"):
        wanted = {name: list(tensor.shape) for name, tensor in FusionNet(config).state_dict().items()}
    try:
        found = {name: list(tensor.shape) for name, tensor in rename_state_dict(tensors).items()}
    except KeyError as error:
        raise _foreign_checkpoint(checkpoint, f"nobody knows its {error}") from None
    for name in sorted(wanted.keys() | found.keys()):
        if wanted.get(name) != found.get(name):
            shapes = [shape or "absent" for shape in (found.get(name), wanted.get(name))]
            raise _foreign_checkpoint(checkpoint, f"{name} is {shapes[0]}, wanted {shapes[1]}")


def _foreign_checkpoint(checkpoint: Path, why: str) -> ModelError:
    return ModelError(f"{checkpoint} is no model of VQA_NIA: {why}", "name another checkpoint")
