"""Recipe: the experiment. Nothing in it depends on the machine it runs on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from kovqa_core.messages import message
from kovqa_core.settings.strict_yaml import StrictSettings
from kovqa_core.tracking.trackers import DEFAULT_TRACKERS


class DataSettings(StrictSettings):
    """What goes in."""

    index: str | None = Field(
        None, description="folder written by `kovqa index`; --data wins", examples=["data/photos"]
    )
    images: str | None = Field(
        None,
        description="folder of the images, when it is not where the index says",
        examples=["/scratch/images"],
    )
    kinds: tuple[str, ...] = Field(
        (), description="kinds of questions to train on and to validate; empty: all", examples=[["vqa"]]
    )
    augment: Literal["none", "crop", "randaug"] = Field(
        "none",
        description="how training images are changed at random: not at all, cropped, or by RandAugment",
    )
    flip: bool = Field(False, description="mirror images half of the time, except for left/right questions")


class OptimSettings(StrictSettings):
    """How it learns. Its length is in epochs or in optimizer steps, one of the two."""

    epochs: int | None = Field(
        None, ge=1, description="length in passes over the training data; or steps", examples=[3]
    )
    steps: int | None = Field(None, ge=1, description="length in optimizer steps; or epochs", examples=[2000])
    warmup_epochs: float = Field(
        0.0, ge=0, description="epochs in which the learning rate rises to lr; or warmup_steps", examples=[1]
    )
    warmup_steps: int = Field(
        0,
        ge=0,
        description="steps in which the learning rate rises to lr; or warmup_epochs",
        examples=[100],
    )
    warmup_reaches: bool = Field(
        True,
        description="the last warm-up step has the full rate; false: the step after it, as in transformers",
    )
    global_batch: int = Field(
        ge=1, description="examples of one optimizer step, on any machine", examples=[64]
    )
    loss_micro_batch: int | None = Field(
        None,
        ge=1,
        description="as some originals: the loss is the mean of means over micro-batches of so many examples, on "
        "any machine; empty: one mean over the global batch, however it is cut",
        examples=[16],
    )
    lr: float = Field(gt=0, description="learning rate after the warm-up, its highest", examples=[3e-5])
    min_lr: float = Field(
        1e-6, ge=0, description="learning rate of the last step: it falls by a cosine", examples=[0]
    )
    weight_decay: float = Field(
        0.05,
        ge=0,
        description="AdamW's weight decay (of biases and norms: decay_bias_and_norm)",
        examples=[0.01],
    )
    decay_bias_and_norm: bool = Field(False, description="biases and norms decay too")
    betas: tuple[float, float] = Field(
        (0.9, 0.999), description="AdamW's decay of both moments", examples=[[0.9, 0.98]]
    )
    eps: float = Field(1e-8, description="AdamW's epsilon", examples=[1e-6])
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="learning rate factor per layer below the head", examples=[0.9]
    )
    head_lr_scale: float = Field(1.0, gt=0, description="learning rate factor of the head", examples=[10])
    max_grad_norm: float | None = Field(
        None, gt=0, description="gradients are scaled down to this global norm", examples=[1.0]
    )
    freeze_vision_steps: int = Field(
        0, ge=0, description="first steps, in which the text side alone learns", examples=[500]
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="decay of the averaged weights; 0: no average is kept",
        examples=[0.9999],
    )

    @model_validator(mode="after")
    def _one_length(self) -> OptimSettings:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError(message("settings.epochs-or-steps", "state either epochs or steps"))
        if self.warmup_epochs and self.warmup_steps:
            raise ValueError(
                message("settings.warmup-epochs-or-steps", "state either warmup_epochs or warmup_steps")
            )
        if self.loss_micro_batch and self.global_batch % min(self.loss_micro_batch, self.global_batch):
            raise ValueError(
                message(
                    "settings.odd-loss-micro-batch",
                    "global_batch {batch} is not a multiple of loss_micro_batch {micro_batch}",
                    batch=self.global_batch,
                    micro_batch=self.loss_micro_batch,
                )
            )
        if self.layer_decay < 1 and self.head_lr_scale != 1:
            raise ValueError(
                message(
                    "settings.head-scaled-twice",
                    "layer_decay already scales the head: keep head_lr_scale at 1",
                )
            )
        return self

    def count_steps(self, rows: int) -> int:
        """Optimizer steps of a run over so many training rows; what fills no batch is left out of each epoch."""
        return self.steps or (self.epochs or 0) * (rows // self.global_batch)


class EvalSettings(StrictSettings):
    """When the validation split is answered, and what its score is for."""

    every_epochs: int = Field(1, ge=1, description="epochs between evaluations", examples=[2])
    every_steps: int | None = Field(
        None, ge=1, description="steps between evaluations, instead of every_epochs", examples=[500]
    )
    metric: str | None = Field(
        None,
        description="chooses the best checkpoint; vqa: accuracy; caption: CIDEr, BLEU-1 to 4, ROUGE-L",
        examples=["BLEU-4"],
    )
    patience: int | None = Field(
        None, ge=1, description="evaluations without a better score that end a run", examples=[5]
    )


class SaveSettings(StrictSettings):
    """When checkpoints are written, besides every evaluation and the end."""

    every_steps: int | None = Field(None, ge=1, description="steps between checkpoints", examples=[1000])
    every_minutes: float = Field(10.0, gt=0, description="minutes between checkpoints", examples=[30])
    keep: int = Field(2, ge=1, description="checkpoints kept, besides the best", examples=[1])


class TrainSettings(StrictSettings):
    """What watches a run while it trains. Nothing of it changes what is learned."""

    # Names of tracking.trackers.TRACKERS: check_trackers there refuses others.
    track: tuple[str, ...] = Field(
        DEFAULT_TRACKERS,
        description="trackers: tensorboard, wandb, mlflow, trackio; empty: none",
        examples=[["tensorboard", "wandb"]],
        json_schema_extra=lambda schema: schema.update(
            anyOf=[{"type": schema.pop("type"), "items": schema.pop("items")}, {"type": "string"}]
        ),
    )

    @field_validator("track", mode="before")
    @classmethod
    def _list_of_one(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


class Recipe(StrictSettings):
    """One experiment, as its YAML file states it."""

    name: str = Field(min_length=1, description="its name; by default that of the file")
    family: str = Field(description="family of models: beit3, fusion, vlm, or a plug-in's", examples=["vlm"])
    task: Literal["vqa", "caption"] = Field("vqa", description="what is learned: answers or captions")
    model: dict[str, Any] = Field({}, description="read by the family's own ModelConfig")
    data: DataSettings = DataSettings()
    optim: OptimSettings
    eval: EvalSettings = EvalSettings()
    save: SaveSettings = SaveSettings()
    train: TrainSettings = TrainSettings()
    log_every: int = Field(10, ge=1, description="optimizer steps between lines of log.jsonl", examples=[50])
    seed: int = Field(
        42, description="of all that is drawn: order, crops, dropout, new weights", examples=[1]
    )
