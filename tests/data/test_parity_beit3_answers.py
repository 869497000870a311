"""Answers: the VQAv2 normal form, list of classes and soft scores."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from kovqa_core.data.answers import choose_answer_classes, normalise_vqav2, read_answers, soft_score

from tests import parity

_OFTEN = 9  # times an answer of train and val must occur to become a class, a rule of VQAv2


def annotations() -> dict[str, list[dict[str, Any]]]:
    """VQAv2 annotations by split."""
    files = sorted(parity.path("vqav2/input/vqa").glob("v2_mscoco_*_annotations.json"))
    assert files
    by_split = {file.name.split("_")[2].rstrip("0123456789"): file for file in files}
    return {split: json.loads(file.read_text("utf-8"))["annotations"] for split, file in by_split.items()}


def classes() -> list[str]:
    return read_answers(parity.path("vqav2/expected/answer2label.txt"))


def test_parity_beit3_normalised_answers() -> None:
    pairs = parity.json_of("expected_vqa_normalize.json")
    assert pairs
    for raw, expected in pairs:
        assert normalise_vqav2(raw) == expected, repr(raw)


def test_parity_beit3_vqav2_classes() -> None:
    """The same classes; the original's order (first come, first served) is read from its file."""
    rows = [row for split in annotations().values() for row in split]
    counts = Counter(normalise_vqav2(row["multiple_choice_answer"]) for row in rows)
    assert sorted(choose_answer_classes(counts, _OFTEN)) == sorted(classes())


def test_parity_beit3_vqav2_classes_are_read_in_order() -> None:
    lines = parity.path("vqav2/expected/answer2label.txt").read_text("utf-8").splitlines()
    assert {answer: label for label, answer in enumerate(classes())} == {
        row["answer"]: row["label"] for row in map(json.loads, lines)
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_parity_beit3_vqav2_soft_scores(split: str) -> None:
    """One annotator of ten gives 0.3, two 0.6, three 0.9, four or more 1."""
    label = {answer: i for i, answer in enumerate(classes())}
    by_id = {row["question_id"]: row for row in annotations()[split]}
    lines = parity.path(f"vqav2/expected/vqa.{split}.jsonl").read_text("utf-8").splitlines()
    assert lines
    for expected in map(json.loads, lines):
        counts = Counter(answer["answer"] for answer in by_id[expected["qid"]]["answers"])
        ours = {label[answer]: soft_score(n) for answer, n in counts.items() if answer in label}
        assert ours == dict(zip(expected["labels"], expected["scores"], strict=True)), expected["qid"]
