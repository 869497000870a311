"""The table of figures from GPUs in docs/measured.md, made of the files in docs/gpu.

    python bench/gpu_table.py [--check]

Writes between the two marks in docs/measured.md and docs/measured.ko.md. Without a single file it says there that no
GPU has been measured yet, and what is expected. --check writes nothing and fails where a page is not as the files say.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "gpu"
FIRST, LAST = "<!-- bench/gpu_table.py -->", "<!-- end of the table -->"
DATA_SHEET = {
    "H100": 989e12,
    "H200": 989e12,
}  # FLOP/s, dense bf16, of the cards whose data sheet is cited here


@dataclass(frozen=True)
class Words:
    """The table's words in one language."""

    none: str
    heads: tuple[str, ...]
    rows: Mapping[str, str]
    measured: str
    missing: str = "–"


ENGLISH = Words(
    "No GPU has been measured yet. Counted on paper, training BEiT-3 large at 224 pixels should reach 900 examples/s "
    "or more on one H100, compiled as it is there by default. To measure yours: `python bench/gpu_speed.py`, then "
    "`python bench/gpu_table.py`.",
    ("card", "driver, torch, date"),
    {
        "training": "training large 224, examples/s (share of the data sheet's bf16 peak; of the measured product)",
        "compiled": "the same compiled",
        "torchscale": "torchscale 0.2.0; with SDPA",
        "base": "training base 480, examples/s",
        "answers": "answers base 224, examples/s: 16 bits; fp32",
        "idle": "GPU idle in a whole `kovqa train`",
    },
    "Micro-batches, quartiles and memory: docs/gpu/CARD.json; what each row means: docs/gpu/README.md.",
)
KOREAN = Words(
    "아직 GPU에서 잰 수치가 없습니다. 계산으로는 H100 한 장에서 BEiT-3 large(224픽셀)를 기본값대로 컴파일해 학습할 때 "
    "초당 900개 이상이 예상됩니다. 직접 재려면 `python bench/gpu_speed.py`를 실행한 뒤 "
    "`python bench/gpu_table.py`를 실행하세요.",
    ("카드", "드라이버, torch, 날짜"),
    {
        "training": "large 224 학습, 초당 예제 수 (데이터시트 bf16 최고 성능 대비, 실측 행렬곱 대비)",
        "compiled": "컴파일한 경우",
        "torchscale": "torchscale 0.2.0; SDPA를 쓴 경우",
        "base": "base 480 학습, 초당 예제 수",
        "answers": "base 224 답변, 초당 예제 수: 16비트; fp32",
        "idle": "`kovqa train` 전체에서 GPU가 쉰 시간",
    },
    "마이크로배치, 사분위수, 메모리는 docs/gpu/CARD.json에, 각 행의 뜻은 docs/gpu/README.md에 있습니다.",
)
PAGES = {"docs/measured.md": ENGLISH, "docs/measured.ko.md": KOREAN}


def contestant(report: Mapping[str, Any], row: int, name: str) -> Mapping[str, Any] | None:
    """What a contestant of a row measured; None where it was left out."""
    found = report["rows"].get(str(row), {}).get("contestants", [])
    return next((one for one in found if one["name"] == name), None)


def rate(report: Mapping[str, Any], row: int, name: str) -> str:
    """Examples a second of a contestant, or a dash."""
    one = contestant(report, row, name)
    return f"{one['examples_per_second']:,.0f}" if one else ENGLISH.missing


def percent(share: float) -> str:
    """As both pages write it."""
    return f"{100 * share:.0f} %"


def shares_of_peak(report: Mapping[str, Any], row: int, name: str) -> str:
    """The share of the data sheet's peak, and of the measured product, that a contestant's products reach."""
    one = contestant(report, row, name)
    flops = one.get("flops") if one else None
    if one is None or not flops:
        return ""
    reached = flops / one["seconds"][1]
    sheet = next((peak for card, peak in DATA_SHEET.items() if card in report["card"]), None)
    product = report["rows"].get("0", {}).get("numbers", {}).get("product_flops_per_second")
    shares = [percent(reached / peak) if peak else ENGLISH.missing for peak in (sheet, product)]
    return f" ({'; '.join(shares)})"


def cells(report: Mapping[str, Any]) -> dict[str, str]:
    """Key of a row of the table -> its cell for one card."""
    idle = report["rows"].get("12", {}).get("numbers", {}).get("idle share")
    return {
        "training": rate(report, 1, "kovqa") + shares_of_peak(report, 1, "kovqa"),
        "compiled": rate(report, 5, "kovqa, compiled"),
        "torchscale": f"{rate(report, 1, 'torchscale')}; {rate(report, 1, 'torchscale, SDPA')}",
        "base": rate(report, 2, "kovqa"),
        "answers": f"{rate(report, 3, 'kovqa, 16 bits, base 224')}; {rate(report, 3, 'kovqa, fp32, base 224')}",
        "idle": ENGLISH.missing if idle is None else percent(idle),
    }


def make_table(reports: Sequence[Mapping[str, Any]], words: Words) -> str:
    """The table, a column for each card; or the line that there is none."""
    if not reports:
        return words.none
    made = [cells(report) for report in reports]
    lines = [f"| {words.heads[0]} | " + " | ".join(str(report["card"]) for report in reports) + " |"]
    lines.append("|" + "---|" * (len(reports) + 1))
    about = [
        f"{report['driver'] or words.missing}, {report['versions']['torch']}, {str(report['date'])[:10]}"
        for report in reports
    ]
    lines.append(f"| {words.heads[1]} | " + " | ".join(about) + " |")
    lines += [
        f"| {title} | " + " | ".join(of[key] for of in made) + " |" for key, title in words.rows.items()
    ]
    return "\n".join(lines) + f"\n\n{words.measured}"


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """What was measured, by name of the card; files of tiny shapes are none."""
    reports = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    return [report for report in reports if not report["tiny"]]


def with_table(page: str, table: str) -> str:
    """The page with its table between the marks; raises a ValueError where it has none."""
    if page.count(FIRST) != 1 or page.count(LAST) != 1:
        raise ValueError(f"{FIRST} and {LAST} must stand in the page once")
    pattern = re.escape(FIRST) + ".*?" + re.escape(LAST)
    return re.sub(pattern, lambda _: f"{FIRST}\n{table}\n{LAST}", page, flags=re.DOTALL)


def main() -> None:
    """Write both pages, or see that they are as the files say."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true")
    asked = parser.parse_args()
    reports = read_reports(RESULTS)
    for name, words in PAGES.items():
        path = ROOT / name
        page = path.read_text("utf-8")
        new = with_table(page, make_table(reports, words))
        if asked.check and new != page:
            sys.exit(f"{name} is not as docs/gpu says: python bench/gpu_table.py")
        if not asked.check:
            path.write_text(new, "utf-8")


if __name__ == "__main__":
    main()
