"""Published Korean benchmarks, from files in their layouts: what becomes of their rows, choices, turns and images."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from kovqa_core.data.benchmark_sets import (
    BENCHMARK_SETS,
    CRITERIA_COLUMN,
    DESCRIPTION_COLUMN,
    REFERENCE_COLUMN,
)
from kovqa_core.data.example import Example
from kovqa_core.download.table import find_asset_entry
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.build import build_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import IndexReport
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.sources import DATA_SOURCES
from kovqa_core.index.sources.benchmark_rows import split_choices
from PIL import Image, ImageColor

from kovqa_cli.output.download import print_fetched_assets
from tests.index.raw_data import left_out_counts, left_out_rows
from tests.tools.benchmark_files import SQUARES, picture, write_benchmark

COLOUR_OF = {square.choices[square.answer]: square.colour for square in SQUARES}


def index_of(
    source: str, root: Path, *, allow_left_out: bool = True
) -> tuple[list[Example], IndexReport, Path]:
    """The test rows of an index, its report, and its image folder."""
    folder = root.parent / f"{root.name}-index"
    report = build_index(source, root, None, folder, allow_left_out=allow_left_out)
    opened = open_index(folder)
    return list(opened.split("test")), report, opened.images


def rewrite(root: Path, change: Mapping[int, Mapping[str, object]]) -> None:
    """Change cells of the rows of a parquet file, by the rows' numbers."""
    (file,) = root.rglob("*.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    for number, cells in change.items():
        rows[number].update(cells)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file)


