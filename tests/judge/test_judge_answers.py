"""A judge on a real server: every answer judged once, what it said kept, what it cannot judge said."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kovqa_core.answer.server_requests import ServedModel
from kovqa_core.data.benchmark_sets import CRITERIA_COLUMN, DESCRIPTION_COLUMN, REFERENCE_COLUMN
from kovqa_core.data.example import Example
from kovqa_core.errors import AssetError, DataError, SettingsError
from kovqa_core.evaluate.answer_scores import AnswerScores, score_answers
from kovqa_core.judge.judge_answers import (
    JudgedAnswers,
    JudgeOptions,
    _make_requests,
    is_korean,
    judge_answers,
)
from kovqa_core.judge.judge_points import rows_without_verdict, verdict_points
from kovqa_core.judge.judge_prompts import find_judge_form
from kovqa_core.judge.verdict_file import read_verdict_file, request_key

from tests.answer.server import MODEL, Reply, Vllm

ROWS = 12
CUT = "✂"  # at the end of a reply whose tokens ran out there


class JudgeServer(Vllm):
    """Gives the points that its table has for an answer; a text instead of points is its whole reply."""

    def __init__(self) -> None:
        super().__init__()
        self.verdicts: dict[str, str | int] = {}
        self.prompts: list[str] = []

    def answer(self, body: dict[str, Any]) -> Reply | str:
        if body["model"] not in self.models:
            return super().answer(body)
        prompt = _prompt(body)
        self.prompts.append(prompt)
        [answer] = re.findall(r"답변\]\n(답 \d+)\n", prompt)
        verdict = self.verdicts[answer]
        if isinstance(verdict, int):
            return verdict, {}, {"error": {"message": "not now"}}
        text, reason = (verdict[:-1], "length") if verdict.endswith(CUT) else (verdict or None, "stop")
        return 200, {}, {"choices": [{"message": {"content": text}, "finish_reason": reason}]}


def _prompt(body: dict[str, Any]) -> str:
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Iterator[JudgeServer]:
    monkeypatch.setattr("tests.answer.server.question_of", _prompt)
    server = JudgeServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()


def pairs(columns: dict[str, object], rows: int = ROWS) -> list[tuple[Example, str]]:
    """Rows of two categories, two an image."""
    return [
        (
            Example(f"Q{n}", f"{n // 2}.png", f"{n}번 질문?", question_type="장면" if n % 3 else "글자", columns=columns),
            f"답 {n}",
        )
        for n in range(rows)
    ]  # fmt: skip


def ask(judge: JudgeServer, protocol: str, rows: list[tuple[Example, str]], file: Path) -> JudgedAnswers:
    return judge_answers(rows, protocol, JudgeOptions(judge.url, concurrency=3), file, Path())


def score(judged: JudgedAnswers) -> AnswerScores:
    points = verdict_points(judged)
    rows = [(row.example, "") for row in judged.rows if row.example.id in points]
    return score_answers(rows, protocol=judged.protocol, points=points)


def test_criteria_are_scored_by_hand_computed_values(judge: JudgeServer, tmp_path: Path) -> None:
    points = [n % 11 for n in range(ROWS)]
    judge.verdicts = {f"답 {n}": f"기준을 봅니다.\n점수: {points[n]}/10" for n in range(ROWS)}
    rows, file = pairs({CRITERIA_COLUMN: "- 5점: 하늘\n- 5점: 파랑"}), tmp_path / "답.verdicts.jsonl"
    judged = ask(judge, "criteria-judge", rows, file)
    scores = score(judged)
    assert (judged.judge, judged.asked, scores.total.rows, scores.unanswered) == (MODEL, ROWS, ROWS, 0)
    assert scores.total.score == pytest.approx(np.mean(points) / 10)
    assert {each.name: each.score for each in scores.question_types} == {
        "글자": pytest.approx(np.mean(points[::3]) / 10),
        "장면": pytest.approx(np.mean([p for n, p in enumerate(points) if n % 3]) / 10),
    }
    assert scores.total.low < scores.total.score < scores.total.high
    assert "- 5점: 파랑" in judge.prompts[0]
    # A second run asks for nothing; one answer that changed, for one verdict.
    assert ask(judge, "criteria-judge", rows, file).asked == 0
    judge.verdicts["답 99"] = "점수: 10/10"
    again = ask(judge, "criteria-judge", [*rows[:-1], (rows[-1][0], "답 99")], file)
    assert (again.asked, again.rows[-1].verdict.points) == (1, 10)  # type: ignore[union-attr]


def test_the_share_of_the_references_points(judge: JudgeServer, tmp_path: Path) -> None:
    given = [(n % 5 + 5, n % 7 + 2) for n in range(ROWS)]
    judge.verdicts = {f"답 {n}": f"{reference} {points}\n이유" for n, (reference, points) in enumerate(given)}
    columns: dict[str, object] = {REFERENCE_COLUMN: "파란 하늘입니다.", DESCRIPTION_COLUMN: "하늘"}
    scores = score(ask(judge, "reference-judge", pairs(columns), tmp_path / "v.jsonl"))
    references, points = np.array(given).mean(axis=0)
    assert scores.total.score == pytest.approx(points / references)


def test_a_failure_keeps_what_was_said_and_the_next_run_goes_on(judge: JudgeServer, tmp_path: Path) -> None:
    rows, file = pairs({CRITERIA_COLUMN: "10점: 하늘"}), tmp_path / "v.jsonl"
    judge.verdicts = {f"답 {n}": "점수: 5/10" for n in range(ROWS)} | {"답 8": 501}
    with pytest.raises(AssetError):
        ask(judge, "criteria-judge", rows, file)
    kept = len(read_verdict_file(file))
    assert 1 <= kept < ROWS
    with file.open("ab") as stream:
        stream.write(b'{"key": "torn')  # killed while it wrote
    judge.verdicts["답 8"] = "점수: 5/10"
    done = ask(judge, "criteria-judge", rows, file)
    assert (done.asked, score(done).total.score) == (ROWS - kept, 0.5)
    assert len({json.loads(line)["id"] for line in file.read_text("utf-8").splitlines()}) == ROWS


def test_rows_without_a_verdict_are_said_and_not_counted(judge: JudgeServer, tmp_path: Path) -> None:
    rows, file = pairs({CRITERIA_COLUMN: "10점: 하늘"}), tmp_path / "v.jsonl"
    judge.verdicts = {f"답 {n}": "점수: 8/10" for n in range(ROWS)} | {"답 3": "잘 모르겠습니다."}
    judged = ask(judge, "criteria-judge", rows, file)
    scores = score(judged)
    assert (scores.total.rows, scores.total.score) == (ROWS - 1, pytest.approx(0.8))
    [missing] = rows_without_verdict(judged)
    assert missing.example.id == "Q3"
    assert "잘 모르겠습니다." in missing.problem
    judge.verdicts |= {"답 4": 400, "답 5": 400}
    judged = ask(judge, "criteria-judge", rows, tmp_path / "other.jsonl")
    with pytest.raises(DataError, match=r"3 of 12 rows .* id Q3"):
        verdict_points(judged)
    assert len(read_verdict_file(tmp_path / "other.jsonl")) == ROWS - 2  # what was refused is asked again


def test_a_reply_that_was_cut_or_is_none_is_no_verdict(judge: JudgeServer, tmp_path: Path) -> None:
    """Points of one criterion are not the answer's; where points stand first, a reply may be cut behind them."""
    rows, file = pairs({CRITERIA_COLUMN: "10점: 하늘"}, 3), tmp_path / "v.jsonl"
    judge.verdicts = {"답 0": "점수: 8/10", "답 1": f"기준 1 점수: 2\n기준 2{CUT}", "답 2": ""}
    for _ in range(2):  # the second time from the file, but for what was none
        judged = ask(judge, "criteria-judge", rows, file)
        assert [row.verdict and row.verdict.points for row in judged.rows] == [8, None, None]
        assert "cut before its end" in judged.rows[1].problem and "gives no text" in judged.rows[2].problem
    assert judged.asked == 1
    columns: dict[str, object] = {REFERENCE_COLUMN: "하늘", DESCRIPTION_COLUMN: "하늘"}
    judge.verdicts = {"답 0": f"8 7\n이유는{CUT}"}
    (row,) = ask(judge, "reference-judge", pairs(columns, 1), file).rows
    assert row.verdict and row.verdict.points == 7


