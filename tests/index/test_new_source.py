"""A new data set costs one file and one line of the table, as CONTRIBUTING says: nothing else is touched."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from kovqa_core.errors import SettingsError
from kovqa_core.index import build
from kovqa_core.index.reader import open_index, read_type_groups
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import DATA_SOURCES, DataSource

from kovqa_cli import completion
from tests.index.raw_data import left_out_counts, touch

NEW_SOURCE = '''
"""A data set of lines `split|image|question|answer`; images are beside them."""

from functools import partial

from kovqa_core.data.answers import soft_labels
from kovqa_core.data.example import Example
from kovqa_core.index.find_image import find_image
from kovqa_core.index.shards import DatasetShard

SPLIT_METHOD = "as published"
MIN_ANSWER_COUNT = 1
ACCEPTED_OPTIONS = ()
QUESTION_TYPE_GROUPS = {"colours": ("colour",)}


def find_image_folder(root):
    return root


def dataset_shards(root, images, options):
    return [DatasetShard(partial(_read_file, root / "rows.txt", images))]


def _read_file(file, images, left_out):
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        split, name, question, answer = line.split("|")
        image = find_image(images, name)
        if image.path is None:
            left_out.add(image.reason, f"{file}:{number}: {image.problem}")
        else:
            yield split, Example(str(number), image.path, question, soft_labels([answer]), "colour")
'''


@pytest.fixture
def new_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module, imported from its one file, and its line in the table."""
    file = tmp_path / "lines_source.py"
    file.write_text(NEW_SOURCE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("lines_source", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "lines_source", module)
    monkeypatch.setitem(DATA_SOURCES, "lines", module)
    return module


def test_a_new_source_is_indexed(tmp_path: Path, new_source: ModuleType) -> None:
    root = tmp_path / "raw"
    touch(root, ["가.jpg"])
    (root / "rows.txt").write_text(
        "train|가.jpg|무슨 색?|빨강\nval|가.jpg|색은?|파랑\ntest|나.jpg|뭐?|예\n", "utf-8"
    )
    report = build.build_index("lines", root, None, tmp_path / "index")
    index = open_index(tmp_path / "index")
    assert [(e.question, dict(e.answers)) for e in index.split("train")] == [("무슨 색?", {"빨강": 1.0})]
    assert report.counts.rows == {"train": 1, "val": 1, "test": 0}
    assert left_out_counts(report) == {"picture missing": 1}
    assert read_type_groups(tmp_path / "index" / "val.jsonl") == {"colours": ["colour"]}
    assert json.loads((tmp_path / "index" / "index.json").read_text("utf-8"))["divided"] == "as published"
    with pytest.raises(SettingsError, match="lines has no use for language en"):
        build.build_index("lines", root, None, None, options=SourceOptions(language="en"))


def test_a_new_source_completes_on_the_command_line(new_source: ModuleType) -> None:
    assert completion.complete_source("li") == ["lines"]


@pytest.mark.parametrize("name", list(DATA_SOURCES))
def test_every_source_offers_what_the_protocol_lists(name: str) -> None:
    """mypy compares the types; this sees that no constant is left to chance."""
    required = {attribute for attribute in vars(DataSource) if not attribute.startswith("_")}
    assert required <= set(dir(DATA_SOURCES[name]))
