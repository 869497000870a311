"""The page about runs: what of a log is drawn, and what is said of folders that lack something."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from kovqa_core.errors import SettingsError
from kovqa_core.paths import without_home
from kovqa_core.runs.curve_charts import run_charts
from kovqa_core.runs.run_curves import (
    RunCurves,
    best_evaluation,
    distinct_names,
    in_step_order,
    read_curves,
    smooth_loss,
)
from kovqa_core.runs.run_page import MAX_RUNS, answer_stretches, write_run_page
from kovqa_core.runs.validation_samples import SAMPLE_ROWS, SAMPLES_FILE, choose_sample_rows, read_samples

from kovqa_cli.output.run_page import sparkline
from tests.runs.run_folders import copy_run, eval_row, falling_log, train_row, write_log, write_samples

COMPAT = Path(__file__).parents[1] / "fixtures" / "compat"


def curves(folder: Path) -> RunCurves:
    (read,) = read_curves([folder])
    return read


# ---------------------------------------------------------------------------------- curves


def test_a_log_that_goes_back_shows_what_was_done_last(trained: Path, tmp_path: Path) -> None:
    """An earlier version that was killed may have left lines beyond its checkpoint."""
    rows = [
        train_row(1),
        train_row(2, 5.0),
        train_row(3, 5.0),
        eval_row(3, 0.1),
        train_row(2, 2.0),
        eval_row(3, 0.4),
    ]
    run = curves(copy_run(trained, tmp_path / "r", rows))
    assert [(event.step, event.loss) for event in run.steps] == [(1, 1.0), (2, 2.0)]
    assert [(event.step, event.score) for event in run.evaluations] == [(3, 0.4)]


def test_time_is_what_the_log_says_of_speed(trained: Path, tmp_path: Path) -> None:
    """Batches of 8: 10 steps at 80 a second take one second."""
    rows = [train_row(10, speed=80), train_row(20, speed=160), train_row(30, speed=80)]
    run = curves(copy_run(trained, tmp_path / "r", rows))
    assert run.seconds == [1.0, 1.5, 2.5]
    assert [run.seconds_at(step) for step in (0, 5, 20, 25, 99)] == [0.0, 0.5, 1.5, 2.0, 2.5]


def test_a_smoothed_loss_is_a_mean_and_lags_behind_nothing() -> None:
    assert smooth_loss([4.0, 2.0]) == ([4.0, 2.0], 1)
    line = [float(number) for number in range(100)]
    smoothed, window = smooth_loss(line)
    assert window == 5
    assert smoothed == line
    noisy = smooth_loss([number % 2 for number in range(100)])[0]
    assert noisy[50] in (0.4, 0.6)
    assert smooth_loss([]) == ([], 1)


def test_the_best_score_is_the_first_of_equal_ones(trained: Path, tmp_path: Path) -> None:
    rows = [eval_row(1, 0.2), eval_row(2, 0.7), eval_row(3, 0.7), eval_row(4, 0.1)]
    best = best_evaluation(curves(copy_run(trained, tmp_path / "r", rows)))
    assert best is not None
    assert best.step == 2


def test_names_are_told_apart(tmp_path: Path) -> None:
    names = distinct_names([tmp_path / "가" / "run", tmp_path / "나" / "run", tmp_path / "나" / "다"])
    assert names == ["가/run", "나/run", "나/다"]
    assert distinct_names([tmp_path / "가" / "run", tmp_path / "나"]) == ["run", "나"]


def test_numbers_of_other_kinds_never_share_an_axis(trained: Path, tmp_path: Path) -> None:
    vqa = curves(copy_run(trained, tmp_path / "a", falling_log()))
    caption = curves(
        copy_run(trained, tmp_path / "b", [train_row(1), eval_row(1, 3.0, task="caption", metric="CIDEr")])
    )
    summary = replace(caption.details.summary, task="caption", metric="CIDEr")
    caption = replace(caption, details=replace(caption.details, summary=summary))
    charts = [chart.by_step for chart in run_charts([vqa, caption])]
    assert [chart.title.english for chart in charts] == [
        "Loss · beit3 vqa", "Loss · beit3 caption", "Validation score · accuracy", "Validation score · CIDEr",
        "Learning rate", "Examples per second",
    ]  # fmt: skip
    names = [{series.name for series in chart.series} for chart in charts]
    assert names == [{vqa.name}, {caption.name}, {vqa.name}, {caption.name}, *[{vqa.name, caption.name}] * 2]


# --------------------------------------------------------------------------------- samples


def test_the_samples_are_few_and_the_same_each_time() -> None:
    assert choose_sample_rows(3) == [0, 1, 2]
    chosen = choose_sample_rows(10_000)
    assert len(set(chosen)) == SAMPLE_ROWS
    assert chosen == choose_sample_rows(10_000) == sorted(chosen)


def test_samples_are_read_as_far_as_they_can_be(trained: Path, tmp_path: Path) -> None:
    folder = copy_run(trained, tmp_path / "r")
    write_samples(folder, {1: "예", 2: "예", 3: "아니요"})
    path = folder / SAMPLES_FILE
    lines = path.read_text("utf-8").splitlines()
    path.write_text(
        "\n".join([lines[0], "{}", lines[1], lines[2], lines[1], '{"kind": "ev']), encoding="utf-8"
    )
    samples, problems = read_samples(folder)
    assert [evaluation.step for evaluation in samples] == [1, 2]
    assert ["1 lines cannot be read" in problem for problem in problems] == [True]
    path.unlink()
    assert read_samples(folder) == ([], [])
    path.mkdir()
    assert [evaluations for evaluations, _ in [read_samples(folder)]] == [[]]
    assert len(read_samples(folder)[1]) == 1


def test_equal_answers_one_after_the_other_are_one_line(trained: Path, tmp_path: Path) -> None:
    folder = copy_run(trained, tmp_path / "r")
    write_samples(folder, {1: "예", 2: "예", 3: "없는 답", 5: "예"})
    run = curves(folder)
    example = run.samples[0].samples[0]
    stretches = answer_stretches(run, example.id)
    assert [(each.first, each.last, each.answer) for each in stretches] == [
        (1, 2, "예"),
        (3, 3, "없는 답"),
        (5, 5, "예"),
    ]
    assert [each.right for each in stretches] == ["예" in example.truth, False, "예" in example.truth]


# ------------------------------------------------------------------------------------ page


def test_a_page_of_whole_old_broken_and_unfinished_runs(trained: Path, tmp_path: Path) -> None:
    whole = copy_run(trained, tmp_path / "가나다 <b>", falling_log())
    write_samples(whole, {100: "예", 200: "아니요", 300: "아니요"})
    old = copy_run(trained, tmp_path / "옛것", falling_log(40))
    (old / SAMPLES_FILE).unlink()
    torn = copy_run(trained, tmp_path / "torn", falling_log(30))
    (torn / "result.json").unlink()
    with (torn / "log.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "st')
    failed = copy_run(trained, tmp_path / "failed", [])
    (failed / "result.json").unlink()
    (failed / "error.json").write_text(json.dumps({"kind": "DataError", "message": "no <i>image</i>"}))
    broken = copy_run(trained, tmp_path / "broken", falling_log(5))
    (broken / "run.yaml").write_text("- 1")
    foreign = copy_run(trained, tmp_path / "foreign", [train_row(1)])
    write_samples(foreign, {1: "예"})
    lines = (foreign / SAMPLES_FILE).read_text("utf-8")
    (foreign / SAMPLES_FILE).write_text(
        re.sub(r'"image": "[^"]*"', '"image": "../../secret.png"', lines), "utf-8"
    )
    runs = [whole, old, torn, failed, broken, foreign, whole]
    written = write_run_page(runs, tmp_path / "page.html")
    page = written.path.read_text("utf-8")
    assert len(written.runs) == 6, "a run that is named twice is shown once"
    assert "가나다 &lt;b&gt;" in page
    assert "no &lt;i&gt;image&lt;/i&gt;" in page
    assert "<b>&" not in page.replace("<b>가나다", "")
    assert page.count("이 실행에는 남은 답이 없습니다") == 1
    assert page.count("이미지 폴더 밖의 파일이라") == SAMPLE_ROWS
    assert "data:image/jpeg" in page
    assert "설정을 읽을 수 없는 실행" in page
    assert page.count("<svg") == page.count("</svg>") >= 2 * 4
    assert not re.search(r"""(src|href)=["'](?!data:)|https?:""", page)


