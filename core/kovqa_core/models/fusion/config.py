"""Encoders, fusion and loss of fusion models. Imports nothing heavy.

Source: docs/sources/vqa_nia.md, N2 to N10; the defaults are the original's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import AssetError, ModelError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.models.closed_folder import read_model_json
from kovqa_core.models.config import FamilyConfig
from kovqa_core.tokenizer.sentencepiece_model import require_model_file

SENTENCEPIECE_FILES = ("sentencepiece.bpe.model", "spm.model")  # read by XLM-R's rules
TOKENIZER_FILES = (
    *SENTENCEPIECE_FILES,
    "tokenizer.json",
    "vocab.txt",
)  # the first of these that a folder has

# XLM-RoBERTa base, where nothing says otherwise; the vocabulary's size is the tokenizer's.
_XLMR_BASE = {
    "model_type": "xlm-roberta", "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5,
    "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
}  # fmt: skip


# Settings of transformers and arguments of timm: what they are is the libraries' business.
EncoderSettings = dict[str, Any]


class ModelConfig(FamilyConfig):
    """The `model:` part of a recipe, and `config.json` of a checkpoint."""

    question: str = Field(
        "xlm-roberta-base",
        description="question encoder: a Hugging Face folder or asset",
        examples=["assets/klue-roberta-base"],
    )
    picture: str = Field(
        "resnet50-ram", description="image encoder: a timm folder or asset", examples=["assets/vit-small"]
    )
    question_config: EncoderSettings = Field(
        {}, description="settings of the question encoder that differ", examples=[{"num_hidden_layers": 6}]
    )
    picture_config: EncoderSettings = Field(
        {}, description="arguments of timm.create_model that differ", examples=[{"drop_path_rate": 0.1}]
    )
    random_init: bool = Field(False, description="encoders start with random weights: no file is read")
    freeze: Literal["none", "picture", "both"] = Field(
        "none",
        description="encoders that keep their published weights; features of a frozen image encoder are computed "
        "once an image (needs fusion: grid and data.augment: none)",
    )
    feature_cache_gb: float = Field(
        4.0,
        ge=0,
        description="most room of the file that keeps those features beside the run; more: computed in every epoch; "
        "0: no file",
        examples=[20],
    )
    tokenizer: str | None = Field(
        None,
        description="default: the question encoder's own; --tokenizer wins",
        examples=["runs/tokenizer/ko.spm"],
    )
    tokenizer_sha256: str | None = Field(
        None, description="SHA-256 of the tokenizer; another one is refused", examples=["3d2c…"]
    )
    image_size: int = Field(
        224, ge=1, le=16384, description="side of the square input image, pixels", examples=[384]
    )
    mean: tuple[float, float, float] = Field(
        (0.485, 0.456, 0.406),
        description="mean of the pixels (0…1) in each colour, taken off",
        examples=[[0.5, 0.5, 0.5]],
    )
    std: tuple[float, float, float] = Field(
        (0.229, 0.224, 0.225),
        description="standard deviation of the pixels in each colour, divided by",
        examples=[[0.5, 0.5, 0.5]],
    )
    resample: Literal["bilinear", "bicubic"] = Field("bilinear", description="how images are resized")
    max_text: int = Field(50, ge=3, description="most tokens of a question", examples=[64])
    fusion: Literal["product", "grid"] = Field(
        "product", description="product of both features; or attention over question tokens and image regions"
    )
    transformer: int = Field(
        0, ge=0, description="transformer layers after the product, or over the grid", examples=[2]
    )
    transformer_heads: int = Field(8, ge=1, description="attention heads of those layers", examples=[16])
    transformer_ffn: int = Field(
        2048, ge=1, description="feed-forward width of those layers", examples=[4096]
    )
    transformer_dropout: float = Field(0.2, ge=0, lt=1, description="dropout of those layers", examples=[0.1])
    scope: Literal["sample", "batch"] = Field(
        "sample",
        description="one sequence an example; `batch` is the original's arithmetic, for comparison only",
    )
    hidden_size: int = Field(1024, ge=1, description="width of the head", examples=[768])
    picture_dropout: float = Field(
        0.25, ge=0, lt=1, description="dropout of the image's features", examples=[0.1]
    )
    head_dropout: float = Field(0.2, ge=0, lt=1, description="dropout of the head", examples=[0.1])
    num_classes: int | None = Field(
        None, ge=1, description="number of answers; default: as many as the index has", examples=[1000]
    )
    loss: Literal["ce", "focal", "focal_original"] = Field(
        "ce", description="cross-entropy; focal by example; the original's focal of the batch mean"
    )
    gamma: float = Field(
        2.0, ge=0, description="focusing power of focal losses; 0: cross-entropy", examples=[1.0]
    )
    smoothing: float = Field(
        0.0, ge=0, lt=1, description="label smoothing; the original's focal loss has 0.1", examples=[0.1]
    )
    class_weights: Literal["none", "original", "inverse_sqrt", "effective"] = Field(
        "none",
        description="weight of an answer that occurs n times: 1 - n/N, n^-1/2, or (1-b)/(1-b^n) with b = 0.9999",
    )
    gradient_times_loss: bool = Field(
        False, description="as the original does: descends half the loss squared"
    )

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.fusion == "grid" and not self.transformer:
            raise ValueError(
                message("fusion.grid-without-layers", "fusion: grid needs transformer: 1 or more layers")
            )
        if self.fusion == "grid" and self.scope == "batch":
            raise ValueError(
                message("fusion.scope-of-product", "scope: batch goes with fusion: product only")
            )
        if self.freeze != "none" and self.fusion != "grid":
            raise ValueError(
                message(
                    "fusion.freeze-of-grid",
                    "freeze goes with fusion: grid only: a product's encoders have new layers of their own, "
                    "which must learn",
                )
            )
        return self

    def plan_notes(self) -> list[Message]:
        """Where features of a frozen image encoder are kept, and how large they may become."""
        if self.freeze == "none" or not self.feature_cache_gb:
            return []
        return [
            message(
                "fusion.features-plan",
                "image features: computed once an image where nothing is augmented, kept beside the run (at most "
                "{most:g} GB: model.feature_cache_gb)",
                most=self.feature_cache_gb,
            )
        ]

    @property
    def micro_batch_loss(self) -> str | None:
        """The original's own forms of loss and sequence."""
        if self.loss == "focal_original":
            return "model.loss=focal_original"
        if self.gradient_times_loss:
            return "model.gradient_times_loss=true"
        return "model.scope=batch" if self.scope == "batch" and self.transformer else None

    def required_files(self) -> list[Callable[[], object]]:
        """Checks, to be called, that encoders and tokenizer are here.

        Raises:
            SettingsError: at once: random weights, and no tokenizer.
        """
        if self.random_init and self.tokenizer is None:
            raise SettingsError(
                message("fusion.no-tokenizer", "random encoders have no tokenizer of their own"),
                message("fusion.no-tokenizer.hint", "name one: --tokenizer FILE (kovqa tokenizer train)"),
            )
        checks: list[Callable[[], object]] = [partial(find_tokenizer_file, self)]
        if not self.random_init:
            checks = [partial(find_question_encoder, self.question), *checks]
            checks.append(partial(find_image_encoder, self.picture))
        return checks