def write_tsv(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    lines = ["\t".join(rows[0]), *("\t".join(map(str, row.values())) for row in rows)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join([*lines, ""]), "utf-8")


@pytest.mark.parametrize("name", [*BENCHMARK_SETS, "k-viscuit-github"])
def test_every_row_has_its_image_choices_and_answer(tmp_path: Path, name: str) -> None:
    source = name.removesuffix("-github")
    examples, report, images = index_of(source, write_benchmark(name, tmp_path / name), allow_left_out=False)
    assert len(examples) == (18 if name == "k-mmbench" else len(SQUARES))
    assert not report.counts.left_out and not report.incomplete
    each = BENCHMARK_SETS[source]
    (note,) = report.notes
    assert note.startswith(f"warning: {each.title}: 5 questions, {each.rows:,} are published")
    for number, example in enumerate(sorted(examples, key=lambda each: each.image)):
        with Image.open(images / example.image) as opened:
            colour = opened.convert("RGB").getpixel((5, 5))
        (answer,) = example.answers or [None]
        if source == "bok-vqa":
            expected, choices = answer, ()
        elif answer is None:
            judged = {CRITERIA_COLUMN} if source == "koffvqa" else {REFERENCE_COLUMN, DESCRIPTION_COLUMN}
            assert judged <= example.columns.keys() and not example.choices
            text = str([*example.columns.values()])
            expected = next(colour for word, colour in COLOUR_OF.items() if word in text)
            choices = ()
        else:
            expected, choices = COLOUR_OF[answer], tuple(example.choices)
            assert answer in choices
        wanted = ImageColor.getrgb(str(expected))
        assert all(abs(a - b) < 12 for a, b in zip(colour, wanted, strict=True)), (number, example)
        assert example.question_type and "Options" not in example.question


def test_a_benchmark_is_downloaded_under_the_name_it_is_indexed_by() -> None:
    for name, each in BENCHMARK_SETS.items():
        assert name in DATA_SOURCES
        asset = find_asset_entry(name)
        assert asset.repo == each.repository or each.repository in asset.page


def test_after_a_download_comes_the_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_benchmark("bok-vqa", tmp_path / "내 자료")
    fetched = [
        ("bok-vqa", sorted((root / "data").glob("*.csv"))),
        ("k-seed", [tmp_path]),
        ("kvqa", [tmp_path]),
    ]
    print_fetched_assets(fetched, as_json=False, quiet=False)
    assert capsys.readouterr().err.splitlines() == [
        "next: kovqa download bok-vqa-images",
        f"next: kovqa index bok-vqa --root '{root}/data'",
        f"next: kovqa index k-seed --root {tmp_path}",
    ]


# ------------------------------------------------------------------------------- circular turns


def test_published_turns_are_grouped_by_the_index_of_their_question(tmp_path: Path) -> None:
    root = write_benchmark("k-mmbench", tmp_path / "raw")
    examples, _, _ = index_of("k-mmbench", root)
    turns = [each for each in examples if each.columns["circular"] == "242"]
    assert [each.id for each in turns] == ["242", "1000242", "2000242", "3000242"]
    assert [dict(each.answers) for each in turns] == [{"파랑": 1.0}] * 4
    assert len({tuple(each.choices) for each in turns}) == 4
    assert {each.context for each in turns} == {"사각형은 하나입니다."}
    two = [each for each in examples if each.columns["circular"] == "245"]
    assert [tuple(each.choices) for each in two] == [("하양", "검정"), ("검정", "하양")]


def test_turns_that_the_files_lack_are_made_or_said(tmp_path: Path) -> None:
    root = write_benchmark("k-mmbench", tmp_path / "raw")
    (file,) = root.rglob("*.parquet")
    rows = pyarrow.parquet.read_table(file).to_pylist()
    pyarrow.parquet.write_table(pa.Table.from_pylist([r for r in rows if r["index"] != 2000242]), file)
    _, report, _ = index_of("k-mmbench", root)
    assert any("1 of 5 questions lack a turn" in note for note in report.notes)
    pyarrow.parquet.write_table(pa.Table.from_pylist([r for r in rows if r["index"] < 1e6]), file)
    examples, report, _ = index_of("k-mmbench", root)
    assert len(examples) == 18 and not any("turn" in note for note in report.notes)
    turns = [each for each in examples if each.columns["circular"] == "242"]
    assert [each.id for each in turns] == ["242", "242/2", "242/3", "242/4"]
    assert len({tuple(each.choices) for each in turns}) == 4


# ---------------------------------------------------------------------------- choices and answers


def test_what_cannot_be_asked_is_left_out_and_said(tmp_path: Path) -> None:
    root = write_benchmark("k-dtcbench", tmp_path / "raw")
    rewrite(root, {0: {"choice_b": "빨강"}, 1: {"answer": "E"}, 2: {"answer": ""}, 3: {"question": " "}})
    examples, report, _ = index_of("k-dtcbench", root)
    assert [each.id for each in examples] == ["table_4"]
    assert left_out_counts(report) == {
        "choices unusable": 1, "answer is none of the choices": 1, "answer empty": 1, "question missing": 1,
    }  # fmt: skip
    assert "4 choices: 빨강, 빨강" in left_out_rows(report)["choices unusable"][0]
    with pytest.raises(DataError, match=r"4 of 5 rows \(80\.0%\) are left out"):
        index_of("k-dtcbench", root, allow_left_out=False)


def test_nobody_judges_without_something_to_go_by(tmp_path: Path) -> None:
    root = write_benchmark("k-llava-w", tmp_path / "raw")
    rewrite(root, {0: {"gpt_answer": ""}, 1: {"caption": None}})
    examples, report, _ = index_of("k-llava-w", root)
    assert [each.id for each in examples] == ["2", "3", "4"]
    assert left_out_counts(report) == {"no annotation": 2}


def test_a_letter_is_a_letter_though_a_choice_has_its_text(tmp_path: Path) -> None:
    root = write_benchmark("k-dtcbench", tmp_path / "raw")
    rewrite(root, {0: {"choice_a": "B", "choice_b": "A", "choice_c": "D", "choice_d": "C", "answer": "B"}})
    examples, _, _ = index_of("k-dtcbench", root)
    assert dict(examples[0].answers) == {"A": 1.0}


def test_nan_is_no_choice_unless_it_is_the_answer(tmp_path: Path) -> None:
    root = write_benchmark("k-mmbench", tmp_path / "raw")
    rewrite(
        root, {0: {"C": "nan", "D": "nan", "hint": "nan"}, 1: {"D": "None", "answer": "D"}, 2: {"D": "None"}}
    )
    examples, _, _ = index_of("k-mmbench", root)
    assert (tuple(examples[0].choices), examples[0].context) == (("빨강", "파랑"), "")
    assert dict(examples[1].answers) == {"None": 1.0}
    assert examples[2].choices[3] == "None"  # a choice that people write


@pytest.mark.parametrize(
    ("question", "stem", "choices"),
    [
        ("색은?\nOptions: A: 빨강, B: 파랑, C: 옅은, 밝은 초록", "색은?", ("빨강", "파랑", "옅은, 밝은 초록")),
        ("각은?\nChoices:\n(A) 30°\n(B) 45°\n(C) 60°", "각은?", ("30°", "45°", "60°")),
        ("색은? 선택지: A. 빨강 B. A형 C. 초록 D. 노랑.", "색은?", ("빨강", "A형", "초록", "노랑.")),
        ("Options: A: 빨강, B: 파랑", "Options: A: 빨강, B: 파랑", tuple("ABCD")),
        ("색은?\nA 빨강\nB 파랑", "색은?\nA 빨강\nB 파랑", tuple("ABCD")),
        ("색은?\nOptions: A: 빨강, B: 빨강", "색은?\nOptions: A: 빨강, B: 빨강", tuple("ABCD")),
    ],
)  # fmt: skip
def test_choices_in_a_text(question: str, stem: str, choices: tuple[str, ...]) -> None:
    assert split_choices(question) == (stem, choices)


def test_choices_that_only_a_text_tells_are_asked_for_by_letter_and_said(tmp_path: Path) -> None:
    root = write_benchmark("k-mmstar", tmp_path / "raw")
    rewrite(root, {2: {"question": "<image 1>\nA 빨강 B 파랑 C 초록 D 노랑 가운데 무엇?"}})
    examples, report, _ = index_of("k-mmstar", root)
    assert examples[2].question == "A 빨강 B 파랑 C 초록 D 노랑 가운데 무엇?"
    assert (examples[2].choices, dict(examples[2].answers)) == (list("ABCD"), {"C": 1.0})
    assert any("the choices of 1 questions stand in their texts alone" in note for note in report.notes)


# ------------------------------------------------------------------------------- files and images


def test_a_tsv_of_vlmevalkit_names_an_image_by_the_index_of_another_row(tmp_path: Path) -> None:
    image = base64.b64encode(picture("red", "JPEG")).decode()
    row = {
        "index": 7,
        "question": "색?",
        "A": "빨강",
        "B": "파랑",
        "answer": "A",
        "category": "c",
        "image": image,
    }
    rows = [row, {**row, "index": 1000007, "A": "파랑", "B": "빨강", "answer": "B", "image": "7"}]
    write_tsv(tmp_path / "raw" / "MMBench_DEV_KO.tsv", [*rows, {**row, "index": 8, "image": "x" * 300}])
    examples, report, images = index_of("k-mmbench", tmp_path / "raw" / "MMBench_DEV_KO.tsv")
    assert len({each.image for each in examples}) == 1 and len(list(images.iterdir())) == 1
    assert [each.columns["circular"] for each in examples] == ["7", "7"]
    assert left_out_counts(report) == {"picture unreadable": 1}


def test_images_may_be_base64_in_a_parquet_file_too(tmp_path: Path) -> None:
    root = write_benchmark("kreta", tmp_path / "raw")
    with (root / "test.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    (root / "test.tsv").unlink()
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), root / "test.parquet")
    examples, report, images = index_of("kreta", root)
    assert len(examples) == len(list(images.iterdir())) == 5 and not report.counts.left_out


