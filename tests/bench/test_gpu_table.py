"""The figures from GPUs in docs/measured.md are those in docs/gpu, in both languages."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    import gpu_table

    return gpu_table


def contestant(name: str, rate: float, **more: object) -> dict[str, object]:
    return {"name": name, "examples_per_second": rate, "seconds": [0.1, 0.2, 0.3], **more}


REPORT: dict[str, Any] = {
    "card": "NVIDIA H100 80GB HBM3", "driver": "580.1", "versions": {"torch": "2.13.0"}, "date": "2027-01-02T03:04:05",
    "tiny": False,
    "rows": {
        "0": {"numbers": {"product_flops_per_second": 790e12}},
        "1": {"contestants": [contestant("kovqa", 640.4, flops=0.2 * 395e12), contestant("torchscale, SDPA", 400.0)]},
        "12": {"numbers": {"idle share": 0.043}},
    },
}  # fmt: skip


def test_the_pages_show_what_was_measured(table: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_table.py", "--check"])
    table.main()


def test_a_table_has_a_column_for_each_card(table: Any, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(REPORT))
    (tmp_path / "b.json").write_text(json.dumps({**REPORT, "card": "RTX 3090", "rows": {}}))
    (tmp_path / "tiny.json").write_text(json.dumps({**REPORT, "tiny": True}))
    made = table.make_table(table.read_reports(tmp_path), table.ENGLISH).splitlines()
    assert made[0] == "| card | NVIDIA H100 80GB HBM3 | RTX 3090 |"
    assert "640 (40 %; 50 %)" in made[3]  # of 989 and of 790 TFLOP/s
    assert made[5].endswith("| –; 400 | –; – |")
    assert made[-3].endswith("| 4 % | – |")
    korean = table.make_table(table.read_reports(tmp_path), table.KOREAN).splitlines()
    assert [line.count("|") for line in korean] == [line.count("|") for line in made]


def test_a_page_without_marks_is_refused(table: Any) -> None:
    with pytest.raises(ValueError, match="must stand in the page once"):
        table.with_table("no marks", "x")
    page = f"a\n{table.FIRST}\nold\n{table.LAST}\nb"
    assert table.with_table(page, "new") == f"a\n{table.FIRST}\nnew\n{table.LAST}\nb"


def test_the_wheels_named_are_those_of_the_constraints() -> None:
    page = (ROOT / "docs" / "gpu" / "README.md").read_text("utf-8")
    constraints = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    named = dict(re.findall(r"([\w-]+)==([\d.]+)", page))
    assert len(named) > 8
    ours = {name for name in named if name in constraints}
    assert len(ours) >= len(named) - 2  # pydantic-core, which pydantic names itself, and torchscale
    assert {name: named[name] for name in ours} == {name: constraints[name] for name in ours}
