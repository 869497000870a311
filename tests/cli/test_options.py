"""Options that several commands share."""

from __future__ import annotations

import pytest
from kovqa_core.errors import SettingsError

from kovqa_cli.options import parse_columns


def test_columns_are_pairs() -> None:
    assert parse_columns(None) == {}
    pairs = ["image=사진", "question=질문=한글", "image=사진"]
    assert parse_columns(pairs) == {"image": "사진", "question": "질문=한글"}


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["질문"], "--column 질문: expected OURS=THEIRS"),
        (["=질문"], "--column =질문: expected OURS=THEIRS"),
        (["question="], "--column question=: expected OURS=THEIRS"),
        (["split=a", "id=n", "split=b"], "--column split=b: split is already a"),
    ],
)
def test_what_is_no_pair_or_one_too_many_is_named(pairs: list[str], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_columns(pairs)
    assert str(caught.value.message) == expected
