"""`val_samples.jsonl` of a run: what it answered to the same few validation examples, at each evaluation.

One line per evaluation, with the kind and step of the log's line about it: a resume cuts both files by one rule
(`train/run_log.py`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from kovqa_core.bounded_json import parse_json
from kovqa_core.data.example import Example, json_line
from kovqa_core.errors import DataError
from kovqa_core.files import disk_errors, read_bytes
from kovqa_core.messages import Message, message
from kovqa_core.settings.json_file import check_content

SAMPLES_FILE = "val_samples.jsonl"
SAMPLE_ROWS = 8  # so small that neither time nor disk notices
_SAMPLE_SEED = 0
_MAX_LETTERS = 300  # of a text
_MAX_TRUE_TEXTS = 5


@dataclass(frozen=True)
class ValidationSample:
    """One example, and what the run answered.

    Attributes:
        id, image, question: as in the index; a long question is cut.
        truth: true answers, best first, or captions; the first few.
        answer: of the run.
        points: of the answer by the run's metric, 0…1; None for a caption, which has none alone.
    """

    id: str
    image: str
    question: str
    truth: list[str]
    answer: str
    points: float | None = None


@dataclass(frozen=True)
class EvaluationSamples:
    """The samples of one evaluation; `step` counts optimizer steps done."""

    kind: ClassVar[str] = "eval"
    step: int
    samples: list[ValidationSample]


def choose_sample_rows(rows: int) -> list[int]:
    """Numbers of the examples of a split that are kept: the same for every run on the same split; ascending."""
    return sorted(random.Random(_SAMPLE_SEED).sample(range(rows), min(SAMPLE_ROWS, rows)))


def make_sample(example: Example, answer: str, points: float | None) -> ValidationSample:
    """What is kept of one answer."""
    best_first = sorted(example.answers, key=lambda text: -example.answers[text])
    truth = [text[:_MAX_LETTERS] for text in (best_first or example.captions)[:_MAX_TRUE_TEXTS]]
    question = example.question[:_MAX_LETTERS]
    return ValidationSample(example.id, example.image, question, truth, answer[:_MAX_LETTERS], points)


def append_samples(folder: Path, evaluation: EvaluationSamples) -> None:
    """Add the samples of one evaluation to a run's file.

    Raises:
        DataError: something else stands there.
        SettingsError, MachineError: it cannot be written.
    """
    path = folder / SAMPLES_FILE
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise DataError(message("runs.samples-not-a-file", "{file} is not a file", file=path))
    line = json_line({"kind": evaluation.kind, **asdict(evaluation)})
    with disk_errors(path), path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")


def read_samples(folder: Path) -> tuple[list[EvaluationSamples], list[Message]]:
    """All samples of a run, by ascending step, and what of the file cannot be read.

    An earlier version that resumed the run has not cut this file: a line that goes back to an earlier step takes the
    place of those after that step.
    """
    path = folder / SAMPLES_FILE
    kept: list[EvaluationSamples] = []
    if not path.exists():
        return [], []
    try:
        *lines, torn = read_bytes(path).decode("utf-8", "replace").split("\n")
    except (DataError, OSError) as error:
        return [], [message("runs.samples-unreadable", "the samples are not known: {problem}", problem=error)]
    bad = 0
    for line in [*lines, torn]:
        try:
            evaluation = check_content(parse_json(line), EvaluationSamples)
        except (ValueError, RecursionError):
            bad += line is not torn  # the last line has no end: it is being written, or a kill tore it
            continue
        while kept and kept[-1].step >= evaluation.step:
            kept.pop()
        kept.append(evaluation)
    problem = message("runs.samples-bad-lines", "{file}: {count} lines cannot be read", file=path, count=bad)
    return kept, [problem] if bad else []


def sampled_examples(evaluations: Sequence[EvaluationSamples]) -> list[ValidationSample]:
    """Each example once, as the newest evaluation that has it says, in the order of the index."""
    newest = {sample.id: sample for evaluation in evaluations for sample in evaluation.samples}
    return list(newest.values())
