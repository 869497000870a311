"""What `kovqa predict`, `caption`, `chat` and `vote` print."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message
from kovqa_core.messages.one_line import escape_one_line

from kovqa_cli.output.console import (
    model_name,
    print_note,
    print_outcome,
    print_text,
    print_warnings,
    short_path,
)

_MAX_LISTED = 20  # rows without an answer, in --json

if TYPE_CHECKING:
    from kovqa_core.answer.job import AnsweredTable, ModelAnswer
    from kovqa_core.data.example import Answer
    from kovqa_core.evaluate.ensemble import VoteResult


def print_cpu_warning() -> None:
    """That a model runs on the CPU where a GPU is, or should be."""
    from kovqa_core.answer.local import cpu_warning

    print_warnings(warning for warning in [cpu_warning()] if warning)


def print_answer(
    result: ModelAnswer,
    *,
    as_json: bool,
    quiet: bool,
    field: str = "answer",
    heard: str | None = None,
    sound: Path | None = None,
) -> None:
    """One answer, or one caption.

    Args:
        result: the answer.
        field: its name in the JSON document.
        heard: the question, where it was spoken.
        sound: the file in which the answer is read out.
    """
    from kovqa_core.evaluate.likeliest_column import likeliest_fields

    answer, note = result.answer, answer_note(result.answer, result.model)
    fields = {
        field: answer.text,
        "score": _json_score(answer.score),
        **likeliest_fields(answer),
        "model": str(result.model),
        **_precision_field(result.precision),
        **({} if heard is None else {"question": heard}),
        **({} if sound is None else {"sound": str(sound)}),
    }
    notes = [*_likeliest_notes(answer), _with_precision(note, result.precision)]
    if sound is not None:
        notes.append(message("answer.read-out", "read out in {file}", file=short_path(sound)))
    print_outcome(answer.text, fields, notes, as_json=as_json, quiet=quiet)


def _likeliest_notes(answer: Answer) -> list[str]:
    """The likeliest answers with their probabilities, one a line."""
    return [
        message("answer.likely-answer", "{score:6.1%}  {text}", score=score, text=text)
        for text, score in answer.likeliest
    ]


def answer_note(answer: Answer, model: Path | str) -> str:
    """Who gave an answer, and how sure it is."""
    name = model_name(model)
    if math.isnan(answer.score):
        return name
    return message(
        "answer.model-and-confidence", "{model}, confidence {score:.1%}", model=name, score=answer.score
    )


def print_chat_answer(result: ModelAnswer, image: Path, question: str, *, as_json: bool) -> None:
    """One answer of a conversation: one line; for a person with how sure the model is."""
    from kovqa_core.evaluate.likeliest_column import likeliest_fields

    answer = result.answer
    fields = {
        "answer": answer.text,
        "score": _json_score(answer.score),
        **likeliest_fields(answer),
        "image": str(image),
        "question": question,
        "model": str(result.model),
        **_precision_field(result.precision),
    }
    notes = _likeliest_notes(answer)
    if sys.stdout.isatty() and not as_json and not math.isnan(answer.score):
        for note in notes:
            print_note(note)
        print_text(message("chat.answer", "{answer}  ({score:.0%})", answer=answer.text, score=answer.score))
        return
    print_outcome(escape_one_line(answer.text), fields, notes, as_json=as_json, quiet=False)


def print_predictions(table: AnsweredTable, *, as_json: bool, quiet: bool, captions: bool = False) -> None:
    """A predictions file that is written."""
    rows, model = table.rows, _with_precision(model_name(table.model), table.precision)
    note = (
        message("caption.written", "{rows:,} captions by {model}", rows=rows, model=model)
        if captions
        else message("predict.written", "{rows:,} answers by {model}", rows=rows, model=model)
    )
    fields = {
        "path": str(table.path),
        "rows": rows,
        "model": str(table.model),
        "left_out": 0 if table.filled else len(table.left_out),
        "left_out_rows": dict(list(table.left_out.items())[:_MAX_LISTED]),
        "kept": table.kept,
        "dropped": table.dropped,
        "passed_over": len(table.passed_over),
        "passed_over_files": list(table.passed_over[:_MAX_LISTED]),
        "duplicates": len(table.duplicates),
        "duplicate_rows": list(table.duplicates[:_MAX_LISTED]),
        "notes": list(table.notes),
        **_precision_field(table.precision),
    }
    if table.filled:
        fields["filled"] = len(table.left_out)
    if table.abstained is not None:
        fields |= {"abstained": table.abstained, "without_unknown": table.without_unknown}
    notes = [*table.notes, note, *_abstention_notes(table), *_kept_notes(table), *_left_out_notes(table)]
    if table.passed_over:
        notes.append(
            message(
                "caption.passed-over",
                "{files:,} other files are passed over (first: {first})",
                files=len(table.passed_over),
                first=table.passed_over[0],
            )
        )
    if table.duplicates:
        notes.append(
            message(
                "answer.duplicates",
                "{rows:,} rows ask again what an earlier row asks, and are left out (first: id {first})",
                rows=len(table.duplicates),
                first=table.duplicates[0],
            )
        )
    print_outcome(str(table.path), fields, notes, as_json=as_json, quiet=quiet)


def _abstention_notes(table: AnsweredTable) -> list[str]:
    """How many answers became "unknown", and which rows could not."""
    if table.abstained is None:
        return []
    text = message("predict.abstained", "{rows:,} of them became 'unknown'", rows=table.abstained)
    if not table.without_unknown:
        return [text]
    return [
        text,
        message(
            "predict.without-unknown", "{rows:,} rows have no choice that means 'unknown': their answers stay",
            rows=table.without_unknown,
        ),
    ]  # fmt: skip


def _kept_notes(table: AnsweredTable) -> list[str]:
    """What became of the answers of an earlier start of the same command."""
    notes: list[str] = []
    if table.kept:
        notes.append(
            message("answer.kept", "{kept:,} of them were there already and are kept", kept=table.kept)
        )
    if table.dropped:
        notes.append(
            message(
                "answer.dropped",
                "{dropped:,} earlier answers dropped: their rows or images have changed, or are not in the table any "
                "more",
                dropped=table.dropped,
            )
        )
    return notes


def _left_out_notes(table: AnsweredTable) -> list[str]:
    """Rows without an answer: as a warning above 1 %, which is printed at once; as a note below."""
    if not table.left_out:
        return []
    from kovqa_core.answer.job import describe_fault
    from kovqa_core.data.left_out import is_worth_a_warning, left_out_text

    count, first = len(table.left_out), describe_fault(*next(iter(table.left_out.items())))
    all_rows = table.rows if table.filled else table.rows + count
    if table.filled:
        text = message(
            "answer.filled",
            "{count:,} of {rows:,} rows cannot be answered, and have the text of --fill-unreadable: {first}",
            count=count, rows=all_rows, first=first,
        )  # fmt: skip
    else:
        text = left_out_text(count, all_rows, first)
    if is_worth_a_warning(count, all_rows):
        print_warnings([text])
        return []
    return [text]


def print_ensemble(
    output: Path, predictions: Sequence[Path], result: VoteResult, *, as_json: bool, quiet: bool
) -> None:
    """A predictions file that others voted for."""
    for path, ids in result.unusable_scores.items():
        print_warnings([unusable_scores_text(path, ids)])
    notes = [
        message(
            "vote.written", "{rows:,} answers by vote of {files} files",
            rows=result.rows, files=len(predictions),
        )
    ]  # fmt: skip
    if result.unscored:
        names = ", ".join(short_path(path) for path in result.unscored)
        notes.append(
            message("vote.unscored", "every vote counts as 1: scores are missing in {files}", files=names)
        )
    if result.undecided:
        notes.append(
            message(
                "vote.undecided",
                "in {rows:,} of them an answer that not every file lists could have won: list more with --top-k",
                rows=result.undecided,
            )
        )
    fields: dict[str, object] = {
        "path": str(output), "rows": result.rows, "votes": [str(path) for path in predictions],
        "unscored": [str(path) for path in result.unscored],
        "unusable_scores": {str(path): len(ids) for path, ids in result.unusable_scores.items()},
        **({} if result.undecided is None else {"undecided": result.undecided}),
    }  # fmt: skip
    print_outcome(str(output), fields, notes, as_json=as_json, quiet=quiet)


def unusable_scores_text(path: Path, ids: Sequence[str]) -> str:
    """That scores of a predictions file are not in 0…1."""
    return message(
        "cli.unusable-scores", "{file}: {count:,} scores are not in 0…1 and count as missing (first: id {id})",
        file=short_path(path), count=len(ids), id=ids[0],
    )  # fmt: skip


def _with_precision(text: str, precision: str) -> str:
    """A line's end, where the model did not compute in fp32."""
    if precision in ("", "fp32"):
        return text
    return message("answer.in-precision", "{text}, in {precision}", text=text, precision=precision)


def _precision_field(precision: str) -> dict[str, str]:
    """For JSON; a server does not say it."""
    return {"precision": precision} if precision else {}


def _json_score(score: float) -> float | None:
    """JSON has no nan: a model that reports no score has null."""
    return None if math.isnan(score) else round(score, 6)
