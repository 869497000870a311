"""Two encoders fused into an answer classifier, behind the contract of `models/family.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kovqa_core.data.answers import find_class, number_classes, write_answers
from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import SettingsError, first_names
from kovqa_core.files import write_text
from kovqa_core.index.reader import filter_question_types, open_training_index
from kovqa_core.messages import Message, message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.checkpoint_info import read_checkpoint_info, write_checkpoint_info
from kovqa_core.models.class_answers import begin_answers_of, count_foreign_choices
from kovqa_core.models.closed_folder import building
from kovqa_core.models.compiled_layers import compile_methods, eager_layers
from kovqa_core.models.config import config_from_recipe, read_checkpoint_config
from kovqa_core.models.explain_functions import ExplainFunctions
from kovqa_core.models.export_check import ExportCheck, ExportedModel
from kovqa_core.models.family import (
    FamilyModel,
    LoadOptions,
    ModelFamily,
    ReadAnswers,
    read_answer_classes,
    unloadable_weights_error,
)
from kovqa_core.models.feature_request import FeatureRequest
from kovqa_core.models.fusion import export as fusion_export
from kovqa_core.models.fusion import export_check
from kovqa_core.models.fusion.config import (
    ModelConfig,
    find_image_encoder,
    find_question_encoder,
    find_tokenizer_file,
    image_encoder_config,
    question_encoder_config,
    tokenizer_file_in,
)
from kovqa_core.models.fusion.encoders import load_encoder_weights
from kovqa_core.models.fusion.explain import score_answer
from kovqa_core.models.fusion.feature_file import make_feature_file
from kovqa_core.models.fusion.losses import compute_class_weights, row_weights
from kovqa_core.models.fusion.network import FusionNet
from kovqa_core.models.fusion.tokenizer import (
    QuestionTokenizer,
    open_question_tokenizer,
    saved_tokenizer_name,
)
from kovqa_core.models.fusion.vqa import FusionProcessor, fusion_logits, fusion_loss
from kovqa_core.models.plausible_sizes import require_plausible_sizes
from kovqa_core.models.token_count import TokenCount
from kovqa_core.settings.recipe import Recipe

_NO_DECAY_SUFFIXES = (
    "pos_embed",
    "cls_token",
    "reg_token",
    "kinds",
)  # of tables and tokens that do not decay
_MAX_NAMED_WEIGHTS = 4  # in a note


class FusionModel(FamilyModel):
    """A network with its answers."""

    def __init__(self, net: FusionNet, answers: list[str]) -> None:
        super().__init__()
        self.net, self.answers, self.top_k = net, answers, 1

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch."""
        if not batch.ids:
            return {"loss": self.zero_loss()}
        return {"loss": fusion_loss(self.net, batch)}

    def loss_weight(self, batch: ModelBatch, step: int) -> Tensor | float:
        """With class weights their sum over the rows, else the rows."""
        if self.net.class_weight is None or not batch.ids:
            return super().loss_weight(batch, step)
        return row_weights(batch.tensors["targets"], self.net.class_weight).sum()

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer an example."""
        return self.begin_answers(batch)()

    def begin_answers(self, batch: ModelBatch) -> ReadAnswers:
        """The same, to be read later."""
        # Compiled for training: each size of a batch would be compiled anew.
        with eager_layers(compiled=self.net.compiled):
            probabilities = fusion_logits(self.net, batch).softmax(1)
        return begin_answers_of(batch, self.answers, probabilities, lambda values: values, self.top_k)

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Activation checkpointing in both encoders; torch.compile of the question's layers and the image encoder."""
        if activation_checkpointing and self.net.config.freeze != "both":
            self.net.question.gradient_checkpointing_enable()
        if activation_checkpointing and self.net.config.freeze == "none":
            self.net.picture.set_grad_checkpointing()
        if compile:
            self.net.compiled = True
            for layer in self.net.question.encoder.layer:
                compile_methods(layer, "forward", fullgraph=False, dynamic=True)
            compile_methods(self.net.picture, "forward", fullgraph=False)

    def suit_device(self, device: torch.device, precision: str) -> None:
        """Channels last for convolutions on a GPU, as their images are: cuDNN would turn both in every step."""
        if device.type == "cuda":
            self.net.picture.to(memory_format=torch.channels_last)

    def fsdp_units(self) -> list[nn.Module]:
        """The question encoder's layers, and the image encoder."""
        return [*self.net.question.encoder.layer, self.net.picture]

    @property
    def head_layer_id(self) -> int:
        """One past the question encoder's last layer."""
        return int(self.net.config.question_config["num_hidden_layers"]) + 1

    def layer_id(self, name: str) -> int:
        """Embeddings 0, the question's layer i at i + 1, the image encoder below the head, the head last."""
        name = name.removeprefix("net.")
        if name.startswith("question.embeddings"):
            return 0
        _, in_layers, rest = name.partition("question.encoder.layer.")
        if in_layers:
            return int(rest.split(".")[0]) + 1
        return self.head_layer_id - 1 if name.startswith("picture.") else self.head_layer_id

    def is_head_parameter(self, name: str) -> bool:
        """Whatever reads the encoders' features."""
        return not name.removeprefix("net.").startswith(("question.", "picture."))

    def no_weight_decay(self, name: str) -> bool:
        """Position tables and tokens of an image encoder, and what tells both kinds of token apart."""
        return name.endswith(_NO_DECAY_SUFFIXES)

    def is_text_parameter(self, name: str) -> bool:
        """The question encoder, and what reads it."""
        return not name.removeprefix("net.").startswith("picture.")