def test_files_of_another_layout_are_refused_in_a_line(tmp_path: Path) -> None:
    write_tsv(tmp_path / "raw" / "a.tsv", [{"index": 1, "question": "색?", "정답": "A", "image": "a.jpg"}])
    with pytest.raises(DataError, match="no column 'answer'; it has index, question") as caught:
        index_of("kreta", tmp_path / "raw")
    assert "not the published layout" in caught.value.hint
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.parquet, \.tsv, \.csv, \.jsonl file below") as caught:
        index_of("kreta", tmp_path / "empty")
    assert caught.value.hint == "fetch it: kovqa download kreta"


def test_hidden_copies_and_other_formats_of_the_same_rows_are_not_read(tmp_path: Path) -> None:
    root = write_benchmark("k-seed", tmp_path / "raw")
    (file,) = root.rglob("*.parquet")
    (root / ".cache").mkdir()
    (root / ".cache" / "copy.parquet").write_bytes(file.read_bytes())
    (root / "K-SEED.tsv").write_text("damaged\n", "utf-8")
    examples, report, _ = index_of("k-seed", root)
    assert len(examples) == 5 and not report.counts.left_out


# ---------------------------------------------------------------------------------------- BOK-VQA


def test_bok_vqa_has_training_rows_and_two_languages(tmp_path: Path) -> None:
    root = write_benchmark("bok-vqa", tmp_path / "raw")
    report = build_index("bok-vqa", root, None, tmp_path / "index")
    assert report.counts.rows == {"train": 2, "val": 1, "test": 5}
    test = json.loads((tmp_path / "index" / "test.jsonl").read_text("utf-8").splitlines()[1])
    assert test["answers"] == {"blue": 1.0} and test["columns"] == {
        "h": "Blue",
        "r": "subject",
        "t": "Colour",
    }
    korean, _, _ = index_of("bok-vqa", root)
    build_index("bok-vqa", root, None, tmp_path / "en", options=SourceOptions(language="en"))
    assert next(iter(open_index(tmp_path / "en").split("test"))).question == "What colour is this square?"
    assert korean[0].question == "이 사각형은 무슨 색입니까?"
    with pytest.raises(SettingsError, match="unknown language 'kr'"):
        build_index("bok-vqa", root, None, tmp_path / "kr", options=SourceOptions(language="kr"))
    (root / "data" / "BOKVQA_data_ko.csv").unlink()
    report = build_index("bok-vqa", root, None, tmp_path / "index")
    assert report.counts.rows == {"train": 0, "val": 0, "test": 5}
    (root / "data" / "BOKVQA_data_test_ko.csv").unlink()
    with pytest.raises(DataError, match=r"no BOKVQA_data_test_ko\.csv below"):
        build_index("bok-vqa", root, None, tmp_path / "index")
