"""Predictions with right and wrong answers about the small data set, and the pages made of them."""

from __future__ import annotations

import json
from pathlib import Path

from kovqa_core.index.reader import open_index
from PIL import Image

from tests.conftest import Small

HOSTILE = '<script>document.title="taken"</script>'
ATTRIBUTE = '"><img src="http://example.invalid/x.png" onerror="document.title=1">'


def predict(small: Small, path: Path) -> Path:
    """Every third answer wrong; the first two are meant to break a page."""
    examples = list(open_index(small.index).split("test"))
    said = [max(e.answers) if n % 3 else "틀린 답" for n, e in enumerate(examples)]
    said[:2] = [HOSTILE, ATTRIBUTE]
    rows = [{"id": e.id, "answer": text, "score": 0.5} for e, text in zip(examples, said, strict=True)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def captioned(small: Small, folder: Path) -> tuple[Path, Path]:
    """An index split with captions of the small data set's pictures, and predictions for it."""
    examples = {e.image: e for e in open_index(small.index).split("test")}.values()
    index, predictions = folder / "captions.jsonl", folder / "said.jsonl"
    rows = [
        {
            "id": f"그림 {n}",
            "image": e.image,
            "question": "",
            "captions": [f"도형이 {n + 2}개 있는 그림", "도형 그림"],
        }
        for n, e in enumerate(examples)
    ]
    said = [{"id": row["id"], "caption": row["captions"][n % 2], "score": 0.25} for n, row in enumerate(rows)]
    for path, lines in ((index, rows), (predictions, said)):
        path.write_text(
            "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
        )
    return index, predictions


def numbered(folder: Path) -> tuple[Path, Path, Path]:
    """An index whose texts are digits and signs, two files of predictions: what else a page says are its own words.

    Of 40 questions about 20 images, A has 28 right and B 24: 16 both, 12 A alone, 8 B alone. Question 1 of every image is
    of the type "1", 2 of "2". A's confidence is 0.95 for 20 rows, of which 15 are right, 0.25 for 18, of which 11 are
    right, 7 for one (unusable), and one has none.
    """
    (folder / "images").mkdir()
    rows, a, b = [], [], []
    for n in range(40):
        truth = str(n % 4)
        a_right, b_right = n < 28, n < 16 or 28 <= n < 36
        rows.append(
            {
                "id": str(n),
                "image": f"{n // 2}.png",
                "question": "?",
                "answers": {truth: 1.0},
                "kind": str(1 + n % 2),
            }
        )
        a.append(
            {"id": str(n), "answer": truth if a_right else "7", "score": 0.95 if n < 15 or n >= 35 else 0.25}
        )
        b.append({"id": str(n), "answer": truth if b_right else "8"})
    a[15]["score"] = 7
    del a[16]["score"]
    # Training has seen 0 once, 1 five times, 2 never and 3 thirty times.
    seen = ["0", *5 * ["1"], *30 * ["3"]]
    training = [
        {"id": str(n), "image": "0.png", "question": "?", "answers": {answer: 1.0}}
        for n, answer in enumerate(seen)
    ]
    for n in range(20):
        Image.new("RGB", (32, 24), (12 * n, 90, 200)).save(folder / "images" / f"{n}.png")
    for name, lines in (("test", rows), ("train", training), ("1", a), ("2", b)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder / "test.jsonl", folder / "1.jsonl", folder / "2.jsonl"
