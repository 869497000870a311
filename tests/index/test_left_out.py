"""An index that leaves out too many rows: said, and above a tenth refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError
from kovqa_core.index.build import build_index
from kovqa_core.index.report import IndexReport

from tests.conftest import Kovqa


def table(folder: Path, rows: int, *, missing: int, rare: int = 0) -> Path:
    """Rows of which some have no image, and some an answer that nobody else gives."""
    lines = ["image,question,answer,split"]
    for n in range(rows):
        image = "gone.png" if n < missing else "a.png"
        answer = f"rare{n}" if n >= rows - rare else "예"
        lines.append(f"{image},무엇?,{answer},train")
    (folder / "표.csv").write_text("\n".join(lines), "utf-8")
    (folder / "a.png").touch()
    return folder / "표.csv"


def build(folder: Path, rows: int, *, missing: int, rare: int = 0, allow: bool = False) -> IndexReport:
    file = table(folder, rows, missing=missing, rare=rare)
    return build_index("table", file, None, folder / "index", min_count=2, allow_left_out=allow)


def test_a_tenth_is_written_more_is_refused(tmp_path: Path) -> None:
    report = build(tmp_path, 20, missing=2)
    assert (report.faults, report.all_rows) == (2, 20)
    before = (tmp_path / "index" / "train.jsonl").read_bytes()
    with pytest.raises(
        DataError, match=r"3 of 20 rows \(15.0%\) are left out: picture missing 3 \(first: .*표.csv:2"
    ):
        build(tmp_path, 20, missing=3)
    assert (tmp_path / "index" / "train.jsonl").read_bytes() == before  # nothing half written
    assert build(tmp_path, 20, missing=3, allow=True).counts.rows["train"] == 17


def test_what_a_class_list_does_not_cover_is_no_fault(tmp_path: Path) -> None:
    report = build(tmp_path, 20, missing=1, rare=10)
    assert (report.faults, report.all_rows) == (1, 20)
    assert {each.reason: each.is_fault for each in report.counts.left_out} == {
        "picture missing": True,
        "answer seen fewer than 2 times": False,
    }
    listed = build_index("table", tmp_path / "표.csv", None, None, classes=["예"], allow_left_out=False)
    assert [each.reason for each in listed.counts.left_out if not each.is_fault] == ["answer is no class"]


def test_the_command_refuses_says_and_lets_pass(kovqa: Kovqa, tmp_path: Path) -> None:
    table(tmp_path, 20, missing=3)
    words = ["index", "table", "--root", "표.csv", "-o", "색인", "--min-count", "1"]
    refused = kovqa(*words, "--check")
    assert refused.returncode == 3
    assert "3 of 20 rows (15.0%) are left out" in refused.stderr
    assert "--allow-left-out" in refused.stderr
    done = kovqa(*words, "--allow-left-out", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == "warning: 3 of 20 rows (15.0%) are left out\n"
    report = json.loads(done.stdout)
    assert (report["left_out_faults"], report["rows_read"]) == (3, 20)


@pytest.mark.parametrize("length", [1000, 1001, 5000])
def test_an_id_of_thousands_of_digits_is_a_fault(tmp_path: Path, length: int) -> None:
    (tmp_path / "a.png").touch()
    row = '{"id": ID, "image": "a.png", "question": "q", "answer": "a", "split": "train"}\n'
    (tmp_path / "표.jsonl").write_text(row.replace("ID", "1") + row.replace("ID", "9" * length))
    report = build_index("table", tmp_path / "표.jsonl", None, tmp_path / "index")
    told = [f"id {'9' * 20}… of {length:,} characters"]
    assert [[*each.first_rows] for each in report.counts.left_out] == ([told] if length > 1000 else [])
