"""Images outside a table's folder: absolute paths are stored below one recorded folder, `..` needs a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.index.build import build_index, build_upstream_files
from kovqa_core.index.preview import preview_index
from kovqa_core.index.reader import open_index
from kovqa_core.index.report import IndexReport
from kovqa_core.index.shards import SourceOptions
from kovqa_core.index.upstream.rows import write_json_rows

from tests.index.raw_data import index, touch, write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Images in two folders beside that of the table."""
    touch(tmp_path / "자료", ["x/a.jpg", "y/b.jpg", "표/c.jpg", "표/그림/d.jpg"])
    return tmp_path / "자료"


def write_table(data: Path, names: list[str]) -> Path:
    lines = [
        json.dumps({"id": f"Q{n}", "image": name, "question": "뭐?", "answer": "예"})
        for n, name in enumerate(names)
    ]
    write(data / "표" / "t.jsonl", "\n".join(lines))
    return data / "표" / "t.jsonl"


def index_table(table: Path, *, allow_outside: bool = False) -> tuple[Path, IndexReport, list[str]]:
    folder = table.parent.parent / "index"
    report = build_index("table", table, None, folder, options=SourceOptions(allow_outside=allow_outside))
    opened = open_index(folder)
    rows = {example.id: example.image for split in report.counts.rows for example in opened.split(split)}
    assert all((opened.images / image).is_file() for image in rows.values())
    return opened.images, report, [rows[id] for id in sorted(rows)]


def test_absolute_paths_are_stored_from_their_common_folder(data: Path) -> None:
    images, report, names = index_table(write_table(data, [f"{data}/x/a.jpg", f"{data}/y/b.jpg"]))
    assert (images, names) == (data, ["x/a.jpg", "y/b.jpg"])
    assert [note for note in report.notes if str(data) in note and "recorded" in note]
    written = (data / "index" / "index.json").read_text("utf-8")
    assert json.loads(written)["images"] == ".." and "allow_outside" not in written
    assert not [line for split in ("train", "val") for line in (data / "index" / f"{split}.jsonl").read_text().split("\n")
                if '"image": "/' in line]  # fmt: skip


def test_absolute_and_relative_paths_in_one_table(data: Path) -> None:
    table = write_table(data, [f"{data}/x/a.jpg", "c.jpg", f"{data}/표/그림/d.jpg", "d.jpg"])
    images, _, names = index_table(table)
    assert (images, names) == (data, ["x/a.jpg", "표/c.jpg", "표/그림/d.jpg", "표/그림/d.jpg"])


def test_absolute_paths_in_the_tables_folder_change_nothing(data: Path) -> None:
    images, report, names = index_table(write_table(data, [f"{data}/표/c.jpg", "그림/d.jpg"]))
    assert (images, names) == (data / "표", ["c.jpg", "그림/d.jpg"])
    assert not any("recorded" in note for note in report.notes)


def test_the_split_of_a_row_is_that_of_its_absolute_path(data: Path) -> None:
    """As it was before such paths were stored otherwise."""
    from kovqa_core.index.hash_split import assign_split

    touch(data / "x", [f"{n}.jpg" for n in range(60)])
    write_table(data, [f"{data}/x/{n}.jpg" for n in range(60)])
    index_table(data / "표" / "t.jsonl")
    for example in open_index(data / "index").split("val"):
        assert assign_split("table", f"{data}/{example.image}" if "/" in example.image else f"{data}/x/{example.image}",
                            {"train": 0.9, "val": 0.1}) == "val"  # fmt: skip


@pytest.mark.parametrize(
    "name", ["../x/a.jpg", "..\\x\\a.jpg", "그림/../../x/a.jpg", "{data}/표/../x/a.jpg", "../x/a"]
)
def test_a_parent_folder_needs_a_word(data: Path, name: str) -> None:
    table = write_table(data, ["c.jpg", name.format(data=data)])
    with pytest.raises(
        DataError, match=r"t\.jsonl:2: image .*a.* lies outside the image folder .*표"
    ) as caught:
        index_table(table)
    assert "--allow-outside" in caught.value.hint and "--images" in caught.value.hint
    assert not (data / "index").exists()
    images, _, names = index_table(table, allow_outside=True)
    assert (images, names) == (data, ["표/c.jpg", "x/a.jpg"])


def test_what_stays_inside_needs_none(data: Path) -> None:
    (data / "표" / "링크").symlink_to(data / "x")
    names = ["그림/../c.jpg", "링크/a.jpg", "./c.jpg"]
    assert index_table(write_table(data, names))[2] == ["c.jpg", "링크/a.jpg", "c.jpg"]