@pytest.mark.parametrize("family", ["beit3", "caption", "fusion", "vlm"])
def test_runs_of_earlier_versions_have_a_page(tmp_path: Path, family: str) -> None:
    written = write_run_page([COMPAT / family / "run"], tmp_path / "page.html")
    page = written.path.read_text("utf-8")
    assert len(written.runs[0].steps) > 1
    assert "<svg" in page
    assert "이전 버전의 실행" in page


def test_a_run_of_others_takes_no_picture_from_anywhere(trained: Path, tmp_path: Path) -> None:
    """Its settings may name any folder as that of its images."""
    run = copy_run(trained, tmp_path / "r")
    settings = (run / "run.yaml").read_text("utf-8")
    (run / "run.yaml").write_text(settings.replace("images: null", "images: /"), "utf-8")
    write_samples(run, {6: "예"})
    written = write_run_page([run], tmp_path / "page.html")
    assert "anywhere below /" in written.problems[0][1]
    assert "data:image" not in written.path.read_text("utf-8")


def test_the_page_that_is_passed_on_names_no_home_folder(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Path(yaml.safe_load((trained / "run.yaml").read_text("utf-8"))["recipe"]["data"]["index"])
    monkeypatch.setenv("HOME", str(index.parent))
    page = write_run_page([trained], tmp_path / "page.html").path.read_text("utf-8")
    assert f"~/{index.name}" in page and str(index.parent) not in page
    assert without_home(f"{index.parent}s/a {index.parent}") == f"{index.parent}s/a ~"


def test_more_runs_than_can_be_told_apart_are_refused(trained: Path, tmp_path: Path) -> None:
    folders = [copy_run(trained, tmp_path / str(number)) for number in range(MAX_RUNS + 1)]
    with pytest.raises(SettingsError, match="at most 12"):
        write_run_page(folders, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_log_of_thousands_of_steps_makes_a_small_page(trained: Path, tmp_path: Path) -> None:
    folder = copy_run(trained, tmp_path / "r", falling_log(6_000))
    (folder / SAMPLES_FILE).unlink()
    assert write_run_page([folder], tmp_path / "page.html").path.stat().st_size < 400_000
    write_log(folder, falling_log(3))
    assert in_step_order(curves(folder).steps)


# ------------------------------------------------------------------------------- sparkline


def test_a_sparkline_is_as_wide_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([5.0, 5.0], 40) == "▁▁"
    assert len(sparkline([float(number) for number in range(1000)], 37)) == 37
    assert sparkline([8.0, 8.0, 0.0, 0.0], 2) == "█▁"

    class Korean:
        encoding = "cp949"

    monkeypatch.setattr("sys.stdout", Korean())
    assert sparkline([0, 1], 8) == "_#"
