"""BEiT-3 behind the contract of `models/family.py`: questions over an answer list, and captions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kovqa_core.data.answers import write_answers
from kovqa_core.data.decoding import one_answer_error
from kovqa_core.data.example import Answer, Example
from kovqa_core.files import write_text
from kovqa_core.messages import message
from kovqa_core.models.batches import ModelBatch
from kovqa_core.models.beit3 import export_check
from kovqa_core.models.beit3.caption import Beit3CaptionProcessor, CaptionTask
from kovqa_core.models.beit3.caption_network import CaptionNet
from kovqa_core.models.beit3.config import (
    ModelConfig,
    find_tokenizer,
    find_weights,
    no_tokenizer_error,
    tokenizer_of_step,
)
from kovqa_core.models.beit3.explain import roll_out_attention, score_answer
from kovqa_core.models.beit3.network import Beit3VqaNet
from kovqa_core.models.beit3.new_weights import init_weights
from kovqa_core.models.beit3.pretrained_weights import (
    TEXT_TABLE_NAME,
    from_original_state,
    load_pretrained_weights,
    load_step_weights,
    read_pretrained_weights,
    to_original_state,
)
from kovqa_core.models.beit3.text_rows import open_known_tokenizer, plan_text_rows, read_beit3_config
from kovqa_core.models.beit3.vocab_transfer import transfer_vocab_rows
from kovqa_core.models.beit3.vqa import Beit3VqaProcessor, VqaTask
from kovqa_core.models.beit3.weights_problems import require_reinit_of_task
from kovqa_core.models.checkpoint_info import read_checkpoint_info, write_checkpoint_info
from kovqa_core.models.class_answers import count_foreign_choices
from kovqa_core.models.closed_folder import building
from kovqa_core.models.compiled_layers import compile_methods
from kovqa_core.models.config import config_from_recipe
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
from kovqa_core.models.plausible_sizes import require_plausible_sizes
from kovqa_core.models.token_count import TokenCount
from kovqa_core.models.xlmr_tokenizer import XlmrTokenizer
from kovqa_core.runs.step_lease import read_found_step
from kovqa_core.settings.recipe import DataSettings, Recipe

Beit3Processor = Beit3VqaProcessor | Beit3CaptionProcessor


class Beit3Model(FamilyModel):
    """A network with the task it learns.

    Args:
        net: a `Beit3VqaNet` with a `VqaTask`, or a `CaptionNet` with a `CaptionTask`.
        task: what loss and answer are.
    """

    def __init__(self, net: Beit3VqaNet | CaptionNet, task: VqaTask | CaptionTask) -> None:
        super().__init__()
        # Any: net and task belong together, which a union of two pairs would make every line below prove.
        self.net: Any = net
        self.task: Any = task

    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """The loss of a batch; of captions, where some do not count, all losses too."""
        if not batch.ids:
            return {"loss": self.zero_loss(), "losses": torch.zeros(0)}
        if not self.ranks_losses(step):
            return {"loss": self.task.loss(self.net, batch, step)}
        losses = self.task.losses(self.net, batch)
        return {"loss": self.task.mean_loss(losses, batch, step), "losses": losses.detach()}

    def loss_weight(self, batch: ModelBatch, step: int) -> Tensor | float:
        """Of captions the tokens that count, of questions the examples."""
        if isinstance(self.task, CaptionTask):
            return self.task.count_losses(batch, step) if batch.ids else 0.0
        return super().loss_weight(batch, step)

    def ranks_losses(self, step: int) -> bool:
        """Captions do, once `drop_worst_after` steps are done."""
        return isinstance(self.task, CaptionTask) and self.task.drops_losses(step)

    def counted_losses(self, losses: Tensor, step: int) -> Tensor:
        """All but the largest."""
        return cast("Tensor", self.task.counted_losses(losses))

    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer or caption an example."""
        return self.begin_answers(batch)()

    def begin_answers(self, batch: ModelBatch) -> ReadAnswers:
        """The same, to be read later."""
        return cast("ReadAnswers", self.task.begin_answers(self.net, batch))

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Checkpointing and torch.compile layer by layer: one compilation serves all layers."""
        encoder = self.net.encoder
        encoder.activation_checkpointing = activation_checkpointing
        if compile:
            encoder.compiled = True
            of_task = (
                ("image_tokens", "text_tokens")
                if isinstance(self.net, CaptionNet)
                else ("forward", "class_token")
            )
            for layer in encoder.layers:
                compile_methods(layer, *of_task)

    def fsdp_units(self) -> list[nn.Module]:
        """The layers of a classifier but the last, of which only `class_token` is called; none of a captioner:
        image and text go through a layer one after the other, by functions outside it."""
        return list(self.net.encoder.layers)[:-1] if isinstance(self.net, Beit3VqaNet) else []

    @property
    def head_layer_id(self) -> int:
        """One past the last layer's."""
        return len(self.net.encoder.layers) + 1

    def layer_id(self, name: str) -> int:
        """Embeddings 0, layer i at i + 1, everything after the layers at the head's."""
        return beit3_layer_id(name, self.head_layer_id)

    def is_head_parameter(self, name: str) -> bool:
        """The classifier; neither the pooler nor the head that predicts tokens."""
        return is_beit3_head(name)

    def no_weight_decay(self, name: str) -> bool:
        """Class token and image positions; text positions decay, as in the original."""
        return beit3_no_weight_decay(name)

    def is_text_parameter(self, name: str) -> bool:
        """Text table and positions, the layers' text branches, and what reads the encoder."""
        return is_beit3_text(name)


