"""Predictions with right and wrong answers about the small data set, and the pages made of them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from kovqa_core.index.reader import open_index

from tests.browser import chromium
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


def browse(page: Path, profile: Path, *options: str, size: str = "1280,900") -> str:
    """Open a page in a browser that starts from nothing; what it printed."""
    quiet = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
        "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
    )  # fmt: skip
    done = subprocess.run(
        [chromium(), *quiet, f"--user-data-dir={profile}", "--host-resolver-rules=MAP * ~NOTFOUND", "--lang=ko",
         "--accept-lang=ko", f"--window-size={size}", "--virtual-time-budget=5000", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