def test_a_file_of_other_lines_is_left_as_it_is(tmp_path: Path) -> None:
    for text in ('{"answer": "아님"}\n끝', '{"key": "k", "id": "1", "judge": "j", "reply": 5}\n'):
        file = tmp_path / "v.jsonl"
        file.write_text(text, "utf-8")
        with pytest.raises(DataError, match=r"v\.jsonl:1: not a verdict"):
            read_verdict_file(file)
        assert file.read_text("utf-8") == text


def test_a_judge_that_sees_the_image_is_asked_about_each() -> None:
    """The verdict on the same words about another image is another's."""
    pair = (Example("1", "a.png", "?"), "빨강")
    both = [pair, (replace(pair[0], id="2", image="b.png"), pair[1])]
    form = find_judge_form("criteria-judge")
    for served, different in (
        (ServedModel(id="j", owned_by="kovqa", task="vqa"), 2),
        (ServedModel(id="j"), 1),
    ):
        requests = _make_requests(form, served, both, [{"criteria": "10점"}] * 2)
        assert len({request_key("http://x/v1", "j", request) for request in requests.values()}) == different


def test_a_judge_s_options_are_named(judge: JudgeServer, tmp_path: Path) -> None:
    rows = pairs({CRITERIA_COLUMN: "10점: 하늘"}, 1)
    judge.models = ["하나", "둘"]
    with pytest.raises(SettingsError) as several:
        ask(judge, "criteria-judge", rows, tmp_path / "v.jsonl")
    assert several.value.hint == "choose one: --judge-model NAME"
    with pytest.raises(SettingsError, match="--judge ftp://x is not"):
        judge_answers(rows, "criteria-judge", JudgeOptions("ftp://x"), tmp_path / "v.jsonl", Path())


def test_an_answer_without_korean_is_worth_nothing_and_costs_nothing(
    judge: JudgeServer, tmp_path: Path
) -> None:
    rows = pairs({CRITERIA_COLUMN: "10점: 하늘"}, 4)
    answers = ["답 0", "a blue sky", "", "답 3"]
    judge.verdicts = {"답 0": "점수: 10/10", "답 3": "점수: 10/10"}
    given = [(example, answer) for (example, _), answer in zip(rows, answers, strict=True)]
    judged = ask(judge, "criteria-judge", given, tmp_path / "v.jsonl")
    assert (judged.asked, judged.not_korean) == (2, ["Q1", "Q2"])
    assert score(judged).total.score == 0.5
    assert [is_korean(text) for text in ("3,000", "A동", "ㅋㅋ", "LG", "青")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_a_row_without_the_column_is_named(judge: JudgeServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"id Q0: no column {CRITERIA_COLUMN}"):
        ask(judge, "criteria-judge", pairs({}), tmp_path / "v.jsonl")
    assert not judge.prompts
