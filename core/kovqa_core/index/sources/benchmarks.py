"""Published Korean benchmarks of which every row is for testing: eight sets, read by four layouts.

The facts about each are in `data/benchmark_sets.py`, its layout is in `_LAYOUTS`. (docs/sources/benchmarks.md)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from kovqa_core.data.benchmark_sets import BENCHMARK_SETS, BenchmarkSet
from kovqa_core.data.circular_rows import CIRCULAR_COLUMN, circular_rows
from kovqa_core.data.example import Example
from kovqa_core.index.left_out import LeftOutRows
from kovqa_core.index.shards import DatasetShard, SourceOptions, SplitExamples
from kovqa_core.index.sources.benchmark_files import (
    find_benchmark_files,
    have_own_images,
    read_benchmark_records,
)
from kovqa_core.index.sources.benchmark_rows import LETTERS_ALONE, BenchmarkLayout, benchmark_example
from kovqa_core.messages import message

_LAYOUTS: Mapping[str, BenchmarkLayout] = {
    "k-mmbench": BenchmarkLayout(),
    "k-seed": BenchmarkLayout(ids=("question_id", "index"), question_types=("category", "question_type_id")),
    "k-mmstar": BenchmarkLayout(choices_in_question=True),
    "k-dtcbench": BenchmarkLayout(),
    "k-llava-w": BenchmarkLayout("reference", ids=("question_id", "index")),
    "koffvqa": BenchmarkLayout("criteria"),
    "kreta": BenchmarkLayout(ids=("id", "index")),
    "k-viscuit": BenchmarkLayout("number", ids=("id_",)),
}
_TURN = 1_000_000  # between the indexes of a question's turns (docs/sources/benchmarks.md, K4)


@dataclass(frozen=True)
class BenchmarkSource:
    """A benchmark as a `DataSource`.

    Attributes:
        name: a key of `BENCHMARK_SETS`.
    """

    name: str
    SPLIT_METHOD: str = "the whole set is split test"
    MIN_ANSWER_COUNT: int | None = None
    ACCEPTED_OPTIONS: tuple[str, ...] = ()

    @property
    def QUESTION_TYPE_GROUPS(self) -> Mapping[str, Sequence[str]]:
        """None: the sets' categories are their own."""
        return {}

    def find_image_folder(self, root: Path) -> Path:
        """The folder of images that lie in files of their own."""
        folder = root if root.is_dir() else root.parent
        return next((f for f in (folder / "dataset" / "images", folder / "images") if f.is_dir()), folder)

    def dataset_shards(self, root: Path, images: Path, options: SourceOptions) -> list[DatasetShard]:
        """The whole set, for its files share the names of their images; raises DataError without any."""
        files = find_benchmark_files(self.name, root)
        read = partial(_read_benchmark, self.name, files, images)
        own = any(map(have_own_images, files))
        return [DatasetShard(read, sum(file.stat().st_size for file in files), read if own else None)]


BENCHMARK_SOURCES: Mapping[str, BenchmarkSource] = {name: BenchmarkSource(name) for name in _LAYOUTS}


def _read_benchmark(
    name: str, files: Sequence[Path], images: Path, left_out: LeftOutRows, own_images: Path | None = None
) -> SplitExamples:
    """The rows of a set; images in its files are written into `own_images`."""
    layout, published = _LAYOUTS[name], BENCHMARK_SETS[name]
    records = read_benchmark_records(files, layout.required, layout.ids, images, left_out, own_images)
    # In memory: they are a few thousand at most, and whether turns are among them is known at the end.
    examples = [each for record in records if (each := benchmark_example(layout, record, left_out))]
    is_circular = published.protocol == "circular"
    questions = len(set(map(_question_id, examples))) if is_circular else len(examples)
    note_question_count(published, questions + left_out.counts.total(), left_out)
    unsplit = sum(each.choices == LETTERS_ALONE for each in examples)
    if layout.choices_in_question and unsplit:
        left_out.notes.append(
            message(
                "index.choices-in-text", "{title}: the choices of {count:,} questions stand in their texts alone; "
                "they are asked for by their letters", title=published.title, count=unsplit,
            )
        )  # fmt: skip
    turned = _with_turns(examples, left_out) if is_circular else examples
    for example in turned:
        yield "test", example


def note_question_count(published: BenchmarkSet, questions: int, left_out: LeftOutRows) -> None:
    """Note that a set has more or fewer questions than were published."""
    if questions != published.rows:
        left_out.notes.append(
            message(
                "index.benchmark-size", "warning: {title}: {questions:,} questions, {published:,} are published: scores do "
                "not compare with those of others", title=published.title, questions=questions, published=published.rows,
            )
        )  # fmt: skip


def _with_turns(examples: Sequence[Example], left_out: LeftOutRows) -> Iterator[Example]:
    """The turns of circular evaluation: those that the files have, else all that there are."""
    if not any(_question_id(example) != example.id for example in examples):
        for example in examples:
            yield from circular_rows(example)
        return
    turns = Counter(map(_question_id, examples))
    missing = sum(turns[id] != most for id, most in _choice_counts(examples).items())
    if missing:
        left_out.notes.append(
            message(
                "index.turns-missing", "warning: {count:,} of {questions:,} questions lack a turn of circular "
                "evaluation, or have one too many", count=missing, questions=len(turns),
            )
        )  # fmt: skip
    for example in examples:
        yield replace(example, columns={**example.columns, CIRCULAR_COLUMN: _question_id(example)})


def _question_id(example: Example) -> str:
    """The index of the question that a row is a turn of."""
    return str(int(example.id) % _TURN) if example.id.isdecimal() else example.id


def _choice_counts(examples: Iterable[Example]) -> dict[str, int]:
    """Question -> how many choices it has."""
    return {_question_id(example): len(example.choices) for example in examples}
