"""Answers as text, line by line beside the true ones, as VQA_NIA's `inference.py` logged them.

    [    1] 아돌프 삭스          호른                 (X)

A line is a question: its number in the split from 1, its best true answer, the answer given, and
whether that is right. The last line is the share of right ones. Other than the original's, a log is
replaced, not appended to, and an answer stays on its line: a line end in it is shown as `\\n`.
(docs/sources/vqa_nia.md, N26)
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

from kovqa_core.errors import SettingsError
from kovqa_core.evaluate.answer_scores import AnswerScores
from kovqa_core.evaluate.evaluation import EvaluationResult
from kovqa_core.evaluate.report_cards import is_right_row
from kovqa_core.files import atomic_file
from kovqa_core.messages import message
from kovqa_core.messages.one_line import escape_one_line
from kovqa_core.output_lock import output_lock
from kovqa_core.progress import OnProgress, Progress, ignore_progress

LOG_COLUMN_WIDTH = 20  # of a terminal, for an answer; a longer one takes what it needs


def write_answer_log(result: EvaluationResult, path: Path, on_progress: OnProgress = ignore_progress) -> None:
    """Write the log, whole or not at all; right is an answer of at least half a point.

    Args:
        result: scores of answers.
        path: the text file, UTF-8.

    Raises:
        SettingsError: captions, which are not right or wrong; the file cannot be written.
        MachineError: the disk is full.
    """
    if not isinstance(result.scores, AnswerScores):
        raise SettingsError(
            message(
                "evaluate.log-of-captions",
                "{file} holds captions, and a log is of answers",
                file=result.predictions_path,
            ),
            message("evaluate.log-of-captions.hint", "leave out --log"),
        )
    right = is_right_row(result)
    stage = message("evaluate.writing-log", "writing the log")
    with output_lock(path), atomic_file(path) as stream:
        for number, (example, hit) in enumerate(zip(result.examples, right, strict=True), 1):
            true_answer = max(example.answers, key=lambda answer: example.answers[answer], default="")
            answer = result.predictions.texts[example.id]
            mark = "(O)" if hit else "(X)"
            line = f"[{number:5}] {pad_to_width(true_answer)} {pad_to_width(answer)} {mark}\n"
            stream.write(line.encode())
            on_progress(Progress(stage, number, len(right)))
        stream.write(f"accuracy: {int(right.sum())} / {len(right)} = {right.mean():.2%}\n".encode())


def pad_to_width(text: str) -> str:
    """A text on one line, filled with spaces up to `LOG_COLUMN_WIDTH` columns of a terminal."""
    line = escape_one_line(text)
    return line + " " * (LOG_COLUMN_WIDTH - sum(map(_letter_width, line)))


@cache
def _letter_width(letter: str) -> int:
    # A Hangul syllable is as wide as two Latin letters, on a terminal and in the original's log (N26).
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1
