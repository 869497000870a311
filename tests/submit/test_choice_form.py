"""Answers to questions with choices, in the form that the contest's sample has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kovqa_core.errors import DataError, SettingsError
from kovqa_core.submit.submission import WrittenSubmission, write_submission

CHOICES = ["갑", "알 수 없음", "을"]
ANSWERS = {"T1": "을", "T2": "갑", "T3": "알 수 없음"}


def submitted(
    folder: Path, cells: str, *, header: str = "ID,answer", choices: bool = True, answers_as: str = "auto"
) -> tuple[WrittenSubmission, list[str]]:
    """The written file's answers, for a sample with these placeholders."""
    offered = {"choices": CHOICES} if choices else {}
    lines = [json.dumps({"id": id, "answer": text, **offered}) for id, text in ANSWERS.items()]
    (folder / "p.jsonl").write_text("\n".join(lines), "utf-8")
    rows = [f"{id},{cell}" for id, cell in zip(ANSWERS, cells.split("|"), strict=True)]
    (folder / "sample.csv").write_text("\n".join([header, *rows, ""]), "utf-8")
    out = folder / "제출.csv"
    written = write_submission("csv", folder / "p.jsonl", folder / "sample.csv", out, answers_as=answers_as)
    return written, [line.partition(",")[2] for line in out.read_text("utf-8").splitlines()[1:]]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ("A|A|A", "C|A|B"), ("B|C|A", "C|A|B"), ("0|0|0", "2|0|1"), ("1|1|1", "3|1|2"),
        ("||", "을|갑|알 수 없음"), ("갑|갑|갑", "을|갑|알 수 없음"), ("1.0|1|2", "을|갑|알 수 없음"),
        ("AB|AB|AB", "을|갑|알 수 없음"),
    ],
)  # fmt: skip
def test_answers_look_like_the_sample(tmp_path: Path, cells: str, expected: str) -> None:
    written, answers = submitted(tmp_path, cells, header="ID,label")
    assert answers == expected.split("|")
    assert any("--answers-as" in note for note in written.notes) == (expected[0] != "을")


def test_the_user_says_otherwise(tmp_path: Path) -> None:
    assert submitted(tmp_path, "A|A|A", answers_as="text")[1] == ["을", "갑", "알 수 없음"]
    written, answers = submitted(tmp_path, "||", answers_as="number-from-0")
    assert answers == ["2", "0", "1"] and not written.notes
    with pytest.raises(SettingsError, match="unknown way to write choices 'letters'"):
        submitted(tmp_path, "||", answers_as="letters")
    with pytest.raises(SettingsError, match="dacon takes texts alone"):
        write_submission(
            "dacon", tmp_path / "p.jsonl", tmp_path / "sample.csv", tmp_path / "s.csv", answers_as="letter"
        )


def test_predictions_without_choices_stay_texts(tmp_path: Path) -> None:
    written, answers = submitted(tmp_path, "A|A|A", choices=False)
    assert answers == list(ANSWERS.values()) and "no column choices" in written.notes[0]
    assert not submitted(tmp_path, "0|0|0", choices=False)[0].notes
    with pytest.raises(DataError, match="none of its row's choices: 3 ids: T1, T2, T3"):
        submitted(tmp_path, "0|0|0", choices=False, answers_as="letter")
