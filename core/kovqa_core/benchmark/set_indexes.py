"""Which published sets are indexed here, and what to type for those that are not. Light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.data.benchmark_sets import BENCHMARK_SETS, BenchmarkSet
from kovqa_core.data.left_out import left_out_text
from kovqa_core.download.find_asset import asset_names
from kovqa_core.errors import DataError, SettingsError, unknown_name_error
from kovqa_core.index.report import REPORT_FILE, read_report
from kovqa_core.messages import message, shell_quote
from kovqa_core.paths import kovqa_home

ALL_SETS = "all"


@dataclass(frozen=True)
class SetIndex:
    """The index of a published set.

    Attributes:
        benchmark: which set.
        split: its `test.jsonl`.
        rows: of that split.
        fingerprint: of the index.
        notes: what was found about the set when it was indexed, such as questions that are missing.
    """

    benchmark: BenchmarkSet
    split: Path
    rows: int
    fingerprint: str
    notes: tuple[str, ...] = ()


def find_set_indexes(data: Path, names: Sequence[str]) -> list[SetIndex]:
    """The indexes of sets, in the order of their names, each once.

    Args:
        data: folder of index folders that are called like their sets.
        names: of sets; "all": those that are here, beside what else is named.

    Raises:
        SettingsError: an unknown name, or no name.
        DataError: a set is not indexed there; none is; a folder holds the index of something else.
    """
    chosen = dict.fromkeys(name.strip() for name in names if name.strip())
    for name in chosen:
        if name != ALL_SETS and name not in BENCHMARK_SETS:
            raise unknown_name_error(
                message("benchmark.unknown-set", "unknown set '{name}'", name=name), name, [*BENCHMARK_SETS, ALL_SETS]
            )  # fmt: skip
    here = [name for name in BENCHMARK_SETS if (data / name / REPORT_FILE).is_file()]
    if ALL_SETS in chosen:
        chosen = dict.fromkeys([*here, *(name for name in chosen if name != ALL_SETS)])
    elif not chosen:
        raise SettingsError(
            message("benchmark.no-sets", "--sets names no set"),
            message("benchmark.no-sets.hint", "name some, or all: those that are indexed in --data"),
        )
    missing = [name for name in chosen if name not in here]
    if missing or not chosen:
        raise _missing_sets_error(data, missing or [*BENCHMARK_SETS][:1], any_set=bool(missing))
    return [_open_set(data, name) for name in chosen]


def _missing_sets_error(data: Path, names: Sequence[str], *, any_set: bool) -> DataError:
    """What to type for sets, the first of all where none is here."""
    assets = [asset for name in names for asset in (name, f"{name}-images") if asset in asset_names()]
    commands = [f"kovqa download {' '.join(assets)}"]
    for name in names:
        root, index = shell_quote(kovqa_home() / "assets" / name), shell_quote(data / name)
        commands.append(f"kovqa index {name} --root {root} -o {index}")
    if any_set:
        text = message(
            "benchmark.sets-missing", "{folder} has no index of {sets}", folder=data, sets=", ".join(names)
        )
    else:
        text = message("benchmark.no-set-here", "{folder} has no index of a published set", folder=data)
    return DataError(text, " && ".join(commands))


def _open_set(data: Path, name: str) -> SetIndex:
    report, split = read_report(data / name), data / name / "test.jsonl"
    if report.source != name or not split.is_file():
        raise DataError(
            message(
                "benchmark.other-index", "{folder} is not an index of {name}, but of {source}",
                folder=data / name, name=name, source=report.source or message("benchmark.nothing-known", "nothing known"),
            ),
            message("benchmark.other-index.hint", "write it with kovqa index {name}, or choose another --data", name=name),
        )  # fmt: skip
    rows, notes = report.counts.rows.get("test", 0), tuple(report.notes)
    if report.faults:
        text = left_out_text(report.faults, report.all_rows)
        notes += (
            message("benchmark.rows-left-out", "{set}: {text}", set=BENCHMARK_SETS[name].title, text=text),
        )
    return SetIndex(BENCHMARK_SETS[name], split, rows, report.counts.fingerprint, notes)
