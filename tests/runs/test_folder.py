"""What a run folder's small files say, and what is wrong with those that are damaged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, ModelError
from kovqa_core.runs.folder import (
    ERROR_FILE,
    RESULT_FILE,
    RunError,
    RunResult,
    find_model_folder,
    read_error,
    read_result,
)

# As version 0.1.0 wrote it.
RESULT = {
    "schema": 1, "task": "vqa", "recipe": "tiny", "steps": 6, "best": "step-000006", "best_score": 0.5,
    "last_score": 0.25, "seconds": 3.5, "examples_per_second": 12.0,
}  # fmt: skip


def test_a_result_of_an_earlier_version_has_no_metric(tmp_path: Path) -> None:
    assert read_result(tmp_path) is None
    (tmp_path / RESULT_FILE).write_text(json.dumps({**RESULT, "of a later version": 1}))
    assert read_result(tmp_path) == RunResult("vqa", "tiny", 6, "step-000006", 0.5, 0.25, 3.5, 12.0, None)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("[]", "an object is expected"),
        ("3", "an object is expected"),
        ('{"steps": 6}', "the key task is missing"),
        ({"steps": "six"}, "steps: Input should be a valid integer"),
        ({"task": "both"}, r"task: .*\(given: 'both'\)"),
        ({"seconds": float("inf")}, "seconds: "),
        ({"best": ["step-000006"]}, "best: "),
    ],
)
def test_a_damaged_result_is_named_with_its_key(tmp_path: Path, damage: object, said: str) -> None:
    text = damage if isinstance(damage, str) else json.dumps({**RESULT, **damage})
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(DataError, match=rf"result\.json: {said}"):
        read_result(tmp_path)


def test_a_pipe_or_a_folder_in_the_place_of_a_file_is_said_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / RESULT_FILE)
    with pytest.raises(DataError, match="is not a file"):
        read_result(tmp_path)
    (tmp_path / ERROR_FILE).mkdir()
    with pytest.raises(DataError, match="cannot read"):
        read_error(tmp_path)


def test_an_error_says_whether_the_run_was_only_stopped(tmp_path: Path) -> None:
    assert read_error(tmp_path) is None
    values = {"kind": "Stopped", "message": "stopped at step 4", "detail": "go on", "rank": 0}
    (tmp_path / ERROR_FILE).write_text(json.dumps(values))
    error = read_error(tmp_path)
    assert error == RunError(**values)
    assert error.stopped
    (tmp_path / ERROR_FILE).write_text("[]")
    with pytest.raises(DataError, match=r"error\.json: an object is expected"):
        read_error(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no kovqa model in "):
        find_model_folder(tmp_path, "vqa")
