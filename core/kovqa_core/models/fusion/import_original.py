"""A checkpoint of the original -> a checkpoint folder of ours. Source: docs/sources/vqa_nia.md, N5, N14 and N15."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.index.upstream import nia
from kovqa_core.index.upstream.pinned_order import pinned_order
from kovqa_core.messages import Message, message
from kovqa_core.models.checkpoint_info import CheckpointInfo, has_checkpoint_info
from kovqa_core.models.fusion.config import (
    ModelConfig,
    find_tokenizer_file,
    image_encoder_config,
    question_encoder_config,
)
from kovqa_core.models.fusion.encoders import shape_problem
from kovqa_core.models.fusion.family import FusionModel
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.state_dict_names import our_tensor_name, rename_state_dict
from kovqa_core.models.fusion.tokenizer import QuestionTokenizer, open_question_tokenizer
from kovqa_core.models.fusion.vqa import FusionProcessor
from kovqa_core.models.imported_checkpoint import (
    ImportedCheckpoint,
    describe_files,
    read_import_settings,
    require_class_count,
    write_imported_model,
)
from kovqa_core.models.safe_unpickle import read_original_checkpoint
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.settings.strict_yaml import build_settings
from kovqa_core.whole_folder import require_new_folder

_HEAD_WIDTH = 64  # D / H, in every published XLM-RoBERTa
_RESNET50_STAGES = {"layers": [3, 4, 6, 3], "channels": [64, 128, 256, 512]}
_ROW_TENSORS = {
    "vocab_size": "embeddings.word_embeddings",
    "max_position_embeddings": "embeddings.position_embeddings",
    "type_vocab_size": "embeddings.token_type_embeddings",
    "intermediate_size": "encoder.layer.0.intermediate.dense",
    "hidden_size": "pooler.dense",
}


def import_original_checkpoint(
    checkpoint: Path,
    labels: Path,
    tokenizer: str,
    folder: Path,
    sets: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> ImportedCheckpoint:
    """Write a checkpoint of the original as a folder that every command takes for a model.

    Args:
        checkpoint: see `read_original_checkpoint`.
        labels: the `data_ko.csv` it was trained with, or a list of its classes in order.
        tokenizer: of its questions; a file, a folder, or an asset's name.
        folder: what to write; see `write_new_folder`.
        sets: `model.a=b` texts: settings that the weights do not tell and that are not the original's.
        on_progress: called with notes.

    Raises:
        SettingsError: a folder that holds something else, or that another process writes; an unknown setting.
        AssetError: the tokenizer is nowhere.
        ModelError: a checkpoint that cannot be read or is of another model, another number of classes
            than the labels have, another tokenizer.
        DataError: labels that cannot be read.
    """
    require_new_folder(folder, has_checkpoint_info)
    tensors, arguments, beside = read_original_checkpoint(checkpoint)
    config = config_from_tensors(tensors, checkpoint, sets).model_copy(update={"tokenizer": tokenizer})
    check_tensor_shapes(tensors, config, checkpoint)
    answers = read_label_classes(labels, len(tensors["out_linear.bias"]))
    question_tokenizer = _open_matching_tokenizer(config)
    model = FusionModel(FusionNet(config), answers)
    model.net.load_state_dict(rename_state_dict(tensors))
    processor = FusionProcessor(config, question_tokenizer, answers, DataSettings())
    imported = {**describe_files(checkpoint, labels), "arguments": arguments}
    info = CheckpointInfo("fusion", "vqa", imported=imported)
    write_imported_model(folder, model, processor, info, on_progress)
    used = [name for name in tensors if our_tensor_name(name)]
    unused = [*(name for name in tensors if not our_tensor_name(name)), *beside]
    return ImportedCheckpoint("vqa", "VQA_NIA", used, unused, len(answers), arguments)


def read_label_classes(labels: Path, classes: int) -> list[str]:
    """The answer classes in order.

    Args:
        labels: the table the checkpoint was trained with, or a list of its classes.
        classes: how many the checkpoint has.

    Raises:
        ModelError: there are more or fewer: every answer would be another class's.
        DataError: a file that cannot be read.
    """
    if labels.suffix.lower() in (".csv", ".tsv"):
        answers = pinned_order(nia.count_nia_answers(nia.read_nia_csv(labels)))
    else:
        answers = read_answers(labels)
    hint = message(
        "fusion.other-labels.hint",
        "name the data_ko.csv or data_en.csv it was trained with, or a list of its answers in order",
    )
    require_class_count(answers, classes, labels, hint)
    return answers


def _open_matching_tokenizer(config: ModelConfig) -> QuestionTokenizer:
    file = find_tokenizer_file(config)
    tokenizer, rows = open_question_tokenizer(file, None), config.question_config["vocab_size"]
    if tokenizer.vocab_size != rows:
        raise ModelError(
            message(
                "fusion.other-tokenizer",
                "tokenizer {file} has {ids:,} ids, the checkpoint {rows:,}: it was trained with another",
                file=file,
                ids=tokenizer.vocab_size,
                rows=rows,
            ),
            message(
                "fusion.other-tokenizer.hint",
                "the original's is that of xlm-roberta-base: kovqa download xlm-roberta-base",
            ),
        )
    return tokenizer


# -------------------------------------------------------------------------- dimensions


def config_from_tensors(
    tensors: Mapping[str, Tensor], checkpoint: Path, sets: Sequence[str] = ()
) -> ModelConfig:
    """The original's settings, with the dimensions that the tensors have.

    Raises:
        SettingsError: an unknown setting, or one that must be set.
        ModelError: a tensor that tells a dimension is missing.
    """
    document = read_import_settings("fusion", {}, sets)
    config = build_settings(ModelConfig, document, ("model",))
    try:
        # What the user sets wins over what shapes tell.
        question = {**_question_dimensions(tensors), **config.question_config}
        image = {**_image_dimensions(tensors), **config.picture_config}
        hidden, classes = len(tensors["linear.bias"]), len(tensors["out_linear.bias"])
    except (KeyError, IndexError, TypeError) as error:
        raise _foreign_checkpoint(
            checkpoint, message("fusion.no-usable-tensor", "no usable {name}", name=error)
        ) from None
    # No shape tells it: q, k and v of all heads are one matrix [D, D].
    if "num_attention_heads" not in question:
        if question["hidden_size"] % _HEAD_WIDTH:
            raise SettingsError(
                message(
                    "fusion.unknown-heads",
                    "{checkpoint} does not tell the number of its attention heads",
                    checkpoint=checkpoint,
                ),
                message("fusion.unknown-heads.hint", "--set model.question_config.num_attention_heads=N"),
            )
        question["num_attention_heads"] = question["hidden_size"] // _HEAD_WIDTH
    dimensions = {
        "question_config": question_encoder_config(question, None, question["vocab_size"]),
        "picture_config": image_encoder_config(image, None),
        "hidden_size": hidden,
        "num_classes": classes,
    }
    return config.model_copy(update=dimensions)


def _question_dimensions(tensors: Mapping[str, Tensor]) -> dict[str, int]:
    layers = sum(name.endswith(".attention.self.query.weight") for name in tensors)
    rows = {key: tensors[f"bert.{name}.weight"].shape[0] for key, name in _ROW_TENSORS.items()}
    return {**rows, "num_hidden_layers": layers}


def _image_dimensions(tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Blocks and channels of the four stages, unless they are ResNet-50's."""
    stages = [f"i_model.layer{stage}." for stage in (1, 2, 3, 4)]
    blocks = [sum(n.startswith(stage) and n.endswith(".conv1.weight") for n in tensors) for stage in stages]
    channels = [tensors[f"{stage}0.conv1.weight"].shape[0] for stage in stages]
    stages_config = {"layers": blocks, "channels": channels}
    return {} if stages_config == _RESNET50_STAGES else stages_config


def check_tensor_shapes(tensors: Mapping[str, Tensor], config: ModelConfig, checkpoint: Path) -> None:
    """See that every tensor fits the network, before memory is allocated for it.

    Raises:
        ModelError: one is missing, of another shape, or unknown.
    """
    # Shapes without memory: sizes come from the file, and may be anything.
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in FusionNet(config).state_dict().items()}
    try:
        stored = {name: list(tensor.shape) for name, tensor in rename_state_dict(tensors).items()}
    except KeyError as error:
        raise _foreign_checkpoint(
            checkpoint, message("fusion.unknown-tensor", "it has an unknown {name}", name=error)
        ) from None
    for name in sorted(expected.keys() | stored.keys()):
        if expected.get(name) != stored.get(name):
            raise _foreign_checkpoint(checkpoint, shape_problem(name, stored.get(name), expected.get(name)))


def _foreign_checkpoint(checkpoint: Path, problem: Message) -> ModelError:
    return ModelError(
        message(
            "fusion.not-vqa-nia",
            "{checkpoint} is not a model of VQA_NIA: {problem}",
            checkpoint=checkpoint,
            problem=problem,
        ),
        message("fusion.not-vqa-nia.hint", "name another checkpoint"),
    )