def new_model(recipe: Recipe, answers: list[str]) -> tuple[FusionModel, FusionProcessor, str]:
    """A model for a recipe and its answer classes.

    Raises:
        SettingsError: another task, an encoder that does not exist, a tokenizer too large.
        AssetError: an encoder or a tokenizer is not here; never a silent random start.
        ModelError: weights that do not fit.
    """
    if recipe.task != "vqa":
        raise SettingsError(
            message(
                "fusion.other-task", "the fusion family answers questions; it cannot {task}", task=recipe.task
            ),
            message("fusion.other-task.hint", "use task: vqa"),
        )
    config = config_from_recipe(ModelConfig, recipe)
    question_folder, image_folder = None, None
    if not config.random_init:
        question_folder = find_question_encoder(config.question)
        image_folder = find_image_encoder(config.picture)
    tokenizer = open_question_tokenizer(find_tokenizer_file(config), config.tokenizer_sha256)
    complete = {
        "question_config": question_encoder_config(
            config.question_config, question_folder, tokenizer.vocab_size
        ),
        "picture_config": image_encoder_config(config.picture_config, image_folder),
        "num_classes": len(answers),
    }
    config = config.model_copy(update=complete)
    _require_text_rows(config, tokenizer)
    # Both libraries draw from torch's own generator: seeded here, and put back for everybody else.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = FusionNet(config)
    if config.class_weights != "none":
        net.class_weight = compute_class_weights(_count_answers(recipe, answers), config.class_weights)
    # After all random draws: which weights exist must not change what the head begins with.
    note = _load_encoders(net, question_folder, image_folder)
    return FusionModel(net, answers), FusionProcessor(config, tokenizer, answers, recipe.data), note


def _require_text_rows(config: ModelConfig, tokenizer: QuestionTokenizer) -> None:
    rows = config.question_config["vocab_size"]
    if tokenizer.vocab_size > rows:
        raise SettingsError(
            message(
                "fusion.small-text-table",
                "tokenizer {tokenizer} has {ids} ids, the question encoder only {rows} rows",
                tokenizer=find_tokenizer_file(config),
                ids=tokenizer.vocab_size,
                rows=rows,
            ),
            message("fusion.small-text-table.hint", "use the encoder's own tokenizer: leave out --tokenizer"),
        )


def _load_encoders(net: FusionNet, question_folder: Path | None, image_folder: Path | None) -> str:
    """Read published weights into both encoders; a note on what has random ones."""
    if question_folder is None or image_folder is None:
        return message(
            "fusion.random-note",
            "weights: newly initialised, both encoders too (random_init): neither has been pretrained",
        )
    reports = [
        load_encoder_weights(net.question, question_folder),
        load_encoder_weights(net.picture, image_folder),
    ]
    new = [name for report in reports for name in report.newly_initialised]
    unused = [name for report in reports for name in report.unused]
    question, image = question_folder.name, image_folder.name
    if not new:
        note = message(
            "fusion.weights-note",
            "question encoder {question}, image encoder {image}, and a new head",
            question=question,
            image=image,
        )
    else:
        note = message(
            "fusion.partial-weights-note",
            "question encoder {question}, image encoder {image}, newly initialised: {new}, and the head",
            question=question,
            image=image,
            new=", ".join(new),
        )
    if not unused:
        return note
    return message(
        "fusion.unused-weights-note",
        "{note}; not used: {names}",
        note=note,
        names=first_names(unused, _MAX_NAMED_WEIGHTS),
    )


