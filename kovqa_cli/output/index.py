"""What `kovqa index` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kovqa_core.messages import join_messages, message

from kovqa_cli.output.console import (
    print_json,
    print_note,
    print_outcome,
    print_warnings,
    shell_path,
)
from kovqa_cli.output.table import print_table

if TYPE_CHECKING:
    from kovqa_core.data.example import Example
    from kovqa_core.index.preview import PreviewExample
    from kovqa_core.index.report import ImageCheck, IndexCounts, IndexReport
    from kovqa_core.index.row_extras import RowExtras


def print_index_report(report: IndexReport, folder: Path, *, as_json: bool, quiet: bool) -> None:
    """What an index holds and what was left out; on stdout where it is."""
    _print_fault_warning(report)
    fields = {"path": str(folder), **_report_fields(report)}
    notes = [*_report_notes(report), *_benchmark_notes(report, folder)]
    print_outcome(str(folder), fields, notes, as_json=as_json, quiet=quiet)


def print_checked_data_set(report: IndexReport, *, as_json: bool, quiet: bool) -> None:
    """What an index would hold that was not written."""
    _print_fault_warning(report)
    if as_json:
        print_json({"path": None, **_report_fields(report)})
    elif not quiet:
        for note in _report_notes(report):
            print_note(note)


def _report_fields(report: IndexReport) -> dict[str, object]:
    return {**report.json_fields(), "left_out_faults": report.faults, "rows_read": report.all_rows}


def _print_fault_warning(report: IndexReport) -> None:
    """Above 1 %, also where little is wanted; the lines of the report say why. And what of the data is not whole."""
    from kovqa_core.data.left_out import is_worth_a_warning, left_out_text

    print_warnings(
        message("index.not-whole", "not whole, its rows are missing: {place}", place=place)
        for place in report.incomplete
    )

    if is_worth_a_warning(report.faults, report.all_rows):
        print_warnings([left_out_text(report.faults, report.all_rows)])


def _report_notes(report: IndexReport) -> Iterator[str]:
    yield from report.notes
    counts = report.counts
    sizes = [
        message(
            "index.split-size", "{split} {rows:,} rows on {images:,} images",
            split=split, rows=rows, images=counts.images[split],
        )
        for split, rows in counts.rows.items()
    ]  # fmt: skip
    splits = join_messages(", ", sizes)
    if counts.classes and not counts.min_count:  # a list may have answers that no row has
        yield message(
            "index.sizes-and-listed-answers", "{splits}; {answers:,} answers, as listed",
            splits=splits, answers=counts.classes,
        )  # fmt: skip
    elif counts.classes:
        yield message(
            "index.sizes-and-answers", "{splits}; {answers:,} answers (each seen at least {min_count}×)",
            splits=splits, answers=counts.classes, min_count=counts.min_count,
        )  # fmt: skip
    else:
        yield splits
    yield from _class_notes(counts)
    for split, shared in counts.images_shared_with_train.items():
        if shared:
            yield message(
                "index.images-shared",
                "warning: {shared:,} images of {split} are in train too, so its score will be too good",
                shared=shared, split=split,
            )  # fmt: skip
    if counts.qualified_ids:
        yield message(
            "index.ids-qualified",
            "{rows:,} rows share their id with another image or question: their images tell them apart (first: {id})",
            rows=counts.qualified_ids, id=counts.first_qualified_id,
        )  # fmt: skip
    for answer, rows in counts.empty_looking_classes.items():
        yield message(
            "index.empty-looking-class",
            "warning: the class '{answer}' ({rows:,} rows) looks like a missing answer; if it is one, empty those cells",
            answer=answer, rows=rows,
        )  # fmt: skip
    yield from _extras_notes(counts.extras)
    if counts.image_check is not None:
        yield _image_check_note(counts.image_check)
    for left_out in counts.left_out:
        yield message(
            "index.rows-left-out", "left out, {reason}: {count:,} (first: {row})",
            reason=left_out.reason, count=left_out.count, row=left_out.first_rows[0],
        )  # fmt: skip


def _benchmark_notes(report: IndexReport, folder: Path) -> Iterator[str]:
    """How a benchmark is answered, for nothing is trained on it."""
    from kovqa_core.data.benchmark_sets import BENCHMARK_SETS
    from kovqa_core.evaluate.protocols import JUDGED_PROTOCOLS

    name = report.source
    if name not in BENCHMARK_SETS:
        return
    protocol = BENCHMARK_SETS[name].protocol
    yield message("index.protocol", "answers are scored by the protocol {protocol}", protocol=protocol)
    table = shell_path(folder / "test.jsonl")
    judge = " --judge URL" if protocol in JUDGED_PROTOCOLS else ""
    if folder.name == name:
        data = "" if folder.parent == Path("data") else f"--data {shell_path(folder.parent)} "
        yield message(
            "index.benchmark-next", "next: kovqa benchmark --sets {name} {data}--model MODEL{judge}",
            name=name, data=data, judge=judge,
        )  # fmt: skip
        return
    choices = "--choices " if report.counts.extras.choices else ""
    yield message(
        "index.predict-next", "next: kovqa predict --input {table} {choices}-o {name}.jsonl --model MODEL",
        table=table, choices=choices, name=name,
    )  # fmt: skip
    yield message(
        "index.evaluate-next", "then: kovqa evaluate {name}.jsonl --index {table}{judge}",
        name=name, table=table, judge=judge,
    )  # fmt: skip


def _class_notes(counts: IndexCounts) -> Iterator[str]:
    """Which questions have a class, and which classes have no question."""
    for split, fraction in counts.class_coverage.items():
        if counts.classes and fraction is not None and fraction < 1:
            yield message(
                "index.class-coverage", "{split}: {fraction:.1%} of the questions have an answer that is a class",
                split=split, fraction=fraction,
            )  # fmt: skip
    if (some := counts.unreachable_classes).count:
        yield message(
            "index.unreachable-classes",
            "{count:,} answers of the list cannot be the answer of a row: rows have no blanks around answers and no second "
            "spelling (first: '{first}'); they keep their labels",
            count=some.count, first=some.first,
        )  # fmt: skip
    if (some := counts.classes_without_rows).count:
        yield message(
            "index.classes-without-rows",
            "{count:,} answers of the list are in no training row (first: '{first}')",
            count=some.count, first=some.first,
        )  # fmt: skip


def _extras_notes(extras: RowExtras) -> Iterator[str]:
    """What rows have besides image, question and answer."""
    for split, rows in extras.choices.items():
        yield message("index.choices", "{split}: {rows:,} rows have choices", split=split, rows=rows)
    for split, rows in extras.answer_no_choice.items():
        yield message(
            "index.answer-no-choice",
            "{split}: of these, {rows:,} have an answer that is none of their choices",
            split=split,
            rows=rows,
        )
    for split, rows in extras.text_and_letter.items():
        yield message(
            "index.text-and-letter",
            "{split}: of these, {rows:,} have an answer that is a choice's text and another's letter: the text counts",
            split=split,
            rows=rows,
        )
    for split, rows in extras.unknown_choices.items():
        yield message(
            "index.unknown-choices",
            "{split}: of these, {rows:,} have a choice that means 'unknown'",
            split=split,
            rows=rows,
        )
    for split, rows in extras.contexts.items():
        yield message(
            "index.contexts",
            "{split}: {rows:,} rows have a context to be read before the question",
            split=split,
            rows=rows,
        )
    if extras.other_columns:
        yield message(
            "index.other-columns", "columns handed on: {names}", names=", ".join(extras.other_columns)
        )


def _image_check_note(check: ImageCheck) -> str:
    seconds = max(check.seconds or 0, 1e-3)
    return message(
        "index.images-checked",
        "opened {images:,} images in {seconds:,.0f} s ({rate:,.0f}/s): {unreadable:,} cannot be read",
        images=check.images, seconds=seconds, rate=check.images / seconds, unreadable=check.unreadable,
    )  # fmt: skip


def print_examples(preview: Sequence[PreviewExample], *, as_json: bool) -> None:
    """Examples of an index, with the paths of their images."""
    if as_json:
        print_json({"examples": [_example_fields(each) for each in preview]})
        return
    columns = [
        (message("index.split-column", "split"), "left"), ("id", "text"),
        (message("index.image-column", "image"), "text"), (message("index.question-column", "question"), "text"),
        (message("index.answers-column", "answers"), "text"),
    ]  # fmt: skip
    rows = [
        [
            each.split,
            each.example.id,
            str(each.image_path),
            each.example.question,
            _format_answers(each.example),
        ]
        for each in preview
    ]
    # What most data sets lack has a column where a row shown has it.
    for name, texts in _optional_columns([each.example for each in preview]).items():
        columns.insert(-1, (name, "text"))
        for row, text in zip(rows, texts, strict=True):
            row.insert(-1, text)
    print_table(columns, rows)


def _optional_columns(examples: Sequence[Example]) -> dict[str, list[str]]:
    """Heading -> the column's texts."""
    columns: dict[str, list[str]] = {
        message("index.context-column", "context"): [example.context for example in examples],
        message("index.choices-column", "choices"): [" | ".join(example.choices) for example in examples],
    }
    return {name: texts for name, texts in columns.items() if any(texts)}


def _example_fields(preview: PreviewExample) -> dict[str, object]:
    """The fields of `--show --json`: those of an index line, with the split and the image's whole path."""
    example = preview.example
    return {
        "split": preview.split,
        "id": example.id,
        "image": str(preview.image_path),
        "question": example.question,
        "answers": example.answers,
        "kind": example.question_type,
        "captions": example.captions,
        "choices": example.choices,
        "context": example.context,
        "columns": dict(example.columns),
    }


def _format_answers(example: Example) -> str:
    scored = [answer if score == 1 else f"{answer} {score:g}" for answer, score in example.answers.items()]
    return ", ".join([*scored, *example.captions])


def print_upstream_files(folder: Path, sizes: Mapping[str, int], *, as_json: bool, quiet: bool) -> None:
    """A folder of an original project's files, with their sizes in bytes."""
    notes = (
        message("index.file-size", "{file}: {size:,} bytes", file=name, size=size)
        for name, size in sizes.items()
    )
    print_outcome(str(folder), {"path": str(folder), "bytes": sizes}, notes, as_json=as_json, quiet=quiet)
