"""Everything that moves while a run trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from kovqa_core.data.example import Example
from kovqa_core.distributed.rank_info import RankInfo
from kovqa_core.evaluate.metrics import Metric
from kovqa_core.index.reader import IndexFolder
from kovqa_core.models.batches import ExampleProcessor
from kovqa_core.models.compiled_layers import CompileTimes
from kovqa_core.settings.run import Run
from kovqa_core.train.checkpoint import TrainProgress
from kovqa_core.train.checkpoint_writer import CheckpointWriter
from kovqa_core.train.optim import TrainingSteps
from kovqa_core.train.pending_step import PendingStep
from kovqa_core.train.run_log import RunLog
from kovqa_core.train.strategies.base import LocalShards, TrainStrategy


@dataclass
class TrainState:
    """A run in training, on one process.

    Attributes:
        run: what to do.
        rank, device: place of this process.
        index: where the images lie.
        examples: trained on.
        val_examples: evaluated; may be empty.
        processor: examples -> batches.
        strategy: model and optimizer.
        averages: moving averages of the weights (EMA), this process's shards; None: the recipe keeps none.
        steps: how long the run is.
        progress: how far it is; what a checkpoint keeps of this object.
        metric: chooses the best checkpoint.
        log: of the run.
        checkpoints: writes them.
        stop_requested: True once this process was asked to stop.
        saved_at: when the last checkpoint was asked for, by `time.monotonic`.
        compile_times: what torch.compile has made; None: the model is not compiled.
        pending: the latest step, as long as the host does not know what it computed.
    """

    run: Run
    rank: RankInfo
    device: torch.device
    index: IndexFolder
    examples: Sequence[Example]
    val_examples: Sequence[Example]
    processor: ExampleProcessor
    strategy: TrainStrategy
    averages: LocalShards | None
    steps: TrainingSteps
    progress: TrainProgress
    metric: Metric
    log: RunLog
    checkpoints: CheckpointWriter
    stop_requested: Callable[[], bool]
    saved_at: float
    compile_times: CompileTimes | None = None
    pending: PendingStep | None = None

    @property
    def eval_every(self) -> int:
        """Optimizer steps between evaluations."""
        setting = self.run.recipe.eval
        return setting.every_steps or setting.every_epochs * self.steps.per_epoch
