"""Which classes of transformers can put a question about an image and continue its chat: said before weights are read.

The list of `AutoModelForImageTextToText` also holds models of texts alone, of robots and of proteins, and such as read
in one network and write in another. docs/vlm_classes.md says of each class what was tried.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

from kovqa_core.errors import ModelError
from kovqa_core.messages import Message, message
from kovqa_core.models.closed_folder import read_model_json
from kovqa_core.models.vlm.hf_libraries import transformers

# Sees its prompt in both directions and its answer in one, and is told by numbers of tokens, which a chat does not have,
# where the one ends.
_TWO_WAY_PROMPTS = ("paligemma",)


def require_chat_class(folder: Path) -> None:
    """See that the class which a configuration names can read an image and continue a text.

    Args:
        folder: of the model; one whose class transformers does not know, or whose code is its own, is passed over.

    Raises:
        ModelError: it cannot.
    """
    settings = read_model_json(folder / "config.json")
    model_type = settings.get("model_type")
    names: dict[str, str] = transformers.models.auto.modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    name = names.get(model_type) if isinstance(model_type, str) else None
    if name is None or "auto_map" in settings:
        return
    problem = _class_problem(getattr(transformers, name), settings)
    if problem is not None:
        raise ModelError(
            message(
                "vlm.class-unfit",
                "{folder} is a {name}: {problem}",
                folder=folder,
                name=name,
                problem=problem,
            ),
            message(
                "vlm.class-unfit.hint",
                "take a model that answers questions about images in a chat: docs/vlm_classes.md lists the classes",
            ),
        )


def _class_problem(kind: Any, settings: dict[str, Any]) -> Message | None:
    if settings["model_type"] in _TWO_WAY_PROMPTS:
        return message(
            "vlm.class-of-two-way-prompts",
            "it reads a prompt in both directions, which a chat cannot be put into",
        )
    arguments = inspect.signature(kind.forward).parameters
    default = transformers.CONFIG_MAPPING[settings["model_type"]]()
    is_pair = (
        settings.get("is_encoder_decoder", default.is_encoder_decoder)
        or {"encoder", "decoder"} <= settings.keys()
    )
    sees = any("pixel" in name or "image" in name or "patches" in name for name in arguments)
    if is_pair or (not sees and "decoder_input_ids" in arguments):
        return message(
            "vlm.class-of-two-networks",
            "it reads the question in one network and writes in another, not in one chat",
        )
    if not sees:
        return message("vlm.class-without-images", "this class reads no images")
    if kind.can_generate() and kind.generate is not transformers.GenerationMixin.generate:
        # Such as Janus's hand on no logits processor, by which answers are scored, sampled and chosen.
        return message(
            "vlm.class-with-own-generate", "this class writes in a way of its own, past what scores answers"
        )
    if not kind.can_generate():
        return message("vlm.class-without-text", "this class writes no text")
    return None