# Rules on names; they hold for our names and for the original's (docs/sources/beit3.md, B38 and B39).


def beit3_layer_id(name: str, head_layer_id: int) -> int:
    """Layer of a parameter in a model whose head is layer `head_layer_id`."""
    if "embed" in name:
        return 0
    _, in_layers, rest = name.partition("layers.")
    return int(rest.split(".")[0]) + 1 if in_layers else head_layer_id


def is_beit3_head(name: str) -> bool:
    """Does it belong to the classifier?"""
    return name.removeprefix("net.").startswith("head")


def beit3_no_weight_decay(name: str) -> bool:
    """Is it free of weight decay though it is a matrix?"""
    ours = ("encoder.cls_token_embed", "encoder.vision_position_embed")
    originals = ("beit3.encoder.embed_positions.A.weight", "beit3.vision_embed.cls_token", "logit_scale")
    return name.removeprefix("net.") in ours + originals


def is_beit3_text(name: str) -> bool:
    """Does it learn while the vision side is frozen? What reads the encoder does: nothing is learned through
    a new head that stands still."""
    name = name.removeprefix("net.")
    return not name.startswith("encoder.") or "text" in name


def new_model(recipe: Recipe, answers: list[str]) -> tuple[Beit3Model, Beit3Processor, str]:
    """A model for a recipe and its answer classes.

    Raises:
        SettingsError: no tokenizer named, or one that does not fit `model.vocab_size` or the weights.
        AssetError: weights or tokenizer are not here.
        ModelError: weights that do not fit.
    """
    config = config_from_recipe(ModelConfig, recipe)
    if config.tokenizer is None:
        raise no_tokenizer_error()
    tokenizer = open_known_tokenizer(find_tokenizer(config.tokenizer), config)
    require_reinit_of_task(config.reinit, recipe.task)
    find = partial(find_weights, config.weights or "")
    original, beside = ({}, ()) if config.weights is None else read_found_step(find, read_pretrained_weights)
    vocab_size, plan = plan_text_rows(config, tokenizer, original.get(TEXT_TABLE_NAME))
    classes = len(answers) if recipe.task == "vqa" else None
    config = config.model_copy(update={"vocab_size": vocab_size, "num_classes": classes})
    model, processor = build_beit3(config, tokenizer, answers, recipe.data)
    model.to_empty(device="cpu")  # every value is written exactly once: drawn, or loaded
    generator = torch.Generator().manual_seed(recipe.seed)
    if config.weights is None:
        init_weights(model.net, generator)
        return model, processor, message("beit3.no-weights-note", "weights: newly initialised")
    for component in config.reinit:
        module = "encoder.norm" if component == "layer_norm" else component
        init_weights(model.net.get_submodule(module), generator)
    transfer_rows = None if plan is None else partial(transfer_vocab_rows, plan=plan, generator=generator)
    report = load_pretrained_weights(model.net, original, config.reinit, config.weights, transfer_rows)
    note = message(
        "beit3.weights-note",
        "{weights}: {report}; text table: {rows}",
        weights=Path(config.weights).name,
        report=report.describe(),
        rows=message("beit3.rows-unchanged", "unchanged") if plan is None else plan.describe(),
    )
    if beside:
        note = message(
            "beit3.weights-beside-note",
            "{note}; the file also has {beside}, which are not read",
            note=note,
            beside=", ".join(beside),
        )
    return model, processor, note