def find_question_encoder(name: str) -> Path:
    """The folder of a question encoder, with `config.json` and weights.

    Args:
        name: path of a folder, or name of an asset.

    Raises:
        AssetError: it is nowhere, or not such a folder.
    """
    folder = _find_encoder_folder(
        name, message("fusion.question-encoder-not-found", "question encoder {name} not found", name=name)
    )
    if not (folder / "config.json").is_file():
        raise _no_config_error(
            message(
                "fusion.question-encoder-without-config",
                "question encoder {folder} has no config.json",
                folder=folder,
            )
        )
    return folder


def find_image_encoder(name: str) -> Path:
    """The folder of an image encoder; arguments and errors as of `find_question_encoder`."""
    folder = _find_encoder_folder(
        name, message("fusion.image-encoder-not-found", "image encoder {name} not found", name=name)
    )
    if not (folder / "config.json").is_file():
        raise _no_config_error(
            message(
                "fusion.image-encoder-without-config",
                "image encoder {folder} has no config.json",
                folder=folder,
            )
        )
    return folder


def _find_encoder_folder(name: str, not_found: Message) -> Path:
    try:
        return find_asset(name, not_found)
    except AssetError as error:
        raise AssetError(
            error.message,
            message(
                "fusion.random-init.hint", "{hint}; --random-init starts from random weights", hint=error.hint
            ),
        ) from None


