"""What flows: an example of an index, an answer of a model, a prediction in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kovqa_core.bounded_json import SURELY_SHALLOW_CHARS, check_depth, nested_too_deep, parse_integer
from kovqa_core.data.image_source import ImageSource
from kovqa_core.errors import DataError
from kovqa_core.messages import message


def _refuse_constant(constant: str) -> None:
    """A score of NaN would be a loss of NaN, and every weight after it."""
    raise ValueError(constant)


_INDEX_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=parse_integer)
_quote_json = json.encoder.encode_basestring  # json.dumps of a text, without its overhead


def _quote_path(path: str) -> str:
    """A path as JSON; one that is not UTF-8 in escapes, which bring its bytes back."""
    if path.isprintable():  # what stands for such bytes is not printable
        return _quote_json(path)
    return json.encoder.encode_basestring_ascii(path)


def _quote_list(texts: Sequence[str]) -> str:
    return f"[{', '.join(map(_quote_json, texts))}]"


@dataclass(frozen=True)
class Example:
    """One line of an index.

    Attributes:
        id: unique in its split.
        image: path of the image below the index's image folder.
        question: the text, NFC.
        answers: answer as it was written -> score in 0…1; empty where nobody knows. No two have one normal form.
        question_type: group for scores by type (AI-Hub: the category); the column `kind` of a file.
        captions: texts that describe the image.
        choices: the only possible answers, if the question brings them.
        unknown: of the choices, the one that says that the question cannot be answered; "": there is none.
        context: text to be read before the question (columns `context` and `hint`), NFC.
        annotations: what each annotator wrote, letter by letter, where there are several: official protocols
            need more than the scores in `answers`.
        columns: the table's other columns, handed on to predictions.
    """

    id: str
    image: str
    question: str
    answers: Mapping[str, float] = field(default_factory=dict)
    question_type: str = ""
    captions: Sequence[str] = field(default_factory=list)
    choices: Sequence[str] = ()
    context: str = ""
    annotations: Sequence[str] = ()
    columns: Mapping[str, object] = field(default_factory=dict)
    unknown: str = field(default="", kw_only=True)

    def line(self) -> str:
        """The example as one JSON line, without the line end."""
        # By hand, because an index has millions: json.dumps of a dict takes three times as long.
        answers = ", ".join([f"{_quote_json(answer)}: {score!r}" for answer, score in self.answers.items()])
        # What most rows lack stands only where a row has it.
        others = ""
        if self.captions:
            others += f', "captions": {_quote_list(self.captions)}'
        if self.choices:
            others += f', "choices": {_quote_list(self.choices)}'
        if self.unknown:
            others += f', "unknown": {_quote_json(self.unknown)}'
        if self.annotations:
            others += f', "annotations": {_quote_list(self.annotations)}'
        if self.context:
            others += f', "context": {_quote_json(self.context)}'
        if self.columns:
            others += f', "columns": {json_line(dict(self.columns))}'
        return (
            f'{{"id": {_quote_json(self.id)}, "image": {_quote_path(self.image)}, '
            f'"question": {_quote_json(self.question)}, "answers": {{{answers}}}, '
            f'"kind": {_quote_json(self.question_type)}{others}}}'
        )


@dataclass(frozen=True)
class AskedExample(Example):
    """A question that somebody asks about an image of their own, by itself: no row of a table.

    Attributes:
        source: the image, in place of the path `image`. No path is kept: the next file of this path may show
            something else.
    """

    source: ImageSource = b""


def image_source(example: Example, images: Path) -> ImageSource:
    """Where the bytes of an example's image are.

    Args:
        example: of a split, a table, or a person.
        images: folder that image paths start from.
    """
    return example.source if isinstance(example, AskedExample) else images / example.image


def line_with_image(line: bytes, change: Callable[[str], str]) -> bytes:
    """An example's line with another path of the image; the rest stays byte by byte.

    Args:
        line: as `Example.line` writes it.
        change: from the path to the new one.
    """
    # An id cannot hold this: its quotation marks are escaped. A whole JSON would take ten times as long.
    head, key, rest = line.decode().partition('", "image": "')
    path, end = json.decoder.scanstring(rest, 0)  # type: ignore[attr-defined]  # documented by its name alone
    return f"{head}{key[:-1]}{_quote_path(change(path))}{rest[end:]}".encode()


def parse_example(line: str | bytes, place: str) -> Example:
    """An index line as an example.

    Args:
        line: one JSON object.
        place: its file and line, for errors.

    Raises:
        DataError: it is not JSON, or lacks a column, or has one that an index does not have.
    """
    try:
        text = line.decode() if isinstance(line, bytes) else line
        row = _INDEX_DECODER.decode(text)
        if len(text) > SURELY_SHALLOW_CHARS:
            check_depth(row, text)
        # The file's name of the column is older than ours, and stays.
        question_type = row.pop("kind", "")
        example = Example(**row, question_type=question_type)
        if type(example.answers) is not dict:  # a table's form, put into an index by hand
            raise TypeError('answers are {"ANSWER": SCORE, …}')
        return example
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        problem = nested_too_deep() if isinstance(error, RecursionError) else error
        raise DataError(
            message(
                "data.not-an-index-line",
                "{place}: not an index line ({problem})",
                place=place,
                problem=problem,
            ),
            message("data.not-an-index-line.hint", "write the index again: kovqa index"),
        ) from None


@dataclass(frozen=True)
class Answer:
    """What a model says.

    Attributes:
        text: the answer.
        score: how sure the model is, 0…1; nan if it does not say that.
        likeliest: texts and their scores, best first, as many as were asked for; `text` is the first of them.
            Empty: only the answer was asked for, or the model has no others.
        abstained_from: what the model answered where "unknown" is given in its place (`--unknown-below`): `score` and
            `likeliest` are of it. "": `text` is the model's own.
        is_cut: the question is longer than the model reads, and its end was left out. Known where one asks a model
            outside of a table, which has one warning for all its rows.
    """

    text: str
    score: float
    likeliest: Sequence[tuple[str, float]] = ()
    abstained_from: str = field(default="", kw_only=True)
    is_cut: bool = field(default=False, kw_only=True)


def json_line(value: object) -> str:
    """A JSON value on one line, as any reader of JSON takes it.

    A float that is NaN becomes null, for JSON has none; half a character, which JSON may have and UTF-8 not, stays
    escaped.
    """
    try:
        line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json_line(_without_nan(value))
    try:
        line.encode()
    except UnicodeEncodeError:
        return json.dumps(value)
    return line


def _without_nan(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _without_nan(each) for name, each in value.items()}
    return [_without_nan(each) for each in value] if isinstance(value, list | tuple) else value