def _count_answers(recipe: Recipe, answers: list[str]) -> list[int]:
    """Training rows of each class."""
    split = open_training_index(recipe.data).split("train")
    rows = filter_question_types(split, recipe.data.kinds)
    label_of = number_classes(answers)
    counts = Counter(find_class(label_of, answer) for row in rows for answer in row.answers)
    return [counts[label] for label in range(len(answers))]


def write_config(processor: FusionProcessor, folder: Path) -> None:
    """Write config.json of a folder that has its own weights and tokenizer: how they were found no longer matters."""
    config = processor.config.model_copy(
        update={"random_init": False, "tokenizer": None, "tokenizer_sha256": processor.tokenizer.sha256}
    )
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")


def save_model(model: FusionModel, processor: FusionProcessor, folder: Path) -> None:
    """config.json, model.safetensors, answers.txt and the tokenizer."""
    write_config(processor, folder)
    save_file({n: t.contiguous() for n, t in model.net.state_dict().items()}, folder / "model.safetensors")
    write_answers(folder / "answers.txt", processor.answers)
    (folder / "tokenizer").mkdir()
    file = folder / "tokenizer" / saved_tokenizer_name(processor.tokenizer)
    file.write_bytes(processor.tokenizer.model_bytes)


def export_model(folder: Path, output: Path, options: LoadOptions) -> ExportedModel:
    """Write a checkpoint for transformers and timm, and for kovqa."""
    model, processor = load_model(folder, options)
    write_config(processor, output)
    write_checkpoint_info(output, read_checkpoint_info(folder))
    return ExportedModel(fusion_export.write_fusion_export(model.net, processor, output))


def load_model(folder: Path, options: LoadOptions) -> tuple[FusionModel, FusionProcessor]:
    """Read what `save_model` or `export_model` wrote.

    Raises:
        ModelError: a file is missing, broken or swapped, or the answer list has another length.
    """
    config = read_checkpoint_config(ModelConfig, folder, "fusion")
    answers = read_answer_classes(folder, config.num_classes)
    is_exported = fusion_export.is_fusion_export(folder)
    tokenizer_folder = folder / (fusion_export.QUESTION_FOLDER if is_exported else "tokenizer")
    tokenizer = open_question_tokenizer(tokenizer_file_in(tokenizer_folder), config.tokenizer_sha256)
    require_plausible_sizes(folder, config.model_dump())
    with building(folder / "config.json"):
        model = FusionModel(FusionNet(config), answers)
    try:
        state = (
            fusion_export.read_exported_state(folder)
            if is_exported
            else load_file(folder / "model.safetensors")
        )
        model.net.load_state_dict(state)
    except (RuntimeError, SafetensorError, OSError) as error:
        raise unloadable_weights_error(folder, error) from None
    return model, FusionProcessor(config, tokenizer, answers, options.data)


def use_features(model: FusionModel, processor: FusionProcessor, request: FeatureRequest) -> Message | None:
    """From now on batches hold features of a frozen image encoder, where they are the same in every epoch."""
    config, data = model.net.config, processor.pipeline.data
    if config.freeze == "none" or not config.feature_cache_gb:
        return None
    if data.augment != "none" or data.flip:
        return message(
            "fusion.augmented-features",
            "images are augmented, so the frozen image encoder computes in every epoch; "
            "data.augment=none and data.flip=false compute once an image",
        )
    processor.features, note = make_feature_file(model.net, processor.pipeline, request)
    return note


def set_top_k(model: FusionModel, top_k: int) -> None:
    """From now on each answer brings so many of the likeliest."""
    model.top_k = top_k


def set_class_choices(processor: FusionProcessor) -> None:
    """From now on a row is answered with one of its choices."""
    processor.offers_choices = True


def count_text_tokens(processor: FusionProcessor, examples: Sequence[Example]) -> TokenCount:
    """What the tokenizer makes of questions."""
    texts = [example.question for example in examples]
    return processor.tokenizer.count_tokens(texts, processor.config.max_text)


FAMILY = ModelFamily(
    new_model,
    load_model,
    save_model,
    export_model,
    export_check=ExportCheck(
        "transformers and timm", export_check.own_logits, export_check.example_row, export_check.CHECK_CODE
    ),
    set_top_k=set_top_k,
    set_class_choices=set_class_choices,
    count_foreign_choices=lambda processor, examples: count_foreign_choices(processor.label_of, examples),
    prompt_columns=lambda processor: ("choices",) if processor.offers_choices else (),
    count_text_tokens=count_text_tokens,
    use_features=use_features,
    explain=ExplainFunctions(
        lambda model, processor, batch, answer: score_answer(model.net, processor, batch, answer),
        as_stored=lambda processor: processor.config.load_as_stored,
    ),
)
