"""What may be particular to a class: the form of `class_facts.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ClassFacts:
    """Changes to the generic way of `tiny_model.py`.

    Attributes:
        config: dotted name of a configuration's field -> value; None takes the field out.
        image: arguments of the image processor.
        video: arguments of the video processor.
        processor: arguments of the processor.
        parts: further parts of the processor -> their class.
        image_text: what the chat template writes for an image; empty: the processor's own placeholder.
        template: another chat template than ChatML; IMAGE stands for `image_text`; empty: none.
        tokens: further special tokens.
        named_tokens: attribute of the tokenizer -> its token.
        processor_class: where transformers' table names none.
        image_class: likewise, of images.
        video_class: likewise, of videos.
    """

    config: Mapping[str, object] = field(default_factory=dict)
    image: Mapping[str, object] = field(default_factory=dict)
    video: Mapping[str, object] = field(default_factory=dict)
    processor: Mapping[str, object] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    image_text: str = ""
    template: str | None = None
    tokens: tuple[str, ...] = ()
    named_tokens: Mapping[str, str] = field(default_factory=dict)
    processor_class: str = ""
    image_class: str = ""
    video_class: str = ""
