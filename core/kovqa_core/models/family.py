"""What every model family offers; nothing else of it is known to training, answering and exporting.

A family is three modules (`models.FamilyModules`), each with one name that is looked up: `ModelConfig`
(`models/config.py`), `COUNT_STEP_MEMORY` (`models/memory.py`) and `FAMILY`, a `ModelFamily` of here.

Shapes are written in one alphabet everywhere in `models/`:

| letter | size of |
|---|---|
| B | batch: examples |
| T | text tokens, padding included |
| P | patches of an image (regions of a CNN), class token included where there is one |
| N | all tokens: P + T, images first; or the tokens that a loss counts, where a line says so |
| D | width of the residual stream |
| H | attention heads; D / H is the width of one |
| C | answer classes |
| V | vocabulary: ids of the tokenizer |
| S | side of the square input image, pixels |
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from kovqa_core.data.answers import read_answers
from kovqa_core.data.decoding import GREEDY_DECODING, DecodingOptions, one_answer_error
from kovqa_core.data.example import Answer, Example
from kovqa_core.errors import ModelError, SettingsError
from kovqa_core.messages import Message, message
from kovqa_core.models import family_part
from kovqa_core.models.batches import ExampleProcessor, ModelBatch
from kovqa_core.models.checkpoint_info import CheckpointInfo, read_checkpoint_info, write_checkpoint_info
from kovqa_core.models.closed_folder import error_reason, require_closed_folder
from kovqa_core.models.explain_functions import ExplainFunctions
from kovqa_core.models.export_check import ExportCheck, ExportedModel
from kovqa_core.models.feature_request import FeatureRequest
from kovqa_core.models.token_count import TokenCount
from kovqa_core.models.unsupported_options import no_beams_error, no_four_bit_error, one_way_error
from kovqa_core.models.zero_gradients import zero_of
from kovqa_core.settings.recipe import DataSettings, Recipe

ReadAnswers = Callable[[], list[Answer]]


class FamilyModel(nn.Module, ABC):
    """A network that learns from batches and answers them.

    Two methods every family writes; the others are right for a model whose loss is a mean over examples, and
    without layers of its own rates.
    """

    @abstractmethod
    def forward(self, batch: ModelBatch, step: int) -> dict[str, Tensor]:
        """{"loss": mean over what the batch counts, a scalar in fp32; 0 where it counts nothing}.

        Args:
            batch: on the model's device; without tensors where no example is in it (then: `zero_loss`).
            step: the optimizer step it belongs to, from 0.

        Returns:
            Where `ranks_losses`, also {"losses": [N] without gradient}, what the loss is the mean of.
        """

    @abstractmethod
    def answer(self, batch: ModelBatch) -> list[Answer]:
        """One answer an example, in order."""

    def begin_answers(self, batch: ModelBatch) -> ReadAnswers:
        """What `answer` returns, to be read later: a GPU can begin with the next batch before it is.

        A model that can put its work into a GPU's queue without waiting for any of it says so by this method.
        """
        answers = self.answer(batch)
        return lambda: answers

    def prepare(self, *, activation_checkpointing: bool, compile: bool) -> None:
        """Settings of the machine that change no number; called once, before training.

        Args:
            activation_checkpointing: compute activations again in the backward pass.
            compile: torch.compile, in place: names of parameters stay.

        Raises:
            SettingsError: the model cannot checkpoint activations.
        """
        if activation_checkpointing:
            raise SettingsError(
                message("models.no-activation-checkpointing", "this model cannot checkpoint activations"),
                message(
                    "models.no-activation-checkpointing.hint",
                    "use --set profile.activation_checkpointing=false",
                ),
            )
        if compile:
            self.compile()

    def suit_device(self, device: torch.device, precision: str) -> None:
        """Forms of weights for the device that trains and its profile's precision; called once, before training."""

    def fsdp_units(self) -> list[nn.Module]:
        """Modules that may be sharded one at a time: each is called as a whole; inner ones first."""
        return []

    # What makes a gradient the same however the global batch is cut.

    def loss_weight(self, batch: ModelBatch, step: int) -> Tensor | float:
        """How much `forward` divided by: here the examples; elsewhere tokens or weights. 0 of an empty batch.

        Means are weighted by it, so that the loss of a step is one mean over the global batch.
        """
        return float(len(batch.ids))

    def zero_loss(self) -> Tensor:
        """0 as a function of every parameter that learns: the loss of a batch whose examples were all left out.

        DDP reduces a gradient once every process has computed it, and waits for ever for one that never comes.
        """
        return zero_of([p for p in self.parameters() if p.requires_grad], next(self.parameters()).device)

    def ranks_losses(self, step: int) -> bool:
        """Do only some losses count in this step, chosen among those of the whole global batch?

        Then training asks `counted_losses`, and `forward` finds the answer for a batch in its tensor "counted"
        (bool [N]); without one it chooses among the batch's own.
        """
        return False

    def counted_losses(self, losses: Tensor, step: int) -> Tensor:
        """Which of these losses [N] count, bool [N]."""
        return torch.ones_like(losses, dtype=torch.bool)

    # Rules on names; see `parameter_rules.ParameterRules`.

    @property
    def head_layer_id(self) -> int:
        """No layer has a rate of its own."""
        return 0

    def layer_id(self, name: str) -> int:
        """All in one layer."""
        return 0

    def is_head_parameter(self, name: str) -> bool:
        """No head."""
        return False

    def no_weight_decay(self, name: str) -> bool:
        """None beyond vectors and biases."""
        return False

    def is_text_parameter(self, name: str) -> bool:
        """All learn from the start."""
        return True


