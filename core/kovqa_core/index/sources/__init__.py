"""The table of data sets, and what each of them must offer.

A data set is a module of this folder with the four constants and two functions of `DataSource`, and a line
in `DATA_SOURCES`; benchmarks that share a module are a `BenchmarkSource` each. mypy compares every entry of the table
with the protocol. The modules are light: they load neither numpy nor Pillow, so that a command line can be completed
with their names. Data sets of plug-ins (`plugins.py`) join the table by their names; those of the table win.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from kovqa_core.errors import unknown_name_error
from kovqa_core.index.shards import DatasetShard, SourceOptions
from kovqa_core.index.sources import aihub, aihub101, bok_vqa, coco, dacon, kvqa, nia, table, vqav2
from kovqa_core.index.sources.benchmarks import BENCHMARK_SOURCES
from kovqa_core.messages import message
from kovqa_core.plugins import find_plugin, load_plugin, plugin_names, protocol_names


class DataSource(Protocol):
    """A module, or an object, that reads a raw data set."""

    @property
    def SPLIT_METHOD(self) -> str:
        """How rows are assigned to splits. It stands in `index.json`, so a published text stays as it is."""

    @property
    def MIN_ANSWER_COUNT(self) -> int | None:
        """How often a training answer must occur to become a class; None: by the size of the data."""

    @property
    def ACCEPTED_OPTIONS(self) -> tuple[str, ...]:
        """Fields of `SourceOptions` that make a difference; others that a user sets are refused."""

    @property
    def QUESTION_TYPE_GROUPS(self) -> Mapping[str, Sequence[str]]:
        """Group -> question types that are scored together as well; mostly none."""

    def find_image_folder(self, root: Path) -> Path:
        """The folder that image paths start from, unless the user names one; need not exist."""

    def dataset_shards(self, root: Path, images: Path, options: SourceOptions) -> Sequence[DatasetShard]:
        """What can be read side by side, in the order the rows shall have.

        Raises:
            SettingsError: an option's value makes no sense.
            DataError: nothing to read; later, while reading: file and line of what is broken.
        """


DATA_SOURCES: dict[str, DataSource] = {
    "aihub": aihub,
    "aihub101": aihub101,
    "nia": nia,
    "dacon": dacon,
    "vqav2": vqav2,
    "coco": coco,
    "kvqa": kvqa,
    "table": table,
    **BENCHMARK_SOURCES,
    "bok-vqa": bok_vqa,
}


def source_names() -> list[str]:
    """Names of all data sets that can be read here."""
    return [*DATA_SOURCES, *plugin_names("source", DATA_SOURCES)]


def find_source(name: str) -> DataSource:
    """The data set of a name.

    Raises:
        SettingsError: there is no such data set; names the nearest.
        MachineError: the plug-in that brings it does not work.
    """
    if name in DATA_SOURCES:
        return DATA_SOURCES[name]
    plugin = find_plugin("source", name)
    if plugin is None:
        problem = message("index.unknown-source", "unknown data set '{source}'", source=name)
        raise unknown_name_error(problem, name, source_names())
    source: DataSource = load_plugin(plugin, protocol_names(DataSource))
    return source
