"""What kovqa answers to a list of typed mistakes, word for word, in English and in Korean."""

from __future__ import annotations

import re
from pathlib import Path

from tests.tools.mistakes import RECORD, answer_mistakes, make_folder, read_mistakes, render

_HANGUL = re.compile("[가-힣]")
_CODE = re.compile(r" \[KOVQA-\d{4}\]")
# A sentence of English in a Korean line: four words with blanks alone between them.
_ENGLISH = re.compile(r"(?<![-\w./'])[a-z]{2,} [a-z]{2,} [a-z]{2,} [a-z]{2,}(?![\w./=-])")


def test_each_mistake_has_its_recorded_answer(tmp_path: Path) -> None:
    mistakes, folder = read_mistakes(), tmp_path / "내 자료"
    assert len({each.line for each in mistakes}) >= 150
    make_folder(folder)
    answers = answer_mistakes(mistakes, folder)
    recorded = RECORD.read_text("utf-8").split("\n\n")
    for answer, expected in zip(answers, recorded, strict=True):
        assert render(*answer).strip() == expected.strip()
    # Whatever was recorded: a line with a code in each language, and nothing on stdout.
    for mistake, outcome, texts in answers:
        assert outcome == f"[{mistake.code}]", mistake
        for text in texts:
            assert _CODE.search(text), mistake
            assert text.startswith("kovqa: ") and "\n" not in text, mistake
        korean = texts[1]
        assert "KOVQA_LANG" in mistake.environment or _HANGUL.search(korean.replace(mistake.typed, "")), (
            mistake
        )
        assert "KOVQA_LANG" in mistake.environment or not _ENGLISH.search(re.sub(r"kovqa \w+", "", korean)), (
            mistake
        )
