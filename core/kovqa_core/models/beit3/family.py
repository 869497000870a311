"""BEiT-3 behind the contract of `models/family.py`: questions over an answer list, and captions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kovqa_core.data.answers import write_answers
from kovqa_core.data.example import Answer
from kovqa_core.download.find_asset import find_asset
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.files import write_text
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3 import caption, vocab_transfer, vqa
from kovqa_core.models.beit3.caption import CaptionTask
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import ModelConfig, find_weights, find_weights_tokenizer
from kovqa_core.models.beit3.network import Beit3VqaNet, init_weights
from kovqa_core.models.beit3.pretrained_weights import (
    TEXT_TABLE_NAME,
    load_pretrained_weights,
    load_step_weights,
    read_pretrained_weights,
    to_original_state,
)
from kovqa_core.models.beit3.vqa import VqaTask
from kovqa_core.models.config import config_from_recipe, read_checkpoint_config
from kovqa_core.models.family import FamilyModel, LoadOptions, ModelFamily, read_answer_classes
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer, load_xlmr_tokenizer, require_same_tokenizer
from kovqa_core.settings.recipe import DataSettings, Recipe

Beit3Processor = vqa.Beit3VqaProcessor | caption.Beit3CaptionProcessor


class Beit3Model(FamilyModel):
    """A network with the task it learns.

    Args:
        net: VqaNet or CaptionNet.
        task: what a loss and an answer are.
    """

    def __init__(self, net: Beit3VqaNet | CaptionNet, task: VqaTask | CaptionTask) -> None:
        super().__init__()
        self.net: Any = net
        self.task: Any = task

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch."""
        return {"loss": self.task.loss(self.net, batch, step)}

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer or caption an example."""
        return self.task.answer(self.net, batch)

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Memory for time, and torch.compile of each layer (one compilation serves them all)."""
        self.net.encoder.activation_checkpointing = activation_checkpointing
        if compile:
            for layer in self.net.encoder.layers:
                layer.compile()

    def fsdp_units(self) -> list[nn.Module]:
        """A classifier's layers but the last, of which only the class token's part is called. None of a
        captioner's: it takes picture and words through a layer one after the other."""
        return list(self.net.encoder.layers)[:-1] if isinstance(self.net, Beit3VqaNet) else []

    @property
    def head_layer_id(self) -> int:
        """One past the last layer."""
        return len(self.net.encoder.layers) + 1

    def layer_id(self, name: str) -> int:
        """Embeddings 0, layer i at i + 1, everything after the layers last."""
        return beit3_layer_id(name, self.head_layer_id)

    def is_head_parameter(self, name: str) -> bool:
        """The classifier; neither the pooler nor the head that names words."""
        return is_beit3_head(name)

    def no_weight_decay(self, name: str) -> bool:
        """Class token and picture positions; text positions decay, as in the original."""
        return beit3_no_weight_decay(name)

    def is_text_parameter(self, name: str) -> bool:
        """Text table and positions, the layers' text side, and what reads the encoder."""
        return is_beit3_text(name)


# Rules on names; they hold for our names and for the original's.


def beit3_layer_id(name: str, depth: int) -> int:
    """Depth of a parameter in a model whose head lies at `depth`."""
    if "embed" in name:
        return 0
    _, found, rest = name.partition("layers.")
    return int(rest.split(".")[0]) + 1 if found else depth


def is_beit3_head(name: str) -> bool:
    """Belongs to the classifier?"""
    return name.removeprefix("net.").startswith("head")


def beit3_no_weight_decay(name: str) -> bool:
    """Is free of weight decay though it is a matrix?"""
    ours = ("encoder.cls_token_embed", "encoder.vision_position_embed")
    originals = ("beit3.encoder.embed_positions.A.weight", "beit3.vision_embed.cls_token", "logit_scale")
    return name.removeprefix("net.") in ours + originals


def is_beit3_text(name: str) -> bool:
    """Learns in the text-first phase? What reads the encoder does: nothing is learned through a fresh head."""
    name = name.removeprefix("net.")
    return not name.startswith("encoder.") or "text" in name


