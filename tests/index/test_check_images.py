"""`kovqa index --check-images`: every image is opened once, and rows whose image cannot be read are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kovqa_core import process_pool
from kovqa_core.data import image_io
from kovqa_core.errors import DataError
from kovqa_core.index import check_images
from kovqa_core.index.build import build_index
from kovqa_core.index.report import IndexReport, read_report
from kovqa_core.progress import Progress
from PIL import Image
from typer.testing import CliRunner

from kovqa_cli.main import app
from tests.index.raw_data import left_out_counts, left_out_rows

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "half.jpg": lambda data: data[: len(data) // 2],
    "most.jpg": lambda data: data[: len(data) * 4 // 5],
    "zeros.jpg": lambda data: data[: len(data) // 2] + bytes(len(data) // 2),
    "page.jpg": lambda data: b"<html>404 Not Found</html>",
    "pointer.jpg": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    "empty.jpg": lambda data: b"",
}


def photo(path: Path, number: int) -> None:
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(noise).resize((96, 64)).save(path)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """40 good images with two rows each, one of them in another split; then a row of each damaged image."""
    lines = ["id,image,question,answer,split"]
    for number in range(40):
        photo(tmp_path / "그림" / f"{number}.jpg", number)
        lines += [f"{number}{split},그림/{number}.jpg,무엇?,예,{split}" for split in ("train", "val")]
    whole = (tmp_path / "그림" / "0.jpg").read_bytes()
    for name, damage in DAMAGES.items():
        (tmp_path / "그림" / name).write_bytes(damage(whole))
        lines.append(f"{name},그림/{name},무엇?,예,train")
    (tmp_path / "표.csv").write_text("\n".join(lines), "utf-8")
    return tmp_path / "표.csv"


def build(table: Path, **options: object) -> IndexReport:
    return build_index("table", table, None, table.parent / "index", check_images=True, **options)  # type: ignore[arg-type]


def test_rows_of_images_that_cannot_be_read_are_left_out_by_name(table: Path) -> None:
    report = build(table)
    assert left_out_counts(report) == {"picture unreadable": len(DAMAGES)}
    assert report.faults == len(DAMAGES)
    assert report.counts.rows == {"train": 40, "val": 40, "test": 0}
    listed = left_out_rows(report)["picture unreadable"]
    assert [line.partition(":")[0] for line in listed] == [f"id {name}" for name in DAMAGES]
    assert listed[3] == "id page.jpg: image 그림/page.jpg cannot be read (it is an HTML page: fetch it again)"
    assert "git lfs pull" in listed[4]
    check = report.counts.image_check
    assert check is not None
    assert (check.images, check.unreadable) == (40 + len(DAMAGES), len(DAMAGES))
    stored = read_report(table.parent / "index").counts.image_check
    assert stored is not None
    assert (stored.images, stored.unreadable) == (check.images, check.unreadable)
    assert {file.name for file in (table.parent / "index").iterdir()} == {
        "index.json", "answers.txt", *(f"{split}.{end}" for split in report.counts.rows for end in ("jsonl", "offsets")),
    }  # fmt: skip


def test_an_index_whose_images_nobody_opened_says_nothing_of_it(table: Path) -> None:
    report = build_index("table", table, None, table.parent / "index")
    assert report.counts.image_check is None
    assert "pictures_checked" not in json.loads((table.parent / "index" / "index.json").read_text("utf-8"))


def test_each_image_is_opened_once(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(check_images, "open_image", lambda path, side: opened.append(path.name))
    build(table)
    assert sorted(opened) == sorted([*(f"{n}.jpg" for n in range(40)), *DAMAGES])


def test_many_processes_find_what_one_finds(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = build(table)
    lines = (table.parent / "index" / "train.jsonl").read_bytes()
    monkeypatch.setattr(check_images, "_PARALLEL_MIN_IMAGES", 1)
    monkeypatch.setattr(check_images, "_BLOCK_IMAGES", 7)
    monkeypatch.setattr(check_images, "usable_cpu_count", lambda: 2)
    calls: list[Progress] = []

    def run_here(
        task: Callable[..., object], arguments: list[tuple[object, ...]], **_: object
    ) -> list[object]:
        monkeypatch.setattr(check_images, "add_to_count", lambda n: None)
        return [task(*each) for each in reversed(arguments)][::-1]

    monkeypatch.setattr(check_images, "parallel_map", run_here)
    together = build(table, on_progress=calls.append)
    assert (table.parent / "index" / "train.jsonl").read_bytes() == lines
    assert together.counts.left_out == alone.counts.left_out


def test_real_processes_find_what_one_finds(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_images, "_PARALLEL_MIN_IMAGES", 1)
    monkeypatch.setattr(check_images, "usable_cpu_count", lambda: 2)
    monkeypatch.setattr(process_pool, "usable_cpu_count", lambda: 2)
    calls: list[Progress] = []
    report = build(table, on_progress=calls.append)
    assert left_out_counts(report) == {"picture unreadable": len(DAMAGES)}
    assert (calls[-1].done, calls[-1].unit) == (40 + len(DAMAGES), "images")


def test_progress_counts_images(table: Path) -> None:
    calls: list[Progress] = []
    build(table, on_progress=calls.append)
    assert (calls[-1].done, calls[-1].total) == (40 + len(DAMAGES), 40 + len(DAMAGES))


def test_an_end_while_images_are_opened_keeps_the_index_that_was_there(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(table)
    before = {path.name: path.read_bytes() for path in (table.parent / "index").iterdir()}

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check_images, "open_image", stop)
    with pytest.raises(KeyboardInterrupt):
        build(table)
    assert {path.name: path.read_bytes() for path in (table.parent / "index").iterdir()} == before
    assert {path.name for path in table.parent.iterdir()} == {"index", "그림", "표.csv"}


def test_more_than_a_tenth_unreadable_is_refused(table: Path) -> None:
    for number in range(3):
        (table.parent / "그림" / f"{number}.jpg").write_bytes(b"")
    with pytest.raises(
        DataError, match=r"12 of 86 rows .* left out: picture unreadable 12 \(first: id 0train"
    ):
        build(table, allow_left_out=False)
    assert not (table.parent / "index").exists()


def test_no_readable_image_is_an_error(table: Path) -> None:
    for path in (table.parent / "그림").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no usable row found: picture unreadable, id 0train"):
        build(table)


def test_a_check_makes_no_pixels_it_does_not_need(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG of 640 x 480 is decoded at an eighth of its size."""
    Image.new("RGB", (640, 480)).save(table.parent / "그림" / "0.jpg")
    sizes, to_rgb = [], image_io.to_rgb

    def note(image: Image.Image, *args: object, **options: object) -> Image.Image:
        sizes.append(image.size)
        return to_rgb(image, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(image_io, "to_rgb", note)
    build(table)
    assert sizes[0] == (80, 60)


def test_the_command_says_how_fast_and_what_it_found(table: Path) -> None:
    words = ["index", "table", "--root", str(table), "--check", "--check-images"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert "opened 46 images in " in done.stderr
    assert "/s): 6 cannot be read" in done.stderr
    as_json = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (as_json["pictures_checked"], as_json["pictures_unreadable"]) == (46, 6)
    for other in (["--as-upstream"], ["--show", "1"]):
        refused = CliRunner().invoke(app, [*words, *other])
        assert "--check-images goes with neither --show nor --as-upstream" in str(refused.exception)
