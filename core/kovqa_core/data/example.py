"""What flows: an example of an index, an answer of a model, a prediction in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kovqa_core.errors import DataError

_quote_json = json.encoder.encode_basestring  # json.dumps of a text, without its overhead


@dataclass(frozen=True)
class Example:
    """One line of an index.

    Attributes:
        id: unique in its split.
        image: path of the picture, relative to the index's pictures' folder.
        question: the text, NFC.
        answers: normalised answer -> score in 0…1; empty where nobody knows.
        kind: group for scores by kind (AI-Hub: the category).
        captions: texts that describe the picture.
        choices: the only answers there are, if the question brings them; no column of an index.
    """

    id: str
    image: str
    question: str
    answers: Mapping[str, float] = field(default_factory=dict)
    kind: str = ""
    captions: Sequence[str] = field(default_factory=list)
    choices: Sequence[str] = ()

    def line(self) -> str:
        """The example as one JSON line, without the line end."""
        answers = ", ".join(f"{_quote_json(answer)}: {score!r}" for answer, score in self.answers.items())
        captions = f', "captions": [{", ".join(map(_quote_json, self.captions))}]' if self.captions else ""
        return (
            f'{{"id": {_quote_json(self.id)}, "image": {_quote_json(self.image)}, "question": '
            f'{_quote_json(self.question)}, "answers": {{{answers}}}, "kind": {_quote_json(self.kind)}{captions}}}'
        )


def parse_example(line: str | bytes, where: str) -> Example:
    """An index line as an example; `where` is its file and line for errors."""
    try:
        return Example(**json.loads(line))
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}: not an index line ({error})", "write the index again: kovqa index"
        ) from None


@dataclass(frozen=True)
class Answer:
    """What a model says: a text and how sure it is, 0…1; nan if it does not say that."""

    text: str
    score: float


def prediction_line(id: str, answer: Answer, carried: Mapping[str, Any], task: str = "vqa") -> str:
    """One line of a predictions file; unknown input columns are carried over."""
    field = "caption" if task == "caption" else "answer"
    score = None if math.isnan(answer.score) else round(answer.score, 6)
    found = {"id": id, field: answer.text, "score": score}
    return json.dumps({**found, **{k: v for k, v in carried.items() if k not in found}}, ensure_ascii=False)