@dataclass(frozen=True)
class LoadOptions:
    """How a checkpoint is read.

    Attributes:
        data: how training examples are augmented.
        trust_remote_code: did the user, in this very command, allow code of a model folder to run?
        fp32: weights that the model would keep in 16 bits by itself are kept in fp32.
        four_bit: its language model is held in 4 bits, to answer in less memory.
    """

    data: DataSettings = field(default_factory=DataSettings)
    trust_remote_code: bool = False
    fp32: bool = field(default=False, kw_only=True)
    four_bit: bool = field(default=False, kw_only=True)


DEFAULT_LOADING = LoadOptions()
ModelType = TypeVar("ModelType", bound=FamilyModel)
ProcessorType = TypeVar("ProcessorType", bound=ExampleProcessor)


@dataclass(frozen=True)
class ModelFamily(Generic[ModelType, ProcessorType]):
    """The functions of a family; mypy checks them where the family makes its `FAMILY`.

    Attributes:
        new_model: recipe, answer classes -> model, processor, and a note on where its weights came from.
        load_model: checkpoint folder -> model on the CPU, and processor.
        save_model: writes into an empty folder what `load_model` reads, and nothing for resuming.
        export_model: checkpoint folder, empty folder -> what to say of what was written into it.
        export_check: how an export is held against its model by the library it was made for; None: it cannot be.
        export_upstream: the same, as the original's own training saves it; None: there is no such form.
        set_decoding: from now on the model answers in this way; None: it has one way only.
        set_class_choices: from now on a classifier answers a row that offers choices with one of these; None: it is none.
        count_foreign_choices: of a classifier: how many rows offer a choice that it cannot give.
        set_num_beams: from now on it follows so many captions at once; None: it searches no beams.
        set_top_k: from now on each answer brings so many of the likeliest, itself the first; a `SettingsError` where
            the model, as it answers now, has no others. None: it never has.
        set_on_text: from now on it tells the first answer of a batch as it grows (to None: to nobody). None: it cannot.
        ask_for_captions: from now on a model for questions describes images, asked by an instruction ("ko", "en", or any
            text); None: it captions where it was trained to, and nowhere else.
        set_prompt: from now on questions are asked with this line below them, and answers have at most so many tokens
            (of either None: as before); None: its models read the question alone, and write no text.
        has_four_bit: can its models be held in 4 bits (`LoadOptions.four_bit`)?
        prompt_columns: what it reads of a row besides its question, of "context" and "choices"; None: neither.
        has_remote_code: its folders may bring Python code, which `LoadOptions` allows or not.
        count_text_tokens: what its tokenizer makes of the texts of training examples; None: it reads none.
        use_features: from now on a processor reads features of the model's frozen parts, where it has any; what to say
            of them. None: it computes all in every epoch.
        explain: how to find out where an answer comes from; None: its answers cannot be explained.
    """

    new_model: Callable[[Recipe, list[str]], tuple[ModelType, ProcessorType, str]]
    load_model: Callable[[Path, LoadOptions], tuple[ModelType, ProcessorType]]
    save_model: Callable[[ModelType, ProcessorType, Path], None]
    export_model: Callable[[Path, Path, LoadOptions], ExportedModel]
    export_check: ExportCheck[ModelType, ProcessorType] | None = None
    export_upstream: Callable[[Path, Path, LoadOptions], ExportedModel] | None = None
    set_decoding: Callable[[ModelType, ProcessorType, DecodingOptions], None] | None = None
    set_class_choices: Callable[[ProcessorType], None] | None = None
    count_foreign_choices: Callable[[ProcessorType, Sequence[Example]], int] | None = None
    set_num_beams: Callable[[ModelType, int], None] | None = None
    set_top_k: Callable[[ModelType, int], None] | None = None
    set_on_text: Callable[[ModelType, Callable[[str], None] | None], None] | None = None
    ask_for_captions: Callable[[ModelType, ProcessorType, str], None] | None = None
    set_prompt: Callable[[ModelType, ProcessorType, str | None, int | None], None] | None = None
    has_four_bit: bool = False
    has_remote_code: bool = False
    prompt_columns: Callable[[ProcessorType], Sequence[str]] | None = None
    count_text_tokens: Callable[[ProcessorType, Sequence[Example]], TokenCount] | None = None
    use_features: Callable[[ModelType, ProcessorType, FeatureRequest], Message | None] | None = None
    explain: ExplainFunctions[ModelType, ProcessorType] | None = None


# What the engine holds: whichever family it is, model and processor come from the same one.
AnyFamily = ModelFamily[FamilyModel, ExampleProcessor]


