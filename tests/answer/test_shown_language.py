"""Texts that are put together of others are shown in the user's language, all of them."""

from __future__ import annotations

import re

import pytest
import torch
from kovqa_core.answer.fingerprint_differences import describe_differences
from kovqa_core.answer.job import describe_fault
from kovqa_core.messages import message
from kovqa_core.messages.languages import translate
from kovqa_core.models.beit3.weights_problems import (
    misshapen_weight,
    missing_weight,
    unfitting_weights_error,
    unknown_weight,
)
from kovqa_core.runs.events import report_warning


def is_korean(text: str, *names: str) -> bool:
    """Has a text no English word besides these names?"""
    return not set(re.findall(r"[A-Za-z]{3,}", translate(text, "ko"))) - set(names)


def test_differences_of_answers() -> None:
    text = describe_differences(
        {"model": "a", "table": "1", "top_k": 2, "precision": "bf16"}, {"model": "b", "table": "2"}
    )
    assert text.startswith("of another model (a, not b) and to another table and with another number")
    assert is_korean(text, "top", "precision")


def test_what_is_wrong_with_a_row() -> None:
    fault = message("answer.row-twice", "the same question is in an earlier row")
    assert describe_fault("7", fault) == "id 7: the same question is in an earlier row"
    assert is_korean(describe_fault("7", fault))


def test_weights_that_do_not_fit() -> None:
    one, two = torch.ones(2, 3), torch.ones(4)
    problems = [
        missing_weight("a"),
        unknown_weight("b"),
        misshapen_weight("c", [one, two], one),
        *[missing_weight("d")] * 2,
    ]
    error = unfitting_weights_error("w.pth", problems, (), {"e": one})
    assert error.message.endswith("a is missing; b is unknown; c is [2, 3] + [4], wanted [2, 3] and 2 more")
    assert is_korean(error.message, "pth")


def test_a_warning_of_the_engine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("KOVQA_LANG", "ko")
    report_warning(message("answer.row-twice", "the same question is in an earlier row"))
    assert is_korean(capsys.readouterr().err.removeprefix("kovqa: "))
