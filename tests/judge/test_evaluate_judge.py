"""kovqa evaluate --judge: the command, from the index of a judged set to the score."""

from __future__ import annotations

import json
from pathlib import Path

from kovqa_core.data.benchmark_sets import CRITERIA_COLUMN

from tests.conftest import Kovqa
from tests.judge.test_judge_answers import JudgeServer, judge, pairs  # noqa: F401 - a fixture
from tests.tools.benchmark_index import write_benchmark_index

COLUMNS: dict[str, object] = {CRITERIA_COLUMN: "- 10점: 하늘"}


def test_scores_of_a_judged_set(kovqa: Kovqa, judge: JudgeServer, tmp_path: Path) -> None:  # noqa: F811
    rows = pairs(COLUMNS, 11)
    split = write_benchmark_index(tmp_path / "색인", "koffvqa", [example for example, _ in rows], tmp_path)
    lines = [json.dumps({"id": example.id, "answer": answer}, ensure_ascii=False) for example, answer in rows]
    (tmp_path / "답.jsonl").write_text("\n".join(lines), "utf-8")
    judge.verdicts = {f"답 {n}": f"점수: {n % 3 * 5}/10" for n in range(10)} | {"답 10": "모르겠습니다."}
    words = ["evaluate", "답.jsonl", "--index", split]
    done = kovqa(*words, "--judge", judge.url, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["score"], document["protocol"], document["all"]["rows"]) == (0.45, "criteria-judge", 10)
    said = document["judge"]
    assert (said["model"], said["prompt"], said["new_verdicts"]) == ("Qwen/작은-VL", "kovqa", 11)
    assert said["without_verdict"] == ["Q10"]
    assert "1 rows have no verdict and count nowhere (first: id Q10" in done.stderr
    table = kovqa(*words, "--judge", judge.url, "--report", "보고서.html")
    assert table.returncode == 0, table.stderr
    assert "45.0%" in table.stdout
    assert "judged by Qwen/작은-VL with kovqa's own prompt" in table.stderr
    assert "0 new verdicts" in table.stderr
    assert "Qwen/작은-VL" in (tmp_path / "보고서.html").read_text("utf-8")
    # What is not said, or said of nobody, is refused.
    for others, problem in (
        ([], "criteria-judge is the points of a judge, and none was asked"),
        (["--judge-model", "x"], "there is none"),
        (["--judge", judge.url, "--normalise", "korean"], "a normal form of its own"),
        (["--judge", judge.url, "--protocol", "exact"], "no judge is asked by the protocol 'exact'"),
        (["--judge", judge.url, "--judge-model", "없는 모델"], "does not exist"),
    ):
        refused = kovqa(*words, *others)
        assert (refused.returncode, problem in refused.stderr) == (2, True), (others, refused.stderr)
        assert "Traceback" not in refused.stderr