def load_family(name: str) -> AnyFamily:
    """The functions of a family.

    Raises:
        SettingsError: there is no such family.
        MachineError: it is a plug-in, which does not work.
    """
    family: AnyFamily = family_part(name, "FAMILY")
    return family


def create_model(recipe: Recipe, answers: list[str]) -> tuple[FamilyModel, ExampleProcessor, str]:
    """A model to be trained, its processor, and a note on where its weights came from."""
    return load_family(recipe.family).new_model(recipe, answers)


def write_model_folder(
    model: FamilyModel, processor: ExampleProcessor, folder: Path, info: CheckpointInfo
) -> None:
    """Write a checkpoint into an empty folder; `info` becomes its `kovqa.json`."""
    load_family(info.family).save_model(model, processor, folder)
    write_checkpoint_info(folder, info)


def read_model_folder(
    folder: Path,
    task: str,
    options: LoadOptions = DEFAULT_LOADING,
    decoding: DecodingOptions = GREEDY_DECODING,
    num_beams: int | None = None,
    top_k: int = 1,
) -> tuple[FamilyModel, ExampleProcessor]:
    """Read a checkpoint folder that can do a task.

    Args:
        folder: where it lies.
        task: "vqa" or "caption".
        options: how it is read.
        decoding: how it is to answer.
        num_beams: captions followed at once; None: as the checkpoint says.
        top_k: of the likeliest answers to a question, how many; 1: the answer alone.

    Raises:
        ModelError: no checkpoint, of a later format, or for another task.
        SettingsError: it can only answer in its own way; it has no code of its own, no likeliest answers, no 4-bit form.
    """
    require_closed_folder(folder)
    info = read_checkpoint_info(folder)
    family = load_family(info.family)
    _require_task(folder, info, task)
    require_no_remote_code(info.family, options)
    if options.four_bit and not family.has_four_bit:
        raise no_four_bit_error(folder, info)
    chooses_classes = family.set_class_choices is not None and decoding == DecodingOptions(choices=True)
    if decoding != GREEDY_DECODING and family.set_decoding is None and not chooses_classes:
        raise one_way_error(folder, info)
    if num_beams is not None and family.set_num_beams is None:
        raise no_beams_error(folder, info)
    if top_k > 1 and family.set_top_k is None:
        raise one_answer_error(
            message("models.family-with-one-answer", "a model of family {family}", family=info.family)
        )
    model, processor = family.load_model(folder, options)
    if decoding != GREEDY_DECODING and family.set_decoding is not None:
        family.set_decoding(model, processor, decoding)
    if chooses_classes and family.set_class_choices is not None:
        family.set_class_choices(processor)
    if num_beams is not None and family.set_num_beams is not None:
        family.set_num_beams(model, num_beams)
    if top_k > 1 and family.set_top_k is not None:
        family.set_top_k(model, top_k)  # last: which answers there are depends on how it answers
    return model, processor


def asks_for_captions(info: CheckpointInfo, task: str) -> bool:
    """Is a model for questions wanted for captions, which it is asked for by an instruction?"""
    wanted = task == "caption" and info.task == "vqa"
    return wanted and load_family(info.family).ask_for_captions is not None


def _require_task(folder: Path, info: CheckpointInfo, task: str) -> None:
    if info.task != task and not asks_for_captions(info, task):
        raise ModelError(
            message(
                "models.other-task",
                "{folder} was trained for {trained_for}, not for {task}",
                folder=folder,
                trained_for=info.task,
                task=task,
            ),
            message("models.other-task.hint", "name another model with --model"),
        )


def require_no_remote_code(name: str, options: LoadOptions) -> None:
    """See that nobody allows the code of a family whose models bring none.

    Raises:
        SettingsError: somebody did.
    """
    if options.trust_remote_code and not load_family(name).has_remote_code:
        raise SettingsError(
            message("models.no-remote-code", "models of family {family} bring no code", family=name),
            message("models.no-remote-code.hint", "leave out --trust-remote-code"),
        )


def read_answer_classes(folder: Path, classes: int | None) -> list[str]:
    """The answer classes of a checkpoint folder.

    Raises:
        ModelError: not as many as the model was trained on.
    """
    answers = read_answers(folder / "answers.txt")
    if len(answers) != classes:
        raise ModelError(
            message(
                "models.other-answers",
                "{folder}/answers.txt lists {listed} answers, the model was trained on {classes}",
                folder=folder,
                listed=len(answers),
                classes=classes,
            ),
            message("models.other-answers.hint", "put back the answers.txt that was saved with it"),
        )
    return answers


def unloadable_weights_error(folder: Path, error: Exception, file: str = "model.safetensors") -> ModelError:
    """The error of a checkpoint folder whose weights are missing, broken, or do not fit."""
    return ModelError(
        message(
            "models.unloadable-weights",
            "{file} cannot be loaded by its config.json ({error})",
            file=folder / file,
            error=message("models.no-such-file", "no such file")
            if isinstance(error, FileNotFoundError)
            else error_reason(error),
        ),
        message(
            "models.unloadable-weights.hint", "copy the folder again, or name another step folder of its run"
        ),
    )