def _no_config_error(problem: Message) -> AssetError:
    return AssetError(
        problem, message("fusion.no-config.hint", "name the folder of a Hugging Face repository")
    )


def find_tokenizer_file(config: ModelConfig) -> Path:
    """The tokenizer's file: the one named, or the question encoder's own.

    Raises:
        AssetError: the encoder or the tokenizer is nowhere.
        ModelError: the tokenizer is something else, by its first byte.
        ModelError: the encoder's folder has none.
    """
    if config.tokenizer is not None:
        path = find_asset(
            config.tokenizer,
            message("fusion.tokenizer-not-found", "tokenizer {name} not found", name=config.tokenizer),
        )
        if path.is_dir():
            return tokenizer_file_in(path)
        if path.suffix != ".json":
            require_model_file(path)
        return path
    return tokenizer_file_in(find_question_encoder(config.question))


def tokenizer_file_in(folder: Path) -> Path:
    """The tokenizer's file of a folder.

    Raises:
        ModelError: there is none.
    """
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            return folder / name
    if (folder / "merges.txt").is_file():
        hint = message(
            "fusion.no-tokenizer-file.merges-hint",
            "its vocab.json and merges.txt are of an older form: transformers' "
            "AutoTokenizer.from_pretrained('{folder}').save_pretrained('{folder}') writes tokenizer.json",
            folder=folder,
        )
    else:
        hint = message("fusion.no-tokenizer-file.hint", "fetch the folder again")
    raise ModelError(
        message(
            "fusion.no-tokenizer-file",
            "no tokenizer in {folder}: none of {names}",
            folder=folder,
            names=", ".join(TOKENIZER_FILES),
        ),
        hint,
    )


def question_encoder_config(
    changes: EncoderSettings, folder: Path | None, vocab_size: int
) -> EncoderSettings:
    """The complete configuration of a question encoder.

    Args:
        changes: settings that differ.
        folder: of published weights; None: as XLM-RoBERTa base.
        vocab_size: rows of a new text table; published weights keep theirs.
    """
    if folder is None:
        return {**_XLMR_BASE, "vocab_size": vocab_size, **changes}
    return {**read_model_json(folder / "config.json"), **changes}


def image_encoder_config(changes: EncoderSettings, folder: Path | None) -> EncoderSettings:
    """Arguments of `timm.create_model`, `architecture` among them.

    Args:
        changes: arguments that differ.
        folder: of published weights; None: a ResNet-50.

    Raises:
        ModelError: the folder is not timm's.
    """
    if folder is None:
        return {"architecture": "resnet50", **changes}
    published = read_model_json(folder / "config.json")
    if "architecture" not in published:
        raise ModelError(
            message(
                "fusion.no-architecture", "{folder}/config.json names no timm architecture", folder=folder
            ),
            message("fusion.no-architecture.hint", "name a timm folder"),
        )
    arguments = published.get("model_args") or {}
    if not isinstance(arguments, dict):
        raise ModelError(
            message(
                "fusion.odd-model-args",
                "{folder}/config.json: model_args: {value!r} is not an object of arguments",
                folder=folder,
                value=arguments,
            ),
            message("fusion.no-architecture.hint", "name a timm folder"),
        )
    return {"architecture": published["architecture"], **arguments, **changes}
