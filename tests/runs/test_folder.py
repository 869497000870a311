"""What a run folder's small files say, and what is wrong with those that are damaged."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize("text", ["[]", "3", '{"steps": 6}'])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(DataError, match=r"result\.json does not hold the result of a run"):
        read_result(tmp_path)


def test_an_error_says_whether_the_run_was_only_stopped(tmp_path: Path) -> None:
    assert read_error(tmp_path) is None
    values = {"kind": "Stopped", "message": "stopped at step 4", "detail": "go on", "rank": 0}
    (tmp_path / ERROR_FILE).write_text(json.dumps(values))
    error = read_error(tmp_path)
    assert error == RunError(**values)
    assert error.stopped
    (tmp_path / ERROR_FILE).write_text("[]")
    assert read_error(tmp_path) is None


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no kovqa model in "):
        find_model_folder(tmp_path, "vqa")
