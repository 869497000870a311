"""What `kovqa evaluate` says of questions with an "unknown" choice, on the terminal and as JSON."""

from __future__ import annotations

import json

import pytest
from kovqa_core.data.example import Example
from kovqa_core.evaluate.abstention import AbstentionScores, score_abstention

from kovqa_cli.output.abstention import abstention_fields, print_abstention


def scored(confidence: dict[str, float], *, ambiguous: bool = True) -> AbstentionScores:
    rows = [
        Example(id, "a.png", "?", {true: 1.0}, choices=["갑", "모름"], unknown="모름")
        for id, true in {"1": "갑", "2": "모름" if ambiguous else "갑"}.items()
    ]
    found = score_abstention(rows, {"1": "갑", "2": "갑"}, confidence)
    assert found is not None
    return found


def test_the_best_threshold_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    print_abstention(scored({"1": 0.9, "2": 0.4}))
    out, err = capsys.readouterr()
    assert "balanced accuracy 50.0%" in err and "1 ambiguous rows 0.0%, 1 clear rows 100.0%" in err
    assert "--unknown-below 0.65" in " ".join(out.split())
    print_abstention(scored({"1": 0.4}))
    out, err = capsys.readouterr()
    assert "abstaining gains nothing" in " ".join(out.split()) and "1 answers have no score" in err


def test_json_has_null_for_what_is_not_defined() -> None:
    alone = abstention_fields(scored({"1": 0.9, "2": 0.4}, ambiguous=False))
    assert (alone["balanced_accuracy"], alone["best"], alone["ambiguous_score"]) == (None, None, None)
    both = abstention_fields(scored({"1": 0.9, "2": 0.4}))
    json.dumps(both, allow_nan=False)
    assert both["balanced_accuracy"] == 0.5
    assert both["best"] == {"below": 0.65, "coverage": 0.5, "answered_score": 1.0, "balanced": 1.0}
