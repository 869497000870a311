"""VQAv2 from the challenge's files to its submission, on drawn scenes: index, train, predict, submit, score."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest
from kovqa_core.data.answers import normalise_vqav2
from kovqa_core.demo.scenes import make_scene, paint_scene

from tests.conftest import SMALL, Kovqa, Small, sets

PARTS = {"train2014": (1, 24), "val2014": (101, 8), "test2015": (201, 6)}


@pytest.fixture(scope="module")
def challenge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, questions and the ten answers of each, as the challenge hands them out."""
    root = tmp_path_factory.mktemp("vqav2")
    (root / "vqa").mkdir()
    for part, (first, count) in PARTS.items():
        (root / part).mkdir()
        questions: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(first, first + count):
            rng = random.Random(number)
            scene = make_scene(rng)
            paint_scene(scene, 64).save(root / part / f"COCO_{part}_{number:012}.jpg")
            for turn, truth in enumerate((str(len(scene.things)), "Yes")):
                id = number * 10 + turn
                text = ("How many shapes are there?", "Is there a shape?")[turn]
                given = [
                    truth if rng.random() < 0.7 else rng.choice(("No.", "2", "two", "a circle"))
                    for _ in range(10)
                ]
                questions.append({"question_id": id, "image_id": number, "question": text})
                annotations.append({
                    "question_id": id, "image_id": number, "multiple_choice_answer": truth,
                    "answer_type": ("number", "yes/no")[turn],
                    "answers": [{"answer": a, "answer_id": n, "answer_confidence": "yes"} for n, a in enumerate(given, 1)],
                })  # fmt: skip
        file = root / "vqa" / f"v2_OpenEnded_mscoco_{part}_questions.json"
        file.write_text(json.dumps({"questions": questions}))
        if part != "test2015":
            (root / "vqa" / f"v2_mscoco_{part}_annotations.json").write_text(
                json.dumps({"annotations": annotations})
            )
    return root


def official_score(answer: str, given: list[str]) -> float:
    """The challenge's rule: min(agreeing / 3, 1), averaged over the ten sets of nine annotators."""
    normal = [normalise_vqav2(one) for one in given]
    sets_of_nine = itertools.combinations(normal, len(normal) - 1)
    return sum(min(nine.count(normalise_vqav2(answer)) / 3, 1) for nine in sets_of_nine) / len(normal)


def test_from_the_challenges_files_to_its_submission(
    kovqa: Kovqa, small: Small, challenge: Path, tmp_path: Path
) -> None:
    done = kovqa("index", "vqav2", "--root", challenge, "-o", "index", "--min-count", 1)
    assert done.returncode == 0, done.stderr
    files = ["--data", "index", "--tokenizer", small.tokenizer, "-o", "run"]
    done = kovqa(
        "train", "-r", "tiny", "-p", "cpu", *files, *sets(*SMALL, "optim.steps=10", "eval.every_steps=10")
    )
    assert done.returncode == 0, done.stderr
    for split in ("val", "test"):
        words = ["predict", "--model", "run", "--input", f"index/{split}.jsonl", "-o", f"{split}.jsonl"]
        assert kovqa(*words).returncode == 0

    sample = challenge / "vqa" / "v2_OpenEnded_mscoco_test2015_questions.json"
    done = kovqa("submit", "vqav2", "--predictions", "test.jsonl", "--sample", sample, "-o", "results.json")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "results.json").read_text("utf-8"))
    asked = [row["question_id"] for row in json.loads(sample.read_text())["questions"]]
    assert isinstance(results, list)
    assert all(set(row) == {"question_id", "answer"} for row in results)
    assert all(type(row["question_id"]) is int and type(row["answer"]) is str for row in results)
    assert sorted(row["question_id"] for row in results) == sorted(asked)

    said = {
        row["id"]: row["answer"] for row in map(json.loads, (tmp_path / "val.jsonl").read_text().splitlines())
    }
    truth = json.loads((challenge / "vqa" / "v2_mscoco_val2014_annotations.json").read_text())["annotations"]
    scores = [
        official_score(said[str(row["question_id"])], [one["answer"] for one in row["answers"]])
        for row in truth
    ]
    words = ["evaluate", "val.jsonl", "--index", "index/val.jsonl", "--normalise", "vqav2", "--json"]
    found = json.loads(kovqa(*words).stdout)
    assert found["score"] == pytest.approx(sum(scores) / len(scores), abs=1e-9)
    assert 0 < found["score"] < 1
