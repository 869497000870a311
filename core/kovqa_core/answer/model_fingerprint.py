"""What the answers of a model here depend on, besides the rows; it stands beside them. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kovqa_core.answer.job import AnswerOptions
from kovqa_core.answer.model_digest import digest_model
from kovqa_core.data.question_prompts import (
    CAPTION_MAX_NEW_TOKENS,
    DEFAULT_CAPTION_INSTRUCTION,
    caption_prompt,
)
from kovqa_core.download.hub_copies import hub_identity
from kovqa_core.errors import ModelError
from kovqa_core.files import read_bytes, real_path
from kovqa_core.messages import message
from kovqa_core.models.checkpoint_info import read_checkpoint_info
from kovqa_core.models.load_form import AUTO_FORM
from kovqa_core.models.precision import AUTO_PRECISION, own_precision


def model_fingerprint(folder: Path, options: AnswerOptions) -> dict[str, object]:
    """What the answers of a step folder's model depend on, and where it lies (`model`) and what it is called on the
    hub (`hub`), by which it is only named.

    Args:
        folder: of the model.
        options: how it answers; a precision that is chosen already.

    Raises:
        ModelError: the folder holds no model.
    """
    description = next((p for name in ("kovqa.json", "config.json") if (p := folder / name).is_file()), None)
    if description is None:
        raise ModelError(
            message("answer.no-model", "no kovqa model in {folder}", folder=folder),
            message("answer.no-model.hint", "give a run folder or one of its step folders"),
        )
    # Only where it is not the model's own: so were all answers before there was a choice.
    hub = hub_identity(folder)
    is_own = options.precision in (AUTO_PRECISION, own_precision(folder))
    return {
        **({} if is_own else {"precision": options.precision}),
        **({} if options.load == AUTO_FORM else {"load": options.load}),
        **({} if options.top_k == 1 else {"top_k": options.top_k}),
        **_prompt_fields(folder, options),
        "model": str(real_path(folder)),
        **({"hub": hub} if hub else {}),
        "weights": digest_model(folder),
        description.name: hashlib.sha256(read_bytes(description)).hexdigest(),
        "beams": options.num_beams,
        "decoding": options.decoding.json_fields(),
    }


def _prompt_fields(folder: Path, options: AnswerOptions) -> dict[str, object]:
    """How a chat model is asked, where that is not as it was made; a model for questions for captions, always."""
    length = options.max_new_tokens
    if options.task == "caption" and read_checkpoint_info(folder).task != "caption":
        instruction = caption_prompt(options.instruction or DEFAULT_CAPTION_INSTRUCTION)
        return {"instruction": instruction, "max_tokens": length or CAPTION_MAX_NEW_TOKENS}
    given = {"instruction": options.instruction, "max_tokens": length}
    return {name: value for name, value in given.items() if value is not None}