# ------------------------------------------------------------------------- new, load, save


def new_model(recipe: Recipe, answers: list[str]) -> tuple[Beit3Model, Beit3Processor, str]:
    """A model for a recipe and an answer list.

    Raises:
        SettingsError: no tokenizer named, or one that does not fit `model.vocab_size` or the weights.
        AssetError: weights or tokenizer are not here.
        ModelError: weights that do not fit.
    """
    config = config_from_recipe(ModelConfig, recipe)
    if config.tokenizer is None:
        raise SettingsError("no tokenizer named", "give a SentencePiece model: --tokenizer FILE")
    tokenizer = _require_known_tokenizer(
        load_xlmr_tokenizer(find_asset(config.tokenizer, "tokenizer")), config, config.tokenizer
    )
    original = {} if config.weights is None else read_pretrained_weights(find_weights(config.weights))
    vocab, plan = _plan_text_rows(config, tokenizer, original.get(TEXT_TABLE_NAME))
    classes = len(answers) if recipe.task == "vqa" else None
    config = config.model_copy(update={"vocab_size": vocab, "num_classes": classes})
    model, processor = _build_beit3(config, tokenizer, answers, recipe.data)
    model.to_empty(device="cpu")  # every value is written once: drawn, or loaded
    generator = torch.Generator().manual_seed(recipe.seed)
    if config.weights is None:
        init_weights(model.net, generator)
        note = "weights: newly initialised"
    else:
        for part in config.reinit:
            init_weights(model.net.get_submodule(part), generator)
        carry = (
            None
            if plan is None
            else partial(vocab_transfer.transfer_vocab_rows, plan=plan, generator=generator)
        )
        report = load_pretrained_weights(model.net, original, config.reinit, config.weights, carry)
        rows = "as it was" if plan is None else str(plan)
        note = f"{Path(config.weights).name}: {report}; text table: {rows}"
    return model, processor, note


def _plan_text_rows(
    config: ModelConfig, tokenizer: XlmrTokenizer, table: Tensor | None
) -> tuple[int, vocab_transfer.VocabTransfer | None]:
    """Rows of the model's text table, and how the weights' rows are taken along; None: as they are.

    Args:
        table: the weights' text table, if there is one.

    Raises:
        SettingsError: a table too small for the tokenizer, or of another size than `model.vocab_size`.
        ModelError: the tokenizer of the weights has more ids than their table has rows.
    """
    plan = None if table is None else _plan_transfer(config, tokenizer, table)
    given = tokenizer.size if table is None or plan is not None else len(table)
    vocab = config.vocab_size or given
    if table is not None and vocab != given:
        raise SettingsError(
            f"model.vocab_size is {vocab}, the text table made of {config.weights} has {given} rows",
            "leave model.vocab_size away: --set model.vocab_size=null",
        )
    if vocab < tokenizer.size:
        raise SettingsError(
            f"tokenizer {config.tokenizer} has {tokenizer.size} ids, the text table only {vocab} rows",
            f"use --set model.vocab_size={tokenizer.size}"
            if table is None
            else "--set model.text_rows=carried makes rows for them",
        )
    return vocab, plan


def _plan_transfer(
    config: ModelConfig, tokenizer: XlmrTokenizer, table: Tensor
) -> vocab_transfer.VocabTransfer | None:
    """How rows go from the weights' tokenizer to ours; None where both have the same pieces."""
    path = find_weights_tokenizer(config)
    if path is None or config.weights is None:
        return None
    old = load_xlmr_tokenizer(path)
    step = find_weights(config.weights)
    if (step / "config.json").is_file():
        _require_known_tokenizer(old, _read_beit3_config(step), str(path))
    if old.size > len(table):
        raise ModelError(
            f"{path} has {old.size} ids, the text table of {config.weights} only {len(table)} rows: those "
            "weights were trained with another tokenizer",
            "name theirs: --set model.weights_tokenizer=FILE",
        )
    if old.vocabulary == tokenizer.vocabulary:
        return None
    return vocab_transfer.plan_vocab_transfer(old.vocabulary, tokenizer.vocabulary, old.encode)


