"""Writes what kovqa answers to each typed mistake: `python -m tests.cli.record_mistakes`; read the diff.

With words, only the mistakes that have them are answered, and printed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.tools.mistakes import RECORD, answer_mistakes, make_folder, read_mistakes, render


def main(words: list[str]) -> None:
    mistakes = [each for each in read_mistakes() if all(word in each.line for word in words)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "내 자료"
        make_folder(folder)
        texts = [render(*answer) for answer in answer_mistakes(mistakes, folder)]
    if words:
        print("\n".join(texts))
    else:
        RECORD.write_text("\n".join(texts), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
