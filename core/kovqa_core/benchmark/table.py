"""The table of a benchmark: `benchmark.json` for programs, `benchmark.md` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.benchmark.set_indexes import SetIndex
from kovqa_core.errors import KovqaError
from kovqa_core.evaluate.answer_scores import AnswerScores, ColumnScores
from kovqa_core.files import write_json, write_text
from kovqa_core.messages import Message, message
from kovqa_core.messages.one_line import escape_one_line

TABLE_FILE, MARKDOWN_FILE = "benchmark.json", "benchmark.md"
_MOST_VALUES = 6  # of a column, in a note; benchmark.json has all


@dataclass(frozen=True)
class SetScore:
    """What a model scored on a set.

    Attributes:
        model: its label.
        index: of the set.
        protocol: by which it is scored.
        scores: in all and by category.
        answered_by: "letter" or "text": the likeliest of the choices by its letter or its text; "written": what the
            model wrote.
        identity: what the answers depend on: path or hub name, digest of the weights, decoding; JSON values.
        empty: answers without a text, those about images that cannot be read among them.
        unreadable: of the images' rows.
        kept: answers that an earlier start had given.
        judge: the model that gave the points; "" where nobody judges.
        without_verdict: questions of which it gave none: they count nowhere.
    """

    model: str
    index: SetIndex
    protocol: str
    scores: AnswerScores
    answered_by: str
    identity: Mapping[str, object]
    empty: int
    unreadable: int
    kept: int
    judge: str = ""
    without_verdict: int = 0

    @property
    def set(self) -> str:
        """Name of the set."""
        return self.index.benchmark.name

    @property
    def unusable(self) -> int:
        """Answers that name no choice, or several; where there are no choices, those without a text."""
        return sum(self.scores.unread.values()) or self.empty

    def json_fields(self) -> dict[str, object]:
        """The fields of `benchmark.json`."""
        total, scores = self.scores.total, self.scores
        fields: dict[str, object] = {
            "model": self.model, "set": self.set, "protocol": self.protocol, "rows": self.index.rows,
            "questions": total.rows, "score": total.score, "low": total.low, "high": total.high,
            "interval": total.method, "majority": total.majority, "unusable": self.unusable,
            "unreadable_images": self.unreadable, "answered_by": self.answered_by, "identity": dict(self.identity),
            "data": self.index.fingerprint, "data_notes": list(self.index.notes),
            "kinds": [each.json_fields() for each in scores.question_types],
            "columns": {each.column: [value.json_fields() for value in each.values] for each in scores.columns},
            "column_means": {each.column: each.mean.json_fields() for each in scores.columns},
        }  # fmt: skip
        if self.judge:
            fields |= {"judge": self.judge, "without_verdict": self.without_verdict}
        if scores.circular:
            fields["vanilla"] = scores.circular.vanilla.json_fields()
            fields["incomplete"] = list(scores.circular.incomplete)
        return fields


@dataclass(frozen=True)
class SetFailure:
    """A pair of model and set that has no score, and why."""

    model: str
    set: str
    error: KovqaError

    def json_fields(self) -> dict[str, object]:
        """The fields of `benchmark.json`."""
        return {"model": self.model, "set": self.set, "error": str(self.error.message)}


@dataclass(frozen=True)
class BenchmarkTable:
    """All pairs, in the order they were asked for, and the versions that they depend on."""

    results: Sequence[SetScore | SetFailure]
    versions: Mapping[str, str]

    @property
    def failures(self) -> list[SetFailure]:
        """The pairs without a score."""
        return [result for result in self.results if isinstance(result, SetFailure)]

    def json_fields(self) -> dict[str, object]:
        """The contents of `benchmark.json`."""
        return {"versions": dict(self.versions), "results": [result.json_fields() for result in self.results]}


def table_cells(result: SetScore | SetFailure) -> list[str]:
    """A pair as cells under `table_headings`."""
    if isinstance(result, SetFailure):
        return [result.set, result.model, message("benchmark.failed-cell", "failed"), *[""] * 5]
    total = result.scores.total
    return [
        result.set,
        result.model,
        f"{total.score:.1%}",
        f"{total.low:.1%} – {total.high:.1%}",
        f"{total.rows:,}",
        f"{result.unusable:,}",
        answered_by_text(result.answered_by),
        f"{result.protocol}, {result.judge}" if result.judge else result.protocol,
    ]


def table_headings() -> list[Message]:
    """Headings of `table_cells`."""
    return [
        message("benchmark.set-column", "set"),
        message("benchmark.model-column", "model"),
        message("benchmark.score-column", "score"),
        message("benchmark.interval-column", "95 % interval"),
        message("benchmark.questions-column", "questions"),
        message("benchmark.unusable-column", "unusable"),
        message("benchmark.answers-column", "answers"),
        message("benchmark.protocol-column", "protocol"),
    ]


def answered_by_text(way: str) -> Message:
    """How answers came about, in a cell."""
    match way:
        case "letter":
            return message("benchmark.by-letter", "letters")
        case "text":
            return message("benchmark.by-text", "texts")
        case _:
            return message("benchmark.by-writing", "written")


def result_notes(table: BenchmarkTable) -> list[str]:
    """What is known of the sets' data, other scores that their boards report, and what this table's numbers compare with."""
    indexes = [result.index for result in table.results if isinstance(result, SetScore)]
    notes: list[str] = [*dict.fromkeys(note for index in indexes for note in index.notes)]
    for result in table.results:
        if isinstance(result, SetFailure):
            continue
        if circular := result.scores.circular:
            notes.append(
                message(
                    "benchmark.vanilla-note", "{set}, {model}: by the first turn alone {score:.1%} ({low:.1%} – {high:.1%})",
                    set=result.set, model=result.model, score=circular.vanilla.score, low=circular.vanilla.low,
                    high=circular.vanilla.high,
                )
            )  # fmt: skip
        if result.without_verdict:
            notes.append(
                message(
                    "benchmark.verdicts-missing",
                    "{set}, {model}: {judge} gave no verdict on {count:,} questions, which count nowhere",
                    set=result.set, model=result.model, judge=result.judge, count=result.without_verdict,
                )
            )  # fmt: skip
        notes += [
            message(
                "benchmark.column-note",
                "{set}, {model}, by {column}: mean {score:.1%} ({low:.1%} – {high:.1%}){values}",
                set=result.set, model=result.model, column=each.column, score=each.mean.score, low=each.mean.low,
                high=each.mean.high, values=_few_values(each),
            )
            for each in result.scores.columns
        ]  # fmt: skip
    notes.append(
        message(
            "benchmark.comparable",
            "letters, texts: the likeliest choice by its letter or its text; written: what the model wrote, read by the "
            "protocol. Scores of other programs, prompts or ways to answer do not compare with these",
        )
    )
    return notes


def _few_values(scores: ColumnScores) -> str:
    """The scores of a column's values, where a line has room for them."""
    if len(scores.values) > _MOST_VALUES:
        return ""
    return "; " + ", ".join(f"{value.name} {value.score:.1%}" for value in scores.values)


def write_table(table: BenchmarkTable, folder: Path) -> None:
    """Write both files; the one for programs last, so that it is there when all is."""
    lines = [_markdown_row(table_headings()), _markdown_row(["---"] * len(table_headings()))]
    lines += [_markdown_row(table_cells(result)) for result in table.results]
    notes = [f"- {escape_one_line(note)}" for note in result_notes(table)]
    notes += [
        f"- {failure.set}, {failure.model}: {escape_one_line(str(failure.error.message))}"
        for failure in table.failures
    ]
    versions = ", ".join(f"{name} {version}" for name, version in table.versions.items())
    text = "\n".join(["# kovqa benchmark", "", *lines, "", *notes, f"- {versions}", ""])
    write_text(folder / MARKDOWN_FILE, text)
    write_json(folder / TABLE_FILE, {"schema": 1, **table.json_fields()})


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(escape_one_line(cell).replace('|', chr(92) + '|') for cell in cells)} |"
