"""A fine-tuned checkpoint of the original -> a checkpoint folder of ours, which answers at once.

Source: docs/sources/beit3.md, B11, B12, B15, B44 to B46 and B51.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kovqa_core.data.answers import read_answers
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.models.beit3.config import (
    NAMED_DIMENSIONS,
    PUBLISHED_TOKENIZER,
    SPARE_TEXT_ROWS,
    ModelConfig,
    find_tokenizer,
    has_published_name,
)
from kovqa_core.models.beit3.family import build_beit3
from kovqa_core.models.beit3.pretrained_weights import (
    TEXT_TABLE_NAME,
    LoadReport,
    load_pretrained_weights,
    position_grid,
    read_pretrained_weights,
)
from kovqa_core.models.checkpoint_info import CheckpointInfo, has_checkpoint_info
from kovqa_core.models.imported_checkpoint import (
    ImportedCheckpoint,
    describe_files,
    read_import_settings,
    require_class_count,
    write_imported_model,
)
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer, load_xlmr_tokenizer
from kovqa_core.progress import OnProgress, ignore_progress
from kovqa_core.settings.recipe import DataSettings
from kovqa_core.settings.strict_yaml import YamlMapping, build_settings
from kovqa_core.whole_folder import require_new_folder

_POSITIONS_NAME = "beit3.encoder.embed_positions.A.weight"
_LAYER_NORM_NAME = "self_attn_layer_norm.A.weight"  # one in every layer
_CLASSES_NAME = "head.3.weight"
# Settings of a training's beginning: an imported model has begun already.
_TRAINING_KEYS = ("weights", "weights_tokenizer", "text_rows", "reinit", "tokenizer", "tokenizer_sha256")


def is_beit3_checkpoint(names: Iterable[str]) -> bool:
    """Are these the names of a BEiT-3's tensors, of whatever task?"""
    return any(name.startswith("beit3.") for name in names)


def import_beit3_checkpoint(
    checkpoint: Path,
    labels: Path | None,
    tokenizer: str | None,
    folder: Path,
    sets: Sequence[str] = (),
    on_progress: OnProgress = ignore_progress,
) -> ImportedCheckpoint:
    """Write a checkpoint of the original as a folder that every command takes for a model.

    Answers are chosen and captions searched for as the original's `--eval` did: 3 beams, length penalty 0.6, up to 64
    tokens.

    Args:
        checkpoint: weights of a classifier over answers or of a captioner; see `read_pretrained_weights`.
        labels: a classifier's answers in order, the original's `answer2label.txt`; None: a captioner has none.
        tokenizer: its SentencePiece model, a file or an asset's; None: that of the published weights, if these are.
        folder: what to write; see `write_new_folder`.
        sets: `model.a=b` texts: settings that the weights do not tell and that are not the original's.
        on_progress: called with notes.

    Raises:
        SettingsError: a folder that holds something else, or that another process writes; an unknown setting; labels or
            a tokenizer that are missing, labels too many.
        AssetError: the tokenizer is nowhere.
        ModelError: a checkpoint that cannot be read, or without a head that answers; another number of classes than the
            labels have; a tokenizer with more ids than it has rows.
        DataError: labels that cannot be read.
    """
    require_new_folder(folder, has_checkpoint_info)
    tensors, beside = read_pretrained_weights(checkpoint)
    task = detect_task(tensors, checkpoint)
    config = config_from_tensors(tensors, checkpoint, task, sets)
    answers = _read_labels(labels, config.num_classes, checkpoint)
    spm = load_xlmr_tokenizer(find_tokenizer(tokenizer or _published_tokenizer(checkpoint)))
    warnings = _check_tokenizer(spm, len(tensors[TEXT_TABLE_NAME]), checkpoint, tokenizer)
    model, processor = build_beit3(config, spm, answers, DataSettings())
    # Without memory first: sizes come from the file, and may be anything.
    _load_weights(model.net, tensors, checkpoint)
    model.to_empty(device="cpu")
    report = _load_weights(model.net, tensors, checkpoint)
    info = CheckpointInfo("beit3", task, imported=describe_files(checkpoint, labels))
    write_imported_model(folder, model, processor, info, on_progress)
    return ImportedCheckpoint(
        task,
        f"BEiT-3 {config.size}, {config.image_size} px",
        [*report.loaded, *report.resized],
        [*report.unused, *beside],
        config.num_classes,
        {},
        warnings,
    )


