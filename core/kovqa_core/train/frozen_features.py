"""What frozen parts of a model make of each image, computed once before training where its family can."""

from __future__ import annotations

from pathlib import Path

from kovqa_core.answer.batch_size import evaluation_batch
from kovqa_core.data.example import image_source
from kovqa_core.distributed import watchdog
from kovqa_core.messages import message
from kovqa_core.models.family import load_family
from kovqa_core.models.feature_request import FeatureRequest
from kovqa_core.models.precision import make_autocast
from kovqa_core.runs.events import AnswerProgressEvent, WarningEvent
from kovqa_core.train.state import TrainState


def use_frozen_features(state: TrainState) -> None:
    """From now on the processor reads features of frozen parts, where the model has any; of one process only.

    Several processes are for machines whose GPUs compute them faster than they could exchange them.
    """
    run, family = state.run, load_family(state.run.recipe.family)
    if family.use_features is None or state.rank.world_size > 1:
        return

    def on_progress(done: int, total: int) -> None:
        watchdog.note_progress()
        label = message("train.image-features", "image features")
        state.log.report_progress(AnswerProgressEvent(done, total, label))

    def list_images() -> list[Path]:
        examples = (example for split in (state.examples, state.val_examples) for example in split)
        sources = dict.fromkeys(image_source(example, state.index.images) for example in examples)
        return [source for source in sources if isinstance(source, Path)]

    request = FeatureRequest(
        list_images, run.folder, evaluation_batch(run), run.profile.precision,
        lambda: make_autocast(run.profile.precision, state.device), state.stop_requested, on_progress,
    )  # fmt: skip
    if note := family.use_features(state.strategy.model, state.processor, request):
        state.log.emit_event(WarningEvent(note))
