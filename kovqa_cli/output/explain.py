"""What `kovqa explain` prints."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import message

from kovqa_cli.output.answers import answer_note
from kovqa_cli.output.console import print_note, print_outcome, print_report, print_warnings
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.answer.local import LoadedModel
    from kovqa_core.explain.explanation import Explanation


def print_explanation(
    explanation: Explanation, loaded: LoadedModel, output: Path | None, *, as_json: bool, quiet: bool
) -> None:
    """The path of the image that was written; or, without one, the question's words and what each is worth."""
    from kovqa_core.explain.explanation import MAX_WORDS

    if explanation.doubt is not None:
        print_warnings([explanation.doubt])
    if len(explanation.words) == MAX_WORDS:
        text = message(
            "explain.many-words",
            "only the first {words} words of the question were tried out",
            words=MAX_WORDS,
        )
        print_warnings([text])
    answer, words = explanation.answer, [(each.word, f"{each.effect:+.2f}") for each in explanation.words]
    fields = {
        "answer": answer.text,
        "score": _json_number(answer.score),
        "method": explanation.method,
        "heat": [[round(float(value), 4) for value in row] for row in explanation.heat],
        "largest_drop": _json_number(explanation.largest_drop),
        "words": [{"word": each.word, "effect": _json_number(each.effect)} for each in explanation.words],
        "doubt": None if explanation.doubt is None else str(explanation.doubt),
        "path": None if output is None else str(output),
        "model": str(loaded.folder),
        "precision": loaded.precision,
    }
    said = message(
        "explain.answer",
        "answer: {answer} ({note})",
        answer=answer.text,
        note=answer_note(answer, loaded.folder),
    )
    if output is not None:
        print_outcome(str(output), fields, [said], as_json=as_json, quiet=quiet)
        return

    def print_words() -> None:
        print_note(said)
        heading = message("explain.words-heading", "log-odds lost without it")
        print_table([(message("explain.word-heading", "word"), "left"), (heading, "right")], words)

    print_report(["\t".join(word) for word in words], fields, print_words, as_json=as_json, quiet=quiet)


def _json_number(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else round(value, 6)