def _load_weights(net: torch.nn.Module, tensors: Mapping[str, Tensor], checkpoint: Path) -> LoadReport:
    try:
        return load_pretrained_weights(net, tensors, (), str(checkpoint))
    except ModelError as error:
        raise ModelError(
            error.message,
            message(
                "beit3.import-does-not-fit.hint",
                "fetch the file again; or leave out the --set that says something else than its weights",
            ),
        ) from None


# ------------------------------------------------------------------------------- what it is


def detect_task(tensors: Mapping[str, Tensor], checkpoint: Path) -> str:
    """ "vqa" or "caption", by the heads a checkpoint has.

    Raises:
        ModelError: it has a head of another task, or none that answers.
    """
    heads = {name.partition(".")[0] for name in tensors} - {"beit3"}
    if "head.0.weight" in tensors:
        return "vqa"
    # A pretrained file has the captioner's head too, beside the one for image patches.
    if "mlm_head" in heads and "mim_head" not in heads:
        return "caption"
    raise ModelError(
        message(
            "beit3.no-answering-head",
            "{checkpoint} is {kind}: it has no head that answers questions or writes captions",
            checkpoint=checkpoint,
            kind=_other_kind(tensors, heads),
        ),
        message(
            "beit3.no-answering-head.hint",
            "name a file like beit3_…_vqa.pth or beit3_…_captioning.pth; a training can begin from this one: "
            "kovqa train --set model.weights=FILE",
        ),
    )


def _other_kind(tensors: Mapping[str, Tensor], heads: set[str]) -> Message:
    if "mim_head" in heads:
        return message("beit3.kind-pretrained", "a pretrained BEiT-3")
    if heads & {"language_head", "vision_head"}:
        return message("beit3.kind-retrieval", "a BEiT-3 for retrieval, or trained by contrast (itc)")
    if "head.dense1.weight" in tensors:
        return message("beit3.kind-nlvr2", "a BEiT-3 for NLVR2")
    if "fc_norm" in heads:
        return message("beit3.kind-imagenet", "a BEiT-3 for image classes (in1k)")
    return message("beit3.kind-body", "the body of a BEiT-3")


def config_from_tensors(
    tensors: Mapping[str, Tensor], checkpoint: Path, task: str, sets: Sequence[str] = ()
) -> ModelConfig:
    """The original's settings, with the dimensions that the tensors have.

    Raises:
        SettingsError: an unknown setting, or one that must be set.
        ModelError: a tensor that tells a dimension is missing.
    """
    try:
        told = _told_by_tensors(tensors, task)
    except (KeyError, IndexError, ValueError, ModelError) as error:
        raise ModelError(
            message(
                "beit3.no-usable-tensor",
                "{checkpoint} does not tell the sizes of a BEiT-3: {problem}",
                checkpoint=checkpoint,
                problem=error,
            ),
            message("beit3.no-usable-tensor.hint", "fetch the file again"),
        ) from None
    document = read_import_settings("beit3", told, sets)
    model = document.values["model"]
    assert isinstance(model, dict)
    for key in _TRAINING_KEYS:
        if key in model:
            raise SettingsError(
                message(
                    "beit3.training-setting",
                    "--set model.{key} is a setting of a training's beginning",
                    key=key,
                ),
                message("beit3.training-setting.hint", "leave it out"),
            )
    custom = model.get("custom")
    if isinstance(custom, dict) and "num_heads" not in custom:
        raise SettingsError(
            message(
                "beit3.unknown-heads",
                "{checkpoint} is neither base nor large, and does not tell the number of its attention heads",
                checkpoint=checkpoint,
            ),
            message("beit3.unknown-heads.hint", "--set model.custom.num_heads=N"),
        )
    return build_settings(ModelConfig, document, ("model",))