def _require_known_tokenizer(tokenizer: XlmrTokenizer, config: ModelConfig, name: str) -> XlmrTokenizer:
    """The tokenizer, if it is the one the configuration knows; see `require_same`."""
    require_same_tokenizer(tokenizer.sha256, config.tokenizer_sha256, name)
    return tokenizer


def _build_beit3(
    config: ModelConfig, tokenizer: XlmrTokenizer, answers: list[str], data: DataSettings
) -> tuple[Beit3Model, Beit3Processor]:
    """Model, without values, and processor; without classes they caption."""
    with torch.device("meta"):
        if config.num_classes is None:
            task = CaptionTask(config.caption, config.max_text, tokenizer)
            return Beit3Model(CaptionNet(config), task), caption.Beit3CaptionProcessor(
                config, tokenizer, data
            )
        return Beit3Model(Beit3VqaNet(config), VqaTask(answers)), vqa.Beit3VqaProcessor(
            config, tokenizer, answers, data
        )


def set_num_beams(model: Beit3Model, num_beams: int) -> None:
    """Follow so many captions at once from now on; a classifier has none."""
    if isinstance(model.task, CaptionTask):
        model.task.set_num_beams(num_beams)


def save_model(model: Beit3Model, processor: Beit3Processor, folder: Path) -> None:
    """config.json, model.safetensors, tokenizer/spm.model and, for questions, answers.txt."""
    forgotten = {"weights": None, "weights_tokenizer": None, "reinit": (), "tokenizer": None}
    config = processor.config.model_copy(update={**forgotten, "tokenizer_sha256": processor.tokenizer.sha256})
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")
    save_file({n: t.contiguous() for n, t in model.net.state_dict().items()}, folder / "model.safetensors")
    if isinstance(processor, vqa.Beit3VqaProcessor):
        write_answers(folder / "answers.txt", processor.answers)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spm.model").write_bytes(processor.tokenizer.model)


def load_model(folder: Path, options: LoadOptions) -> tuple[Beit3Model, Beit3Processor]:
    """Read what `save` wrote.

    Raises:
        ModelError: a file is missing, broken or swapped, or the answer list has another length.
    """
    config = _read_beit3_config(folder)
    answers = read_answer_classes(folder, config.num_classes) if config.num_classes else []
    file = folder / "tokenizer" / "spm.model"
    tokenizer = _require_known_tokenizer(load_xlmr_tokenizer(file), config, str(file))
    model, processor = _build_beit3(config, tokenizer, answers, options.data)
    try:
        model.net.load_state_dict(load_step_weights(folder), assign=True)
    except RuntimeError as error:
        raise ModelError(
            f"{folder}/model.safetensors cannot be loaded ({str(error).splitlines()[0]})"
        ) from None
    return model, processor


_BEIT3_LOADING_CODE = """\
import torch
from safetensors.torch import load_file

# What the original's --finetune reads (and `kovqa train --set model.weights={file}`).
torch.save({{"model": load_file("model.safetensors")}}, "{file}")
"""


def export_model(folder: Path, output: Path, options: LoadOptions) -> str:
    """Write what `save` wrote under the original's names and shapes; Python that makes the original's file.

    `model.safetensors`, `config.json`, `tokenizer.model` and, for questions, `answers.txt`.
    """
    model, processor = load_model(folder, options)
    save_file(
        to_original_state(model.net.state_dict(), processor.config.patch_size), output / "model.safetensors"
    )
    write_text(output / "config.json", processor.config.model_dump_json(indent=1) + "\n")
    (output / "tokenizer.model").write_bytes(processor.tokenizer.model)
    if isinstance(processor, vqa.Beit3VqaProcessor):
        write_answers(output / "answers.txt", processor.answers)
    return _BEIT3_LOADING_CODE.format(file="beit3.pth")


def _read_beit3_config(folder: Path) -> ModelConfig:
    return read_checkpoint_config(ModelConfig, folder, "beit3")


FAMILY = ModelFamily(new_model, load_model, save_model, export_model, set_num_beams=set_num_beams)
