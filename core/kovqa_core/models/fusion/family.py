"""Two encoders fused into an answer classifier, behind the contract of `models/family.py`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kovqa_core.data.answers import write_answers
from kovqa_core.data.example import Answer
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.files import write_text
from kovqa_core.index.reader import filter_question_types, open_index
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.config import config_from_recipe, read_checkpoint_config
from kovqa_core.models.family import FamilyModel, LoadOptions, ModelFamily, read_answer_classes
from kovqa_core.models.fusion import export as fusion_export
from kovqa_core.models.fusion import vqa
from kovqa_core.models.fusion.config import (
    ModelConfig,
    find_encoder_folder,
    find_tokenizer_file,
    image_encoder_config,
    question_encoder_config,
    tokenizer_file_in,
)
from kovqa_core.models.fusion.encoders import load_encoder_weights
from kovqa_core.models.fusion.losses import compute_class_weights
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.tokenizer import open_question_tokenizer, saved_tokenizer_name
from kovqa_core.settings.recipe import Recipe

_NO_DECAY_SUFFIXES = (
    "pos_embed",
    "cls_token",
    "reg_token",
    "kinds",
)  # tables and tokens that are not decayed


class FusionModel(FamilyModel):
    """A network with its answers."""

    def __init__(self, net: FusionNet, answers: list[str]) -> None:
        super().__init__()
        self.net, self.answers = net, answers

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch."""
        return {"loss": vqa.fusion_loss(self.net, batch)}

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer an example."""
        return vqa.best_class_answers(self.net, self.answers, batch)

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Memory for time in both encoders, and torch.compile of each."""
        if activation_checkpointing:
            self.net.question.gradient_checkpointing_enable()
            self.net.picture.set_grad_checkpointing()
        if compile:
            self.net.question.compile()
            self.net.picture.compile()

    def fsdp_units(self) -> list[nn.Module]:
        """The question encoder's layers, and the picture encoder."""
        return [*self.net.question.encoder.layer, self.net.picture]

    @property
    def head_layer_id(self) -> int:
        """One past the question encoder's last layer."""
        return int(self.net.config.question_config["num_hidden_layers"]) + 1

    def layer_id(self, name: str) -> int:
        """Embeddings 0, the question's layer i at i + 1, the picture encoder below the head, the head last."""
        name = name.removeprefix("net.")
        if name.startswith("question.embeddings"):
            return 0
        _, found, rest = name.partition("question.encoder.layer.")
        if found:
            return int(rest.split(".")[0]) + 1
        return self.head_layer_id - 1 if name.startswith("picture.") else self.head_layer_id

    def is_head_parameter(self, name: str) -> bool:
        """What both encoders' features go through."""
        return not name.removeprefix("net.").startswith(("question.", "picture."))

    def no_weight_decay(self, name: str) -> bool:
        """Position tables and tokens of a picture encoder."""
        return name.endswith(_NO_DECAY_SUFFIXES)

    def is_text_parameter(self, name: str) -> bool:
        """The question encoder, and what reads it."""
        return not name.removeprefix("net.").startswith("picture.")


def new_model(recipe: Recipe, answers: list[str]) -> tuple[FusionModel, vqa.FusionProcessor, str]:
    """A model for a recipe and an answer list.

    Raises:
        SettingsError: another task, an encoder that does not exist, a tokenizer too large.
        AssetError: an encoder or a tokenizer is not here; never a silent random start.
        ModelError: weights that do not fit.
    """
    if recipe.task != "vqa":
        raise SettingsError(f"the fusion family answers questions; it cannot {recipe.task}", "use task: vqa")
    config = config_from_recipe(ModelConfig, recipe)
    question, picture = (
        (None, None)
        if config.random_init
        else (
            find_encoder_folder(config.question, "question encoder"),
            find_encoder_folder(config.picture, "picture encoder"),
        )
    )
    tokenizer = find_tokenizer_file(config)
    text = open_question_tokenizer(tokenizer, config.tokenizer_sha256)
    whole = {
        "question_config": question_encoder_config(config.question_config, question, text.vocab_size),
        "picture_config": image_encoder_config(config.picture_config, picture),
        "num_classes": len(answers),
    }
    config = config.model_copy(update=whole)
    if text.vocab_size > config.question_config["vocab_size"]:
        raise SettingsError(
            f"tokenizer {tokenizer} has {text.vocab_size} ids, the question encoder only "
            f"{config.question_config['vocab_size']} rows",
            "use the encoder's own tokenizer: leave --tokenizer away",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = FusionNet(config)
    if config.class_weights != "none":
        net.class_weight = compute_class_weights(_count_answers(recipe, answers), config.class_weights)
    note = "weights: newly initialised, both encoders too (random_init): they know no language and no picture"
    if question and picture:
        fresh = [*load_encoder_weights(net.question, question), *load_encoder_weights(net.picture, picture)]
        shown = f", newly initialised: {', '.join(fresh)}" if fresh else ""
        note = f"question encoder {question.name}, picture encoder {picture.name}{shown}, and the head"
    return FusionModel(net, answers), vqa.FusionProcessor(config, text, answers, recipe.data), note


def _count_answers(recipe: Recipe, answers: list[str]) -> list[int]:
    """Training rows of each class."""
    images = Path(recipe.data.images) if recipe.data.images else None
    split = open_index(Path(recipe.data.index or ""), images).split("train")
    rows = filter_question_types(split, recipe.data.kinds)
    seen = Counter(answer for row in rows for answer in row.answers)
    return [seen[answer] for answer in answers]


def save_model(model: FusionModel, processor: vqa.FusionProcessor, folder: Path) -> None:
    """config.json, model.safetensors, answers.txt and the tokenizer."""
    config = processor.config.model_copy(
        update={"random_init": False, "tokenizer": None, "tokenizer_sha256": processor.text.sha256}
    )
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")
    save_file({n: t.contiguous() for n, t in model.net.state_dict().items()}, folder / "model.safetensors")
    write_answers(folder / "answers.txt", processor.answers)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / saved_tokenizer_name(processor.text)).write_bytes(processor.text.model_bytes)


def export_model(folder: Path, output: Path, options: LoadOptions) -> str:
    """Write what `save` wrote for transformers and timm; Python that loads it."""
    model, processor = load_model(folder, options)
    return fusion_export.write_fusion_export(model.net, processor, output)


def load_model(folder: Path, options: LoadOptions) -> tuple[FusionModel, vqa.FusionProcessor]:
    """Read what `save` wrote.

    Raises:
        ModelError: a file is missing, broken or swapped, or the answer list has another length.
    """
    config = read_checkpoint_config(ModelConfig, folder, "fusion")
    answers = read_answer_classes(folder, config.num_classes)
    text = open_question_tokenizer(tokenizer_file_in(folder / "tokenizer"), config.tokenizer_sha256)
    model = FusionModel(FusionNet(config), answers)
    try:
        model.net.load_state_dict(load_file(folder / "model.safetensors"))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ModelError(
            f"{folder}/model.safetensors cannot be loaded ({str(error).splitlines()[0]})"
        ) from None
    return model, vqa.FusionProcessor(config, text, answers, options.data)


FAMILY = ModelFamily(new_model, load_model, save_model, export_model)