def build_beit3(
    config: ModelConfig, tokenizer: XlmrTokenizer, answers: list[str], data: DataSettings
) -> tuple[Beit3Model, Beit3Processor]:
    """Model, on the meta device, and processor; without answer classes a captioner."""
    with torch.device("meta"):
        if config.num_classes is None:
            model = Beit3Model(CaptionNet(config), CaptionTask(config.caption, config.max_text, tokenizer))
            return model, Beit3CaptionProcessor(config, tokenizer, data)
        model = Beit3Model(Beit3VqaNet(config), VqaTask(answers))
        return model, Beit3VqaProcessor(config, tokenizer, answers, data)


def set_num_beams(model: Beit3Model, num_beams: int) -> None:
    """Follow so many captions at once from now on; a classifier searches none."""
    if isinstance(model.task, CaptionTask):
        model.task.set_num_beams(num_beams)


def set_top_k(model: Beit3Model, top_k: int) -> None:
    """From now on each answer brings so many of the likeliest.

    Raises:
        SettingsError: it is a captioner, whose search keeps nothing but the best caption.
    """
    if isinstance(model.task, CaptionTask):
        raise one_answer_error(message("beit3.captioner-with-one-answer", "a captioner"))
    model.task.top_k = top_k


def set_class_choices(processor: Beit3Processor) -> None:
    """From now on a row is answered with one of its choices; a captioner reads none."""
    if isinstance(processor, Beit3VqaProcessor):
        processor.offers_choices = True


def foreign_choices(processor: Beit3Processor, examples: Sequence[Example]) -> int:
    """Rows with a choice that is not a class."""
    if isinstance(processor, Beit3VqaProcessor):
        return count_foreign_choices(processor.label_of, examples)
    return 0


def prompt_columns(processor: Beit3Processor) -> tuple[str, ...]:
    """What is read of a row besides its question."""
    return ("choices",) if isinstance(processor, Beit3VqaProcessor) and processor.offers_choices else ()


def save_model(model: Beit3Model, processor: Beit3Processor, folder: Path) -> None:
    """config.json, model.safetensors, tokenizer/spm.model and, for questions, answers.txt."""
    # Where training began does not matter any more, and paths of one machine do not belong in a checkpoint.
    origin = {"weights": None, "weights_tokenizer": None, "reinit": (), "tokenizer": None}
    config = processor.config.model_copy(update={**origin, "tokenizer_sha256": processor.tokenizer.sha256})
    write_text(folder / "config.json", config.model_dump_json(indent=1) + "\n")
    save_file({n: t.contiguous() for n, t in model.net.state_dict().items()}, folder / "model.safetensors")
    if isinstance(processor, Beit3VqaProcessor):
        write_answers(folder / "answers.txt", processor.answers)
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spm.model").write_bytes(processor.tokenizer.model_bytes)