def _told_by_tensors(tensors: Mapping[str, Tensor], task: str) -> YamlMapping:
    """Settings that shapes tell; all but the number of heads, which every [D, D] hides."""
    width, _, patch, _ = tensors["beit3.vision_embed.proj.weight"].shape
    layers = sum(name.endswith(_LAYER_NORM_NAME) for name in tensors)
    ffn = tensors["beit3.encoder.layers.0.ffn.A.fc1.weight"].shape[0]
    positions = tensors[_POSITIONS_NAME]
    told: YamlMapping = {
        "patch_size": patch,
        "image_size": position_grid(len(positions)) * patch,
        "vocab_size": tensors[TEXT_TABLE_NAME].shape[0],
        "num_classes": tensors[_CLASSES_NAME].shape[0] if task == "vqa" else None,
    }
    for name, size in NAMED_DIMENSIONS.items():
        if (size.embed_dim, size.num_layers, size.ffn_dim) == (width, layers, ffn):
            return {**told, "size": name}
    custom: YamlMapping = {"embed_dim": width, "num_layers": layers, "ffn_dim": ffn}
    return {**told, "size": "custom", "custom": custom}


# ------------------------------------------------------------------- answers and tokenizer


def _read_labels(labels: Path | None, classes: int | None, checkpoint: Path) -> list[str]:
    """The answers of a classifier in order; of a captioner none."""
    if classes is None:
        if labels is not None:
            raise SettingsError(
                message(
                    "beit3.labels-not-needed",
                    "{checkpoint} writes captions: it has no labels",
                    checkpoint=checkpoint,
                ),
                message("beit3.labels-not-needed.hint", "leave out --labels"),
            )
        return []
    if labels is None:
        raise SettingsError(
            message(
                "beit3.labels-missing",
                "{checkpoint} chooses among {classes:,} answers, which only --labels names",
                checkpoint=checkpoint,
                classes=classes,
            ),
            _labels_hint(),
        )
    answers = read_answers(labels)
    require_class_count(answers, classes, labels, _labels_hint())
    return answers


def _labels_hint() -> Message:
    return message(
        "beit3.labels.hint",
        "give the answer2label.txt of the data it was trained on; that of VQAv2 is written by: "
        "kovqa index vqav2 --root DIR --as-upstream --tokenizer beit3.spm",
    )


def _published_tokenizer(checkpoint: Path) -> str:
    if has_published_name(checkpoint):
        return PUBLISHED_TOKENIZER
    raise SettingsError(
        message(
            "beit3.import-tokenizer-missing",
            "which tokenizer was {checkpoint} trained with? Its text rows belong to it",
            checkpoint=checkpoint,
        ),
        message(
            "beit3.import-tokenizer-missing.hint",
            "--tokenizer FILE; that of the authors' own weights is {published}",
            published=PUBLISHED_TOKENIZER,
        ),
    )


def _check_tokenizer(spm: XlmrTokenizer, rows: int, checkpoint: Path, named: str | None) -> list[Message]:
    """See that every id has a row; a table much larger than the tokenizer is worth a warning."""
    name, ids = named or PUBLISHED_TOKENIZER, spm.vocab_size
    if ids > rows:
        raise ModelError(
            message(
                "beit3.import-other-tokenizer",
                "tokenizer {tokenizer} has {ids:,} ids, the text table of {checkpoint} {rows:,} rows: it was trained "
                "with another",
                tokenizer=name,
                ids=ids,
                checkpoint=checkpoint,
                rows=rows,
            ),
            message(
                "beit3.import-other-tokenizer.hint", "name the one it was trained with: --tokenizer FILE"
            ),
        )
    if rows - ids in (0, SPARE_TEXT_ROWS):
        return []
    return [
        message(
            "beit3.import-spare-rows",
            "warning: tokenizer {tokenizer} has {ids:,} ids, the text table {rows:,} rows: unless it is the one the "
            "model was trained with, every word is another's",
            tokenizer=name,
            ids=ids,
            rows=rows,
        )
    ]
