"""What tables and pages show in Korean, while `--json` keeps its English words."""

from __future__ import annotations

import json
from pathlib import Path

from kovqa_core.messages import message, worded_message
from kovqa_core.messages.languages import translate

from tests.conftest import Kovqa


def test_a_text_of_a_data_file_has_its_own_words() -> None:
    text = worded_message("anyone", ko="누구나")
    assert translate(message("cli.asset-who", "who may use it: {who}", who=text), "ko").endswith("누구나")
    assert [str(text), translate(text, "en"), translate(text, "ko")] == ["anyone", "anyone", "누구나"]
    assert translate(worded_message("CC BY 4.0", ko=""), "ko") == "CC BY 4.0"


def test_assets_and_runs(kovqa: Kovqa, tmp_path: Path) -> None:
    (tmp_path / "runs" / "첫실험").mkdir(parents=True)
    (tmp_path / "runs" / "첫실험" / "last").write_text("step-000001\n", "utf-8")
    (tmp_path / "runs" / "첫실험" / "manifest.json").write_text("{", "utf-8")
    table = kovqa("runs", "--root", str(tmp_path / "runs"), KOVQA_LANG="ko").stdout
    assert "읽을 수 없음: " in table
    assert "최고 점수" in table
    values = kovqa("runs", "--root", str(tmp_path / "runs"), "--json", KOVQA_LANG="ko").stdout
    assert json.loads(values)["runs"][0]["state"] == "broken"
    page = tmp_path / "page.html"
    kovqa("runs", "page", str(tmp_path / "runs" / "첫실험"), "-o", str(page), KOVQA_LANG="ko")
    text = page.read_text("utf-8")
    assert '<span lang="ko">파일이 없습니다' in text
    assert '<span lang="en">no such file' in text
    details = kovqa("download", "--list", "karpathy", KOVQA_LANG="ko").stdout
    assert "누구나" in details