def load_model(folder: Path, options: LoadOptions) -> tuple[Beit3Model, Beit3Processor]:
    """Read what `save_model` or `export_model` wrote.

    Raises:
        ModelError: a file is missing, broken or swapped, or the answer list has another length.
    """
    config = read_beit3_config(folder)
    answers = read_answer_classes(folder, config.num_classes) if config.num_classes else []
    tokenizer = open_known_tokenizer(tokenizer_of_step(folder), config)
    require_plausible_sizes(folder, {**config.model_dump(), **config.dimensions._asdict()})
    with building(folder / "config.json"):
        model, processor = build_beit3(config, tokenizer, answers, options.data)
    try:
        state = load_step_weights(folder)
        if TEXT_TABLE_NAME in state:  # exported, under the original's names
            state = from_original_state(state, model.net.state_dict())
        # assign: the network was made on the meta device, without memory for values to be copied into.
        model.net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise unloadable_weights_error(folder, error) from None
    return model, processor


_BEIT3_LOADING_CODE = """\
from beit3_model import Beit3

model = Beit3(".")
{call}

# What the original's --finetune reads (and `kovqa train --set model.weights=beit3.pth`).
import torch
torch.save({{"model": model.weights}}, "beit3.pth")
"""
_ANSWER_CALL, _CAPTION_CALL = (
    'print(model.answer("image.jpg", "무슨 색인가요?"))',
    'print(model.caption("image.jpg"))',
)


def export_model(folder: Path, output: Path, options: LoadOptions) -> ExportedModel:
    """Write a checkpoint under the original's names and shapes, and for kovqa.

    `model.safetensors`, `config.json`, `tokenizer.model`, for questions `answers.txt`, and `beit3_model.py`.
    """
    model, processor = load_model(folder, options)
    state = to_original_state(model.net.state_dict(), processor.config.patch_size)
    save_file(state, output / "model.safetensors")
    write_text(output / "config.json", processor.config.model_dump_json(indent=1) + "\n")
    (output / "tokenizer.model").write_bytes(processor.tokenizer.model_bytes)
    write_checkpoint_info(output, read_checkpoint_info(folder))
    if isinstance(processor, Beit3VqaProcessor):
        write_answers(output / "answers.txt", processor.answers)
    shutil.copyfile(Path(__file__).with_name("published_model.py"), output / export_check.MODULE_NAME)
    is_captioner = isinstance(processor, Beit3CaptionProcessor)
    return ExportedModel(_BEIT3_LOADING_CODE.format(call=_CAPTION_CALL if is_captioner else _ANSWER_CALL))


def count_text_tokens(processor: Beit3Processor, examples: Sequence[Example]) -> TokenCount:
    """What the tokenizer makes of questions; for captions, of captions."""
    if isinstance(processor, Beit3CaptionProcessor):
        texts = [caption for example in examples for caption in example.captions]
    else:
        texts = [example.question for example in examples]
    return processor.tokenizer.count_tokens(texts, processor.config.max_text)


FAMILY = ModelFamily(
    new_model,
    load_model,
    save_model,
    export_model,
    export_check=ExportCheck(
        "torch", export_check.own_logits, export_check.example_row, export_check.CHECK_CODE
    ),
    set_num_beams=set_num_beams,
    set_top_k=set_top_k,
    set_class_choices=set_class_choices,
    count_foreign_choices=foreign_choices,
    prompt_columns=prompt_columns,
    count_text_tokens=count_text_tokens,
    explain=ExplainFunctions(
        lambda model, processor, batch, answer: score_answer(model.net, processor, batch, answer),
        as_stored=lambda processor: processor.config.load_as_stored,
        roll_out_attention=lambda model, processor, batch, answer: roll_out_attention(
            model.net, processor, batch, answer
        ),
    ),
)