def test_images_with_nothing_in_common_need_a_word(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kovqa_core.data.image_names._WIDE_FOLDERS", (str(data),))
    table = write_table(data, [f"{data}/x/a.jpg", f"{data}/y/b.jpg"])
    with pytest.raises(DataError, match=r"have only .* in common") as caught:
        index_table(table)
    assert "--allow-outside" in caught.value.hint
    build_index("table", table, None, data / "index", options=SourceOptions(allow_outside=True))
    with pytest.raises(DataError, match=r"index\.json says that its images lie anywhere below") as caught:
        open_index(data / "index")
    assert f"--images {data}" in caught.value.hint and f"--set data.images={data}" in caught.value.hint
    assert open_index(data / "index", data).images == data


def test_other_data_sets_have_no_such_option(data: Path) -> None:
    with pytest.raises(SettingsError, match="kvqa has no use for allow-outside"):
        build_index("kvqa", data, None, None, options=SourceOptions(allow_outside=True))


def test_a_label_of_a_data_set_leads_nowhere_else(data: Path) -> None:
    touch(data / "raw" / "images", ["a.jpg"])
    secret = data / "x" / "a.jpg"
    answers = [{"answer": "예", "answer_confidence": "yes"}] * 5
    names = ["a.jpg", str(secret), "../../x/a.jpg"]
    rows = [{"image": name, "question": "뭐?", "answers": answers, "answerable": 1} for name in names]
    write(data / "raw" / "kvqa_annotations.json", rows)
    examples, report = index(data / "raw", "kvqa")
    shown = [example.image for split in examples.values() for example in split]
    assert shown == ["a.jpg"]
    assert {each.reason: each.count for each in report.counts.left_out}[
        "picture outside the picture folder"
    ] == 2


@pytest.mark.parametrize("name", ["../../x/a", "/x/a", "~/a"])
def test_the_originals_files_name_no_image_outside(data: Path, name: str) -> None:
    """Their programs open whatever these files name."""
    write(data / "raw" / "train.csv", f"ID,image_id,question,answer\n1,{name},뭐?,예\n")
    write(data / "raw" / "test.csv", "ID,image_id,question\n2,b,뭐?\n")
    (data / "raw" / "image").mkdir()
    with pytest.raises(DataError, match="lies outside the image folder"):
        build_upstream_files("dacon", data / "raw", data / "raw" / "image", data / "out")
    with pytest.raises(DataError, match="lies outside the image folder"):
        write_json_rows(data / "rows.jsonl", [{"image_path": "a.jpg"}, {"image_path": f"{name}.jpg"}])
    assert not (data / "out").exists()


# -------------------------------------------------------------------------- an index of others


def write_index(folder: Path, images: str, names: list[str]) -> Path:
    """An index as an earlier version, or somebody else, wrote it."""
    folder.mkdir()
    for split in ("train", "val", "test"):
        rows = [
            {"id": f"{n}", "image": name, "question": "뭐?", "answers": {"예": 1.0}}
            for n, name in enumerate(names)
        ]
        write(folder / f"{split}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(folder / "answers.txt", "예\n")
    write(folder / "index.json", {"rows": {"train": len(names)}, "images": images})
    return folder


@pytest.mark.parametrize(
    "name", ["{data}/x/a.jpg", "../x/a.jpg", "그림/../../x/a.jpg", "..\\x\\a.jpg", "~/a.jpg", "file:///a"]
)
def test_a_line_of_an_index_leads_nowhere_else(data: Path, name: str) -> None:
    folder = write_index(data / "index", "../표", ["c.jpg", name.format(data=data)])
    split = open_index(folder).split("train")
    assert split[0].image == "c.jpg"
    with pytest.raises(
        DataError, match=r"train\.jsonl:2: image .* lies outside the image folder .*표"
    ) as caught:
        split[1]
    assert "--set data.images=DIR" in caught.value.hint
    with pytest.raises(DataError, match="lies outside"):
        preview_index(folder, 5)


def test_an_old_index_of_absolute_paths_is_read_below_a_folder_that_is_named(data: Path) -> None:
    folder = write_index(data / "index", "../표", [f"{data}/x/a.jpg"])
    index = open_index(folder, data)
    assert (index.images / index.split("train")[0].image).is_file()
    with pytest.raises(DataError, match="lies outside"):
        open_index(folder, data / "y").split("train")[0]


def test_a_plan_sees_it(data: Path) -> None:
    """Before anything starts: an index of absolute paths shows it in its first row."""
    from kovqa_core.plan import input_checks
    from kovqa_core.settings.resolve import resolve_settings

    folder = write_index(data / "index", "../표", [f"{data}/x/a.jpg"])
    recipe = resolve_settings("tiny", "cpu", [], {}, {}).recipe
    with pytest.raises(DataError, match="lies outside"):
        input_checks._check_index(folder, None, recipe)
