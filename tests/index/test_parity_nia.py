"""VQA_NIA's table, its order of classes, its choice of rows; and our index of the same files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kovqa_core.data.answers import tidy_answer
from kovqa_core.index.build import build_index, build_upstream_files
from kovqa_core.index.reader import open_index
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.upstream import nia
from kovqa_core.index.upstream.pinned_order import pinned_order

from tests import parity
from tests.index.raw_data import left_out_counts


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded tree, with empty images where the recording had some."""
    folder = tmp_path_factory.mktemp("nia") / "root"
    shutil.copytree(parity.path("aihub_json", "vqa_nia"), folder)
    (folder / "image").mkdir()
    for name in parity.json_of("aihub_json/images_present.json", "vqa_nia"):
        (folder / "image" / name).touch()
    return folder


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    return nia.read_nia_csv(parity.path("answers/data_ko.csv", "vqa_nia"))


def test_parity_nia_tables(root: Path, tmp_path: Path) -> None:
    build_upstream_files("nia", root, None, tmp_path / "up")
    for language in nia.NIA_LANGUAGES:
        expected = parity.path(f"aihub_json/expected_{language}.csv", "vqa_nia")
        assert (tmp_path / "up" / f"data_{language}.csv").read_bytes() == expected.read_bytes()


@pytest.mark.parametrize("language", nia.NIA_LANGUAGES)
def test_parity_nia_index(root: Path, tmp_path: Path, language: str) -> None:
    """Our index holds the rows of the original's table, and says which images are missing."""
    report = build_index("nia", root, None, tmp_path / "i", options=SourceOptions(language=language))
    expected = nia.read_nia_csv(parity.path(f"aihub_json/expected_{language}.csv", "vqa_nia"))
    index = open_index(tmp_path / "i")
    for theirs, ours in {"train": "train", "valid": "val", "test": "test"}.items():
        rows = [row for row in expected if row["split"] == theirs]
        assert [(e.image, e.question, e.question_type) for e in index.split(ours)] == [
            (Path(row["img_path"]).name, row["question"], row["kb_source"]) for row in rows
        ]
        assert [list(e.answers) for e in index.split(ours)] == [[tidy_answer(row["answer"])] for row in rows]
    assert left_out_counts(report)["picture missing"] > 0
    assert report.options["language"] == language


def test_parity_nia_order_of_classes(table: list[dict[str, str]]) -> None:
    recorded = parity.json_of("answers/answers.json", "vqa_nia")
    counts = nia.count_nia_answers(table)
    ordered = [(answer, counts[answer]) for answer in pinned_order(counts)]
    assert ordered == [(answer, count) for answer, count, _ in recorded["pinned_order"]]
    assert counts.total() == recorded["total"]
    assert [answer for answer, _ in counts.most_common()] == recorded["stable_order"]


@pytest.mark.parametrize("part", ["A", "B", "all"])
def test_parity_nia_training_rows(table: list[dict[str, str]], part: str) -> None:
    assert nia.nia_train_rows(table, part) == parity.json_of("answers/selection.json", "vqa_nia")[part]


def test_parity_nia_rows_to_answer(table: list[dict[str, str]]) -> None:
    recorded = parity.json_of("answers/selection.json", "vqa_nia")["infer"]
    assert recorded
    assert {source: nia.nia_infer_rows(table, source) for source in recorded} == recorded
